// Marks: what is wrong, and where. A kind is chosen, then places are pointed at, or reached with the arrows.
import { say, make } from "./page.js";

const stages = [...document.querySelectorAll("[data-viewer]")], boxes = new Map();
const button = document.getElementById("mark"), kinds = document.getElementById("kinds"), list = document.getElementById("marks");
const clamp = (value) => Math.min(1, Math.max(0, value));
const STEP = 0.02; // of the image's side
const cross = { image: 0, x: 0.5, y: 0.5 };
export const marks = []; // { x, y: in parts of the image, kind, image }
let on = false;

export const marking = () => on;
const kind = () => kinds.querySelector(":checked");
const words = (name) => kinds.querySelector(`[value="${name}"]`).closest("label").querySelector("span").textContent;

/** Where the image stands in its stage, in CSS pixels, as the viewer drew it. */
function put(node, stage, mark) {
  const box = boxes.get(stage);
  if (!box) return;
  const x = box.x + mark.x * box.w, y = box.y + mark.y * box.h;
  node.style.left = `${x}px`;
  node.style.top = `${y}px`;
  node.hidden = x < 0 || y < 0 || x > stage.clientWidth || y > stage.clientHeight;
}

function draw() {
  stages.forEach((stage, image) => {
    const pins = stage.querySelector(".pins"), aim = stage.querySelector(".cross");
    pins.replaceChildren(...marks.flatMap((mark, k) => mark.image === image ? [Object.assign(make("span", { class: "pin" }, `${k + 1}`), { mark })] : []));
    for (const pin of pins.children) put(pin, stage, pin.mark);
    stage.querySelector(".cover").hidden = !on;
    if (on && kind() && cross.image === image) put(aim, stage, cross); else aim.hidden = true;
  });
}

function listed() {
  list.hidden = !marks.length;
  list.replaceChildren(...marks.map((mark, k) => {
    const side = stages.length > 1 ? `${["left", "right"][mark.image]}: ` : "";
    const remove = make("button", { type: "button", class: "quiet", "aria-label": `Remove mark ${k + 1}` }, "×");
    remove.addEventListener("click", () => { marks.splice(k, 1); listed(); draw(); (list.querySelectorAll("button")[Math.min(k, marks.length - 1)] ?? button).focus(); });
    return make("li", {}, make("span", { class: "pin", "aria-hidden": "true" }, `${k + 1}`), make("span", {}, side + words(mark.kind)), remove);
  }));
}

export function mark(turn = !on) {
  on = turn;
  kinds.hidden = !on;
  button.setAttribute("aria-expanded", on);
  if (on) (kind() ?? kinds.querySelector("input")).focus();
  told();
}

function told() {
  kinds.querySelector("[data-how]").textContent = kind() ? "Point at the place, or move the cross with the arrows and press Enter. Esc ends." : "Choose what is wrong.";
  draw();
}

function add(image, x, y) {
  if (!kind()) return say("Choose first what is wrong.");
  if (marks.length >= 100) return say("There are a hundred marks already.");
  marks.push({ x: Number(clamp(x).toFixed(4)), y: Number(clamp(y).toFixed(4)), kind: kind().value, image });
  Object.assign(cross, { image, x: clamp(x), y: clamp(y) });
  listed();
  draw();
  say(`Mark ${marks.length}: ${words(kind().value)}`);
}

/** A key while marks are set; true where it meant something here. */
export function key(event) {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const chosen = /^[1-9]$/.test(event.key) && kinds.querySelectorAll("input")[Number(event.key) - 1];
  if (event.key === "Escape" || event.key.toLowerCase() === "m") return mark(false), true;
  if (chosen) { chosen.checked = true; chosen.focus(); told(); return true; }
  if (event.target.closest(".marks, #send")) return false;
  if (move && !event.shiftKey) {
    const x = cross.x + move[0] * STEP;
    if ((x < 0 && cross.image > 0) || (x > 1 && cross.image + 1 < stages.length)) Object.assign(cross, { image: cross.image + move[0], x: x < 0 ? 1 : 0 });
    else Object.assign(cross, { x: clamp(x), y: clamp(cross.y + move[1] * STEP) });
    return draw(), true;
  }
  if (event.key === "Enter") return add(cross.image, cross.x, cross.y), true;
  return false;
}

button.addEventListener("click", () => mark());
kinds.addEventListener("change", () => { told(); stages[cross.image].scrollIntoView({ block: "nearest" }); }); // on a small screen it is far up
stages.forEach((stage, image) => {
  const ratio = () => devicePixelRatio || 1, cover = stage.querySelector(".cover"), canvas = stage.querySelector("canvas");
  stage.addEventListener("drawn", ({ detail }) => {
    boxes.set(stage, { x: detail.x / ratio(), y: detail.y / ratio(), w: detail.w / ratio(), h: detail.h / ratio() });
    draw();
  });
  cover.addEventListener("click", (event) => {
    const at = stage.getBoundingClientRect(), box = boxes.get(stage);
    if (!box) return;
    const x = (event.clientX - at.left - box.x) / box.w, y = (event.clientY - at.top - box.y) / box.h;
    if (x === clamp(x) && y === clamp(y)) add(image, x, y);
  });
  cover.addEventListener("wheel", (event) => { event.preventDefault(); canvas.dispatchEvent(new WheelEvent("wheel", event)); }, { passive: false });
});
