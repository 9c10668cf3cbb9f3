// @ts-check
/** The review page: the queue, verdicts, keys and buttons. */

import { call, nonce, Outbox, Problem } from "./api.js";
import { applyLook, byId, make, nextLook, readSetting, saveSetting } from "./dom.js";
import { getKey, Keys, nameKey, showKeys } from "./keys.js";
import * as panels from "./panels.js";
import { addHeat, Pictures } from "./pictures.js";
import { holdButton, listen } from "./touch.js";
import { MODES, View } from "./view.js";

/** @typedef {{id: string, label: string | null, dilation: number}} Item */
/** @typedef {Item & {verdict: string | null, reason: string | null, time: number, result?: any}} PastVerdict */

const AHEAD = 6; // open items: the one that is shown and five that are loaded
const LISTED = 20;
const PROGRESS_MS = 15_000;
const SOON_MS = 3_000; // after a verdict the figures follow, however many verdicts come meanwhile
const REFILL_MS = 15_000;

const keys = new Keys();
const pictures = new Pictures();
/** @type {Item[]} */
let queue = [];
let soon = 0;
/** @type {PastVerdict[]} */
let past = [];
/** @type {PastVerdict | null} */
let editing = null;
/** @type {Set<string>} */
const done = new Set();
/** @type {any} */
let me = null;
/** @type {Outbox} */
let outbox;
let shownAt = 0; // time at which the item was painted
let choosing = false; // the reason of a no is to be chosen
let filling = false;
let pressedAt = 0; // time of the key press whose effect is not painted yet

const view = new View(byId("canvas"), () => { showView(); sharpen(); });

/** Returns the item that is being judged. @returns {Item | null} */
const current = () => editing ?? queue[0] ?? null;

// --- the queue

async function fill() {
  if (filling || !outbox) return;
  filling = true;
  try {
    const want = Math.min(12, AHEAD + outbox.entries.length);
    const { items } = await call("next", { want });
    const queued = new Set(queue.map((item) => item.id));
    queue.push(...items.filter((/** @type {Item} */ item) => !done.has(item.id) && !queued.has(item.id)));
    panels.showNothing(queue.length ? null : "empty", fill);
    if (!queue.length) setTimeout(fill, REFILL_MS);
  } catch (error) {
    reportProblem(error);
    setTimeout(fill, 3000);
  }
  filling = false;
  show();
  preload();
}

async function preload() {
  for (const item of queue.slice(0, AHEAD)) {
    try {
      const shown = await pictures.get(item);
      if (view.heat) addHeat(shown);
    } catch { /* reported when the item is shown */ }
  }
}

let drawnItem = "";

/** Shows the current item: at once where its pictures are loaded. */
function show() {
  const item = current();
  panels.showEditing(editing, me?.reasons ?? {});
  if (!item) {
    drawnItem = "";
    view.show(null);
    panels.showLabel(null);
    return;
  }
  const name = `${item.id} ${editing ? "again" : ""}`;
  if (name === drawnItem) return;
  const shown = pictures.ready(item.id);
  if (!shown) {
    view.show(null);
    panels.showLabel(item);
    pictures.get(item).then(show, (error) => {
      if (current() === item) panels.showNothing("unreadable", () => judge("skip"), String(error.message ?? error));
    });
    return;
  }
  drawnItem = name;
  panels.showNothing(null);
  view.show(shown);
  panels.showLabel(item);
  showView();
  sharpen();
  afterPaint(() => {
    shownAt = performance.now();
    if (pressedAt) performance.measure("judge", { start: pressedAt, end: shownAt });
    pressedAt = 0;
  });
}

/** Calls back after the next frame is on the screen. @param {() => void} then */
function afterPaint(then) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = then;
    channel.port2.postMessage(null);
  });
}

/** Loads the pictures of the stored size where the reviewer zooms in. */
function sharpen() {
  const item = current(), shown = item && pictures.ready(item.id);
  if (!item || !shown || shown.native) return;
  if (view.heat || view.scale() * shown.width > shown.result.width * 1.1) {
    pictures.native(item).then(() => { if (current() === item) { view.draw(); showView(); } }, reportProblem);
  }
}

// --- verdicts

