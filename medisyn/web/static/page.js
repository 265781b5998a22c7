// What every page does: ask the server with the page's word, say things, change between light and dark.

const csrf = document.querySelector("meta[name=csrf]").content;

/** JSON of an answer; an Error whose message is the server's own sentence. */
export async function ask(path, { method = "GET", json, body, type, signal } = {}) {
  const headers = { accept: "application/json" };
  if (method !== "GET") headers["x-csrf-token"] = csrf;
  if (json !== undefined) { headers["content-type"] = "application/json"; body = JSON.stringify(json); }
  else if (type) headers["content-type"] = type;
  let answer;
  try { answer = await fetch(path, { method, headers, body, signal }); }
  catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(told.detail || `The server answered ${answer.status}.`), { status: answer.status });
  return told;
}

/** A line that is read aloud and goes away by itself. */
export function say(text, bad = false) {
  const line = document.getElementById("say");
  line.textContent = text;
  line.classList.toggle("bad", bad);
  line.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => line.classList.remove("shown"), bad ? 9000 : 4000);
}

/** An element with attributes and children; text stays text. */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The figure of an image, as the server's own template draws it. */
export function card(id, prompt) {
  return make("figure", { class: "card", "data-image": id },
    make("a", { href: `/images/${id}` }, make("img", { src: `/images/${id}.png`, alt: prompt, width: 160, height: 160 })),
    make("figcaption", { title: prompt }, prompt));
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const number = (n) => n.toLocaleString("en");

const toggle = document.getElementById("theme");
toggle.addEventListener("click", () => {
  const root = document.documentElement;
  const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});
