"use strict";
// Lets the reader set a threshold. The page provides p-values; this script looks them up and counts.

// The index at which to insert a value into an ascending array, before or after equal values.
function place(ascending, value, isAfter = false) {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle] < value || (isAfter && ascending[middle] === value)) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The threshold above which p <= rate; the same as jaxad.calibration.conformal.PValueSteps.threshold.
function thresholdOf(steps, rate) {
  let last = steps.p_values.length - 1;
  while (last > 0 && steps.p_values[last] <= rate) last -= 1;  // the first p-value is 1
  return steps.scores[last];
}

// Counts and figures at a threshold; undefined figures are NaN.
function figuresAt({ label, score: scores }, threshold) {
  const counts = { truePositives: 0, falseNegatives: 0, falsePositives: 0, trueNegatives: 0 };
  label.forEach((one, row) => {
    const isFlagged = scores[row] > threshold;
    counts[one ? (isFlagged ? "truePositives" : "falseNegatives") : (isFlagged ? "falsePositives" : "trueNegatives")] += 1;
  });
  const { truePositives, falseNegatives, falsePositives, trueNegatives } = counts;
  return {
    ...counts,
    sensitivity: truePositives / (truePositives + falseNegatives),
    specificity: trueNegatives / (trueNegatives + falsePositives),
    precision: truePositives / (truePositives + falsePositives),
    f1: (2 * truePositives) / (2 * truePositives + falseNegatives + falsePositives),
  };
}

// The mean over normal patients of the share of their slices (or patients) that is flagged.
function falsePositiveRate(split, unit, threshold) {
  const patients = split.units.patient;
  const { score: scores } = split.units[unit];
  const sizes = patients.label.map(() => 0);
  const flagged = patients.label.map(() => 0);
  scores.forEach((value, row) => {
    const patient = unit === "image" ? split.slices.patient[row] : row;
    sizes[patient] += 1;
    flagged[patient] += value > threshold;
  });
  const shares = flagged.map((count, row) => count / sizes[row]).filter((_, row) => !patients.label[row]);
  return shares.reduce((sum, share) => sum + share, 0) / shares.length;
}

eachSplit(".decider", (root, split) => {
  const number = root.closest(".split").dataset.split;
  const settings = Object.fromEntries(all(".setting", root).map((one) => [one.dataset.by, one]));
  const inputs = (by) => all("input", settings[by]);
  const hasRate = "rate" in settings;
  // The percentage stays text, because Number("1.7e-2") is exactly 0.017 and 1.7 / 100 need not be.
  let requested = String(significant(100 * split.rate, 12));
  const rateOf = (text) => (/e/i.test(text) ? Number(text) / 100 : Number(`${text}e-2`));
  const smallest = hasRate ? split.units.patient.steps.p_values.at(-1) : NaN;
  const granted = () => Math.max(rateOf(requested), smallest);
  const unitNow = () => chosen(`unit-${number}`);
  const byNow = () => chosen(`by-${number}`) ?? "score";
  const largest = (unit) => split.units[unit].score.reduce((a, b) => Math.max(a, b));
  const byScore = Object.fromEntries(["image", "patient"].map((unit) => [
    unit,
    hasRate ? thresholdOf(split.units[unit].steps, granted()) : split.units[unit].best ?? largest(unit),
  ]));
  const thresholdNow = (unit) =>
    (byNow() === "rate" ? thresholdOf(split.units[unit].steps, granted()) : byScore[unit]);

  function origin(unit, threshold) {
    const what = unit === "image" ? "the slices of new normal patients" : "new normal patients";
    if (byNow() === "rate") {
      const normals = root.dataset.normals;
      const text = granted() > rateOf(requested)
        ? `${percent(rateOf(requested))} requested, ${percent(granted())} granted: the lowest rate that ${normals} support.`
        : `${percent(granted())} requested and granted, from ${normals}.`;
      return `${text} The threshold is ${score(threshold)}. It needs no labels, so it can be used on new images.`;
    }
    const steps = split.units[unit].steps;
    const rate = steps && steps.p_values[place(steps.scores, threshold, true)];
    const text = threshold === split.units[unit].best
      ? "This threshold has the best F1 for the test labels. It is not available in use."
      : "This threshold is set by hand. If it was chosen with the test labels, it is not available in use.";
    return steps ? `${text} If fixed in advance, it flags at most ${percent(rate)} of ${what}, on average.` : text;
  }

  function show() {
    const unit = unitNow();
    const threshold = thresholdNow(unit);
    for (const [by, setting] of Object.entries(settings)) setting.hidden = by !== byNow();
    if (byNow() === "rate") for (const input of inputs("rate")) if (input !== document.activeElement) input.value = requested;
    const histogram = root.querySelector(`.histogram[data-unit="${unit}"]`);
    for (const one of all(".histogram", root)) one.hidden = one !== histogram;
    const drawing = histogram.querySelector("svg");
    const [low, high, width] = ["low", "high", "width"].map((key) => Number(drawing.dataset[key]));
    const x = Math.max(0, Math.min(1, (threshold - low) / (high - low))) * width;
    drawing.querySelector(".threshold").setAttribute("transform", `translate(${x} 0)`);
    drawing.querySelector(".threshold text").setAttribute("text-anchor", x < 40 ? "start" : x > width - 40 ? "end" : "middle");
    const [slider, exact] = inputs("score");
    slider.min = low - 0.01 * (high - low);
    slider.max = high + 0.01 * (high - low);
    for (const input of [slider, exact]) if (input !== document.activeElement) input.value = threshold;
    settings.score.querySelector(".best").hidden = split.units[unit].best === null;
    const found = { ...figuresAt(split.units[unit], threshold), falsePositiveRate: falsePositiveRate(split, unit, threshold) };
    const counts = ["truePositives", "falseNegatives", "falsePositives", "trueNegatives"];
    for (const element of all("[data-figure]", root)) {
      const name = element.dataset.figure;
      const value = found[name];
      element.value = String(value);
      if (Number.isNaN(value)) element.textContent = "–";
      else if (counts.includes(name)) element.textContent = value.toLocaleString("en");
      else element.textContent = name === "falsePositiveRate" ? percent(value) : value.toFixed(3);
    }
    root.dataset.threshold = String(threshold);
    root.querySelector(".origin").textContent = origin(unit, threshold);
    root.dispatchEvent(new CustomEvent("thresholds", {
      bubbles: true,
      detail: {
        number,
        image: thresholdNow("image"),
        patient: thresholdNow("patient"),
        from: byNow() === "rate" ? `threshold for a requested false-positive rate of ${percent(rateOf(requested))}` : "threshold set above",
      },
    }));
  }

  for (const input of all('input[type="radio"]', root)) input.addEventListener("change", show);
  for (const by of Object.keys(settings)) {
    for (const input of inputs(by)) {
      input.addEventListener("input", () => {
        const isRate = by === "rate";
        const value = Number(input.value);
        // Ignore incomplete numbers.
        if (input.value === "" || (isRate && !(value > 0 && value < 100))) return;
        if (isRate) requested = input.value;
        else byScore[unitNow()] = value;
        show();
      });
      input.addEventListener("blur", show);
    }
  }
  settings.score.querySelector(".best").addEventListener("click", () => {
    byScore[unitNow()] = split.units[unitNow()].best;
    show();
  });
  // patients.js listens once all scripts have run.
  document.addEventListener("DOMContentLoaded", show);
});
