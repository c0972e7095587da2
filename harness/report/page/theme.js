"use strict";
// Before anything is drawn: the theme that was chosen, light or dark; without a choice the system's holds.
{
  const root = document.documentElement;
  const kept = {
    read() { try { return localStorage.getItem("harness-theme"); } catch { return null; } },
    write(theme) { try { localStorage.setItem("harness-theme", theme); } catch { /* from a file there may be no storage: then it holds until the page is closed */ } },
  };
  const chosen = kept.read();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  document.addEventListener("click", (event) => {
    if (event.target.id !== "theme") return;
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
    kept.write(root.dataset.theme);
    document.dispatchEvent(new Event("themechange"));
  });
}
