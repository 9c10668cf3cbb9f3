// @ts-check
/** The admin page: progress, reviewers, agreement, disputed and flagged items. */

import { call, Problem } from "./api.js";
import { applyLook, byId, decimal, make, nextLook, readSetting, thousands } from "./dom.js";
import { bars, columns, duration, empty, kappas, percent, ratings, split } from "./plots.js";
import { labelReasons } from "./tasks/tasks.js";
import { card, listenToLarge } from "./team/cards.js";
import { language, t, translatePage } from "./texts/texts.js";

const PAGE = 8;
const REFRESH_MS = 20_000;
/** @type {Record<string, string>} */
let reasons = {};

/** @param {string} text @param {number | string} value */
const fact = (text, value) => make("div", {}, make("dt", {}, text), make("dd", {}, value));

/** @param {string} noun @param {number} value */
const count = (noun, value) => fact(t(`admin.${noun}`, { count: value }), thousands(value));

/** @param {number | null} value @param {number} [digits] */
const number = (value, digits = 2) => (value === null ? "–" : decimal(value, digits));

/** @param {any} overview */
function showRound(overview) {
  const { account } = overview;
  byId("totals").replaceChildren(
    count("candidate", account.candidates), fact(t("admin.voted"), thousands(account.voted)), count("vote", account.votes),
    fact(t("admin.alpha"), number(overview.alpha)), count("flag", overview.flags));
  byId("account").replaceChildren(split([[t("admin.voted"), account.voted, "voted"], [t("admin.leased"), account.leased, "leased"],
    [t("admin.waiting"), account.waiting, "waiting"], .../** @type {[string, number, string][]} */ (
      account.not_asked ? [[t("admin.notAsked"), account.not_asked, "waiting"]] : [])]));
  const consensus = overview.consensus;
  byId("consensus").replaceChildren(Object.keys(consensus).length
    ? split(["yes", "no", "unsure", "tie"].map((word) => [t(`said.${word}`), consensus[word] ?? 0, word === "tie" ? "waiting" : word]))
    : empty(t("admin.noVote")));
  const why = /** @type {[string, number][]} */ (Object.entries(overview.reasons)).sort((a, b) => b[1] - a[1]);
  byId("reasons").replaceChildren(why.length ? bars(why.map(([name, count]) => [reasons[name] ?? name, count, thousands(count)])) : empty(t("admin.none")));
  byId("removers").replaceChildren(overview.removers.length ? bars(overview.removers.map((/** @type {any} */ remover) => {
    const total = (remover.yes ?? 0) + (remover.no ?? 0) + (remover.unsure ?? 0) + (remover.tie ?? 0);
    return [remover.name, (remover.yes ?? 0) / total, t("admin.shareOf", { share: percent((remover.yes ?? 0) / total), total: thousands(total) })];
  }), 1) : empty(t("admin.noVote")));
  byId("timeline").replaceChildren(overview.timeline.counts.length ? columns(overview.timeline) : empty(t("admin.noVote")));
  byId("step").textContent = overview.timeline.counts.length ? t("admin.column", { time: duration(overview.timeline.step) }) : "";
}

/** @param {any} overview */
function showPeople(overview) {
  const heads = ["reviewer", "votes", "yesRate", "unsure", "perHour", "seconds", "right", "last"];
  const notes = ["yesRate", "seconds", "right"];
  const rows = overview.reviewers.map((/** @type {any} */ reviewer) => {
    const answers = reviewer.right + reviewer.wrong;
    const rate = make("td", { class: "rate" }, reviewer.yes_rate === null ? "–" : percent(reviewer.yes_rate));
    if (reviewer.yes_rate !== null) rate.style.setProperty("--share", String(reviewer.yes_rate));
    const right = make("td", { class: reviewer.accuracy !== null && reviewer.accuracy < 0.8 && answers >= 5 ? "bad" : "" },
      answers ? t("admin.rightOf", { right: reviewer.right, answers, share: percent(reviewer.accuracy) }) : "–");
    const last = reviewer.last ? new Date(1000 * reviewer.last).toLocaleString(language === "en" ? "en-GB" : language, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }) : "–";
    return make("tr", {}, make("th", { scope: "row" }, make("bdi", {}, reviewer.name)), make("td", {}, thousands(reviewer.votes)), rate,
      make("td", {}, thousands(reviewer.unsure)), make("td", {}, reviewer.per_hour === null ? "–" : thousands(Math.round(reviewer.per_hour))),
      make("td", {}, number(reviewer.median_seconds, 1)), right, make("td", {}, last));
  });
  byId("reviewers").replaceChildren(make("thead", {}, make("tr", {}, ...heads.map((key) =>
    make("th", { scope: "col", title: notes.includes(key) ? t(`admin.${key}Note`) : null }, t(`admin.${key}`))))), make("tbody", {}, ...rows));
  byId("alpha").textContent = overview.alpha === null
    ? t("admin.noAlpha")
    : t("admin.alphaIs", { alpha: decimal(overview.alpha, 3), count: overview.shared, number: thousands(overview.shared) });
  byId("kappa").replaceChildren(...(overview.pairs.length ? kappas(overview.reviewers, overview.pairs) : []));
}

// --- items, side by side

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
    const cards = items.map((/** @type {any} */ item) => card(item, reasons));
    if (fresh) list.replaceChildren(...cards);
    else list.append(...cards);
    if (!total) list.replaceChildren(make("li", { class: "soft none" }, t(name === "disputed" ? "admin.nowhere" : "list.none")));
    heading.textContent = total ? thousands(total) : "";
    more.hidden = start + items.length >= total;
  };
  more.addEventListener("click", () => load(false));
  return load;
}

const lists = [listing("disputed"), listing("flagged")];

async function refresh() {
  try {
    const [overview, rated] = await Promise.all([call("admin/overview"), call("admin/ratings")]);
    showRound(overview);
    showPeople(overview);
    byId("ratings").replaceChildren(rated.length ? ratings(rated) : empty(t("admin.noRanking")));
    byId("state").textContent = t("admin.asOf", { time: new Date().toLocaleTimeString(language === "en" ? "en-GB" : language) });
  } catch (error) {
    byId("state").textContent = error instanceof Problem && error.status === 403
      ? t("admin.forbidden") : `${/** @type {Error} */ (error).message}.`;
  }
}

async function boot() {
  applyLook();
  translatePage();
  document.title = `${t("nav.agreement")} · Rasura`;
  const showLook = (/** @type {string} */ look) => { byId("look").textContent = t(`look.${look}`); };
  showLook(readSetting("look", "auto"));
  byId("look").addEventListener("click", () => showLook(nextLook()));
  listenToLarge();
  try {
    const me = await call("me");
    reasons = labelReasons(me);
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
