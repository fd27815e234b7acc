// What the pages of all three models share: numbers out of the page, layers of networks, random numbers, controls, charts.
// The file of one model (explore_vae.js, ...) follows this one in the same script. No framework, no request, no clock.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const hw5 = (window.hw5 = { page }); // what tests and the curious may call from the console

// ------------------------------------------------------------------------------------------- numbers out of the page

/** The value of a float16, given as its 16 bits. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : (fraction / 1024) * 2 ** -14);
}

/** A packed array {type, shape, data} of explore.py's pack() as a typed array. */
function unpack({ type, shape, data, scale }) {
  const text = atob(data), bytes = Uint8Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
  const size = shape.reduce((product, length) => product * length, 1);
  const view = new DataView(bytes.buffer);
  if (type === "u1") return bytes;
  if (type === "bits") return Uint8Array.from({ length: size }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1);
  if (type === "f4") return Float32Array.from({ length: size }, (_, i) => view.getFloat32(4 * i, true));
  if (type === "f2") {
    const table = Float32Array.from({ length: 65536 }, (_, bits) => half(bits)); // a look-up is faster than 800,000 powers
    const values = new Float32Array(size);
    for (let i = 0; i < size; i++) values[i] = table[bytes[2 * i] | (bytes[2 * i + 1] << 8)];
    return values;
  }
  // "i1": a byte for each weight, and one scale for each row
  const scales = unpack(scale), width = size / shape[0], values = new Float32Array(size);
  for (let i = 0; i < size; i++) values[i] = view.getInt8(i) * scales[Math.floor(i / width)];
  return values;
}

/** A list of packed layers, ready for forward(). */
function unpackLayers(layers) {
  const read = (layer) => ({ ...layer, weight: unpack(layer.weight), bias: unpack(layer.bias) });
  return layers.map((layer) => (layer.weight ? read(layer) : layer));
}

// --------------------------------------------------------------------------------------------------- maths, all pure

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const plural = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;
const sum = (values) => values.reduce((total, value) => total + value, 0);

/** log of the sum of exp(values), without overflow. */
function logSumExp(values) {
  let largest = -Infinity, total = 0;
  for (const value of values) if (value > largest) largest = value;
  for (const value of values) total += Math.exp(value - largest);
  return largest + Math.log(total);
}

/** y [n,outputs] = x [n,inputs] W^T + b. Eight sums at once: a number that was read is used more than once. */
function linear({ weight, bias, inputs, outputs }, x, n) {
  const y = new Float64Array(n * outputs), rows = n - (n % 8), eights = outputs - (outputs % 8);
  const eight = new Float64Array(8 * inputs); // the same input of eight rows lies side by side
  for (let row = 0; row < rows; row += 8) {
    for (let k = 0; k < 8 * inputs; k++) eight[k] = x[(row + (k & 7)) * inputs + (k >> 3)];
    for (let o = 0, w = 0; o < outputs; o++) {
      let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
      for (let i = 0; i < 8 * inputs; i += 8, w++) {
        const v = weight[w];
        a += v * eight[i]; b += v * eight[i + 1]; c += v * eight[i + 2]; d += v * eight[i + 3];
        e += v * eight[i + 4]; f += v * eight[i + 5]; g += v * eight[i + 6]; h += v * eight[i + 7];
      }
      [a, b, c, d, e, f, g, h].forEach((value, k) => { y[(row + k) * outputs + o] = value + bias[o]; });
    }
  }
  for (let row = rows; row < n; row++) { // the last rows: eight outputs at once, then those that are left
    const one = x.subarray(row * inputs, (row + 1) * inputs), at = row * outputs;
    for (let o = 0; o < eights; o += 8) {
      const k = o * inputs, l = k + inputs, m = l + inputs, p = m + inputs, q = p + inputs, r = q + inputs;
      let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
      for (let i = 0, s = r + inputs, t = s + inputs; i < inputs; i++, s++, t++) {
        const v = one[i];
        a += v * weight[k + i]; b += v * weight[l + i]; c += v * weight[m + i]; d += v * weight[p + i];
        e += v * weight[q + i]; f += v * weight[r + i]; g += v * weight[s]; h += v * weight[t];
      }
      [a, b, c, d, e, f, g, h].forEach((value, i) => { y[at + o + i] = value + bias[o + i]; });
    }
    for (let o = eights; o < outputs; o++) {
      y[at + o] = bias[o];
      for (let i = 0; i < inputs; i++) y[at + o] += weight[o * inputs + i] * one[i];
    }
  }
  return y;
}

