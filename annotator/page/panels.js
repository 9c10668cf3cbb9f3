// @ts-check
/** The parts of the page around the pictures: progress, the list, messages, dialogs. */

import { call } from "./api.js";
import { byId, make, readSetting, saveSetting, thousands } from "./dom.js";
import { showKept } from "./outbox/kept.js";
import { describeItem, showWording } from "./tasks/tasks.js";
import { t } from "./texts/texts.js";

const NARROW = 130; // px of a picture, below which two tags do not fit beside each other
const TAG_HEIGHT = 26;
const LOW = 110; // px of a picture's height on the screen, below which tags are above it
let votes = 0;

// --- signing in

/** Signs in with the token of a link, and removes it from the address. @returns {Promise<void>} */
export async function signInFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  await call("login", { token }).catch(() => {});
}

/** Asks for a token. @param {() => void} then called when the reviewer is signed in @param {string} reason */
export function askToken(then, reason) {
  byId("app").hidden = true;
  byId("signin").hidden = false;
  byId("signin-problem").textContent = reason;
  showKept();
  byId("token").focus();
  byId("signin").onsubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    try {
      await call("login", { token: byId("token").value.trim().replace(/^.*#token=/, "") });
      byId("token").value = "";
      then();
    } catch (error) {
      byId("signin-problem").textContent = `${/** @type {Error} */ (error).message}.`.replace(/^./, (c) => c.toUpperCase());
    }
  };
}

/** @param {any} me */
export function showSession(me) {
  byId("signin").hidden = true;
  byId("app").hidden = false;
  byId("run").textContent = me.run;
  byId("signout").title = t("signin.as", { name: me.name });
  byId("to-admin").hidden = !me.admin;
  byId("to-team").hidden = !(me.admin || me.expert);
  showWording(me);
  document.title = `${me.run} · Rasura`;
  setListVisible(readSetting("list", innerWidth >= 700));
}

// --- progress

/** @param {any} answer @param {number} unsent */
export function showProgress(answer, unsent) {
  const { mine, team } = answer;
  votes = mine.votes + unsent;
  byId("bar").max = Math.max(1, team.total);
  byId("bar").value = team.verdicts;
  const numbers = { count: team.total, verdicts: thousands(team.verdicts), all: thousands(team.total) };
  byId("round").textContent = t(team.finished ? "progress.finished" : team.is_limit ? "progress.most" : "progress.about", numbers);
  const pace = { number: thousands(Math.round(mine.per_hour ?? 0)), seconds: mine.median_seconds?.toFixed(1) ?? "" };
  byId("pace").textContent = mine.per_hour ? t(mine.median_seconds === null ? "progress.pace" : "progress.paceEach", pace) : "";
  addVotes(0);
  if (byId("nothing").dataset.why === "empty") byId("nothing").children[1].textContent = describeRest(team);
}

/** Says what is left for others. Numbers would tell candidates from items with a known answer. @param {{finished: boolean, alone: boolean}} team @returns {string} */
function describeRest({ finished, alone }) {
  return `${t(finished ? "nothing.done" : alone ? "nothing.alone" : "nothing.others")} ${t("nothing.again")}`;
}

/** @param {number} more of the reviewer's verdicts */
export function addVotes(more) {
  votes = Math.max(0, votes + more);
  byId("mine").textContent = t("progress.mine", { number: thousands(votes) });
}

// --- the item

/** @param {import("./tasks/tasks.js").Item | null} item */
export function showLabel(item) {
  byId("what").textContent = describeItem(item);
}

/** @param {import("./view.js").View} view */
export function showView(view) {
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.mode === view.mode));
  }
  for (const name of /** @type {const} */ (["outline", "heat"])) {
    document.querySelector(`[data-action=${name}]`)?.setAttribute("aria-pressed", String(view[name]));
  }
  byId("divider-label").hidden = view.mode !== "slider";
  byId("divider").value = Math.round(100 * view.divider);
  const scale = Math.round(100 * view.scale());
  byId("zoom").textContent = view.zoom === 1 ? t("view.fit") : `${scale} %`;
  byId("zoom").setAttribute("aria-label", t(view.zoom === 1 ? "view.zoomFit" : "view.zoomScale", { scale }));
  const shown = view.shown;
  const tags = [byId("tag-one"), byId("tag-two")];
  for (const tag of tags) tag.hidden = true;
  if (!shown) return;
  const panes = view.panes();
  const names = { source: t("view.before"), result: t("view.after") };
  const place = (/** @type {HTMLElement} */ tag, /** @type {string} */ words, /** @type {number} */ x, /** @type {{y: number, h: number}} */ picture, below = 0, lift = 0, top = 0) => {
    tag.hidden = false;
    tag.textContent = words;
    const isLow = picture.h < LOW && picture.y - top > TAG_HEIGHT + lift + below; // it would cover much of the picture: above that there is room
    tag.style.transform = `translate(${x + 8}px, ${(isLow ? picture.y - TAG_HEIGHT - lift : Math.max(0, picture.y) + 8 + below)}px)`;
  };
  if (panes[0].what === "both") {
    const at = view.place(panes[0].box), left = Math.max(0, at.x), right = Math.min(view.width, at.x + at.w);
    const below = right - left < NARROW ? TAG_HEIGHT : 0; // beside each other they would cover each other
    place(tags[0], names.source, left, at, 0, below);
    if (!view.blinking) place(tags[1], names.result, below ? left : right - 58, at, below);
  } else {
    panes.forEach(({ box, what }, index) => {
      const at = view.place(box);
      const shows = view.blinking && what === "result" ? "source" : what;
      place(tags[index], names[/** @type {"source" | "result"} */ (shows)], Math.max(box.x, at.x), { y: Math.max(box.y, at.y), h: at.h }, 0, 0, box.y);
      tags[index].classList.toggle("now", view.blinking && what === "result");
    });
  }
  byId("canvas").setAttribute("aria-label",
    t("view.shown", { what: t(`view.${view.mode === "side" ? "both" : view.blinking ? "before" : view.mode === "slider" ? "divided" : "after"}`),
      width: shown.width, height: shown.height }));
  const note = byId("heat-note");
  note.hidden = !view.heat || !shown.heat;
  if (shown.heat) {
    const share = (100 * shown.heat.changed) / Math.max(1, shown.heat.outside);
    note.textContent = shown.heat.changed === 0 ? t("view.unchanged")
      : t("view.changed", { share: share < 0.1 ? share.toPrecision(1) : share.toFixed(1), largest: shown.heat.largest });
  }
}

