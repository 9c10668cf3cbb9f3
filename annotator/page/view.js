// @ts-check
/** The pictures on the screen: one canvas with one or two panes, which share their zoom and position. */

import { readSetting, saveSetting } from "./dom.js";

/** @typedef {import("./pictures.js").LoadedPictures} LoadedPictures */
/** @typedef {{x: number, y: number, w: number, h: number}} Box */

const MODES = ["side", "slider", "single"];
const GAP = 10; // px between two panes
const MOST_ZOOM = 40;
const MOST_ENLARGED = 6; // small pictures are enlarged at most this many times

/** The canvas with its panes, mode, zoom and overlays. */
export class View {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} changed called when zoom, mode or blink change
   */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: true }));
    this.changed = changed;
    /** @type {LoadedPictures | null} */
    this.shown = null;
    this.mode = "side";
    this.zoom = 1; // 1 shows all of the picture
    this.x = 0.5; // the point of the picture, in shares of its sides, in the middle of a pane
    this.y = 0.5;
    this.divider = 0.5;
    this.blinking = false;
    this.outline = true;
    this.heat = false;
    this.width = 0;
    this.height = 0;
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    this.width = box.width;
    this.height = box.height;
    this.canvas.width = Math.max(1, Math.round(box.width * devicePixelRatio));
    this.canvas.height = Math.max(1, Math.round(box.height * devicePixelRatio));
    this.draw();
    this.changed();
  }

  /** Shows an item at once. @param {LoadedPictures | null} shown */
  show(shown) {
    this.shown = shown;
    this.draw();
  }

  /** Returns true where two panes are one above the other. @returns {boolean} */
  isStacked() {
    if (!this.shown) return this.width < this.height;
    const { width, height } = this.shown;
    const beside = Math.min((this.width - GAP) / 2 / width, this.height / height);
    return Math.min(this.width / width, (this.height - GAP) / 2 / height) > beside;
  }

  /** Returns the panes, with the pictures that they show without blinking. @returns {{box: Box, what: "source" | "result" | "both"}[]} */
  panes() {
    const { width: w, height: h } = this;
    if (this.mode === "single") return [{ box: { x: 0, y: 0, w, h }, what: "result" }];
    if (this.mode === "slider") return [{ box: { x: 0, y: 0, w, h }, what: "both" }];
    if (this.isStacked()) {
      const half = Math.floor((h - GAP) / 2);
      return [{ box: { x: 0, y: 0, w, h: half }, what: "source" }, { box: { x: 0, y: half + GAP, w, h: half }, what: "result" }];
    }
    const half = Math.floor((w - GAP) / 2);
    return [{ box: { x: 0, y: 0, w: half, h }, what: "source" }, { box: { x: half + GAP, y: 0, w: half, h }, what: "result" }];
  }

  /** Returns the screen px of one px of the picture where it is shown completely. @returns {number} */
  fit() {
    if (!this.shown) return 1;
    const { w, h } = this.panes()[0].box;
    return Math.min(w / this.shown.width, h / this.shown.height, MOST_ENLARGED);
  }

  /** Returns the device px of one px of the picture. @returns {number} */
  scale() {
    return this.fit() * this.zoom * devicePixelRatio;
  }

  /** Returns the position of the picture in a pane. @param {Box} box @returns {Box} */
  place(box) {
    const shown = /** @type {LoadedPictures} */ (this.shown), scale = this.fit() * this.zoom;
    const w = shown.width * scale, h = shown.height * scale;
    const clamp = (/** @type {number} */ at, /** @type {number} */ pane, /** @type {number} */ size) =>
      size <= pane ? 0.5 : Math.min(1 - pane / 2 / size, Math.max(pane / 2 / size, at));
    this.x = clamp(this.x, box.w, w);
    this.y = clamp(this.y, box.h, h);
    const roundToPixel = (/** @type {number} */ at) => Math.round(at * devicePixelRatio) / devicePixelRatio;
    return { x: box.x + roundToPixel(box.w / 2 - this.x * w), y: box.y + roundToPixel(box.h / 2 - this.y * h), w, h };
  }

  /** True where a pane shows more detail than the pictures that fit a screen have. @returns {boolean} */
  isCloser() {
    return this.shown !== null && this.scale() * this.shown.width > this.shown.result.width * 1.1;
  }

  draw() {
    const { context } = this;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    if (!this.shown || !this.width) return;
    for (const { box, what } of this.panes()) {
      const shows = what === "result" && this.blinking ? "source" : what;
      if (shows !== "both") {
        this.drawPane(box, shows, box);
        continue;
      }
      const at = this.blinking ? box.w : this.divider * box.w;
      this.drawPane(box, "source", { ...box, w: at });
      this.drawPane(box, "result", { ...box, x: at, w: box.w - at });
      if (!this.blinking) this.drawDivider(at, box);
    }
  }

  /** @param {Box} box @param {"source" | "result"} what @param {Box} clip */
  drawPane(box, what, clip) {
    const shown = /** @type {LoadedPictures} */ (this.shown), { context } = this, at = this.place(box), scale = at.w / shown.width;
    context.save();
    context.beginPath();
    context.rect(clip.x, clip.y, clip.w, clip.h);
    context.clip();
    context.imageSmoothingEnabled = this.scale() < 2.5;
    context.imageSmoothingQuality = "high";
    context.drawImage((this.isCloser() && shown.large ? shown.large : shown)[what], at.x, at.y, at.w, at.h);
    if (this.heat && what === "result" && shown.heat) {
      context.imageSmoothingEnabled = false;
      context.drawImage(shown.heat.picture, at.x, at.y, at.w, at.h);
    }
    if (this.outline) {
      context.translate(at.x, at.y);
      context.scale(scale, scale);
      context.lineCap = "square";
      for (const [path, colour] of /** @type {[Path2D | null, string][]} */ ([[shown.effects, "#6fc8ff"], [shown.outline, "#ffe045"]])) {
        if (!path) continue;
        context.strokeStyle = "#0009";
        context.lineWidth = 3 / scale;
        context.stroke(path);
        context.strokeStyle = colour;
        context.lineWidth = 1.25 / scale;
        context.stroke(path);
      }
    }
    context.restore();
  }

  /** @param {number} at @param {Box} box */
  drawDivider(at, box) {
    const { context } = this, x = Math.min(box.w - 1, Math.max(1, at)), y = box.h / 2;
    context.fillStyle = "#0006";
    context.fillRect(x - 2, 0, 4, box.h);
    context.fillStyle = "#fff";
    context.fillRect(x - 1, 0, 2, box.h);
    context.beginPath();
    context.arc(x, y, 15, 0, 2 * Math.PI);
    context.fill();
    context.strokeStyle = "#23211e";
    context.lineWidth = 2;
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(x + side * 4, y - 5);
      context.lineTo(x + side * 9, y);
      context.lineTo(x + side * 4, y + 5);
    }
    context.stroke();
  }

  /**
   * Zooms, and keeps the point of the picture at a position of the screen in place.
   * @param {number} factor
   * @param {number} [px]
   * @param {number} [py]
   */
  zoomBy(factor, px = this.width / 2, py = this.height / 2) {
    if (!this.shown) return;
    const box = this.paneAt(px, py);
    const before = this.place(box);
    const u = (px - before.x) / before.w, v = (py - before.y) / before.h;
    this.zoom = Math.min(MOST_ZOOM, Math.max(1, this.zoom * factor));
    if (Math.abs(this.zoom - 1) < 0.02) this.zoom = 1;
    const w = this.shown.width * this.fit() * this.zoom, h = this.shown.height * this.fit() * this.zoom;
    this.x = u + (box.x + box.w / 2 - px) / w;
    this.y = v + (box.y + box.h / 2 - py) / h;
    this.place(box);
    this.draw();
    this.changed();
  }

  /** @param {number} px @param {number} py @returns {Box} */
  paneAt(px, py) {
    const panes = this.panes();
    const inside = (/** @type {{box: Box}} */ { box }) => px >= box.x && px <= box.x + box.w && py >= box.y && py <= box.y + box.h;
    return (panes.find(inside) ?? panes[0]).box;
  }

  /** Toggles between the complete picture and one px of it on one px of the screen. @param {number} [px] @param {number} [py] */
  toggleNative(px, py) {
    if (this.zoom !== 1) this.zoomBy(1 / this.zoom, px, py);
    else if (this.scale() < 0.99) this.zoomBy(1 / this.scale(), px, py);
    else this.zoomBy(Math.max(2, Math.ceil(this.scale()) / this.scale()), px, py);
  }

  /** @param {number} dx px on the screen @param {number} dy */
  pan(dx, dy) {
    if (!this.shown) return;
    const scale = this.fit() * this.zoom;
    this.x -= dx / (this.shown.width * scale);
    this.y -= dy / (this.shown.height * scale);
    this.draw();
    this.changed();
  }

  /** @param {number} at share of the pane's width */
  moveDivider(at) {
    this.divider = Math.min(1, Math.max(0, at));
    this.draw();
    this.changed();
  }

  /** Handles an arrow key: it moves the picture where that is zoomed, else the divider. @param {string} key */
  arrow(key) {
    const x = key === "ArrowLeft" ? -1 : key === "ArrowRight" ? 1 : 0;
    const y = key === "ArrowUp" ? -1 : key === "ArrowDown" ? 1 : 0;
    if (this.zoom > 1) this.pan(-60 * x, -60 * y);
    else if (this.mode === "slider") this.moveDivider(this.divider + x * 0.03);
  }

  /** @param {boolean} on */
  blink(on) {
    if (on === this.blinking) return;
    this.blinking = on;
    this.draw();
    this.changed();
  }

  /** @param {Partial<{mode: string, outline: boolean, heat: boolean}>} what */
  set(what) {
    Object.assign(this, what);
    this.draw();
    this.changed();
  }

  /** @returns {string} */
  nextMode() {
    return MODES[(MODES.indexOf(this.mode) + 1) % MODES.length];
  }

  /** Sets the mode or an overlay, and saves it in this browser. @param {"mode" | "outline" | "heat"} name @param {string | boolean} value */
  save(name, value) {
    this.set({ [name]: value });
    saveSetting(name, value);
  }

  /** Sets the mode and the overlays as they were saved. */
  restore() {
    const mode = readSetting("mode", "side");
    this.set({ mode: MODES.includes(mode) ? mode : "side", outline: readSetting("outline", true) === true,
      heat: readSetting("heat", false) === true });
  }
}