/** 3x3 convolution with stride 1 of x [n,inputs,side,side]; a border of `padding` zeros. */
function convolve({ weight, bias, inputs, outputs, padding }, x, n) {
  const side = Math.sqrt(x.length / n / inputs), wide = side + 2 * padding, out = wide - 2, area = out * out;
  const image = new Float64Array(n * inputs * wide * wide), y = new Float64Array(n * outputs * area);
  for (let line = 0; line < n * inputs * side; line++) { // the rows of all images, into the middle of larger ones
    const to = (Math.floor(line / side) * wide + (line % side) + padding) * wide + padding;
    image.set(x.subarray(line * side, (line + 1) * side), to);
  }
  for (let plane = 0; plane < n * outputs; plane++) {
    const o = plane % outputs, from = Math.floor(plane / outputs) * inputs;
    y.fill(bias[o], plane * area, (plane + 1) * area);
    for (let c = 0; c < inputs; c++) {
      const [a, b, d, e, f, g, h, k, l] = weight.subarray((o * inputs + c) * 9, (o * inputs + c + 1) * 9);
      for (let row = 0, at = plane * area; row < out; row++) {
        let p = ((from + c) * wide + row) * wide, q = p + wide, r = q + wide; // the three rows under the kernel
        for (const end = at + out; at < end; at++, p++, q++, r++)
          y[at] += a * image[p] + b * image[p + 1] + d * image[p + 2] + e * image[q] + f * image[q + 1]
            + g * image[q + 2] + h * image[r] + k * image[r + 1] + l * image[r + 2];
      }
    }
  }
  return y;
}

/** Every pixel of x [planes,side,side] four times. */
function upsample(x, side) {
  const y = new Float64Array(4 * x.length);
  for (let i = 0; i < y.length; i++) y[i] = x[((i / (2 * side)) >> 1) * side + ((i % (2 * side)) >> 1)];
  return y;
}

/** The largest of each 2x2 pixels of x [planes,side,side]; an odd last row and column are left out. */
function pool(x, side) {
  const small = side >> 1, planes = x.length / side / side, y = new Float64Array(planes * small * small);
  for (let i = 0; i < y.length; i++) {
    const plane = Math.floor(i / small / small), row = Math.floor(i / small) % small, col = i % small;
    const p = (plane * side + 2 * row) * side + 2 * col;
    y[i] = Math.max(x[p], x[p + 1], x[p + side], x[p + side + 1]);
  }
  return y;
}

const ACTIVATIONS = { sigmoid, softplus, tanh: Math.tanh, relu: (x) => Math.max(x, 0) };

/** The output of a network, a list of layers, for n inputs that lie one after the other in x. */
function forward(layers, x, n = 1) {
  let y = Float64Array.from(x), channels = 1; // a copy: activations change it in place
  for (const layer of layers) {
    const side = Math.sqrt(y.length / n / channels);
    if (layer.kind === "linear") y = linear(layer, y, n);
    else if (layer.kind === "conv") { y = convolve(layer, y, n); channels = layer.outputs; }
    else if (layer.kind === "upsample") y = upsample(y, side);
    else if (layer.kind === "pool") y = pool(y, side);
    else if (layer.kind === "leaky_relu") { for (let i = 0; i < y.length; i++) if (y[i] < 0) y[i] *= layer.slope; }
    else { const f = ACTIVATIONS[layer.kind]; for (let i = 0; i < y.length; i++) y[i] = f(y[i]); }
    if (layer.kind === "linear") channels = layer.channels || 1; // what a convolution after it sees
  }
  return y;
}

