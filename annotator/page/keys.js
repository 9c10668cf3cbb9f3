// @ts-check
/** Keys and their actions: shown in a table, changeable, saved in this browser only. */

import { make, saveSetting, readSetting } from "./dom.js";
import { t } from "./texts/texts.js";

/** Actions of keys: name -> key. */
export const ACTIONS = {
  yes: "y",
  no: "n",
  unsure: "u",
  skip: "s",
  undo: "z",
  correct: "c",
  flag: "f",
  blink: " ",
  view: "v",
  outline: "m",
  heat: "d",
  native: "x",
  closer: "+",
  wider: "-",
  list: "l",
  guidelines: "h",
  keys: "k",
  look: "t",
  ...Object.fromEntries(["1", "2", "3", "4", "5", "6", "7", "8", "9"].map((key) => [`reason${key}`, key])),
};

/** Keys whose meaning is fixed, and what is no key of its own. */
const FIXED = ["Escape", "Enter", "Tab", "Shift", "Control", "Alt", "AltGraph", "Meta", "Dead", "Process", "Unidentified"];
const REPEATED = ["closer", "wider"];
/** Keys that begin a verdict, whose effect is timed. */
const TIMED = ["yes", "unsure", "skip"];

/** @param {string} key @returns {string} */
export function nameKey(key) {
  const names = { " ": t("key.space"), ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "esc", Backspace: "⌫" };
  return names[/** @type {keyof names} */ (key)] ?? key;
}

/**
 * Returns the letter or digit that a key has on a Latin layout, by its place on the keyboard.
 * @param {string} code
 * @returns {string | null}
 */
function getLatinKey(code) {
  const match = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(code);
  return match ? match[1].toLowerCase() : { Minus: "-", Equal: "+", Space: " " }[code] ?? null;
}

/**
 * Returns the name of a key: what it types, or where that is no Latin letter (Cyrillic, Greek, a dead key), what the
 * same place has on a Latin layout.
 * @param {KeyboardEvent} event
 * @returns {string}
 */
export function getKey({ key, code }) {
  if (key === "=") return "+";
  if (/^[ -~]$/.test(key)) return key.toLowerCase();
  const isLetter = key.length === 1 || key === "Dead" || key === "Unidentified";
  return (isLetter && getLatinKey(code)) || (key.length === 1 ? key.toLowerCase() : key);
}

/**
 * Explains why a key cannot be understood; null where it can.
 * @param {KeyboardEvent} event
 * @returns {string | null}
 */
export function explainKey(event) {
  if (event.isComposing || event.key === "Process" || event.keyCode === 229) {
    return t("keys.inputMethod");
  }
  const isAltGr = event.getModifierState("AltGraph") || (event.ctrlKey && event.altKey);
  return isAltGr && event.key.length === 1 ? t("keys.altGr") : null;
}

/** The keys of this browser. */
export class Keys {
  constructor() {
    /** @type {Record<string, string>} */
    this.map = {};
    const saved = readSetting("keys", {});
    for (const [action, key] of Object.entries(ACTIONS)) {
      this.map[action] = typeof saved[action] === "string" && !FIXED.includes(saved[action]) ? saved[action] : key;
    }
    if (new Set(Object.values(this.map)).size < Object.keys(this.map).length) this.reset();
  }

  reset() {
    for (const [action, key] of Object.entries(ACTIONS)) this.map[action] = key;
    saveSetting("keys", {});
  }

  /** Returns the action of a key. @param {string} key @returns {string | undefined} */
  action(key) {
    if (key === "Backspace" && !Object.values(this.map).includes(key)) return "undo";
    return Object.keys(this.map).find((action) => this.map[action] === key);
  }

  /**
   * Returns the number of the reason that a key stands for, from 0; a digit also where the layout has it with shift.
   * @param {KeyboardEvent} event
   * @returns {number | null}
   */
  reason(event) {
    for (const key of [getKey(event), getLatinKey(event.code)]) {
      const action = key === null ? undefined : this.action(key);
      if (action?.startsWith("reason")) return Number(action.slice(6)) - 1;
    }
    return null;
  }

