// @ts-check
/** Correcting a mask: the dialog with its tools, keys and requests. */

import { call, nonce } from "../api.js";
import { afterPaint, make } from "../dom.js";
import { t } from "../texts/texts.js";
import { packMask, unpackMask } from "./bits.js";
import { MaskCanvas } from "./canvas.js";

/** @typedef {"mask" | "foreground_mask"} Part */
/** @typedef {import("./canvas.js").Point} Point */

const TOOLS = [["brush", "b"], ["erase", "e"], ["add", "a"], ["remove", "r"]];
const CLICKS = { add: "add", remove: "erase" };
const CLICK_REACH = 6; // radii of the brush that a click may change around it
const SNAP_SHARE = 0.02; // of the longer side that the outline may move
const LARGEST_BRUSH = 0.15; // of the longer side

/** @param {string} path @returns {Promise<ImageBitmap>} */
async function fetchPicture(path) {
  const answer = await fetch(path, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(t("correct.unreadable"));
  return createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
}

/** @param {ImageBitmap} picture @returns {Uint8Array} */
function readMask(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, picture.width, picture.height), mask = new Uint8Array(data.length / 4);
  for (let i = 0; i < mask.length; i++) mask[i] = data[4 * i] > 127 ? 1 : 0;
  return mask;
}

/**
 * Opens the dialog on an item, and resolves when it is closed.
 * @param {string} item
 * @returns {Promise<Part | null>} the mask that was corrected and stored; null where nothing was
 */
export async function correctMask(item) {
  const dialog = new CorrectionDialog(item);
  document.body.append(dialog.node);
  dialog.node.showModal();
  try {
    await dialog.load("mask");
  } catch (error) {
    dialog.say(String(/** @type {Error} */ (error).message ?? error));
  }
  return dialog.closed;
}

class CorrectionDialog {
  /** @param {string} item */
  constructor(item) {
    this.item = item;
    this.tool = "brush";
    /** @type {Part} */
    this.part = "mask";
    /** @type {Map<string, any>} */
    this.tools = new Map();
    /** @type {Map<string, any>} */
    this.parts = new Map();
    this.steps = 0;
    /** @type {ImageBitmap | null} */
    this.picture = null;
    this.busy = false;
    this.isPainted = false; // before that, nobody can correct it
    this.canClick = false;
    /** @type {Part | null} */
    this.stored = null;
    this.nonce = nonce();
    this.build();
    this.view = new MaskCanvas(this.canvas, () => this.show());
    this.closed = new Promise((resolve) => {
      this.node.addEventListener("close", () => {
        this.view.close();
        this.node.remove();
        resolve(this.stored);
      });
    });
    this.listen();
    this.show();
  }

  build() {
    const button = (/** @type {string} */ key, /** @type {string} */ hint, /** @type {() => void} */ then, /** @type {object} */ more = {}) => {
      const node = make("button", { type: "button", ...more }, t(`correct.${key}`), hint ? " " : "", hint ? make("kbd", {}, hint) : null);
      node.addEventListener("click", then);
      return node;
    };
    this.parts = new Map(["mask", "foreground_mask"].map((part) =>
      [part, button(part, "", () => this.change(/** @type {Part} */ (part)))]));
    this.tools = new Map(TOOLS.map(([tool, key]) => [tool, button(tool, key, () => this.choose(tool))]));
    this.size = make("input", { type: "range", min: 1, max: 100, value: 20, "aria-label": t("correct.size") });
    this.undoButton = button("undo", "z", () => this.view.undo());
    this.redoButton = button("redo", "y", () => this.view.redo());
    this.snapButton = button("snap", "s", () => this.snap());
    this.saveButton = button("save", "⏎", () => this.save(), { class: "primary" });
    this.canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": t("correct.canvas") });
    this.message = make("p", { class: "correct-message", role: "status" });
    this.node = make("dialog", { class: "correct", "aria-labelledby": "correct-title" },
      make("header", {}, make("h2", { id: "correct-title" }, t("correct.title")),
        make("div", { class: "segments", role: "group", "aria-label": t("correct.parts") }, ...this.parts.values()),
        make("div", { class: "buttons" }, this.saveButton, button("cancel", "esc", () => this.node.close()))),
      make("div", { class: "tools", role: "toolbar", "aria-label": t("correct.tools") },
        make("div", { class: "segments", role: "group", "aria-label": t("correct.tools") }, ...this.tools.values()),
        make("label", {}, t("correct.size"), " ", make("kbd", {}, "["), make("kbd", {}, "]"), " ", this.size),
        this.snapButton, this.undoButton, this.redoButton,
        make("div", { class: "segments", role: "group", "aria-label": t("view.zoom") },
          button("wider", "", () => this.view.zoomBy(1 / 1.5), { "aria-label": t("view.wider") }),
          button("closer", "", () => this.view.zoomBy(1.5), { "aria-label": t("view.closer") }))),
      make("div", { class: "correct-stage" }, this.canvas, this.message),
      make("p", { class: "soft hint" }, t("correct.hint")));
  }

