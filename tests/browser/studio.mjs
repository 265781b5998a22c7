// The studio in a real browser, as a new user would use it: node studio.mjs ADDRESS FOLDER-OF-SCREENSHOTS NODE_MODULES CHROMIUM
// LOCKED-ADDRESS TOKEN
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [base, shots, modules, executablePath, locked, token] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const outside = [], errors = [];

async function open(more = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, colorScheme: "dark", ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  page.on("request", (one) => { if (![base, locked].some((own) => one.url().startsWith(own)) && !/^(data|blob):/.test(one.url())) outside.push(one.url()); });
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (line) => { if (line.type() === "error") errors.push(line.text()); });
  page.on("dialog", (dialog) => { errors.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  return page;
}

async function check(name, act) {
  await act();
  console.log(`ok ${name}`);
}

const ready = (page) => page.waitForSelector("body[data-ready]");
const shot = (page, name, more = {}) => page.screenshot({ path: `${shots}/studio-${name}.png`, ...more });
const ended = (page, state) => page.waitForSelector(`[data-job][data-state=${state}]`);

async function faultless(page, where) {
  await page.evaluate(() => Promise.all(document.getAnimations().filter((one) => one.effect.getTiming().iterations !== Infinity).map((one) => one.finished)));
  await page.evaluate(axe); // past the page's own policy, which lets no such script in
  const found = await page.evaluate(() => window.axe.run(document, { iframes: false }));
  const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  assert.deepEqual(serious.map((one) => `${one.id}: ${one.nodes.map((node) => node.target + " " + node.failureSummary).join(" | ")}`), [], where);
}

let page = await open();

await check("a sentence is understood as it is typed", async () => {
  await page.goto(`${base}/`);
  await ready(page);
  await page.locator("#prompt").pressSequentially("CXR of a 6 year old girl, viral pneumonia, gargoyle");
  await page.waitForSelector("p.strange");
  await page.waitForSelector(".chip.present");
  assert.equal(await page.inputValue("#image_type"), "chest_xray");
  assert.equal(await page.inputValue("#age_years"), "6");
  assert.equal(await page.inputValue("#sex"), "female");
  assert.equal(await page.getAttribute("[data-finding=viral_pneumonia]", "data-state"), "present");
  assert.match(await page.textContent("#understood"), /Trained on\s+593/);
  assert.match(await page.textContent("#understood"), /Not understood, so not drawn: .*gargoyle/);
});

await check("words that are picked become a sentence", async () => {
  await page.click("[data-finding=pleural_effusion] >> visible=true").catch(async () => { await page.click("summary"); await page.click("[data-finding=pleural_effusion]"); });
  await page.waitForFunction(() => /pleural effusion/.test(document.getElementById("prompt").value));
  await page.click("[data-finding=pleural_effusion]");
  await page.waitForFunction(() => /no pleural effusion/.test(document.getElementById("prompt").value));
  await page.selectOption("#specialty", "dermatology");
  await page.selectOption("#image_type", "dermoscopy");
  await page.waitForFunction(() => /^Dermoscopy/.test(document.getElementById("prompt").value));
});

await check("images come while one waits, and nothing jumps", async () => {
  await page.fill("#prompt", "chest X-ray of a child with viral pneumonia");
  await page.waitForSelector(".chip.present");
  await page.evaluate(() => { window.shift = 0; new PerformanceObserver((list) => { for (const one of list.getEntries()) if (!one.hadRecentInput) window.shift += one.value; }).observe({ type: "layout-shift", buffered: true }); });
  await page.fill("#n", "8");
  await page.fill("#seed", "7");
  await page.click("#go");
  await page.waitForSelector("#made .card img");
  await shot(page, "making");
  await ended(page, "done");
  assert.equal(await page.locator("#made .card img").count(), 8);
  assert.ok(await page.evaluate(() => window.shift) < 0.1, `layout shift ${await page.evaluate(() => window.shift)}`);
  await page.waitForFunction(() => [...document.images].every((one) => one.complete));
  await shot(page, "compose");
  await page.reload();
  await ready(page);
  await page.waitForFunction(() => document.querySelectorAll("#made .card img").length === 8);
});

await check("a job is cancelled", async () => {
  await page.fill("#n", "200");
  await page.fill("#seed", "1000");
  await page.click("#go");
  await page.waitForSelector("#made .card img");
  await page.click("[data-cancel]"); // test_web_api.py holds the time that it takes
  await ended(page, "cancelled");
  assert.match(await page.textContent("[data-job] [data-say]"), /^Cancelled, \d+ of 200 made$/);
});

await check("the gallery is filtered by finding and type", async () => {
  await page.goto(`${base}/gallery`);
  await page.selectOption("select[name=finding]", "viral_pneumonia");
  await page.click("text=Filter >> visible=true");
  await page.waitForURL(/finding=viral_pneumonia/);
  const alts = await page.locator("#shown img").evaluateAll((all) => all.map((one) => one.alt));
  assert.ok(alts.length >= 8 && alts.every((alt) => /viral pneumonia/.test(alt)));
  await page.waitForFunction(() => [...document.images].every((one) => one.complete));
  await shot(page, "gallery");
});

await check("a filtered collection is downloaded", async () => {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#all")]);
  assert.equal(download.suggestedFilename(), "medisyn-collection.zip");
  assert.equal(readFileSync(await download.path()).subarray(0, 2).toString(), "PK");
});

await check("two images are compared", async () => {
  await page.locator(".choose input").nth(0).check();
  await page.locator(".choose input").nth(1).check();
  await page.click("[data-compare]");
  await page.waitForFunction(() => document.querySelectorAll("[data-viewer][data-ready]").length === 2);
  await page.click("[data-do=in]");
  await page.waitForTimeout(100);
  await shot(page, "compare");
  await faultless(page, "compare");
});

const ink = (where) => where.evaluate(() => { const c = document.querySelector("canvas"); return [...c.getContext("2d").getImageData(c.width / 2, c.height / 2, 1, 1).data].join(); });

/** How many pixels of the image the viewer shows otherwise than they are; pixels are not smoothed. */
const altered = (where) => where.evaluate(async () => {
  const stage = document.querySelector("[data-viewer]"), canvas = stage.querySelector("canvas"), image = new Image();
  image.src = stage.dataset.src;
  await image.decode();
  const own = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight }).getContext("2d");
  own.drawImage(image, 0, 0);
  const { width: w, height: h } = own.canvas, { width, height } = canvas, fit = Math.min(width / w, height / h);
  const real = own.getImageData(0, 0, w, h).data, shown = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let n = 0;
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const at = 4 * (Math.floor(height / 2 + (y + 0.5 - h / 2) * fit) * width + Math.floor(width / 2 + (x + 0.5 - w / 2) * fit));
    for (let c = 0; c < 3; c++) if (shown[at + c] !== real[4 * (y * w + x) + c]) { n += 1; break; }
  }
  return n;
});

