// @ts-check
/** Pictures of items: fetched and decoded in advance by workers, so that they can be drawn at once. */

import { load } from "./pixels/workers.js";

const CACHED = 14; // items whose pictures are cached, as they fit a screen
const LARGE = 2; // items whose pictures are cached as they are stored

/**
 * @typedef {object} LoadedPictures
 * @property {number} width of the picture as it is stored, px
 * @property {number} height
 * @property {ImageBitmap} source as it fits a screen
 * @property {ImageBitmap} result
 * @property {Path2D} outline in px of the stored picture
 * @property {Path2D | null} effects outline of the object with its effects, of a triplet
 * @property {{source: ImageBitmap, result: ImageBitmap} | null} large as they are stored, where somebody has zoomed in
 * @property {{picture: ImageBitmap, changed: number, outside: number, largest: number} | null} heat
 */

/** @param {Float32Array} lines @returns {Path2D} */
function makePath(lines) {
  const path = new Path2D();
  for (let i = 0; i < lines.length; i += 4) {
    path.moveTo(lines[i], lines[i + 1]);
    path.lineTo(lines[i + 2], lines[i + 3]);
  }
  return path;
}

/** @param {{id: string, dilation: number, task?: string}} item @returns {Promise<LoadedPictures>} */
async function loadView(item) {
  const isTriplet = item.task !== undefined && item.task !== "removal";
  const [{ width, height, source, result, outline }, effects] = await Promise.all([load("view", item), isTriplet ? load("effects", item) : null]);
  const large = source.width === width && result.width === width ? { source, result } : null;
  return { width, height, source, result, outline: makePath(outline), effects: effects && makePath(effects.outline), large, heat: null };
}

/** @param {LoadedPictures} shown */
function closeLarge(shown) {
  if (!shown.large || shown.large.source === shown.source) return;
  shown.large.source.close();
  shown.large.result.close();
  shown.large = null;
}

/** A cache of the pictures of items. */
export class Pictures {
  constructor() {
    /** @type {Map<string, {promise: Promise<LoadedPictures>, shown: LoadedPictures | null}>} */
    this.items = new Map();
    /** Tasks that run, by item and name. @type {Map<string, Promise<LoadedPictures>>} */
    this.running = new Map();
    /** Items with pictures as they are stored, the last one last. @type {string[]} */
    this.large = [];
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
      const loading = { promise: loadView(item), shown: /** @type {LoadedPictures | null} */ (null) };
      loading.promise.then((shown) => { loading.shown = shown; }, () => { this.items.delete(item.id); });
      entry = loading;
    }
    this.items.delete(item.id);
    this.items.set(item.id, entry);
    for (const [id, old] of this.items) {
      if (this.items.size <= CACHED) break;
      this.items.delete(id);
      if (id !== item.id) {
        old.promise.then((shown) => {
          closeLarge(shown);
          for (const picture of [shown.source, shown.result, shown.heat?.picture]) picture?.close();
        }, () => {});
      }
    }
    return entry.promise;
  }

  /**
   * Runs a task for an item once, however often it is asked for.
   * @param {"native" | "heat"} task
   * @param {{id: string, dilation: number}} item
   * @param {(shown: LoadedPictures, loaded: any) => void} add
   * @returns {Promise<LoadedPictures>}
   */
  once(task, item, add) {
    const name = `${task} ${item.id}`;
    const running = this.running.get(name) ?? (async () => {
      try {
        const [shown, loaded] = await Promise.all([this.get(item), load(task, item)]);
        add(shown, loaded);
        return shown;
      } finally {
        this.running.delete(name);
      }
    })();
    this.running.set(name, running);
    return running;
  }

  /**
   * Adds the pictures as they are stored. Only those of the last items are kept.
   * @param {{id: string, dilation: number}} item
   * @returns {Promise<LoadedPictures>}
   */
  async native(item) {
    const before = await this.get(item);
    if (before.large) return before;
    return this.once("native", item, (shown, { source, result, outline }) => {
      shown.large = { source, result };
      if (outline) shown.outline = makePath(outline);
      this.large = [...this.large.filter((id) => id !== item.id), item.id];
      for (const id of this.large.splice(0, Math.max(0, this.large.length - LARGE))) {
        const old = this.ready(id);
        if (old) closeLarge(old);
      }
    });
  }

  /**
   * Adds the heat map of the differences outside the mask.
   * @param {{id: string, dilation: number}} item
   * @returns {Promise<LoadedPictures>}
   */
  async heat(item) {
    const before = await this.get(item);
    return before.heat ? before : this.once("heat", item, (shown, loaded) => { shown.heat = loaded; });
  }

  /**
   * Loads what a view of an item needs beyond the pictures that fit a screen: the stored size where somebody has zoomed
   * in, and the differences where they are asked for.
   * @param {{id: string, dilation: number}} item
   * @param {import("./view.js").View} view
   * @returns {Promise<boolean>} true where something was added
   */
  async complete(item, view) {
    const shown = this.ready(item.id);
    if (!shown || view.shown !== shown) return false;
    const tasks = [];
    if (!shown.large && view.isCloser()) tasks.push(this.native(item));
    if (!shown.heat && view.heat) tasks.push(this.heat(item));
    await Promise.all(tasks);
    return tasks.length > 0;
  }
}
