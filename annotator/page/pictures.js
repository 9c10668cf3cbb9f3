// @ts-check
/** Pictures of items: fetched and decoded in advance, so that they can be drawn at once. */

import { computeHeat, dilate, toMask, traceOutline } from "./shapes.js";

const CACHED = 14; // items whose decoded pictures are cached

/**
 * @typedef {object} LoadedPictures
 * @property {number} width of the picture as it is stored, px
 * @property {number} height
 * @property {ImageBitmap} source
 * @property {ImageBitmap} result
 * @property {Path2D} outline in px of the stored picture
 * @property {Uint8Array} mask
 * @property {boolean} native true where the pictures have the stored size
 * @property {number} dilation
 * @property {{canvas: HTMLCanvasElement, changed: number, outside: number, largest: number} | null} heat
 */

/** @param {string} item @param {string} role @param {string} size @returns {Promise<ImageBitmap>} */
async function fetchBitmap(item, role, size) {
  const answer = await fetch(`/api/pictures/${item}/${role}?size=${size}`, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(answer.status === 404 ? "this picture cannot be read" : `the server answered ${answer.status}`);
  return createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
}

/** @param {ImageBitmap} picture @returns {ImageData} */
function readPixels(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
}

/** @param {{id: string, dilation: number}} item @returns {Promise<LoadedPictures>} */
async function load(item) {
  const roles = ["source", "result", "mask"];
  const [source, result, maskPicture] = await Promise.all(roles.map((role) => fetchBitmap(item.id, role, "view")));
  const { width, height } = maskPicture;
  const mask = toMask(readPixels(maskPicture).data);
  maskPicture.close();
  const path = new Path2D();
  const lines = traceOutline(mask, width, height);
  for (let i = 0; i < lines.length; i += 4) {
    path.moveTo(lines[i], lines[i + 1]);
    path.lineTo(lines[i + 2], lines[i + 3]);
  }
  const native = source.width === width && result.width === width;
  return { width, height, source, result, outline: path, mask, native, dilation: item.dilation, heat: null };
}

/**
 * Adds the heat map of the differences outside the mask, once.
 * @param {LoadedPictures} shown with pictures of the stored size
 */
export function addHeat(shown) {
  if (shown.heat || !shown.native) return;
  const source = readPixels(shown.source), result = readPixels(shown.result);
  const mask = dilate(shown.mask, shown.width, shown.height, shown.dilation);
  const map = computeHeat(source.data, result.data, mask);
  const canvas = document.createElement("canvas");
  canvas.width = shown.width;
  canvas.height = shown.height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.putImageData(new ImageData(/** @type {any} */ (map.rgba), shown.width, shown.height), 0, 0);
  shown.heat = { canvas, changed: map.changed, outside: map.outside, largest: map.largest };
}

/** A cache of the pictures of items. */
export class Pictures {
  constructor() {
    /** @type {Map<string, {promise: Promise<LoadedPictures>, shown: LoadedPictures | null}>} */
    this.items = new Map();
  }

  /**
   * Returns the pictures of an item where they are loaded, else null.
   * @param {string} id
   * @returns {LoadedPictures | null}
   */
  ready(id) {
    return this.items.get(id)?.shown ?? null;
  }

  /**
   * Loads the pictures of an item.
   * @param {{id: string, dilation: number}} item
   * @returns {Promise<LoadedPictures>}
   */
  get(item) {
    let entry = this.items.get(item.id);
    if (!entry) {
      const loading = { promise: load(item), shown: /** @type {LoadedPictures | null} */ (null) };
      loading.promise.then((shown) => { loading.shown = shown; }, () => { this.items.delete(item.id); });
      entry = loading;
    }
    this.items.delete(item.id);
    this.items.set(item.id, entry);
    for (const [id, old] of this.items) {
      if (this.items.size <= CACHED) break;
      this.items.delete(id);
      if (id !== item.id) old.promise.then((shown) => { shown.source.close(); shown.result.close(); }, () => {});
    }
    return entry.promise;
  }

  /**
   * Replaces smaller pictures by those of the stored size.
   * @param {{id: string, dilation: number}} item
   * @returns {Promise<LoadedPictures>}
   */
  async native(item) {
    const shown = await this.get(item);
    if (!shown.native) {
      const [source, result] = await Promise.all(["source", "result"].map((role) => fetchBitmap(item.id, role, "native")));
      [shown.source, shown.result, shown.native] = [source, result, true];
    }
    return shown;
  }
}
