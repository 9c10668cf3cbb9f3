// @ts-check
/** Items found and opened: the search of admins, and the queue of experts with their rulings. */

import { call, nonce } from "../api.js";
import { correctMask } from "../correct/correct.js";
import { make, thousands } from "../dom.js";
import { t } from "../texts/texts.js";
import { card, nameReason } from "./cards.js";

const PAGE = 8;

/** @typedef {{me: any, say: (text: string) => void}} Page */

/**
 * Makes the buttons with which an expert rules on an item.
 * @param {Page} page @param {any} item @param {() => void} then called when the ruling is stored
 */
function rulingButtons({ me, say }, item, then) {
  const rule = async (/** @type {string | null} */ verdict, /** @type {string | null} */ reason) => {
    try {
      await call("expert/rulings", { item: item.id, nonce: nonce(), verdict, reason });
      then();
    } catch (error) {
      say(/** @type {Error} */ (error).message);
    }
  };
  const words = me.wording.tasks[item.task]?.reasons ?? Object.keys(me.reasons);
  const reasons = make("select", { "aria-label": t("expert.reason") }, make("option", { value: "" }, t("expert.no")),
    ...words.map((/** @type {string} */ word) => make("option", { value: word }, `${t("verdict.no")}: ${nameReason(me.reasons, word)}`)));
  reasons.addEventListener("change", () => { if (reasons.value) rule("no", reasons.value); });
  const yes = make("button", { class: item.ruling?.verdict === "yes" ? "chosen" : "" }, t("verdict.yes"));
  yes.addEventListener("click", () => rule("yes", null));
  const correct = make("button", {}, t("expert.correct"));
  correct.addEventListener("click", async () => { if (await correctMask(item.id)) then(); });
  const withdraw = item.ruling ? make("button", {}, t("expert.withdraw")) : null;
  withdraw?.addEventListener("click", () => rule(null, null));
  const state = item.ruling ? t("expert.ruled", { verdict: t(`verdict.${item.ruling.verdict}`) }) : t("expert.rule");
  return make("div", { class: "ruling" }, make("span", { class: "soft" }, state), yes, reasons, withdraw, correct);
}

/**
 * Makes a list of items that loads more of them.
 * @param {Page} page @param {(start: number) => string} address
 */
function itemList(page, address) {
  const list = make("ul", { class: "items" }), total = make("p", { class: "soft", role: "status" });
  const more = make("button", { class: "more" }, t("list.more"));
  let newest = 0;
  const load = async (/** @type {boolean} */ fresh) => {
    const request = ++newest;
    try {
      const start = fresh ? 0 : list.children.length, answer = await call(address(start));
      if (request !== newest) return;
      const refresh = async (/** @type {string} */ id) => {
        const item = await call(`items/${id}`);
        list.querySelector(`[data-id="${id}"]`)?.replaceWith(build(item));
      };
      const build = (/** @type {any} */ item) => card(item, page.me.reasons, rulingButtons(page, item, () => refresh(item.id)));
      const cards = answer.items.map(build);
      if (fresh) list.replaceChildren(...cards);
      else list.append(...cards);
      total.textContent = answer.total ? t("list.total", { count: answer.total, number: thousands(answer.total) }) : t("list.none");
      more.hidden = start + answer.items.length >= answer.total;
    } catch (error) {
      page.say(/** @type {Error} */ (error).message);
    }
  };
  more.addEventListener("click", () => load(false));
  return { nodes: [total, list, more], load };
}

/** The queue of experts. @param {Page} page */
export function expertQueue(page) {
  const { nodes, load } = itemList(page, (start) => `expert/queue?start=${start}&count=${PAGE}`);
  load(true);
  return [make("p", { class: "soft" }, t("expert.about")), ...nodes];
}

/** The search. @param {Page} page */
export function itemSearch(page) {
  const field = (/** @type {string} */ key, /** @type {any} */ input) => make("label", {}, t(`find.${key}`), input);
  const select = (/** @type {string[][]} */ options) => make("select", {}, make("option", { value: "" }, t("find.any")),
    ...options.map(([value, label]) => make("option", { value }, label)));
  const text = make("input", { type: "search", maxlength: 200, placeholder: t("find.textHint") });
  const status = select(["waiting", "voted", "ruled", "corrected"].map((word) => [word, t(`find.${word}`)]));
  const verdict = select(["yes", "no", "unsure"].map((word) => [word, t(`verdict.${word}`)]));
  const task = select(Object.keys(page.me.wording.tasks).map((word) => [word, t(`task.${word}`)]));
  const { nodes, load } = itemList(page, (start) => {
    const query = new URLSearchParams({ start: String(start), count: String(PAGE) });
    for (const [name, input] of Object.entries({ text, status, verdict, task })) if (input.value) query.set(name, input.value);
    return `admin/items?${query}`;
  });
  const form = make("form", { class: "row", role: "search" }, field("text", text), field("status", status), field("verdict", verdict),
    field("task", task), make("button", { class: "primary" }, t("find.find")));
  form.addEventListener("submit", (/** @type {Event} */ event) => { event.preventDefault(); load(true); });
  for (const input of [status, verdict, task]) input.addEventListener("change", () => load(true));
  load(true);
  return [form, ...nodes];
}
