// The panels of a variational autoencoder. Two values are shown by several of them: `point`, the z that is decoded, and
// `fed`, the image that was encoded with all that was found of it.
"use strict";

/** A number of nats with the digits that its error leaves. */
const nats = (x, error = 0) => {
  if (error < 0.1) return `${fixed(x)} nats`;
  const whole = fixed(x, 0);
  if (error >= 1) return `${whole} ± ${Math.ceil(error)} nats`;
  return `about ${whole} nat${/^−?1$/.test(whole) ? "" : "s"}`;
};

/** The same of a number that the grid gives, whose error is no spread. */
const gridNats = (x, error) => (error >= 1 ? "the grid is too coarse" : nats(x, error));

/** Everything that the page knows of an image x. quick: for an image that still changes. */
function measured(vae, x, name, quick) {
  const q = vae.encode(x),
    reconstruction = vae.reconstruction(x, q, quick ? "quick" : 0),
    kl = vae.divergence(q);
  return {
    x,
    name,
    q,
    quick,
    kl,
    exact: vae.grid && vae.grid.posterior(x, quick),
    ...bound([reconstruction], kl, quick ? 2 : vae.turns),
  };
}

/** The bound from the means of several turns, with its standard error. */
function bound(means, kl, turns) {
  const reconstruction = sum(means) / means.length,
    spread = sum(means.map((value) => (value - reconstruction) ** 2));
  const error = turns === 1 ? 0 : means.length < 3 ? 0.5 : 2 * Math.sqrt(spread / (means.length - 1) / means.length);
  return { reconstruction, elbo: reconstruction - kl, error };
}

function vaePage(model) {
  const vae = prepareVae(model),
    { latent } = model;
  const labels = model.labels,
    codes = model.codes && unpack(model.codes);
  const point = observable(new Float64Array(latent)),
    fed = observable(null),
    draws = observable([]);
  const way = path({
    count: 11,
    side: vae.side,
    current: () => [
      point.value,
      fed.value?.q.mu.every((m, d) => m === point.value[d])
        ? `code of ${fed.value.name}`
        : latent <= 3
          ? `z = ${tuple(point.value)}`
          : "your z",
    ],
    images: (points) => points.map((z) => vae.decode(z)),
    pinned: () => point.set(point.value),
    changed: (z) => place(z),
  });
  const place = (z) => {
    point.set(Float64Array.from(z));
    keep("z", short(z));
    say(`z = ${tuple(z)}`);
  };
  const moveTo = (z) => {
    way.leave();
    place(z);
  };

  let cancel = () => {};
  /** Encodes x, measures it, and shows all of that; z follows the code. What takes longer comes later. */
  function feed(x, name, quick = false) {
    cancel();
    draws.set([]);
    fed.set(measured(vae, x, name, quick));
    way.leave();
    point.set(fed.value.q.mu);
    keep("z");
    if (quick) return;
    const { q, elbo, kl } = fed.value,
      means = [fed.value.reconstruction];
    say(`${name}: ELBO ${nats(elbo, fed.value.error)}`);
    if (vae.turns > 1)
      cancel = inSlices(
        vae.turns - 1,
        () => means.push(vae.reconstruction(x, q, means.length)),
        () => fed.value && fed.set({ ...fed.value, ...bound(means, kl, vae.turns) }),
      );
  }
  if (vae.grid) {
    // the grid is built while nothing else happens; a coarse one is there soon
    const half = Math.ceil((vae.grid.points / 2) ** latent / 128),
      all = Math.ceil(vae.grid.points ** latent / 128);
    const build = (count, done) =>
      inSlices(
        count,
        () => vae.grid.build(),
        () => {
          if (fed.value) fed.set({ ...fed.value, exact: vae.grid.posterior(fed.value.x, fed.value.quick) });
          done();
        },
      );
    build(half, () => build(all - half, ready));
  }

  const drawing = drawPanel(vae, model, fed, feed);
  const inside = codes
    ? latentPanel(vae, point, fed, way, moveTo, codes, labels)
    : slidersPanel(vae, model, point, fed, moveTo);
  if (vae.grid) posteriorPanel(vae, point, fed, draws, moveTo);
  reparameterisationPanel(vae, fed, draws, moveTo);
  panel("A path between two points", "Pin A, move z, pin B: does every image on the way look real?", "", ...way.parts);
  const ready = model.gaps ? gapsPanel(vae, model, drawing) : () => {};

  Object.assign(hw5, { vae, feed, point, fed, draws });
  const count = model.images.shape[0],
    [wanted = model.start] = viewed("image", 1) ?? [],
    start = drawing.labelOf(wanted) === undefined ? clamp(Math.floor(wanted), 0, count - 1) : wanted,
    z = viewed("z", latent)?.map(inside);
  drawing.load(start);
  amend("image", start);
  drawing.pad.recall();
  if (z) {
    moveTo(z);
    amend("z", short(z));
  }
  // Pins that the address lacks are the codes of two classes, and not of the image that it names: it keeps the path
  const other = range(count).find((i) => labels[i] !== drawing.labelOf(model.start)) ?? 0;
  way.recall([model.start, other].map((i) => [vae.encode(drawing.imageAt(i)).mu, `code of a ${drawing.labelOf(i)}`]));
}

