// The page of a variational autoencoder. First the maths, then the panels.

const vae = page.model && prepareVae(page.model);
hw5.vae = vae;

function prepareVae(model) {
  const encoder = unpackLayers(model.encoder), muHead = unpackLayers(model.mu), sigmaHead = unpackLayers(model.sigma);
  const decoder = unpackLayers(model.decoder), pixels = model.side ** 2;
  const [first, , second] = decoder;

  /** Mean and standard deviation of q(z|x), for one image. */
  function encode(x) {
    const hidden = forward(encoder, x);
    const toDeviation = model.scale === "deviation" ? softplus : (logVariance) => Math.exp(logVariance / 2);
    return { mu: forward(muHead, hidden), sd: forward(sigmaHead, hidden).map(toDeviation) };
  }

  const logits = (z, n = 1) => forward(decoder, z, n);
  const decode = (z, n = 1) => logits(z, n).map(sigmoid);

  /** log p(x|z) in nats, given the decoder's logits of one z. */
  function logLikelihood(x, all, from = 0) {
    let total = 0;
    for (let i = 0; i < pixels; i++) total += x[i] * all[from + i] - softplus(all[from + i]);
    return total;
  }

  // Points and weights that stand for the mean over a standard normal z: 5x5 of Gauss and Hermite, or 24 draws
  const [near, nearWeight] = [1.3556261799742659, 0.22207592200561266];
  const [far, farWeight] = [2.856970013872806, 0.011257411327720689];
  const nodes = [[0, 8 / 15], [near, nearWeight], [-near, nearWeight], [far, farWeight], [-far, farWeight]];
  const standard = model.latent === 2
    ? nodes.flatMap(([u, a]) => nodes.map(([v, b]) => ({ eps: [u, v], weight: a * b })))
    : Array.from({ length: 24 }, (_, i) => ({ eps: normals(1000 + i, model.latent), weight: 1 / 24 }));

  /** The same for q(z|x): points z [n,latent] and their weights. */
  function spread({ mu, sd }) {
    const z = Float64Array.from(standard.flatMap(({ eps }) => Array.from(eps, (value, d) => mu[d] + sd[d] * value)));
    return { z, weights: standard.map(({ weight }) => weight) };
  }

  /** The bound of one image and its two parts, in nats, with the exact KL. */
  function bound(x, q = encode(x)) {
    const { z, weights } = spread(q), all = logits(z, weights.length);
    const reconstruction = sum(weights.map((weight, k) => weight * logLikelihood(x, all, k * pixels)));
    const kl = sum(Array.from(q.mu, (mu, d) => 0.5 * (q.sd[d] ** 2 + mu ** 2 - 1) - Math.log(q.sd[d])));
    return { reconstruction, kl, elbo: reconstruction - kl };
  }

  // ---- two latents: the exact posterior on a grid

  const n = model.points, reach = model.reach, spacing = (2 * reach) / (n - 1);
  const line = model.latent === 2 ? Float64Array.from({ length: n }, (_, i) => -reach + i * spacing) : null;
  const sums = line && unpack(model.softplus_sums);
  let layer = null;

  /** A layer to all points of the grid, whose weights are the decoder's hidden units there; computed once. */
  function gridLayer() {
    if (layer) return layer;
    const units = first.outputs, f = ACTIVATIONS[decoder[1].kind];
    layer = { weight: new Float32Array(n * n * units), bias: new Float64Array(n * n), inputs: units, outputs: n * n };
    for (let g = 0, at = 0; g < n * n; g++) {
      const u = line[Math.floor(g / n)], v = line[g % n], { weight, bias } = first;
      for (let k = 0; k < units; k++) layer.weight[at++] = f(weight[2 * k] * u + weight[2 * k + 1] * v + bias[k]);
      layer.bias[g] = -sums[g] - 0.5 * (u * u + v * v) - Math.log(2 * Math.PI);
    }
    return layer;
  }

  /** log p(x,z) at all points of the grid; log p(x), the log of its integral by the trapezoid rule; the difference to every
   *  second point of the grid, as an estimate of the error; the best z. */
  function posterior(x) {
    const units = first.outputs, direction = new Float64Array(units);
    let constant = 0;
    for (let i = 0; i < pixels; i++) { // x . logits = (W^T x) . hidden + x . b: one vector for all points
      if (!x[i]) continue;
      constant += x[i] * second.bias[i];
      for (let k = 0; k < units; k++) direction[k] += x[i] * second.weight[i * units + k];
    }
    const logJoint = linear(gridLayer(), direction, 1).map((value) => value + constant);
    const largest = logJoint.reduce((a, b) => Math.max(a, b)), best = logJoint.indexOf(largest);
    const coarse = logJoint.filter((_, g) => (g % n) % 2 === 0 && Math.floor(g / n) % 2 === 0);
    const logArea = 2 * Math.log(spacing), logPx = logSumExp(logJoint) + logArea;
    const error = Math.abs(logPx - logSumExp(coarse) - logArea - Math.log(4));
    return { logJoint, largest, logPx, error, best: [line[Math.floor(best / n)], line[best % n]] };
  }

  return { encode, decode, bound, spread, posterior, reach, spacing, points: n };
}

