// Two readers in a real browser, at once and by the keyboard alone:
// node room.mjs LINKS FOLDER-OF-SCREENSHOTS NODE_MODULES CHROMIUM ANSWERS; LINKS holds the tokens and the address of a study of
// each design, ANSWERS is written: what was pressed.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const [given, shots, modules, executablePath, answersTo] = process.argv.slice(2);
const { links, addresses } = JSON.parse(readFileSync(given, "utf8"));
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const outside = [], errors = [];
const bases = Object.values(addresses);

async function open(more = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, colorScheme: "dark", ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(120000);
  page.on("request", (one) => { if (!bases.some((base) => one.url().startsWith(base)) && !/^(data|blob):/.test(one.url())) outside.push(one.url()); });
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (line) => { if (line.type() === "error") errors.push(line.text()); });
  return page;
}

async function check(name, act) {
  await act();
  console.log(`ok ${name}`);
}

const shot = (page, name) => page.screenshot({ path: `${shots}/room-${name}.png` });
const ready = (page) => page.waitForFunction(() => document.body.dataset.ready && [...document.querySelectorAll("[data-viewer]")].every((one) => one.dataset.ready));
const at = async (page) => Number(await page.textContent(".far strong"));
const come = (page, n) => page.waitForFunction((n) => document.querySelector(".far strong")?.textContent === `${n}` && document.body.dataset.ready && document.querySelector("[data-viewer]").dataset.ready, n);
const enter = async (page, design, k = 0) => { await page.goto(`${addresses[design]}/login#${links[design][k]}`); await page.waitForSelector("#begin"); await ready(page); };