/** Draw or load an image, and what the model says of it, right below. */
function drawPanel(vae, model, fed, feed) {
  const { side, pixels } = model,
    count = model.images.shape[0],
    held = {}; // test images by their numbers: pixels and label
  for (const { images, labels, numbers } of [model, model.gaps ?? model])
    slices(unpack(images), images.shape[0]).forEach((image, i) => {
      held[numbers?.[i] ?? i] = [image, labels[i]];
    });
  const imageAt = (i) => Float64Array.from(held[i][0], (value) => value / (model.images.type === "u1" ? 255 : 1)),
    labelOf = (i) => held[i]?.[1];
  const input = thumbnail("What the encoder gets", side),
    atMean = thumbnail("Reconstruction", side),
    atBest = thumbnail("Reconstruction at the z of highest p(z|x)", side);
  const numbers = readout([
    ["elbo", "ELBO", "strong"],
    ...(vae.grid
      ? [
          ["gap", "gap: log p(x) − ELBO", "strong"],
          ["logPx", "log p(x), by an integral"],
        ]
      : []),
    ["reconstruction", "E[log p(x|z)], z from the encoder"],
    ["kl", "KL(q(z|x) || p(z))"],
  ]);
  const about = note();
  const pad = drawingPad((gray, writing) => {
    unload();
    feed(preparePixels(gray, pixels), "your drawing", writing);
  });
  let loaded = null,
    described = null;
  function load(i) {
    if (!held[i]) {
      chooser.set(loaded);
      about.textContent = `This page holds no test image ${i}.`;
      return say(about.textContent);
    }
    pad.show(imageAt(i), side);
    chooser.set((loaded = i));
    keep("image", i);
    feed(imageAt(i), `test image ${i}, a ${labelOf(i)}`);
  }
  const unload = () => {
    chooser.set((loaded = null));
    keep("image");
  };
  const clear = () => {
    pad.wipe();
    unload();
    fed.set(null);
    say("Cleared");
  };
  let turn = 0;
  const chooser = number(`Test image, 0 to ${count - 1}${model.gaps ? " or one of the worst" : ""}`, load);
  fed.watch((now) => {
    whole.classList.toggle("unused", !now);
    if (!now) {
      numbers.clear();
      about.textContent = `Draw ${hw5.page.a}, or load a test image.`;
      for (const each of [input, atMean, atBest]) each.show(null, "Nothing");
      return;
    }
    const { x, name, q, elbo, kl, error, exact } = now;
    input.show(x, `What the encoder gets: ${name}`);
    atMean.show(vae.decode(q.mu), `Reconstruction at the encoder's mean${vae.latent <= 3 ? `, ${tuple(q.mu)}` : ""}`);
    if (exact) atBest.show(vae.decode(exact.best), `Reconstruction at the z of highest p(z|x), ${tuple(exact.best)}`);
    const off = Math.max(error, exact?.error ?? 0), // of the integral, and of what is derived from it
      rounding = (error) => (error < 0.1 ? (value) => value : Math.round), // what is known to a nat adds up as it is shown
      bounds = rounding(error),
      gaps = rounding(off);
    numbers.set({ elbo: nats(elbo, error), reconstruction: nats(bounds(elbo) + bounds(kl), error), kl: nats(kl, Math.min(error, 0.5)) });
    if (vae.grid)
      numbers.set(
        exact
          ? { logPx: gridNats(exact.logPx, off), gap: gridNats(gaps(exact.logPx) - gaps(elbo), off) }
          : { logPx: "computing …", gap: "computing …" },
      );
    if (x !== described) about.textContent = `${name[0].toUpperCase()}${name.slice(1)}.`; // numbers alone get finer later
    described = x;
  });
  const prepared = {
    rounded: "rounded to 0 and 1",
    drawn: "drawn as 0 or 1 at random",
    halved: "halved to 14x14 and rounded",
    gray: "kept gray",
  };
  const results = [
    figure(input, "image", "the image"),
    figure(atMean, "p(x|μ)", "the reconstruction"),
    ...(vae.grid ? [figure(atBest, "at highest p(z|x)", "the best reconstruction")] : []),
  ];
  const whole = panel(
    `Draw ${hw5.page.a}`,
    `Strokes are scaled and centred as MNIST was, and ${prepared[pixels]}. The higher the ELBO, the ` +
      "better the model explains your drawing. Much ink costs more nats than little: compare drawings of about as much.",
    "draw",
    box(
      "split",
      pad,
      column(numbers, box("pictures of3", ...results)),
      column(
        about,
        row(
          button("Clear", clear),
          button("A random test image", () => load(Math.floor(uniforms(turn++)() * count))),
          chooser,
        ),
      ),
    ),
  );
  return { load, imageAt, labelOf, pad, whole };
}

