// The page of a generative adversarial network. First the maths, then the panels.

const gan = page.model && prepareGan(page.model);
hw5.gan = gan;

function prepareGan(model) {
  const generator = unpackLayers(model.generator), discriminator = unpackLayers(model.discriminator);
  const unit = (bytes) => Float32Array.from(unpack(bytes), (value) => value / 255), train = unit(model.train);

  /** G's images of z [n,zdim], in its own range of values. */
  const generate = (z, n = 1, layers = generator) => forward(layers, z, n);
  /** D's logits of images in that range; D(x) is their sigmoid. */
  const judge = (x, n = 1) => forward(discriminator, x, n);
  /** A value of that range as one of [0,1]. */
  const toUnit = (value) => (value - model.darkest) / (1 - model.darkest);

  /** Noise [zdim] from a seed, as the run draws it: uniform in [-1,1], or normal. */
  function noise(seed) {
    if (model.noise === "normal") return normals(seed, model.zdim);
    const next = uniforms(seed);
    return Float64Array.from({ length: model.zdim }, () => 2 * next() - 1);
  }

  /** The nearest training image of those that the page holds: its number and its Euclidean distance, pixels in [0,1]. */
  function nearest(unit) {
    let index = 0, least = Infinity;
    for (let i = 0; i < train.length / 784; i++) {
      let total = 0;
      for (let k = 0; k < 784 && total < least; k++) total += (unit[k] - train[784 * i + k]) ** 2;
      if (total < least) { index = i; least = total; }
    }
    return { index, distance: Math.sqrt(least) };
  }

  // Generators of earlier epochs or, where these do not fit, their images of the run's own noise
  const earlier = model.earlier.map(({ name, layers, images }) => ({
    name, layers: layers && unpackLayers(layers), images: images && unit(images),
  }));
  return { generate, judge, noise, nearest, toUnit, earlier, train, z: unpack(model.z), directions: unpack(model.directions) };
}

// ------------------------------------------------------------------------------------------------------------ panels

