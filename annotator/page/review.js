// @ts-check
/** The review page: the queue, verdicts, keys and buttons. */

import { call, nonce, Problem, setOwner } from "./api.js";
import { afterPaint, applyLook, byId, nextLook, readSetting } from "./dom.js";
import { Keys, listenToKeys, showHints, showKeys } from "./keys.js";
import { describeKept, showOutbox, signOut, store } from "./outbox/notes.js";
import { Outbox } from "./outbox/outbox.js";
import * as panels from "./panels.js";
import { Pictures } from "./pictures.js";
import { correctItem, flagItem } from "./tasks/actions.js";
import { labelReasons, listReasons, showReasons } from "./tasks/tasks.js";
import { t, translatePage } from "./texts/texts.js";
import { holdButton, listen, listenToButtons } from "./touch.js";
import { View } from "./view.js";

/** @typedef {import("./tasks/tasks.js").Item} Item */
/** @typedef {Item & {verdict: string | null, reason: string | null, time: number, result?: any}} PastVerdict */

const AHEAD = 6; // open items: the one that is shown and five that are loaded
const LISTED = 20;
const PROGRESS_MS = 15_000;
const SOON_MS = 3_000; // after a verdict the figures follow, however many verdicts come meanwhile
const REFILL_MS = 15_000;
const RETRY_MS = 3_000;

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
/** @type {Outbox | null} */
let outbox = null;
/** The verdicts so far: the next one begins when this browser has stored the last one. @type {Promise<void>} */
let giving = Promise.resolve();
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
    const want = Math.min(12, AHEAD + outbox.waiting.length);
    const { items } = await call("next", { want });
    const queued = new Set(queue.map((item) => item.id));
    queue.push(...items.filter((/** @type {Item} */ item) => !done.has(item.id) && !queued.has(item.id)));
    panels.showNothing(queue.length ? null : "empty", fill);
    if (!queue.length) {
      setTimeout(fill, REFILL_MS);
      progress();
    }
  } catch (error) {
    reportProblem(error);
    setTimeout(fill, RETRY_MS);
  }
  filling = false;
  show();
  preload();
}

