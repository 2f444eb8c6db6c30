// Light or dark, as Airflow's own pages are. Runs before anything is painted.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let theme = null;
    try {
      theme = localStorage.getItem("theme"); // where Airflow's UI keeps the reader's choice
    } catch {
      // storage is blocked: then the system's choice counts
    }
    const isDark = theme === "dark" || (theme !== "light" && dark.matches);
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("storage", apply); // it was changed in the page around this one
})();
