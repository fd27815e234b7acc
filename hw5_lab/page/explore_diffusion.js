// The page of score matching. First the maths, then the panels.

const diffusion = page.model && prepareDiffusion(page.model);
hw5.diffusion = diffusion;

function prepareDiffusion(model) {
  const layers = unpackLayers(model.layers), data = unpack(model.data), { frequencies } = model;

  /** What the network is fed for points x [n,2]: waves and x itself, or x and sigma. */
  function features(x, sigma) {
    const waves = (value) => [...frequencies.map((f) => Math.cos(f * value)), ...frequencies.map((f) => Math.sin(f * value))];
    const rows = Array.from({ length: x.length / 2 }, (_, i) => [x[2 * i], x[2 * i + 1]]);
    return Float64Array.from(rows.flatMap(([a, b]) => (frequencies ? [...waves(a), ...waves(b), a, b] : [a, b, sigma])));
  }

  /** The network's score at x [n,2]: its output divided by sigma. */
  const network = (x, sigma) => forward(layers, features(x, sigma), x.length / 2).map((value) => value / sigma);

  /** The best possible score: (mean of the data p, weighted by softmax(-|x - p|^2 / (2 sigma^2)), - x) / sigma^2. */
  function best(x, sigma) {
    const scores = new Float64Array(x.length), count = data.length / 2, squares = new Float64Array(count);
    for (let i = 0; i < x.length; i += 2) {
      let least = Infinity, total = 0, a = 0, b = 0;
      for (let k = 0; k < count; k++) {
        const square = (x[i] - data[2 * k]) ** 2 + (x[i + 1] - data[2 * k + 1]) ** 2;
        squares[k] = square;
        if (square < least) least = square;
      }
      for (let k = 0; k < count; k++) {
        const depth = (least - squares[k]) / (2 * sigma * sigma);
        if (depth < -40) continue; // less than e^-40 of the nearest point's weight
        const weight = Math.exp(depth);
        total += weight; a += weight * data[2 * k]; b += weight * data[2 * k + 1];
      }
      scores[i] = (a / total - x[i]) / (sigma * sigma);
      scores[i + 1] = (b / total - x[i + 1]) / (sigma * sigma);
    }
    return scores;
  }

  /** One step of Langevin dynamics: x + alpha s + sqrt(2 alpha) noise with alpha = eps sigma^2 / sigma_L^2. */
  function langevin(x, sigma, score, seed) {
    const alpha = model.eps * (sigma / model.levels.at(-1)) ** 2;
    const s = score(x, sigma), noise = normals(seed, x.length);
    return x.map((value, i) => value + alpha * s[i] + Math.sqrt(2 * alpha) * noise[i]);
  }

  return { network, best, langevin, data };
}

// ------------------------------------------------------------------------------------------------------------ panels

