// The panels of score matching.
"use strict";

function diffusionPage(model) {
  const diffusion = prepareDiffusion(model),
    stage = makeStage(model, diffusion);
  hw5.diffusion = diffusion;
  samplingPanel(diffusion, model, stage);
  comparisonPanel(diffusion, model, stage);
}

/** What the canvases show: the window of the run's figures, higher where it is flat, for points start outside. */
function makeStage({ window: [[left, right], [low, high]] }, { data }) {
  const width = right - left,
    tall = Math.max(high - low, width / 1.8),
    middle = (low + high) / 2;
  const fromShares = (u, v) => [left + u * width, middle + (0.5 - v) * tall];
  /** Canvas coordinates, on a canvas so many pixels wide, of point i of x. */
  const toCanvas = (x, pixels, i = 0) => [
    ((x[2 * i] - left) * pixels) / width,
    ((middle + tall / 2 - x[2 * i + 1]) * pixels) / width,
  ];
  return {
    width,
    aspect: width / tall,
    fromShares,
    toCanvas,
    centre: [left + width / 2, middle],
    inside: ([x, y]) => [clamp(x, left, right), clamp(y, middle - tall / 2, middle + tall / 2)],
    /** The middles of columns x rows cells, from the top left: x [columns*rows,2]. */
    lattice(columns) {
      const rows = Math.round((columns * tall) / width);
      const point = (i) => fromShares(((i % columns) + 0.5) / columns, (Math.floor(i / columns) + 0.5) / rows);
      return { x: Float64Array.from(range(columns * rows).flatMap(point)), columns, rows };
    },
    /** The data, moved by noise [2*points] where there is some. */
    drawData(context, pixels, noise) {
      const size = Math.max(2, pixels / 230),
        x = noise ? data.map((value, i) => value + noise[i]) : data;
      context.fillStyle = colour("data");
      for (let i = 0; i < data.length / 2; i++) {
        const [u, v] = toCanvas(x, pixels, i);
        context.fillRect(u - size / 2, v - size / 2, size, size);
      }
    },
    /** Arrows of about one length: far from the data a score is longer by orders of magnitude than between the strokes. */
    drawField(context, pixels, { x, columns }, scores) {
      const lengths = range(x.length / 2).map((i) => Math.hypot(scores[2 * i], scores[2 * i + 1]));
      const median = [...lengths].sort((a, b) => a - b)[lengths.length >> 1];
      const cell = pixels / columns,
        head = Math.min(4, cell / 4);
      lengths.forEach((length, i) => {
        const [u, v] = toCanvas(x, pixels, i),
          long = (0.85 * cell * length) / (length + median / 4);
        if (!(long > 1)) return;
        const dx = scores[2 * i] / length,
          dy = -scores[2 * i + 1] / length,
          endX = u + long * dx,
          endY = v + long * dy;
        const barb = (side) => [endX - head * (dx - side * 0.6 * dy), endY - head * (dy + side * 0.6 * dx)];
        trace(context, [[u, v], [endX, endY], barb(1), [endX, endY], barb(-1)]);
      });
    },
  };
}

const sigmaText = (sigma) => `σ = ${sigma.toFixed(3)}`;

