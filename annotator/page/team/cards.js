// @ts-check
/** Items as cards: their pictures, what is known of them and what was said; and a picture enlarged. */

import { byId, make } from "../dom.js";
import { t, textOr } from "../texts/texts.js";

/** @type {{before: string, after: string} | null} */
let open = null;

/** @param {string} id @param {string} label */
function enlarge(id, label) {
  open = { before: `/api/pictures/${id}/source`, after: `/api/pictures/${id}/result` };
  const picture = byId("large").querySelector("img");
  picture.src = open.after;
  picture.alt = label;
  byId("large").showModal();
}

/** @param {boolean} on */
function blink(on) {
  if (open && byId("large").open) byId("large").querySelector("img").src = on ? open.before : open.after;
}

/** Makes the enlarged picture show the one before while it is held. */
export function listenToLarge() {
  const picture = byId("large").querySelector("img");
  for (const [name, on] of Object.entries({ pointerdown: true, pointerup: false, pointerleave: false })) {
    picture.addEventListener(name, (/** @type {Event} */ event) => { event.preventDefault(); blink(on); });
  }
  addEventListener("keydown", (event) => { if (event.key === " " && byId("large").open) { event.preventDefault(); blink(true); } });
  addEventListener("keyup", (event) => { if (event.key === " ") blink(false); });
}

/** Returns the label of a reason. @param {Record<string, string>} reasons those of the review @param {string} word */
export const nameReason = (reasons, word) => reasons[word] ?? textOr(`reason.${word}`, word);

/** @param {any} vote @param {Record<string, string>} reasons */
function voteLine(vote, reasons) {
  const kind = vote.action === "flag" ? "flag" : vote.verdict;
  const label = vote.action === "flag" ? t("vote.flag") : vote.verdict ? t(`said.${vote.verdict}`) : t("said.skip");
  const why = vote.reason ? `: ${nameReason(reasons, vote.reason)}` : "";
  const seconds = vote.seconds === null || vote.action === "flag" ? "" : `, ${vote.seconds.toFixed(1)} s`;
  const expert = vote.action === "overrule" ? ` (${t("vote.expert")})` : "";
  return make("li", { class: kind }, make("bdi", {}, vote.reviewer), " ", make("b", {}, `${label}${why}`),
    make("span", { class: "soft" }, `${seconds}${expert}`), vote.remark ? make("q", {}, vote.remark) : null);
}

/**
 * Makes the card of an item.
 * @param {any} item
 * @param {Record<string, string>} reasons
 * @param {...(Node | null)} more
 */
export function card(item, reasons, ...more) {
  const pictures = ["source", "mask", "result"].map((role) => {
    const label = t("cards.of", { role: t(`role.${role}`), row: item.row_id });
    const button = make("button", { "aria-label": t("cards.enlarge", { label }) },
      make("img", { src: `/api/pictures/${item.id}/${role}?size=${role === "mask" ? "thumb" : "view"}`, alt: "", loading: "lazy" }));
    button.addEventListener("click", () => enlarge(item.id, label));
    return button;
  });
  const facts = [item.label ?? t("cards.noLabel"), item.remover, item.score === null ? null : t("cards.score", { score: item.score.toFixed(2) }),
    item.expected ? t("cards.known", { verdict: t(`said.${item.expected}`) }) : null].filter(Boolean).join(" · ");
  return make("li", { "data-id": item.id }, make("div", { class: "pictures" }, ...pictures),
    make("div", {}, item.why ? make("p", { class: "why" }, t(`expert.${item.why}`)) : null,
      make("p", {}, make("bdi", {}, facts)), make("code", {}, item.row_id),
      make("ul", { class: "votes" }, ...item.votes.map((/** @type {any} */ vote) => voteLine(vote, reasons))), ...more));
}
