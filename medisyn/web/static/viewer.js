// The viewer: zoom, pan, window and level, invert; several on a page move together.

const views = [...document.querySelectorAll("[data-viewer]")].map((stage) => ({ stage, canvas: stage.querySelector("canvas"), pixels: null, shown: null }));
const tools = document.querySelector(".tools");
const fresh = { zoom: 1, x: 0, y: 0, window: 256, level: 128, invert: false, smooth: true }; // x, y: in parts of the stage's shorter side
const now = { ...fresh };
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const MOST = 24;

/** Grey levels through window and level as DICOM has them (PS3.3 C.11.2.1.2.1): 256 and 128 leave them as they are. */
function toned(view) {
  const { width, height } = view.pixels;
  const table = new Uint8ClampedArray(256);
  for (let v = 0; v < 256; v++) { const t = clamp(((v - now.level + 0.5) / (now.window - 1) + 0.5) * 255, 0, 255); table[v] = now.invert ? 255 - t : t; }
  const from = view.pixels.data, image = new ImageData(width, height), to = image.data;
  for (let i = 0; i < from.length; i += 4) { to[i] = table[from[i]]; to[i + 1] = table[from[i + 1]]; to[i + 2] = table[from[i + 2]]; to[i + 3] = from[i + 3]; }
  view.shown ??= Object.assign(document.createElement("canvas"), { width, height });
  view.shown.getContext("2d").putImageData(image, 0, 0);
}

function draw(view) {
  const { canvas, stage } = view;
  const ratio = devicePixelRatio || 1, width = Math.round(stage.clientWidth * ratio), height = Math.round(stage.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  if (!view.shown) return;
  const side = Math.min(width, height), fit = Math.min(width / view.shown.width, height / view.shown.height) * now.zoom;
  const w = view.shown.width * fit, h = view.shown.height * fit;
  pen.imageSmoothingEnabled = now.smooth;
  pen.imageSmoothingQuality = "high";
  const x = width / 2 - w / 2 + now.x * side, y = height / 2 - h / 2 + now.y * side;
  pen.drawImage(view.shown, x, y, w, h);
  stage.dispatchEvent(new CustomEvent("drawn", { detail: { x, y, w, h } })); // in pixels of the screen
}

function drawAll(tones = false) {
  if (tones) for (const view of views) if (view.pixels) toned(view);
  for (const view of views) draw(view);
  tools.querySelector("[data-zoom]").textContent = `${Math.round(now.zoom * 100)} %`;
  for (const name of ["window", "level"]) {
    tools.querySelector(`[data-set=${name}]`).value = now[name];
    tools.querySelector(`[data-${name}]`).textContent = Math.round(now[name]);
  }
  for (const name of ["invert", "smooth"]) tools.querySelector(`[data-do=${name}]`).setAttribute("aria-pressed", now[name]);
}

/** Zoom about a point of the stage, given from its middle in parts of its shorter side. */
function zoom(by, px = 0, py = 0) {
  const wanted = clamp(now.zoom * by, 0.25, MOST), real = wanted / now.zoom;
  now.x = px - (px - now.x) * real;
  now.y = py - (py - now.y) * real;
  now.zoom = wanted;
  drawAll();
}

function shift(x, y) { now.x = clamp(now.x + x, -MOST, MOST); now.y = clamp(now.y + y, -MOST, MOST); drawAll(); }
function tone(window, level) { now.window = clamp(now.window + window, 2, 512); now.level = clamp(now.level + level, 0, 255); drawAll(true); }

const acts = {
  in: () => zoom(1.25), out: () => zoom(0.8), invert: () => { now.invert = !now.invert; drawAll(true); },
  smooth: () => { now.smooth = !now.smooth; drawAll(); }, reset: () => { Object.assign(now, fresh); drawAll(true); } };
for (const button of tools.querySelectorAll("[data-do]")) button.addEventListener("click", () => acts[button.dataset.do]());
for (const slide of tools.querySelectorAll("[data-set]")) slide.addEventListener("input", () => { now[slide.dataset.set] = Number(slide.value); drawAll(true); });

const keys = { "+": acts.in, "=": acts.in, "-": acts.out, i: acts.invert, p: acts.smooth, 0: acts.reset,
  "[": () => document.getElementById("earlier")?.click(), "]": () => document.getElementById("later")?.click() };
const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const move = moves[event.key];
  if (move && event.target.matches("a, button")) return;
  if (move && event.shiftKey) tone(-move[0] * 10, move[1] * 8);
  else if (move) shift(move[0] * 0.06, move[1] * 0.06);
  else if (keys[event.key.toLowerCase()]) keys[event.key.toLowerCase()]();
  else return;
  event.preventDefault();
});

for (const view of views) {
  const { stage, canvas } = view, down = new Map();
  const at = (event) => {
    const box = stage.getBoundingClientRect(), side = Math.min(box.width, box.height);
    return { x: (event.clientX - box.left - box.width / 2) / side, y: (event.clientY - box.top - box.height / 2) / side };
  };
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); const p = at(event); zoom(Math.exp(-event.deltaY * 0.0015), p.x, p.y); }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); down.set(event.pointerId, at(event)); });
  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const p = at(event), dx = p.x - before.x, dy = p.y - before.y;
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    if (other) zoom(Math.hypot(p.x - other.x, p.y - other.y) / Math.max(0.02, Math.hypot(before.x - other.x, before.y - other.y)), (p.x + other.x) / 2, (p.y + other.y) / 2);
    else if (event.buttons & 2 || event.shiftKey) tone(dx * 300, -dy * 200);
    else shift(dx, dy);
    down.set(event.pointerId, p);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => down.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", acts.reset);
  new ResizeObserver(() => draw(view)).observe(stage);
  const image = new Image();
  image.onload = () => {
    const held = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
    const pen = held.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0);
    view.pixels = pen.getImageData(0, 0, held.width, held.height);
    drawAll(true);
    stage.dataset.ready = "yes";
  };
  image.src = stage.dataset.src;
}

for (const button of document.querySelectorAll("[data-mark]")) {
  button.addEventListener("click", () => { sessionStorage.setItem("marked", button.dataset.mark); location.href = "/gallery"; });
}
