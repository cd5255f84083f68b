// Put in front of a report's head by test_report.py: tells the parent page what a reader would see.
"use strict";
const probe = { errors: [] };
addEventListener("error", (event) => probe.errors.push(String(event.message)), true);
addEventListener("unhandledrejection", (event) => probe.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) =>
  probe.errors.push(`${event.violatedDirective}: ${event.blockedURI}`));

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const box = (each) => {
  const { left, top, width, height } = each.getBoundingClientRect();
  return { left, top, width, height, right: left + width, bottom: top + height };
};
const known = new Map();
const rgba = (text) => {
  if (!known.has(text)) known.set(text, bytes(text));
  return known.get(text);
};
const bytes = (text) => {
  // Whatever notation computed styles use, a canvas turns it into bytes.
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.fillStyle = text;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
};
const behind = (each) => {
  for (let at = each; at; at = at.parentElement) {
    const colour = rgba(getComputedStyle(at).backgroundColor);
    if (colour[3] === 1) return colour;
  }
  return [255, 255, 255, 1];
};
const isText = (each) => [...each.childNodes].some((node) =>
  node.nodeType === Node.TEXT_NODE && node.data.trim());

const describeRow = (row) => ({
  name: row.querySelector(".name").textContent,
  readout: row.querySelector(".readout").textContent,
  label: row.querySelector(".plot").getAttribute("aria-label"),
  plot: box(row.querySelector(".plot")),
  gutter: box(row.querySelector(".gutter")),
  colour: getComputedStyle(row).getPropertyValue("--colour"),
  curves: all("path", row).map((path) => ({
    kind: path.getAttribute("class"), d: path.getAttribute("d"), box: box(path),
  })),
  marks: all(".mark", row).map((mark) => ({
    text: mark.getAttribute("aria-label"), box: box(mark), fill: getComputedStyle(mark).fill,
  })),
  peaks: all(".peak", row).map(box),
  percentiles: all(".percentile", row).map(box),
  notes: all(".note", row).map((note) => ({ text: note.textContent, box: box(note) })),
  ticks: all(".tick", row).map((tick) => ({ text: tick.textContent, box: box(tick) })),
});

const pixel = (image) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const [x, y] = [image.naturalWidth >> 1, image.naturalHeight >> 1];
  return [...context.getImageData(x, y, 1, 1).data];
};

const hover = (figure, share) => {
  const plot = figure.querySelector(".plot").getBoundingClientRect();
  const [clientX, clientY] = [plot.left + share * plot.width, plot.top + 5];
  figure.querySelector(".chart").dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
  const seen = {
    when: figure.querySelector(".cross span").textContent,
    cross: box(figure.querySelector(".cross")),
    readouts: all(".row", figure).map((row) => row.querySelector(".readout").textContent),
  };
  figure.querySelector(".chart").dispatchEvent(new PointerEvent("pointerleave"));
  return { ...seen, hidden: figure.querySelector(".cross").hidden };
};

const walk = (figure) => {
  // With the arrow keys from the mark that the tab key stops at to the last one.
  const stops = all(".mark", figure).filter((mark) => mark.tabIndex === 0);
  const told = [];
  for (let mark = stops[0], last = null; mark && mark !== last;) {
    mark.focus();
    mark.dispatchEvent(new FocusEvent("focus"));
    told.push(document.querySelector(".tip").textContent);
    last = mark;
    mark.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", cancelable: true }));
    mark = document.activeElement;
  }
  dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  return { stops: stops.length, told, hidden: document.querySelector(".tip").hidden };
};

addEventListener("load", () => {
  const texts = all("body *").filter((each) => isText(each) && !each.closest("script, details"));
  Object.assign(probe, {
    title: document.title,
    language: document.documentElement.lang,
    text: document.body.innerText,
    width: innerWidth,
    scrollWidth: document.documentElement.scrollWidth,
    scripts: document.scripts.length,
    elements: [...new Set(all("*").map((each) => each.localName))],
    urls: all("[src], [href]").map((each) => each.getAttribute("src") ?? each.getAttribute("href")),
    tables: all("table").map((table) => ({
      rows: all("tr", table).map((row) => [...row.cells].map((cell) => cell.textContent)),
      numbers: all("td.number", table).map((cell) => getComputedStyle(cell).textAlign),
    })),
    charts: all("figure").map((figure) => all(".row", figure).map(describeRow)),
    images: all("img").map((image) => ({
      alt: image.alt, size: [image.naturalWidth, image.naturalHeight], box: box(image),
      caption: image.closest("li").innerText, pixel: image.complete ? pixel(image) : null,
    })),
    texts: texts.map((each) => {
      const style = getComputedStyle(each);
      const colour = each.namespaceURI.endsWith("svg") ? style.fill : style.color;
      return { text: each.textContent.slice(0, 40), colour: rgba(colour), behind: behind(each) };
    }),
    drawn: all(".line, .dots, .bars, .band, .mark, .peak").map((each) => {
      const style = getComputedStyle(each);
      const [red, green, blue] = rgba(style.fill === "none" ? style.stroke : style.fill);
      const colour = [red, green, blue, Number(style.opacity)];
      return {
        kind: each.getAttribute("class"), colour, behind: behind(each),
        stroke: parseFloat(style.strokeWidth),
      };
    }),
    hovered: all("figure.time").map((figure) => hover(figure, 0.6)),
    walked: all("figure.time").map(walk),
  });
  parent.postMessage({ name: window.name, probe }, "*");
});