if (diffusion) {
  const { levels, window: [[left, right], [low, high]], start, steps, frequencies } = page.model, { data } = diffusion;
  const last = levels.length - 1, sigmaText = (level) => `σ = ${levels[level].toFixed(3)}`;
  // What the canvases show: the window of the run's figures, higher where it is flat, for points start outside
  const width = right - left, tall = Math.max(high - low, width / 1.8), middle = (low + high) / 2;
  const fromShares = (u, v) => [left + u * width, middle + (0.5 - v) * tall];
  const inside = ([x, y]) => [Math.min(right, Math.max(left, x)), Math.min(middle + tall / 2, Math.max(middle - tall / 2, y))];
  /** Canvas coordinates, on a canvas so many pixels wide, of point i of x [n,2]. */
  const toCanvas = (x, pixels, i = 0) =>
    [((x[2 * i] - left) * pixels) / width, ((middle + tall / 2 - x[2 * i + 1]) * pixels) / width];

  /** The middles of columns x rows cells of the view, from the top left: x [columns*rows,2]. */
  function lattice(columns) {
    const rows = Math.round((columns * tall) / width);
    const point = (i) => fromShares(((i % columns) + 0.5) / columns, (Math.floor(i / columns) + 0.5) / rows);
    return { x: Float64Array.from(Array.from({ length: columns * rows }, (_, i) => point(i)).flat()), columns, rows };
  }

  function drawData(context, pixels) {
    context.fillStyle = colour("muted");
    context.globalAlpha = 0.4;
    for (let i = 0; i < data.length / 2; i++) context.fillRect(...toCanvas(data, pixels, i), 1.4, 1.4);
    context.globalAlpha = 1;
  }

  /** Arrows of about one length: far from the data a score is longer by orders of magnitude than between the strokes. */
  function drawField(context, pixels, { x, columns }, scores) {
    const lengths = Array.from({ length: x.length / 2 }, (_, i) => Math.hypot(scores[2 * i], scores[2 * i + 1]));
    const median = [...lengths].sort((a, b) => a - b)[lengths.length >> 1];
    const cell = pixels / columns, head = Math.min(3, cell / 5);
    lengths.forEach((length, i) => {
      const [u, v] = toCanvas(x, pixels, i), long = (0.85 * cell * length) / (length + median / 4);
      if (!(long > 1)) return;
      const dx = scores[2 * i] / length, dy = -scores[2 * i + 1] / length, endX = u + long * dx, endY = v + long * dy;
      const barb = (side) => [endX - head * (dx - side * 0.6 * dy), endY - head * (dy + side * 0.6 * dx)];
      trace(context, [[u, v], [endX, endY], barb(1), [endX, endY], barb(-1)]);
    });
  }

  samplingPanel();
  comparisonPanel();

  // ---- sampling

  function samplingPanel() {
    const perLevel = Math.min(steps, 200), total = perLevel * levels.length + 1; // the last step only takes the noise away
    const levelAt = (step) => Math.min(last, Math.floor(step / perLevel));
    // frames[step] are the points [n,2] at a step. The user's own, which start at `mine`, come after the first `count`;
    // births says at which step each point started. `level` is that of the arrows: the slider's, until the next level.
    const chain = { source: "network", count: 100, seed: 1, speed: 4, at: 0, level: 0, frames: [], births: [] };
    chain.mine = [];
    const arrows = lattice(26), fields = {}; // of each source and level, once computed
    // The step to which the page goes, the level that the arrows have followed, when the sampling ended
    let target = 0, follows = 0, ended = -Infinity;
    hw5.chain = chain;

    /** Computes the next frame; false at the end. */
    function advance() {
      const step = chain.frames.length - 1, x = chain.frames[step], score = diffusion[chain.source];
      if (step === total) return false;
      if (step < total - 1) chain.frames.push(diffusion.langevin(x, levels[levelAt(step)], score, 7919 * chain.seed + step));
      else { const s = score(x, levels[last]); chain.frames.push(x.map((value, i) => value + levels[last] ** 2 * s[i])); }
      return true;
    }
    let timer = 0, touched = 0;
    for (const kind of ["pointermove", "keydown"]) addEventListener(kind, () => { touched = performance.now(); }, true);
    /** Computes the rest of the chain step by step, while nothing else happens on the page. */
    function ahead() {
      clearTimeout(timer);
      timer = setTimeout(() => {
        const busy = play.running || performance.now() - touched < 300;
        if (busy || advance()) ahead();
      }, 10);
    }
    function goTo(step) {
      chain.at = target = step;
      scrub.set(step);
      if (levelAt(step) !== follows) level.set(chain.level = follows = levelAt(step));
      status.textContent = step === total ? `Step ${total}: the noise that was left is taken away. Your next point starts again at step 0.`
        : `Step ${step} of ${total}, ${sigmaText(levelAt(step))}, ${plural(chain.frames[step].length / 2, "point")}.`;
      playButton.textContent = play.running ? "Pause" : step === total ? "Play again" : "Play";
      field.later();
    }
    let cancel = () => {};
    /** Goes to a step, computing what is not there yet without stopping the page. */
    function reach(step) {
      halt();
      target = step;
      scrub.set(step);
      const work = () => { advance(); status.textContent = `Computing: step ${chain.frames.length - 1} of ${step}.`; };
      cancel = inSlices(Math.max(0, step + 1 - chain.frames.length), work, () => goTo(step));
    }
    /** Forgets what comes after the present step. The user's points that have not started yet start there. */
    function cut() {
      const x = chain.frames[chain.at], missing = chain.mine.slice(x.length / 2 - chain.count);
      chain.frames.length = chain.at;
      chain.frames.push(Float64Array.from([...x, ...missing.flat()]));
      chain.births = chain.births.map((birth) => Math.min(birth, chain.at));
      ahead();
    }
    /** From the start with new noise; the user's own points start where they were placed. */
    function restart() {
      halt();
      const noise = normals(chain.seed, 2 * chain.count).map((value) => start[0] + start[1] * value);
      chain.frames = [Float64Array.from([...noise, ...chain.mine.flat()])];
      chain.births = Array(chain.count + chain.mine.length).fill(0);
      goTo(0);
      ahead();
    }
    function addPoint(point) {
      cancel();
      if (chain.at === total) chain.at = 0; // at the end there is nothing left to follow
      chain.mine.push([...point]);
      chain.births.push(chain.at);
      cut();
      goTo(chain.at);
      say(`Point started. ${status.textContent}`);
    }
    const play = animation(() => {
      const end = performance.now() + 80;
      for (let k = 0; k < chain.speed && chain.at < total && performance.now() < end; k++) {
        if (chain.at + 1 === chain.frames.length) advance();
        chain.at += 1;
      }
      goTo(chain.at);
      if (chain.at === total) ended = performance.now();
      return chain.at < total;
    }, () => goTo(chain.at));
    function halt() {
      cancel();
      play.stop();
    }

    let cross = [left + width / 2, middle]; // where Enter starts a point
    const help = "Points that follow the score, over its field of arrows. Click to start a point there. "
      + "Keyboard: the arrow keys move a cross, Enter starts a point.";
    const field = surface(help, width / tall, (context, pixels) => {
      const x = chain.frames[chain.at], name = `${chain.source} ${chain.level}`;
      fields[name] ||= diffusion[chain.source](arrows.x, levels[chain.level]);
      drawData(context, pixels);
      context.strokeStyle = colour("muted");
      context.lineWidth = 1;
      context.globalAlpha = 0.7;
      drawField(context, pixels, arrows, fields[name]);
      context.strokeStyle = colour("second");
      context.lineWidth = 1.2;
      for (let i = chain.count; i < x.length / 2; i++) { // the ways of the user's own points
        const way = chain.frames.slice(chain.births[i], chain.at + 1).map((frame) => toCanvas(frame, pixels, i));
        for (const [opacity, part] of [[0.15, way.slice(0, -40)], [0.9, way.slice(-41)]]) { // the older part is faint
          context.globalAlpha = opacity;
          trace(context, part);
        }
      }
      context.globalAlpha = 1;
      for (let i = 0; i < x.length / 2; i++) {
        context.fillStyle = colour(i < chain.count ? "accent" : "second");
        circle(context, ...toCanvas(x, pixels, i), i < chain.count ? 2.3 : 4);
      }
      context.strokeStyle = colour("text");
      context.lineWidth = 2;
      if (document.activeElement === field && field.byKeys) crosshair(context, ...toCanvas(cross, pixels), 8);
    }, { interactive: true, scrolls: true });
    field.id = "field";
    drag(field, (u, v, phase) => { if (phase === "up") addPoint(fromShares(u, v)); }, (dx, dy) => {
      cross = inside([cross[0] + (dx * width) / 60, cross[1] - (dy * width) / 60]);
      field.later();
    });
    field.addEventListener("keydown", (event) => { if (event.key === "Enter") addPoint(cross); });

    const status = note(), endOfLevel = () => (target < total - 1 ? (levelAt(target) + 1) * perLevel : total);
    const playButton = button("Play", () => {
      if (play.running) return halt();
      if (chain.at === total && performance.now() - ended < 500) return; // meant to pause what has just ended
      if (chain.at === total) restart();
      if (still.matches) return reach(endOfLevel()); // without motion: at once
      cancel();
      play.start();
    }, { class: "main" });
    const buttons = row(playButton, button("Step", () => reach(Math.min(total, target + 1))),
      button("Next level", () => reach(endOfLevel())), button("Start again", () => { chain.seed += 1; restart(); }),
      button("Remove my points", () => { chain.mine = []; restart(); say(status.textContent); }));
    const scrub = slider("Step of sampling", { min: 0, max: total, step: 1, value: 0 }, reach, String);
    const level = slider("Noise level of the arrows", { min: 0, max: last, step: 1, value: 0 },
      (value) => { chain.level = value; field.later(); }, sigmaText);
    const speed = slider("Steps for each picture", { min: 1, max: 8, step: 1, value: chain.speed },
      (value) => { chain.speed = value; }, String);
    const source = choice("Score to follow", [["network", "the network's"], ["best", "the best possible"]],
      (value) => { // the same noise, from the start to the same step
        const step = target, playing = play.running;
        chain.source = value;
        restart();
        playing ? play.start() : reach(step);
      });
    const many = choice("Points", [[100, "100"], [200, "200"], [400, "400"], [0, "only mine"]],
      (value) => { chain.count = +value; restart(); });
    const fewer = `The run made ${steps} steps at each level; this page makes ${perLevel} of the same size.`;
    const blind = "The network is not told σ: its arrows have the same directions at every level.";
    panel("Sampling, step by step", "Points start as noise and follow the arrows of the score, with less noise at each "
      + "level. Click to start your own point: its way stays visible.", "",
      column(field, status, buttons, scrub, box("sliders", level, speed), row(source, many),
        ...(steps > perLevel ? [note(fewer)] : []), ...(frequencies ? [note(blind)] : [])));
    restart();
  }

  // ---- network against best possible score

  function comparisonPanel() {
    const cells = lattice(60), arrows = lattice(20), measured = {};
    let level = Math.min(last, 5), at = [left + 0.3 * width, middle];

    /** Both fields at a level, and sigma times their difference in all cells, computed row by row. */
    function measure() {
      const sigma = levels[level], difference = new Float64Array(cells.columns * cells.rows);
      const result = { difference, network: diffusion.network(arrows.x, sigma), best: diffusion.best(arrows.x, sigma) };
      inSlices(cells.rows, (line) => {
        const x = cells.x.subarray(2 * line * cells.columns, 2 * (line + 1) * cells.columns);
        const a = diffusion.network(x, sigma), b = diffusion.best(x, sigma);
        for (let i = 0; i < cells.columns; i++)
          difference[line * cells.columns + i] = sigma * Math.hypot(a[2 * i] - b[2 * i], a[2 * i + 1] - b[2 * i + 1]);
      }, () => map.later());
      return result;
    }
    const help = "Where the network's score and the best possible score differ. "
      + "Drag, or use the arrow keys, to compare both at a point.";
    const map = surface(help, width / tall, (context, pixels, height) => {
      const { difference, network, best } = (measured[level] ||= measure());
      const shade = (i) => 0.47 * Math.min(1, Math.sqrt(difference[i] / 8)); // the root: small differences show as well
      context.drawImage(shades(cells.columns, cells.rows, rgb("second"), shade), 0, 0, pixels, height);
      drawData(context, pixels);
      context.lineWidth = 1.4;
      context.strokeStyle = colour("text");
      drawField(context, pixels, arrows, best);
      context.strokeStyle = colour("accent");
      drawField(context, pixels, arrows, network);
      context.strokeStyle = colour("text");
      context.lineWidth = 2;
      circle(context, ...toCanvas(at, pixels), 9, "stroke");
    }, { interactive: true });
    map.id = "compare";

    const facts = readout([["network", "network: length"], ["best", "best possible: length"],
      ["angle", "angle between them", "strong"], ["difference", "how far apart they send a point, in σ"]]);
    function probe(point) {
      at = inside(point);
      const sigma = levels[level], x = Float64Array.from(at), a = diffusion.network(x, sigma), b = diffusion.best(x, sigma);
      const cosine = (a[0] * b[0] + a[1] * b[1]) / (Math.hypot(...a) * Math.hypot(...b));
      const angle = `${((Math.acos(Math.min(1, Math.max(-1, cosine))) * 180) / Math.PI).toFixed(0)}°`;
      facts.set({ network: Math.hypot(...a).toFixed(1), best: Math.hypot(...b).toFixed(1), angle,
        difference: (sigma * Math.hypot(a[0] - b[0], a[1] - b[1])).toFixed(2) });
      map.later();
      say(`angle ${angle}`);
      hw5.probe = { at, network: a, best: b };
    }
    drag(map, (u, v) => probe(fromShares(u, v)), (dx, dy) => probe([at[0] + (dx * width) / 60, at[1] - (dy * width) / 60]));
    const slide = slider("Noise level", { min: 0, max: last, step: 1, value: level },
      (value) => { level = value; probe(at); }, sigmaText);
    const meanings = key("Colours", [["var(--accent)", "network"], ["var(--text)", "best possible"],
      ["var(--second)", "how far apart they send a point: full colour from 8σ on"]]);
    const hint = frequencies ? "This network is not told σ: compare the directions at the largest noise."
      : "Look far from the data, where training shows few points.";
    panel("Network against best possible score", `The best possible score is known in closed form. ${hint}`, "",
      column(map, meanings, slide, subtitle("At the circle"), facts));
    probe(at);
  }
}
