// The panels of a generative adversarial network. `shown` is the image that is looked at: a sample, a real one or a
// drawing, as {x, name, z}; z is undefined where no generator made it.
"use strict";

const DRAWING = "your drawing"; // its name, where it is shown
const percent = (value) =>
  value > 0.995 && value < 1 ? ">99%" : value < 0.005 && value > 0 ? "<1%" : `${Math.round(100 * value)}%`;

function ganPage(model, shares, measured) {
  const gan = prepareGan(model),
    shown = observable(null);
  const show = (x, name, z) => {
    shown.set({ x, name, z, logit: gan.judge(x)[0] });
    say(`${name}: D says ${percent(sigmoid(shown.value.logit))} real`);
  };
  const way = path({
    count: 9,
    side: 28,
    current: () => [shown.value.z, shown.value.name],
    changed: (z, name) => show(gan.generate(z), name, z),
    images: (points) => slices(gan.toUnit(gan.generate(joined(points), points.length)), points.length),
  });
  const choose = samplesPanel(gan, shown, show, way);
  const pad = drawForDPanel(gan, shown, show, way, choose);
  histogramPanel(gan);
  if (shares) sharesPanel(shares, model.digits, measured);
  panel(
    "A path between two samples",
    "Choose a sample and pin it as A, choose another and pin it as B. Smooth changes mean " +
      "that G has learned more than single images. The path is that of G at the end of the run.",
    "",
    ...way.parts,
  );
  shown.watch(({ z }) => way.allow(Boolean(z), "Only a sample of G has a z to pin: choose one."));
  Object.assign(hw5, { gan, shown });
  choose();
  if (pad.recall() && ["sample", "real"].some((name) => view.has(name))) choose(); // after the drawing
  way.recall([0, 5].map((i) => [gan.z[i], `sample ${i + 1}`]));
}

