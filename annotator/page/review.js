// @ts-check
/** The page: what is in hand, what a key does, what was said. */

import { call, nonce, Outbox, Problem } from "./api.js";
import { applyLook, byId, make, nextLook, remember, remembered } from "./dom.js";
import { keyName, keyOf, Keys, showKeys } from "./keys.js";
import * as panels from "./panels.js";
import { addHeat, Pictures } from "./pictures.js";
import { holdButton, listen } from "./touch.js";
import { MODES, View } from "./view.js";

/** @typedef {{id: string, label: string | null, dilation: number}} Item */
/** @typedef {Item & {verdict: string | null, reason: string | null, time: number, told?: any}} Past */

const AHEAD = 6; // items in hand: the one that is shown and five that are loaded
const LISTED = 20;
const PROGRESS_MS = 15_000;
const AGAIN_MS = 15_000;

const keys = new Keys();
const pictures = new Pictures();
/** @type {Item[]} */
let queue = [];
/** @type {Past[]} */
let past = [];
/** @type {Past | null} */
let editing = null;
/** @type {Set<string>} */
const done = new Set();
/** @type {any} */
let me = null;
/** @type {Outbox} */
let outbox;
let since = 0; // when the item was painted
let choosing = false; // a reason is asked for
let filling = false;
let pressed = 0; // when the key was pressed whose effect is not painted yet

const view = new View(byId("canvas"), () => { showView(); sharpen(); });

/** What is judged now. @returns {Item | null} */
const current = () => editing ?? queue[0] ?? null;

// --- the queue

async function fill() {
  if (filling || !outbox) return;
  filling = true;
  try {
    const want = Math.min(12, AHEAD + outbox.entries.length);
    const { items } = await call("next", { want });
    const known = new Set(queue.map((item) => item.id));
    queue.push(...items.filter((/** @type {Item} */ item) => !done.has(item.id) && !known.has(item.id)));
    panels.nothing(queue.length ? null : "empty", fill);
    if (!queue.length) setTimeout(fill, AGAIN_MS);
  } catch (error) {
    failed(error);
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
    } catch { /* told when it is its turn */ }
  }
}

let drawn = "";

/** Shows the present item: at once where its pictures are loaded. */
function show() {
  const item = current();
  panels.editing(editing, me?.reasons ?? {});
  if (!item) {
    drawn = "";
    view.show(null);
    panels.what(null);
    return;
  }
  const name = `${item.id} ${editing ? "again" : ""}`;
  if (name === drawn) return;
  const shown = pictures.ready(item.id);
  if (!shown) {
    view.show(null);
    panels.what(item);
    pictures.get(item).then(show, (error) => {
      if (current() === item) panels.nothing("unreadable", () => judge("skip"), String(error.message ?? error));
    });
    return;
  }
  drawn = name;
  panels.nothing(null);
  view.show(shown);
  panels.what(item);
  showView();
  sharpen();
  painted(() => {
    since = performance.now();
    if (pressed) performance.measure("judge", { start: pressed, end: since });
    pressed = 0;
  });
}

/** Calls back when the next frame is on the screen. @param {() => void} then */
function painted(then) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = then;
    channel.port2.postMessage(null);
  });
}

