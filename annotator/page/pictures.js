// @ts-check
/** Pictures of items: fetched and decoded before they are needed, so that showing one is drawing one. */

import { grown, heat, maskOf, outline } from "./shapes.js";

const KEPT = 14; // items whose decoded pictures are kept

/**
 * @typedef {object} Shown
 * @property {number} width of the picture as it is stored, px
 * @property {number} height
 * @property {ImageBitmap} source
 * @property {ImageBitmap} result
 * @property {Path2D} outline in px of the stored picture
 * @property {Uint8Array} mask
 * @property {boolean} native whether the pictures are as they are stored, not smaller
 * @property {number} dilation
 * @property {{canvas: HTMLCanvasElement, changed: number, outside: number, most: number} | null} heat
 */

/** @param {string} item @param {string} role @param {string} size @returns {Promise<ImageBitmap>} */
async function bitmap(item, role, size) {
  const answer = await fetch(`/api/pictures/${item}/${role}?size=${size}`, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(answer.status === 404 ? "this picture cannot be read" : `the server answered ${answer.status}`);
  return createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
}

/** @param {ImageBitmap} picture @returns {ImageData} */
function pixels(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
}

/** @param {{id: string, dilation: number}} item @returns {Promise<Shown>} */
async function load(item) {
  const roles = ["source", "result", "mask"];
  const [source, result, maskPicture] = await Promise.all(roles.map((role) => bitmap(item.id, role, "view")));
  const { width, height } = maskPicture;
  const mask = maskOf(pixels(maskPicture).data);
  maskPicture.close();
  const path = new Path2D();
  const lines = outline(mask, width, height);
  for (let i = 0; i < lines.length; i += 4) {
    path.moveTo(lines[i], lines[i + 1]);
    path.lineTo(lines[i + 2], lines[i + 3]);
  }
  const native = source.width === width && result.width === width;
  return { width, height, source, result, outline: path, mask, native, dilation: item.dilation, heat: null };
}

/**
 * Makes the heat map of the difference outside the mask, once.
 * @param {Shown} shown with pictures as they are stored
 */
export function addHeat(shown) {
  if (shown.heat || !shown.native) return;
  const one = pixels(shown.source), other = pixels(shown.result);
  const mask = grown(shown.mask, shown.width, shown.height, shown.dilation);
  const found = heat(one.data, other.data, mask);
  const canvas = document.createElement("canvas");
  canvas.width = shown.width;
  canvas.height = shown.height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.putImageData(new ImageData(/** @type {any} */ (found.rgba), shown.width, shown.height), 0, 0);
  shown.heat = { canvas, changed: found.changed, outside: found.outside, most: found.most };
}

/** The pictures of the items at hand. */
export class Pictures {
  constructor() {
    /** @type {Map<string, {promise: Promise<Shown>, shown: Shown | null}>} */
    this.items = new Map();
  }

  /**
   * What can be drawn at once; null where it is still on its way.
   * @param {string} id
   * @returns {Shown | null}
   */
  ready(id) {
    return this.items.get(id)?.shown ?? null;
  }

  /**
   * The pictures of an item.
   * @param {{id: string, dilation: number}} item
   * @returns {Promise<Shown>}
   */
  get(item) {
    let entry = this.items.get(item.id);
    if (!entry) {
      const made = { promise: load(item), shown: /** @type {Shown | null} */ (null) };
      made.promise.then((shown) => { made.shown = shown; }, () => { this.items.delete(item.id); });
      entry = made;
    }
    this.items.delete(item.id);
    this.items.set(item.id, entry);
    for (const [id, old] of this.items) {
      if (this.items.size <= KEPT) break;
      this.items.delete(id);
      if (id !== item.id) old.promise.then((shown) => { shown.source.close(); shown.result.close(); }, () => {});
    }
    return entry.promise;
  }

  /**
   * Replaces smaller pictures by those that are stored.
   * @param {{id: string, dilation: number}} item
   * @returns {Promise<Shown>}
   */
  async native(item) {
    const shown = await this.get(item);
    if (!shown.native) {
      const [source, result] = await Promise.all(["source", "result"].map((role) => bitmap(item.id, role, "native")));
      [shown.source, shown.result, shown.native] = [source, result, true];
    }
    return shown;
  }
}
