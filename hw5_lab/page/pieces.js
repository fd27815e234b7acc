// The pieces of which all pages are made: controls, pictures, charts, what leaves the page. They know no model.
// No framework, no request, no clock.
"use strict";

const hw5 = (window.hw5 = {}); // what tests and the curious may call from the console

// ------------------------------------------------------------------------------------------------------------- state

/** A value that several panels show: set() tells all that watch it. */
function observable(value) {
  const watchers = [];
  return {
    get value() {
      return value;
    },
    set(next) {
      value = next;
      for (const watcher of watchers) watcher(next);
    },
    watch(watcher) {
      watchers.push(watcher);
    },
  };
}

/** What the page's address says after #: another address of the same page opens the same view. */
const view = new URLSearchParams(location.hash.slice(1));
/** Numbers of the address under a name; undefined where there are not `count` of them. */
function viewed(name, count) {
  const values = (view.get(name) ?? "").split(",").map(parseFloat);
  return values.length === count && values.every(Number.isFinite) ? values : undefined;
}
let keeping = 0;
/** Writes a value into the address, once the user pauses; undefined takes it away. */
function keep(name, value) {
  if (!built) return;
  value === undefined ? view.delete(name) : view.set(name, value);
  clearTimeout(keeping);
  keeping = setTimeout(readdress, 200);
}
const readdress = () => history.replaceState(null, "", `#${decodeURIComponent(view)}`);
/** Corrects what the address asked for to what the page shows instead. */
function amend(name, value) {
  if (!view.has(name) || view.get(name) === String(value)) return;
  view.set(name, value);
  readdress();
}
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const short = (values) => Array.from(values, (value) => +value.toFixed(3)).join(",");
addEventListener("hashchange", () => location.reload());

let built = false,
  speaking = 0; // while a page is built, nothing is said
/** Tells a screen reader, once the user pauses. */
function say(text) {
  clearTimeout(speaking);
  if (built)
    speaking = setTimeout(() => {
      document.getElementById("status").textContent = text;
    }, 400);
}

// -------------------------------------------------------------------------------------------------- pieces of a page

const plural = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;
const fixed = (x, digits = 1) => (+x.toFixed(digits) < 0 ? "−" : "") + Math.abs(x).toFixed(digits);
const tuple = (z) => {
  const text = Array.from(z, (value) => fixed(value, 2)).join(", ");
  return z.length > 1 ? `(${text})` : text;
};

/** A new element. Text goes in as text nodes: nothing of the user's is ever read as HTML. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

let made = 0; // numbers the identifiers that tie labels to controls
const unique = (name) => `${name}-${++made}`;

/** A section with a title and one sentence or two; `parts` come below. */
function panel(title, sentence, kind, ...parts) {
  const id = unique("panel"),
    heading = element("h2", { id }, title),
    hint = element("p", { class: "hint" }, sentence);
  const node = element("section", { class: `panel ${kind}`, "aria-labelledby": id }, heading, hint, ...parts);
  document.getElementById("panels").append(node);
  return node;
}

const box = (kind, ...parts) => element("div", { class: kind }, ...parts);
const row = (...parts) => box("row", ...parts);
const column = (...parts) => box("column", ...parts);
const subtitle = (text) => element("h3", {}, text);
const note = (text = "") => element("p", { class: "note" }, text);

function button(label, act, attributes = {}) {
  const node = element("button", { type: "button", ...attributes }, label);
  node.addEventListener("click", act);
  return node;
}

/** A labelled slider; show(value) is the text beside it. node.set(value) moves it without a call of act; the text has all
 *  digits of a value that lies between two steps. */
function slider(label, { min, max, step, value }, act, show = (x) => fixed(x, 2)) {
  const id = unique("slider"),
    input = element("input", { type: "range", id, min, max, step, value });
  const node = box("slider", element("label", { for: id }, label), element("span"), input);
  input.addEventListener("input", () => {
    node.set(+input.value);
    act(+input.value);
  });
  node.set = (x) => {
    input.value = x;
    node.children[1].textContent = show(x);
    input.setAttribute("aria-valuetext", show(x));
  };
  node.set(value);
  return node;
}
/** Whether the user can move a slider or choose from a list. */
const enable = (node, yes) => {
  node.querySelector("input, select").disabled = !yes;
};