if (gan) {
  const model = page.model, { zdim } = model, count = model.z.shape[0];
  const percent = (value) => (value > 0.995 && value < 1 ? ">99%" : `${Math.round(100 * value)}%`);
  const slices = (all, n, size = all.length / n) => Array.from({ length: n }, (_, i) => all.subarray(i * size, (i + 1) * size));
  const joined = (points) => Float64Array.from(points.flatMap((point) => [...point]));
  const toUnit = (x) => x.map(gan.toUnit), neighbours = slices(gan.train, gan.train.length / 784);
  const versions = [...gan.earlier, { name: "at the end of the run" }];
  const none = model.strengths.map(() => 0); // no move along the directions
  const state = { seed: 0, version: versions.at(-1), chosen: 0, grid: [], z: null, name: "", moves: [...none] };
  const generate = (z, n = 1) => gan.generate(z, n, state.version.layers); // undefined: the last generator

  // ---- a grid of samples

  const tiles = Array.from({ length: count }, (_, i) => {
    const picture = thumbnail("", 28), text = element("span"), tile = button("", () => select(i));
    picture.setAttribute("aria-hidden", "true");
    tile.append(picture, text);
    return Object.assign(tile, { picture, text });
  });
  const about = note(), opinion = note();
  const toRange = (units) => Float64Array.from(units, (value) => model.darkest + (1 - model.darkest) * value);
  const noiseName = () => (state.seed ? `seed ${state.seed}` : "the run's noise");
  const nameOf = (i) => `${noiseName()}, sample ${i + 1}`;

  function showGrid() {
    const { seed, version } = state;
    state.grid = tiles.map((_, i) => (seed ? gan.noise(1000 * seed + i) : Float64Array.from(slices(gan.z, count)[i])));
    const x = version.images ? toRange(version.images) : generate(joined(state.grid), count);
    const real = gan.judge(x, count).map(sigmoid), images = slices(toUnit(x), count);
    tiles.forEach((tile, i) => {
      tile.picture.show(images[i]);
      tile.text.textContent = percent(real[i]);
      tile.setAttribute("aria-label", `Sample ${i + 1}, D says ${percent(real[i])} real`);
    });
    about.textContent = `Noise: ${noiseName()}. Generator: ${version.name}.`
      + (version.images ? " These images were kept from training; the other panels use the last generator." : "");
    state.mean = percent(sum(real) / count);
    compare();
  }
  /** D's mean on these samples beside that on training images, which is computed once. */
  function compare() {
    opinion.textContent = `Mean of D, at the end of the run: ${state.mean} on these samples, ${state.real || "…"} on `
      + `${neighbours.length} training images. Where both are alike, D cannot tell them apart.`;
  }
  let total = 0;
  const judgeReal = (i) => { total += sigmoid(gan.judge(toRange(neighbours[i]))[0]); };
  inSlices(neighbours.length, judgeReal, () => { state.real = percent(total / neighbours.length); compare(); });

  function select(i) {
    way.stop();
    state.chosen = i;
    show(state.grid[i], nameOf(i));
  }
  function refresh() {
    showGrid();
    select(state.chosen);
    say(about.textContent);
  }
  function reseed(seed) {
    state.seed = seed;
    seedBox.set(seed);
    if (state.version.images && seed) { // no generator is left to run on other noise
      state.version = versions.at(-1);
      epochs.set(versions.length - 1);
    }
    refresh();
  }
  const seedBox = number("Seed, 0: the run's own", 999999, reseed);
  const epochs = slider("Generator", { min: 0, max: versions.length - 1, step: 1, value: versions.length - 1 }, (value) => {
    state.version = versions[value];
    if (state.version.images) { state.seed = 0; seedBox.set(0); }
    refresh();
    way.show();
  }, (value) => versions[value].name);

  // ---- one sample

  const large = thumbnail("The image", 28), caption = element("span"), neighbour = thumbnail("The nearest image", 28);
  const facts = readout([["real", "D(x): how real it looks to D", "strong"], ["logit", "its logit"], ["length", "length of z"],
    ["near", "distance to that training image"]]);
  const share = (strength) => `${Math.round(100 * strength ** 2)}% of the change`;
  const sliders = model.strengths.map((strength, k) => slider(`Direction ${k + 1} (${share(strength)})`,
    { min: -4, max: 4, step: 0.1, value: 0 }, (value) => {
      way.stop();
      state.moves[k] = value;
      show(moved(), `${nameOf(state.chosen)}, moved`, { moves: state.moves });
    }, (value) => value.toFixed(1)));

  /** The chosen sample's z, moved along the directions as the sliders say. */
  const moved = () => state.grid[state.chosen].map((value, i) =>
    state.moves.reduce((total, move, k) => total + move * gan.directions[k * zdim + i], value));

  /** Shows the image of z under a name; `tile`: the sample that it comes from, `moves`: where the sliders stand. */
  function show(z, name, { tile = state.chosen, moves = [...none] } = {}) {
    const x = generate(z), image = toUnit(x), logit = gan.judge(x)[0], near = gan.nearest(image);
    Object.assign(state, { z, name, moves });
    sliders.forEach((each, k) => each.set(moves[k]));
    tiles.forEach((each, i) => each.setAttribute("aria-pressed", String(i === tile)));
    way.mark();
    caption.textContent = name;
    large.show(image, `${name}. D says ${percent(sigmoid(logit))} real.`);
    neighbour.show(neighbours[near.index], `Training image ${near.index}, the nearest that the page holds`);
    facts.set({ real: percent(sigmoid(logit)), logit: logit.toFixed(2), length: Math.hypot(...z).toFixed(2),
      near: near.distance.toFixed(2) });
    hw5.shown = { z, x, logit, near };
  }

  const way = path({
    count: 9, side: 28, current: () => [state.z, state.name], changed: (z, name) => z && show(z, name, { tile: -1 }),
    images: (points) => slices(toUnit(generate(joined(points), points.length)), points.length),
  });

  panel("Samples, and what D thinks of them", "The number below each image is D(x), the probability that D calls it "
    + "real. Choose an image to work with it.", "", box("tiles samples", ...tiles), about, opinion,
    row(seedBox, button("New noise", () => reseed(state.seed + 1), { class: "main" })),
    ...(versions.length > 1 ? [epochs] : []));
  panel("One sample", "Each slider moves z along one of the directions that change G's first layer most; in brackets: "
    + "its share of all change. Push one to its end: when does the image stop being a digit?", "",
    pictures(figure(large, caption), figure(neighbour, `nearest of ${neighbours.length} training images`)), facts,
    box("sliders", ...sliders), row(button("Back to the sample", () => select(state.chosen))));
  panel("A path between two samples", "Smooth changes mean that G has learned more than single images. Choose a sample "
    + "and pin it as A, choose another and pin it as B.", "wide", ...way.parts);
  showGrid();
  [0, 5 % count].forEach((i, which) => way.pin(which, state.grid[i], nameOf(i)));
  select(0);
}
