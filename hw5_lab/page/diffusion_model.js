// The maths of score matching. It draws nothing.
"use strict";

/** The model of a page's description: points x are arrays [x, y, x, y, ...]. */
function prepareDiffusion(model) {
  const program = unpackProgram(model.network),
    data = unpack(model.data),
    { levels, eps } = model;

  /** The network's score at points x. */
  function network(x, sigma) {
    const n = x.length / 2;
    return run(program, { data: x, shape: [n, 2] }, { data: new Float64Array(n).fill(sigma), shape: [n, 1] })[0];
  }

  /** The best possible score: (mean of the data p, weighted by softmax(-|x - p|^2 / (2 sigma^2)), - x) / sigma^2. */
  function best(x, sigma) {
    const scores = new Float64Array(x.length),
      count = data.length / 2,
      squares = new Float64Array(count);
    for (let i = 0; i < x.length; i += 2) {
      let least = Infinity,
        total = 0,
        a = 0,
        b = 0;
      for (let k = 0; k < count; k++) {
        const square = (x[i] - data[2 * k]) ** 2 + (x[i + 1] - data[2 * k + 1]) ** 2;
        squares[k] = square;
        if (square < least) least = square;
      }
      for (let k = 0; k < count; k++) {
        const depth = (least - squares[k]) / (2 * sigma * sigma);
        if (depth < -40) continue; // less than e^-40 of the nearest point's weight
        const weight = Math.exp(depth);
        total += weight;
        a += weight * data[2 * k];
        b += weight * data[2 * k + 1];
      }
      scores[i] = (a / total - x[i]) / (sigma * sigma);
      scores[i + 1] = (b / total - x[i + 1]) / (sigma * sigma);
    }
    return scores;
  }

  /** The size of a step: alpha = factor eps sigma^2 / sigma_L^2. */
  const stepSize = (sigma, factor = 1) => factor * eps * (sigma / levels.at(-1)) ** 2;

  /** One step of Langevin dynamics: x + alpha s + sqrt(2 alpha) noise; without a seed there is no noise. */
  function langevin(x, sigma, score, seed, factor = 1) {
    const alpha = stepSize(sigma, factor),
      s = score(x, sigma),
      noise = seed === undefined ? null : normals(seed, x.length);
    return x.map((value, i) => value + alpha * s[i] + (noise ? Math.sqrt(2 * alpha) * noise[i] : 0));
  }

  const scores = { network, best },
    cache = {};
  /** A score at the same points for each sigma, computed once. Where the network is not told sigma, that is once for all
   *  levels: its result is only divided by sigma. */
  function field(name, source, x, sigma) {
    const once = source === "network" && !model.told,
      key = `${name} ${source} ${once ? "" : sigma}`;
    cache[key] ||= once ? network(x, 1) : scores[source](x, sigma);
    return once ? cache[key].map((value) => value / sigma) : cache[key];
  }
  return { network, best, scores, langevin, stepSize, field, data, levels };
}

/** Annealed Langevin dynamics of many points. frames[step] are the points at a step: `count` of them, and after these the
 *  user's own, mine [[x, y, the step at which it starts], ...] in the order of these steps. */
function samplingChain(diffusion, { start }, settings) {
  const { levels } = diffusion;
  const chain = { ...settings, mine: [], frames: [] };
  Object.defineProperty(chain, "total", { get: () => chain.perLevel * levels.length + 1 }); // the last one takes noise away
  chain.levelAt = (step) => Math.min(levels.length - 1, Math.floor(step / chain.perLevel));

  /** Appends a frame: x, and the user's points that start now. */
  const append = (x) => {
    const fresh = chain.mine.slice(x.length / 2 - chain.count).filter(([, , start]) => start <= chain.frames.length);
    chain.frames.push(Float64Array.from([...x, ...fresh.flatMap(([a, b]) => [a, b])]));
  };
  /** Computes the next frame; false at the end. */
  chain.advance = () => {
    const step = chain.frames.length - 1,
      x = chain.frames[step],
      score = diffusion.scores[chain.source],
      sigma = levels[chain.levelAt(step)];
    if (step === chain.total) return false;
    if (step < chain.total - 1)
      append(diffusion.langevin(x, sigma, score, chain.noise ? 7919 * chain.seed + step : undefined, chain.factor));
    else {
      const s = score(x, sigma);
      append(x.map((value, i) => value + sigma ** 2 * s[i]));
    }
    return true;
  };
  /** From the start. */
  chain.restart = () => {
    chain.frames = [];
    append(normals(chain.seed, 2 * chain.count).map((value) => start[0] + start[1] * value));
  };
  /** A new point of the user's, which starts at a step; so do those that would start later. What came after is forgotten. */
  chain.add = (point, step) => {
    const x = chain.frames[step];
    chain.mine = [...chain.mine, [...point, step]].map(([a, b, begin]) => [a, b, Math.min(begin, step)]);
    chain.frames.length = step;
    append(x);
  };
  /** The parts of the step that comes after frame `step`, for point i: x, s, noise, the next x. */
  chain.parts = (step, i) => {
    const sigma = levels[chain.levelAt(step)],
      alpha = diffusion.stepSize(sigma, chain.factor),
      place = (x) => x.subarray(2 * i, 2 * i + 2);
    const x = place(chain.frames[step]),
      next = place(chain.frames[step + 1]),
      s = diffusion.scores[chain.source](x, sigma);
    return {
      sigma,
      alpha,
      x,
      s,
      next,
      noise: next.map((value, d) => (value - x[d] - alpha * s[d]) / Math.sqrt(2 * alpha)),
    };
  };
  return chain;
}