/** Uniform numbers in [0,1) from a seed (mulberry32): the same seed shows the same picture everywhere. */
function uniforms(seed) {
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b); // neighbouring seeds must not start alike
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` standard normal numbers from a seed (Box and Muller). */
function normals(seed, count) {
  const next = uniforms(seed), values = new Float64Array(count);
  for (let i = 0; i < count; i++) values[i] = Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return values;
}

/** (1 - t) a + t b of two arrays. */
const mix = (a, b, t) => Float64Array.from(a, (value, i) => (1 - t) * value + t * b[i]);

Object.assign(hw5, { half, unpack, forward, logSumExp, normals, uniforms, mix });

// -------------------------------------------------------------------------------------------------- pieces of a page

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
  const id = unique("panel"), heading = element("h2", { id }, title), hint = element("p", { class: "hint" }, sentence);
  const node = element("section", { class: `panel ${kind}`, "aria-labelledby": id }, heading, hint, ...parts);
  document.getElementById("panels").append(node);
}

const box = (kind, ...parts) => element("div", { class: kind }, ...parts);
const row = (...parts) => box("row", ...parts);
const column = (...parts) => box("column", ...parts);
const pictures = (...parts) => box(`pictures of${parts.length}`, ...parts); // side by side at every width
const figure = (node, caption) => element("figure", {}, node, element("figcaption", {}, caption));
const subtitle = (text) => element("h3", {}, text);
const note = (text = "") => element("p", { class: "note" }, text);

function button(label, act, attributes = {}) {
  const node = element("button", { type: "button", ...attributes }, label);
  node.addEventListener("click", act);
  return node;
}

/** A labelled slider; show(value) is the text beside it. node.set(value) moves it without a call of act. */
function slider(label, { min, max, step, value }, act, show = (x) => x.toFixed(2)) {
  const id = unique("slider"), input = element("input", { type: "range", id, min, max, step, value });
  const node = box("slider", element("label", { for: id }, label), element("output", { for: id }), input);
  const refresh = () => {
    const text = show(+input.value);
    node.children[1].textContent = text;
    input.setAttribute("aria-valuetext", text);
  };
  input.addEventListener("input", () => { refresh(); act(+input.value); });
  node.set = (x) => { input.value = x; refresh(); };
  refresh();
  return node;
}

/** A labelled list of which one entry is chosen; options [[value, label], ...]. */
function choice(label, options, act) {
  const id = unique("choice"), entries = options.map(([value, text]) => element("option", { value }, text));
  const select = element("select", { id }, ...entries);
  select.addEventListener("change", () => act(select.value));
  return box("choice", element("label", { for: id }, label), select);
}

/** A labelled box for a whole number from 0 to `max`; node.set(value) moves it, null empties it, act is not called. */
function number(label, max, act) {
  const id = unique("number"), input = element("input", { type: "number", id, min: 0, max, step: 1, value: 0 });
  const node = box("choice", element("label", { for: id }, label), input);
  node.set = (value) => { input.value = value === null ? "" : Math.min(max, Math.max(0, Math.floor(value) || 0)); };
  input.addEventListener("change", () => { node.set(+input.value); act(+input.value); });
  return node;
}

/** A table of names and numbers, [[key, name, class], ...]; node.set({key: text}) fills it, node.clear() empties it. */
function readout(names) {
  const cells = Object.fromEntries(names.map(([key]) => [key, element("td", {}, "–")]));
  const line = ([key, name, kind]) => element("tr", { class: kind }, element("th", { scope: "row" }, name), cells[key]);
  const node = element("table", { class: "readout" }, element("tbody", {}, ...names.map(line)));
  node.set = (values) => { for (const [key, text] of Object.entries(values)) cells[key].textContent = text; };
  node.clear = () => { for (const cell of Object.values(cells)) cell.textContent = "–"; };
  return node;
}

/** Coloured dots with their meanings, [[colour, text], ...]. */
function key(label, entries) {
  const node = element("p", { class: "key", "aria-label": label });
  for (const [name, text] of entries) {
    const dot = element("i");
    dot.style.background = name; // an attribute would break the policy
    node.append(element("span", {}, dot, text));
  }
  return node;
}

let speaking = 0;
/** Tells a screen reader, once the user pauses. */
function say(text) {
  clearTimeout(speaking);
  speaking = setTimeout(() => { document.getElementById("status").textContent = text; }, 400);
}

// ---------------------------------------------------------------------------------------------------------- pictures

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const rgb = (name) => colour(name).match(/\w\w/g).map((hex) => parseInt(hex, 16));
const redraws = []; // of every picture, for a change of size or of colours
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((redraw) => redraw()));
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** values [side*side] in [0,1] into a context at column x, row y: white on black, as MNIST is. */
function paint(context, values, side, x = 0, y = 0) {
  const image = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = 255 * values[i]; // rounds and clips
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, x, y);
}

/** A small image of numbers in [0,1]; node.show(values, text) paints it, with the text as its alternative. */
function thumbnail(label, side) {
  const node = element("canvas", { width: side, height: side, class: "image square", role: "img", "aria-label": label });
  node.show = (values, text = label) => {
    paint(node.getContext("2d"), values, side);
    node.setAttribute("aria-label", text);
  };
  return node;
}

/** A canvas of columns x rows pixels of one colour, with the opacity shade(i) in [0,1]. */
function shades(columns, rows, [r, g, b], shade) {
  const node = element("canvas", { width: columns, height: rows }), context = node.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0, at = 0; i < columns * rows; i++) {
    image.data[at++] = r; image.data[at++] = g; image.data[at++] = b; image.data[at++] = 255 * shade(i);
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

/** A cross of lines at x, y. */
function crosshair(context, x, y, size) {
  trace(context, [[x - size, y], [x + size, y]]);
  trace(context, [[x, y - size], [x, y + size]]);
}

/** Text at x, y; with a rim in the stroke's colour where it lies on a picture. */
function write(context, text, x, y, align = "left", size = 11, rim = false) {
  context.font = `${size}px system-ui, sans-serif`;
  context.textAlign = align;
  if (rim) context.strokeText(text, x, y);
  context.fillText(text, x, y);
}

/** A canvas as wide as its place. draw(context, width, height) gets CSS pixels; it runs again for other sizes and colours.
 *  interactive: it takes pointer and keys; scrolls: a finger that moves up or down scrolls the page, as elsewhere. */
function surface(label, aspect, draw, { interactive = false, scrolls = false, kind = "surface" } = {}) {
  const names = [kind, interactive && "interactive", scrolls && "scrolls"].filter(Boolean).join(" ");
  const node = element("canvas", { class: names, role: interactive ? "application" : "img", "aria-label": label });
  const context = node.getContext("2d");
  let pending = false;
  node.redraw = () => {
    pending = false;
    const width = node.clientWidth, height = Math.round(width / aspect), scale = Math.min(3, devicePixelRatio || 1);
    if (!width) return;
    if (node.width !== Math.round(width * scale)) {
      node.width = Math.round(width * scale);
      node.height = Math.round(height * scale);
    }
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(context, width, height);
  };
  node.later = () => { // many changes, one drawing
    if (!pending) requestAnimationFrame(node.redraw);
    pending = true;
  };
  if (interactive) node.tabIndex = 0;
  node.style.aspectRatio = String(aspect);
  new ResizeObserver(node.later).observe(node);
  redraws.push(node.redraw);
  return node;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Pointer (mouse, pen or finger) and arrow keys on a canvas: at(u, v, phase) with shares of width and height, move(dx, dy).
 *  node.byKeys: the last of them were keys. */
function drag(node, at, move) {
  const place = (event, phase) => {
    const { left, top, width, height } = node.getBoundingClientRect();
    node.byKeys = false;
    at((event.clientX - left) / width, (event.clientY - top) / height, phase);
  };
  node.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    node.setPointerCapture(event.pointerId);
    node.focus({ preventScroll: true });
    place(event, "down");
  });
  node.addEventListener("pointermove", (event) => {
    if (node.hasPointerCapture(event.pointerId)) place(event, "move");
  });
  node.addEventListener("pointerup", (event) => { if (node.hasPointerCapture(event.pointerId)) place(event, "up"); });
  node.addEventListener("keydown", (event) => {
    node.byKeys = true;
    if (!ARROWS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const [x, y] = ARROWS[event.key], far = event.shiftKey ? 5 : 1;
    move(far * x, far * y);
  });
  node.addEventListener("keyup", () => { node.byKeys = true; node.later(); }); // also the Tab that came here
  node.addEventListener("blur", () => node.later());
}

/** Calls step() for every frame until it returns false or stop() is called; never where the user wants no motion. */
function animation(step, changed) {
  let frame = 0;
  const self = {
    get running() { return frame !== 0; },
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
  const loop = () => {
    frame = requestAnimationFrame(loop);
    if (step() === false) self.stop();
  };
  still.addEventListener("change", () => { if (still.matches) self.stop(); });
  document.addEventListener("visibilitychange", () => { if (document.hidden) self.stop(); });
  return self;
}

/** Does work(i) for i < count in slices of some milliseconds, so that the page stays alive; returns what cancels it. */
function inSlices(count, work, done) {
  let i = 0, cancelled = false;
  const slice = () => {
    const end = performance.now() + 10;
    while (!cancelled && i < count && performance.now() < end) work(i++);
    if (!cancelled) i < count ? setTimeout(slice) : done();
  };
  slice();
  return () => { cancelled = true; };
}

/** Two pinned points and the place between them: buttons, a strip of `count` images, a slider.
 *  current() is [the point to pin, its name], images(points) decodes, changed(point, name) shows a point, null after a
 *  pin. mark() takes the mark of the place away, when another point is shown. */
function path({ count, side, current, images, changed }) {
  const pins = [null, null], names = ["", ""], width = count * (side + 2) - 2, told = note();
  const strip = element("canvas", { class: "image strip", width, height: side + 4, role: "img" });
  const context = strip.getContext("2d");
  let t = 0.5;
  const show = () => {
    const points = Array.from({ length: count }, (_, i) => mix(pins[0], pins[1], i / (count - 1)));
    images(points).forEach((image, i) => paint(context, image, side, i * (side + 2)));
    strip.setAttribute("aria-label", `${count} images from pin A to pin B`);
  };
  const mark = (at) => { // a bar below the images
    context.clearRect(0, side, width, 4);
    context.fillStyle = colour("accent");
    if (at !== undefined) context.fillRect(at * (width - side), side + 2, side, 2);
  };
  const goTo = (value) => {
    t = value;
    place.set(t);
    changed(mix(pins[0], pins[1], t), `on the path from A to B, ${t.toFixed(2)}`);
    mark(t);
  };
  const pin = (which, point, name) => {
    pins[which] = Float64Array.from(point);
    names[which] = name;
    told.textContent = `A: ${names[0]}; B: ${names[1]}.`;
    if (pins[0] && pins[1]) show();
    changed(null);
  };
  const place = slider("Place between A and B", { min: 0, max: 1, step: 0.01, value: t }, goTo);
  const walk = animation(() => { goTo(Math.min(1, t + 0.01)); return t < 1; },
    (running) => { go.textContent = running ? "Stop" : "Walk from A to B"; });
  const go = button("Walk from A to B", () => {
    if (walk.running) return walk.stop();
    goTo(still.matches ? 1 : 0); // without motion: the end at once
    walk.start();
  });
  const pinners = ["A", "B"].map((name, which) => button(`Pin ${name} here`, () => pin(which, ...current())));
  return { pins, pin, show, mark, stop: walk.stop, parts: [row(...pinners, go), told, strip, place] };
}

// ------------------------------------------------------------------------------------------------------------ charts

/** Lines over the epochs; the pointer or the arrow keys read the values. */
function chart({ title, unit, series }, history) {
  const rows = history.filter((each) => series.some((name) => Number.isFinite(each[name])));
  const values = rows.flatMap((each) => series.map((name) => each[name])).filter(Number.isFinite);
  let low = Math.min(...values), high = Math.max(...values), chosen = rows.length - 1;
  if (high - low < 1e-9) { low -= 1; high += 1; }
  const log = low > 0 && high > 15 * low; // a first value far above the others would flatten them
  if (log) unit += ", log axis";
  const short = (x) => (Math.abs(x) >= 100 ? x.toFixed(1) : x.toPrecision(4));
  const left = 46, right = 10, inner = (width) => width - left - right;
  const text = element("p", { class: "reading" });

  const node = surface("", 1.9, (context, width, height) => {
    const toX = (i) => left + (inner(width) * i) / Math.max(1, rows.length - 1);
    const share = (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
    const toY = (value) => height - 20 - (height - 30) * share(value);
    context.fillStyle = colour("muted");
    context.strokeStyle = colour("line");
    context.lineWidth = 1;
    for (const part of [0, 1 / 3, 2 / 3, 1]) {
      const value = log ? low * (high / low) ** part : low + (high - low) * part;
      write(context, Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3), left - 6, toY(value) + 4, "right");
      trace(context, [[left, toY(value)], [width - right, toY(value)]]);
    }
    for (const i of new Set([0, rows.length - 1])) write(context, rows[i].epoch, toX(i), height - 4, "center");
    write(context, "epoch", width / 2, height - 4, "center");
    series.forEach((name, k) => {
      context.strokeStyle = context.fillStyle = colour(k ? "second" : "accent");
      context.lineWidth = 2;
      context.setLineDash(k ? [5, 3] : []);
      trace(context, rows.map((each, i) => [toX(i), toY(each[name])]).filter(([, y]) => Number.isFinite(y)));
      context.setLineDash([]);
      if (Number.isFinite(rows[chosen][name])) circle(context, toX(chosen), toY(rows[chosen][name]), 3.5);
    });
  }, { interactive: true, scrolls: true, kind: "chart" });

  const choose = (i) => {
    chosen = Math.min(rows.length - 1, Math.max(0, i));
    const each = rows[chosen], names = series.filter((name) => Number.isFinite(each[name]));
    const spans = names.map((name, k) => element("span", { class: k ? "second" : "first" }, `${name} ${short(each[name])}  `));
    text.replaceChildren(`Epoch ${each.epoch}: `, ...spans);
    node.setAttribute("aria-label", `${title}, ${unit}. ${text.textContent}. The left and right arrows read other epochs.`);
    node.later();
  };
  drag(node, (u) => choose(Math.round(((u * node.clientWidth - left) / inner(node.clientWidth)) * (rows.length - 1))),
    (x) => { choose(chosen + x); say(text.textContent); });
  choose(chosen);
  return box("curve", element("h3", {}, title, element("small", {}, ` ${unit}`)), node, text);
}

/** The panel of training curves, where the run has a history. */
function curves() {
  if (!page.curves.length) return;
  const charts = page.curves.map((each) => chart(each, page.history));
  panel("Training curves", "Each curve is one number of the run after each epoch. Press on a curve, or use the arrow keys, "
    + "to read it.", "wide", box("curves", ...charts), ...(page.told ? [note(page.told)] : []));
}
