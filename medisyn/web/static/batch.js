// Many images: how many a set comes to and how long it takes, a look at a table before it is sent.
import { ask, duration, number, say } from "./page.js";

const $ = (id) => document.getElementById(id);
const most = Number($("batch").dataset.most);
const given = (id) => ($(id).value === "" ? null : Number($(id).value));
let pace = null;

function chosen() {
  const group = document.querySelector(`[data-kind="${$("kind").value}"]`);
  return [...group.querySelectorAll("input:checked")].map((box) => box.value);
}

function update() {
  for (const group of document.querySelectorAll("[data-kind]")) group.hidden = group.disabled = group.dataset.kind !== $("kind").value;
  const names = chosen(), total = names.length * Number($("each").value);
  const line = document.querySelector("[data-sum]");
  line.textContent = !names.length ? "Choose a finding." : total > most
    ? `${number(total)} images are more than one job may hold (${number(most)}).`
    : `${number(total)} images of ${names.length} ${names.length === 1 ? "finding" : "findings"}${pace ? `, about ${duration(total * pace)}` : ""}`;
  line.classList.toggle("warn", total > most || !names.length);
}

async function send(form, path, more) {
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try { const job = await ask(path, { method: "POST", ...more }); location.href = `/jobs/${job.id}`; }
  catch (error) { say(error.message, true); button.disabled = false; }
}

$("balanced").addEventListener("input", update);
$("balanced").addEventListener("submit", (event) => {
  event.preventDefault();
  send(event.target, "/api/v1/sets", { json: { image_type: $("kind").value, each: Number($("each").value), findings: chosen(),
    seed: Number($("set-seed").value), steps: given("set-steps"), guidance: given("set-guidance") } });
});

$("csv").addEventListener("change", async () => {
  const file = $("csv").files[0], box = document.querySelector("[data-preview]");
  if (!file) return;
  const lines = (await file.slice(0, 4000).text()).split("\n").slice(0, 8);
  const pre = document.createElement("pre");
  pre.textContent = lines.join("\n");
  box.replaceChildren(pre);
});

$("table").addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = new URLSearchParams({ n: $("csv-n").value, seed: $("csv-seed").value });
  for (const name of ["steps", "guidance"]) if (given(`csv-${name}`) !== null) query.set(name, given(`csv-${name}`));
  send(event.target, `/api/v1/tables?${query}`, { body: await $("csv").files[0].arrayBuffer(), type: "text/csv" });
});

update();
const [model] = await ask("/api/v1/models");
pace = model.seconds_an_image;
update();