await check("the viewer zooms, moves, inverts, windows", async () => {
  await page.goto(`${base}/gallery?finding=viral_pneumonia`);
  await page.click(".card a");
  await page.waitForSelector("[data-viewer][data-ready]");
  await shot(page, "viewer");
  await page.keyboard.press("p");
  assert.equal(await altered(page), 0);
  await page.keyboard.press("p");
  const before = await ink(page);
  await page.keyboard.press("i");
  assert.notEqual(await ink(page), before);
  await page.keyboard.press("0");
  assert.equal(await ink(page), before);
  await page.keyboard.press("+");
  assert.equal(await page.textContent("[data-zoom]"), "125 %");
  await page.keyboard.press("Shift+ArrowRight");
  assert.equal(await page.textContent("[data-window]"), "266");
  await page.mouse.move(300, 300);
  await page.mouse.wheel(0, -300);
  assert.notEqual(await page.textContent("[data-zoom]"), "125 %");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("text=PNG >> visible=true")]);
  assert.match(download.suggestedFilename(), /^medisyn-chest_xray-\w+\.png$/);
});

await check("a prompt is recalled from an image", async () => {
  await page.click("text=Use this prompt");
  await ready(page);
  assert.match(await page.inputValue("#prompt"), /viral pneumonia/);
  assert.notEqual(await page.inputValue("#seed"), "");
});

