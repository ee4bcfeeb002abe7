// Chips: a legend whose entries are buttons, one a row.

const AT_FIRST = 12;

/**
 * Fills `target` with a button for each of [key, name, index of the colour].
 * Returns the set of keys that are on, which changes as they are pressed; `changed` is called after that.
 */
function chips(target, entries, changed, atFirst = AT_FIRST) {
  const on = new Set(entries.slice(0, atFirst).map(([key]) => key));
  const show = () => buttons.forEach((button, key) => button.setAttribute("aria-pressed", on.has(key)));
  const buttons = new Map(
    entries.map(([key, name, index]) => {
      const button = element("button", { type: "button" }, swatch(index), name);
      button.addEventListener("click", () => {
        on.has(key) ? on.delete(key) : on.add(key);
        show();
        changed();
      });
      return [key, button];
    }),
  );
  target.append(...buttons.values());
  if (entries.length > 2) {
    for (const [text, keys] of [["all", entries.map(([key]) => key)], ["none", []]]) {
      const button = element("button", { type: "button", class: "every" }, text);
      button.addEventListener("click", () => {
        on.clear();
        keys.forEach((key) => on.add(key));
        show();
        changed();
      });
      target.append(button);
    }
  }
  show();
  return on;
}

/** A piece of the row's line, in the theme's colour. */
function swatch(index) {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  for (const [key, value] of Object.entries({ width: 26, height: 8, "aria-hidden": "true" })) drawing.setAttribute(key, value);
  const line = document.createElementNS(space, "line");
  const pattern = { solid: "", dot: "3 3", dash: "8 4", dashdot: "8 3 2 3", longdash: "12 3", longdashdot: "12 3 2 3" }[dash(index)];
  for (const [key, value] of Object.entries({ x1: 0, x2: 26, y1: 4, y2: 4, "stroke-width": 3, "stroke-dasharray": pattern })) line.setAttribute(key, value);
  line.style.stroke = `var(--hue-${index % HUES})`;
  drawing.append(line);
  return drawing;
}
