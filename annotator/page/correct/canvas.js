// @ts-check
/** The canvas on which a mask is corrected: the picture, the mask as a tint with its outline, a brush, zoom. */

/** @typedef {{x: number, y: number}} Point */

const TINT = [255, 224, 69, 110];
const MOST_ZOOM = 24;
const MOST_UNDO = 40; // steps, and bytes that they may take
const MOST_UNDO_BYTES = 250_000_000;

/** A picture with a mask that can be painted. */
export class MaskCanvas {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} changed called when the mask or the view has changed
   */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.changed = changed;
    this.width = 0;
    this.height = 0;
    /** @type {Uint8Array} */
    this.mask = new Uint8Array();
    /** @type {ImageBitmap | null} */
    this.picture = null;
    this.tint = document.createElement("canvas");
    this.zoom = 1;
    this.x = 0.5; // the point of the picture, in shares of its sides, in the middle
    this.y = 0.5;
    this.radius = 12; // of the brush, px of the picture
    /** @type {Point | null} */
    this.cursor = null;
    this.hidden = false; // the mask is not drawn
    /** @type {Uint8Array[]} */
    this.undone = [];
    /** @type {Uint8Array[]} */
    this.past = [];
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(canvas);
  }

  close() {
    this.observer.disconnect();
  }

  /** @param {ImageBitmap} picture @param {Uint8Array} mask @param {number} width @param {number} height */
  open(picture, mask, width, height) {
    Object.assign(this, { picture, mask, width, height, zoom: 1, x: 0.5, y: 0.5, past: [], undone: [] });
    this.tint.width = width;
    this.tint.height = height;
    this.paintTint(0, 0, width, height);
    this.resize();
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    this.canvas.width = Math.max(1, Math.round(box.width * devicePixelRatio));
    this.canvas.height = Math.max(1, Math.round(box.height * devicePixelRatio));
    this.draw();
  }

  /** Returns the screen px of one px of the picture. @returns {number} */
  scale() {
    const { width, height } = this.canvas.getBoundingClientRect();
    return this.width ? Math.min(width / this.width, height / this.height) * this.zoom : 1;
  }

  /** Returns the position of the picture's corner on the canvas, in screen px. @returns {Point} */
  corner() {
    const box = this.canvas.getBoundingClientRect(), scale = this.scale();
    const clamp = (/** @type {number} */ at, /** @type {number} */ pane, /** @type {number} */ size) =>
      size <= pane ? 0.5 : Math.min(1 - pane / 2 / size, Math.max(pane / 2 / size, at));
    this.x = clamp(this.x, box.width, this.width * scale);
    this.y = clamp(this.y, box.height, this.height * scale);
    return { x: box.width / 2 - this.x * this.width * scale, y: box.height / 2 - this.y * this.height * scale };
  }

  /** Returns the pixel of the picture at a point of the screen. @param {{clientX: number, clientY: number}} event @returns {Point} */
  pixel(event) {
    const box = this.canvas.getBoundingClientRect(), corner = this.corner(), scale = this.scale();
    return { x: (event.clientX - box.left - corner.x) / scale, y: (event.clientY - box.top - corner.y) / scale };
  }

  draw() {
    const { context, canvas } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.picture) return;
    const corner = this.corner(), scale = this.scale();
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.imageSmoothingEnabled = scale < 2.5;
    context.drawImage(this.picture, corner.x, corner.y, this.width * scale, this.height * scale);
    if (!this.hidden) {
      context.imageSmoothingEnabled = false;
      context.drawImage(this.tint, corner.x, corner.y, this.width * scale, this.height * scale);
    }
    if (this.cursor) {
      for (const [colour, wide] of /** @type {[string, number][]} */ ([["#000b", 3], ["#fff", 1.25]])) {
        context.strokeStyle = colour;
        context.lineWidth = wide;
        context.beginPath();
        context.arc(corner.x + this.cursor.x * scale, corner.y + this.cursor.y * scale, Math.max(2, this.radius * scale), 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }

  /** Paints the tint of a part of the mask; its outline is opaque. @param {number} left @param {number} top @param {number} right @param {number} bottom */
  paintTint(left, top, right, bottom) {
    const { width, height, mask } = this;
    const x0 = Math.max(0, Math.floor(left)), y0 = Math.max(0, Math.floor(top));
    const x1 = Math.min(width, Math.ceil(right)), y1 = Math.min(height, Math.ceil(bottom));
    if (x1 <= x0 || y1 <= y0) return;
    const part = new ImageData(x1 - x0, y1 - y0), reach = Math.max(1, Math.round(Math.max(width, height) / 900));
    const at = (/** @type {number} */ x, /** @type {number} */ y) => x < 0 || y < 0 || x >= width || y >= height || mask[y * width + x];
    for (let y = y0, i = 0; y < y1; y++) {
      for (let x = x0; x < x1; x++, i += 4) {
        if (!mask[y * width + x]) continue;
        const isRim = !(at(x - reach, y) && at(x + reach, y) && at(x, y - reach) && at(x, y + reach));
        for (let c = 0; c < 3; c++) part.data[i + c] = TINT[c];
        part.data[i + 3] = isRim ? 255 : TINT[3];
      }
    }
    /** @type {CanvasRenderingContext2D} */ (this.tint.getContext("2d")).putImageData(part, x0, y0);
  }

  /** Remembers the mask before a change. */
  remember() {
    this.past.push(this.mask.slice());
    const most = Math.max(2, Math.min(MOST_UNDO, Math.floor(MOST_UNDO_BYTES / this.mask.length)));
    if (this.past.length > most) this.past.shift();
    this.undone = [];
  }

  /** Paints a stroke from one pixel to another. @param {Point} from @param {Point} to @param {boolean} add */
  stroke(from, to, add) {
    const { width, height, mask, radius } = this, length = Math.hypot(to.x - from.x, to.y - from.y);
    const left = Math.min(from.x, to.x) - radius, right = Math.max(from.x, to.x) + radius;
    const top = Math.min(from.y, to.y) - radius, bottom = Math.max(from.y, to.y) + radius;
    for (let y = Math.max(0, Math.floor(top)); y < Math.min(height, Math.ceil(bottom)); y++) {
      for (let x = Math.max(0, Math.floor(left)); x < Math.min(width, Math.ceil(right)); x++) {
        const along = length ? Math.min(1, Math.max(0, ((x + 0.5 - from.x) * (to.x - from.x) + (y + 0.5 - from.y) * (to.y - from.y)) / length ** 2)) : 0;
        const dx = x + 0.5 - from.x - along * (to.x - from.x), dy = y + 0.5 - from.y - along * (to.y - from.y);
        if (dx * dx + dy * dy <= radius * radius) mask[y * width + x] = add ? 1 : 0;
      }
    }
    const rim = 3 + Math.round(Math.max(width, height) / 900);
    this.paintTint(left - rim, top - rim, right + rim, bottom + rim);
    this.draw();
  }

  /** Puts another mask in place of this one. @param {Uint8Array} mask */
  replace(mask) {
    this.mask = mask;
    this.paintTint(0, 0, this.width, this.height);
    this.draw();
    this.changed();
  }

  undo() {
    const before = this.past.pop();
    if (!before) return;
    this.undone.push(this.mask);
    this.replace(before);
  }

  redo() {
    const after = this.undone.pop();
    if (!after) return;
    this.past.push(this.mask);
    this.replace(after);
  }

  /** Zooms, and keeps a pixel where it is on the screen. @param {number} factor @param {{clientX: number, clientY: number}} [event] */
  zoomBy(factor, event) {
    const box = this.canvas.getBoundingClientRect();
    const at = event ?? { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
    const pixel = this.pixel(at);
    this.zoom = Math.min(MOST_ZOOM, Math.max(1, this.zoom * factor));
    const scale = this.scale();
    this.x = (pixel.x + (box.left + box.width / 2 - at.clientX) / scale) / this.width;
    this.y = (pixel.y + (box.top + box.height / 2 - at.clientY) / scale) / this.height;
    this.draw();
    this.changed();
  }

  /** @param {number} dx screen px @param {number} dy */
  pan(dx, dy) {
    const scale = this.scale();
    this.x -= dx / scale / this.width;
    this.y -= dy / scale / this.height;
    this.draw();
  }
}
