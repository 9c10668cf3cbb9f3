// @ts-check
/** The page's few helpers. Data enters the page as text only. */

/**
 * The element with an id.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * A new element. Attributes are set as attributes, children as nodes or text.
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
 * A setting of this browser; what cannot be read is as if it were not there.
 * @param {string} name
 * @param {any} otherwise
 * @returns {any}
 */
export function remembered(name, otherwise) {
  try {
    const text = localStorage.getItem(`rasura:${name}`);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

/**
 * Keeps a setting in this browser, where it can.
 * @param {string} name
 * @param {any} value
 */
export function remember(name, value) {
  try {
    localStorage.setItem(`rasura:${name}`, JSON.stringify(value));
  } catch { /* private windows keep nothing */ }
}

/** @param {number} value @returns {string} */
export const thousands = (value) => value.toLocaleString("en-US");

const LOOKS = ["auto", "light", "dark"];

/** Puts the kept look on the page: the system's, light or dark. */
export function applyLook() {
  const look = remembered("look", "auto");
  if (look === "auto") delete document.documentElement.dataset.look;
  else document.documentElement.dataset.look = look;
}

/** The next look. @returns {string} */
export function nextLook() {
  const look = LOOKS[(LOOKS.indexOf(remembered("look", "auto")) + 1) % LOOKS.length];
  remember("look", look);
  applyLook();
  return look;
}