/** p(x|z) and a sample of x at the point. */
function decodedPictures(vae, point) {
  const mean = thumbnail("p(x|z)", vae.side),
    sample = thumbnail("A sample of x", vae.side),
    where = note();
  let seed = 0;
  const show = () => {
    const p = vae.decode(point.value),
      next = uniforms(seed),
      at = vae.latent <= 3 ? ` at z = ${tuple(point.value)}` : "";
    mean.show(p, `Decoded image p(x|z)${at}`);
    sample.show(
      p.map((value) => +(next() < value)),
      `A sample of x${at}`,
    );
    where.textContent = vae.latent <= 3 ? `z = ${tuple(point.value)}` : "";
  };
  point.watch(show);
  const again = button("New sample", () => {
    seed += 1;
    show();
    say("A new sample");
  });
  return [
    pictures(figure(mean, "p(x|z)", "the decoded image"), figure(sample, "a sample of x", "a sample of x")),
    where,
    again,
  ];
}

/** Buttons that move z to what was found of the image. */
function movers(vae, fed, moveTo) {
  const mover = (label, to) => button(label, () => moveTo(to(fed.value)));
  const all = [mover("Move z to the mean μ", ({ q }) => q.mu)];
  if (vae.grid) all.push(mover("Move z to the highest p(z|x)", ({ exact }) => exact.best));
  fed.watch((now) =>
    all.forEach((each, i) => {
      each.disabled = !now || (i > 0 && !now.exact);
    }),
  );
  return all;
}