  /** @param {Part} part */
  async load(part) {
    this.isPainted = false;
    this.say(t("loading.loading"));
    const [picture, mask, masks] = await Promise.all([
      this.picture ?? fetchPicture(`/api/pictures/${this.item}/source?size=view`),
      fetchPicture(`/api/items/${this.item}/masks/${part}`),
      call(`items/${this.item}/masks`),
    ]);
    this.picture = picture;
    this.canClick = masks.can_click;
    this.part = part;
    this.steps = 0;
    this.nonce = nonce();
    this.view.open(picture, readMask(mask), mask.width, mask.height);
    mask.close();
    afterPaint(() => {
      this.isPainted = true;
      this.say("");
    });
    this.setRadius();
    this.show();
    this.canvas.focus();
  }

  /** @param {Part} part */
  change(part) {
    if (part === this.part || this.busy) return;
    if (this.view.past.length) {
      this.say(t("correct.saveFirst"));
      return;
    }
    this.load(part).catch((error) => {
      this.isPainted = this.view.picture !== null; // the other mask is still there
      this.say(error.message);
    });
  }

  setRadius() {
    const side = Math.max(this.view.width, this.view.height), share = (Number(this.size.value) / 100) ** 2;
    this.view.radius = Math.max(1, share * LARGEST_BRUSH * side);
    this.view.draw();
  }

  /** @param {string} tool */
  choose(tool) {
    if (tool in CLICKS && !this.canClick) return;
    this.tool = tool;
    this.show();
  }

  show() {
    for (const [name, node] of this.tools) {
      node.setAttribute("aria-pressed", String(name === this.tool));
      node.disabled = name in CLICKS && !this.canClick;
    }
    for (const [name, node] of this.parts) node.setAttribute("aria-pressed", String(name === this.part));
    this.snapButton.disabled = !this.canClick || this.busy;
    this.undoButton.disabled = !this.view?.past.length;
    this.redoButton.disabled = !this.view?.undone.length;
    this.saveButton.disabled = !this.view?.past.length || this.busy;
    this.node.classList.toggle("busy", this.busy);
  }

  /** @param {string} text */
  say(text) {
    this.message.textContent = text;
  }