/** Strokes [[[x, y], ...], ...] in any unit as a gray image [28*28], made as MNIST was: the ink, of a pen of fixed width,
 *  fits a box of 20x20 and is centred by its mass. */
function rasterise(strokes, pen = 1.15) {
  const points = strokes.flat(), xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const left = Math.min(...xs), right = Math.max(...xs), top = Math.min(...ys), bottom = Math.max(...ys);
  const scale = Math.min((20 - 2 * pen) / Math.max(right - left, bottom - top, 1e-9), 0.25); // a dot stays a dot

  const from = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - pen - 1)); // the pixels that ink from a to b can reach
  const to = (a, b) => Math.min(27, Math.floor(Math.max(a, b) + pen + 1));
  const draw = (dx, dy) => {
    const image = new Float64Array(784);
    for (const stroke of strokes)
      stroke.forEach(([x, y], k) => {
        const [endX, endY] = stroke[k + 1] || [x, y], ax = x * scale + dx, ay = y * scale + dy;
        const wide = (endX - x) * scale, high = (endY - y) * scale, square = wide * wide + high * high;
        for (let line = from(ay, ay + high); line <= to(ay, ay + high); line++)
          for (let col = from(ax, ax + wide); col <= to(ax, ax + wide); col++) {
            const px = col + 0.5 - ax, py = line + 0.5 - ay, pixel = 28 * line + col;
            const t = square && Math.min(1, Math.max(0, (px * wide + py * high) / square)); // the nearest on the line
            const ink = pen + 0.5 - Math.sqrt((px - t * wide) ** 2 + (py - t * high) ** 2);
            image[pixel] = Math.max(image[pixel], Math.min(1, ink));
          }
      });
    return image;
  };
  const dx = 14 - (scale * (left + right)) / 2, dy = 14 - (scale * (top + bottom)) / 2;
  const boxed = draw(dx, dy), mass = sum(boxed);
  const mean = (of) => boxed.reduce((total, ink, pixel) => total + ink * (of(pixel) + 0.5), 0) / mass;
  return draw(dx + 14 - mean((pixel) => pixel % 28), dy + 14 - mean((pixel) => Math.floor(pixel / 28)));
}

/** A gray image [28*28] as the edition feeds it to its encoder: prepare_pixels() of hw5_vae.py. */
function preparePixels(gray, how) {
  if (how === "gray") return gray;
  if (how === "rounded") return gray.map((value) => +(value > 0.5));
  if (how === "drawn") { const next = uniforms(1); return gray.map((value) => +(next() < value)); }
  return Float64Array.from({ length: 196 }, (_, i) => { // "halved"
    const at = 56 * Math.floor(i / 14) + 2 * (i % 14);
    const total = gray[at] + gray[at + 1] + gray[at + 28] + gray[at + 29];
    return +(total / 4 > 128 / 255 + 1e-6); // a mean of 128 is not more than 128
  });
}

Object.assign(hw5, { rasterise, preparePixels });

// ------------------------------------------------------------------------------------------------------------ panels

const CLASSES = ["#4c78c8", "#e0802b", "#3f9b4f", "#cf4646", "#8f63c0", "#8c6250", "#d874b5", "#7f868d", "#a9a623", "#21a6b8"];
const fixed = (x, digits = 1) => (+x.toFixed(digits) < 0 ? "−" : "") + Math.abs(x).toFixed(digits);
const nats = (x) => `${fixed(x)} nats`;
const coordinates = (z) => `(${Array.from(z, (value) => fixed(value, 2)).join(", ")})`;