/** One or two latents: the codes of test images, and z on them. */
function latentPanel(vae, point, fed, way, moveTo, codes, labels) {
  const flat = vae.latent === 2,
    farthest = codes.reduce((far, value) => Math.max(far, Math.abs(value)), 3);
  const span = Math.min(vae.grid.reach, 1.06 * farthest),
    count = 22; // all codes are in sight
  const inside = (value) => clamp(value, -span, span);
  const options = [
    ["codes", "codes of test images"],
    ...(flat ? [["images", "decoded images"]] : []),
    ["nothing", "nothing"],
  ];
  let behind = options.some(([name]) => name === view.get("background")) ? view.get("background") : "codes",
    decoded = null,
    dots = null;

  /** Decoded images all over the plane, computed when they are asked for. */
  function manifold() {
    if (decoded) return decoded;
    decoded = element("canvas", { width: count * vae.side, height: count * vae.side });
    const at = (k) => span * ((2 * k + 1) / count - 1),
      context = decoded.getContext("2d");
    for (let line = 0; line < count; line++) {
      const z = Float64Array.from(range(count).flatMap((k) => [at(k), -at(line)]));
      slices(vae.decode(z, count), count).forEach((image, k) =>
        paint(context, image, vae.side, k * vae.side, line * vae.side),
      );
    }
    return decoded;
  }
  /** The codes as small digits, and a large one at the median of each; drawn once for a size and its colours. */
  function digits(width, height, scale, to) {
    const name = `${width} ${height} ${colour("ground")} ${scale}`;
    if (dots?.name === name) return dots.canvas;
    const canvas = element("canvas", { width: width * scale, height: height * scale }),
      context = canvas.getContext("2d");
    context.scale(scale, scale);
    const placed = labels.map((label, i) => [
      label,
      ...to(flat ? [codes[2 * i], codes[2 * i + 1]] : [codes[i], label, i]),
    ]);
    for (const [label, x, y] of placed) {
      context.fillStyle = colour(`d${label}`);
      write(context, label, x, y + 3, "center", width < 400 ? 8 : 9);
    }
    const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
    context.strokeStyle = colour("paper");
    context.lineWidth = 5;
    for (const digit of new Set(labels)) {
      const own = placed.filter(([label]) => label === digit);
      context.fillStyle = colour(`d${digit}`);
      write(context, digit, median(own.map(([, x]) => x)), median(own.map(([, , y]) => y)) + 8, "center", 24, true);
    }
    dots = { name, canvas };
    return canvas;
  }

  const title = flat ? "The latent plane" : "The latent line";
  const node = surface(
    title,
    flat ? 1 : 1.6,
    (context, width, height) => {
      const x = (value) => ((value + span) / (2 * span)) * width;
      const to = flat
        ? ([u, v]) => [x(u), ((span - v) / (2 * span)) * height]
        : ([u, label, i]) => [
            x(u),
            height * (label === undefined ? 0.5 : 0.04 + 0.088 * (label + 0.7 * uniforms(i)())),
          ];
      const onImages = flat && behind === "images";
      context.imageSmoothingEnabled = true; // which other drawings on this canvas switch off
      if (onImages) context.drawImage(manifold(), 0, 0, width, height);
      if (behind === "codes") context.drawImage(digits(width, height, context.getTransform().a, to), 0, 0, width, height);
      const rim = onImages ? "#000" : colour("paper"),
        ink = onImages ? "#ffd34d" : colour("text");
      const between = Math.ceil(span / 4),
        pins = way.pins.map((pin) => pin && to(pin));
      if (flat)
        for (const [style, thick] of [
          [rim, 3],
          [ink, 1],
        ]) {
          context.strokeStyle = style;
          context.lineWidth = thick;
          for (const radius of [1, 2]) circle(context, width / 2, height / 2, (radius * width) / (2 * span), "stroke");
          trace(context, pins.filter(Boolean));
        }
      context.fillStyle = ink;
      context.strokeStyle = rim;
      context.lineWidth = 3;
      for (const value of [-3, -2, -1, 0, 1, 2, 3]
        .map((k) => k * between)
        .filter((each) => Math.abs(each) < 0.95 * span)) {
        write(context, fixed(value, 0), x(value), height - 6, "center", 12, true);
        if (flat && value) write(context, fixed(value, 0), 5, to([0, value])[1] + 4, "left", 12, true);
      }
      if (flat)
        pins.forEach((pin, which) => {
          if (pin) {
            circle(context, ...pin, 3);
            write(context, "AB"[which], pin[0] + 6, pin[1] - 6, "left", 14, true);
          }
        });
      write(context, "z1", width - 6, height - 6, "right", 12, true);
      if (flat) write(context, "z2", 5, 14 * rem, "left", 12, true);
      if (fed.value)
        drawPosterior(
          context,
          width,
          height,
          vae,
          fed.value,
          (z) => z.map((value, d) => (d ? span - value : value + span) / (2 * span)),
          { far: false, centre: [0, 0], half: span },
          onImages ? ["#78b2f5", "#efa35a"] : undefined, // both are seen on black
        );
      marker(context, flat ? to(point.value) : [x(point.value[0]), height / 2], ink, rim);
    },
    { help: "Drag, or use the arrow keys, with Shift for larger steps, to move z." },
  );
  node.id = "plane";
  const go = (...z) => moveTo(z.slice(0, vae.latent).map(inside));
  drag(
    node,
    (u, v) => u === u && go((2 * u - 1) * span, (1 - 2 * v) * span),
    (dx, dy) => go(point.value[0] + (dx * span) / 60, point.value[1] - (dy * span) / 60),
    { flat: !flat },
  );
  point.watch(node.later);
  fed.watch(node.later);
  const back = choice(
    "Background",
    options,
    (value) => {
      behind = value;
      keep("background", value);
      node.later();
    },
    behind,
  );
  const [images, where, again] = decodedPictures(vae, point);
  panel(
    title,
    flat
      ? "Every point z is an image. Small numbers are labels of test images at their codes, large ones stand at their medians. The circles are one and two standard deviations of the prior: are there places inside that give no clear image?"
      : "Every point z is an image. The small numbers are the labels of test images, at their codes and in a row for each label; a large one is at the median.",
    "",
    box(
      "latents",
      figure(
        node,
        key([
          ["accent", "exact p(z|x) of your image"],
          ["second", "the encoder's q(z|x)"],
        ]),
        title,
      ),
      column(images, where),
    ),
    row(
      again,
      ...movers(vae, fed, moveTo),
      back,
      csv("codes", () => [
        ["label", "z1", "z2"].slice(0, 1 + vae.latent),
        ...labels.map((label, i) => [label, ...codes.subarray(i * vae.latent, (i + 1) * vae.latent)]),
      ]),
    ),
  );
  return inside;
}

