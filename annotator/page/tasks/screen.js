// @ts-check
/** What of the current item is on the screen: nobody can judge pictures that were not painted. */

import { afterPaint, byId } from "../dom.js";
import { showLabel, showLoading, showNothing } from "../panels.js";

/** @typedef {import("./tasks.js").Item} Item */

const RETRY_MS = 3_000;

/** The pictures of the current item, from the request to the frame in which they are on the screen. */
export class Screen {
  /**
   * @param {import("../view.js").View} view
   * @param {import("../pictures.js").Pictures} pictures
   * @param {object} page
   * @param {() => Item | null} page.current the item that is to be on the screen
   * @param {() => string} page.name of what is to be drawn of it
   * @param {() => boolean} page.isRunning true while a verdict is being stored
   * @param {() => void} page.onDrawn
   * @param {() => void} page.onSkip an item whose pictures cannot be read is skipped
   */
  constructor(view, pictures, page) {
    this.view = view;
    this.pictures = pictures;
    this.page = page;
    this.drawn = ""; // name of what is drawn
    this.paintedAt = 0; // time at which it was painted; 0: it is not yet
    this.pressedAt = 0; // time of the key press whose effect is not painted yet
    this.timer = 0;
  }

  /** True where the pictures of the current item were painted. @returns {boolean} */
  isPainted() {
    return this.paintedAt > 0 && this.drawn === this.page.name();
  }

  /** Returns the seconds since the pictures were painted; null where they were not. @returns {number | null} */
  seconds() {
    return this.isPainted() ? Math.round(performance.now() - this.paintedAt) / 1000 : null;
  }

  clear() {
    this.drawn = "";
    this.paintedAt = 0;
  }

  /** Says whether a verdict is being stored, or pictures are on their way. */
  showBusy() {
    byId("stage").ariaBusy = String(this.page.isRunning() || (this.page.current() !== null && !this.isPainted()));
  }

  /** Shows the current item: at once where its pictures are loaded. */
  show() {
    const { view, page } = this, item = page.current(), name = page.name();
    if (item && name === this.drawn) return;
    this.clear();
    const shown = item && this.pictures.ready(item.id);
    view.show(shown);
    showLabel(item);
    showLoading(item && !shown ? "loading" : null);
    if (shown) {
      this.drawn = name;
      showNothing(null);
      afterPaint(() => this.notePaint(name));
    } else if (item) this.wait(item);
    this.showBusy();
    page.onDrawn();
  }

  /** @param {string} name of what was drawn */
  notePaint(name) {
    if (this.drawn !== name) return;
    if (!this.view.width) { // there is no room for it yet
      afterPaint(() => this.notePaint(name));
      return;
    }
    this.paintedAt = performance.now();
    if (this.pressedAt) performance.measure("judge", { start: this.pressedAt, end: this.paintedAt });
    this.pressedAt = 0;
    this.showBusy();
  }

  /** Waits for the pictures of an item, also while the server is away. @param {Item} item */
  wait(item) {
    clearTimeout(this.timer);
    this.pictures.get(item).then(() => this.show(), (error) => {
      if (this.page.current()?.id !== item.id || this.drawn) return;
      if (error.isAway) {
        showLoading("away");
        clearTimeout(this.timer);
        this.timer = setTimeout(() => { if (this.page.current()?.id === item.id) this.wait(item); }, RETRY_MS);
        return;
      }
      showLoading(null);
      showNothing("unreadable", this.page.onSkip, String(error.message ?? error));
    });
  }
}
