// The maths of a variational autoencoder. It draws nothing.
"use strict";

/** The model of a page's description: functions of images x [pixels] and latents z [latent]. */
function prepareVae(model) {
  const encoder = unpackProgram(model.encoder),
    decoder = unpackProgram(model.decoder);
  const { latent } = model,
    pixels = model.side ** 2;

  /** Mean and standard deviation of q(z|x), for one image. */
  function encode(x) {
    const [mu, variance] = run(encoder, { data: x, shape: [1, pixels] });
    return { mu, sd: variance.map(Math.sqrt) };
  }
  const logits = (z, n = 1) => forward(decoder, z, n);
  const decode = (z, n = 1) => logits(z, n).map(sigmoid);

  /** log p(x|z) in nats, given the decoder's logits of one z. */
  function logLikelihood(x, all, from = 0) {
    let total = 0;
    for (let i = 0; i < pixels; i++) total += x[i] * all[from + i] - softplus(all[from + i]);
    return total;
  }

  // ---- the bound

  /** Points eps [n*latent] and weights [n] that stand for the mean over a standard normal eps. For one or two latents:
   *  Gauss and Hermite. For more: at two radii, along axes that are turned another way for each `turn`; every mean of
   *  cubic polynomials is exact, and the mean of several turns comes near to all others. */
  function cubature(turn) {
    const four = [
      [0.7419637843027259, 0.4541241452319315],
      [2.3344142183389773, 0.04587585476806849],
    ];
    const nodes = (turn === "quick" ? [[1, 0.5]] : four).flatMap(([u, weight]) => [
      [u, weight],
      [-u, weight],
    ]);
    if (latent === 1) return { eps: Float64Array.from(nodes, ([u]) => u), weights: nodes.map(([, a]) => a) };
    if (latent === 2) {
      const pairs = nodes.flatMap(([u, a]) => nodes.map(([v, b]) => [u, v, a * b]));
      return {
        eps: Float64Array.from(pairs.flatMap(([u, v]) => [u, v])),
        weights: pairs.map(([, , weight]) => weight),
      };
    }
    const axes = [],
      wide = Math.sqrt(2 * (latent + 2)),
      inner = Math.sqrt(latent + 2 - wide),
      outer = Math.sqrt(latent + 2 + wide);
    const share = (wide - 2) / (2 * wide); // of the outer points, so that the mean square is right
    const noise = slices(normals(500 + (+turn || 0), latent * Math.min(latent, 32)), Math.min(latent, 32));
    for (const axis of noise) {
      // Gram and Schmidt
      for (const other of axes) {
        const along = axis.reduce((total, value, d) => total + value * other[d], 0);
        axis.forEach((_, d) => {
          axis[d] -= along * other[d];
        });
      }
      const length = Math.hypot(...axis);
      axes.push(axis.map((value) => value / length));
    }
    const mean = Math.sqrt(latent),
      radii =
        turn === "quick"
          ? [[mean, 1]]
          : [
              [inner, 1 - share],
              [outer, share],
            ];
    const signed = radii.flatMap(([radius, weight]) => [
      [radius, weight],
      [-radius, weight],
    ]);
    const points = axes.flatMap((axis) => signed.map(([radius]) => axis.map((value) => radius * value)));
    return { eps: joined(points), weights: axes.flatMap(() => signed.map(([, weight]) => weight / (2 * axes.length))) };
  }
  const rules = {};

  /** E[log p(x|z)] with z from q, by the points of one turn, or by half as many, "quick". */
  function reconstruction(x, { mu, sd }, turn = 0) {
    const { eps, weights } = (rules[turn] ||= cubature(turn));
    const all = logits(
      eps.map((value, i) => mu[i % latent] + sd[i % latent] * value),
      weights.length,
    );
    return sum(weights.map((weight, k) => weight * logLikelihood(x, all, k * pixels)));
  }
  /** KL(q || p) in nats, exactly. */
  const divergence = ({ mu, sd }) => sum(Array.from(mu, (m, d) => 0.5 * (sd[d] ** 2 + m ** 2 - 1) - Math.log(sd[d])));
  /** Turns after which the bound is known, and what it misses then, in nats; more turns make no difference for a plane. */
  const turns = latent > 2 ? 12 : 1;

  /** One z of q with its noise: 2(b)iii. And the three log densities of Eq. 2, in nats. */
  function draw(x, { mu, sd }, eps) {
    const z = mu.map((m, d) => m + sd[d] * eps[d]),
      square = (values) => sum(Array.from(values, (value) => value * value));
    const constant = -0.5 * latent * Math.log(2 * Math.PI);
    return {
      eps,
      z,
      logLikelihood: logLikelihood(x, logits(z)),
      logPrior: constant - 0.5 * square(z),
      logQ: constant - sum(Array.from(sd, Math.log)) - 0.5 * square(eps),
    };
  }

  return {
    encode,
    decode,
    logLikelihood,
    reconstruction,
    divergence,
    turns,
    cubature,
    draw,
    latent,
    side: model.side,
    grid: model.grid && posteriorGrid(model.grid, decoder, latent),
  };
}

