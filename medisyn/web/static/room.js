// A case: keys, answer, confidence, the time in which the page is in front, sending. It is sent once; then the next one comes.
import { ask, say } from "./page.js";
import { key, mark, marking, marks } from "./room-marks.js";
import "./viewer.js";

const form = document.getElementById("asked"), send = document.getElementById("send"), comment = document.getElementById("comment");
const groups = [...form.querySelectorAll("[data-group]")], stages = [...document.querySelectorAll("[data-viewer]")];
const canvas = stages[0].querySelector("canvas"), looks = document.querySelector(".looks");
const picked = (group) => group.querySelector(":checked");
const loaded = () => stages.every((stage) => stage.dataset.ready);
let active = groups[0], sending = false;

// ---- time in front -------------------------------------------------------------------------------------------------
const kept = `visible/${form.dataset.case}`;
let seen = Number(sessionStorage.getItem(kept)) || 0, since = null;
function clock() {
  const now = performance.now();
  if (since !== null) seen += (now - since) / 1000;
  since = document.visibilityState === "visible" ? now : null;
  sessionStorage.setItem(kept, seen);
  return seen;
}
for (const name of ["visibilitychange", "pagehide"]) addEventListener(name, clock, true);
clock();

// ---- answering -----------------------------------------------------------------------------------------------------
function here(group) {
  active = group;
  for (const one of groups) one.toggleAttribute("data-active", one === group);
}

function go(group, more = {}) {
  here(group);
  (picked(group) ?? group.querySelector("input")).focus(more);
}

function missing() {
  if (!loaded()) return "The image is still coming.";
  const open = groups.find((group) => !picked(group));
  return open ? (open.dataset.group === "answer" ? "Choose an answer." : "Say how sure you are.") : "";
}

function told() {
  const lack = missing();
  send.setAttribute("aria-disabled", Boolean(lack) || sending);
  form.querySelector("[data-missing]").textContent = sending ? "Sending." : lack || "An answer cannot be changed once it is sent.";
}

function onward() {
  const next = groups[groups.indexOf(active) + 1];
  if (next && !picked(next)) go(next);
  told();
}

function pick(k) {
  const input = active.querySelectorAll("input")[k];
  if (!input) return;
  input.checked = true;
  input.focus();
  onward();
}

function step(by) {
  const inputs = [...active.querySelectorAll("input")], at = inputs.findIndex((one) => one.checked);
  const input = inputs[at < 0 ? (by > 0 ? 0 : inputs.length - 1) : Math.min(inputs.length - 1, Math.max(0, at + by))];
  input.checked = true;
  input.focus();
  told();
}

async function give() {
  const lack = missing();
  if (lack) { say(lack); const open = groups.find((group) => !picked(group)); return open && go(open); }
  if (sending) return;
  sending = true;
  told();
  const sure = form.querySelector("[name=confidence]:checked");
  const json = { case: form.dataset.case, choice: Number(picked(groups[0]).value), confidence: sure ? Number(sure.value) : null, marks,
    comment: comment.value.trim(), visible: Number(clock().toFixed(3)) };
  try { await ask("/answer", { method: "POST", json }); }
  catch (error) {
    if (error.status !== 409) {
      sending = false;
      told();
      const again = error.status === 401 ? "Open your link again; you come back to this case." : "Your answer is not sent yet; send it again.";
      return say(`${error.message} ${again}`, true);
    }
  }
  sessionStorage.removeItem(kept);
  location.replace("/");
}

form.addEventListener("submit", (event) => { event.preventDefault(); give(); });
form.addEventListener("change", (event) => {
  const group = event.target.closest("[data-group]");
  if (group) { here(group); onward(); }
});
form.addEventListener("focusin", (event) => { const group = event.target.closest("[data-group]"); if (group) here(group); });

// ---- keys ----------------------------------------------------------------------------------------------------------
const VIEWER = ["+", "=", "-", "i", "p", "0"];
const letters = { c: () => comment.focus(), m: () => mark(), v: () => canvas.focus() };
const moves = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => go(groups[0]), ArrowDown: () => go(groups.at(-1)) };

/** What a key means; null where it is the browser's or the viewer's. */
function meaning(event) {
  const { target, key: name, shiftKey } = event, low = name.toLowerCase();
  if (target.matches("textarea, input:not([type=radio])")) return name === "Escape" ? () => go(active) : null;
  if (marking() && !(name === "Enter" && target.matches("button")) && key(event)) return () => marking() || go(active);
  if (/^[1-9]$/.test(name)) return () => pick(Number(name) - 1);
  if (name === "Escape") return () => go(active);
  if (letters[low]) return letters[low];
  if (name === "Enter") return target.matches("button, summary, a") ? null : give;
  const viewers = VIEWER.includes(low) || (shiftKey && moves[name]);
  if (viewers) return target === canvas || !event.isTrusted ? null : () => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: name, shiftKey, bubbles: true }));
  return target.matches("canvas") ? null : moves[name];
}

addEventListener("keydown", (event) => {
  if (event.altKey) return;
  const sends = (event.ctrlKey || event.metaKey) && event.key === "Enter";
  if ((event.ctrlKey || event.metaKey) && !sends) return;
  const act = sends ? give : meaning(event);
  if (!act) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  act();
}, true);

// ---- beginning -----------------------------------------------------------------------------------------------------
if (matchMedia("(max-width: 60rem)").matches) looks.open = false;
new MutationObserver(told).observe(document.querySelector(".stages"), { subtree: true, attributeFilter: ["data-ready"] });
setTimeout(() => loaded() || say("The image does not come. Reload the page; nothing is lost.", true), 10_000);
go(groups[0], { preventScroll: true }); // the image is seen first
told();
document.body.dataset.ready = "yes";