/** Sampling step by step, with the update in numbers. */
function samplingPanel(diffusion, model, stage) {
  const { levels } = diffusion,
    arrows = stage.lattice(24);
  const most = Math.min(model.steps, 500),
    sizes = [10, 30, most].filter((size, i) => i === 2 || size < most);
  let [seed, count, perLevel, factor, noise] = viewed("run", 5) ?? [1, 240, sizes.at(-2) ?? sizes[0], 1, 1];
  count = clamp(Math.floor(count), 0, 2000); // an address may say anything
  perLevel = clamp(Math.floor(perLevel), 1, most);
  factor = factor > 0 ? factor : 1;
  const source = view.get("score") === "best" ? "best" : "network";
  const chain = samplingChain(diffusion, model, { source, count, seed, perLevel, factor, noise: noise > 0 });
  let at = 0,
    target = 0,
    withData = view.get("data") === "1", // hidden at first, for the samples should show the word
    ended = -Infinity,
    cross = stage.centre, // where Enter starts a point
    timer = 0,
    touched = 0,
    cancel = () => {};
  hw5.chain = Object.defineProperty(chain, "at", { get: () => at });
  for (const kind of ["pointermove", "keydown"])
    addEventListener(
      kind,
      () => {
        touched = performance.now();
      },
      true,
    );

  /** Computes the rest of the chain step by step, while nothing else happens on the page. */
  function ahead() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const busy = play.running || performance.now() - touched < 300;
      if (busy || chain.advance()) ahead();
    }, 10);
  }
  function goTo(step) {
    at = target = step;
    scrub.set(step);
    const { total } = chain,
      sigma = levels[chain.levelAt(step)],
      some = chain.count + chain.mine.length > 0,
      points = chain.frames[step].length / 2,
      places = placesOf(chain.frames[step]);
    status.textContent = !some
      ? "No points: click into the picture to start one."
      : step === total
        ? `Step ${total}: the noise that was left, ${sigmaText(sigma)}, is taken away.`
        : `Step ${step} of ${total}, ${sigmaText(sigma)}, ${plural(points, "point")}${places < points / 2 ? ` at ${plural(places, "place")}` : ""}.`;
    field.told = `Sampling with ${chain.source === "best" ? "the best possible" : "the network's"} score. ${status.textContent}`;
    playButton.disabled = numbers.disabled = !some;
    stepButton.disabled = levelButton.disabled = !some || step === total;
    removal.disabled = !chain.mine.length;
    legend();
    playButton.textContent = play.running ? "Pause" : step === total ? "Replay" : "Play";
    showFormula(step);
    field.later();
  }
  /** Leaves out of the legend what does not show. */
  function legend() {
    [withData, chain.count, chain.mine.length].forEach((shown, i) => {
      meanings.children[i].hidden = !shown;
    });
  }
  /** The update that led to a step, with the numbers of the last point: of the user's, where there is one already. */
  function showFormula(step) {
    const i = step ? chain.frames[step - 1].length / 2 - 1 : -1;
    if (i < 0 || step === chain.total) {
      formula.textContent =
        i < 0
          ? `x ← x + α s(x, σ)${chain.noise ? " + √(2α) ε, with ε from a standard normal and" : ", with"} ` +
            `α = ${axisText(diffusion.stepSize(levels.at(-1), chain.factor))} · (σ / ${levels.at(-1).toFixed(3)})².`
          : `x + σ² s(x, σ), the mean of the clean point: no noise is left.`;
      return;
    }
    const { alpha, x, s, next, noise: drawn } = chain.parts(step - 1, i);
    formula.textContent =
      `α = ${alpha.toPrecision(2)}. ${i < chain.count ? "One point" : "Your last point"}: ${tuple(x)} + α · (${[...s].map((value) => fixed(value)).join(", ")})` +
      `${chain.noise ? ` + ${Math.sqrt(2 * alpha).toPrecision(2)} · ${tuple(drawn)}` : ""} = ${tuple(next)}`;
  }
  /** Goes to a step, computing what is not there yet without stopping the page. */
  function reach(step) {
    halt();
    target = clamp(Math.round(step), 0, chain.total);
    scrub.set(target);
    keep("step", target);
    const missing = Math.max(0, target + 1 - chain.frames.length),
      arrive = () => {
        goTo(target);
        say(status.textContent);
      };
    if (!missing) return arrive();
    const work = () => {
      if (chain.frames.length <= target) chain.advance(); // ahead() may have been there
      status.textContent = `Computing: step ${Math.min(chain.frames.length - 1, target)} of ${target} …`;
    };
    cancel = inSlices(missing, work, arrive);
  }
  /** At how many places the points are, to the eye. */
  const placesOf = (x) =>
    new Set(range(x.length / 2).map((i) => stage.toCanvas(x, 200, i).map(Math.round).join())).size;
  const keepMine = () => keep("mine", chain.mine.length ? short(chain.mine.flat()) : undefined);
  /** From the start, with the present settings and the user's points where they were placed; goes to a step, or plays on. */
  function restart(step = 0) {
    const playing = play.running;
    halt();
    if (built) chain.mine = chain.mine.map(([x, y]) => [x, y, 0]); // at load: as the address says
    chain.restart();
    keep("run", short([chain.seed, chain.count, chain.perLevel, chain.factor, +chain.noise]));
    keep("score", chain.source);
    keepMine();
    keep("step", 0);
    goTo(0);
    ahead();
    if (playing) play.start();
    else if (step) reach(step);
  }
  function addPoint(point) {
    cancel();
    if (at === chain.total) at = target = 0; // at the end there is nothing left to follow
    chain.add(point, at);
    keepMine();
    ahead();
    if (play.running) goTo(at);
    else reach(target); // which may be computed still
    keep("step", target);
    say(`Point started. ${status.textContent}`);
  }
  const play = animation(
    () => {
      const end = performance.now() + 30; // so that a frame takes less than 50 ms
      do {
        if (at + 1 === chain.frames.length) chain.advance();
        at += 1;
      } while (at < chain.total && performance.now() < end && at % 4);
      goTo(at);
      if (at === chain.total) ended = performance.now();
      return at < chain.total;
    },
    (running) => {
      goTo(at);
      keep("step", at);
      say(`${running ? "Playing" : "Stopped"}. ${status.textContent}`);
    },
  );
  function halt() {
    cancel();
    play.stop();
  }

  const field = surface(
    "Sampling",
    stage.aspect,
    (context, pixels) => {
      const x = chain.frames[at],
        sigma = levels[chain.levelAt(at)];
      if (withData) stage.drawData(context, pixels);
      context.strokeStyle = colour("muted");
      context.lineWidth = 1;
      stage.drawField(context, pixels, arrows, diffusion.field("sampling", chain.source, arrows.x, sigma));
      context.strokeStyle = colour("second");
      context.lineWidth = 1.5;
      for (let i = chain.count; i < x.length / 2; i++) {
        // the ways of the user's own points
        const way = chain.frames
          .slice(chain.mine[i - chain.count][2], at + 1)
          .map((frame) => stage.toCanvas(frame, pixels, i));
        for (const [opacity, part] of [
          [0.3, way.slice(0, -40)],
          [1, way.slice(-41)],
        ]) {
          // the older part is faint
          context.globalAlpha = opacity;
          trace(context, part);
        }
      }
      context.globalAlpha = 1;
      for (let i = 0; i < x.length / 2; i++) {
        context.fillStyle = colour(i < chain.count ? "accent" : "second");
        circle(context, ...stage.toCanvas(x, pixels, i), i < chain.count ? Math.max(2.2, pixels / 180) : 5);
      }
      if (document.activeElement === field && field.byKeys)
        marker(context, stage.toCanvas(cross, pixels), colour("text"), colour("paper"));
    },
    {
      help: "Click to start a point there. Keyboard: the arrow keys move a cross, Enter starts a point.",
      scrolls: true,
    },
  );
  field.id = "field";
  drag(
    field,
    (u, v, phase) => {
      const inside = u >= 0 && u <= 1 && v >= 0 && v <= 1; // else the user thought better of it
      if (phase === "up" && inside) addPoint(stage.fromShares(u, v));
    },
    (dx, dy) => {
      cross = stage.inside([cross[0] + (dx * stage.width) / 60, cross[1] - (dy * stage.width) / 60]);
      field.later();
      say(`cross at ${tuple(cross)}`);
    },
  );
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") addPoint(cross);
  });

  const meanings = key([
    ["data", "small squares: data"],
    ["accent", "samples"],
    ["second", "your points"],
    ["muted", "arrows: direction of the score"],
  ]);
  const status = note(),
    formula = element("p", { class: "formula" });
  const endOfLevel = () => (target < chain.total - 1 ? (chain.levelAt(target) + 1) * chain.perLevel : chain.total);
  const playButton = button(
    "Play",
    () => {
      if (play.running) return halt();
      if (at === chain.total && performance.now() - ended < 500) return; // meant to pause what has just ended
      if (at === chain.total) goTo(0); // the same frames again
      if (still.matches) return reach(endOfLevel()); // without motion: at once
      cancel();
      play.start();
    },
    { class: "main" },
  );
  const stepButton = button("Step", () => reach(target + 1)),
    levelButton = button("Next level", () => reach(endOfLevel())),
    removal = button("Remove my points", () => {
      chain.mine = [];
      restart();
      say("Your points are removed. Step 0.");
    });
  const buttons = row(
    playButton,
    stepButton,
    levelButton,
    button("New noise", () => {
      chain.seed += 1;
      restart();
      say("New noise. Step 0.");
    }),
    removal,
  );
  const scrub = slider("Step of sampling", { min: 0, max: chain.total, step: 1, value: 0 }, reach, String);
  const setting =
    (name, read = Number) =>
    (value) => {
      chain[name] = read(value);
      scrub.querySelector("input").max = chain.total;
      restart(Math.min(target, chain.total));
    };
  const numbers = csv("points", () => [
    ["x", "y"],
    ...range(chain.frames[at].length / 2).map((i) => [...chain.frames[at].subarray(2 * i, 2 * i + 2)]),
  ]);
  const many = (options, chosen) =>
    options.some(([value]) => value === chosen) ? options : [...options, [chosen, String(chosen)]];
  panel(
    "Sampling, step by step",
    "Points start as noise and follow the arrows of the score, with less noise at each " +
      "level. Click to start your own point: its way stays visible.",
    "",
    buttons,
    status,
    figure(field, meanings, "sampling, step by step"),
    formula,
    scrub,
    row(
      choice(
        "Score to follow",
        [
          ["network", "the network's"],
          ["best", "the best possible"],
        ],
        setting("source", String),
        chain.source,
      ),
      choice(
        "Points",
        many(
          [
            [100, "100"],
            [240, "240"],
            [600, "600"],
            [0, "only mine"],
          ],
          chain.count,
        ),
        setting("count"),
        chain.count,
      ),
      choice(
        "Steps at each level",
        many(
          sizes.map((size) => [size, size === model.steps ? `${size}, as the run` : String(size)]),
          chain.perLevel,
        ),
        setting("perLevel"),
        chain.perLevel,
      ),
      choice(
        "Size of a step",
        many(
          [
            [0.25, "a quarter"],
            [1, "as the run"],
            [2, "double"],
            [4, "four times"],
          ],
          chain.factor,
        ),
        setting("factor"),
        chain.factor,
      ),
      tick("noise in each step", chain.noise, setting("noise", Boolean)),
      tick("show the data", withData, (yes) => {
        withData = yes;
        legend();
        keep("data", yes ? 1 : undefined);
        field.later();
      }),
      numbers,
    ),
  );
  const mine = (view.get("mine") ?? "").split(",").map(parseFloat);
  if (mine.every(Number.isFinite))
    chain.mine = range(Math.floor(mine.length / 3))
      .map((i) => [mine[3 * i], mine[3 * i + 1], clamp(Math.floor(mine[3 * i + 2]), 0, chain.total - 1)])
      .sort(([, , a], [, , b]) => a - b);
  restart((viewed("step", 1) ?? [0])[0]);
}