/** A labelled list of which one entry is chosen; options [[value, label], ...]. */
function choice(label, options, act, chosen = options[0]?.[0]) {
  const id = unique("choice"),
    entries = options.map(([value, text]) => element("option", { value }, text));
  const select = element("select", { id }, ...entries);
  select.value = chosen;
  select.addEventListener("change", () => act(select.value));
  return box("choice", element("label", { for: id }, label), select);
}

/** A labelled box for yes or no. */
function tick(label, yes, act) {
  const input = element("input", { type: "checkbox" });
  input.checked = yes;
  input.addEventListener("change", () => act(input.checked));
  return element("label", { class: "tick" }, input, label);
}

/** A labelled box for a whole number from 0 on; node.set(value) shows another, or none for null, without a call of act. */
function number(label, act) {
  const id = unique("number"),
    input = element("input", { type: "number", id, min: 0, step: 1 });
  const node = box("choice", element("label", { for: id }, label), input);
  node.set = (value) => {
    input.value = value ?? "";
  };
  input.addEventListener("change", () => input.value && act(+input.value));
  return node;
}

/** A table of names and numbers, [[key, name, class], ...]; node.set({key: text}) fills it, node.clear() empties it. */
function readout(names) {
  const cells = Object.fromEntries(names.map(([key]) => [key, element("td", {}, "–")]));
  const line = ([key, name, kind]) => element("tr", { class: kind }, element("th", { scope: "row" }, name), cells[key]);
  const node = element("table", { class: "readout" }, element("tbody", {}, ...names.map(line)));
  node.set = (values) => {
    for (const [key, text] of Object.entries(values)) cells[key].textContent = text;
  };
  node.clear = () => {
    for (const cell of Object.values(cells)) cell.textContent = "–";
  };
  return node;
}

/** Coloured dots with their meanings, [[name of a colour, text], ...]. */
const dots = (entries) =>
  entries.map(([name, text]) => element("span", {}, element("i", { class: `dot ${name}` }), text));
/** A legend; what is no colour stands before it. */
const key = (entries, text = "") => element("p", { class: "key" }, text, ...dots(entries));

// ------------------------------------------------------------------------------------------------ out of the page

