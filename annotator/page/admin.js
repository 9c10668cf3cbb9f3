// @ts-check
/** The admin page: how far, who, how well they agree, on what they do not. */

import { call, Problem } from "./api.js";
import { applyLook, byId, make, nextLook, remembered, thousands } from "./dom.js";
import { bars, columns, duration, empty, kappas, percent, split } from "./plots.js";

const LOOK = { auto: "Look: auto", light: "Look: light", dark: "Look: dark" };
const PAGE = 8;
const AGAIN_MS = 20_000;
/** @type {Record<string, string>} */
let reasons = {};

/** @param {string} word @param {number | string} value */
const fact = (word, value) => make("div", {}, make("dt", {}, word), make("dd", {}, value));

/** @param {number | null} value @param {number} [digits] */
const number = (value, digits = 2) => (value === null ? "–" : value.toFixed(digits));

/** @param {any} told */
function showRound(told) {
  const { account } = told;
  byId("totals").replaceChildren(
    fact("candidates", thousands(account.candidates)), fact("voted", thousands(account.voted)),
    fact("votes", thousands(account.votes)), fact("Krippendorff's α", number(told.alpha)),
    fact("flags", thousands(told.flags)));
  byId("account").replaceChildren(split([["voted", account.voted, "voted"], ["leased", account.leased, "leased"],
    ["waiting", account.waiting, "waiting"]]));
  const said = told.consensus;
  byId("consensus").replaceChildren(Object.keys(said).length
    ? split([["yes", said.yes ?? 0, "yes"], ["no", said.no ?? 0, "no"], ["unsure", said.unsure ?? 0, "unsure"], ["tie", said.tie ?? 0, "waiting"]])
    : empty("No vote yet."));
  const why = /** @type {[string, number][]} */ (Object.entries(told.reasons)).sort((a, b) => b[1] - a[1]);
  byId("reasons").replaceChildren(why.length ? bars(why.map(([name, count]) => [reasons[name] ?? name, count, thousands(count)])) : empty("None yet."));
  byId("removers").replaceChildren(told.removers.length ? bars(told.removers.map((/** @type {any} */ one) => {
    const total = (one.yes ?? 0) + (one.no ?? 0) + (one.unsure ?? 0) + (one.tie ?? 0);
    return [one.name, (one.yes ?? 0) / total, `${percent((one.yes ?? 0) / total)} of ${thousands(total)}`];
  }), 1) : empty("No vote yet."));
  byId("timeline").replaceChildren(told.timeline.counts.length ? columns(told.timeline) : empty("No vote yet."));
  byId("step").textContent = told.timeline.counts.length ? `a column is ${duration(told.timeline.step)}` : "";
}

/** @param {any} told */
function showPeople(told) {
  const heads = ["", "votes", "yes among yes and no", "unsure", "an hour", "s each", "known answers right", "last vote"];
  const rows = told.reviewers.map((/** @type {any} */ one) => {
    const known = one.right + one.wrong;
    const rate = make("td", { class: "rate" }, one.yes_rate === null ? "–" : percent(one.yes_rate));
    if (one.yes_rate !== null) rate.style.setProperty("--share", String(one.yes_rate));
    const right = make("td", { class: one.accuracy !== null && one.accuracy < 0.8 && known >= 5 ? "bad" : "" },
      known ? `${one.right} of ${known} (${percent(one.accuracy)})` : "–");
    const last = one.last ? new Date(1000 * one.last).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }) : "–";
    return make("tr", {}, make("th", { scope: "row" }, make("bdi", {}, one.name)), make("td", {}, thousands(one.votes)), rate,
      make("td", {}, thousands(one.unsure)), make("td", {}, one.per_hour === null ? "–" : thousands(Math.round(one.per_hour))),
      make("td", {}, number(one.median_seconds, 1)), right, make("td", {}, last));
  });
  byId("reviewers").replaceChildren(make("thead", {}, make("tr", {}, ...heads.map((word) =>
    word ? make("th", { scope: "col" }, word) : make("td", {})))), make("tbody", {}, ...rows));
  byId("alpha").textContent = told.alpha === null
    ? "No two reviewers have judged the same item yet, or all say the same word: there is nothing to compare. More votes an item (votes, near_votes of the policy) give more."
    : `Krippendorff's α over all reviewers is ${told.alpha.toFixed(3)}, on ${thousands(told.shared)} items with two votes or more. Below, Cohen's κ of every two: 1 is full agreement, 0 what chance gives.`;
  byId("kappa").replaceChildren(...(told.pairs.length ? kappas(told.reviewers, told.pairs) : []));
}

// --- items, side by side

/** @type {{before: string, after: string} | null} */
let open = null;

