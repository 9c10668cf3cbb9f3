// @ts-check
/** The page's texts in the language of the browser. Every language has one file, with the same keys. */

import en from "./en.js";
import zh from "./zh-cn.js";

/** @typedef {Record<string, string | [string, string]>} Texts a pair has the text for one, and that for other numbers */

/** @type {Record<string, Texts>} */
export const LANGUAGES = { en, "zh-CN": zh };

/**
 * Chooses the language: a Chinese browser gets simplified Chinese, every other one English.
 * @param {readonly string[]} wanted the browser's languages, the best first
 * @returns {string}
 */
export function chooseLanguage(wanted) {
  for (const language of wanted) {
    if (/^zh\b/i.test(language)) return "zh-CN";
    if (/^en\b/i.test(language)) return "en";
  }
  return "en";
}

export const language = chooseLanguage(navigator.languages ?? [navigator.language]);
const texts = LANGUAGES[language];

/**
 * Returns a text, with values in place of `{names}`. A pair is chosen by the value `count`.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 * @returns {string}
 */
export function t(key, values = {}) {
  const text = texts[key] ?? en[key];
  if (text === undefined) throw new Error(`there is no text '${key}'`);
  const chosen = Array.isArray(text) ? text[values.count === 1 || values.count === "1" ? 0 : 1] : text;
  return chosen.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Returns the text of a key where there is one, else the fallback. @param {string} key @param {string} fallback */
export const textOr = (key, fallback) => (key in en ? t(key) : fallback);

/**
 * Puts a text into an element, with **bold** parts, and `[key]` as the key of an action.
 * @param {Element} node
 * @param {string} key
 */
function fillRich(node, key) {
  node.replaceChildren(...t(key).split(/(\*\*.+?\*\*|\[\w+\])/).filter(Boolean).map((part) => {
    const isBold = part.startsWith("**"), isKey = /^\[\w+\]$/.test(part);
    if (!isBold && !isKey) return part;
    const element = document.createElement(isBold ? "b" : "kbd");
    if (isBold) element.textContent = part.slice(2, -2);
    else element.dataset.key = part.slice(1, -1);
    return element;
  }));
}

/** Fills the elements of a page that name their texts: `data-text`, `data-rich`, `data-text-<attribute>`. @param {ParentNode} [root] */
export function translatePage(root = document) {
  document.documentElement.lang = language;
  for (const node of root.querySelectorAll("[data-rich]")) fillRich(node, /** @type {HTMLElement} */ (node).dataset.rich ?? "");
  for (const node of root.querySelectorAll("[data-text]")) {
    node.textContent = t(/** @type {HTMLElement} */ (node).dataset.text ?? "");
  }
  for (const [data, attribute] of [["textLabel", "aria-label"], ["textTitle", "title"], ["textPlaceholder", "placeholder"], ["textEmpty", "data-empty"]]) {
    const name = `data-${data.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    for (const node of root.querySelectorAll(`[${name}]`)) node.setAttribute(attribute, t(node.getAttribute(name) ?? ""));
  }
}
