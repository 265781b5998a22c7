// Composing: a sentence and the words of the vocabulary, each following the other; then a job and its images.
import { ask, make, number, say } from "./page.js";
import { watch } from "./progress.js";

const $ = (id) => document.getElementById(id);
const form = $("compose"), prompt = $("prompt"), understood = $("understood"), findings = $("findings");
const PLACES = ["anatomy", "view", "technique", "laterality"];
const NEXT = { unknown: "present", present: "absent", absent: "unknown" };
const PAUSE = 160; // milliseconds without a key before a sentence is read
let tree = [], asked = null, timer = 0, stop = () => {};

const kinds = () => tree.flatMap((one) => one.image_types.map((kind) => ({ ...kind, specialty: one.name })));

function options(select, words, none) {
  select.replaceChildren(make("option", { value: "" }, none), ...words.map((word) =>
    make("option", { value: word.name }, word.support === 0 ? `${word.label} (never trained)` : word.label)));
  select.disabled = words.length === 0;
}

function fillTypes() {
  const chosen = $("image_type").value, specialty = $("specialty").value;
  options($("image_type"), kinds().filter((kind) => !specialty || kind.specialty === specialty), "choose");
  $("image_type").value = [...$("image_type").options].some((one) => one.value === chosen) ? chosen : "";
}

/** Show the words that fit an image type; keep what still fits. */
function fillWords(name) {
  const kind = kinds().find((one) => one.name === name);
  if (findings.dataset.kind === (name || "")) return;
  findings.dataset.kind = name || "";
  for (const slot of PLACES) options($(slot), kind ? kind[slot] : [], "any");
  if (!kind) return findings.replaceChildren(make("p", { class: "soft" }, "Choose an image type to see its findings."));
  const known = kind.findings.filter((one) => one.support), strange = kind.findings.filter((one) => !one.support);
  findings.replaceChildren(...known.map(toggle));
  if (strange.length) {
    findings.append(make("details", {}, make("summary", {}, `${strange.length} more that the model was never trained on`),
      make("div", { class: "findings" }, ...strange.map(toggle))));
  }
}

function toggle(finding) {
  const button = make("button", { type: "button", class: "finding", "data-finding": finding.name },
    make("span", { class: "name" }, finding.label), make("span", { class: "n" }, finding.support ? number(finding.support) : ""),
    make("span", { class: "unseen" }));
  state(button, "unknown");
  button.addEventListener("click", () => { state(button, NEXT[button.dataset.state]); compose(); });
  return button;
}

function state(button, value) {
  button.dataset.state = value;
  button.querySelector(".unseen").textContent = value === "unknown" ? ", not stated" : `, ${value}`;
}

/** The controls follow what a sentence was understood to say. */
function follow(told) {
  const kind = kinds().find((one) => one.name === told.image_type);
  if (kind && $("specialty").value && $("specialty").value !== kind.specialty) $("specialty").value = kind.specialty;
  if (kind && !$("specialty").value) $("specialty").value = kind.specialty;
  fillTypes();
  $("image_type").value = told.image_type || "";
  fillWords(told.image_type);
  for (const slot of PLACES) $(slot).value = told[slot] === kind?.default_anatomy && slot === "anatomy" ? "" : told[slot] || "";
  $("age_years").value = told.age_years ?? "";
  $("sex").value = told.sex || "";
  for (const button of findings.querySelectorAll(".finding")) {
    const value = told.findings[button.dataset.finding];
    state(button, value === undefined ? "unknown" : value ? "present" : "absent");
  }
}

/** Say what was understood, what was not, and how many training images support it. */
function show(told) {
  const chips = told.facts.filter((fact) => fact.said).map((fact) => make("li",
    { class: `chip ${fact.kind}${fact.present === null ? "" : fact.present ? " present" : " absent"}` },
    fact.present === false ? `no ${fact.label}` : fact.label));
  const parts = chips.length ? [make("ul", { class: "chips", "aria-label": "Understood" }, ...chips)] : [];
  if (told.support) parts.push(make("p", {}, "Trained on ", make("strong", {}, number(told.support)),
    told.support === 1 ? " image that shows all of this" : " images that show all of this",
    told.sex || told.age_years !== null ? ", age and sex not counted." : "."));
  if (told.warning) parts.push(make("p", { class: "warn" }, told.warning));
  if (told.age_left_open.length) parts.push(make("p", { class: "soft" }, make("q", {}, told.age_left_open[0]), " leaves the age open; to fix it, say it in years."));
  if (told.not_understood.length) {
    const strange = told.not_understood.flatMap((words, k) => {
      const near = told.nearest[words] || [];
      return [k ? ", " : "", make("q", {}, words), ...(near.length ? [" (did you mean ", ...near.slice(0, 3).flatMap((word, i) =>
        [i ? ", " : "", swap(words, word)]), "?)"] : [])];
    });
    parts.push(make("p", { class: "strange" }, "Not understood, so not drawn: ", ...strange));
  }
  understood.replaceChildren(...parts);
}