/** More latents: a slider for each; those that say most of an image come first. */
function slidersPanel(vae, model, point, fed, moveTo) {
  const { kl, latent } = model,
    order = range(latent)
      .sort((a, b) => kl[b] - kl[a])
      .slice(0, 64);
  const sliders = order.map((d) =>
    slider(`z${d + 1}, ${fixed(kl[d])} nats`, { min: -4, max: 4, step: 0.05, value: 0 }, (value) =>
      moveTo(point.value.map((old, k) => (k === d ? value : old))),
    ),
  );
  point.watch((z) => sliders.forEach((each, k) => each.set(z[order[k]])));
  const more = sliders.slice(10),
    left = latent > order.length ? `; the other ${latent - order.length} have no slider` : "",
    rest = element(
      "details",
      {},
      element("summary", {}, `${plural(more.length, "more latent")}, of less KL${left}`),
      box("sliders", ...more),
    );
  let seed = 0;
  const [images, where, again] = decodedPictures(vae, point);
  panel(
    `The ${latent} latents`,
    "A slider moves one latent. Beside its name is its mean KL over the test images: a latent with 0 nats carries " +
      "nothing, and moving it should change nothing.",
    "many", // the image stays in sight
    images,
    where,
    row(
      again,
      ...movers(vae, fed, moveTo),
      button("z from the prior", () => moveTo(normals(++seed, latent))),
    ),
    box("sliders", ...sliders.slice(0, 10)),
    ...(more.length ? [rest] : []),
  );
  return (value) => clamp(value, -1e3, 1e3); // a code may lie farther out than the sliders reach
}

/** Where the densities of one latent stand: above the numbers of the axis. */
const floorOf = (height) => height - 22 * rem;

/** The exact posterior and the encoder's Gaussian of an image, in two colours; share(z): where a point is, in shares of the
 *  canvas. */
