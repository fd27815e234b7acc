// What the pages of image models share: small images, a pad to draw on, a path between two images, bars.
"use strict";

/** values [side*side] in [0,1] into a context at column x, row y: white on black, as MNIST is. */
function paint(context, values, side, x = 0, y = 0) {
  const image = context.createImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = 255 * values[i]; // rounds and clips
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, x, y);
}

/** A small image of numbers in [0,1]; node.show(values, text) paints it, with the text as its alternative. Without values
 *  its place is empty: black would look like an image. */
function thumbnail(label, side) {
  const node = element("canvas", {
    width: side,
    height: side,
    class: "image square",
    role: "img",
    "aria-label": label,
  });
  node.show = (values, text = label) => {
    node.classList.toggle("empty", !values);
    if (values) paint(node.getContext("2d"), values, side);
    else node.getContext("2d").clearRect(0, 0, side, side);
    node.setAttribute("aria-label", text);
  };
  return node;
}

/** A button with a small image; tile.show(values, text, label) paints it, with a text below. */
function tile(side, act) {
  const picture = thumbnail("", side),
    text = element("span"),
    node = button("", act);
  picture.setAttribute("aria-hidden", "true");
  node.append(picture, text);
  node.show = (values, words, label) => {
    picture.show(values, "");
    text.textContent = words;
    node.setAttribute("aria-label", label);
  };
  return node;
}

