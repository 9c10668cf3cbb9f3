// @ts-check
/**
 * A worker that fetches the pictures of an item, traces the outline of its mask, and computes the heat map of the
 * differences: work of seconds for a large photograph, in which the page would not answer.
 */

import { Problem } from "../api.js";
import { computeHeat, dilate, shrinkHeat, toMask, traceOutline } from "../shapes.js";
import { t } from "../texts/texts.js";

const MOST_LINES = 20_000; // of an outline that is stroked at each movement
const HEAT_SIDE = 2048; // px of a heat map's longer side

/** @param {string} path @returns {Promise<{answer: Response, data: Blob}>} */
async function request(path) {
  let status;
  try {
    const answer = await fetch(path, { credentials: "same-origin" });
    if (answer.ok) return { answer, data: await answer.blob() };
    ({ status } = answer);
  } catch {
    throw new Problem(0, t("problem.noAnswer"));
  }
  throw new Problem(status, status === 404 ? t("problem.noPicture") : t("problem.status", { status }));
}

/** @param {string} item @param {string} role @param {string} size @returns {Promise<{bitmap: ImageBitmap, width: number, height: number}>} the picture, and the size as it is stored */
async function fetchPicture(item, role, size) {
  const { answer, data } = await request(`/api/pictures/${item}/${role}?size=${size}`);
  const [width, height] = (answer.headers.get("x-picture-size") ?? "").split("x").map(Number);
  const bitmap = await createImageBitmap(data, { colorSpaceConversion: "none" });
  return { bitmap, width: width || bitmap.width, height: height || bitmap.height };
}

/** @param {ImageBitmap} picture @returns {ImageData} */
function readPixels(picture) {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
}

/** @param {ImageBitmap} picture @returns {Uint8Array} */
function readMask(picture) {
  const mask = toMask(readPixels(picture).data);
  picture.close();
  return mask;
}

/**
 * Loads the pictures of an item as they fit a screen, and traces its outline.
 * @param {string} item
 * @returns {Promise<object>} lines in px of the stored picture
 */
async function loadView(item) {
  const [source, result, mask] = await Promise.all(["source", "result", "mask"].map((role) => fetchPicture(item, role, "view")));
  const { width, height } = mask.bitmap, stored = { width: mask.width, height: mask.height };
  const lines = traceOutline(readMask(mask.bitmap), width, height);
  const scale = [stored.width / width, stored.height / height];
  const outline = Float32Array.from(lines, (at, index) => at * scale[index % 2]);
  return { ...stored, source: source.bitmap, result: result.bitmap, outline };
}

/** Loads the pictures of an item as they are stored. @param {string} item @returns {Promise<object>} */
async function loadNative(item) {
  const [source, result, mask] = await Promise.all(["source", "result", "mask"].map((role) => fetchPicture(item, role, "native")));
  const { width, height } = mask.bitmap;
  const lines = traceOutline(readMask(mask.bitmap), width, height);
  const outline = lines.length / 4 <= MOST_LINES ? Float32Array.from(lines) : null;
  return { source: source.bitmap, result: result.bitmap, outline };
}

/**
 * Computes the heat map of the differences outside the mask, from the pictures as they are stored.
 * @param {string} item
 * @param {number} dilation px by which the remover dilated the mask
 * @returns {Promise<object>}
 */
async function loadHeat(item, dilation) {
  const [source, result, mask] = await Promise.all(["source", "result", "mask"].map((role) => fetchPicture(item, role, "native")));
  const { width, height } = mask.bitmap;
  const hole = dilate(readMask(mask.bitmap), width, height, dilation);
  const first = readPixels(source.bitmap), second = readPixels(result.bitmap);
  source.bitmap.close();
  result.bitmap.close();
  const heat = computeHeat(first.data, second.data, hole);
  const map = shrinkHeat(heat.rgba, width, height, HEAT_SIDE);
  const picture = await createImageBitmap(new ImageData(/** @type {any} */ (map.rgba), map.width, map.height));
  return { picture, changed: heat.changed, outside: heat.outside, largest: heat.largest };
}

/** Traces the outline of the object with its effects. @param {string} item @returns {Promise<object>} lines in px of the stored picture */
async function loadEffects(item) {
  const { data } = await request(`/api/items/${item}/masks/foreground_mask`);
  const bitmap = await createImageBitmap(data), { width, height } = bitmap;
  return { outline: Float32Array.from(traceOutline(readMask(bitmap), width, height)) };
}

/** @type {Record<string, (item: string, dilation: number) => Promise<any>>} */
const tasks = { view: loadView, native: loadNative, heat: loadHeat, effects: loadEffects };

addEventListener("message", async (/** @type {MessageEvent} */ { data: { id, task, item, dilation } }) => {
  try {
    const result = await tasks[task](item, dilation);
    const moved = Object.values(result).filter((value) => value instanceof ImageBitmap);
    if (result.outline) moved.push(result.outline.buffer);
    /** @type {any} */ (self).postMessage({ id, result }, moved);
  } catch (error) {
    self.postMessage({ id, problem: String(/** @type {Error} */ (error)?.message ?? error), isAway: error instanceof Problem && error.isTemporary });
  }
});