if (vae) {
  const { side, latent, pixels } = page.model, flat = latent === 2, area = side * side;
  const codes = unpack(page.model.codes), labels = unpack(page.model.labels);
  const view = { z: new Float64Array(latent), seed: 0, refresh() {} }; // the point that is decoded

  // ---- decode

  const mean = thumbnail("p(x|z)", side), sample = thumbnail("A sample of x", side), where = note();
  function decode() {
    const p = vae.decode(view.z), next = uniforms(view.seed), at = flat ? ` at z = ${coordinates(view.z)}` : "";
    mean.show(p, `Decoded image p(x|z)${at}`);
    sample.show(p.map((value) => +(next() < value)), `A sample of x${at}`);
    where.textContent = nameOf(view.z);
  }
  function moveTo(z) {
    way.mark();
    view.z = Float64Array.from(z);
    decode();
    view.refresh();
    say(where.textContent);
  }
  const decoded = pictures(figure(mean, "p(x|z), the mean of each pixel"), figure(sample, "x ~ p(x|z), one sample"));
  const again = button("New sample", () => { view.seed += 1; decode(); });
  const nameOf = (z) => (flat ? `z = ${coordinates(z)}` : `z of length ${Math.hypot(...z).toFixed(2)}`);
  const way = path({
    count: 11, side, current: () => [view.z, nameOf(view.z)], changed: (z) => (z ? moveTo(z) : view.refresh()),
    images: (points) => points.map((point) => vae.decode(point)),
  });
  const beside = (...controls) =>
    column(decoded, where, row(...controls, again), subtitle("A path between two points"), ...way.parts);

  if (flat) planePanel();
  else slidersPanel();

  /** The latent plane, with test codes or decoded images behind it. */
  function planePanel() {
    const farthest = codes.reduce((far, value) => Math.max(far, Math.abs(value)), 3);
    const span = Math.min(vae.reach, 1.06 * farthest); // all codes are in sight
    const inside = (value) => Math.min(span, Math.max(-span, value));
    let behind = "codes", tiles = null;

    function manifold(count = 22) {
      if (tiles) return tiles;
      tiles = element("canvas", { width: count * side, height: count * side });
      for (let i = 0; i < count * count; i++) {
        const at = (k) => span * ((2 * k + 1) / count - 1), column = i % count, line = Math.floor(i / count);
        paint(tiles.getContext("2d"), vae.decode([at(column), -at(line)]), side, column * side, line * side);
      }
      return tiles;
    }

    const help = "The latent plane. Drag, or use the arrow keys, with Shift for larger steps, to move z.";
    const plane = surface(help, 1, (context, width) => {
      const to = ([x, y]) => [((x + span) / (2 * span)) * width, ((span - y) / (2 * span)) * width];
      const mark = behind === "manifold" ? "#ffd34d" : colour("text");
      if (behind === "manifold") context.drawImage(manifold(), 0, 0, width, width);
      if (behind === "codes")
        labels.forEach((label, i) => {
          const [x, y] = to([codes[2 * i], codes[2 * i + 1]]);
          context.fillStyle = CLASSES[label];
          context.fillRect(x - 1.2, y - 1.2, 2.4, 2.4);
        });
      const between = Math.ceil(span / 4), ticks = [-3, -2, -1, 0, 1, 2, 3].map((k) => k * between);
      const pins = way.pins.map((pin) => pin && to(pin));
      for (const [ink, thickness] of [[behind === "manifold" ? "#000" : colour("paper"), 3], [mark, 1]]) { // with a rim
        context.strokeStyle = context.fillStyle = ink;
        context.lineWidth = thickness;
        for (const radius of [1, 2]) circle(context, width / 2, width / 2, (radius * width) / (2 * span), "stroke");
        trace(context, pins);
        context.lineWidth = 2 * thickness;
        circle(context, ...to(view.z), 8, "stroke");
        crosshair(context, ...to(view.z), 13);
        context.lineWidth = thickness;
        const text = (...parts) => write(context, ...parts, thickness > 1);
        for (const value of ticks.filter((each) => Math.abs(each) < 0.95 * span)) {
          text(fixed(value, 0), to([value, 0])[0], width - 6, "center", 11);
          if (value) text(fixed(value, 0), 5, to([0, value])[1] + 4, "left", 11);
        }
        pins.forEach((pin, which) => {
          circle(context, ...pin, 3);
          text("AB"[which], pin[0] + 6, pin[1] - 6, "left", 13);
        });
      }
    }, { interactive: true });
    plane.id = "plane";
    const walkTo = (z) => { way.stop(); moveTo(z); };
    drag(plane, (u, v) => walkTo([inside((2 * u - 1) * span), inside((1 - 2 * v) * span)]),
      (dx, dy) => walkTo([inside(view.z[0] + (dx * span) / 60), inside(view.z[1] - (dy * span) / 60)]));
    view.refresh = plane.later;
    const options = [["codes", "codes of test images, by digit"], ["manifold", "decoded images"], ["nothing", "nothing"]];
    const back = choice("Behind it", options, (value) => {
      behind = value;
      digits.hidden = behind !== "codes";
      plane.later();
    });
    const digits = key("Colours of the digits", CLASSES.map((name, digit) => [name, digit]));
    panel("The latent plane", "Every point z is an image; the circles are one and two standard deviations of the prior. "
      + "Drag across them: there should be a digit everywhere.", "wide",
      box("split", column(plane, digits), beside(back)));
  }

  /** A slider for each latent; those that say most of an image come first. */
  function slidersPanel() {
    const { kl } = page.model, order = kl.map((_, d) => d).sort((a, b) => kl[b] - kl[a]).slice(0, 64);
    const sliders = order.map((d) => slider(`z${d + 1}, ${kl[d].toFixed(2)} nats`, { min: -3.5, max: 3.5, step: 0.05, value: 0 },
      (value) => { view.z[d] = value; way.mark(); decode(); }, (value) => fixed(value, 2)));
    const shown = sliders.slice(0, 10), more = sliders.slice(10);
    const rest = element("details", {}, element("summary", {}, `${more.length} more latents, which say less`),
      box("sliders", ...more));
    let seed = 0;
    const prior = button("z from the prior", () => moveTo(normals(++seed, latent)));
    const zero = button("All zero", () => moveTo(new Float64Array(latent)));
    view.refresh = () => sliders.forEach((each, k) => each.set(view.z[order[k]]));
    panel(latent === 1 ? "The latent" : `The ${latent} latents`, "Each slider is one latent, with the nats that it tells of "
      + "a test image. Move the first ones, which tell most.", "wide",
      box("split", column(box("sliders", ...shown), ...(more.length ? [rest] : [])), beside(prior, zero)));
  }

  // ---- encode: draw or load an image

  const fed = thumbnail("The image that the encoder gets", side), about = note();
  const atMean = thumbnail("Reconstruction at the encoder's mean", side);
  const atBest = thumbnail("Reconstruction at the best z", side);
  const bound = [["reconstruction", "E[log p(x|z)], z from the encoder"], ["kl", "KL(q(z|x) || p(z))"],
    ["elbo", "ELBO, their difference"]];
  const likelihood = [["logPx", "log p(x), exact"], ["gap", "gap: what the bound misses", "strong"],
    ["error", "error of the grid, estimated"]];
  const numbers = readout(flat ? [...bound, ...likelihood] : bound);
  const heats = []; // pictures of the posterior
  const mover = (label, to) => button(label, () => moveTo(to()));
  const movers = [mover(flat ? "Move z to the encoder's mean" : "Move the sliders to the code", () => now.q.mu)];
  if (flat) movers.push(mover("Move z to the best z", () => now.exact.best));
  let now = null; // {x, q, exact, ...} of the image that is shown

  /** Encodes x, measures it, and shows all of that. */
  function feed(x, name) {
    const q = vae.encode(x), values = vae.bound(x, q), exact = flat ? vae.posterior(x) : null;
    hw5.fed = now = { x, q, exact, ...values };
    pad.later();
    fed.show(x, `The image that the encoder gets: ${name}`);
    atMean.show(vae.decode(q.mu));
    numbers.set({ reconstruction: nats(values.reconstruction), kl: nats(values.kl), elbo: nats(values.elbo) });
    about.textContent = `${name[0].toUpperCase()}${name.slice(1)}.`;
    movers.forEach((each) => { each.disabled = false; });
    if (flat) {
      atBest.show(vae.decode(exact.best), `Reconstruction at the best z, ${coordinates(exact.best)}`);
      const error = `${exact.error.toPrecision(1)} nats`;
      numbers.set({ logPx: nats(exact.logPx), gap: nats(exact.logPx - values.elbo), error });
      about.textContent += ` Encoder: mean ${coordinates(q.mu)}, deviation ${coordinates(q.sd)}. `
        + `Best z: ${coordinates(exact.best)}.`;
    }
    heats.forEach((each) => each.later());
    say(`${name}: ELBO ${nats(values.elbo)}${flat ? `, log p(x) ${nats(exact.logPx)}` : ""}`);
  }
  hw5.feed = feed;

  const size = 280; // the drawing area in units of the pen
  let strokes = [], pen = [size / 2, size / 2], down = false, waiting = false;
  const help = "Drawing area. Draw with mouse or finger. Keyboard: the arrow keys move the pen, Space puts it down or lifts it.";
  const pad = surface(help, 1, (context, width) => {
    const to = ([x, y]) => [(x * width) / size, (y * width) / size];
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = (17 * width) / size;
    context.strokeStyle = colour("text");
    context.fillStyle = colour("text");
    for (const stroke of strokes) {
      circle(context, ...to(stroke[0]), context.lineWidth / 2); // all of a mere click
      trace(context, stroke.map(to));
    }
    context.fillStyle = colour("muted");
    if (!strokes.length) write(context, "draw a digit here", width / 2, 22, "center", 14);
    const faint = (i) => 0.25 * now.x[i]; // a loaded image
    if (!strokes.length && now) context.drawImage(shades(side, side, rgb("text"), faint), 0, 0, width, width);
    if (document.activeElement === pad && pad.byKeys) {
      context.strokeStyle = context.fillStyle = colour("accent");
      context.lineWidth = 2;
      circle(context, ...to(pen), 6, down ? "fill" : "stroke");
    }
  }, { interactive: true });
  pad.id = "pad";
  function feedDrawing() {
    waiting = false;
    if (strokes.length) feed(preparePixels(rasterise(strokes), pixels), "your drawing");
  }
  function drawn() {
    chooser.set(null);
    pad.later();
    if (!waiting) requestAnimationFrame(feedDrawing); // once for many moves of the pen
    waiting = true;
  }
  drag(pad, (u, v, phase) => {
    const point = [u * size, v * size];
    if (phase === "down") strokes.push([]);
    strokes.at(-1).push(point);
    drawn();
  }, (dx, dy) => {
    const inside = (value) => Math.min(size - 10, Math.max(10, value));
    pen = [inside(pen[0] + 8 * dx), inside(pen[1] + 8 * dy)];
    if (!down) return pad.later();
    strokes.at(-1).push(pen);
    drawn();
  });
  pad.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    down = !down;
    if (down) strokes.push([pen]);
    drawn();
    say(down ? "pen down" : "pen up");
  });
  function wipe() {
    strokes = [];
    down = false;
    pad.later();
  }
  function clear() {
    wipe();
    hw5.fed = now = null;
    chooser.set(null);
    numbers.clear();
    about.textContent = "Draw a digit, or load an image.";
    for (const each of [fed, atMean, atBest]) each.show(new Float64Array(area), "Nothing");
    say(about.textContent);
    movers.forEach((each) => { each.disabled = true; });
    heats.forEach((each) => each.later());
  }

  /** Image i of packed images, as numbers in [0,1]. */
  function imageAt(all, values, i) {
    return Float64Array.from(values.subarray(i * area, (i + 1) * area), (value) => value / (all.type === "u1" ? 255 : 1));
  }
  const stored = unpack(page.model.images), count = page.model.images.shape[0];
  function load(i) {
    wipe();
    chooser.set(i);
    feed(imageAt(page.model.images, stored, i), `test image ${i}, a ${labels[i]}`);
  }
  let turn = 0;
  const chooser = number(`Test image, 0 to ${count - 1}`, count - 1, load);
  const any = button("A random one", () => load(Math.floor(uniforms(turn++)() * count)));

  /** A button for each of the test images with the largest gap. */
  function gapTiles() {
    const packed = page.model.gap_images, values = unpack(packed);
    return Array.from(unpack(page.model.gap_labels), (label, i) => {
      const k = page.model.gap_numbers[i], name = `test image ${k}, a ${label}`, image = imageAt(packed, values, i);
      const picture = thumbnail("", side), attributes = { "aria-label": `Load ${name}`, title: name };
      const tile = button("", () => {
        wipe();
        chooser.set(k < count ? k : null);
        feed(image, `${name}, number ${i + 1} of the largest gaps`);
      }, attributes);
      picture.show(image);
      picture.setAttribute("aria-hidden", "true");
      tile.append(picture);
      return tile;
    });
  }
  const prepared = { rounded: "rounded to 0 and 1", drawn: "drawn as 0 or 1 at random", halved: "halved to 14x14 and rounded",
    gray: "kept gray" };
  const worst = flat ? [subtitle("Test images that the encoder serves worst"), box("tiles gaps", ...gapTiles())] : [];
  panel("Draw a digit", `Your strokes are fitted to a box of 20x20, centred by mass as MNIST was, and ${prepared[pixels]}. `
    + "Draw digits in your own way, and see how well the model explains them.", "",
    column(pad, row(button("Clear", clear)), row(chooser, any), ...worst));

  const results = [figure(fed, "what the encoder gets"), figure(atMean, "reconstruction at its mean")];
  if (flat) results.push(figure(atBest, "at the best z"));
  const facts = box("facts", column(pictures(...results), about), numbers);
  if (flat) posteriorPanel();
  else panel("What the encoder makes of it", "The bound is the reconstruction minus the KL; log p(x) is above it. "
    + "Load a few images, and see which part differs.", "", facts, row(...movers), note("E[log p(x|z)] is the mean of 24 "
    + "draws. A posterior on a grid needs two latents, so this page shows none and no exact log p(x)."));

  /** The exact posterior as a heat map, with the encoder's ellipse. */
  function posteriorPanel() {
    const { reach, spacing, points } = vae;
    /** The posterior at the grid's own points. In the picture z1 goes to the right and z2 up. */
    const shaded = ({ largest, logJoint }) => shades(points, points, rgb("accent"), (i) => {
      const depth = largest - logJoint[(i % points) * points + points - 1 - Math.floor(i / points)]; // below the peak
      // Probability in strong colour, and a faint shade down to 60 nats below the peak, where the valleys are
      return depth < 60 ? Math.max(0.9 * Math.exp(-0.5 * depth), 0.32 * (1 - depth / 60)) : 0;
    });
    const heat = (label, square) => {
      const caption = element("span"), node = surface(label, 1, (context, width) => {
        caption.textContent = label;
        node.setAttribute("aria-label", label);
        if (!now) return;
        const { centre: [u, v], half } = square(now), { exact, q } = now, pixel = (z) => (z + reach) / spacing + 0.5;
        const to = ([x, y]) => [((x - u) / half + 1) * 0.5 * width, (1 - (y - v) / half) * 0.5 * width];
        const part = (2 * half) / spacing, range = (z) => `${fixed(z - half)} to ${fixed(z + half)}`;
        context.drawImage(shaded(exact), pixel(u - half), pixel(-v - half), part, part, 0, 0, width, width);
        context.strokeStyle = colour("second");
        context.lineWidth = 2;
        for (const deviations of [1, 2]) {
          const [a, b] = Array.from(q.sd, (sd) => Math.max(1.5, (deviations * sd * width) / (2 * half)));
          context.setLineDash(deviations === 2 ? [5, 4] : []);
          context.beginPath();
          context.ellipse(...to(q.mu), a, b, 0, 0, 2 * Math.PI);
          context.stroke();
        }
        context.setLineDash([]);
        context.strokeStyle = colour("text");
        crosshair(context, ...to(exact.best), 7);
        caption.textContent = `${label}: z1 ${range(u)}, z2 ${range(v)}`;
        node.setAttribute("aria-label", caption.textContent); // mean and best z stand in the text below
      });
      heats.push(node);
      return figure(node, caption);
    };
    const whole = heat("The whole plane", () => ({ centre: [0, 0], half: reach }));
    const near = heat("Enlarged", ({ q: { mu, sd }, exact: { best } }) => ({
      centre: [(best[0] + mu[0]) / 2, (best[1] + mu[1]) / 2],
      half: Math.max(Math.abs(best[0] - mu[0]), Math.abs(best[1] - mu[1])) / 2 + 3.5 * Math.max(...sd, 0.1),
    }));
    const colours = key("Colours", [["var(--accent)", "exact posterior p(z|x), pale down to 60 nats below its peak; the cross is the peak"],
      ["var(--second)", "the encoder's q(z|x), one and two standard deviations"]]);
    panel("Encoder against exact posterior", "The gap is 0 where both agree. Load an image that the encoder serves badly: "
      + "it looks in the wrong place.", "", box("pair", whole, near), colours, facts, row(...movers));
  }

  decode();
  load(0);
  const code = (i) => codes.subarray(i * latent, (i + 1) * latent), other = labels.findIndex((label) => label !== labels[0]);
  const ends = [0, Math.min(Math.max(0, other), codes.length / latent - 1)].map(code);
  ends.forEach((z, which) => way.pin(which, z, nameOf(z)));
}
