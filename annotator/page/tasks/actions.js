// @ts-check
/** What a reviewer can do with an item beside judging it: flag it, and correct its mask. */

import { nonce } from "../api.js";
import { correctMask } from "../correct/correct.js";
import { store } from "../outbox/notes.js";
import { askRemark, showMessage } from "../panels.js";
import { t } from "../texts/texts.js";
import { listReasons } from "./tasks.js";

/** @typedef {import("./tasks.js").Item} Item */

/** Flags an item with a remark. @param {import("../outbox/outbox.js").Outbox | null} outbox @param {Item | null} item */
export async function flagItem(outbox, item) {
  const remark = item && await askRemark();
  if (item && remark && outbox && await store(outbox, "flag", { item: item.id, nonce: nonce(), remark }, item.label)) {
    showMessage(t("flag.done"));
  }
}

/**
 * Has the mask of the current item corrected; the item as it is deserves a no then.
 * @param {any} me
 * @param {() => Item | null} current
 * @param {(verdict: string, reason: string) => void} judge
 */
export async function correctItem(me, current, judge) {
  const item = current();
  const part = item && await correctMask(item.id);
  if (!item || !part) return;
  showMessage(t("correct.stored"));
  const reason = part === "mask" ? "mask" : "effects", words = listReasons(me, item);
  const fitting = words.includes(reason) ? reason : words.includes("other") ? "other" : null;
  if (fitting && current() === item) judge("no", fitting);
}
