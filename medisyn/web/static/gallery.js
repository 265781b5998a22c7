// Choosing images: two to compare, any number to take away.

const tray = document.getElementById("tray");
const boxes = [...document.querySelectorAll("input[name=chosen]")];
const count = tray?.querySelector("[data-count]"), compare = tray?.querySelector("[data-compare]"), zip = tray?.querySelector("[data-zip]");

// An image marked in the viewer is already the first of two.
const marked = sessionStorage.getItem("marked");
if (marked && tray) {
  sessionStorage.removeItem("marked");
  const box = boxes.find((one) => one.value === marked);
  if (box) box.checked = true;
}

function update() {
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  tray.hidden = chosen.length === 0;
  count.textContent = chosen.length;
  if (chosen.length === 2) { compare.href = `/compare?a=${chosen[0]}&b=${chosen[1]}`; compare.removeAttribute("aria-disabled"); compare.textContent = "Compare"; }
  else { compare.removeAttribute("href"); compare.setAttribute("aria-disabled", "true"); compare.textContent = chosen.length < 2 ? "Choose one more to compare" : "Compare two"; }
  zip.href = `/api/v1/collection.zip?${chosen.map((id) => `ids=${id}`).join("&")}`;
}

if (tray) {
  for (const box of boxes) box.addEventListener("change", update);
  tray.querySelector("[data-clear]").addEventListener("click", () => { for (const box of boxes) box.checked = false; update(); boxes[0]?.focus(); });
  update();
}
