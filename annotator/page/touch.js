// @ts-check
/** Mouse, pen and fingers on the pictures: drag, wheel, pinch, hold, swipe; and the buttons. */

import { byId } from "./dom.js";

/** @typedef {import("./view.js").View} View */

const HOLD_MS = 220; // a finger that rests this long shows the picture before
const STILL = 9; // px that a resting finger may move
const NEAR = 26; // px around the divider in which it can be dragged
const SWIPE = 0.22; // of the width, or of the height upwards

/**
 * Listens to the pointer: drags, zooms and swipes.
 * @param {View} view
 * @param {(verdict: "yes" | "no" | "unsure") => void} onVerdict
 * @param {(verdict: string, share: number, dx: number, dy: number) => void} onSwipe shows the progress of a swipe; share 0 ends it
 */
export function listen(view, onVerdict, onSwipe) {
  const { canvas } = view;
  /** @type {Map<number, {x: number, y: number}>} */
  const down = new Map();
  let kind = "", startX = 0, startY = 0, spread = 0, timer = 0, lastTap = 0;

  const getPoint = (/** @type {PointerEvent | WheelEvent | MouseEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const nearDivider = (/** @type {number} */ x) =>
    view.mode === "slider" && Math.abs(x - view.divider * view.width) < NEAR;
  const getVerdict = (/** @type {number} */ dx, /** @type {number} */ dy) =>
    -dy > Math.abs(dx) ? "unsure" : dx > 0 ? "yes" : "no";
  const getShare = (/** @type {number} */ dx, /** @type {number} */ dy) =>
    Math.min(1, getVerdict(dx, dy) === "unsure" ? -dy / (SWIPE * view.height) : Math.abs(dx) / (SWIPE * view.width));

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    const point = getPoint(event);
    try { canvas.setPointerCapture(event.pointerId); } catch { /* the pointer has left already */ }
    down.set(event.pointerId, point);
    clearTimeout(timer);
    if (down.size === 2) {
      const [a, b] = [...down.values()];
      spread = Math.hypot(a.x - b.x, a.y - b.y);
      if (kind === "swipe") onSwipe("", 0, 0, 0);
      view.blink(false);
      kind = "pinch";
      return;
    }
    [startX, startY] = [point.x, point.y];
    const touch = event.pointerType !== "mouse";
    if (nearDivider(point.x) || (view.mode === "slider" && view.zoom === 1 && !touch)) {
      kind = "divider";
      view.moveDivider(point.x / view.width);
    } else if (view.zoom > 1) kind = "pan";
    else if (touch) {
      kind = "swipe";
      timer = setTimeout(() => { kind = "hold"; view.blink(true); }, HOLD_MS);
    } else kind = "";
  });

  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId), point = getPoint(event);
    if (!before) {
      canvas.style.cursor = nearDivider(point.x) ? "ew-resize" : view.zoom > 1 ? "grab" : "";
      return;
    }
    down.set(event.pointerId, point);
    if (kind === "pinch" && down.size === 2) {
      const [a, b] = [...down.values()], wide = Math.hypot(a.x - b.x, a.y - b.y);
      view.pan((point.x - before.x) / 2, (point.y - before.y) / 2);
      if (spread > 0) view.zoomBy(wide / spread, (a.x + b.x) / 2, (a.y + b.y) / 2);
      spread = wide;
    } else if (kind === "divider") view.moveDivider(point.x / view.width);
    else if (kind === "pan") view.pan(point.x - before.x, point.y - before.y);
    else if (kind === "swipe") {
      const dx = point.x - startX, dy = point.y - startY;
      if (Math.hypot(dx, dy) > STILL) clearTimeout(timer);
      if (Math.hypot(dx, dy) > STILL) onSwipe(getVerdict(dx, dy), getShare(dx, dy), dx, dy);
    }
  });

  // Without this Chromium sees a fling in a swipe, and swallows the next tap for a second.
  canvas.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });

  const up = (/** @type {PointerEvent} */ event, /** @type {boolean} */ counts) => {
    if (!down.delete(event.pointerId)) return;
    clearTimeout(timer);
    const point = getPoint(event), dx = point.x - startX, dy = point.y - startY;
    if (kind === "hold") view.blink(false);
    if (kind === "swipe") {
      onSwipe("", 0, 0, 0);
      if (counts && getShare(dx, dy) >= 1) onVerdict(/** @type {any} */ (getVerdict(dx, dy)));
    }
    if (counts && event.pointerType !== "mouse" && kind !== "pinch" && Math.hypot(dx, dy) < STILL) {
      if (event.timeStamp - lastTap < 300) view.toggleNative(point.x, point.y);
      lastTap = event.timeStamp;
    }
    if (down.size === 0 || kind !== "pinch") kind = "";
  };
  canvas.addEventListener("pointerup", (event) => up(event, true));
  canvas.addEventListener("pointercancel", (event) => up(event, false));
  canvas.addEventListener("dblclick", (event) => {
    const point = getPoint(event);
    if (matchMedia("(pointer: fine)").matches) view.toggleNative(point.x, point.y);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const point = getPoint(event);
    view.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), point.x, point.y);
  }, { passive: false });
}

/**
 * A button that shows the picture before while it is held, by mouse, finger or key.
 * @param {HTMLElement} button
 * @param {View} view
 */
export function holdButton(button, view) {
  const events = { pointerdown: true, pointerup: false, pointerleave: false, keydown: true, keyup: false, blur: false };
  for (const [name, on] of Object.entries(events)) {
    button.addEventListener(name, (/** @type {any} */ event) => {
      if (!event.key || event.key === " " || event.key === "Enter") view.blink(on);
    });
  }
  for (const node of [button, view.canvas]) node.addEventListener("contextmenu", (event) => event.preventDefault());
}

/**
 * Listens to the buttons that have a view mode, an action or a reason.
 * @param {object} page
 * @param {(mode: string) => void} page.onMode
 * @param {(action: string, at: number) => void} page.onAction
 * @param {(reason: string, at: number) => void} page.onReason
 */
export function listenToButtons({ onMode, onAction, onReason }) {
  document.addEventListener("click", (event) => {
    const button = /** @type {HTMLElement | null} */ (/** @type {HTMLElement} */ (event.target).closest("button"));
    if (!button) return;
    const { mode, action, reason } = button.dataset;
    if (mode) onMode(mode);
    if (action) onAction(action, event.timeStamp);
    if (reason) onReason(reason, event.timeStamp);
    // after a click the focus goes to the pictures, so that space does not press the button again
    if (event.detail && !button.closest("dialog, form")) byId("stage").focus({ preventScroll: true });
  });
}
