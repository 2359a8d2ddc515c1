"use strict";
// Sort a table by a column when its heading is pressed.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];

  const key = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.sort;
    return number === undefined ? cell.textContent : Number(number);
  };
  const isMissing = (value) => value === "" || value === "–";
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), undefined, { numeric: true });

  heads.forEach((head, column) => {
    head.firstElementChild.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [key(row, column), row]);
      // Missing values stay at the end in both directions.
      rows.sort(([a], [b]) => {
        if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
        return descending ? compare(b, a) : compare(a, b);
      });
      for (const row of body.rows) row.classList.remove("first");
      body.append(...rows.map(([, row]) => row));
    });
  });
}

// Say under a table that it is wider than the page, where it is.
for (const hint of document.querySelectorAll(".hint")) {
  const region = hint.previousElementSibling;
  const say = () => (hint.hidden = region.scrollWidth <= region.clientWidth);
  new ResizeObserver(say).observe(region);
}