/** Buttons in rows that are one Tab stop; the arrow keys go from one to the other. */
function oneStop(buttons) {
  buttons.forEach((each, i) => {
    each.tabIndex = i ? -1 : 0;
    each.addEventListener("keydown", (event) => {
      const columns = buttons.filter((other) => other.offsetTop === buttons[0].offsetTop).length;
      const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key],
        next = buttons[i + move];
      if (!next) return;
      event.preventDefault();
      each.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
  return buttons;
}

/** Strokes [[[x, y], ...], ...] in any unit as a gray image [28*28], made as MNIST was: the ink, of a pen of fixed width,
 *  fits a box of 20x20 and is centred by its mass. */
function rasterise(strokes, pen = 1.15) {
  const [[left, right], [top, bottom]] = [0, 1].map((d) => extent(strokes.flat().map((point) => point[d])));
  const scale = Math.min((20 - 2 * pen) / Math.max(right - left, bottom - top, 1e-9), 0.25); // a dot stays a dot

  const from = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - pen - 1)); // the pixels that ink from a to b can reach
  const to = (a, b) => Math.min(27, Math.floor(Math.max(a, b) + pen + 1));
  const draw = (dx, dy) => {
    const image = new Float64Array(784);
    for (const stroke of strokes)
      stroke.forEach(([x, y], k) => {
        const [endX, endY] = stroke[k + 1] || [x, y],
          ax = x * scale + dx,
          ay = y * scale + dy;
        const wide = (endX - x) * scale,
          high = (endY - y) * scale,
          square = wide * wide + high * high;
        for (let line = from(ay, ay + high); line <= to(ay, ay + high); line++)
          for (let col = from(ax, ax + wide); col <= to(ax, ax + wide); col++) {
            const px = col + 0.5 - ax,
              py = line + 0.5 - ay,
              pixel = 28 * line + col;
            const t = square && clamp((px * wide + py * high) / square, 0, 1); // the nearest on the line
            const ink = pen + 0.5 - Math.sqrt((px - t * wide) ** 2 + (py - t * high) ** 2);
            image[pixel] = Math.max(image[pixel], Math.min(1, ink));
          }
      });
    return image;
  };
  const dx = 14 - (scale * (left + right)) / 2,
    dy = 14 - (scale * (top + bottom)) / 2;
  const boxed = draw(dx, dy),
    mass = sum(boxed);
  const mean = (of) => boxed.reduce((total, ink, pixel) => total + ink * (of(pixel) + 0.5), 0) / mass;
  return draw(dx + 14 - mean((pixel) => pixel % 28), dy + 14 - mean((pixel) => Math.floor(pixel / 28)));
}

/** A pad to draw on: changed(gray image [784], whether the pen is down) follows the pen. pad.show(image, side) shows an
 *  image in gray instead, pad.wipe() nothing. Strokes are in the page's address. */
function drawingPad(changed) {
  const size = 280; // the drawing area in units of the pen
  let strokes = [],
    pen = [size / 2, size / 2],
    down = false,
    waiting = false,
    shown = null;
  const pad = surface(
    "Drawing area",
    1,
    (context, width) => {
      const to = ([x, y]) => [(x * width) / size, (y * width) / size];
      context.lineCap = context.lineJoin = "round";
      context.lineWidth = (17 * width) / size;
      context.strokeStyle = context.fillStyle = colour("text");
      for (const stroke of strokes) {
        circle(context, ...to(stroke[0]), context.lineWidth / 2); // all of a mere click
        trace(context, stroke.map(to));
      }
      if (!strokes.length && shown) {
        const { image, side } = shown;
        context.imageSmoothingEnabled = false;
        context.drawImage(
          shades(side, side, [rgb("text")], (i) => [0, 0.3 * image[i]]),
          0,
          0,
          width,
          width,
        );
      }
      context.fillStyle = colour("muted");
      context.strokeStyle = colour("ground");
      context.lineWidth = 4; // of the letters' rim, which parts them from the image
      if (!strokes.length) write(context, `draw ${hw5.page.a} here`, width / 2, 24 * rem, "center", 14, true);
      if (document.activeElement === pad && pad.byKeys) {
        context.strokeStyle = context.fillStyle = colour("accent");
        context.lineWidth = 2;
        circle(context, ...to(pen), 6, down ? "fill" : "stroke");
      }
    },
    { help: "Draw with mouse or finger. Keyboard: the arrow keys move the pen, Space puts it down or lifts it." },
  );
  pad.id = "pad";
  function tell(writing) {
    waiting = false;
    if (!strokes.length) return;
    if (!writing) keep("ink", strokes.join(";"));
    changed(rasterise(strokes), writing);
  }
  function drawn(writing) {
    pad.later();
    if (!writing) return tell(false);
    if (!waiting)
      requestAnimationFrame(() => {
        if (waiting) tell(true);
      }); // once for many moves of the pen
    waiting = true;
  }
  drag(
    pad,
    (u, v, phase) => {
      if (phase === "down") strokes.push([]);
      if (phase !== "cancel") strokes.at(-1).push([u, v].map((share) => Math.round(share * size))); // as the address keeps it
      drawn(phase === "down" || phase === "move");
    },
    (dx, dy) => {
      const inside = (value) => clamp(value, 10, size - 10);
      pen = [inside(pen[0] + 8 * dx), inside(pen[1] + 8 * dy)];
      if (!down) return pad.later();
      strokes.at(-1).push(pen);
      drawn(true);
    },
    { every: true },
  );
  function setPen(next) {
    if (next === down) return;
    down = next;
    if (down) strokes.push([pen]);
    say(down ? "pen down" : "pen up"); // or, right after it, the result
    drawn(down);
  }
  pad.addEventListener("keydown", (event) => {
    if (event.key === "Escape") setPen(false);
    if (event.key !== " ") return;
    event.preventDefault();
    if (!event.repeat) setPen(!down);
  });
  pad.addEventListener("blur", () => setPen(false));
  pad.wipe = () => {
    strokes = [];
    down = waiting = false;
    shown = null;
    keep("ink");
    pad.later();
  };
  pad.show = (image, side) => {
    pad.wipe();
    shown = { image, side };
  };
  /** Draws what the address says; false where it says nothing. */
  pad.recall = () => {
    const pairs = (text) =>
      text
        .split(",")
        .map(Number)
        .reduce((all, value, i, list) => (i % 2 ? [...all, [list[i - 1], value]] : all), []);
    strokes = (view.get("ink") ?? "")
      .split(";")
      .map(pairs)
      .filter((stroke) => stroke.length && stroke.flat().every(Number.isFinite));
    if (strokes.length) changed(rasterise(strokes), false);
    return strokes.length > 0;
  };
  return pad;
}

/** Two pinned points and the place between them: buttons, a strip of `count` images, a slider.
 *  current() is [the point to pin, its name], images(points) decodes, changed(point, name) shows a point on the way,
 *  pinned() tells of a pin. leave() ends a walk when another point is shown; the address keeps pins and place. */
function path({ count, side, current, images, changed, pinned = () => {} }) {
  const pins = [null, null],
    names = ["", ""],
    width = count * (side + 2) - 2,
    told = note();
  let lacking = "";
  const strip = element("canvas", { class: "image strip", width, height: side + 4, role: "img" });
  const context = strip.getContext("2d");
  let t = 0;
  const show = () => {
    const points = range(count).map((i) => mix(pins[0], pins[1], i / (count - 1)));
    images(points).forEach((image, i) => paint(context, image, side, i * (side + 2)));
  };
  const mark = (at) => {
    // a bar below the images
    context.clearRect(0, side, width, 4);
    context.fillStyle = colour("accent");
    if (at !== undefined) context.fillRect(at * (width - side), side + 2, side, 2);
  };
  const goTo = (value) => {
    t = value;
    place.set(t);
    changed(mix(pins[0], pins[1], t), `on the path from A to B, ${t.toFixed(2)}`);
    mark(t);
    keep("t", short([t]));
  };
  const tell = () => {
    const ends = `A: ${names[0]}; B: ${names[1]}.`;
    strip.setAttribute("aria-label", `${count} images from A to B. ${ends}`);
    told.textContent = ends + lacking;
  };
  const pin = (which, point, name) => {
    leave(); // the path is another one, and no place on it is shown any more
    pins[which] = Float64Array.from(point);
    names[which] = name;
    keep("ab"[which], `${name};${short(point)}`);
    tell();
    if (pins[0] && pins[1]) show();
    pinned();
    say(told.textContent);
  };
  const walk = animation(
    () => {
      goTo(Math.min(1, t + 0.01));
      return t < 1;
    },
    (running) => {
      go.textContent = running ? "Stop" : "Walk from A to B";
    },
  );
  const place = slider("Place between A and B", { min: 0, max: 1, step: 0.01, value: t }, (value) => {
    walk.stop();
    goTo(value);
  });
  const go = button("Walk from A to B", () => {
    if (walk.running) return walk.stop();
    goTo(still.matches ? 1 : 0); // without motion: the end at once
    walk.start();
  });
  const pinners = ["A", "B"].map((name, which) => button(`Pin ${name} here`, () => pin(which, ...current())));
  const leave = () => {
    walk.stop();
    mark();
    keep("t");
  };
  /** Lets the user pin, or says why there is nothing to pin. */
  const allow = (yes, why) => {
    for (const each of pinners) each.disabled = !yes;
    lacking = yes ? "" : ` ${why}`;
    tell();
  };
  /** The pins of the address, and for those that it lacks the others [[point, name], ...]; and its place between them. */
  const recall = (others) => {
    others.forEach((other, which) => {
      const [name, numbers = ""] = (view.get("ab"[which]) ?? "").split(";"),
        point = numbers.split(",").map(parseFloat);
      pin(which, ...(point.length === other[0].length && point.every(Number.isFinite) ? [point, name] : other));
    });
    const [at] = viewed("t", 1) ?? [];
    if (at !== undefined) goTo(clamp(at, 0, 1));
  };
  return {
    pins,
    allow,
    recall,
    leave,
    parts: [row(...pinners, go), told, figure(strip, "from A, left, to B", "the path"), place],
  };
}

/** Groups of bars: series [{name, colour, values}]. ticks [[place, text], ...] count places in bars from the left edge;
 *  `origin` is a place with a line, as high as the picture. `unit`: what the height of a bar counts. */
function bars(title, unit, ticks, series, name, origin) {
  const highest = Math.max(...series.flatMap(({ values }) => [...values]), 1e-9);
  const count = series[0].values.length;
  const text = ticks.map(
    ([, label], i) => `${label}: ${series.map(({ name: of, values }) => `${of} ${axisText(values[i])}`).join(", ")}`,
  );
  const told = count === ticks.length ? text.join("; ") : series.map(({ name: of }) => of).join(", ");
  const node = surface(
    `${title}. Height of a bar: ${unit}. ${told}`,
    2.1,
    (context, width, height) => {
      const bottom = height - 20 * rem,
        top = 18 * rem,
        margin = 12 * rem, // for the outer labels
        group = (width - 2 * margin) / count,
        wide = (group * 0.86) / series.length;
      series.forEach(({ colour: ink, values }, k) => {
        context.fillStyle = colour(ink);
        values.forEach((value, i) => {
          const high = value && Math.max(2, ((bottom - top) * value) / highest); // one of many shows, too
          context.fillRect(margin + (i + 0.07) * group + k * wide, bottom - high, Math.max(1, wide - 0.5), high);
        });
      });
      context.fillStyle = colour("muted");
      context.fillRect(0, bottom, width, 1);
      if (origin) context.fillRect(margin + origin * group, top, 1, bottom - top);
      for (const [place, label] of ticks) {
        const x = margin + place * group;
        context.fillRect(x, bottom, 1, 4);
        write(context, label, x, height - 4, "center");
      }
      write(context, `highest bar: ${axisText(highest)} ${unit}`.replace(" %", "%"), width - 4, 12 * rem, "right");
    },
    { kind: "chart" },
  );
  const meanings = series.map(({ name: of, colour: ink }) => [ink, of]);
  return box("curve", subtitle(title), figure(node, key(meanings, `height of a bar: ${unit}`), name));
}
