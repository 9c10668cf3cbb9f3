// @ts-check
/** The admin page: progress, reviewers, agreement, disputed and flagged items. */

import { call, Problem } from "./api.js";
import { applyLook, byId, decimal, make, nextLook, nounFor, plural, readSetting, thousands } from "./dom.js";
import { bars, columns, duration, empty, kappas, percent, split } from "./plots.js";

const LOOK = { auto: "Look: auto", light: "Look: light", dark: "Look: dark" };
const PAGE = 8;
const REFRESH_MS = 20_000;
/** @type {Record<string, string>} */
let reasons = {};

/** @param {string} text @param {number | string} value */
const fact = (text, value) => make("div", {}, make("dt", {}, text), make("dd", {}, value));

/** @param {string} noun @param {number} value */
const count = (noun, value) => fact(nounFor(value, noun), thousands(value));

/** @param {number | null} value @param {number} [digits] */
const number = (value, digits = 2) => (value === null ? "–" : decimal(value, digits));

/** @param {any} overview */
function showRound(overview) {
  const { account } = overview;
  byId("totals").replaceChildren(
    count("candidate", account.candidates), fact("voted", thousands(account.voted)), count("vote", account.votes),
    fact("Krippendorff's α", number(overview.alpha)), count("flag", overview.flags));
  byId("account").replaceChildren(split([["voted", account.voted, "voted"], ["leased", account.leased, "leased"],
    ["waiting", account.waiting, "waiting"], .../** @type {[string, number, string][]} */ (
      account.not_asked ? [["not asked", account.not_asked, "waiting"]] : [])]));
  const consensus = overview.consensus;
  byId("consensus").replaceChildren(Object.keys(consensus).length
    ? split([["yes", consensus.yes ?? 0, "yes"], ["no", consensus.no ?? 0, "no"], ["unsure", consensus.unsure ?? 0, "unsure"], ["tie", consensus.tie ?? 0, "waiting"]])
    : empty("No vote yet."));
  const why = /** @type {[string, number][]} */ (Object.entries(overview.reasons)).sort((a, b) => b[1] - a[1]);
  byId("reasons").replaceChildren(why.length ? bars(why.map(([name, count]) => [reasons[name] ?? name, count, thousands(count)])) : empty("None yet."));
  byId("removers").replaceChildren(overview.removers.length ? bars(overview.removers.map((/** @type {any} */ remover) => {
    const total = (remover.yes ?? 0) + (remover.no ?? 0) + (remover.unsure ?? 0) + (remover.tie ?? 0);
    return [remover.name, (remover.yes ?? 0) / total, `${percent((remover.yes ?? 0) / total)} of ${thousands(total)}`];
  }), 1) : empty("No vote yet."));
  byId("timeline").replaceChildren(overview.timeline.counts.length ? columns(overview.timeline) : empty("No vote yet."));
  byId("step").textContent = overview.timeline.counts.length ? `a column is ${duration(overview.timeline.step)}` : "";
}

/** @param {any} overview */
function showPeople(overview) {
  const heads = ["reviewer", "votes", "share of yes", "unsure", "votes per hour", "seconds per vote", "known answers right", "last vote"];
  const notes = { "share of yes": "of the votes that are yes or no", "seconds per vote": "the median", "known answers right": "of the items whose answer is known" };
  const rows = overview.reviewers.map((/** @type {any} */ reviewer) => {
    const answers = reviewer.right + reviewer.wrong;
    const rate = make("td", { class: "rate" }, reviewer.yes_rate === null ? "–" : percent(reviewer.yes_rate));
    if (reviewer.yes_rate !== null) rate.style.setProperty("--share", String(reviewer.yes_rate));
    const right = make("td", { class: reviewer.accuracy !== null && reviewer.accuracy < 0.8 && answers >= 5 ? "bad" : "" },
      answers ? `${reviewer.right} of ${answers} (${percent(reviewer.accuracy)})` : "–");
    const last = reviewer.last ? new Date(1000 * reviewer.last).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }) : "–";
    return make("tr", {}, make("th", { scope: "row" }, make("bdi", {}, reviewer.name)), make("td", {}, thousands(reviewer.votes)), rate,
      make("td", {}, thousands(reviewer.unsure)), make("td", {}, reviewer.per_hour === null ? "–" : thousands(Math.round(reviewer.per_hour))),
      make("td", {}, number(reviewer.median_seconds, 1)), right, make("td", {}, last));
  });
  byId("reviewers").replaceChildren(make("thead", {}, make("tr", {}, ...heads.map((text) =>
    make("th", { scope: "col", title: notes[/** @type {"share of yes"} */ (text)] }, text)))), make("tbody", {}, ...rows));
  byId("alpha").textContent = overview.alpha === null
    ? "No two reviewers have judged the same item yet, or all verdicts are the same: there is nothing to compare. It takes more votes for each item: see votes and near_votes in the documentation of the review."
    : `Krippendorff's α over all reviewers is ${decimal(overview.alpha, 3)}, on ${plural(overview.shared, "item")} with two votes or more. Below, Cohen's κ of every two reviewers: 1 is full agreement, 0 is chance.`;
  byId("kappa").replaceChildren(...(overview.pairs.length ? kappas(overview.reviewers, overview.pairs) : []));
}

// --- items, side by side

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

/** @param {any} item */
function card(item) {
  const pictures = ["source", "mask", "result"].map((role) => {
    const label = `${role} of ${item.row_id}`;
    const button = make("button", { "aria-label": `Enlarge the ${label}` },
      make("img", { src: `/api/pictures/${item.id}/${role}?size=${role === "mask" ? "thumb" : "view"}`, alt: "", loading: "lazy" }));
    button.addEventListener("click", () => enlarge(item.id, label));
    return button;
  });
  const votes = item.votes.map((/** @type {any} */ vote) => {
    const verdict = vote.action === "flag" ? "flag" : vote.verdict;
    const why = vote.reason ? `: ${reasons[vote.reason] ?? vote.reason}` : "";
    const seconds = vote.seconds === null || vote.action === "flag" ? "" : `, ${vote.seconds.toFixed(1)} s`;
    return make("li", { class: verdict }, make("bdi", {}, vote.reviewer), " ", make("b", {}, `${verdict}${why}`),
      make("span", { class: "soft" }, seconds), vote.remark ? make("q", {}, vote.remark) : null);
  });
  const facts = [item.label ?? "no label", item.remover, item.score === null ? null : `score ${item.score.toFixed(2)}`,
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
    const cards = items.map((/** @type {any} */ item) => { const element = card(item); element.dataset.id = item.id; return element; });
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
    const overview = await call("admin/overview");
    showRound(overview);
    showPeople(overview);
    byId("state").textContent = `As of ${new Date().toLocaleTimeString("en-GB")}; refreshes itself.`;
  } catch (error) {
    byId("state").textContent = error instanceof Problem && error.status === 403
      ? "Only admins may see this." : `${/** @type {Error} */ (error).message}.`;
  }
}

async function boot() {
  applyLook();
  const showLook = (/** @type {string} */ look) => { byId("look").textContent = LOOK[/** @type {"auto"} */ (look)] ?? LOOK.auto; };
  showLook(readSetting("look", "auto"));
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
  setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
}

boot();
