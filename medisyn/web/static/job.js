// A page with one job follows it and its images; a page with many follows their bars.
import { watch, watchAll } from "./progress.js";

const boxes = document.querySelectorAll("[data-job]"), grid = document.getElementById("made");
if (grid) watch(boxes[0], grid, { refused: document.getElementById("refused") });
else watchAll(boxes);
