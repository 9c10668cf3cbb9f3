// @ts-check
/** Plots of the admin page, as elements: bars, a divided bar, columns over time, a shaded table. */

import { decimal, make, thousands } from "./dom.js";
import { language, t } from "./texts/texts.js";

/** @param {number} value @returns {string} */
export const percent = (value) => `${(100 * value).toFixed(value < 0.0995 && value > 0 ? 1 : 0)} %`;

/**
 * Returns the shares of parts in whole percent, which add up to 100: the largest remainders are rounded up.
 * @param {number[]} values
 * @returns {number[]}
 */
export function shares(values) {
  const total = values.reduce((sum, value) => sum + value, 0) || 1;
  const exact = values.map((value) => (100 * value) / total), whole = exact.map(Math.floor);
  const order = exact.map((value, index) => ({ index, rest: value - whole[index] })).sort((a, b) => b.rest - a.rest);
  const left = Math.round(exact.reduce((sum, value) => sum + value, 0)) - whole.reduce((sum, value) => sum + value, 0);
  for (const { index } of order.slice(0, left)) whole[index] += 1;
  return whole;
}

/** Returns the text in place of an empty plot. @param {string} words */
export const empty = (words) => make("p", { class: "soft" }, words);

/**
 * Draws horizontal bars, one for each row.
 * @param {[string, number, string][]} rows name, length, text beside it
 * @param {number} [most] length of a full bar
 */
export function bars(rows, most) {
  const full = most ?? Math.max(1, ...rows.map(([, value]) => value));
  return make("ul", { class: "bars" }, ...rows.map(([name, value, words]) => {
    const bar = make("i", { "aria-hidden": "true" });
    bar.style.width = `${(100 * value) / full}%`;
    return make("li", {}, make("bdi", {}, name), make("b", {}, words), bar);
  }));
}

/**
 * Draws one bar in parts, with a legend.
 * @param {[string, number, string][]} parts name, size, class
 */
export function split(parts) {
  const whole = shares(parts.map(([, value]) => value));
  const bar = make("div", { class: "split", "aria-hidden": "true" }, ...parts.filter(([, value]) => value).map(([, value, kind]) => {
    const part = make("i", { class: kind });
    part.style.flexGrow = String(value);
    return part;
  }));
  const legend = make("ul", { class: "legend" }, ...parts.map(([name, value, kind], index) =>
    make("li", {}, make("i", { class: kind, "aria-hidden": "true" }), `${name} `, make("b", {}, thousands(value)),
      ` ${value && !whole[index] ? "< 1" : whole[index]} %`)));
  return make("div", {}, bar, legend);
}

/**
 * Draws columns over time.
 * @param {{start: number, step: number, counts: number[]}} timeline
 */
export function columns({ start, step, counts }) {
  const most = Math.max(1, ...counts);
  const formatTime = (/** @type {number} */ index) => new Date(1000 * (start + index * step)).toLocaleString(language === "en" ? "en-GB" : language,
    { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  const list = make("div", { class: "columns", role: "img", "aria-label": t("plot.columns", { number: counts.length, most }) },
    ...counts.map((count, index) => {
      const bar = make("i", {});
      bar.style.height = `${(100 * count) / most}%`;
      return make("span", { title: `${formatTime(index)}: ${thousands(count)}` }, bar);
    }));
  const plot = make("div", { class: "timeline" }, make("p", { class: "most soft" }, t("plot.votes", { count: most, number: thousands(most) })), list,
    make("p", { class: "axis soft" }, make("span", {}, formatTime(0)), make("span", {}, formatTime(counts.length))));
  plot.style.setProperty("--count", String(counts.length));
  return plot;
}

/** @param {number} seconds @returns {string} */
export function duration(seconds) {
  const [unit, size] = seconds < 3600 ? ["minutes", 60] : seconds < 86400 ? ["hours", 3600] : ["days", 86400];
  const count = Math.round(seconds / Number(size));
  return t(`plot.${unit}`, { count, number: count });
}

/**
 * Makes a table of Cohen's κ of every two reviewers, shaded.
 * @param {{id: number, name: string}[]} people
 * @param {{one: number, other: number, items: number, agreed: number, kappa: number | null}[]} pairs
 */
export function kappas(people, pairs) {
  const byReviewers = new Map(pairs.flatMap((pair) => [[`${pair.one} ${pair.other}`, pair], [`${pair.other} ${pair.one}`, pair]]));
  const compared = people.filter(({ id }) => pairs.some((pair) => pair.one === id || pair.other === id));
  const head = make("tr", {}, make("td", {}), ...compared.map(({ name }) => make("th", { scope: "col" }, make("bdi", {}, name))));
  return [make("thead", {}, head), make("tbody", {}, ...compared.map((row) =>
    make("tr", {}, make("th", { scope: "row" }, make("bdi", {}, row.name)), ...compared.map((column) => {
      const pair = byReviewers.get(`${row.id} ${column.id}`);
      if (!pair) return make("td", { class: "none" }, row.id === column.id ? "" : "–");
      const words = t("plot.agreed", { agreed: pair.agreed, items: pair.items });
      const cell = make("td", { title: words }, pair.kappa === null ? "–" : decimal(pair.kappa, 2), make("small", {}, words));
      cell.style.setProperty("--k", String(Math.max(0, pair.kappa ?? 0)));
      return cell;
    }))))];
}

/**
 * Draws the ratings of removers: a point with its interval, on one scale.
 * @param {{name: string, rating: number, low: number, high: number, comparisons: number, won: number}[]} rated
 */
export function ratings(rated) {
  const low = Math.min(...rated.map((row) => row.low)), high = Math.max(...rated.map((row) => row.high)), wide = Math.max(1, high - low);
  const at = (/** @type {number} */ value) => `${(100 * (value - low)) / wide}%`;
  return make("ul", { class: "ratings" }, ...rated.map((row) => {
    const interval = make("i", { "aria-hidden": "true" }), point = make("b", { "aria-hidden": "true" });
    interval.style.left = at(row.low);
    interval.style.width = `${(100 * (row.high - row.low)) / wide}%`;
    point.style.left = at(row.rating);
    return make("li", {}, make("bdi", {}, row.name),
      make("span", {}, t("plot.rating", { rating: Math.round(row.rating), low: Math.round(row.low), high: Math.round(row.high) })),
      make("div", {}, interval, point),
      make("small", {}, t("plot.won", { won: percent(row.won), count: row.comparisons, number: thousands(row.comparisons) })));
  }));
}