await check("a balanced set says how many and how long, and a table is taken", async () => {
  await page.goto(`${base}/batch`);
  await page.waitForFunction(() => /about/.test(document.querySelector("[data-sum]").textContent));
  await shot(page, "batch");
  await page.setInputFiles("#csv", { name: "prompts.csv", mimeType: "text/csv", buffer: Buffer.from("prompt,n\nbrain MRI with a glioma,2\n") });
  await page.waitForSelector("[data-preview] pre");
  await page.click("text=Make the images");
  await page.waitForURL(/\/jobs\/\w+/);
  await ended(page, "done");
  assert.equal(await page.locator("#made img").count(), 2);
  await shot(page, "job");
});

await check("data and reports are shown in place", async () => {
  await page.goto(`${base}/data`);
  await page.click("main a");
  await page.waitForFunction(() => [...document.images].every((one) => one.complete && one.naturalWidth));
  await shot(page, "data");
  await page.goto(`${base}/reports`);
  await page.click("main a");
  await page.frameLocator("iframe").locator("h1").waitFor();
  await shot(page, "report");
});

await check("everything is reached by the keyboard alone, and the focus is seen", async () => {
  page = await open();
  await page.goto(`${base}/`);
  await ready(page);
  const reach = async (wanted) => {
    for (let i = 0; i < 120; i++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate((css) => document.activeElement.matches(css), wanted)) {
        assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", wanted);
        return;
      }
    }
    assert.fail(`Tab does not reach ${wanted}`);
  };
  await reach(".skip");
  await reach("#prompt");
  await page.keyboard.type("fundus photograph");
  await page.waitForSelector(".chip.image_type");
  await reach("#n");
  await page.keyboard.press("Control+a");
  await page.keyboard.type("2");
  await reach(".finding");
  await page.keyboard.press("Space");
  await page.waitForFunction(() => document.activeElement.dataset.state === "present");
  await page.waitForFunction(() => document.getElementById("prompt").value !== "fundus photograph");
  await page.keyboard.press("Control+Enter");
  await ended(page, "done");
  await reach("#made .card a");
  await page.keyboard.press("Enter");
  await page.waitForSelector("[data-viewer][data-ready]");
  await reach("[data-do=invert]");
  await page.keyboard.press("Enter");
  assert.equal(await page.getAttribute("[data-do=invert]", "aria-pressed"), "true");
});

await check("no page has a serious fault, dark or light", async () => {
  const image = new URL(page.url()).pathname;
  for (const colorScheme of ["dark", "light"]) {
    const mine = await open({ colorScheme });
    for (const path of ["/?prompt=CXR with viral pneumonia and a gargoyle", "/gallery", image, "/batch", "/jobs", "/data", "/reports", "/nowhere"]) {
      await mine.goto(`${base}${path}`);
      if (path.startsWith("/?")) await mine.waitForSelector(".chip.present");
      await faultless(mine, `${path} ${colorScheme}`);
    }
    if (colorScheme === "light") { await mine.goto(`${base}/?prompt=CXR of a 6 year old girl, viral pneumonia, no effusion`); await mine.waitForSelector(".chip.absent"); await shot(mine, "light"); }
    await mine.context().close();
  }
});

