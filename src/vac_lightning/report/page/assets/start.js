// The page's start: theme, place in the page, and every section.

const preferred = window.matchMedia("(prefers-color-scheme: dark)");

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").textContent = dark ? "Light colours" : "Dark colours";
  redrawAll();
}

function startTheme() {
  let chosen = false;
  byId("theme").addEventListener("click", () => {
    chosen = true;
    setTheme(document.documentElement.dataset.theme !== "dark");
  });
  preferred.addEventListener("change", () => chosen || setTheme(preferred.matches));
  setTheme(preferred.matches);
}

/** Paper is white, and has every plot. */
function startPrinting() {
  let before = "light";
  window.addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    setTheme(false);
    drawAll();
  });
  window.addEventListener("afterprint", () => setTheme(before === "dark"));
}

/** Marks in the navigation which section is being read. */
function startPlace() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver(
    (entries) => {
      const seen = entries.find((entry) => entry.isIntersecting);
      if (!seen) return;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(seen.target.id).setAttribute("aria-current", "location");
    },
    { rootMargin: "-20% 0px -75% 0px" },
  );
  document.querySelectorAll("main > section").forEach((section) => watch.observe(section));
}

startTables();
startTheme();
startPrinting();
startPlace();
startComparisons();
startCurves();
startLambda();
startLabels();
startConsistency();
startGallery();