function drawPosterior(
  context,
  width,
  height,
  vae,
  { q, exact, quick },
  share,
  { far, centre, half },
  [blue, orange] = ["accent", "second"],
) {
  const to = (z) => share(z).map((value, d) => value * (d ? height : width));
  if (exact?.error >= 1) exact = null;
  if (vae.latent === 1) {
    // two densities over the line, as high as the higher peak
    const zs = range(400).map((i) => centre[0] + half * ((2 * i) / 399 - 1));
    const encoder = zs.map((z) => -0.5 * ((z - q.mu[0]) / q.sd[0]) ** 2 - Math.log(q.sd[0] * Math.sqrt(2 * Math.PI)));
    const truth = exact && [...vae.grid.between(exact, zs)].map((value) => value + exact.largest - exact.logPx);
    const top = Math.max(...encoder, ...(truth || []));
    for (const [ink, values] of [
      [blue, truth],
      [orange, encoder],
    ]) {
      context.strokeStyle = colour(ink);
      context.lineWidth = 2.5;
      if (values)
        trace(
          context,
          zs.map((z, i) => [to([z])[0], floorOf(height) * (1 - 0.9 * Math.exp(values[i] - top))]),
        );
    }
    return;
  }
  if (exact) {
    // as a picture: the cubic between the points of the grid is smooth
    const [most, almost] = exact.levels,
      fine = quick ? 64 : 160,
      steps = range(fine).map((i) => half * ((2 * i + 1) / fine - 1));
    const logs = vae.grid.between(
      exact,
      steps.map((value) => centre[0] + value),
      steps.map((value) => centre[1] - value),
    );
    const picture = shades(fine, fine, [rgb(blue)], (i) => {
      const depth = -logs[(i % fine) * fine + Math.floor(i / fine)]; // below the peak
      return [0, depth <= most ? 0.8 : depth <= almost ? 0.45 : far && depth < 60 ? 0.25 * (1 - depth / 60) : 0];
    });
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, width, height);
  }
  context.strokeStyle = colour(orange);
  context.lineWidth = 2;
  const scale = width / (2 * half);
  for (const deviations of [1, 2]) {
    context.setLineDash(deviations === 2 ? [5, 4] : []);
    context.beginPath();
    context.ellipse(
      ...to(q.mu),
      Math.max(1.5, deviations * q.sd[0] * scale),
      Math.max(1.5, deviations * q.sd[1] * scale),
      0,
      0,
      2 * Math.PI,
    );
    context.stroke();
  }
  context.setLineDash([]);
}

/** The exact posterior beside the encoder's Gaussian, enlarged. */
function posteriorPanel(vae, point, fed, draws, moveTo) {
  const flat = vae.latent === 2,
    told = note();
  let far = view.get("far") === "1",
    window = { centre: [0, 0], half: vae.grid.reach };
  const share = (z) => z.map((value, d) => 0.5 + ((d ? -1 : 1) * (value - window.centre[d])) / (2 * window.half));
  const node = surface(
    "",
    flat ? 1 : 1.6,
    (context, width, height) => {
      const now = fed.value;
      if (!now) return;
      window = vae.grid.frame(now.q, now.exact);
      drawPosterior(context, width, height, vae, now, share, { ...window, far });
      const to = (z) => [share(z)[0] * width, flat ? share(z)[1] * height : floorOf(height)];
      context.fillStyle = colour("second");
      for (const { z } of draws.value) circle(context, ...to(z), 2.5);
      context.fillStyle = colour("muted");
      const edge = (d, sign) => fixed(window.centre[d] + sign * window.half, 2);
      write(context, `z1 ${edge(0, -1)}`, 4, height - 6);
      write(context, edge(0, 1), width - 4, height - 6, "right");
      if (flat) {
        write(context, `z2 ${edge(1, 1)}`, 4, 14 * rem);
      }
      marker(context, to(point.value), colour("text"), colour("paper"));
    },
    { help: "Drag, or use the arrow keys, to move z." },
  );
  node.id = "posterior";
  const move = (u, v) =>
    moveTo([
      window.centre[0] + (2 * u - 1) * window.half,
      ...(flat ? [window.centre[1] + (1 - 2 * v) * window.half] : []),
    ]);
  drag(
    node,
    (u, v) => u === u && move(u, v),
    (dx, dy) => {
      const [u, v = 0] = share(point.value);
      move(u + dx / 60, v + dy / 60);
    },
    { flat: !flat },
  );
  for (const each of [point, fed, draws]) each.watch(node.later);
  fed.watch((now) => {
    told.textContent = !now
      ? ""
      : `Encoder: mean ${tuple(now.q.mu)}, standard deviation ${tuple(now.q.sd)}. ` +
        (now.exact ? `Highest p(z|x) at ${tuple(now.exact.best)}.` : "The exact posterior is being computed …");
    node.setAttribute("aria-label", `Encoder and exact posterior, enlarged. ${told.textContent}`);
  });
  const colours = key([
    ["accent", `exact p(z|x)${flat ? ": 39% and 86% of its probability" : ""}`],
    [
      "second",
      `the encoder's q(z|x)${flat ? ": 1 and 2 standard deviations, which hold as much" : ""}; dots: draws of z`,
    ],
  ]);
  const valleys = tick("also where p(z|x) is small, down to 60 nats below its peak", far, (yes) => {
    far = yes;
    keep("far", yes ? 1 : undefined);
    node.later();
  });
  panel(
    "Encoder against exact posterior",
    "Where the two shapes agree the gap is 0. Where they do not: is the encoder's place wrong, or its shape?",
    "",
    figure(node, colours, "encoder and exact posterior"),
    ...(flat ? [valleys] : []),
    told,
  );
}