await check("a page of many jobs leaves the browser free, and each of them can be cancelled", async () => {
  await page.goto(`${base}/`);
  await ready(page);
  const names = await page.evaluate(async () => {
    const headers = { "content-type": "application/json", "x-csrf-token": document.querySelector("meta[name=csrf]").content };
    const asked = [];
    for (let k = 0; k < 10; k++) asked.push(await (await fetch("/api/v1/jobs", { method: "POST", headers, body: JSON.stringify({ prompts: [{ prompt: "dermoscopy of a melanoma ".repeat(30), n: 500, seed: k }] }) })).json());
    return asked.map((one) => one.id);
  });
  await page.goto(`${base}/jobs`);
  await page.waitForSelector(`[data-job="${names[0]}"][data-state=running]`);
  await page.waitForFunction((id) => /Waiting behind 9/.test(document.querySelector(`[data-job="${id}"]`).textContent), names[9]);
  await page.goto(`${base}/gallery`); // a browser holds six lines to a server: none may be taken by a page that is left
  await page.goto(`${base}/jobs`);
  for (const id of names.toReversed()) await page.click(`[data-job="${id}"] [data-cancel]`);
  for (const id of names) await page.waitForSelector(`[data-job="${id}"][data-state=cancelled]`);
  assert.match(await page.textContent(`[data-job="${names[0]}"] [data-say]`), /^Cancelled, \d+ of 500 made$/);
});

await check("light and dark change places and stay", async () => {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.goto(`${base}/jobs`);
  const dark = await ground();
  await page.click("#theme");
  assert.notEqual(await ground(), dark);
  await page.goto(`${base}/gallery`);
  assert.notEqual(await ground(), dark);
});

await check("390 pixels are wide enough", async () => {
  const small = await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  const image = await page.getAttribute(".card a", "href");
  for (const path of ["/?prompt=CXR with viral pneumonia", "/gallery", image, "/batch", "/jobs", "/data", "/reports"]) {
    await small.goto(`${base}${path}`);
    if (path.startsWith("/?")) await small.waitForSelector(".chip.present");
    assert.ok(await small.evaluate(() => document.documentElement.scrollWidth) <= 390, path);
    const tight = await small.locator("main button:visible, main .button:visible, main select:visible, nav a:visible").evaluateAll((all) =>
      all.filter((one) => !one.matches(".link") && one.getBoundingClientRect().height < 40).map((one) => one.outerHTML.slice(0, 80)));
    assert.deepEqual(tight, [], path);
    if (path.startsWith("/?")) await shot(small, "narrow");
    if (path === image) { await small.waitForSelector("[data-viewer][data-ready]"); await shot(small, "narrow-viewer"); }
  }
});

await check("a token opens a locked studio: typed into the form, or in a link on another site's page", async () => {
  const form = await open();
  await form.goto(`${locked}/jobs`);
  await faultless(form, "login");
  await form.fill("input[name=token]", "a guess");
  await form.keyboard.press("Enter");
  await form.waitForSelector("[role=alert]");
  await form.fill("input[name=token]", token);
  await form.keyboard.press("Enter");
  await form.waitForURL(`${locked}/jobs`);
  assert.equal(await form.textContent("h1"), "Jobs");
  const link = await open();
  await link.route("http://elsewhere.example/", (route) => route.fulfill({ contentType: "text/html", body: `<a href="${locked}/login?${new URLSearchParams({ token, next: "/gallery" })}">in</a>` }));
  await link.goto("http://elsewhere.example/").catch(() => null);
  outside.pop();
  await link.click("a");
  await link.waitForURL(`${locked}/gallery`);
  assert.equal(await link.textContent("h1"), "Gallery");
});

await check("a prompt is text, not markup", async () => {
  await page.goto(`${base}/?${new URLSearchParams({ prompt: "<script>alert(1)</script><img src=x onerror=alert(2)> dermoscopy of a melanoma" })}`);
  await ready(page);
  await page.fill("#n", "2");
  await page.click("#go");
  await ended(page, "done");
  await page.goto(`${base}/gallery`);
  assert.ok((await page.textContent("main")).includes("<script>alert(1)</script>"));
});

assert.deepEqual(outside, [], "something was asked of another machine");
assert.deepEqual(errors.filter((line) => !/404|403|Blocked script execution/.test(line)), []);
console.log("ok nothing was asked of another machine, no script failed");
await browser.close();