/**
 * Shows a message in place of the picture.
 * @param {"empty" | "refused" | "unreadable" | null} why null: removes it
 * @param {() => void} [then]
 * @param {string} [detail]
 */
export function showNothing(why, then, detail = "") {
  const node = byId("nothing");
  node.hidden = !why;
  node.dataset.why = why ?? "";
  if (!why) return;
  const [title, text, button] = why === "unreadable"
    ? [t("unreadable.title"), t("unreadable.text", { detail }), t("unreadable.skip")]
    : [t("nothing.title"), detail || t("nothing.again"), t("rank.again")];
  node.children[0].textContent = title;
  node.children[1].textContent = text;
  node.children[2].textContent = button;
  node.children[2].onclick = then ?? null;
}

/** Says in place of the pictures what they wait for. @param {"loading" | "away" | null} what null: they are there */
export function showLoading(what) {
  byId("loading").hidden = !what;
  if (what) byId("loading").textContent = t(`loading.${what}`);
}

/** @param {any} entry @param {Record<string, string>} reasons */
export function showEditing(entry, reasons) {
  const node = byId("editing");
  node.hidden = !entry;
  if (!entry) return;
  const why = entry.reason ? ` (${reasons[entry.reason] ?? entry.reason})` : "";
  node.firstElementChild.textContent = t("editing.said", { verdict: t(`said.${entry.verdict ?? "skip"}`), more: `${why}${describeResult(entry)}` });
}

/** Describes what was hidden before the vote. @param {any} entry @returns {string} */
function describeResult(entry) {
  if (!entry.result) return "";
  const others = Object.entries(entry.result.others ?? {}).map(([verdict, number]) => `${number} ${t(`said.${verdict}`)}`).join(", ");
  const score = entry.result.score === null || entry.result.score === undefined ? "" : `; ${t("cards.score", { score: entry.result.score.toFixed(2) })}`;
  return `${score}${others ? `; ${t("editing.others", { others })}` : ""}`;
}

// --- the list of the last twenty

/** @param {any[]} past @param {Record<string, string>} reasons @param {(entry: any) => void} edit */
export function listVerdicts(past, reasons, edit) {
  const node = byId("list"), existing = new Map([...node.children].map((child) => [child.dataset.id, child]));
  node.replaceChildren(...past.map((entry) => {
    const verdict = entry.verdict ?? "skip", why = entry.reason ? `: ${reasons[entry.reason] ?? entry.reason}` : "";
    const label = `${t(`verdict.${verdict}`)}${why}${describeResult(entry)}${entry.label ? ` (${entry.label})` : ""}`;
    const item = existing.get(entry.id) ?? make("li", { "data-id": entry.id }, make("button", {}, makeThumbnail(entry.id), make("span", {})));
    const button = item.firstElementChild;
    button.className = verdict;
    button.title = label;
    button.setAttribute("aria-label", t("list.change", { label }));
    button.onclick = () => edit(entry);
    return item;
  }));
}