/** @param {string} id @param {string} words */
function enlarge(id, words) {
  open = { before: `/api/pictures/${id}/source`, after: `/api/pictures/${id}/result` };
  const picture = byId("large").querySelector("img");
  picture.src = open.after;
  picture.alt = words;
  byId("large").showModal();
}

/** @param {boolean} on */
function blink(on) {
  if (open && byId("large").open) byId("large").querySelector("img").src = on ? open.before : open.after;
}

/** @param {any} item */
function card(item) {
  const label = item.label ?? "no label";
  const pictures = ["source", "mask", "result"].map((role) => {
    const words = `${role} of ${item.row_id}`;
    const button = make("button", { "aria-label": `Enlarge the ${words}` },
      make("img", { src: `/api/pictures/${item.id}/${role}?size=${role === "mask" ? "thumb" : "view"}`, alt: "", loading: "lazy" }));
    button.addEventListener("click", () => enlarge(item.id, words));
    return button;
  });
  const votes = item.votes.map((/** @type {any} */ vote) => {
    const verdict = vote.action === "flag" ? "flag" : vote.verdict;
    const why = vote.reason ? `: ${reasons[vote.reason] ?? vote.reason}` : "";
    const seconds = vote.seconds === null || vote.action === "flag" ? "" : `, ${vote.seconds.toFixed(1)} s`;
    return make("li", { class: verdict }, make("bdi", {}, vote.reviewer), " ", make("b", {}, `${verdict}${why}`),
      make("span", { class: "soft" }, seconds), vote.remark ? make("q", {}, vote.remark) : null);
  });
  const facts = [label, item.remover, item.score === null ? null : `score ${item.score.toFixed(2)}`,
    item.expected ? `known answer: ${item.expected}` : null].filter(Boolean).join(" · ");
  return make("li", {}, make("div", { class: "pictures" }, ...pictures),
    make("div", {}, make("p", {}, make("bdi", {}, facts)), make("code", {}, item.row_id), make("ul", { class: "votes" }, ...votes)));
}

/** @param {string} name */
function listing(name) {
  const list = byId(name), more = byId(`more-${name}`), heading = byId(`h-${name}`).querySelector("small");
  let newest = 0;
  const load = async (/** @type {boolean} */ fresh) => {
    const request = ++newest;
    const start = fresh ? 0 : list.querySelectorAll(":scope > li[data-id]").length;
    const count = fresh ? Math.min(100, Math.max(PAGE, list.children.length)) : PAGE;
    const { total, items } = await call(`admin/${name}?start=${start}&count=${count}`);
    if (request !== newest) return;
    const cards = items.map((/** @type {any} */ item) => { const made = card(item); made.dataset.id = item.id; return made; });
    if (fresh) list.replaceChildren(...cards);
    else list.append(...cards);
    if (!total) list.replaceChildren(make("li", { class: "soft none" }, name === "disputed" ? "Nowhere." : "Nothing."));
    heading.textContent = total ? thousands(total) : "";
    more.hidden = start + items.length >= total;
  };
  more.addEventListener("click", () => load(false));
  return load;
}

const lists = [listing("disputed"), listing("flagged")];

async function refresh() {
  try {
    const told = await call("admin/overview");
    showRound(told);
    showPeople(told);
    byId("state").textContent = `As of ${new Date().toLocaleTimeString("en-GB")}; looks again by itself.`;
  } catch (error) {
    byId("state").textContent = error instanceof Problem && error.status === 403
      ? "Only an admin may look at this." : `${/** @type {Error} */ (error).message}.`;
  }
}

async function boot() {
  applyLook();
  const showLook = (/** @type {string} */ look) => { byId("look").textContent = LOOK[/** @type {"auto"} */ (look)] ?? LOOK.auto; };
  showLook(remembered("look", "auto"));
  byId("look").addEventListener("click", () => showLook(nextLook()));
  const picture = byId("large").querySelector("img");
  for (const [name, on] of Object.entries({ pointerdown: true, pointerup: false, pointerleave: false })) {
    picture.addEventListener(name, (/** @type {Event} */ event) => { event.preventDefault(); blink(on); });
  }
  addEventListener("keydown", (event) => { if (event.key === " " && byId("large").open) { event.preventDefault(); blink(true); } });
  addEventListener("keyup", (event) => { if (event.key === " ") blink(false); });
  try {
    const me = await call("me");
    reasons = me.reasons;
    byId("run").textContent = me.run;
  } catch {
    location.replace("/");
    return;
  }
  await refresh();
  await Promise.all(lists.map((load) => load(true))).catch(() => {});
  setInterval(() => { if (!document.hidden) refresh(); }, AGAIN_MS);
}

boot();
