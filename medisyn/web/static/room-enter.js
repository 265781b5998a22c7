// Coming in: the token stands behind the # of the link, goes to the server once, and leaves the address; then Begin.
import { ask } from "./page.js";

const form = document.getElementById("enter"), begin = document.getElementById("begin");

async function enter(link) {
  const token = link.trim().split("#").pop();
  try { location.replace((await ask("/login", { method: "POST", json: { token } })).next); }
  catch (error) { form.querySelector("[data-wrong]").textContent = error.message; form.elements.link.focus(); }
}

if (form) {
  form.addEventListener("submit", (event) => { event.preventDefault(); enter(form.elements.link.value); });
  const come = () => {
    const told = location.hash.slice(1);
    if (!told) return;
    history.replaceState(null, "", "/login");
    enter(told);
  };
  addEventListener("hashchange", come);
  come();
}

if (begin) {
  let asked = false;
  const start = async () => {
    if (asked) return;
    asked = true;
    try { location.replace((await ask("/begin", { method: "POST", json: {} })).next); }
    catch (error) { asked = false; (await import("./page.js")).say(error.message, true); }
  };
  begin.addEventListener("click", start);
  addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.target.matches("button, a")) start(); });
}
document.body.dataset.ready = "yes";