/** 2(b)iii. z = mu + sigma eps, one draw after the other, and the running mean that approaches the ELBO. */
function reparameterisationPanel(vae, fed, draws, moveTo) {
  const image = thumbnail("p(x|z) at the drawn z", vae.side),
    formula = note();
  const numbers = readout([
    ["likelihood", "log p(x|z)"],
    ["prior", "+ log p(z)"],
    ["q", "− log q(z|x)"],
    ["sum", "this draw's estimate of the ELBO"],
    ["mean", "mean of the draws", "strong"],
    ["error", "its standard error"],
    ["elbo", "ELBO"],
  ]);
  const estimateOf = ({ logLikelihood, logPrior, logQ }) => logLikelihood + logPrior - logQ;
  let seed = 0;
  function more(count) {
    const { x, q } = fed.value,
      fresh = range(count).map(() => vae.draw(x, q, normals(9000 + seed++, vae.latent)));
    moveTo(fresh.at(-1).z);
    draws.set([...draws.value, ...fresh]);
    say(
      `${plural(draws.value.length, "draw")}: ${formula.textContent} Mean ${numbers.querySelectorAll("td")[4].textContent}.`,
    );
  }
  const buttons = [
    button("Draw ε", () => more(1), { class: "main" }),
    button("Draw 20", () => more(20)),
    csv("draws", () => [
      ["n", ...range(vae.latent).map((d) => `z${d + 1}`), "log_p_x_given_z", "log_p_z", "log_q_z_given_x"],
      ...draws.value.map(({ z, logLikelihood, logPrior, logQ }, i) => [i + 1, ...z, logLikelihood, logPrior, logQ]),
    ]),
  ];
  function show() {
    const now = fed.value,
      list = draws.value,
      last = list.at(-1);
    buttons.forEach((each, i) => {
      each.disabled = !now || (i > 1 && !last);
    });
    numbers.clear();
    if (now) numbers.set({ elbo: nats(now.elbo, now.error) });
    whole.classList.toggle("unused", !last);
    if (!now || !last) {
      image.show(null, "Nothing drawn yet");
      formula.textContent =
        "z = μ + σ · ε, with ε from a standard normal: the noise is drawn apart from μ and σ, so that gradients reach both.";
      return;
    }
    const estimates = list.map(estimateOf),
      n = list.length,
      mean = sum(estimates) / n;
    const error = Math.sqrt(sum(estimates.map((value) => (value - mean) ** 2)) / (n - 1) / n),
      shown = vae.latent <= 2 ? vae.latent : 1;
    image.show(vae.decode(last.z), `p(x|z) at the drawn z = ${tuple(last.z.slice(0, 3))}`);
    formula.textContent =
      range(shown)
        .map(
          (d) =>
            `z${d + 1} = ${fixed(now.q.mu[d], 2)} + ${fixed(now.q.sd[d], 2)} · ${fixed(last.eps[d], 2)} = ${fixed(last.z[d], 2)}`,
        )
        .join("; ") + (shown < vae.latent ? "; and so on." : ".");
    numbers.set({
      likelihood: nats(last.logLikelihood),
      prior: nats(last.logPrior),
      q: nats(-last.logQ),
      sum: nats(estimates.at(-1)),
      mean: `${nats(mean)} (${plural(n, "draw")})`,
      error: n < 5 ? "–" : nats(error), // few draws tell none
    });
  }
  const chart = surface(
    "The mean of the draws",
    2.2,
    (context, width, height) => {
      const now = fed.value,
        values = draws.value.map(estimateOf);
      context.fillStyle = colour("muted");
      if (!now || !values.length)
        return write(context, "the mean of the draws will be here", width / 2, height / 2, "center");
      let total = 0;
      const means = values.map((value, i) => (total += value) / (i + 1)),
        [low, high] = extent([...values, now.elbo]),
        left = 52 * rem;
      const to = (i, value) => [
        left + ((width - left - 8) * (i + 1)) / values.length,
        10 + ((height - 30) * (high - value)) / (high - low || 1),
      ];
      for (const value of [low, high]) write(context, axisText(value), left - 6, to(0, value)[1] + 4, "right");
      write(context, plural(values.length, "draw"), width - 8, height - 4, "right");
      values.forEach((value, i) => circle(context, ...to(i, value), 2));
      context.lineWidth = 2;
      context.strokeStyle = colour("second");
      trace(context, [
        [left, to(0, now.elbo)[1]],
        [width, to(0, now.elbo)[1]],
      ]);
      context.strokeStyle = colour("accent");
      trace(
        context,
        means.map((value, i) => to(i, value)),
      );
      circle(context, ...to(means.length - 1, means.at(-1)), 3);
    },
    { kind: "chart" },
  );
  const meanings = key([
    ["muted", "each draw's estimate"],
    ["accent", "their mean so far"],
    ["second", "ELBO"],
  ]);
  for (const each of [fed, draws]) {
    each.watch(show);
    each.watch(chart.later);
  }
  const whole = panel(
    "Draw z with the reparameterisation",
    "Each draw gives one noisy estimate of the ELBO. How many draws does it take " +
      "until their mean is within 1 nat?",
    "",
    box("beside", figure(image, "p(x|z)", "the image of the draw"), column(row(...buttons), formula)),
    numbers,
    figure(chart, meanings, "the mean of the draws"),
  );
}

