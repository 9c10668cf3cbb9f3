// @ts-check
/** What is asked about an item, in the words of the review: reasons, labels, guidelines. */

import { byId, make } from "../dom.js";
import { buildMarkdown } from "../team/markdown.js";
import { t, textOr } from "../texts/texts.js";

/** @typedef {{id: string, label: string | null, dilation: number, task?: string}} Item */

/** Returns the words of the reasons of a no on an item, in the order of their keys. @param {any} me @param {Item | null} item @returns {string[]} */
export function listReasons(me, item) {
  return me.wording.tasks[item?.task ?? "removal"]?.reasons ?? Object.keys(me.reasons);
}

/** Returns the labels of all reasons: an admin's, else those of the page's language. @param {any} me @returns {Record<string, string>} */
export function labelReasons(me) {
  const own = Object.assign({}, ...Object.values(me.wording.tasks).map((/** @type {any} */ task) => task.labels ?? {}));
  return Object.fromEntries(Object.entries(me.reasons).map(([word, label]) => [word, own[word] ?? textOr(`reason.${word}`, label)]));
}

let shownReasons = "";

/** Puts the reasons of an item on the buttons. @param {any} me @param {Item | null} item @param {() => void} showHints */
export function showReasons(me, item, showHints) {
  const words = listReasons(me, item), name = JSON.stringify([words, me.reasons]);
  if (name === shownReasons) return;
  shownReasons = name;
  byId("reason-keys").replaceChildren(...words.map((word, index) =>
    make("button", { "data-reason": word }, me.reasons[word] ?? word, " ", make("kbd", { "data-key": `reason${index + 1}` }))));
  showHints();
}

/** Shows an admin's labels of the verdicts, and guidelines. @param {any} me */
export function showWording(me) {
  for (const word of ["yes", "no", "unsure"]) {
    const label = document.querySelector(`#judge [data-action=${word}] b`);
    if (label) label.textContent = me.wording.labels[word] ?? t(`verdict.${word}`);
  }
  const { guidelines } = me.wording, place = byId("own-guidelines");
  place.hidden = !guidelines;
  byId("page-guidelines").hidden = Boolean(guidelines);
  if (guidelines) place.replaceChildren(...buildMarkdown(guidelines));
}

/** Describes what an item is about, beside its pictures. @param {Item | null} item @returns {string} */
export function describeItem(item) {
  if (!item) return "";
  const task = item.task ?? "removal";
  if (task === "removal") return item.label ? t("item.removal", { label: item.label }) : "";
  return t(`item.${task}`, { label: item.label ?? t("cards.noLabel") });
}
