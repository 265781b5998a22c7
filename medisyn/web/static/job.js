// Pages with jobs: each open one is followed.
import { watch } from "./progress.js";

const grid = document.getElementById("made");
for (const box of document.querySelectorAll("[data-job]")) {
  watch(box, grid, { refused: document.getElementById("refused") });
}
