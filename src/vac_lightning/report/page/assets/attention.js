// Consistency error before and after training: a small plot a transform.

const TRANSFORMS = { t: "translation", r: "rotation", s: "scaling", f: "flip" };

function startConsistency() {
  const target = byId("plots-consistency");
  if (!target) return;
  const letters = [...new Set(report.attention.flatMap((a) => [...Object.keys(a.before), ...Object.keys(a.after)]))];
  const most = Math.max(1, ...report.attention.flatMap((a) => known([...Object.values(a.before), ...Object.values(a.after)])));
  for (const letter of letters) {
    const name = TRANSFORMS[letter] ? `${letter}, ${TRANSFORMS[letter]}` : letter;
    const place = element("div", { role: "group", "aria-label": `Consistency error under ${name}`, class: "plot" });
    target.append(place);
    plot(place, () => dumbbells(letter, name, most), tall(report.attention.length));
  }
}

function dumbbells(letter, name, most) {
  const held = report.attention.filter((a) => letter in a.before || letter in a.after);
  const value = (a, when) => a[when][letter] ?? null;
  const dots = (when) => ({
    type: "scatter",
    mode: "markers",
    x: held.map((a) => value(a, when)),
    y: held.map((_, i) => i),
    marker: { color: held.map((a) => (when === "before" ? css("--paper") : hue(a.row))), size: 9, line: { color: held.map((a) => hue(a.row)), width: 1.75 } },
    hoverinfo: "text",
    hovertext: held.map((a) => lines(report.rows[a.row], `${when} training: ${fixed(value(a, when), 3)}`)),
  });
  const ways = {
    type: "scatter",
    mode: "lines",
    x: held.flatMap((a) => [value(a, "before"), value(a, "after"), null]),
    y: held.flatMap((_, i) => [i, i, null]),
    line: { color: css("--quiet"), width: 1.5 },
    opacity: 0.6,
    hoverinfo: "skip",
  };
  return {
    traces: [ways, dots("before"), dots("after")],
    layout: {
      height: tall(held.length),
      heading: name,
      xaxis: { title: { text: "relative error" }, range: [0, 1.04 * most], zeroline: false },
      yaxis: { ...named(held.map((a) => report.rows[a.row])), showgrid: false },
    },
  };
}