/** @param {string} verdict yes, no, unsure or skip @param {string | null} [reason] */
function judge(verdict, reason = null) {
  const item = current();
  if (!item) return;
  if (verdict === "no" && !reason) {
    choose(true);
    return;
  }
  choose(false);
  pressedAt ||= performance.now();
  const seconds = shownAt && drawnItem.startsWith(item.id) ? Math.round(performance.now() - shownAt) / 1000 : null;
  const body = { item: item.id, nonce: nonce(), verdict, reason, seconds, guidelines: me.guidelines };
  const answer = verdict === "skip" ? null : verdict;
  const earlier = past.find((entry) => entry.id === item.id);
  if (editing) editing = null;
  else queue.shift();
  done.add(item.id);
  queue = queue.filter((queued) => queued.id !== item.id);
  if (!earlier || earlier.verdict === null) panels.addVotes(answer ? 1 : 0);
  if (earlier) Object.assign(earlier, { verdict: answer, reason });
  else past = [{ ...item, verdict: answer, reason, time: Date.now() / 1000 }, ...past].slice(0, LISTED);
  drawnItem = "";
  panels.showKnownAnswer(null);
  show();
  outbox.put("votes", body);
  afterPaint(() => {
    panels.listVerdicts(past, me.reasons, edit);
    preload();
  });
}

function undo() {
  if (editing) {
    editing = null;
    show();
    return;
  }
  const last = past[0];
  if (!last) {
    panels.showMessage("There is nothing to take back.");
    return;
  }
  past = past.slice(1);
  done.delete(last.id);
  queue = [last, ...queue.filter((item) => item.id !== last.id)];
  if (last.verdict) panels.addVotes(-1);
  drawnItem = "";
  outbox.put("undo", { nonce: nonce(), item: last.id });
  panels.listVerdicts(past, me.reasons, edit);
  show();
}

/** @param {PastVerdict} entry */
function edit(entry) {
  choose(false);
  editing = entry;
  drawnItem = "";
  show();
  byId("stage").focus({ preventScroll: true });
}

/** Shows the reasons of a no, or hides them. @param {boolean} on */
function choose(on) {
  if (choosing === on) return;
  choosing = on;
  byId("reasons").hidden = !on;
  byId("verdicts").classList.toggle("choosing", on);
  if (on && document.activeElement?.closest("#judge")) byId("reason-keys").firstElementChild?.focus();
}

async function flag() {
  const item = current();
  const remark = item && await panels.askRemark();
  if (item && remark) {
    outbox.put("flag", { item: item.id, nonce: nonce(), remark });
    panels.showMessage("Flagged.");
  }
}

// --- answers of the server

/** @param {any} entry @param {any} answer */
function handleAnswer(entry, answer) {
  if (entry.path === "votes") {
    const verdict = past.find(({ id }) => id === entry.body.item);
    if (verdict) verdict.result = answer;
    if (answer.known) panels.showKnownAnswer(answer.known, entry.body.verdict);
    panels.listVerdicts(past, me.reasons, edit);
  }
  soon ||= setTimeout(() => { soon = 0; progress(); }, SOON_MS);
  if (queue.length < AHEAD) fill();
}

/** @param {any} entry @param {Problem} problem */
function handleRefusal(entry, problem) {
  panels.showMessage(`Not stored: ${problem.message}.`);
  if (entry.path !== "flag") {
    queue = queue.filter((item) => item.id !== entry.body.item || entry.path !== "undo");
    call("history").then(({ items }) => { past = items; panels.listVerdicts(past, me.reasons, edit); }, reportProblem);
    show();
  }
  fill();
}

/** @param {any} problem */
function reportProblem(problem) {
  if (problem instanceof Problem && problem.status === 401) panels.askToken(boot, "You were signed out.");
  else panels.showUnsent(outbox?.entries.length ?? 0, problem);
}

async function progress() {
  try {
    panels.showProgress(await call("progress"), outbox.entries.length);
  } catch (error) {
    reportProblem(error);
  }
}

// --- keys and buttons

/** @type {Record<string, () => void>} */
const actions = {
  yes: () => judge("yes"),
  no: () => (choosing ? judge("no", "other") : judge("no")),
  unsure: () => judge("unsure"),
  skip: () => judge("skip"),
  undo,
  flag,
  view: () => setMode(MODES[(MODES.indexOf(view.mode) + 1) % MODES.length]),
  outline: () => setOverlay("outline"),
  heat: () => setOverlay("heat"),
  native: () => view.toggleNative(),
  closer: () => view.zoomBy(1.5),
  wider: () => view.zoomBy(1 / 1.5),
  list: () => panels.toggleList(),
  guidelines: () => panels.showGuidelines(pictures, me.reasons),
  keys: () => { showTable(); byId("keys").showModal(); },
  look: () => panels.showLook(nextLook()),
};
const REPEATED = ["closer", "wider"];

/** @param {string} mode */
function setMode(mode) {
  view.set({ mode });
  saveSetting("mode", mode);
}