async function faultless(page, where) {
  await page.evaluate(axe).catch(() => page.addScriptTag({ content: axe }));
  const found = await page.evaluate(() => window.axe.run(document));
  const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
  assert.deepEqual(serious.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join(" | ")}`), [], where);
}

const one = await open(), two = await open({ colorScheme: "light" });

await check("a link leads to a welcome, and the token leaves the address", async () => {
  await enter(one, "real-or-synthetic", 0);
  await enter(two, "real-or-synthetic", 1);
  for (const page of [one, two]) assert.ok(!page.url().includes(links["real-or-synthetic"][0]) && !page.url().includes("#"));
  await faultless(one, "welcome, dark");
  await faultless(two, "welcome, light");
  await shot(one, "welcome");
  for (const page of [one, two]) { await page.keyboard.press("Enter"); await come(page, 1); }
});

await check("what is focused is seen, and Tab reaches everything", async () => {
  const met = new Set();
  for (let i = 0; i < 40; i++) {
    await one.keyboard.press("Tab");
    const [name, seen] = await one.evaluate(() => {
      const node = document.activeElement, box = node.closest(".choice") ?? node;
      return [node.name || node.id || node.dataset.do || node.dataset.set || node.tagName, node === document.body || getComputedStyle(box).outlineStyle !== "none"];
    });
    assert.ok(seen, `${name} has no outline`);
    met.add(name);
  }
  for (const name of ["answer", "confidence", "mark", "comment", "send", "CANVAS", "invert", "window", "theme"]) assert.ok(met.has(name), `Tab does not reach ${name}`);
  await one.keyboard.press("Escape");
});

const ink = (page) => page.evaluate(() => { const c = document.querySelector("canvas"); return [...c.getContext("2d").getImageData(c.width / 2, c.height / 2, 1, 1).data].join(); });

await check("the image is enlarged, moved, windowed, inverted by keys while the answer has the focus", async () => {
  const before = await ink(one);
  await one.keyboard.press("i");
  assert.notEqual(await ink(one), before);
  await one.keyboard.press("+");
  assert.equal(await one.textContent("[data-zoom]"), "125 %");
  await one.keyboard.press("Shift+ArrowRight");
  assert.equal(await one.textContent("[data-window]"), "266");
  await one.keyboard.press("v");
  await one.keyboard.press("ArrowRight");
  await one.keyboard.press("0");
  assert.equal(await ink(one), before);
  await one.keyboard.press("Escape");
  assert.match(await one.evaluate(() => document.activeElement.name), /answer|confidence/);
});

await check("an answer is not sent before it is whole", async () => {
  await one.keyboard.press("Enter");
  assert.match(await one.textContent("#say"), /Choose an answer/);
  await one.keyboard.press("1");
  assert.equal(await one.evaluate(() => document.activeElement.name), "confidence");
  await one.keyboard.press("Enter");
  assert.match(await one.textContent("#say"), /how sure/);
  assert.equal(await at(one), 1);
});

await check("what is wrong is marked by the keyboard, and a comment written", async () => {
  await one.keyboard.press("m");
  await one.keyboard.press("2");
  await one.keyboard.press("ArrowRight");
  await one.keyboard.press("ArrowUp");
  await one.keyboard.press("Enter");
  await one.keyboard.press("4");
  for (let i = 0; i < 9; i++) await one.keyboard.press("ArrowLeft");
  await one.keyboard.press("Enter");
  assert.equal(await one.locator(".pins .pin").count(), 2);
  await one.waitForTimeout(200);
  await faultless(one, "marking, dark");
  await shot(one, "marks");
  await one.keyboard.press("Escape");
  await one.keyboard.press("c");
  await one.keyboard.type("<b>grainy</b>, 100 % sure");
  await one.keyboard.press("Escape");
  await one.keyboard.press("ArrowDown");
  await one.keyboard.press("5");
  await one.waitForTimeout(4500); // until what was said is gone
  await faultless(one, "case, dark");
  await faultless(two, "case, light");
  await shot(one, "case");
  await two.keyboard.press("2");
  await shot(two, "light");
  await one.keyboard.press("Enter");
  await come(one, 2);
});

await check("there is no way back, and a reload stays where it is", async () => {
  await one.goBack().catch(() => null);
  if (!one.url().startsWith(addresses["real-or-synthetic"])) await one.goto(`${addresses["real-or-synthetic"]}/`);
  await ready(one);
  assert.equal(await at(one).catch(() => 2), 2);
  await one.goto(`${addresses["real-or-synthetic"]}/`);
  await come(one, 2);
  assert.equal(await one.locator(".pins .pin").count(), 0);
});

const told = [[["real", 5]], []];
await check("two readers finish at once, each by keys alone", async () => {
  const total = Number((await one.textContent(".far label")).match(/of (\d+)/)[1]);
  const read = async (page, who, first) => {
    for (let n = first; n <= total; n++) {
      const choice = 1 + (n * (who + 3)) % 2, sure = 1 + (n + who) % 5;
      if (n % 3) { await page.keyboard.press(`${choice}`); await page.keyboard.press(`${sure}`); }
      else {
        await page.keyboard.press("ArrowUp");
        for (let i = 0; i < choice; i++) await page.keyboard.press("ArrowRight");
        await page.keyboard.press("ArrowDown");
        await page.keyboard.press(`${sure}`);
      }
      told[who].push([["real", "synthetic"][choice - 1], sure]);
      await page.keyboard.press("Enter");
      await page.keyboard.press("Enter"); // an impatient reader
      if (n < total) await come(page, n + 1);
    }
    await page.waitForFunction(() => /Thank you/.test(document.title));
  };
  await two.keyboard.press("ArrowUp");
  await Promise.all([read(one, 0, 2), read(two, 1, 1)]);
  await shot(one, "end");
  await faultless(one, "end, dark");
  await faultless(two, "end, light");
  writeFileSync(answersTo, JSON.stringify({ total, told }));
});

await check("a server that is away loses no answer on the page", async () => {
  const page = await open();
  await enter(page, "quality");
  await page.click("#begin");
  await come(page, 1);
  await page.keyboard.press("4");
  await page.context().setOffline(true);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#say.bad");
  assert.match(await page.textContent("#say"), /not sent yet/);
  assert.ok(await page.isChecked("[name=answer][value='3']"));
  await page.context().setOffline(false);
  await shot(page, "quality");
  await page.keyboard.press("Enter");
  await come(page, 2);
  await page.context().close();
});

await check("390 pixels are wide enough, by touch", async () => {
  for (const design of ["two-alternatives", "alignment"]) {
    const page = await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
    const fits = async (where) => {
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 390, where);
      const tight = await page.locator("main button:visible, main .choice:visible, main summary:visible").evaluateAll((all) =>
        all.filter((one) => one.getBoundingClientRect().height < 40).map((one) => one.outerHTML.slice(0, 90)));
      assert.deepEqual(tight, [], where);
    };
    await enter(page, design);
    await fits("welcome");
    if (design === "alignment") await shot(page, "narrow-welcome");
    await page.tap("#begin");
    await come(page, 1);
    await page.waitForTimeout(100);
    await fits(design);
    await shot(page, `narrow-${design}`);
    await page.tap("#mark");
    await page.tap("#kinds .choice >> nth=2");
    await page.locator(".cover").last().tap();
    assert.equal(await page.locator(".pins .pin").count(), 1);
    await page.waitForTimeout(100);
    await fits(`${design}, marking`);
    if (design === "alignment") await page.screenshot({ path: `${shots}/room-narrow-marks.png` });
    await faultless(page, `${design}, narrow`);
    await page.tap("#marks button");
    await page.tap("#mark");
    await page.tap(".choice:has([name=answer]) >> nth=1");
    await page.tap(".choice:has([name=confidence]) >> nth=3");
    await page.tap("#send");
    await come(page, 2);
    await page.context().close();
  }
});

await check("a phone that lies shows the image beside the question", async () => {
  for (const design of ["two-alternatives", "alignment"]) {
    const page = await open({ viewport: { width: 844, height: 390 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
    await page.goto(`${addresses[design]}/login#${links[design][0]}`);
    await come(page, 2);
    const [stage, asked] = [await page.locator(".stage").last().boundingBox(), await page.locator(".choice").first().boundingBox()];
    assert.ok(asked.x >= stage.x + stage.width && asked.y + asked.height <= 390 && stage.y + stage.height <= 390, design);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 844, design);
    await page.context().close();
  }
});

await check("two images stand side by side, and a sentence above its question", async () => {
  for (const design of ["two-alternatives", "alignment"]) {
    const page = await open();
    await page.goto(`${addresses[design]}/login#${links[design][0]}`);
    await come(page, 2);
    await page.waitForTimeout(100);
    await faultless(page, design);
    await shot(page, design);
    await page.context().close();
  }
});

assert.deepEqual(outside, [], "something was asked of another machine");
assert.deepEqual(errors.filter((line) => !/ERR_INTERNET_DISCONNECTED|409/.test(line)), []);
console.log("ok nothing was asked of another machine, no script failed");
await browser.close();
