// Learning curves: one term at a time, of the rows that are on.

function startCurves() {
  const target = byId("plot-curves");
  if (!target) return;
  const terms = Object.keys(report.curves);
  const select = byId("term");
  for (const [group, names] of grouped(terms)) select.append(element("optgroup", { label: group }, ...names.map((name) => option(name, name))));
  select.value = terms.includes("val/mAP") ? "val/mAP" : terms[0];
  const rows = [...new Set(Object.values(report.curves).flatMap((held) => held.map(([row]) => row)))].sort((a, b) => a - b);
  const on = chips(byId("chips-curves"), rows.map((row) => [row, report.rows[row], row]), () => redraw(target));
  select.addEventListener("change", () => redraw(target));
  plot(target, () => ({ traces: rows.filter((row) => on.has(row)).flatMap((row) => curve(select.value, row)), layout: curvesLayout(select.value) }), 460);
}

/** Terms by what comes before their slash. */
function grouped(terms) {
  const groups = new Map();
  for (const term of terms) {
    const group = { train: "training", val: "validation" }[term.split("/")[0]] ?? "other";
    groups.set(group, [...(groups.get(group) ?? []), term]);
  }
  return groups;
}

/** A row's seeds as one thin line with gaps between them, and their mean. */
function curve(term, row) {
  const seeds = report.curves[term].filter(([of]) => of === row);
  if (!seeds.length) return [];
  const colour = hue(row);
  const at = new Map();
  for (const [, , epochs, values] of seeds) epochs.forEach((epoch, i) => at.set(epoch, [...(at.get(epoch) ?? []), values[i]]));
  const epochs = [...at.keys()].sort((a, b) => a - b);
  const means = epochs.map((epoch) => mean(at.get(epoch)));
  const whole = {
    type: "scatter",
    mode: epochs.length > 1 ? "lines" : "markers",
    x: epochs,
    y: means,
    line: { color: colour, width: 2.75, dash: dash(row) },
    marker: { color: colour, size: 9 },
    hoverinfo: "text",
    hovertext: epochs.map((epoch, i) => lines(report.rows[row], `epoch ${epoch}: ${precise(means[i])}`, seeds.length > 1 ? `mean of ${seeds.length} seeds` : `seed ${seeds[0][1]}`)),
  };
  if (seeds.length < 2) return [whole];
  const apart = (pick) => seeds.flatMap((seed) => [...pick(seed), null]);
  const thin = {
    type: "scatter",
    mode: "lines",
    x: apart((seed) => seed[2]),
    y: apart((seed) => seed[3]),
    line: { color: colour, width: 1 },
    opacity: 0.45,
    hoverinfo: "text",
    hovertext: apart(([, number, of, values]) => of.map((epoch, i) => lines(report.rows[row], `epoch ${epoch}: ${precise(values[i])}`, `seed ${number}`))),
  };
  return [thin, whole];
}

const precise = (value) => (value === null ? "n/a" : Number(value.toPrecision(4)).toString());

function curvesLayout(term) {
  const last = Math.max(0, ...report.curves[term].flatMap(([, , epochs]) => epochs));
  return {
    height: 460,
    uirevision: term,
    heading: term,
    xaxis: { title: { text: "epoch" }, zeroline: false, showgrid: false, ...(last < 12 && { dtick: 1 }) },
    yaxis: { title: {}, zeroline: false },
  };
}