/** Samples with D(x), real images beside them, the chosen image in large with the gradient of D. Returns what opens the view. */
function samplesPanel(gan, shown, show, way) {
  const { samples: count, versions } = gan,
    pages = Math.floor(gan.z.length / count);
  const state = { page: 0, version: versions.length - 1, chosen: 0, direction: 0, push: 0 };
  let z = [],
    images = [];

  const tiles = range(count).map((i) => tile(28, () => select(i)));
  const realTiles = range(Math.min(5, gan.real.length)).map((i) => {
    const node = tile(28, () => showReal(i));
    const real = percent(sigmoid(gan.judge(gan.fromUnit(gan.real[i]))[0]));
    node.show(gan.real[i], real, `Real ${hw5.page.thing} ${i + 1}, D says ${real} real`);
    return node;
  });

  function showReal(i) {
    way.leave();
    show(gan.fromUnit(gan.real[i]), `real ${hw5.page.thing} ${i + 1}`);
    for (const name of ["sample", "push"]) keep(name);
    keep("real", i + 1);
  }
  /** The generator's images of the present noise. */
  function draw() {
    const version = versions[state.version];
    z = gan.z.slice(state.page * count, (state.page + 1) * count);
    images = slices(
      version.images ? gan.fromUnit(version.images) : gan.generate(joined(z), count, version.network),
      count,
    );
    gan.judge(joined(images), count).forEach((logit, i) => {
      const real = percent(sigmoid(logit));
      tiles[i].show(gan.toUnit(images[i]), real, `Sample ${i + 1}, D says ${real} real`);
    });
    about.textContent =
      `Noise ${state.page + 1} of ${pages}. Generator ${version.name}; D is always that of the end.` +
      (version.images ? " These images were kept from training." : "");
  }
  const nameOf = (i) => `sample ${i + 1}${state.page ? ` of noise ${state.page + 1}` : ""}`;
  function select(i) {
    state.chosen = i;
    push.set((state.push = 0));
    look();
  }
  /** Shows the chosen sample, or what G makes of its z that is pushed along a direction. */
  function look() {
    const { chosen: i, direction: k, push: far, version } = state;
    way.leave();
    const to = far ? z[i].map((value, d) => value + far * gan.directions[k * gan.zdim + d]) : z[i];
    if (far) show(gan.generate(to, 1, versions[version].network), `${nameOf(i)}, pushed by ${fixed(far, 1)}`, to);
    else show(images[i], nameOf(i), to);
    keep("real");
    keep("sample", i + 1);
    keep("push", k || far ? short([k, far]) : undefined);
  }
  function refresh() {
    if (versions[state.version].images && state.page) state.page = 0; // kept images have the first noise
    draw();
    select(state.chosen);
    keep("noise", state.page + 1);
    keep("generator", state.version + 1);
    say(about.textContent);
  }
  const more = button(
    "New noise",
    () => {
      if (versions[state.version].images) generators.set((state.version = versions.length - 1)); // no generator is left to run on it
      state.page = (state.page + 1) % pages;
      refresh();
    },
    { class: "main" },
  );
  const generators = slider(
    "Generator",
    { min: 0, max: versions.length - 1, step: 1, value: state.version },
    (value) => {
      state.version = value;
      refresh();
    },
    (value) => versions[value].name,
  );
  const about = note();

  // ---- the chosen image

  const large = thumbnail("The image", 28),
    opinion = element("p", { class: "verdict" });
  const slopes = element("canvas", {
    width: 28,
    height: 28,
    class: "image square faint",
    role: "img",
    "aria-label": "The image, faint, and over it the gradient of D",
  });
  let cancel = () => {};
  /** The gradient of D's logit on the pixels, in two colours over the faint image; computed in parts. A few large values
   *  would leave the others dark, so that colours are full from the 99th percentile on. */
  function showGradient(x) {
    const gradient = new Float64Array(784);
    cancel();
    hw5.gradient = null; // the old one is that of another image
    paintGradient(gan.toUnit(x));
    cancel = inSlices(
      784 / 7, // seven pixels at once: of a large D a row would stop the page
      (part) => gradient.set(gan.gradientOf(x, 7 * part, 7), 7 * part),
      () => {
        hw5.gradient = gradient;
        paintGradient(gan.toUnit(x));
      },
    );
  }
  function paintGradient(image) {
    const { gradient } = hw5,
      inks = [rgb("accent"), rgb("second")],
      context = slopes.getContext("2d");
    context.clearRect(0, 0, 28, 28);
    context.drawImage(
      shades(28, 28, [rgb("text")], (i) => [0, 0.3 * clamp(image[i], 0, 1)]),
      0,
      0,
    );
    if (!gradient) return;
    const most = Math.max(gradient.map(Math.abs).sort()[776], 1e-12);
    context.drawImage(
      shades(28, 28, inks, (i) => [+(gradient[i] < 0), Math.min(1, Math.abs(gradient[i]) / most)]),
      0,
      0,
    );
  }
  redraws.push(() => shown.value && paintGradient(gan.toUnit(shown.value.x)));
  shown.watch(({ x, name, z: made, logit }) => {
    large.show(gan.toUnit(x), `${name}. D says ${percent(sigmoid(logit))} real.`);
    opinion.textContent = `${name[0].toUpperCase()}${name.slice(1)}: D(x) = ${percent(sigmoid(logit))} real (logit ${fixed(logit, 2)})`;
    showGradient(x);
    tiles.forEach((each, i) => each.setAttribute("aria-pressed", String(made === z[i])));
    for (const each of [push, direction]) enable(each, made && !versions[state.version].images); // they keep their room
  });
  const push = slider(
    "Push z of the chosen sample",
    { min: -4, max: 4, step: 0.1, value: 0 },
    (value) => {
      state.push = value;
      look();
    },
    (value) => fixed(value, 1),
  );
  const ways = range(gan.directions.length / gan.zdim).map((k) => [
    k,
    `${["the", "2nd", "3rd", "4th", "5th", "6th"][k]} ${k ? "strongest" : "strongest direction of G's first layer"}`,
  ]);
  const direction = choice("Direction of the push", ways, (value) => {
    state.direction = +value;
    look();
  });

  const meanings = key([
    ["accent", "a brighter pixel raises D(x)"],
    ["second", "a darker pixel raises D(x)"],
  ]);
  const chosen = column(
    box(
      "beside",
      figure(large, "image", "the chosen image"),
      figure(slopes, "gradient of D", "the gradient of D", meanings),
    ),
    opinion,
    meanings,
  );
  panel(
    "Samples, and what D thinks of them",
    "The number below an image is D(x), the probability that D calls it real. " +
      "Choose an image: the gradient shows which pixels speak for it, and which against it.",
    "wide",
    box(
      "split chosen-first",
      column(
        subtitle("Samples of G"),
        box("tiles samples", ...oneStop(tiles)),
        subtitle(`Real ${hw5.page.thing}s`),
        box("tiles samples real", ...oneStop(realTiles)),
        about,
        row(
          more,
          csv("samples", () => [
            ["sample", "D", ...range(gan.zdim).map((d) => `z${d + 1}`)],
            ...z.map((each, i) => [i + 1, sigmoid(gan.judge(images[i])[0]), ...each]),
          ]),
        ),
        ...(versions.length > 1 ? [generators] : []),
        ...(ways.length ? [push, direction] : []),
      ),
      chosen,
    ),
  );
  return () => {
    const [page = 1] = viewed("noise", 1) || [],
      [generator = versions.length] = viewed("generator", 1) || [],
      [sample = 1] = viewed("sample", 1) || [],
      [along, far] = viewed("push", 2) || [],
      [real] = viewed("real", 1) || [];
    const within = (name, value, most) => {
      const shown = clamp(Math.round(value), 1, most);
      amend(name, shown);
      return shown - 1;
    };
    Object.assign(state, {
      page: within("noise", page, pages),
      version: within("generator", generator, versions.length),
      chosen: within("sample", sample, count),
    });
    if (ways[along]) direction.querySelector("select").value = state.direction = along;
    generators.set(state.version);
    refresh();
    if (real) return showReal(within("real", real, realTiles.length));
    if (!ways[along] || versions[state.version].images) return;
    push.set((state.push = clamp(far, -4, 4)));
    look();
  };
}

