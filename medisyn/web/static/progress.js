// A job as it goes: its bar, the time left, its images as they come, and how to end it.
import { ask, card, duration, make, number, say } from "./page.js";

const OPEN = ["queued", "running", "cancelling"];
const SHOWN = 48; // images of one job on the page at most; all of them lie in the gallery

/** Show a job in its box, and let it be cancelled there: a function that is told the job. */
function showing(box) {
  const bar = box.querySelector("progress"), line = box.querySelector("[data-say]"), left = box.querySelector("[data-left]");
  const cancel = box.querySelector("[data-cancel]"), trouble = box.querySelector("[data-trouble]");
  box.hidden = false;
  trouble.hidden = true;
  cancel.hidden = false;
  cancel.onclick = async () => {
    cancel.disabled = true;
    line.textContent = "Stopping"; // the events say the rest: the answer may come after the last of them
    try { await ask(`/api/v1/jobs/${box.dataset.job}`, { method: "DELETE" }); }
    catch (error) { cancel.disabled = false; say(error.message, true); }
  };
  return (job) => {
    box.dataset.state = job.state;
    bar.max = job.total;
    bar.value = job.done;
    const count = `${number(job.done)} of ${number(job.total)}`;
    line.textContent = {
      queued: job.jobs_ahead ? `Waiting behind ${job.jobs_ahead} ${job.jobs_ahead === 1 ? "job" : "jobs"}` : "Beginning",
      running: `Making ${count}`, cancelling: `Stopping, ${count} made`, cancelled: `Cancelled, ${count} made`,
      done: job.refused ? `Done, ${number(job.done - job.refused)} made, ${number(job.refused)} refused by the guard` : `Done, ${number(job.done)} made`,
      failed: "Failed" }[job.state];
    left.textContent = job.state === "running" && job.done ? `about ${duration(job.seconds_left)} left` : "";
    if (job.error) { trouble.textContent = job.error; trouble.hidden = false; }
    cancel.disabled = job.state === "cancelling";
    if (!OPEN.includes(job.state)) { cancel.hidden = true; left.textContent = ""; }
  };
}

/** Follow many jobs by one question a second: a browser keeps six lines to a server, and each stream of events would hold one. */
export function watchAll(boxes) {
  const open = new Map([...boxes].map((box) => [box.dataset.job, showing(box)]));
  async function look() {
    try {
      if (!document.hidden) {
        const found = new Map((await ask("/api/v1/jobs?open_only=true&limit=200")).map((job) => [job.id, job]));
        for (const [id, tell] of open) {
          tell(found.get(id) ?? await ask(`/api/v1/jobs/${id}`));
          if (!found.has(id)) open.delete(id);
        }
      }
    } catch { /* the server is away: ask again */ }
    if (open.size) setTimeout(look, 1000);
  }
  look();
}

/** Follow a job in its box until it ends; `grid` receives the images, `refused` the reasons of those that there are not. */
export function watch(box, grid, { refused = null } = {}) {
  const id = box.dataset.job, total = Number(box.dataset.total);
  const tell = showing(box), places = [];
  if (grid) {
    const few = Math.min(total, SHOWN);
    grid.replaceChildren(...Array.from({ length: few }, () => make("div", { class: "card waiting" }, make("div", { class: "blank" }), make("div", { class: "foot" }))));
    places.push(...grid.children);
  }
  let next = 0, after = 0, events = null, over = false;

  function place(one) {
    if (!grid) return;
    if (one.id === null) {
      if (refused) refused.append(make("li", {}, one.reason));
      const gap = total <= SHOWN && places[one.position];
      if (gap) gap.replaceWith(Object.assign(make("div", { class: "card refused", title: one.reason }), { textContent: "refused by the guard" }));
      return;
    }
    const figure = card(one.id, one.prompt);
    if (total <= SHOWN) { places[one.position]?.replaceWith(figure); places[one.position] = figure; }
    else if (next < SHOWN) { places[next].replaceWith(figure); places[next++] = figure; }
    else { grid.prepend(figure); grid.lastElementChild.remove(); }
  }

  function listen() { // not while nobody looks: a few pages left open would take all lines to the server
    if (over || document.hidden) { events?.close(); events = null; return; }
    if (events) return;
    events = new EventSource(`/api/v1/jobs/${id}/events?after=${after}`);
    events.addEventListener("progress", (event) => {
      after = Number(event.lastEventId);
      const job = JSON.parse(event.data);
      job.images.forEach(place);
      tell(job);
    });
    events.addEventListener("end", () => {
      stop();
      for (const waiting of grid ? grid.querySelectorAll(".waiting") : []) waiting.remove();
    });
  }

  function stop() {
    over = true;
    listen();
    document.removeEventListener("visibilitychange", listen);
  }

  document.addEventListener("visibilitychange", listen);
  addEventListener("pagehide", () => events?.close(), { once: true });
  listen();
  return stop;
}
