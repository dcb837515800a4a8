"use strict";
// Runs before the page is drawn: marks that scripts run, and applies the stored color scheme.
document.documentElement.classList.add("js");
const stored = {
  // Browsers may deny storage to pages opened from files.
  get: () => { try { return localStorage.getItem("jaxad-theme"); } catch { return null; } },
  set: (value) => { try { localStorage.setItem("jaxad-theme", value); } catch { /* not stored */ } },
};
const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
if (["light", "dark"].includes(stored.get())) {
  document.documentElement.dataset.theme = stored.get();
}
document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    stored.set(document.documentElement.dataset.theme);
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
});
