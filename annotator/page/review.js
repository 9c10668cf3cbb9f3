// @ts-check
/** The review page: the queue, verdicts, keys and buttons. */

import { call, nonce, Problem, setOwner } from "./api.js";
import { afterPaint, applyLook, byId, nextLook, readSetting } from "./dom.js";
import { Keys, listenToKeys, showHints, showKeys } from "./keys.js";
import { showOutbox, signOut, store } from "./outbox/notes.js";
import { Outbox } from "./outbox/outbox.js";
import * as panels from "./panels.js";
import { Pictures } from "./pictures.js";
import { correctItem, flagItem } from "./tasks/actions.js";
import { Screen } from "./tasks/screen.js";
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
let running = 0; // works on verdicts that have not ended
let choosing = false; // the reason of a no is to be chosen
let filling = false;

const view = new View(byId("canvas"), () => { showView(); sharpen(); });

/** Returns the item that is being judged. @returns {Item | null} */
const current = () => editing ?? queue[0] ?? null;

// --- the queue

async function fill() {
  if (filling || !outbox) return;
  filling = true;
  /** @type {any} */
  let problem = null;
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
    problem = error;
    setTimeout(fill, RETRY_MS);
  }
  filling = false;
  show();
  if (problem && !problem.isTemporary && !current()) panels.showNothing("refused", fill, problem.message);
  else if (problem) {
    reportProblem(problem);
    if (!current()) {
      panels.showNothing(null);
      panels.showLoading("away");
    }
  }
  preload();
}

async function preload() {
  for (const item of queue.slice(0, AHEAD)) {
    try {
      await pictures.get(item);
    } catch { /* reported when the item is shown */ }
  }
}

const screen = new Screen(view, pictures, {
  current,
  name: () => `${current()?.id} ${editing ? "again" : ""}`,
  isRunning: () => running > 0,
  onDrawn: () => { showView(); sharpen(); },
  onSkip: () => judge("skip"),
});

function show() {
  panels.showEditing(editing, me?.reasons ?? {});
  screen.show();
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

/** Works on the verdicts after all earlier work has ended. @param {() => Promise<void>} work */
function run(work) {
  running += 1;
  screen.showBusy();
  giving = giving.then(work).catch(reportProblem).then(() => { running -= 1; screen.showBusy(); });
}

/** Returns true where the current item can be judged; says why it cannot. @param {boolean} [isSkip] an item can be skipped unseen */
function isReady(isSkip = false) {
  if (current() && outbox && !running && (isSkip || screen.isPainted())) return true;
  screen.pressedAt = 0;
  if (current()) panels.showMessage(t("loading.notTaken"));
  return false;
}

/** @param {string} verdict yes, no, unsure or skip @param {string | null} [reason] */
function judge(verdict, reason = null) {
  const item = current();
  if (!isReady(verdict === "skip") || !item) return;
  if (verdict === "no" && !reason) {
    choose(true);
    return;
  }
  choose(false);
  screen.pressedAt ||= performance.now();
  const body = { item: item.id, nonce: nonce(), verdict, reason, seconds: screen.seconds(), guidelines: me.guidelines };
  run(() => give(item, body));
}

/** Stores a verdict, and then shows it as given. @param {Item} item @param {{verdict: string, reason: string | null}} body */
async function give(item, body) {
  const { verdict, reason } = body;
  if (!outbox) return;
  if (!await store(outbox, "votes", body, item.label)) {
    screen.pressedAt = 0;
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
  if (!queue.length) fill();
  afterPaint(() => {
    panels.listVerdicts(past, me.reasons, edit);
    preload();
  });
}

/** Takes an item that was judged from the queue. @param {string} id */
function leave(id) {
  if (current()?.id === id) screen.clear();
  done.add(id);
  queue = queue.filter((queued) => queued.id !== id);
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
  screen.clear();
  panels.listVerdicts(past, me.reasons, edit);
  show();
}

/** @param {PastVerdict} entry */
function edit(entry) {
  choose(false);
  editing = entry;
  screen.clear();
  show();
  byId("stage").focus({ preventScroll: true });
}

function stopEditing() {
  editing = null;
  screen.clear();
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
    panels.askToken(boot, t("signin.out"));
  }
}

async function progress() {
  try {
    panels.showProgress(await call("progress"), outbox?.waiting.length ?? 0);
    panels.reloadThumbnails();
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
  undo: () => run(takeBack),
  flag: () => flagItem(outbox, current()),
  correct: () => { if (isReady()) correctItem(me, current, judge); },
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
      screen.pressedAt = at;
      judge("no", reason);
      return true;
    },
    onAction: (action, at) => { screen.pressedAt = at; actions[action](); },
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
    onAction: (action, at) => { screen.pressedAt = at; actions[action](); },
    onReason: (reason, at) => { screen.pressedAt = at; judge("no", reason); },
  });
  holdButton(byId("hold"), view);
  byId("divider").addEventListener("input", (/** @type {any} */ event) => view.moveDivider(event.target.value / 100));
  byId("no-reason").addEventListener("click", () => choose(false));
  byId("stop-editing").addEventListener("click", stopEditing);
  byId("reset-keys").addEventListener("click", () => { keys.reset(); showTable(); showHints(keys); });
  byId("signout").addEventListener("click", () => signOut(outbox));
  listen(view, (verdict) => { screen.pressedAt = performance.now(); judge(verdict); }, panels.showSwipe);
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
  [queue, past, editing] = [[], [], null];
  screen.clear();
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
