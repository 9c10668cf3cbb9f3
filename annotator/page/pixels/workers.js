// @ts-check
/** The page's end of the workers. */

import { t } from "../texts/texts.js";

/** @typedef {(value: any) => void} Settle */

/** A worker whose tasks are promises. */
class Tasks {
  constructor() {
    this.worker = new Worker("/page/pixels/worker.js", { type: "module" });
    /** @type {Map<number, [Settle, Settle]>} */
    this.open = new Map();
    this.last = 0;
    this.worker.addEventListener("message", ({ data: { id, result, problem, isAway } }) => {
      const [resolve, reject] = this.open.get(id) ?? [];
      this.open.delete(id);
      if (problem === undefined) resolve?.(result);
      else reject?.(Object.assign(new Error(problem), { isAway }));
    });
    this.worker.addEventListener("error", (event) => { // it could not be loaded, or ran out of memory
      for (const [, reject] of this.open.values()) reject(new Error(event.message || t("problem.worker")));
      this.open.clear();
    });
  }

  /** @param {string} task @param {{id: string, dilation: number}} item @returns {Promise<any>} */
  run(task, { id: item, dilation }) {
    return new Promise((resolve, reject) => {
      this.open.set(++this.last, [resolve, reject]);
      this.worker.postMessage({ id: this.last, task, item, dilation });
    });
  }
}

/** For the pictures of the next items, and for what takes long, so that the one does not wait for the other. */
const near = new Tasks(), far = new Tasks();

/** @param {"view" | "native" | "heat" | "effects"} task @param {{id: string, dilation: number}} item @returns {Promise<any>} */
export function load(task, item) {
  return (task === "view" ? near : far).run(task, item);
}