  listen() {
    const { canvas, view } = this;
    /** @type {Map<number, PointerEvent>} */
    const down = new Map();
    /** @type {Point | null} */
    let last = null;
    let panning = false;
    canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      if (this.busy || !this.isPainted) return;
      event.preventDefault();
      canvas.focus();
      try { canvas.setPointerCapture(event.pointerId); } catch { /* the pointer has left already */ }
      down.set(event.pointerId, event);
      if (down.size === 2) {
        if (last) view.undo(); // the first finger of a pinch was no stroke
        last = null;
        return;
      }
      panning = event.button > 0 || event.shiftKey;
      if (panning) return;
      const at = view.pixel(event);
      if (this.tool in CLICKS) {
        this.click(at, CLICKS[/** @type {"add"} */ (this.tool)]);
        return;
      }
      view.remember();
      last = at;
      view.stroke(at, at, this.tool === "brush");
    });
    canvas.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      const before = down.get(event.pointerId), at = view.pixel(event);
      if (event.pointerType !== "touch") view.cursor = at;
      if (before) down.set(event.pointerId, event);
      if (before && down.size === 2) this.pinch(before, event, [...down.values()]);
      else if (before && panning) view.pan(event.clientX - before.clientX, event.clientY - before.clientY);
      else if (before && last) {
        view.stroke(last, at, this.tool === "brush");
        last = at;
      } else view.draw();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (/** @type {PointerEvent} */ event) => {
        if (!down.delete(event.pointerId)) return;
        if (last) this.count();
        last = null;
        panning = false;
      });
    }
    canvas.addEventListener("pointerleave", () => { view.cursor = null; view.draw(); });
    canvas.addEventListener("contextmenu", (/** @type {Event} */ event) => event.preventDefault());
    canvas.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
      event.preventDefault();
      view.zoomBy(Math.exp(-event.deltaY * 0.0016), event);
    }, { passive: false });
    this.size.addEventListener("input", () => this.setRadius());
    this.node.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.keyDown(event));
    this.node.addEventListener("keyup", (/** @type {KeyboardEvent} */ event) => {
      if (event.code === "Space") { view.hidden = false; view.draw(); }
    });
  }

  /** @param {PointerEvent} before @param {PointerEvent} now @param {PointerEvent[]} both */
  pinch(before, now, both) {
    const other = both.find((event) => event.pointerId !== now.pointerId);
    if (!other) return;
    const spread = (/** @type {PointerEvent} */ event) => Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
    const middle = { clientX: (now.clientX + other.clientX) / 2, clientY: (now.clientY + other.clientY) / 2 };
    if (spread(before) > 0) this.view.zoomBy(spread(now) / spread(before), middle);
    this.view.pan((now.clientX - before.clientX) / 2, (now.clientY - before.clientY) / 2);
  }

  /** @param {KeyboardEvent} event */
  keyDown(event) {
    event.stopPropagation();
    if (event.altKey) return;
    const key = /^[ -~]$/.test(event.key) ? event.key.toLowerCase() : /^Key[A-Z]$/.test(event.code) ? event.code[3].toLowerCase() : event.key;
    const tool = TOOLS.find(([, letter]) => letter === key);
    const isButton = /** @type {HTMLElement} */ (event.target).matches("button, input");
    if (tool && !event.ctrlKey) this.choose(tool[0]);
    else if (key === "s") this.snap();
    else if (key === "z") event.shiftKey ? this.view.redo() : this.view.undo();
    else if (key === "y") this.view.redo();
    else if (key === "[" || key === "]") {
      this.size.value = String(Number(this.size.value) + (key === "[" ? -6 : 6));
      this.setRadius();
    } else if (key === "+" || key === "=") this.view.zoomBy(1.5);
    else if (key === "-") this.view.zoomBy(1 / 1.5);
    else if (key === " " && !isButton) { this.view.hidden = true; this.view.draw(); }
    else if (key === "Enter" && !isButton) this.save();
    else return;
    event.preventDefault();
  }

  count() {
    this.steps += 1;
    this.say("");
    this.show();
  }

  /** @param {Point} at @param {string} tool */
  click(at, tool) {
    const { width, height, radius } = this.view, x = Math.floor(at.x), y = Math.floor(at.y);
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    this.repair({ tool, x, y, radius: Math.max(4, CLICK_REACH * radius) });
  }

  snap() {
    if (!this.canClick) return;
    this.repair({ tool: "snap", radius: Math.max(3, SNAP_SHARE * Math.max(this.view.width, this.view.height)) });
  }

  /** Has the server change the mask. @param {object} request */
  async repair(request) {
    if (this.busy || !this.isPainted) return;
    this.busy = true;
    this.say(t("correct.working"));
    this.show();
    const { mask, width, height } = this.view;
    try {
      const { bits } = await call("repairs", { item: this.item, width, height, bits: await packMask(mask, width, height), ...request });
      const repaired = await unpackMask(bits, width, height);
      if (repaired.every((value, index) => value === mask[index])) this.say(t("correct.nothing"));
      else {
        this.view.remember();
        this.view.replace(repaired);
        this.count();
      }
    } catch (error) {
      this.say(/** @type {Error} */ (error).message);
    }
    this.busy = false;
    this.show();
  }

  async save() {
    if (this.busy || !this.isPainted || !this.view.past.length) return;
    this.busy = true;
    this.say(t("correct.saving"));
    this.show();
    const { mask, width, height } = this.view;
    try {
      const bits = await packMask(mask, width, height);
      const body = { item: this.item, nonce: this.nonce, part: this.part, width, height, bits, steps: this.steps };
      await call("corrections", body);
      this.stored = this.part;
      this.node.close();
    } catch (error) {
      this.say(t("correct.notSaved", { why: /** @type {Error} */ (error).message }));
    }
    this.busy = false;
    this.show();
  }
}
