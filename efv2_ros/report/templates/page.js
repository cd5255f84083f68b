"use strict";
// The page is complete without this script; titles and tables say everything. The script adds a
// line through all charts at the pointer with the values there, and shows what a mark is at once,
// also for the keyboard.
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

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);

const tell = (mark) => {
  tip.textContent = mark.getAttribute("aria-label");
  tip.hidden = false;
  const box = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = box.left + box.width / 2 - own.width / 2;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - own.width - 4))}px`;
  tip.style.top = `${box.top > own.height + 8 ? box.top - own.height - 8 : box.bottom + 8}px`;
};
const hush = () => { tip.hidden = true; };
addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
addEventListener("scroll", hush, { passive: true });

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

  const marks = [...figure.querySelectorAll(".mark")];
  for (const mark of marks) {
    const title = mark.querySelector("title");
    mark.setAttribute("aria-label", title.textContent);
    title.remove(); // or the browser would show a tooltip of its own as well
    mark.addEventListener("pointerenter", () => tell(mark));
    mark.addEventListener("pointerleave", hush);
    mark.addEventListener("focus", () => tell(mark));
    mark.addEventListener("blur", hush);
  }
  // Each figure is one stop of the tab key; the arrow keys go from mark to mark in time.
  const left = (mark) => parseFloat(mark.getAttribute("x"));
  marks.sort((one, other) => left(one) - left(other));
  marks.forEach((mark, index) => {
    mark.tabIndex = index ? -1 : 0;
    mark.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const next = step && marks[index + step];
      if (!next) return;
      event.preventDefault();
      mark.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
}
