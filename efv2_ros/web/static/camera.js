// One camera's section: its picture, best classes, the last minute, and counts.
import {
  Band, COLOURS, Colours, Line, MINUTE_S, byId, element, fillTiles, milliseconds, percent, ratesOf,
  setClass, setText, stretchesOf, tell,
} from "./parts.js";

const STILL_MS = 4000, STALE_S = 4, SHOWN = 5;
const STAGES = ["wait", "convert", "infer", "postprocess", "publish", "end_to_end"];

export class Camera {
  constructor(name) {
    this.name = name;
    this.root = byId("camera").content.cloneNode(true).firstElementChild;
    this.points = [];
    this.colours = new Colours();
    this.pictureAt = -Infinity;
    const find = (selector) => this.root.querySelector(selector);
    this.title = find("h2");
    this.topic = element("small");
    this.heading = document.createTextNode("");
    this.title.append(this.heading, this.topic);
    this.problem = find(".problem");
    this.screen = find(".screen");
    this.canvas = find("canvas");
    this.blank = find(".blank");
    this.counts = find(".counts");
    this.bars = [...Array(SHOWN)].map(() => {
      const row = element("li"), track = element("div", "track"), bar = element("div", "bar");
      const label = element("span", "label"), score = element("span", "score");
      track.append(bar);
      row.append(label, score, track);
      row.hidden = true;
      find(".best").append(row);
      return { row, label, score, bar };
    });
    const chart = find(".chart");
    this.band = new Band(chart);
    const axis = element("div", "row axis"), times = element("div");
    times.append(element("span", "", "a minute ago"), element("span", "", "now"));
    axis.append(element("div", "gutter"), times);
    chart.append(axis);
    const named = element("div", "row named");
    this.legend = element("ul", "legend");
    named.append(element("div", "gutter"), this.legend);
    chart.append(named);
    this.fps = new Line(chart, "FPS", "fps", (value) => value.toFixed(1));
    this.stages = STAGES.map((stage) => [
      stage, new Line(chart, stage.replaceAll("_", " "), `stage-${stage}`, milliseconds),
    ]);
    byId("cameras").append(this.root);
  }

  describe({ topic, problem, rates, counts, drops }) {
    this.heading.data = this.name || topic || "the camera";
    setText(this.topic, this.name ? topic : "");
    this.canvas.setAttribute("aria-label", `live picture of ${topic || this.name}`);
    this.problem.hidden = !problem;
    if (problem) tell(this.problem, problem);
    const tiles = [
      ...[...counts, ...rates].map(([label, value]) => ["", label, value]),
      ...drops.map(([cause, count]) => [`dropped ${cause}`, `dropped: ${cause}`, count]),
    ];
    fillTiles(this.counts, tiles);
  }

  add({ classes, points }, now) {
    this.points.push(...points);
    while (this.points.length && this.points[0].t <= now - MINUTE_S) this.points.shift();
    const seen = new Map();
    let newest = -Infinity;
    for (const { t, c } of this.points) {
      if (!c) continue;
      seen.set(c[0], (seen.get(c[0]) ?? 0) + 1);
      newest = t;
    }
    this.colours.assign(seen);
    this.root.classList.toggle("stale", now - newest > STALE_S);
    this.bars.forEach(({ row, label, score, bar }, index) => {
      row.hidden = index >= classes.length;
      if (row.hidden) return;
      const [name, share] = classes[index];
      setText(label, name);
      label.title = name;
      setText(score, percent(share));
      bar.style.width = `${(100 * share).toFixed(2)}%`;
      setClass(bar, `bar ${index ? "" : this.colours.of(name)}`);
    });
    this.band.show(stretchesOf(this.points), this.colours, now);
    this.fps.show(ratesOf(this.points), now);
    for (const [stage, line] of this.stages) {
      line.show(this.points.filter(({ ms }) => ms && stage in ms).map(({ t, ms }) => [t, ms[stage]]),
        now);
    }
    this.#explain(seen);
  }

  #explain(seen) {
    const total = [...seen.values()].reduce((one, other) => one + other, 0);
    const most = [...seen].sort(([, one], [, other]) => other - one).slice(0, COLOURS);
    while (this.legend.childElementCount > most.length) this.legend.lastChild.remove();
    while (this.legend.childElementCount < most.length) {
      const item = element("li");
      item.append(element("span"), document.createTextNode(""));
      this.legend.append(item);
    }
    most.forEach(([name, count], index) => {
      const [label, share] = this.legend.children[index].childNodes;
      setText(label, name);
      setClass(label, this.colours.of(name));
      share.data = ` ${percent(count / total)}`;
    });
  }

  async draw(jpeg) {
    let picture;
    try {
      picture = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    } catch {
      return; // a damaged picture; the next one is on its way
    }
    const { width, height } = picture;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
    this.blank.hidden = true;
    this.pictureAt = performance.now();
    this.screen.classList.remove("still");
  }

  age() {
    this.screen.classList.toggle("still", performance.now() - this.pictureAt > STILL_MS);
  }
}