  /**
   * Gives an action another key; the action that had it gets the old one.
   * @param {string} action
   * @param {string} key
   * @returns {string | null} the reason where it is refused
   */
  change(action, key) {
    if (FIXED.includes(key)) return t("keys.fixed", { key: nameKey(key) });
    const other = this.action(key);
    if (other && other !== action && this.map[other] === key) this.map[other] = this.map[action];
    this.map[action] = key;
    saveSetting("keys", this.map);
    return null;
  }
}

/** Shows on each button the key that it has. @param {Keys} keys */
export function showHints(keys) {
  for (const node of document.querySelectorAll("[data-key]")) {
    node.textContent = nameKey(keys.map[/** @type {HTMLElement} */ (node).dataset.key ?? ""] ?? "");
  }
}

/**
 * Fills the table of keys. After a click on a key, the next key that is pressed replaces it.
 * @param {HTMLElement} table
 * @param {Keys} keys
 * @param {() => void} changed
 * @param {(label: string) => void} report
 */
export function showKeys(table, keys, changed, report) {
  table.replaceChildren(...Object.keys(ACTIONS).map((action) => {
    const label = action.startsWith("reason") ? t("keys.reason", { number: action.slice(6) }) : t(`keys.${action}`);
    const button = make("button", { class: "key", "aria-label": t("keys.change", { label, key: nameKey(keys.map[action]) }) },
      nameKey(keys.map[action]));
    button.addEventListener("click", () => {
      button.textContent = t("keys.press");
      button.classList.add("waiting");
      const listen = (/** @type {KeyboardEvent} */ event) => {
        event.preventDefault();
        event.stopImmediatePropagation();
        removeEventListener("keydown", listen, true);
        const problem = event.key === "Escape" ? null : keys.change(action, getKey(event));
        if (problem) report(problem);
        showKeys(table, keys, changed, report);
        changed();
        /** @type {HTMLElement | undefined} */ (table.querySelectorAll("button")[Object.keys(ACTIONS).indexOf(action)])?.focus();
      };
      addEventListener("keydown", listen, true);
    });
    return make("tr", {}, make("th", { scope: "row" }, label), make("td", {}, button));
  }));
}

/**
 * Listens to the keyboard.
 * @param {Keys} keys
 * @param {object} page
 * @param {() => boolean} page.isOpen true where keys are for the pictures: signed in, no dialog
 * @param {() => boolean} page.isChoosing true where a reason is to be chosen
 * @param {(index: number, at: number) => boolean} page.onReason gives a reason; false where there is none of that number
 * @param {(action: string, at: number) => void} page.onAction at is the time of the press where that is to be measured, else 0
 * @param {(on: boolean) => void} page.onBlink
 * @param {() => boolean} page.onEscape returns true where it had an effect
 * @param {(key: string) => void} page.onArrow
 * @param {(hint: string) => void} page.onHint
 */
export function listenToKeys(keys, page) {
  addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (!page.isOpen() || target.matches?.("input:not([type=range]), textarea")) return;
    const hint = explainKey(event);
    if (hint) {
      page.onHint(hint);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = getKey(event), action = keys.action(key);
    const reason = page.isChoosing() && !event.repeat ? keys.reason(event) : null;
    if (reason !== null && page.onReason(reason, event.timeStamp)) event.preventDefault();
    else if (key === "Escape") {
      if (page.onEscape()) event.preventDefault();
    } else if (action === "blink") {
      if (target.matches?.("button, a, input")) return; // space presses the element that has the focus
      event.preventDefault();
      page.onBlink(true);
    } else if (action && !action.startsWith("reason")) {
      event.preventDefault();
      if (event.repeat && !REPEATED.includes(action)) return;
      page.onAction(action, TIMED.includes(action) ? event.timeStamp : 0);
    } else if (key.startsWith("Arrow") && !target.matches?.("input")) {
      event.preventDefault();
      page.onArrow(key);
    }
  });
  addEventListener("keyup", (event) => { if (keys.action(getKey(event)) === "blink") page.onBlink(false); });
  addEventListener("blur", () => page.onBlink(false));
}
