// @ts-check
/** Helpers of both pages. Data enters the page as text only. */

/**
 * Returns the element with an id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/**
 * Makes an element. Attributes are set as attributes, children as nodes or text.
 * @param {string} tag
 * @param {Record<string, string | number | boolean | null | undefined>} [attributes]
 * @param {...(Node | string | number | null | undefined)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "rect", "circle", "line", "text", "g", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child !== null && child !== undefined) node.append(typeof child === "number" ? String(child) : child);
  }
  return node;
}

/**
 * Reads a setting of this browser; one that cannot be read counts as missing.
 * @param {string} name
 * @param {any} fallback
 * @returns {any}
 */
export function readSetting(name, fallback) {
  try {
    const text = localStorage.getItem(`rasura:${name}`);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

/**
 * Saves a setting in this browser, where that is allowed.
 * @param {string} name
 * @param {any} value
 */
export function saveSetting(name, value) {
  try {
    localStorage.setItem(`rasura:${name}`, JSON.stringify(value));
  } catch { /* private windows save nothing */ }
}

/** @param {number} value @returns {string} */
export const thousands = (value) => value.toLocaleString("en-US");

/** Returns a number with so many decimals, and a minus sign in place of a hyphen. @param {number} value @param {number} digits @returns {string} */
export const decimal = (value, digits) => value.toFixed(digits).replace("-", "\u2212");

const LOOKS = ["auto", "light", "dark"];

/** Applies the saved look: the system's, light or dark. */
export function applyLook() {
  const look = readSetting("look", "auto");
  if (look === "auto") delete document.documentElement.dataset.look;
  else document.documentElement.dataset.look = look;
}

/** Applies and saves the next look. @returns {string} */
export function nextLook() {
  const look = LOOKS[(LOOKS.indexOf(readSetting("look", "auto")) + 1) % LOOKS.length];
  saveSetting("look", look);
  applyLook();
  return look;
}

/** Calls back after the next frame is on the screen. @param {() => void} then */
export function afterPaint(then) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = then;
    channel.port2.postMessage(null);
  });
}
