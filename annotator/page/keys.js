// @ts-check
/** Which key does what: shown in a table, changeable, kept in this browser only. */

import { make, remember, remembered } from "./dom.js";

/** What keys do: name -> [words, key]. */
export const ACTIONS = {
  yes: ["Yes: the object is gone without a trace", "y"],
  no: ["No; then one key for the reason", "n"],
  unsure: ["Unsure", "u"],
  skip: ["Skip: leave it to others", "s"],
  undo: ["Take the last verdict back", "z"],
  flag: ["Flag with a remark", "f"],
  blink: ["Hold to see the picture before", " "],
  view: ["Next view: side by side, slider, single", "v"],
  outline: ["Outline of the mask", "m"],
  heat: ["Differences outside the mask", "d"],
  native: ["Stored size, or all of it", "x"],
  closer: ["Closer", "+"],
  wider: ["Wider", "-"],
  list: ["Your last twenty", "l"],
  guidelines: ["Guidelines", "h"],
  keys: ["This table", "k"],
  look: ["Light, dark, or as the system", "t"],
};

/** Keys that mean one thing everywhere and cannot be given away. */
const FIXED = ["Escape", "Enter", "Tab", "Shift", "Control", "Alt", "Meta", "1", "2", "3", "4", "5", "6"];

/** @param {string} key @returns {string} */
export function keyName(key) {
  const names = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "esc", Backspace: "⌫" };
  return names[/** @type {keyof names} */ (key)] ?? key;
}

/** @param {KeyboardEvent} event @returns {string} */
export function keyOf(event) {
  if (event.key === "=") return "+";
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

/** The keys of this browser. */
export class Keys {
  constructor() {
    /** @type {Record<string, string>} */
    this.map = {};
    const kept = remembered("keys", {});
    for (const [action, [, key]] of Object.entries(ACTIONS)) {
      this.map[action] = typeof kept[action] === "string" && !FIXED.includes(kept[action]) ? kept[action] : key;
    }
    if (new Set(Object.values(this.map)).size < Object.keys(this.map).length) this.reset();
  }

  reset() {
    for (const [action, [, key]] of Object.entries(ACTIONS)) this.map[action] = key;
    remember("keys", {});
  }

  /** What a key does. @param {string} key @returns {string | undefined} */
  action(key) {
    if (key === "Backspace" && !Object.values(this.map).includes(key)) return "undo";
    return Object.keys(this.map).find((action) => this.map[action] === key);
  }

  /**
   * Gives an action another key; who had it gets the old one.
   * @param {string} action
   * @param {string} key
   * @returns {string | null} why not
   */
  change(action, key) {
    if (FIXED.includes(key)) return `${keyName(key)} is taken: it means the same everywhere`;
    const other = this.action(key);
    if (other && other !== action && this.map[other] === key) this.map[other] = this.map[action];
    this.map[action] = key;
    remember("keys", this.map);
    return null;
  }
}

/**
 * Fills the table of keys. A click on a key waits for the new one.
 * @param {HTMLElement} table
 * @param {Keys} keys
 * @param {() => void} changed
 * @param {(words: string) => void} say
 */
export function showKeys(table, keys, changed, say) {
  table.replaceChildren(...Object.entries(ACTIONS).map(([action, [words]]) => {
    const button = make("button", { class: "key", "aria-label": `${words}: ${keyName(keys.map[action])}. Change` },
      keyName(keys.map[action]));
    button.addEventListener("click", () => {
      button.textContent = "press a key";
      button.classList.add("waiting");
      const listen = (/** @type {KeyboardEvent} */ event) => {
        event.preventDefault();
        event.stopImmediatePropagation();
        removeEventListener("keydown", listen, true);
        const problem = event.key === "Escape" ? null : keys.change(action, keyOf(event));
        if (problem) say(problem);
        showKeys(table, keys, changed, say);
        changed();
        /** @type {HTMLElement | undefined} */ (table.querySelectorAll("button")[Object.keys(ACTIONS).indexOf(action)])?.focus();
      };
      addEventListener("keydown", listen, true);
    });
    return make("tr", {}, make("th", { scope: "row" }, words), make("td", {}, button));
  }));
}