/** @param {"outline" | "heat"} name */
function setOverlay(name) {
  view.set({ [name]: !view[name] });
  saveSetting(name, view[name]);
  sharpen();
}

function showView() {
  panels.showView(view);
}

function showTable() {
  showKeys(byId("key-table"), keys, showHints, (text) => { byId("key-problem").textContent = text; });
}

function showHints() {
  for (const node of document.querySelectorAll("[data-key]")) {
    node.textContent = nameKey(keys.map[/** @type {HTMLElement} */ (node).dataset.key ?? ""]);
  }
}

/** @param {KeyboardEvent} event */
function keyDown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !me || document.querySelector("dialog[open]")) return;
  const target = /** @type {HTMLElement} */ (event.target);
  const typing = target.matches?.("input:not([type=range]), textarea");
  if (typing) return;
  const key = getKey(event), action = keys.action(key);
  if (choosing) {
    const reason = Object.keys(me.reasons)[Number(key) - 1];
    if (reason && !event.repeat) {
      pressedAt = event.timeStamp;
      judge("no", reason);
    } else if (key === "Escape") choose(false);
    if (reason || key === "Escape") {
      event.preventDefault();
      return;
    }
  }
  if (action === "blink") {
    if (target.matches?.("button, a, input")) return; // space presses the element that has the focus
    event.preventDefault();
    view.blink(true);
  } else if (action) {
    event.preventDefault();
    if (event.repeat && !REPEATED.includes(action)) return;
    pressedAt = ["yes", "unsure", "skip"].includes(action) ? event.timeStamp : 0;
    actions[action]();
  } else if (key === "Escape" && editing) {
    editing = null;
    drawnItem = "";
    show();
  } else if (key.startsWith("Arrow") && !target.matches?.("input")) {
    event.preventDefault();
    view.arrow(key);
  }
}

function wire() {
  addEventListener("keydown", keyDown);
  addEventListener("keyup", (event) => { if (keys.action(getKey(event)) === "blink") view.blink(false); });
  addEventListener("blur", () => view.blink(false));
  document.addEventListener("click", (event) => {
    const button = /** @type {HTMLElement | null} */ (/** @type {HTMLElement} */ (event.target).closest("button"));
    if (!button) return;
    if (button.dataset.mode) setMode(button.dataset.mode);
    if (button.dataset.action) {
      pressedAt = event.timeStamp;
      actions[button.dataset.action]();
    }
    if (button.dataset.reason) {
      pressedAt = event.timeStamp;
      judge("no", button.dataset.reason);
    }
    // after a click the focus goes to the pictures, so that space does not press the button again
    if (event.detail && !button.closest("dialog, form")) byId("stage").focus({ preventScroll: true });
  });
  holdButton(byId("hold"), view);
  byId("divider").addEventListener("input", (/** @type {any} */ event) => view.moveDivider(event.target.value / 100));
  byId("no-reason").addEventListener("click", () => choose(false));
  byId("stop-editing").addEventListener("click", () => { editing = null; drawnItem = ""; show(); });
  byId("reset-keys").addEventListener("click", () => { keys.reset(); showTable(); showHints(); });
  byId("signout").addEventListener("click", async () => {
    await Promise.race([outbox.empty(), new Promise((late) => setTimeout(late, 3000))]);
    await call("logout", {}).catch(() => {});
    location.reload();
  });
  listen(view, (verdict) => { pressedAt = performance.now(); judge(verdict); }, panels.showSwipe);
}

async function boot() {
  try {
    me = await call("me");
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) reportProblem(error);
    panels.askToken(boot, error instanceof Problem && error.status === 401 ? "" : "The server does not answer.");
    return;
  }
  panels.showSession(me);
  byId("reason-keys").replaceChildren(...Object.entries(me.reasons).map(([reason, words], index) =>
    make("button", { "data-reason": reason }, String(words), " ", make("kbd", {}, index + 1))));
  outbox = new Outbox(me.name, handleAnswer, handleRefusal, panels.showUnsent);
  for (const id of outbox.items()) done.add(id);
  ({ items: past } = await call("history").catch(() => ({ items: [] })));
  panels.listVerdicts(past, me.reasons, edit);
  await fill();
  progress();
}

applyLook();
panels.showLook(readSetting("look", "auto"));
view.set({ mode: MODES.includes(readSetting("mode", "")) ? readSetting("mode", "") : "side",
  outline: readSetting("outline", true) === true, heat: readSetting("heat", false) === true });
showHints();
wire();
setInterval(() => { if (me && !document.hidden) progress(); }, PROGRESS_MS);
setInterval(() => { if (me && queue.length) fill(); }, 120_000); // keeps the leases
panels.signInFromAddress().then(boot);
