// Pictures: they become images only when they are asked for.

const VIEWS = ["flipped", "original", "scaled"];

function startGallery() {
  if (!byId("cards")) return;
  const drawn = report.gallery.filter((row) => row.samples.length);
  const show = () => byId("cards").replaceChildren(...drawn.filter((row) => on.has(row.row)).map(card));
  const on = chips(byId("chips-gallery"), drawn.map((row) => [row.row, report.rows[row.row], row.row]), show, 3);
  show();
  startPanels(report.gallery.filter((row) => row.panels.length));
}

function card(row) {
  const caption = element("figcaption", {}, report.rows[row.row], element("span", { class: "quiet" }, `, seed ${row.seed}`));
  return element("figure", { class: "card" }, caption, ...row.samples.map(strip));
}

/** One sample's three views, the difference from the original's heatmap below the other two. */
function strip(sample) {
  const pictures = VIEWS.map((view) => {
    const error = view in sample.errors ? `, ${fixed(sample.errors[view], 2)} from the original's` : "";
    const picture = element("img", { src: sample.tiles[view], alt: `Heatmap of ${sample.label} on the ${view} image${error}`, decoding: "async", loading: "lazy" });
    picture.style.width = view === "scaled" ? `${100 * sample.scale}%` : "100%";
    return picture;
  });
  const captions = VIEWS.map((view) => element("span", {}, view in sample.errors ? `${view} ${fixed(sample.errors[view], 2)}` : view));
  return element("div", { class: "strip" }, element("span", { class: "name" }, sample.label), ...pictures, ...captions);
}

function startPanels(rows) {
  if (!rows.length) {
    byId("panels").remove();
    return;
  }
  const [select, slider] = [byId("panel-row"), byId("panel-epoch")];
  select.append(...rows.map((row, i) => option(i, report.rows[row.row])));
  const show = () => {
    const row = rows[Number(select.value)];
    slider.max = row.panels.length - 1;
    const [epoch, picture] = row.panels[Number(slider.value)];
    byId("panel-at").textContent = epoch;
    slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
    byId("panel").src = picture;
    byId("panel").alt = `Heatmaps of ${report.rows[row.row]}, seed ${row.seed}, at epoch ${epoch}: original, transformed, aligned and their difference`;
  };
  select.addEventListener("change", () => {
    slider.max = rows[Number(select.value)].panels.length - 1;
    slider.value = slider.max;
    show();
  });
  slider.addEventListener("input", show);
  slider.max = rows[0].panels.length - 1;
  slider.value = slider.max;
  show();
}
