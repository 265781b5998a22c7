// A job as it goes: its bar, the time left, its images as they come, and how to end it.
import { ask, card, duration, make, number, say } from "./page.js";

const SHOWN = 48; // images of one job on the page at most; all of them lie in the gallery

/** Follow a job in its box until it ends; `grid` receives the images, `ended` the last word. */
export function watch(box, grid, { refused = null, ended = () => {} } = {}) {
  const id = box.dataset.job;
  const total = Number(box.dataset.total);
  const bar = box.querySelector("progress"), line = box.querySelector("[data-say]"), left = box.querySelector("[data-left]");
  const cancel = box.querySelector("[data-cancel]"), trouble = box.querySelector("[data-trouble]");
  const places = [];
  box.hidden = false;
  trouble.hidden = true;
  if (grid) {
    const few = Math.min(total, SHOWN);
    grid.replaceChildren(...Array.from({ length: few }, () => make("div", { class: "card waiting" }, make("div", { class: "blank" }), make("div", { class: "foot" }))));
    places.push(...grid.children);
  }
  let next = 0;
  const events = new EventSource(`/api/v1/jobs/${id}/events`);

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

  function tell(job) {
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
    if (!["queued", "running", "cancelling"].includes(job.state)) { cancel.hidden = true; left.textContent = ""; }
  }

  events.addEventListener("progress", (event) => {
    const job = JSON.parse(event.data);
    job.images.forEach(place);
    tell(job);
  });
  events.addEventListener("end", (event) => {
    events.close();
    for (const waiting of grid ? grid.querySelectorAll(".waiting") : []) waiting.remove();
    ended(JSON.parse(event.data).state);
  });
  cancel.hidden = false;
  cancel.onclick = async () => {
    cancel.disabled = true;
    line.textContent = "Stopping"; // the events say the rest: the answer may come after the last of them
    try { await ask(`/api/v1/jobs/${id}`, { method: "DELETE" }); }
    catch (error) { cancel.disabled = false; say(error.message, true); }
  };
  addEventListener("pagehide", () => events.close(), { once: true });
  return () => events.close();
}
