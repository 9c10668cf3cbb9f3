// @ts-check
/** The page on which the candidates of a scene are compared: one key picks the best, or all are ranked. */

import { call, nonce, Problem } from "../api.js";
import { afterPaint, applyLook, byId, make, nextLook, readSetting, saveSetting, thousands } from "../dom.js";
import { toMask, traceOutline } from "../shapes.js";
import { t, translatePage } from "../texts/texts.js";

/** @typedef {{scene: string, items: string[], waiting: number}} Scene */

const MOST_ZOOM = 12;
const RETRY_MS = 3_000;
/** @type {Scene | null} */
let scene = null;
let ranksAll = readSetting("rankAll", false) === true;
/** @type {string[]} */
let chosen = []; // ranked so far, the best first
let paintedAt = 0; // time at which all pictures of the scene were painted; 0: they are not yet
let sending = false;
let refusal = ""; // why the last ranking was not stored, until the next scene is painted
const zoom = { factor: 1, x: 0.5, y: 0.5 };

/** @param {string} item @param {string} role */
const address = (item, role) => `/api/pictures/${item}/${role}?size=view`;

async function open() {
  paintedAt = 0;
  for (;;) {
    try {
      scene = await call("scenes/next", {});
      break;
    } catch (error) {
      fail(error, "rank.closed");
      if (!(error instanceof Problem) || !error.isTemporary || error.status === 401) return;
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
  }
  byId("message").textContent = refusal;
  chosen = [];
  Object.assign(zoom, { factor: 1, x: 0.5, y: 0.5 });
  show();
}

/** @param {any} error @param {string} text */
function fail(error, text = "rank.failed") {
  if (error instanceof Problem && error.status === 401) location.replace("/");
  else byId("message").textContent = t(text, { why: error.message ?? String(error) });
}

/** Returns the number of columns that shows the pictures largest. @param {number} count @param {number} shape width over height */
function chooseColumns(count, shape) {
  const box = byId("grid").getBoundingClientRect();
  let best = 1, largest = 0;
  for (let columns = 1; columns <= count; columns++) {
    const width = box.width / columns, height = box.height / Math.ceil(count / columns);
    const shown = Math.min(width, height * shape);
    if (shown > largest) [largest, best] = [shown, columns];
  }
  return best;
}

function show() {
  const nothing = byId("nothing");
  nothing.hidden = scene !== null;
  byId("tools").hidden = byId("grid").hidden = scene === null;
  showChoice();
  if (!scene) {
    refusal = "";
    byId("waiting").textContent = "";
    nothing.children[0].textContent = t("rank.nothing");
    nothing.children[1].textContent = t("rank.nothingWhy");
    return;
  }
  byId("waiting").textContent = t("rank.waiting", { count: scene.waiting, number: thousands(scene.waiting) });
  const first = scene.items[0];
  byId("grid").replaceChildren(
    make("li", { class: "before" }, make("figure", {}, make("img", { src: address(first, "source"), alt: t("rank.before") }), outline(first)),
      make("span", {}, t("rank.before"))),
    ...scene.items.map((item, index) => {
      const button = make("button", { "aria-label": t("rank.pick", { number: index + 1 }) });
      button.addEventListener("click", () => pick(item));
      return make("li", { "data-item": item }, make("figure", {}, make("img", { src: address(item, "result"), alt: "" })), button, make("span", {}, index + 1));
    }));
  const picture = byId("grid").querySelector("img");
  const arrange = () => {
    byId("grid").style.gridTemplateColumns = `repeat(${chooseColumns((scene?.items.length ?? 1) + 1, (picture.naturalWidth || 3) / (picture.naturalHeight || 2))}, minmax(0, 1fr))`;
  };
  picture.addEventListener("load", arrange);
  arrange();
  applyZoom();
  waitForPictures(scene);
}

/** Waits until all pictures of a scene are painted: nobody can compare them before that. @param {Scene} of */
async function waitForPictures(of) {
  byId("message").textContent = t("loading.loading");
  byId("grid").ariaBusy = "true";
  for (;;) {
    const pictures = [...byId("grid").querySelectorAll("img")];
    const loaded = await Promise.all(pictures.map((picture) => picture.decode().then(() => true, () => false)));
    if (scene !== of) return;
    if (loaded.every(Boolean)) break;
    byId("message").textContent = t("loading.away");
    await new Promise((done) => setTimeout(done, RETRY_MS));
    if (scene !== of) return;
    for (const picture of pictures) if (!picture.naturalWidth) picture.src = picture.src;
  }
  afterPaint(() => {
    if (scene !== of) return;
    paintedAt = performance.now();
    byId("grid").ariaBusy = "false";
    byId("message").textContent = refusal;
    refusal = "";
  });
}

/** Draws the outline of an item's mask, to be shown over a picture of any size. @param {string} item */
function outline(item) {
  const canvas = make("canvas", { "aria-hidden": "true" }), mask = new Image();
  mask.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = mask, context = canvas.getContext("2d", { willReadFrequently: true });
    [canvas.width, canvas.height] = [width, height];
    context.drawImage(mask, 0, 0);
    const lines = traceOutline(toMask(context.getImageData(0, 0, width, height).data), width, height);
    context.clearRect(0, 0, width, height);
    context.beginPath();
    for (let i = 0; i < lines.length; i += 4) {
      context.moveTo(lines[i], lines[i + 1]);
      context.lineTo(lines[i + 2], lines[i + 3]);
    }
    for (const [colour, wide] of [["#0009", 4], ["#ffe045", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = Number(wide) * Math.max(1, width / 800);
      context.stroke();
    }
  });
  mask.src = address(item, "mask");
  return canvas;
}

function showChoice() {
  byId("question").textContent = t(ranksAll ? "rank.questionAll" : "rank.questionBest");
  byId("mode-best").setAttribute("aria-pressed", String(!ranksAll));
  byId("mode-all").setAttribute("aria-pressed", String(ranksAll));
  byId("undo").hidden = !ranksAll;
  byId("undo").disabled = !chosen.length;
  for (const node of byId("grid").querySelectorAll("[data-item]")) {
    const rank = chosen.indexOf(node.dataset.item), number = [...byId("grid").children].indexOf(node);
    node.classList.toggle("ranked", rank >= 0);
    node.lastElementChild.textContent = rank < 0 ? String(number) : t("rank.place", { number, rank: rank + 1 });
  }
}

/** @param {string} item */
function pick(item) {
  if (!scene || sending) return;
  if (!paintedAt) {
    byId("message").textContent = t("loading.notTaken");
    return;
  }
  if (!ranksAll) {
    const others = scene.items.filter((other) => other !== item);
    send([[item], others]);
    return;
  }
  if (chosen.includes(item)) return;
  chosen.push(item);
  const rest = scene.items.filter((other) => !chosen.includes(other));
  if (rest.length <= 1) send([...chosen, ...rest].map((one) => [one]));
  else showChoice();
}

/** @param {string[][]} ranking */
async function send(ranking) {
  if (!scene || sending) return;
  sending = true;
  const seconds = paintedAt ? Math.round(performance.now() - paintedAt) / 1000 : null;
  const body = { scene: scene.scene, nonce: nonce(), ranking, seconds };
  byId("message").textContent = "";
  for (let delay = 500; ; delay = Math.min(10_000, 2 * delay)) {
    try {
      await call("rankings", body);
      break;
    } catch (error) {
      const problem = /** @type {any} */ (error);
      byId("message").textContent = t(problem.isTemporary ? "rank.unsent" : "rank.failed", { why: problem.message });
      if (!problem.isTemporary || problem.status === 401) {
        sending = false;
        refusal = byId("message").textContent;
        if (problem.status === 401) location.replace("/");
        else open();
        return;
      }
      await new Promise((done) => setTimeout(done, delay)); // the same nonce: it counts once
    }
  }
  await open();
  sending = false;
}

/** Shows the picture before in every pane while it is held. @param {boolean} on */
function blink(on) {
  if (!scene) return;
  for (const node of byId("grid").querySelectorAll("[data-item]")) {
    const picture = node.querySelector("img"), wanted = address(on ? scene.items[0] : node.dataset.item, on ? "source" : "result");
    if (!picture.src.endsWith(wanted)) picture.src = wanted;
  }
}

function applyZoom() {
  for (const figure of byId("grid").querySelectorAll("figure")) {
    const { width, height } = figure.getBoundingClientRect();
    for (const layer of figure.children) layer.style.transform = `translate(${width * (0.5 - zoom.x * zoom.factor)}px, ${height * (0.5 - zoom.y * zoom.factor)}px) scale(${zoom.factor})`;
  }
}

/** @param {WheelEvent} event */
function wheel(event) {
  const figure = /** @type {HTMLElement} */ (event.target).closest("li")?.querySelector("figure");
  if (!figure) return;
  event.preventDefault();
  const box = figure.getBoundingClientRect(), u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
  const x = zoom.x + (u - 0.5) / zoom.factor, y = zoom.y + (v - 0.5) / zoom.factor;
  zoom.factor = Math.min(MOST_ZOOM, Math.max(1, zoom.factor * Math.exp(-event.deltaY * 0.0016)));
  const clamp = (/** @type {number} */ at) => Math.min(1 - 0.5 / zoom.factor, Math.max(0.5 / zoom.factor, at));
  zoom.x = clamp(x - (u - 0.5) / zoom.factor);
  zoom.y = clamp(y - (v - 0.5) / zoom.factor);
  applyZoom();
}

/** @param {boolean} all */
function setMode(all) {
  ranksAll = all;
  chosen = [];
  saveSetting("rankAll", all);
  showChoice();
}

/** @param {KeyboardEvent} event */
function keyDown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !scene) return;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1] ?? (/^[1-9]$/.test(event.key) ? event.key : null);
  const key = /^[ -~]$/.test(event.key) ? event.key.toLowerCase() : /^Key[A-Z]$/.test(event.code) ? event.code[3].toLowerCase() : event.key;
  const item = digit ? scene.items[Number(digit) - 1] : undefined;
  if (item) pick(item);
  else if (key === " " && !(/** @type {HTMLElement} */ (event.target).matches("button, a"))) blink(true);
  else if (key === "r") setMode(!ranksAll);
  else if (key === "s") send([]);
  else if (key === "z") { chosen.pop(); showChoice(); }
  else return;
  event.preventDefault();
}

