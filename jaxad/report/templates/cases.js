"use strict";
// Steps through the cases of a split, one kind and one case at a time.
const browsers = [];

eachSplit(".browser", (root) => {
  const cases = all(".case", root);
  const kinds = all('input[name^="kind-"]', root);
  const steps = all("[data-step]", root);
  let kind = kinds[0].value;
  let place = 0;
  const rank = (element) => Number(element.getAttribute(`data-rank-${kind}`));
  const ofKind = () => cases
    .filter((element) => element.hasAttribute(`data-rank-${kind}`))
    .sort((a, b) => rank(a) - rank(b));

  function show() {
    const ranked = ofKind();
    for (const element of cases) element.hidden = element !== ranked[place];
    for (const details of all("details", root)) details.open = isOpen;
    root.querySelector(".place").textContent = `${place + 1} of ${ranked.length}`;
    steps[0].disabled = place === 0;
    steps[1].disabled = place === ranked.length - 1;
  }
  function step(by) {
    place = Math.max(0, Math.min(ofKind().length - 1, place + by));
    show();
  }

  // All cases share whether their components are open.
  let isOpen = matchMedia("(min-width: 721px)").matches;
  for (const summary of all(".components > summary", root)) {
    summary.addEventListener("click", () => { isOpen = !summary.parentElement.open; });
  }
  for (const input of kinds) {
    input.addEventListener("change", () => { kind = input.value; place = 0; show(); });
  }
  for (const button of steps) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  root.querySelector("[data-outlines]")?.addEventListener("change", (event) => {
    root.classList.toggle("bare", !event.target.checked);
  });
  browsers.push({ root, step });
  show();
});

document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const usesArrows = isText(event.target) || event.target.closest(".scroll");
  if (!by || usesArrows || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  // Step through the split that is on the screen.
  const browser = browsers.find(({ root }) => {
    const box = root.getBoundingClientRect();
    return box.height > 0 && box.top < innerHeight && box.bottom > 0;
  });
  if (browser) {
    event.preventDefault();
    browser.step(by);
  }
});