function swap(words, word) {
  const button = make("button", { type: "button", class: "link" }, word);
  button.addEventListener("click", () => { prompt.value = prompt.value.replace(words, word); read(); prompt.focus(); });
  return button;
}

async function look(path, then) {
  asked?.abort();
  const mine = asked = new AbortController();
  try { const told = await ask(path, { signal: mine.signal }); if (asked === mine) then(told); }
  catch (error) { if (error.name !== "AbortError") understood.replaceChildren(make("p", { class: "warn" }, error.message)); }
}

/** The sentence was written: understand it. */
function read() {
  clearTimeout(timer);
  const text = prompt.value.trim();
  if (!text) { asked?.abort(); return understood.replaceChildren(make("p", { class: "soft" }, "Write a sentence, or pick the words below. What is understood appears here.")); }
  look(`/api/v1/understand?${new URLSearchParams({ prompt: text })}`, (told) => { show(told); follow(told); });
}

/** Words were picked: put them into a sentence. */
function compose() {
  const kind = $("image_type").value;
  if (!kind) return;
  const query = new URLSearchParams({ image_type: kind });
  for (const slot of [...PLACES, "age_years", "sex"]) if ($(slot).value) query.set(slot, $(slot).value);
  for (const button of findings.querySelectorAll(".finding")) if (button.dataset.state !== "unknown") query.append(button.dataset.state, button.dataset.finding);
  look(`/api/v1/sentence?${query}`, (told) => { prompt.value = told.prompt; show(told); });
}

function newSeed() { $("seed").value = Math.floor(Math.random() * 1e6); }

const given = (id) => ($(id).value === "" ? null : Number($(id).value));

async function submit(event) {
  event?.preventDefault();
  if (!form.reportValidity()) return;
  $("go").disabled = true;
  try {
    if ($("seed").value === "") newSeed();
    const job = await ask("/api/v1/jobs", { method: "POST", json: {
      prompts: [{ prompt: prompt.value.trim(), n: Number($("n").value), seed: Number($("seed").value) }],
      steps: given("steps"), guidance: given("guidance") } });
    history.replaceState(null, "", `/?${new URLSearchParams({ prompt: prompt.value.trim(), seed: $("seed").value, job: job.id })}`);
    begin(job);
  } catch (error) { say(error.message, true); }
  finally { $("go").disabled = false; }
}

function begin(job) {
  const box = document.querySelector("[data-job]");
  box.dataset.job = job.id;
  box.dataset.total = job.total;
  $("recent").hidden = true;
  stop();
  stop = watch(box, $("made"));
}

form.addEventListener("submit", submit);
form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event); });
prompt.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(read, PAUSE); });
$("dice").addEventListener("click", newSeed);
$("specialty").addEventListener("change", () => {
  fillTypes();
  if ($("image_type").options.length === 2) $("image_type").selectedIndex = 1;
  fillWords($("image_type").value);
  compose();
});
$("image_type").addEventListener("change", () => { fillWords($("image_type").value); compose(); });
for (const id of [...PLACES, "sex"]) $(id).addEventListener("change", compose);
$("age_years").addEventListener("change", compose);
for (const one of document.querySelectorAll("[data-try]")) one.addEventListener("click", () => { prompt.value = one.textContent; read(); prompt.focus(); });

tree = await ask("/api/v1/vocabulary");
options($("specialty"), tree.map((one) => ({ ...one, support: one.image_types.some((kind) => kind.support) ? 1 : 0 })), "any");
fillTypes();
if ($("seed").value === "") newSeed();
if (prompt.value.trim()) read();
const running = document.querySelector("[data-job]");
if (running.dataset.job) begin({ id: running.dataset.job, total: Number(running.dataset.total) });
document.body.dataset.ready = "yes";
