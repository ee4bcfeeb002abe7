// Numbers with their uncertainty: the forest plot of comparisons, and mAP against lambda.

function startComparisons() {
  const target = byId("plot-comparisons");
  if (!target) return;
  const names = report.comparisons.map((c) => `${report.rows[c.row]} − ${report.rows[c.baseline]}`);
  plot(target, () => ({ traces: [forest(names)], layout: forestLayout(names) }), tall(names.length));
}

function forest(names) {
  const all = report.comparisons;
  const colours = all.map((c) => (c.low > 0 ? css("--good") : c.high < 0 ? css("--poor") : css("--quiet")));
  return {
    type: "scatter",
    mode: "markers",
    x: all.map((c) => c.difference),
    y: all.map((_, i) => i),
    error_x: { type: "data", symmetric: false, array: all.map((c) => c.high - c.difference), arrayminus: all.map((c) => c.difference - c.low), color: css("--quiet"), thickness: 1.5, width: 0 },
    marker: { color: colours, size: 10, symbol: "square" },
    hoverinfo: "text",
    hovertext: all.map((c, i) => lines(names[i], `${signed(c.difference, 2)} points, ${signed(c.low, 2)} to ${signed(c.high, 2)}`, `p = ${fixed(c.p, 3)}`)),
  };
}

const forestLayout = (names) => ({
  height: tall(names.length),
  xaxis: { title: { text: "difference in mAP, points" }, zeroline: true, zerolinewidth: 1.5 },
  yaxis: { ...named(names, window.innerWidth < 600 ? 22 : 60), showgrid: false },
});

function startLambda() {
  const target = byId("plot-lambda");
  if (!target) return;
  const entries = report.lambdas.map((series, i) => [i, series.name, i]);
  const on = chips(byId("chips-lambda"), entries, () => redraw(target));
  plot(target, () => ({ traces: report.lambdas.flatMap((series, i) => (on.has(i) ? against(series, i) : [])), layout: lambdaLayout() }), 420);
}

const everyLambda = () => [...new Set(report.lambdas.flatMap((series) => series.lambdas))].sort((a, b) => a - b);

/** One series: its seeds as dots, and the means with their deviation, a little beside the other series'. */
function against(series, i) {
  const values = everyLambda();
  const aside = (i - (report.lambdas.length - 1) / 2) * Math.min(0.08, 0.4 / report.lambdas.length);
  const x = series.lambdas.map((value) => values.indexOf(value) + aside);
  const colour = hue(i);
  const seeds = series.mAP.flatMap((held, j) => held.map((value) => [x[j], value]));
  return [
    { type: "scatter", mode: "markers", x: seeds.map(([at]) => at), y: seeds.map(([, value]) => value), marker: { color: colour, size: 5, opacity: 0.4 }, hoverinfo: "skip" },
    {
      type: "scatter",
      mode: "lines+markers",
      x,
      y: series.mAP.map(mean),
      error_y: { type: "data", array: series.mAP.map(deviation), color: colour, thickness: 1.5, width: 3 },
      line: { color: colour, width: 2, dash: dash(i) },
      marker: { color: colour, size: 8, symbol: symbol(i) },
      hoverinfo: "text",
      hovertext: series.lambdas.map((value, j) => lines(series.name, `λ = ${value}: ${spread(series.mAP[j])}`, `${known(series.mAP[j]).length} seeds`)),
    },
  ];
}

function lambdaLayout() {
  const values = everyLambda();
  return {
    height: 420,
    uirevision: "lambda",
    heading: "mAP, %",
    xaxis: { title: { text: "λ" }, tickvals: values.map((_, i) => i), ticktext: values.map(String), range: [-0.5, values.length - 0.5], zeroline: false, showgrid: false },
    yaxis: { title: {}, zeroline: false },
  };
}