async function boot() {
  applyLook();
  translatePage();
  const showLook = (/** @type {string} */ look) => { byId("look").textContent = t(`look.${look}`); };
  showLook(readSetting("look", "auto"));
  byId("look").addEventListener("click", () => showLook(nextLook()));
  document.title = `${t("nav.rank")} · Rasura`;
  byId("mode-best").addEventListener("click", () => setMode(false));
  byId("mode-all").addEventListener("click", () => setMode(true));
  byId("skip").addEventListener("click", () => send([]));
  byId("undo").addEventListener("click", () => { chosen.pop(); showChoice(); });
  byId("nothing").querySelector("button").addEventListener("click", open);
  for (const [name, on] of Object.entries({ pointerdown: true, pointerup: false, pointerleave: false, blur: false })) {
    byId("blink").addEventListener(name, () => blink(on));
  }
  addEventListener("keydown", keyDown);
  addEventListener("keyup", (event) => { if (event.code === "Space") blink(false); });
  addEventListener("wheel", wheel, { passive: false });
  addEventListener("resize", () => { if (scene) { byId("grid").querySelector("img")?.dispatchEvent(new Event("load")); applyZoom(); } });
  try {
    byId("run").textContent = (await call("me")).run;
  } catch (error) {
    fail(error);
    return;
  }
  await open();
}

boot();
