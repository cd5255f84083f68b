// A line through all charts over time at the pointer, with the values there.
const clock = (figure, position) => {
  if (figure.dataset.unit === "images") return `image ${Math.round(position)}`;
  if (Number(figure.dataset.end) < 120) return `${position.toFixed(2)} s`;
  const tenths = Math.round(position * 10);
  const parts = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, (tenths % 600) / 10];
  const [hours, minutes, seconds] = parts;
  const tail = seconds.toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
};

const nearest = (sorted, wanted) => {
  let low = 0, high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle; else high = middle;
  }
  return wanted - sorted[low] < sorted[high] - wanted ? low : high;
};

for (const figure of document.querySelectorAll("figure.time")) {
  const chart = figure.querySelector(".chart");
  const cross = document.createElement("div"), when = document.createElement("span");
  cross.className = "cross";
  cross.hidden = true;
  cross.append(when);
  chart.append(cross);
  const curves = [...figure.querySelectorAll("[data-v]")].map((row) => ({
    x: [...row.querySelector(".line").getAttribute("d").matchAll(/[ML]([^,]+)/g)]
      .map(([, x]) => Number(x) / 1000),
    values: row.dataset.v.split(" "),
    unit: row.dataset.unit,
    readout: row.querySelector(".readout"),
    usual: row.querySelector(".readout").textContent,
  }));
  chart.addEventListener("pointermove", (event) => {
    const plot = figure.querySelector(".plot").getBoundingClientRect();
    const share = (event.clientX - plot.left) / plot.width;
    cross.hidden = share < 0 || share > 1;
    if (cross.hidden) return;
    cross.style.left = `${event.clientX - chart.getBoundingClientRect().left}px`;
    const [start, end] = [Number(figure.dataset.start), Number(figure.dataset.end)];
    when.textContent = clock(figure, start + share * (end - start));
    for (const { x, values, unit, readout } of curves) {
      readout.textContent = `${values[nearest(x, share)]} ${unit}`;
    }
  });
  chart.addEventListener("pointerleave", () => {
    cross.hidden = true;
    for (const { readout, usual } of curves) readout.textContent = usual;
  });
}
