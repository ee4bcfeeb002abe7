// Tables: sorting by a heading, the filter of rows, and the epoch that is shown.

const table = byId("table");

/** What a cell is sorted by: the number it holds, else its text; null comes last. */
function key(cell) {
  const epoch = table.dataset.epoch;
  if (cell.classList.contains("metric")) return epoch in cell.dataset ? Number(cell.dataset[epoch]) : null;
  const seen = cell.querySelector(`:scope > [data-epoch="${epoch}"]`) ?? cell;
  const text = seen.textContent.trim();
  if (!cell.classList.contains("number")) return text;
  const number = Number.parseFloat(text.replace(/^< /, "").replace(/−/g, "-").replace(/,(?=\d{3})/g, ""));
  return Number.isNaN(number) ? null : number;
}

function sort(head) {
  const body = head.closest("table").tBodies[0];
  const column = head.cellIndex;
  const state = head.getAttribute("aria-sort");
  const falling = head.classList.contains("number");
  const next = { null: falling ? "descending" : "ascending", [falling ? "descending" : "ascending"]: falling ? "ascending" : "descending" }[state];
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  if (next) head.setAttribute("aria-sort", next);
  arrange(body, next && column, next === "descending" ? -1 : 1);
}

/** Lines by a column, or as they were given where it is undefined. */
function arrange(body, column, direction) {
  const given = (line) => Number(line.dataset.given);
  const ordered = [...body.rows].sort((a, b) => {
    if (column === undefined) return given(a) - given(b);
    const [x, y] = [key(a.cells[column]), key(b.cells[column])];
    if (x === null || y === null) return (x === null) - (y === null) || given(a) - given(b);
    const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return direction * order || given(a) - given(b);
  });
  body.append(...ordered);
}

function sortable(target) {
  [...target.tBodies[0].rows].forEach((line, i) => (line.dataset.given = i));
  for (const head of target.tHead.rows[0].cells) {
    const button = element("button", { type: "button" }, head.textContent);
    button.addEventListener("click", () => sort(head));
    head.replaceChildren(button);
  }
}

function showEpoch(epoch) {
  table.dataset.epoch = epoch;
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", button.dataset.show === epoch);
  const head = table.querySelector("[aria-sort]");
  if (head) arrange(table.tBodies[0], head.cellIndex, head.getAttribute("aria-sort") === "descending" ? -1 : 1);
}

function filter() {
  const part = byId("filter").value.trim().toLowerCase();
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) row.hidden = !row.dataset.name.toLowerCase().includes(part);
  byId("filtered").textContent = part ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
}

function startTables() {
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("[data-show]").forEach((button) => button.addEventListener("click", () => showEpoch(button.dataset.show)));
  byId("filter").addEventListener("input", filter);
}