/** The exact posterior of one or two latents on a grid of z, from what the page holds of it. */
function posteriorGrid({ reach, points, sums: packed }, decoder, latent) {
  const sums = unpack(packed),
    total = points ** latent,
    spacing = (2 * reach) / (points - 1),
    half = points / 2;
  const last = decoder.ops.at(-1),
    { bias, weight } = last;
  // log p(x|z) = x . (W hidden + b) - sums; where no linear layer comes last, x . logits - sums
  const short = last.op === "linear";
  const program = short ? { ops: decoder.ops.slice(0, -1), outputs: last.of } : decoder;
  // Every second point of both directions comes first: a coarse grid by itself
  const places = (size, step) =>
    range(size ** latent).map((i) =>
      latent === 1 ? i * step : Math.floor(i / size) * step * points + (i % size) * step,
    );
  const isCoarse = new Uint8Array(total),
    coarse = places(half, 2);
  coarse.forEach((g) => {
    isCoarse[g] = 1;
  });
  const order = [...coarse, ...range(total).filter((g) => !isCoarse[g])];
  /** The places of point g of a grid along the axes, from 0 on. */
  const along = (g, size) => (latent === 1 ? [g] : [Math.floor(g / size), g % size]);
  let units = 0,
    values = null,
    built = 0;
  const offsets = new Float64Array(total);

  /** Computes the values of the next points; returns whether some are left. */
  function build(count = 128) {
    const chosen = order.slice(built, built + count),
      z = chosen.map((g) => along(g, points).map((i) => -reach + i * spacing));
    const some = forward(program, Float64Array.from(z.flat()), chosen.length);
    units = some.length / chosen.length;
    values ||= new Float32Array(total * units);
    values.set(some, built * units);
    z.forEach((point, k) => {
      offsets[built + k] = -sums[chosen[k]] - 0.5 * sum(point.map((value) => value * value + Math.log(2 * Math.PI)));
    });
    built += chosen.length;
    return built < total;
  }

  /** log p(x,z) at all points of the grid, and what follows: log p(x), the log of its integral by the trapezoid rule; the
   *  difference to every second point, as an estimate of the error; the best z; regions of most probability.
   *  quick: on the coarse grid. null while that is not built. */
  function posterior(x, quick = false) {
    const size = built === total && !quick ? points : half,
      count = size ** latent;
    if (built < count) return null;
    let direction = x,
      constant = 0;
    if (short) {
      // x . logits = (W^T x) . hidden + x . b: one vector for all points
      direction = new Float64Array(units);
      for (let i = 0; i < x.length; i++) {
        if (!x[i]) continue;
        constant += x[i] * bias[i];
        for (let k = 0; k < units; k++) direction[k] += x[i] * weight[i * units + k];
      }
    }
    const layer = { weight: values.subarray(0, count * units), bias: offsets.subarray(0, count) };
    const found = linear(layer, direction, 1).map((value) => value + constant);
    const logJoint = size === points ? new Float64Array(total) : found,
      step = spacing * (points / size);
    if (size === points)
      order.forEach((g, i) => {
        logJoint[g] = found[i];
      });
    const largest = logJoint.reduce((a, b) => Math.max(a, b)),
      best = logJoint.indexOf(largest);
    const second = logJoint.filter((_, g) => along(g, size).every((i) => i % 2 === 0));
    const logPx = logSumExp(logJoint) + latent * Math.log(step);
    const error = Math.abs(logPx - logSumExp(second) - latent * Math.log(2 * step));
    const z = along(best, size).map((i) => -reach + i * step);
    const result = { size, step, logJoint, largest, logPx, error, best: z };
    return { ...result, levels: levels(result, [0.3935, 0.8647]) };
  }

  /** Grid points and their weights for a place along an axis: cubic, so that a Gaussian's log is exact. */
  function taps(value, { size, step }) {
    const u = clamp((value + reach) / step, 0, size - 1),
      i = Math.min(size - 2, Math.floor(u)),
      t = u - i;
    const weights = [
      (((2 - t) * t - 1) * t) / 2,
      ((3 * t - 5) * t * t + 2) / 2,
      (((4 - 3 * t) * t + 1) * t) / 2,
      ((t - 1) * t * t) / 2,
    ];
    return weights.map((w, k) => [clamp(i + k - 1, 0, size - 1), w]);
  }
  /** log p(x,z) relative to its peak, at all places of the rows us and, for two latents, the columns vs. */
  function between(result, us, vs = [0]) {
    const { size, logJoint, largest } = result,
      rows = us.map((u) => taps(u, result));
    const columns = latent === 1 ? [[[0, 1]]] : vs.map((v) => taps(v, result)),
      stride = latent === 1 ? 1 : size;
    const values = new Float64Array(rows.length * columns.length).fill(-largest);
    let at = 0;
    for (const across of rows)
      for (const down of columns) {
        for (const [i, w] of across) for (const [j, v] of down) values[at] += w * v * logJoint[i * stride + j];
        at++;
      }
    return values;
  }

  /** How far below the peak the smallest regions end that hold these shares of the posterior, in nats. */
  function levels(result, shares) {
    const { size, step, logJoint, largest } = result,
      fine = [-1 / 3, 0, 1 / 3],
      found = [];
    for (let g = 0; g < logJoint.length; g++) {
      if (logJoint[g] < largest - 20) continue;
      const [us, vs] = along(g, size).map((i) => fine.map((part) => -reach + (i + part) * step));
      found.push(...between(result, us, vs));
    }
    found.sort((a, b) => b - a);
    const all = sum(found.map(Math.exp));
    return shares.map((share) => {
      let held = 0;
      return -(found.find((value) => (held += Math.exp(value)) >= share * all) ?? found.at(-1));
    });
  }

  /** A square of the plane, or a piece of the line, that holds both shapes: {centre, half}. Of the exact one all that is
   *  less than 4 nats below its peak, and the region of 86%. */
  function frame({ mu, sd }, exact) {
    const ends = Array.from(mu, (m, d) => [m - 3 * sd[d], m + 3 * sd[d]]);
    exact?.logJoint.forEach((value, g) => {
      if (value >= exact.largest - Math.max(4, exact.levels[1]))
        along(g, exact.size).forEach((i, d) =>
          ends[d].push((i - 1) * exact.step - reach, (i + 1) * exact.step - reach),
        );
    });
    const sides = ends.map(extent);
    return {
      centre: sides.map(([a, b]) => (a + b) / 2),
      half: Math.max(0.1, ...sides.map(([a, b]) => 0.53 * (b - a))),
    };
  }

  return {
    build,
    posterior,
    between,
    frame,
    reach,
    points,
    get built() {
      return built;
    },
  };
}

/** A gray image [28*28] as the edition feeds it to its encoder. */
function preparePixels(gray, how) {
  if (how === "gray") return gray;
  if (how === "rounded") return gray.map((value) => +(value > 0.5));
  if (how === "drawn") {
    const next = uniforms(1);
    return gray.map((value) => +(next() < value));
  }
  return Float64Array.from({ length: 196 }, (_, i) => {
    // "halved"
    const at = 56 * Math.floor(i / 14) + 2 * (i % 14);
    const total = gray[at] + gray[at + 1] + gray[at + 28] + gray[at + 29];
    return +(total / 4 > 128 / 255 + 1e-6); // a mean of 128 is not more than 128
  });
}
