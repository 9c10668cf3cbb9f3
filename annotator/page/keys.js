// @ts-check
/** Keys and their actions: shown in a table, changeable, saved in this browser only. */

import { make, saveSetting, readSetting } from "./dom.js";

/** Actions of keys: name -> [label, key]. */
export const ACTIONS = {
  yes: ["Yes: the object is gone without a trace", "y"],
  no: ["No; then one key for the reason", "n"],
  unsure: ["Unsure", "u"],
  skip: ["Skip: leave it to others", "s"],
  undo: ["Take back the last verdict", "z"],
  flag: ["Flag with a remark", "f"],
  blink: ["Hold to see the picture before", " "],
  view: ["Next view: side by side, slider, single", "v"],
  outline: ["Outline of the mask", "m"],
  heat: ["Differences outside the mask", "d"],
  native: ["Stored size, or the complete picture", "x"],
  closer: ["Zoom in", "+"],
  wider: ["Zoom out", "-"],
  list: ["Your last twenty verdicts", "l"],
  guidelines: ["Guidelines", "h"],
  keys: ["This table", "k"],
  look: ["Light, dark, or like the system", "t"],
};

/** Keys whose meaning is fixed. */
const FIXED = ["Escape", "Enter", "Tab", "Shift", "Control", "Alt", "Meta", "1", "2", "3", "4", "5", "6"];

/** @param {string} key @returns {string} */
export function nameKey(key) {
  const names = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "esc", Backspace: "⌫" };
  return names[/** @type {keyof names} */ (key)] ?? key;
}

/** @param {KeyboardEvent} event @returns {string} */
export function getKey(event) {
  if (event.key === "=") return "+";
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

/** The keys of this browser. */
export class Keys {
  constructor() {
    /** @type {Record<string, string>} */
    this.map = {};
    const saved = readSetting("keys", {});
    for (const [action, [, key]] of Object.entries(ACTIONS)) {
      this.map[action] = typeof saved[action] === "string" && !FIXED.includes(saved[action]) ? saved[action] : key;
    }
    if (new Set(Object.values(this.map)).size < Object.keys(this.map).length) this.reset();
  }

  reset() {
    for (const [action, [, key]] of Object.entries(ACTIONS)) this.map[action] = key;
    saveSetting("keys", {});
  }

  /** Returns the action of a key. @param {string} key @returns {string | undefined} */
  action(key) {
    if (key === "Backspace" && !Object.values(this.map).includes(key)) return "undo";
    return Object.keys(this.map).find((action) => this.map[action] === key);
  }

  /**
   * Gives an action another key; the action that had it gets the old one.
   * @param {string} action
   * @param {string} key
   * @returns {string | null} the reason where it is refused
   */
  change(action, key) {
    if (FIXED.includes(key)) return `${nameKey(key)} cannot be changed: its meaning is fixed`;
    const other = this.action(key);
    if (other && other !== action && this.map[other] === key) this.map[other] = this.map[action];
    this.map[action] = key;
    saveSetting("keys", this.map);
    return null;
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
  table.replaceChildren(...Object.entries(ACTIONS).map(([action, [label]]) => {
    const button = make("button", { class: "key", "aria-label": `${label}: ${nameKey(keys.map[action])}. Change` },
      nameKey(keys.map[action]));
    button.addEventListener("click", () => {
      button.textContent = "press a key";
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
