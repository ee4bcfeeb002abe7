// AP by label: two rows as dots with the way between them, or all rows as a table of colours.

function startLabels() {
  const target = byId("plot-labels");
  if (!target) return;
  const [row, baseline, order] = ["ap-row", "ap-baseline", "ap-order"].map(byId);
  for (const select of [row, baseline]) select.append(...report.ap.map(([of], i) => option(i, report.rows[of])));
  const [first, second] = atFirst();
  row.value = first;
  baseline.value = second;
  let view = report.ap.length > 1 ? "two" : "all";
  const build = () => (view === "two" ? two(Number(row.value), Number(baseline.value), order.value) : all(order.value, Number(row.value), Number(baseline.value)));
  for (const select of [row, baseline, order]) select.addEventListener("change", () => redraw(target));
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", button.dataset.view === view);
    button.addEventListener("click", () => {
      view = button.dataset.view;
      for (const other of document.querySelectorAll("[data-view]")) other.setAttribute("aria-pressed", other === button);
      redraw(target);
    });
  }
  plot(target, build, tall(report.labels.length));
}

/** The first comparison's two rows, where both have AP; else the last row against the first. */
function atFirst() {
  const place = new Map(report.ap.map(([of], i) => [of, i]));
  const compared = report.comparisons.find((c) => place.has(c.row) && place.has(c.baseline));
  return compared ? [place.get(compared.row), place.get(compared.baseline)] : [report.ap.length - 1, 0];
}

/** The labels' places in the order asked for; a label without a number comes last. */
function arranged(order, a, b) {
  const ap = (i, label) => mean(report.ap[i][1][label]);
  const value = { given: (label) => -label, ap: (label) => ap(a, label), difference: (label) => (ap(a, label) === null || ap(b, label) === null ? null : ap(a, label) - ap(b, label)) }[order];
  return report.labels.map((_, label) => label).sort((x, y) => (value(y) ?? -Infinity) - (value(x) ?? -Infinity) || x - y);
}

/** Two rows: a dot each, hollow for the one that the other is held against. */
function two(a, b, order) {
  const labels = arranged(order, a, b);
  const dots = (i, hollow) => {
    const [row, values] = report.ap[i];
    return {
      type: "scatter",
      mode: "markers",
      x: labels.map((label) => mean(values[label])),
      y: labels.map((_, at) => at),
      marker: { color: hollow ? css("--paper") : hue(row), size: 10, line: { color: hue(row), width: 1.75 } },
      hoverinfo: "text",
      hovertext: labels.map((label) => lines(report.labels[label], `${report.rows[row]}: ${spread(values[label])}`, `difference ${signed(between(a, b, label))}`)),
    };
  };
  const ways = {
    type: "scatter",
    mode: "lines",
    x: labels.flatMap((label) => [mean(report.ap[b][1][label]), mean(report.ap[a][1][label]), null]),
    y: labels.flatMap((_, at) => [at, at, null]),
    line: { color: css("--quiet"), width: 1.5 },
    opacity: 0.6,
    hoverinfo: "skip",
  };
  for (const [id, i] of [["ap-row", a], ["ap-baseline", b]]) byId(id).parentElement.style.setProperty("--own", `var(--hue-${report.ap[i][0] % HUES})`);
  return {
    traces: [ways, dots(b, true), dots(a, false)],
    layout: {
      height: tall(labels.length),
      uirevision: `two ${a} ${b}`,
      xaxis: { title: { text: "AP, %" }, zeroline: false },
      yaxis: named(labels.map((label) => report.labels[label])),
    },
  };
}

function between(a, b, label) {
  const [x, y] = [mean(report.ap[a][1][label]), mean(report.ap[b][1][label])];
  return x === null || y === null ? null : x - y;
}

function all(order, a, b) {
  const labels = arranged(order, a, b);
  const rows = report.ap.map(([row]) => report.rows[row]);
  const cells = labels.map((label) => report.ap.map(([, values]) => mean(values[label])));
  return {
    traces: [
      {
        type: "heatmap",
        z: cells,
        colorscale: "Cividis",
        xgap: 1,
        ygap: 1,
        hoverinfo: "text",
        hovertext: labels.map((label, i) => rows.map((row, j) => lines(report.labels[label], `${row}: ${fixed(cells[i][j])}`))),
        colorbar: { title: { text: "AP, %", side: "right" }, thickness: 10, outlinewidth: 0, len: Math.min(1, 320 / tall(labels.length)), y: 1, yanchor: "top" },
      },
    ],
    layout: {
      height: tall(labels.length) + 110,
      uirevision: "all",
      xaxis: { tickvals: rows.map((_, i) => i), ticktext: rows.map((name) => short(name)), tickangle: rows.length > 6 || window.innerWidth < 600 ? 90 : 0, side: "bottom", ticks: "", showgrid: false, zeroline: false },
      yaxis: { ...named(labels.map((label) => report.labels[label])), range: [labels.length - 0.5, -0.5], showgrid: false },
    },
  };
}