/** A pad whose image D judges at once; back() shows another image than the drawing. */
function drawForDPanel(gan, shown, show, way, back) {
  const small = thumbnail("What D gets", 28),
    verdict = element("p", { class: "verdict" }, "D(x) = –");
  const pad = drawingPad((gray) => {
    way.leave();
    small.show(gray, "What D gets");
    show(gan.fromUnit(gray), DRAWING);
    for (const name of ["sample", "real", "push"]) keep(name);
    whole.classList.remove("unused");
    verdict.textContent = `D(x) = ${percent(sigmoid(shown.value.logit))} real`;
  });
  small.show(null, "Nothing");
  const whole = panel(
    "Draw for D",
    `Draw ${hw5.page.a} that D takes for a real one. Then draw something else: D has only ever seen ` +
      `${hw5.page.thing}s of the data and samples of G.`,
    "draw",
    box(
      "split",
      pad,
      column(
        box("beside", figure(small, "what D gets", "the drawing"), verdict),
        row(
          button("Clear", () => {
            pad.wipe();
            small.show(null, "Nothing");
            verdict.textContent = "D(x) = –";
            whole.classList.add("unused");
            if (shown.value.name === DRAWING) back();
            say("Cleared");
          }),
        ),
      ),
    ),
  );
  whole.classList.add("unused");
  return pad;
}

/** D's opinion of many real images and of as many samples. */
function histogramPanel(gan) {
  const logits = { real: [], fake: [] },
    count = gan.real.length,
    place = box("curve", note("Computing …"));
  const judge = (i) => {
    logits.real.push(gan.judge(gan.fromUnit(gan.real[i]))[0]);
    if (gan.z[i]) logits.fake.push(gan.judge(gan.generate(gan.z[i]))[0]);
  };
  inSlices(count, judge, () => {
    const bins = 20,
      binned = (values) => {
        const counts = Array(bins).fill(0);
        for (const value of values)
          counts[Math.min(bins - 1, Math.floor(bins * sigmoid(value)))] += 100 / values.length;
        return counts;
      };
    const mean = (values) => percent(sum(values.map(sigmoid)) / values.length),
      right = gan.rightPairs(logits.real, logits.fake);
    hw5.logits = { ...logits, right };
    place.replaceChildren(
      bars(
        "D(x) from 0 to 100%",
        "% of the images",
        range(6).map((i) => [i * 4, `${i * 20}`]),
        [
          {
            name: `${count} real ${hw5.page.thing}s, mean ${mean(logits.real)}`,
            colour: "accent",
            values: binned(logits.real),
          },
          {
            name: `${logits.fake.length} samples, mean ${mean(logits.fake)}`,
            colour: "second",
            values: binned(logits.fake),
          },
        ],
        "the histogram of D(x)",
      ),
      note(
        `Shown a real ${hw5.page.thing} and a sample, D finds the real one in ${percent(right)} of all pairs; guessing finds it ` +
          `in 50%.${right < 0.45 ? " Here D has most pairs the wrong way round." : ""}`,
      ),
    );
  });
  panel(
    "Can D tell them apart?",
    "D and G of the end of the run. Two histograms that lie on each other: D sees no difference. Two heaps apart: D sees " +
      "one, even where both means are near 50%, and may still have it the wrong way round.",
    "",
    place,
  );
}

/** Shares of the ten classes, beside those of real images. */
function sharesPanel(shares, real, measured) {
  const lacking = range(10).filter((label) => shares[label] < real[label] / 2);
  panel(
    `Does G draw all ten ${hw5.page.kinds}?`,
    `A classifier has named the samples that the run measured${measured ? `, of epoch ${measured}` : ""}. ` +
      "A short bar is one that G leaves out: mode collapse.",
    "",
    bars(
      `Shares of the ${hw5.page.kinds}`,
      "% of the images",
      range(10).map((label) => [label + 0.5, String(label)]),
      [
        { name: "real test images", colour: "accent", values: real.map((share) => 100 * share) },
        { name: "samples", colour: "second", values: shares.map((share) => 100 * share) },
      ],
      "the shares",
    ),
    note(
      lacking.length
        ? `Less than half as often as in the data: ${lacking.join(", ")}.`
        : "Each is at least half as often as in the data.",
    ),
  );
}