/** Makes the small picture of an item, of which nothing is shown while it cannot be loaded. @param {string} id */
function makeThumbnail(id) {
  const picture = make("img", { src: `/api/pictures/${id}/result?size=thumb`, alt: "", loading: "lazy", width: 64, height: 48 });
  for (const [event, isMissing] of /** @type {[string, boolean][]} */ ([["error", true], ["load", false]])) {
    picture.addEventListener(event, () => picture.classList.toggle("missing", isMissing));
  }
  return picture;
}

/** Asks again for the small pictures that could not be loaded. */
export function reloadThumbnails() {
  for (const picture of byId("list").querySelectorAll("img")) {
    if (picture.complete && !picture.naturalWidth) picture.src = picture.src;
  }
}

/** @param {boolean} on */
function setListVisible(on) {
  byId("app").classList.toggle("listed", on);
  byId("open-list").setAttribute("aria-expanded", String(on));
}

export function toggleList() {
  const on = !byId("app").classList.contains("listed");
  saveSetting("list", on);
  setListVisible(on);
}

// --- messages and dialogs

let clearing = 0;

/** @param {string} text @param {string} [kind] */
export function showMessage(text, kind = "") {
  clearTimeout(clearing);
  byId("message").textContent = text;
  byId("message").className = kind;
  clearing = setTimeout(() => { byId("message").textContent = ""; }, kind ? 6000 : 4000);
}

/** @param {{expected: string, right: boolean} | null} answer @param {string} [verdict] */
export function showKnownAnswer(answer, verdict = "") {
  if (!answer) {
    if (byId("message").className) byId("message").textContent = "";
    return;
  }
  const words = { expected: t(`said.${answer.expected}`), verdict: t(`said.${verdict || "skip"}`) };
  showMessage(t(answer.right ? "known.right" : "known.wrong", words), answer.right ? "right" : "wrong");
}

/** @param {string} verdict @param {number} share @param {number} dx @param {number} dy */
export function showSwipe(verdict, share, dx, dy) {
  const node = byId("swipe"), canvas = byId("canvas");
  node.hidden = share <= 0.1;
  node.className = verdict;
  node.classList.toggle("sure", share >= 1);
  node.textContent = verdict ? t(`verdict.${verdict}`) : "";
  canvas.style.transform = share > 0 ? (verdict === "unsure" ? `translateY(${dy / 2}px)` : `translateX(${dx / 2}px)`) : "";
  canvas.style.opacity = String(1 - 0.35 * share);
}

/** @param {string} look */
export function showLook(look) {
  byId("look").textContent = t(`look.${look}`);
}

/** @returns {Promise<string>} the remark; empty where it was cancelled */
export function askRemark() {
  const dialog = byId("flag");
  byId("remark").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    let text = "";
    byId("flag-form").onsubmit = (/** @type {Event} */ event) => {
      event.preventDefault();
      text = byId("remark").value.trim();
      dialog.close();
    };
    byId("remark").onkeydown = (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("flag-form").requestSubmit();
    };
    byId("flag-cancel").onclick = () => dialog.close();
    dialog.onclose = () => resolve(text);
  });
}

let examplesShown = false;

/** @param {import("./pictures.js").Pictures} pictures @param {Record<string, string>} reasons */
export async function showGuidelines(pictures, reasons) {
  byId("guidelines").showModal();
  if (examplesShown) return;
  examplesShown = true;
  const { items } = await call("examples").catch(() => ({ items: [] }));
  const order = ["target", "untouched", "hallucinated", "blur", "shadow", "leak"];
  items.sort((/** @type {any} */ a, /** @type {any} */ b) => order.indexOf(a.variant) - order.indexOf(b.variant));
  byId("examples").replaceChildren(...items.map((/** @type {any} */ item) => {
    const label = item.verdict === "yes" ? t("said.yes") : `${t("said.no")}: ${reasons[item.reason] ?? item.reason}`;
    return make("li", { class: item.verdict }, make("figure", {},
      make("img", { src: `/api/pictures/${item.id}/result?size=view`, alt: t("guide.example", { label }) }),
      make("figcaption", {}, label)));
  }));
}
