// The data, and how colours and texts of it are shown.

const report = JSON.parse(document.getElementById("data").textContent);
const coarse = window.matchMedia("(pointer: coarse)");
const HUES = 7;
const DASHES = ["solid", "dot", "dash", "dashdot", "longdash", "longdashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];

const byId = (id) => document.getElementById(id);
const probe = document.body.appendChild(element("span", { hidden: "" }));

/** A colour of the style sheet as the theme has it now. */
function css(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

const font = () => getComputedStyle(document.querySelector("nav")).fontFamily;

/** A row's colour, the same in every plot; dash and symbol tell apart the rows that share it. */
const hue = (row) => css(`--hue-${row % HUES}`);
const dash = (row) => DASHES[Math.floor(row / HUES) % DASHES.length];
const symbol = (row) => SYMBOLS[Math.floor(row / HUES) % SYMBOLS.length];

/** Text as it stands: plotly takes tags, entities and formulas in any of its texts for markup. */
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/\$/g, "&#36;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** Text for an axis: as much of it as fits. */
function short(text, most = window.innerWidth < 600 ? 16 : 34) {
  const letters = Array.from(text);
  return plain(letters.length > most ? letters.slice(0, most - 1).join("") + "…" : text);
}

const lines = (...texts) => texts.map(plain).join("<br>");
const known = (values) => values.filter((value) => value !== null && value !== undefined);

function mean(values) {
  const held = known(values);
  return held.length ? held.reduce((a, b) => a + b, 0) / held.length : null;
}

function deviation(values) {
  const held = known(values);
  const middle = mean(held);
  return held.length > 1 ? Math.sqrt(held.reduce((a, b) => a + (b - middle) ** 2, 0) / (held.length - 1)) : 0;
}

const fixed = (value, digits = 1) => (value === null || value === undefined ? "n/a" : value.toFixed(digits).replace("-", "−"));
const signed = (value, digits = 1) => (value > 0 ? "+" : "") + fixed(value, digits);
const spread = (values) => fixed(mean(values)) + (known(values).length > 1 ? ` ± ${fixed(deviation(values))}` : "");

/** An element with its texts as text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const option = (value, text) => element("option", { value }, text);
