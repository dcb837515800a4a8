"use strict";
// Sorts and filters the table of patients, and draws the slice scores of one patient.

eachSplit(".patients", (root, split) => {
  const number = root.closest(".split").dataset.split;
  const body = root.querySelector("tbody");
  const rows = all("tr", body);
  const headings = all("thead th", root);
  const find = root.querySelector("[data-find]");
  const wanted = root.querySelector("[data-show]");
  const patients = split.units.patient;
  const place = split.slices.position ?? split.slices.id.map((_, row) => row);
  let thresholds = null;
  let shown = Number(rows[0].dataset.patient);

  const outcome = (patient) => {
    const isFlagged = patients.score[patient] > thresholds.patient;
    if (isFlagged === Boolean(patients.label[patient])) return "";
    return isFlagged ? "false positive" : "false negative";
  };

  function filter() {
    const text = find.value.toLocaleLowerCase();
    let count = 0;
    for (const row of rows) {
      const patient = Number(row.dataset.patient);
      const kinds = ["all", patients.label[patient] ? "anomalous" : "normal", outcome(patient)];
      const isFound = split.patients[patient].toLocaleLowerCase().includes(text);
      row.hidden = !(isFound && kinds.includes(wanted.value));
      count += !row.hidden;
    }
    root.querySelector(".count").textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
  }

  function sort(column) {
    const heading = headings[column];
    const isNumber = heading.classList.contains("number");
    const before = heading.getAttribute("aria-sort");
    // The first click sorts numbers in descending order and text in ascending order.
    const isAscending = before ? before === "descending" : !isNumber;
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.cells[column];
      return isNumber ? Number(cell.dataset.sort ?? cell.textContent) : cell.textContent;
    };
    const compare = (a, b) => (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
    rows.sort((a, b) => (isAscending ? 1 : -1) * compare(key(a), key(b)));
    body.append(...rows);
  }

  function decide() {
    for (const row of rows) {
      const patient = Number(row.dataset.patient);
      const cell = row.querySelector(".flagged");
      const error = outcome(patient);
      cell.textContent = error || (patients.label[patient] ? "anomalous" : "normal");
      cell.classList.toggle("wrong", error !== "");
    }
    root.querySelector(".above").textContent = score(thresholds.patient);
    root.querySelector(".at").textContent = thresholds.from;
  }

  function draw() {
    for (const row of rows) {
      const isShown = Number(row.dataset.patient) === shown;
      row.classList.toggle("chosen", isShown);
      row.querySelector(".name").setAttribute("aria-pressed", String(isShown));
    }
    const slices = split.slices.patient
      .map((patient, row) => ({ patient, row, place: place[row], score: split.units.image.score[row], label: split.units.image.label[row] }))
      .filter((one) => one.patient === shown)
      .sort((a, b) => a.place - b.place || a.row - b.row);
    if (split.slices.position === null) slices.forEach((one, order) => { one.place = order + 1; });
    const name = split.patients[shown];
    const anomalous = slices.filter((one) => one.label).length;
    const [width, height, left, bottom] = [440, 250, 58, 38];
    const scores = [...slices.map((one) => one.score), thresholds.image];
    let [low, high] = [Math.min(...scores), Math.max(...scores)];
    const margin = 0.06 * (high - low) || 0.5;
    [low, high] = [low - margin, high + margin];
    let [from, to] = [slices[0].place, slices.at(-1).place];
    if (from === to) [from, to] = [from - 1, to + 1];
    const x = (value) => left + 10 + ((value - from) / (to - from)) * (width - left - 24);
    const y = (value) => 8 + ((high - value) / (high - low)) * (height - bottom - 8);
    const drawing = svg("svg", {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `Scores of ${slices.length} slices of ${name}, ${anomalous} of them anomalous, over their positions`,
    });
    for (const tick of ticks(low, high, 4)) {
      drawing.append(svg("path", { class: "grid-line", d: `M${left} ${y(tick)}H${width}` }));
      drawing.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, Number(tick.toPrecision(6)).toLocaleString("en", { maximumSignificantDigits: 6 })));
    }
    for (const tick of ticks(from, to, 6).filter(Number.isInteger)) {
      drawing.append(svg("text", { x: x(tick), y: height - bottom + 16, "text-anchor": "middle" }, String(tick)));
    }
    const axis = split.slices.position === null ? "slice, in order of the data" : "slice position";
    drawing.append(svg("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, axis));
    drawing.append(svg("path", { class: "threshold-line", d: `M${left} ${y(thresholds.image)}H${width}` }));
    drawing.append(svg("polyline", { class: "line", points: slices.map((one) => `${x(one.place)},${y(one.score)}`).join(" ") }));
    for (const one of slices) {
      const at = [x(one.place), y(one.score)];
      // Classes differ in shape as well as in color.
      const mark = one.label
        ? svg("rect", { class: "mark anomalous", x: at[0] - 4.5, y: at[1] - 4.5, width: 9, height: 9, transform: `rotate(45 ${at[0]} ${at[1]})` })
        : svg("circle", { class: "mark normal", cx: at[0], cy: at[1], r: 4 });
      mark.append(svg("title", {}, `${split.slices.id[one.row]}: ${score(one.score)}, ${one.label ? "anomalous" : "normal"}`));
      drawing.append(mark);
    }
    const figure = root.querySelector(".profile");
    figure.querySelector(".drawing").replaceChildren(drawing);
    figure.querySelector("figcaption").textContent =
      `${name}: ${slices.length} slice${slices.length === 1 ? "" : "s"}, ${anomalous} anomalous (filled diamonds). The dashed line is the threshold for slices, ${score(thresholds.image)}.`;
  }

  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => sort(column));
  });
  for (const row of rows) {
    row.addEventListener("click", () => { shown = Number(row.dataset.patient); draw(); });
  }
  find.addEventListener("input", filter);
  wanted.addEventListener("change", filter);
  document.addEventListener("thresholds", (event) => {
    if (event.detail.number !== number) return;
    thresholds = event.detail;
    decide();
    filter();
    draw();
  });
});
