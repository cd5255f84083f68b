// Sorts a table of bags by the column whose heading is pressed: first downwards, then upwards.
const value = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value || NaN);
};
const compare = (one, other) => {
  if (typeof one === "string") return one.localeCompare(other, "en", { numeric: true });
  if (isNaN(one) || isNaN(other)) return isNaN(one) - isNaN(other);
  return other - one;
};

for (const body of document.querySelectorAll("tbody.sortable")) {
  const headings = [...body.parentElement.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const isText = typeof value(rows[0], column) === "string";
      const before = heading.getAttribute("aria-sort");
      for (const each of headings) each.removeAttribute("aria-sort");
      const isBack = before === (isText ? "ascending" : "descending");
      heading.setAttribute("aria-sort", isBack === isText ? "descending" : "ascending");
      const known = (row) => !Number.isNaN(value(row, column));
      rows.sort((one, other) => {
        const order = compare(value(one, column), value(other, column));
        return isBack && known(one) && known(other) ? -order : order;
      });
      body.append(...rows);
    });
  });
}