/** Loads the pictures as they are stored where somebody looks closely. */
function sharpen() {
  const item = current(), shown = item && pictures.ready(item.id);
  if (!item || !shown || shown.native) return;
  if (view.heat || view.scale() * shown.width > shown.result.width * 1.1) {
    pictures.native(item).then(() => { if (current() === item) { view.draw(); showView(); } }, failed);
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
  pressed ||= performance.now();
  const seconds = since && drawn.startsWith(item.id) ? Math.round(performance.now() - since) / 1000 : null;
  const body = { item: item.id, nonce: nonce(), verdict, reason, seconds, guidelines: me.guidelines };
  const said = verdict === "skip" ? null : verdict;
  const was = past.find((one) => one.id === item.id);
  if (editing) editing = null;
  else queue.shift();
  done.add(item.id);
  queue = queue.filter((one) => one.id !== item.id);
  if (!was || was.verdict === null) panels.count(said ? 1 : 0);
  if (was) Object.assign(was, { verdict: said, reason });
  else past = [{ ...item, verdict: said, reason, time: Date.now() / 1000 }, ...past].slice(0, LISTED);
  drawn = "";
  panels.known(null);
  show();
  outbox.put("votes", body);
  painted(() => {
    panels.list(past, me.reasons, edit);
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
    panels.say("There is nothing to take back.");
    return;
  }
  past = past.slice(1);
  done.delete(last.id);
  queue = [last, ...queue.filter((item) => item.id !== last.id)];
  if (last.verdict) panels.count(-1);
  drawn = "";
  outbox.put("undo", { nonce: nonce(), item: last.id });
  panels.list(past, me.reasons, edit);
  show();
}

/** @param {Past} entry */
function edit(entry) {
  choose(false);
  editing = entry;
  drawn = "";
  show();
  byId("stage").focus({ preventScroll: true });
}

/** Asks for the reason of a no, or stops asking. @param {boolean} on */
function choose(on) {
  if (choosing === on) return;
  choosing = on;
  byId("reasons").hidden = !on;
  byId("verdicts").classList.toggle("choosing", on);
  if (on && document.activeElement?.closest("#judge")) byId("reason-keys").firstElementChild?.focus();
}

async function flag() {
  const item = current();
  const remark = item && await panels.remark();
  if (item && remark) {
    outbox.put("flag", { item: item.id, nonce: nonce(), remark });
    panels.say("Flagged.");
  }
}

// --- what the server says

/** @param {any} entry @param {any} answer */
function sent(entry, answer) {
  if (entry.path === "votes") {
    const said = past.find((one) => one.id === entry.body.item);
    if (said) said.told = answer;
    if (answer.known) panels.known(answer.known, entry.body.verdict);
    panels.list(past, me.reasons, edit);
  }
  if (queue.length < AHEAD) fill();
}

/** @param {any} entry @param {Problem} problem */
function refused(entry, problem) {
  panels.say(`Not noted: ${problem.message}.`);
  if (entry.path !== "flag") {
    queue = queue.filter((item) => item.id !== entry.body.item || entry.path !== "undo");
    call("history").then(({ items }) => { past = items; panels.list(past, me.reasons, edit); }, failed);
    show();
  }
  fill();
}

/** @param {any} problem */
function failed(problem) {
  if (problem instanceof Problem && problem.status === 401) panels.signIn(boot, "You were signed out.");
  else panels.saving(outbox?.entries.length ?? 0, problem);
}

async function progress() {
  try {
    panels.progress(await call("progress"), outbox.entries.length);
  } catch (error) {
    failed(error);
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
  guidelines: () => panels.guidelines(pictures, me.reasons),
  keys: () => { showTable(); byId("keys").showModal(); },
  look: () => panels.look(nextLook()),
};
const REPEATED = ["closer", "wider"];

/** @param {string} mode */
function setMode(mode) {
  view.set({ mode });
  remember("mode", mode);
}

/** @param {"outline" | "heat"} name */
function setOverlay(name) {
  view.set({ [name]: !view[name] });
  remember(name, view[name]);
  sharpen();
}

function showView() {
  panels.view(view);
}

function showTable() {
  showKeys(byId("key-table"), keys, showHints, (words) => { byId("key-problem").textContent = words; });
}

function showHints() {
  for (const node of document.querySelectorAll("[data-key]")) {
    node.textContent = keyName(keys.map[/** @type {HTMLElement} */ (node).dataset.key ?? ""]);
  }
}

/** @param {KeyboardEvent} event */
function keyDown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !me || document.querySelector("dialog[open]")) return;
  const target = /** @type {HTMLElement} */ (event.target);
  const typing = target.matches?.("input:not([type=range]), textarea");
  if (typing) return;
  const key = keyOf(event), action = keys.action(key);
  if (choosing) {
    const reason = Object.keys(me.reasons)[Number(key) - 1];
    if (reason && !event.repeat) {
      pressed = event.timeStamp;
      judge("no", reason);
    } else if (key === "Escape") choose(false);
    if (reason || key === "Escape") {
      event.preventDefault();
      return;
    }
  }
  if (action === "blink") {
    if (target.matches?.("button, a, input")) return; // space presses what has the focus
    event.preventDefault();
    view.blink(true);
  } else if (action) {
    event.preventDefault();
    if (event.repeat && !REPEATED.includes(action)) return;
    pressed = ["yes", "unsure", "skip"].includes(action) ? event.timeStamp : 0;
    actions[action]();
  } else if (key === "Escape" && editing) {
    editing = null;
    drawn = "";
    show();
  } else if (key.startsWith("Arrow") && !target.matches?.("input")) {
    event.preventDefault();
    view.arrow(key);
  }
}

function wire() {
  addEventListener("keydown", keyDown);
  addEventListener("keyup", (event) => { if (keys.action(keyOf(event)) === "blink") view.blink(false); });
  addEventListener("blur", () => view.blink(false));
  document.addEventListener("click", (event) => {
    const button = /** @type {HTMLElement | null} */ (/** @type {HTMLElement} */ (event.target).closest("button"));
    if (!button) return;
    if (button.dataset.mode) setMode(button.dataset.mode);
    if (button.dataset.action) {
      pressed = event.timeStamp;
      actions[button.dataset.action]();
    }
    if (button.dataset.reason) {
      pressed = event.timeStamp;
      judge("no", button.dataset.reason);
    }
    // a click leaves the focus with the pictures, so that space does not press the button again
    if (event.detail && !button.closest("dialog, form")) byId("stage").focus({ preventScroll: true });
  });
  holdButton(byId("hold"), view);
  byId("divider").addEventListener("input", (/** @type {any} */ event) => view.moveDivider(event.target.value / 100));
  byId("no-reason").addEventListener("click", () => choose(false));
  byId("stop-editing").addEventListener("click", () => { editing = null; drawn = ""; show(); });
  byId("reset-keys").addEventListener("click", () => { keys.reset(); showTable(); showHints(); });
  byId("signout").addEventListener("click", async () => {
    await Promise.race([outbox.empty(), new Promise((late) => setTimeout(late, 3000))]);
    await call("logout", {}).catch(() => {});
    location.reload();
  });
  listen(view, (verdict) => { pressed = performance.now(); judge(verdict); }, panels.swiping);
}

async function boot() {
  try {
    me = await call("me");
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) failed(error);
    panels.signIn(boot, error instanceof Problem && error.status === 401 ? "" : "The server does not answer.");
    return;
  }
  panels.welcome(me);
  byId("reason-keys").replaceChildren(...Object.entries(me.reasons).map(([reason, words], index) =>
    make("button", { "data-reason": reason }, String(words), " ", make("kbd", {}, index + 1))));
  outbox = new Outbox(me.name, sent, refused, panels.saving);
  for (const id of outbox.items()) done.add(id);
  ({ items: past } = await call("history").catch(() => ({ items: [] })));
  panels.list(past, me.reasons, edit);
  await fill();
  progress();
}

applyLook();
panels.look(remembered("look", "auto"));
view.set({ mode: MODES.includes(remembered("mode", "")) ? remembered("mode", "") : "side",
  outline: remembered("outline", true) === true, heat: remembered("heat", false) === true });
showHints();
wire();
setInterval(() => { if (me && !document.hidden) progress(); }, PROGRESS_MS);
setInterval(() => { if (me && queue.length) fill(); }, 120_000); // keeps the leases
panels.tokenInAddress().then(boot);
