// Shows what the server sends over one WebSocket. Each message is an update: the size of a JSON
// text, the text, and the pictures whose sizes the text gives. An update that is on the screen is
// confirmed; the server sends no more than two that are not.
import { Camera } from "./camera.js";
import { byId, element, fillTiles, setText, tell } from "./parts.js";

const SILENCE_MS = 4000;

const cameras = new Map();

const describe = ({ node, problems, model, runtime, board, cameras: described, control }) => {
  setText(byId("node"), node.slice(1));
  document.title = node.slice(1);
  setText(byId("model"), [model, runtime].filter(Boolean).join(" on "));
  const list = byId("problems");
  while (list.childElementCount > problems.length) list.lastChild.remove();
  while (list.childElementCount < problems.length) list.append(element("li"));
  problems.forEach((problem, index) => tell(list.children[index], problem));
  byId("board").hidden = !board.length;
  fillTiles(byId("board"), board.map(([key, value]) => {
    const [, label, unit] = key.match(/^(.*?)(?: \((.*)\))?$/);
    return ["", label, [value, { C: "°C" }[unit] ?? unit].filter(Boolean).join(" ")];
  }));
  const names = new Set(described.map(({ name }) => name));
  for (const [name, camera] of cameras) {
    if (names.has(name)) continue;
    camera.root.remove();
    cameras.delete(name);
  }
  for (const each of described) {
    if (!cameras.has(each.name)) cameras.set(each.name, new Camera(each.name));
    cameras.get(each.name).describe(each);
  }
  offer(control);
};

// Changes, where the server allows them.
const offer = (control) => {
  byId("control").hidden = !control;
  if (!control) return;
  const select = byId("size"), sizes = control.sizes.join("\n");
  if (select.dataset.sizes !== sizes) {
    select.dataset.sizes = sizes;
    select.replaceChildren(...control.sizes.map((size) => new Option(size)));
  }
  if (document.activeElement !== select) select.value = control.model_size;
  byId("enabled").checked = control.enabled;
};

const change = async (wanted) => {
  const answer = byId("answer");
  answer.className = "";
  answer.textContent = "asking the node";
  try {
    const response = await fetch("control", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(wanted),
    });
    answer.textContent = (await response.text()).trim();
    answer.className = response.ok ? "" : "failed";
  } catch {
    answer.textContent = "the server does not answer";
    answer.className = "failed";
  }
};
byId("size").addEventListener("change", ({ target }) => {
  target.blur();
  change({ model_size: target.value });
});
byId("enabled").addEventListener("change", ({ target }) => change({ enabled: target.checked }));
byId("control").addEventListener("submit", (event) => event.preventDefault());

const show = async (data) => {
  const size = new DataView(data).getUint32(0);
  const update = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
  if (update.status) describe(update.status);
  let at = 4 + size;
  const pictures = [];
  for (const { name, jpeg, points, classes } of update.cameras) {
    const camera = cameras.get(name);
    if (camera && points) camera.add({ points, classes }, update.now);
    if (!jpeg) continue;
    if (camera) pictures.push(camera.draw(new Uint8Array(data, at, jpeg)));
    at += jpeg;
  }
  await Promise.all(pictures);
};

// The connection: only while the page is looked at, and again and again until there is one.
let socket = null, heardAt = 0, attempts = 0, timer = 0;

const setLink = (state, text) => {
  document.body.dataset.link = state;
  setText(byId("link"), text);
};

const reason = async ({ reason: said }) => {
  if (said) return said;
  try {
    const { status } = await fetch("./", { method: "GET", cache: "no-store" });
    return status === 401 ? "the token has changed: open the page with ?token=TOKEN" : "";
  } catch {
    return "";
  }
};

const connect = () => {
  clearTimeout(timer);
  if (socket || document.hidden) return;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const own = socket = new WebSocket(`${scheme}://${location.host}${location.pathname}live`);
  own.binaryType = "arraybuffer";
  heardAt = performance.now();
  let showing = Promise.resolve();
  own.addEventListener("open", () => {
    attempts = 0;
    for (const camera of cameras.values()) camera.points = [];
  });
  own.addEventListener("message", ({ data }) => {
    if (socket !== own) return;
    heardAt = performance.now();
    setLink("live", "connected");
    showing = showing.then(() => show(data)).then(() => {
      if (own.readyState === WebSocket.OPEN) own.send("shown");
    });
  });
  own.addEventListener("close", async (event) => {
    if (socket !== own) return;
    socket = null;
    timer = setTimeout(connect, Math.min(5000, 500 * 2 ** attempts++));
    setLink("lost", "the server is away: trying again");
    const said = await reason(event);
    if (said && !socket) setLink("lost", said);
  });
};

const disconnect = (text) => {
  const own = socket;
  socket = null;
  own?.close();
  setLink("lost", text);
};

setInterval(() => {
  for (const camera of cameras.values()) camera.age();
  if (!socket) return;
  if (performance.now() - heardAt > SILENCE_MS) {
    disconnect("the server is silent: trying again");
    connect();
  }
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) disconnect("paused while nobody looks");
  else connect();
});
if (location.search) history.replaceState(null, "", location.pathname); // the token
connect();