/** The network's score beside the best possible one, over the data with the noise of the level. */
function comparisonPanel(diffusion, model, stage) {
  const { levels, data } = diffusion,
    cells = stage.lattice(60),
    arrows = stage.lattice(20),
    measured = {};
  const noise = normals(77, data.length),
    last = levels.length - 1,
    [first, ...place] = viewed("compare", 3) ?? [Math.min(last, 5)];
  let level = clamp(Math.round(first), 0, last),
    noisy = view.get("noisy") !== "0";
  let at = place.length ? place : stage.fromShares(0.3, 0.5);

  /** sigma times the difference of both scores in all cells; it shows when all of it is there. */
  function measure(level) {
    const sigma = levels[level],
      difference = new Float64Array(cells.columns * cells.rows),
      result = { difference, done: false };
    inSlices(
      cells.rows,
      (line) => {
        const x = cells.x.subarray(2 * line * cells.columns, 2 * (line + 1) * cells.columns);
        const a = diffusion.field(`row ${line}`, "network", x, sigma),
          b = diffusion.best(x, sigma);
        for (let i = 0; i < cells.columns; i++)
          difference[line * cells.columns + i] = sigma * Math.hypot(a[2 * i] - b[2 * i], a[2 * i + 1] - b[2 * i + 1]);
      },
      () => {
        result.done = true;
        hw5.difference = difference;
        map.later();
      },
    );
    return result;
  }
  const map = surface(
    "The network's score and the best possible one",
    stage.aspect,
    (context, pixels, height) => {
      const { difference, done } = (measured[level] ||= measure(level)),
        sigma = levels[level];
      const shade = (i) => [0, 0.55 * Math.min(1, Math.sqrt(difference[i] / 8))]; // the root: small differences show as well
      if (done) context.drawImage(shades(cells.columns, cells.rows, [rgb("second")], shade), 0, 0, pixels, height);
      stage.drawData(context, pixels, noisy && noise.map((value) => sigma * value));
      context.lineWidth = 1.6;
      for (const [source, ink] of [
        ["best", "text"],
        ["network", "accent"],
      ]) {
        context.strokeStyle = colour(ink);
        stage.drawField(context, pixels, arrows, diffusion.field("compare", source, arrows.x, sigma));
      }
      context.strokeStyle = colour("text");
      context.lineWidth = 2;
      circle(context, ...stage.toCanvas(at, pixels), 9, "stroke");
      if (done) return;
      context.fillStyle = colour("paper");
      context.fillRect(0, 0, pixels, 24 * rem);
      context.fillStyle = colour("text");
      write(context, "computing the difference …", pixels / 2, 17 * rem, "center", 14);
    },
    { help: "Drag, or use the arrow keys, to compare both at a point." },
  );
  map.id = "compare";

  const facts = readout([
    ["network", "length of the network's score"],
    ["best", "length of the best possible score"],
    ["angle", "angle between them", "strong"],
    ["difference", "length of their difference, times σ"],
  ]);
  function probe(point) {
    at = stage.inside(point);
    const sigma = levels[level],
      x = Float64Array.from(at),
      a = diffusion.network(x, sigma),
      b = diffusion.best(x, sigma);
    const cosine = (a[0] * b[0] + a[1] * b[1]) / (Math.hypot(...a) * Math.hypot(...b));
    const angle = `${((Math.acos(clamp(cosine, -1, 1)) * 180) / Math.PI).toFixed(0)}°`;
    facts.set({
      network: Math.hypot(...a).toFixed(1),
      best: Math.hypot(...b).toFixed(1),
      angle,
      difference: (sigma * Math.hypot(a[0] - b[0], a[1] - b[1])).toFixed(2),
    });
    heading.textContent = `At the circle, ${sigmaText(sigma)}`;
    map.told = `The network's score and the best possible one, ${sigmaText(sigma)}`;
    map.later();
    keep("compare", short([level, ...at]));
    say(`${sigmaText(sigma)}, angle ${angle}`);
    hw5.probe = { at, network: a, best: b };
  }
  drag(
    map,
    (u, v) => u === u && probe(stage.fromShares(u, v)),
    (dx, dy) => probe([at[0] + (dx * stage.width) / 60, at[1] - (dy * stage.width) / 60]),
  );
  const slide = slider(
    `Noise level, from ${sigmaText(levels[0])} to ${sigmaText(levels[last])}`,
    { min: 0, max: last, step: 1, value: level },
    (value) => {
      level = value;
      probe(at);
    },
    (value) => sigmaText(levels[value]),
  );
  const heading = subtitle("");
  const meanings = key([
    ["data", "small squares: data, with noise where that is ticked"],
    ["text", "direction of the best possible score"],
    ["accent", "direction of the network's"],
    ["second", "they differ: full colour where σ · |difference| is 8 or more"],
  ]);
  panel(
    "Forward: noise on the data, and the way back",
    `The gray points are the data with noise of this σ, as in training; at each place two arrows point back. ${
      model.told
        ? "Look far from the points, where the network has learned little."
        : "This network s(x) is not told σ: its score s(x)/σ has the same direction at every σ. Where does it fit the best one?"
    }`,
    "",
    slide,
    tick("noise on the data", noisy, (yes) => {
      noisy = yes;
      keep("noisy", yes ? undefined : 0);
      map.later();
      say(yes ? "Data with noise" : "Data without noise");
    }),
    figure(map, meanings, "the two scores"),
    heading,
    facts,
  );
  probe(at);
}
