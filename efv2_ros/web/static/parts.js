// Small parts of the page: elements, tiles and sentences, and the charts of the last minute.
export const MINUTE_S = 60, COLOURS = 8;
const GAP_S = 1.5, RATE_S = 3, WIDTH = 1000, HEIGHT = 34, BAND_HEIGHT = 22;
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);
export const element = (tag, className = "", text = "") => {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
};
export const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
export const setClass = (node, name) => {
  if (node.getAttribute("class") !== name) node.setAttribute("class", name);
};
const drawn = (tag, attributes = {}) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
export const milliseconds = (value) => `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export const tell = (node, { level, about, text }) => {
  const said = `${about}: ${text}`;
  if (node.textContent === said && node.classList.contains(level)) return;
  node.className = `problem ${level}`;
  node.replaceChildren(element("b", "", about), `: ${text}`);
};

export const fillTiles = (list, tiles) => {
  while (list.childElementCount > tiles.length) list.lastChild.remove();
  while (list.childElementCount < tiles.length) {
    const tile = element("div");
    tile.append(element("dt"), element("dd"));
    list.append(tile);
  }
  tiles.forEach(([className, label, value], index) => {
    const tile = list.children[index];
    tile.className = className;
    setText(tile.firstChild, label);
    setText(tile.lastChild, typeof value === "number" ? value.toLocaleString("en") : value);
  });
};

// Colours of the classes that were seen most in the last minute; a class keeps its own.
export class Colours {
  #slots = new Map();

  assign(counts) {
    const most = [...counts].sort(([one, first], [other, second]) =>
      second - first || this.#slots.has(other) - this.#slots.has(one));
    const names = new Set(most.slice(0, COLOURS).map(([name]) => name));
    for (const name of [...this.#slots.keys()]) if (!names.has(name)) this.#slots.delete(name);
    for (const name of names) {
      if (this.#slots.has(name)) continue;
      const taken = new Set(this.#slots.values());
      const free = [...Array(COLOURS).keys()].find((slot) => !taken.has(slot));
      if (free !== undefined) this.#slots.set(name, free);
    }
  }

  of(name) { return `class-${this.#slots.get(name) ?? "other"}`; }
}

// A value over the last minute, on a scale of its own from zero to its highest.
export class Line {
  constructor(chart, name, className, format) {
    this.row = element("div", `row ${className}`);
    this.row.hidden = true;
    const gutter = element("div", "gutter");
    this.readout = element("span", "readout");
    gutter.append(element("span", "name", name), this.readout);
    const plot = drawn("svg", {
      class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
      height: HEIGHT, role: "img", "aria-label": `${name} in the last minute`,
    });
    this.path = drawn("path");
    plot.append(this.path);
    this.highest = element("span", "highest");
    const cell = element("div", "cell");
    cell.append(plot, this.highest);
    this.row.append(gutter, cell);
    chart.append(this.row);
    this.format = format;
  }

  show(values, now) {
    this.row.hidden = !values.length;
    if (!values.length) return;
    const highest = Math.max(...values.map(([, value]) => value));
    let path = "", before = -Infinity;
    for (const [time, value] of values) {
      const x = (time - now + MINUTE_S) / MINUTE_S * WIDTH;
      const y = HEIGHT - 1 - value / (highest || 1) * (HEIGHT - 3);
      path += `${time - before > GAP_S ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
      before = time;
    }
    this.path.setAttribute("d", path);
    setText(this.readout, this.format(values[values.length - 1][1]));
    setText(this.highest, `max ${this.format(highest)}`);
  }
}

// The best class over the last minute, a rectangle for each stretch of time with the same one.
export class Band {
  constructor(chart) {
    const row = element("div", "row classes"), gutter = element("div", "gutter");
    gutter.append(element("span", "name", "best class"));
    this.plot = drawn("svg", {
      class: "plot band", viewBox: `0 0 ${WIDTH} ${BAND_HEIGHT}`, preserveAspectRatio: "none",
      height: BAND_HEIGHT, role: "img", "aria-label": "best class in the last minute",
    });
    row.append(gutter, this.plot);
    chart.append(row);
  }

  show(stretches, colours, now) {
    while (this.plot.childElementCount > stretches.length) this.plot.lastChild.remove();
    while (this.plot.childElementCount < stretches.length) this.plot.append(drawn("rect"));
    stretches.forEach(({ name, start, end }, index) => {
      const rectangle = this.plot.children[index];
      const x = (start - now + MINUTE_S) / MINUTE_S * WIDTH;
      rectangle.setAttribute("x", x.toFixed(1));
      rectangle.setAttribute("width", Math.max(1, (end - start) / MINUTE_S * WIDTH).toFixed(1));
      rectangle.setAttribute("height", BAND_HEIGHT);
      setClass(rectangle, colours.of(name));
    });
  }
}

export const stretchesOf = (points) => {
  const found = [];
  let before = null;
  for (const { t, c } of points) {
    if (!c) continue;
    const last = found[found.length - 1], start = before && t - before < GAP_S ? before : t - 0.2;
    if (last && last.name === c[0] && start === last.end) last.end = t;
    else found.push({ name: c[0], start, end: t });
    before = t;
  }
  return found;
};

// Results a second at each point, over the seconds before it.
export const ratesOf = (points) => {
  const found = [];
  let first = 0, count = 0;
  points.forEach((point, index) => {
    count += point.n;
    while (point.t - points[first].t > RATE_S && first < index) count -= points[first++].n;
    // The results of the first point came before it.
    const span = point.t - points[first].t;
    if (span > 1) found.push([point.t, (count - points[first].n) / span]);
  });
  return found;
};
