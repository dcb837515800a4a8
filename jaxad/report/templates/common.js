"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const isText = (element) => element.matches("input:not([type=checkbox]), select, textarea");

// Calls back with each matching element inside a split, and the data of that split.
function eachSplit(selector, callback) {
  for (const root of all(`.split ${selector}`)) {
    callback(root, data.splits[Number(root.closest(".split").dataset.split)]);
  }
}

// The value of the checked radio button of this name.
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;

// Shows a split in all sections that have it.
function showSplit(number, sections = all("section")) {
  for (const section of sections) {
    const inputs = all('input[name^="split-"]', section);
    if (!inputs.some((input) => input.value === number)) continue;
    for (const input of inputs) input.checked = input.value === number;
    for (const split of all(".split", section)) split.hidden = split.dataset.split !== number;
  }
}
for (const section of all("section")) {
  const inputs = all('input[name^="split-"]', section);
  if (inputs.length) showSplit(inputs[0].value, [section]);
  for (const input of inputs) input.addEventListener("change", () => showSplit(input.value));
}

// Numbers as text.
const significant = (value, digits) => Number(value.toPrecision(digits));
const score = (value) => significant(value, 5).toLocaleString("en", { maximumSignificantDigits: 5 });
const percent = (share) => `${significant(100 * share, 3)} %`;

// Creates an SVG element.
function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// About `count` round numbers between low and high.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k += 1) found.push(k * step);
  return found;
}
