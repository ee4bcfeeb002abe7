// Plots: drawn when they come near the window, and again when a control or the theme changes.

const plots = new Map();
const near = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "600px" },
);

/** Gives an element its plot: `build` returns {traces, layout} from what the controls say now. */
function plot(target, build, height) {
  plots.set(target, { build, drawn: false });
  target.style.minHeight = `${height}px`; // the page keeps its length while plots are drawn
  near.observe(target);
}

function draw(target) {
  const held = plots.get(target);
  held.drawn = true;
  near.unobserve(target);
  const { traces, layout } = held.build();
  target.style.minHeight = `${layout.height}px`;
  const settings = {
    responsive: true,
    displaylogo: false,
    displayModeBar: coarse.matches ? true : "hover",
    // Named one by one: left to itself plotly offers to upload a plot to its makers' server.
    modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
    plotlyServerURL: "",
    toImageButtonOptions: { format: "svg", filename: target.id },
  };
  return Plotly.react(target, traces, framed(layout), settings);
}

/** Draws again what was drawn: one plot, or all of them. */
const redraw = (target) => plots.get(target).drawn && draw(target);
const redrawAll = () => plots.forEach((held, target) => held.drawn && draw(target));
const drawAll = () => plots.forEach((held, target) => held.drawn || draw(target));

/** What all plots share; `heading` stands over the vertical axis. On a touch screen a finger scrolls the page until a button of the plot says otherwise. */
function framed(layout) {
  const ink = css("--ink");
  const axis = { gridcolor: css("--rule"), linecolor: css("--quiet"), zerolinecolor: css("--quiet"), tickfont: { color: ink }, automargin: true };
  const { xaxis, yaxis, heading, ...rest } = layout;
  return {
    font: { family: font(), size: 12.5, color: ink },
    paper_bgcolor: css("--paper"),
    plot_bgcolor: css("--paper"),
    margin: { l: 10, r: 12, t: coarse.matches ? 50 : 34, b: 10 },
    showlegend: false,
    hovermode: "closest",
    dragmode: coarse.matches ? false : "zoom",
    hoverlabel: { bgcolor: css("--tint"), bordercolor: css("--rule"), font: { color: ink, family: font() }, align: "left", namelength: 0 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--accent") },
    ...rest,
    ...(heading && { title: { text: plain(heading), x: 0, xanchor: "left", y: 1, yanchor: "top", yref: "container", pad: { t: 6 }, font: { size: 12.5, color: css("--quiet") } } }),
    xaxis: { ...axis, ...xaxis, title: { font: { color: ink }, ...xaxis.title } },
    yaxis: { ...axis, ...yaxis, title: { font: { color: ink }, ...yaxis.title } },
  };
}

/** An axis of names, the first at the top: numbers underneath, so that a name is never taken for a date or a number. */
const named = (names, most) => ({
  tickvals: names.map((_, i) => i),
  ticktext: names.map((name) => short(name, most)),
  range: [names.length - 0.4, -0.6],
  ticks: "",
  zeroline: false,
  title: {},
});

const tall = (count) => (coarse.matches ? 110 : 90) + 24 * count;