/** Offers content, a Blob, as a file. */
function download(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: `${hw5.page.kind}-${name}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000); // a phone asks its user first
}

/** A canvas as a PNG on the page's ground, below what it shows and what the dots of its caption mean; small images are
 *  enlarged. */
function savePicture(canvas, name, caption) {
  canvas.redraw?.(Math.max(devicePixelRatio, 640 / canvas.clientWidth)); // what can be drawn larger is not blurred
  const factor = Math.max(1, Math.round(640 / canvas.width)),
    [width, height] = [canvas.width * factor, canvas.height * factor],
    size = Math.max(14, width / 45), // of the letters
    font = `${size}px system-ui, sans-serif`,
    copy = element("canvas", { width }),
    context = copy.getContext("2d"),
    lines = [];
  const add = (text, ink) => {
    let line = "";
    for (const word of text.split(" ")) {
      if (context.measureText(`${line} ${word}`).width > width - size) line = lines.push([line, ink]) && "";
      line += `${word} `;
    }
    lines.push([line, ink]);
  };
  context.font = font;
  add(`${document.title}: ${canvas.told ?? canvas.getAttribute("aria-label")}`, colour("text"));
  for (const dot of caption.querySelectorAll("span:not([hidden]) > .dot"))
    add(`● ${dot.parentNode.textContent}`, getComputedStyle(dot).backgroundColor);
  const top = (1.4 * lines.length + 0.6) * size;
  copy.height = top + height; // which forgets the font
  context.fillStyle = colour("ground");
  context.fillRect(0, 0, width, copy.height);
  context.font = font;
  lines.forEach(([text, ink], i) => {
    context.fillStyle = ink;
    context.fillText(text, size / 2, 1.4 * (i + 1) * size);
  });
  context.imageSmoothingEnabled = false;
  context.drawImage(canvas, 0, top, width, height);
  canvas.redraw?.();
  // toBlob() waits until the page is idle, which it is not for seconds while it computes ahead
  const png = bytesOf(copy.toDataURL().split(",")[1]);
  download(new Blob([png], { type: "image/png" }), `${name}.png`);
}

/** A picture with its caption, a node or text, and a button that saves it; `name`: what it shows, in words; `legend`: where
 *  the dots are, if not in the caption. */
function figure(node, caption, name, legend) {
  const words = element("span", {}, caption),
    file = name.normalize("NFD").replace(/\p{M}/gu, "").match(/\w+/g).join("-"); // letters without accents
  const save = button("PNG", () => savePicture(node, file, legend ?? words), {
    class: "save",
    "aria-label": `Save ${name} as PNG`,
  });
  return element("figure", { "aria-label": name }, node, element("figcaption", {}, words, save));
}
/** Figures side by side at every width. */
const pictures = (...figures) => box(`pictures of${figures.length}`, ...figures);

/** A button that saves a table, [[value, ...], ...] with a header, as CSV. */
const csv = (name, table) =>
  button("Numbers as CSV", () =>
    download(
      new Blob(
        [
          table()
            .map((line) => `${line.join(",")}\n`)
            .join(""),
        ],
        { type: "text/csv" },
      ),
      `${name}.csv`,
    ),
  );

// ---------------------------------------------------------------------------------------------------------- pictures

/** A colour of explore.css by its name; a colour itself stays. */
const colour = (name) =>
  name[0] === "#" ? name : getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const rgb = (name) =>
  colour(name)
    .match(/\w\w/g)
    .map((hex) => parseInt(hex, 16));
const redraws = []; // of every picture, for a change of size or of colours
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((redraw) => redraw()));
const still = matchMedia("(prefers-reduced-motion: reduce)");
const rem = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16; // text as large as the browser's

/** A canvas of columns x rows pixels, each of which has one of `colours`, and an opacity: shade(i) = [which, opacity]. */
function shades(columns, rows, colours, shade) {
  const node = element("canvas", { width: columns, height: rows }),
    context = node.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < columns * rows; i++) {
    const [which, opacity] = shade(i);
    image.data.set([...colours[which], 255 * opacity], 4 * i);
  }
  context.putImageData(image, 0, 0);
  return node;
}

/** A line through points [[x, y], ...]. */
function trace(context, points) {
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
}

/** A circle, filled or not. */
function circle(context, x, y, radius, how = "fill") {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context[how]();
}

/** A ring with four arms at x, y, where z is: what is small enough shows inside. */
function marker(context, [x, y], ink, rim) {
  for (const [style, width] of [
    [rim, 5],
    [ink, 2],
  ]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    circle(context, x, y, 8, "stroke");
    for (const [dx, dy] of Object.values(ARROWS))
      trace(context, [
        [x + 8 * dx, y + 8 * dy],
        [x + 13 * dx, y + 13 * dy],
      ]);
  }
}

/** Text at x, y; with a rim in the stroke's colour where it lies on a picture. */
function write(context, text, x, y, align = "left", size = 12, rim = false) {
  context.font = `${size * rem}px system-ui, sans-serif`;
  context.textAlign = align;
  if (rim) context.strokeText(text, x, y);
  context.fillText(text, x, y);
}

/** A canvas as wide as its place. draw(context, width, height) gets CSS pixels; it runs again for other sizes and colours.
 *  help: how pointer and keys are used, where it takes them; scrolls: a finger that moves up or down scrolls the page. */
function surface(label, aspect, draw, { help, scrolls = false, kind = "surface" } = {}) {
  const node = element("canvas", {
    class: `${kind} ${help ? "interactive" : ""} ${scrolls ? "scrolls" : ""}`,
    role: help ? "application" : "img",
    "aria-label": label,
    "aria-description": help,
  });
  const context = node.getContext("2d");
  let pending = false;
  node.redraw = (scale = Math.min(3, devicePixelRatio || 1)) => {
    pending = false;
    const width = node.clientWidth,
      height = Math.round(width / aspect);
    if (!width) return;
    if (node.width !== Math.round(width * scale)) {
      node.width = Math.round(width * scale);
      node.height = Math.round(height * scale);
    }
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(context, width, height);
  };
  node.later = () => {
    // many changes, one drawing
    if (!pending) requestAnimationFrame(() => node.redraw());
    pending = true;
  };
  if (help) node.tabIndex = 0;
  node.style.aspectRatio = String(aspect);
  node.style.width = `min(100%, ${70 * aspect}vh)`; // with what belongs to it, it fits into a window
  new ResizeObserver(node.later).observe(node);
  redraws.push(() => node.redraw());
  return node;
}

// ------------------------------------------------------------------------------------------------------------- input

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** One pointer (mouse, pen or finger) and arrow keys on a canvas: at(u, v, phase) with shares of width and height,
 *  move(dx, dy). A second finger and other buttons do nothing. node.byKeys: the last of them were keys.
 *  every: at() gets all places of a fast pointer, not one for each frame. */
function drag(node, at, move, { flat = false, every = false } = {}) {
  let active = null;
  const place = (event, phase) => {
    const { left, top, width, height } = node.getBoundingClientRect();
    node.byKeys = false;
    at((event.clientX - left) / width, (event.clientY - top) / height, phase);
  };
  node.addEventListener("pointerdown", (event) => {
    if (active !== null || event.button || event.ctrlKey) return; // Ctrl and click is the other button of a Mac
    event.preventDefault();
    active = event.pointerId;
    node.setPointerCapture(active);
    node.focus({ preventScroll: true });
    place(event, "down");
  });
  node.addEventListener("pointermove", (event) => {
    if (event.pointerId !== active) return;
    const events = every ? (event.getCoalescedEvents?.() ?? []) : [];
    for (const each of events.length ? events : [event]) place(each, "move");
  });
  for (const [kind, phase] of [
    ["pointerup", "up"],
    ["pointercancel", "cancel"],
  ])
    node.addEventListener(kind, (event) => {
      if (event.pointerId !== active) return;
      active = null;
      if (phase === "up") place(event, phase);
      else at(NaN, NaN, phase);
    });
  node.addEventListener("keydown", (event) => {
    node.byKeys = true;
    const arrow = ARROWS[event.key];
    if (!arrow || (flat && arrow[1]) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const far = event.shiftKey ? 5 : 1;
    move(far * arrow[0], far * arrow[1]);
  });
  node.addEventListener("keyup", () => {
    node.byKeys = true;
    node.later();
  }); // also the Tab that came here
  node.addEventListener("blur", () => node.later());
}

/** Calls step() for every frame until it returns false or stop() is called; never where the user wants no motion.
 *  Escape stops it, and so does another tab. */
function animation(step, changed) {
  let frame = 0,
    last = 0;
  const self = {
    get running() {
      return frame !== 0;
    },
    start() {
      if (frame || still.matches) return;
      frame = requestAnimationFrame(loop);
      changed(true);
    },
    stop() {
      if (!frame) return;
      cancelAnimationFrame(frame);
      frame = 0;
      changed(false);
    },
  };
  const loop = (now) => {
    frame = requestAnimationFrame(loop);
    if (now - last < 12) return; // a screen of 120 or 144 Hz shows no more steps in a second than one of 60
    last = now;
    if (step() === false) self.stop();
  };
  still.addEventListener("change", () => {
    if (still.matches) self.stop();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) self.stop();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") self.stop();
  });
  return self;
}

/** Does work(i) for i < count in slices of some milliseconds, so that the page stays alive; returns what cancels it. */
function inSlices(count, work, done) {
  let i = 0;
  const part = (end = performance.now() + 10) => {
    while (unfinished.has(part) && i < count && performance.now() < end) work(i++);
    if (!unfinished.has(part)) return;
    if (i < count) return setTimeout(part);
    unfinished.delete(part);
    done();
  };
  unfinished.add(part);
  setTimeout(part);
  return () => unfinished.delete(part);
}
const unfinished = new Set();
addEventListener("beforeprint", () => {
  for (const part of unfinished) part(Infinity); // also those that the end of another one starts
  document.documentElement.classList.add("print"); // in the light colours, which not all browsers take by themselves
  redraws.forEach((redraw) => redraw());
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("print");
  redraws.forEach((redraw) => redraw());
});

// ------------------------------------------------------------------------------------------------------------ charts

const axisText = (value) =>
  Math.abs(value) >= 100
    ? fixed(value, 0)
    : +value.toPrecision(3) === 0
      ? "0"
      : String(+value.toPrecision(3)).replace("-", "−");

/** What a column of history.csv is called beside its curve. */
const curveName = (column) => CURVE_NAMES[column] ?? column.split("_")[0];
const CURVE_NAMES = {
  loss_d: "D",
  loss_g: "G",
  d_real: "real images",
  d_fake: "samples",
  frechet_train: "distance",
  loss: "mean",
  average_loss: "at the end",
  score_error: "excess",
};

/** Round numbers between low and high, about `count` of them. */
function roundTicks(low, high, count = 5) {
  const rough = (high - low) / count,
    power = 10 ** Math.floor(Math.log10(rough)),
    step = power * ([1, 2, 5].find((each) => each * power >= rough) ?? 10),
    first = Math.ceil(low / step - 1e-9);
  return range(Math.floor(high / step + 1e-9) - first + 1).map((k) => +((first + k) * step).toPrecision(12));
}

/** Lines over the epochs; the pointer or the arrow keys read the values. One epoch has no line, only its numbers. */
function chart({ title, unit, series }, history) {
  const rows = history.filter((each) => series.some((name) => Number.isFinite(each[name])));
  const values = rows.flatMap((each) => series.map((name) => each[name])).filter(Number.isFinite);
  let [low, high] = extent(values),
    chosen = rows.length - 1;
  const head = element("h3", {}, title, element("small", {}, ` ${unit}`)),
    text = element("p", { class: "reading" });
  const precise = (x) => (Math.abs(x) >= 100 ? fixed(x, 1) : String(x.toPrecision(4)).replace("-", "−"));
  const ink = (name) => (series.indexOf(name) ? "second" : "accent");
  const tell = (each) => {
    const names = series.filter((name) => Number.isFinite(each[name])),
      told = names.map((name) => [ink(name), `${curveName(name)} ${precise(each[name])}`]);
    text.replaceChildren(`Epoch ${each.epoch}: `, ...dots(told));
    return `Epoch ${each.epoch}: ${told.map(([, words]) => words).join(", ")}`;
  };
  if (rows.length === 1) {
    tell(rows[0]);
    return box("curve", head, text);
  }
  if (high - low < 1e-9) {
    low -= 1;
    high += 1;
  }
  const log = low > 0 && high > 15 * low; // a first value far above the others would flatten them
  if (log) head.append(element("small", {}, ", log axis"));
  const ticks = log ? [0, 1 / 3, 2 / 3, 1].map((part) => low * (high / low) ** part) : roundTicks(low, high);
  const left = (Math.max(...ticks.map((value) => axisText(value).length)) * 7.5 + 10) * rem,
    right = 12;
  const inner = (width) => width - left - right;

  const node = surface(
    title,
    1.9,
    (context, width, height) => {
      const toX = (i) => left + (inner(width) * i) / (rows.length - 1);
      const share = (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
      const toY = (value) => height - 22 * rem - (height - 34 * rem) * share(value);
      context.fillStyle = colour("muted");
      context.strokeStyle = colour("line");
      context.lineWidth = 1;
      for (const value of ticks) {
        write(context, axisText(value), left - 6, toY(value) + 4, "right");
        trace(context, [
          [left, toY(value)],
          [width - right, toY(value)],
        ]);
      }
      write(context, rows[0].epoch, toX(0), height - 4, "center");
      write(context, rows.at(-1).epoch, width - right, height - 4, "right");
      write(context, "epoch", width / 2, height - 4, "center");
      series.forEach((name, k) => {
        context.strokeStyle = context.fillStyle = colour(ink(name));
        context.lineWidth = 2;
        context.setLineDash(k ? [5, 3] : []);
        trace(
          context,
          rows.map((each, i) => [toX(i), toY(each[name])]).filter(([, y]) => Number.isFinite(y)),
        );
        context.setLineDash([]);
        if (Number.isFinite(rows[chosen][name])) circle(context, toX(chosen), toY(rows[chosen][name]), 3.5);
      });
    },
    { help: "The left and right arrows read other epochs.", scrolls: true, kind: "chart" },
  );

  const choose = (i) => {
    chosen = clamp(i, 0, rows.length - 1);
    const told = tell(rows[chosen]);
    node.setAttribute("aria-label", `${title}, ${unit}. ${told}`);
    node.told = `${title}, ${unit}, epoch ${rows[chosen].epoch}`; // the rest is in the caption
    node.later();
    return told;
  };
  drag(
    node,
    (u) => u === u && choose(Math.round(((u * node.clientWidth - left) / inner(node.clientWidth)) * (rows.length - 1))),
    (x) => say(choose(chosen + x)),
    { flat: true },
  );
  choose(chosen);
  return box("curve", head, figure(node, text, title));
}

/** The panel of training curves, where the run has a history. */
function curvesPanel({ curves, history, told }) {
  if (!curves.length) return;
  const names = [...new Set(history.flatMap((each) => Object.keys(each)))];
  panel(
    "Training curves",
    history.length > 1
      ? "Each curve is one number of the run, epoch by epoch. Press on it, or use the arrow keys, to read it."
      : "The run has one epoch: its numbers are points, and there are no curves yet.",
    "wide",
    box("curves", ...curves.map((each) => chart(each, history))),
    ...(told ? [note(told)] : []),
    row(csv("history", () => [names, ...history.map((each) => names.map((name) => each[name] ?? ""))])),
  );
}
