// The maths of a generative adversarial network. It draws nothing.
"use strict";

/** The model of a page's description: images x are arrays of the values that D knows, `unit` ones are in [0,1]. */
function prepareGan(model) {
  const generator = unpackProgram(model.generator),
    discriminator = unpackProgram(model.discriminator);
  const [black, white] = model.range,
    unit = (bytes) => Float64Array.from(bytes, (value) => value / 255);

  /** G's images of z [n,zdim], of the generator at the end of the run or of an earlier one. */
  const generate = (z, n = 1, network = generator) => forward(network, z, n);
  /** D's logits of images; D(x) is their sigmoid. */
  const judge = (x, n = 1) => forward(discriminator, x, n, [1, 28, 28]);
  const toUnit = (x) => x.map((value) => (value - black) / (white - black));
  const fromUnit = (x) => Float64Array.from(x, (value) => black + (white - black) * value);

  /** How D's logit of x changes with each of `count` pixels: a part of the gradient [784]. By differences, one pixel each. */
  function gradientOf(x, first, count, step = 1e-4) {
    const moved = joined(range(count).map(() => x));
    for (let i = 0; i < count; i++) moved[784 * i + first + i] += step;
    const before = judge(x)[0];
    return judge(moved, count).map((value) => (value - before) / step);
  }

  /** The share of pairs of a real image and a sample in which D finds the real one more real; 0.5 is guessing. */
  function rightPairs(real, fake) {
    let right = 0;
    for (const a of real) for (const b of fake) right += a > b ? 1 : a === b ? 0.5 : 0;
    return right / real.length / fake.length;
  }

  // Generators of earlier epochs or, where these do not fit, their images of the run's own noise
  const earlier = model.earlier.map(({ name, network, images }) => ({
    name,
    network: network && unpackProgram(network),
    images: images && unit(unpack(images)),
  }));
  const z = unpack(model.z),
    real = unit(unpack(model.real));
  return {
    generate,
    judge,
    toUnit,
    fromUnit,
    gradientOf,
    rightPairs,
    zdim: model.zdim,
    samples: model.samples,
    versions: [...earlier, { name: "at the end of the run" }],
    z: slices(z, z.length / model.zdim),
    real: slices(real, real.length / 784),
    directions: unpack(model.directions),
  };
}