/** How far the bound misses log p(x), for all test images, and the images where it misses most. Returns what is called
 *  once the grid is there: it shows these, by their gaps without the chance of a draw. */
function gapsPanel(vae, model, drawing) {
  const { counts, low, high, mean, median, numbers, below, largest, draws } = model.gaps;
  const at = (value) => (counts.length * (value - low)) / (high - low);
  const histogram = bars(
    "Gaps of all test images, in nats",
    "images",
    roundTicks(low, high, 6).map((value) => [at(value), axisText(value)]),
    [{ name: "test images", colour: "accent", values: counts }],
    "the gaps",
    low < 0 && at(0),
  );
  const worst = box("tiles gaps", "computing …");
  panel(
    "What the bound misses",
    `Gap log p(x) − ELBO in nats, with ${plural(draws, "draw")} of z for each test image${below ? ", by which some are below 0" : ""}: ` +
      `mean ${fixed(mean)}, median ${fixed(median)}, largest ${fixed(largest, 0)}. The worst ones are below, with their gaps in the mean over z. Choose one to load it.`,
    "",
    histogram,
    worst,
  );
  const show = ([i, gap, error]) => {
    const told = gridNats(gap, error),
      node = tile(model.side, () => {
        drawing.load(i);
        drawing.whole.scrollIntoView(); // what is known of it stands there
      });
    node.show(drawing.imageAt(i), told, `Load test image ${i}, a ${drawing.labelOf(i)}: gap ${told}`);
    return node;
  };
  return () => {
    const found = [];
    inSlices(
      numbers.length,
      (k) => {
        const { exact, elbo } = measured(vae, drawing.imageAt(numbers[k]));
        found.push([numbers[k], exact.logPx - elbo, exact.error]);
      },
      () => worst.replaceChildren(...oneStop(found.sort(([, a], [, b]) => b - a).map(show))),
    );
  };
}