async function preload() {
  for (const item of queue.slice(0, AHEAD)) {
    try {
      await pictures.get(item);
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

/** Loads what the view needs of the item beyond the pictures that fit a screen. */
function sharpen() {
  const item = current();
  if (!item) return;
  pictures.complete(item, view).then((isMore) => {
    if (!isMore || current()?.id !== item.id) return;
    view.draw();
    showView();
  }, reportProblem);
}

// --- verdicts

/** @param {string} verdict yes, no, unsure or skip @param {string | null} [reason] */
function judge(verdict, reason = null) {
  if (verdict === "no" && !reason) {
    if (current()) choose(true);
    return;
  }
  choose(false);
  const stage = byId("stage");
  stage.ariaBusy = "true"; // until the verdict is stored, and the next item shown
  const given = giving.then(() => give(verdict, reason)).catch(reportProblem);
  giving = given;
  given.then(() => { if (giving === given) stage.ariaBusy = "false"; });
}

/** Stores a verdict, and then shows it as given. @param {string} verdict @param {string | null} reason */
async function give(verdict, reason) {
  const item = current();
  if (!item || !outbox) return;
  pressedAt ||= performance.now();
  const seconds = shownAt && drawnItem.startsWith(item.id) ? Math.round(performance.now() - shownAt) / 1000 : null;
  const body = { item: item.id, nonce: nonce(), verdict, reason, seconds, guidelines: me.guidelines };
  if (!await store(outbox, "votes", body, item.label)) {
    pressedAt = 0;
    return;
  }
  const answer = verdict === "skip" ? null : verdict;
  const earlier = past.find((entry) => entry.id === item.id);
  editing = null;
  leave(item.id);
  if (!earlier || earlier.verdict === null) panels.addVotes(answer ? 1 : 0);
  if (earlier) Object.assign(earlier, { verdict: answer, reason });
  else past = [{ ...item, verdict: answer, reason, time: Date.now() / 1000 }, ...past].slice(0, LISTED);
  panels.showKnownAnswer(null);
  show();
  afterPaint(() => {
    panels.listVerdicts(past, me.reasons, edit);
    preload();
  });
}

/** Takes an item that was judged from the queue. @param {string} id */
function leave(id) {
  done.add(id);
  queue = queue.filter((queued) => queued.id !== id);
  drawnItem = "";
}

function undo() {
  giving = giving.then(takeBack).catch(reportProblem);
}

async function takeBack() {
  if (editing) {
    editing = null;
    show();
    return;
  }
  const last = past[0];
  if (!last) {
    panels.showMessage(t("undo.nothing"));
    return;
  }
  if (!outbox || !await store(outbox, "undo", { nonce: nonce(), item: last.id }, last.label)) return;
  past = past.filter((entry) => entry !== last);
  done.delete(last.id);
  queue = [last, ...queue.filter((item) => item.id !== last.id)];
  if (last.verdict) panels.addVotes(-1);
  drawnItem = "";
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

function stopEditing() {
  editing = null;
  drawnItem = "";
  show();
}

/** Shows the reasons of a no, or hides them. @param {boolean} on */
function choose(on) {
  if (choosing === on) return;
  choosing = on;
  if (on) showReasons(me, current(), () => showHints(keys));
  byId("reasons").hidden = !on;
  byId("verdicts").classList.toggle("choosing", on);
  if (on && document.activeElement?.closest("#judge")) byId("reason-keys").firstElementChild?.focus();
}

// --- answers of the server

/**
 * Shows what became of a request, of this tab or of another one of the same reviewer.
 * @param {import("./outbox/outbox.js").Notice} notice
 * @param {boolean} isOwn
 */
function handleNotice({ type, entry, answer }, isOwn) {
  const { item } = entry.body;
  if (type === "put" && !isOwn && entry.path === "votes") {
    leave(item);
    show();
  } else if (type === "sent" && entry.path === "votes") {
    if (!isOwn) leave(item);
    const verdict = past.find(({ id }) => id === item);
    if (verdict) verdict.result = answer;
    if (answer.known && isOwn) panels.showKnownAnswer(answer.known, entry.body.verdict);
    panels.listVerdicts(past, me.reasons, edit);
  } else if (type === "sent" && entry.path === "undo" && answer.open === false) {
    panels.showMessage(t("undo.done"));
    leave(item);
    show();
  } else if (type === "refused" && entry.path !== "flag") {
    if (entry.path === "undo") leave(item);
    readHistory();
    show();
  }
  if (type === "put" || type === "dismissed") return;
  soon ||= setTimeout(() => { soon = 0; progress(); }, SOON_MS);
  if (queue.length < AHEAD) fill();
}

async function readHistory() {
  try {
    ({ items: past } = await call("history"));
  } catch { /* the list stays as it is */ }
  panels.listVerdicts(past, me.reasons, edit);
}

/** @param {any} problem */
function reportProblem(problem) {
  if (problem instanceof Problem) showState(problem);
  else panels.showMessage(String(problem?.message ?? problem));
}

/** Shows what waits to be sent, and why. @param {Problem | null} [problem] of a request that was no verdict */
function showState(problem = null) {
  if (outbox) showOutbox(outbox, problem);
  if ((problem ?? outbox?.problem)?.status === 401 && byId("signin").hidden) {
    panels.askToken(boot, `${t("signin.out")} ${outbox ? describeKept(outbox) : ""}`);
  }
}

async function progress() {
  try {
    panels.showProgress(await call("progress"), outbox?.waiting.length ?? 0);
    showState();
  } catch (error) {
    reportProblem(error);
  }
}

// --- keys and buttons

/** @type {Record<string, () => void>} */
const actions = {
  yes: () => judge("yes"),
  no: () => judge("no", choosing ? listReasons(me, current()).at(-1) : null),
  unsure: () => judge("unsure"),
  skip: () => judge("skip"),
  undo,
  flag: () => flagItem(outbox, current()),
  correct: () => correctItem(me, current, judge),
  view: () => view.save("mode", view.nextMode()),
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

/** @param {"outline" | "heat"} name */
function setOverlay(name) {
  view.save(name, !view[name]);
  sharpen();
}

function showView() {
  panels.showView(view);
}

function showTable() {
  showKeys(byId("key-table"), keys, () => showHints(keys), (text) => { byId("key-problem").textContent = text; });
}

function wire() {
  listenToKeys(keys, {
    isOpen: () => me !== null && !document.querySelector("dialog[open]"),
    isChoosing: () => choosing,
    onReason: (index, at) => {
      const reason = listReasons(me, current())[index];
      if (!reason) return false;
      pressedAt = at;
      judge("no", reason);
      return true;
    },
    onAction: (action, at) => { pressedAt = at; actions[action](); },
    onBlink: (on) => view.blink(on),
    onEscape: () => {
      if (choosing) choose(false);
      else if (editing) stopEditing();
      else return false;
      return true;
    },
    onArrow: (key) => view.arrow(key),
    onHint: panels.showMessage,
  });
  listenToButtons({
    onMode: (mode) => view.save("mode", mode),
    onAction: (action, at) => { pressedAt = at; actions[action](); },
    onReason: (reason, at) => { pressedAt = at; judge("no", reason); },
  });
  holdButton(byId("hold"), view);
  byId("divider").addEventListener("input", (/** @type {any} */ event) => view.moveDivider(event.target.value / 100));
  byId("no-reason").addEventListener("click", () => choose(false));
  byId("stop-editing").addEventListener("click", stopEditing);
  byId("reset-keys").addEventListener("click", () => { keys.reset(); showTable(); showHints(keys); });
  byId("signout").addEventListener("click", () => signOut(outbox));
  listen(view, (verdict) => { pressedAt = performance.now(); judge(verdict); }, panels.showSwipe);
}

async function boot() {
  outbox?.close();
  outbox = null;
  setOwner(null);
  try {
    me = await call("me");
  } catch (error) {
    const isSignedOut = error instanceof Problem && error.status === 401;
    panels.askToken(boot, isSignedOut ? "" : t("signin.noServer"));
    if (!isSignedOut) setTimeout(boot, RETRY_MS);
    return;
  }
  [queue, past, editing, drawnItem] = [[], [], null, ""];
  done.clear();
  me.reasons = labelReasons(me);
  panels.showSession(me);
  setOwner(me);
  outbox = new Outbox({ review: me.review, reviewer: me.reviewer, run: me.run, name: me.name }, handleNotice, showState);
  await outbox.start();
  for (const id of outbox.items()) done.add(id);
  await readHistory();
  await fill();
  progress();
}

applyLook();
translatePage();
panels.showLook(readSetting("look", "auto"));
view.restore();
showHints(keys);
wire();
setInterval(() => { if (me && !document.hidden) progress(); }, PROGRESS_MS);
setInterval(() => { if (me && queue.length) fill(); }, 120_000); // keeps the leases
panels.signInFromAddress().then(boot);
