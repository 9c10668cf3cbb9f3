/** Distributions of measures, with limits that can be moved, and what would be kept with them. */

const BINS = 40, WIDE = 300, HIGH = 60;

/** Returns the values at two shares of sorted values. */
function spanOf(sorted, ends) {
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))];
  let low = Math.min(at(0.01), ...ends), high = Math.max(at(0.99), ...ends);
  if (low === high) { low -= 1; high += 1; }
  return [low, high];
}

/** Counts values in bins; the outermost bins have what is beyond them. */
function countBins(values, low, high) {
  const bins = new Array(BINS).fill(0);
  for (const value of values) bins[Math.min(BINS - 1, Math.max(0, Math.floor((value - low) / (high - low) * BINS)))] += 1;
  return bins;
}

/** Draws a distribution: what was kept, on top of it what was rejected, and a line at each limit. */
function drawDistribution(name, kept, rejected, limit) {
  const ends = [limit.low, limit.high].filter((end) => end != null);
  const sorted = [...kept, ...rejected].sort((a, b) => a - b);
  const [low, high] = spanOf(sorted, ends);
  const below = countBins(kept, low, high), above = countBins(rejected, low, high);
  const most = Math.max(1, ...below.map((count, index) => count + above[index]));
  const bars = (kind, counts, base) => {
    const step = WIDE / BINS, path = counts.map((count, index) => (count ? `M${(step * index).toFixed(1)} ${(HIGH - 56 * base[index] / most).toFixed(1)}v${(-Math.max(1.5, 56 * count / most)).toFixed(1)}h${(step - 1).toFixed(1)}V${(HIGH - 56 * base[index] / most).toFixed(1)}z` : "")).join("");
    return path ? make("path", { class: kind, d: path }) : null;
  };
  const lines = ends.map((end) => make("line", { x1: WIDE * ((end - low) / (high - low)), x2: WIDE * ((end - low) / (high - low)), y1: 0, y2: HIGH }));
  const median = formatNumber(sorted[Math.floor((sorted.length - 1) / 2)]);
  const svg = make("svg", { class: "distribution", viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": `Distribution of ${name}: ${describeLimit(limit)}, median ${median}` }, bars("kept", below, below.map(() => 0)), bars("rejected", above, below), ...lines);
  return { svg, low, high, median };
}

/** Tells whether a value passes a limit: true, false, or null where nobody knows. */
function passes(value, limit, isKept) {
  if (typeof value !== "number") return isKept ? true : null; // a kept row without a value was kept for that: the rule's `missing`
  return (limit.low == null || value >= limit.low) && (limit.high == null || value <= limit.high);
}

/**
 * Counts what would be kept with other limits: surely, and at most.
 *
 * A rejected input counts where `select` rejected it for a measure; a measure that it has no value of may pass or not.
 * @returns {{least: number, most: number, before: number, all: number}}
 */
function countKept(gallery, rejected, limits) {
  const names = Object.keys(limits), result = { least: 0, most: 0, before: gallery.count, all: gallery.count };
  for (let row = 0; row < gallery.count; row++) {
    if (names.every((name) => passes(gallery.value(name, row), limits[name], true))) { result.least += 1; result.most += 1; }
  }
  for (const row of rejected ? rejected.measured : []) {
    result.all += 1;
    const outcomes = names.map((name) => passes(rejected.gallery.value(name, row), limits[name], false));
    if (outcomes.every((outcome) => outcome !== false)) result.most += 1;
    if (outcomes.every((outcome) => outcome === true)) result.least += 1;
  }
  return result;
}

class Measures {
  constructor(place, galleries) {
    const kept = galleries.filter((gallery) => !gallery.isRejected && gallery.count);
    const sections = kept.map((gallery) => this._makeSection(gallery, galleries.find((other) => other.isRejected && other.of === gallery.id))).filter(Boolean);
    sections.sort((a, b) => b.dataset.limited - a.dataset.limited);
    place.replaceChildren(...(sections.length ? sections : [make("p", { class: "empty" }, "No flow has measures.")]));
  }

  _makeSection(gallery, gone) {
    const rejected = gone ? { gallery: gone, measured: [] } : null;
    const isLimited = (row) => gone.value("stage", row) === "select" && String(gone.value("reason", row)).split(" ")[0] in gallery.limits;
    for (let row = 0; gone && row < gone.count; row++) if (isLimited(row)) rejected.measured.push(row);
    const limited = Object.keys(gallery.limits).filter((name) => gallery.isNumber(name) || (rejected?.measured.length && gone.isNumber(name)));
    const others = gallery.names.filter((name) => gallery.isNumber(name) && !(name in gallery.limits) && name !== "bytes" && name !== "seed");
    if (!limited.length && !others.length) return null;
    const limits = Object.fromEntries(Object.entries(gallery.limits).map(([name, { low, high }]) => [name, { low, high }]));
    const section = make("article", { "data-limited": limited.length });
    const name = make("bdi", {}, gallery.title), counts = make("small", {}, formatCount(gallery.total, "row"), gone ? `, ${gone.total.toLocaleString("en-US")} rejected` : "");
    if (limited.length) section.append(make("h3", {}, name, " ", counts));
    const answer = make("p", { class: "answer", role: "status" }), yaml = make("pre", { class: "yaml", tabindex: 0, "aria-label": "The changed limits as a recipe has them" });
    const refresh = () => this._describe(gallery, rejected, limits, answer, yaml);
    const grid = make("div", { class: "measures" });
    const add = (name) => { const figure = this._makeFigure(gallery, rejected, name, limits, refresh); if (figure) grid.append(figure); };
    limited.forEach(add);
    if (limited.length) section.append(grid, answer, yaml);
    refresh();
    if (others.length) {
      const words = `${formatCount(others.length, "measure")} without a limit`;
      const more = make("details", {}, limited.length ? make("summary", {}, words) : make("summary", {}, name, `: ${words}`)), folded = make("div", { class: "measures" });
      more.addEventListener("toggle", () => {
        if (!more.open || folded.children.length) return;
        for (const name of others) { const figure = this._makeFigure(gallery, null, name, null, null); if (figure) folded.append(figure); }
      });
      more.append(folded);
      section.append(more);
    }
    return section;
  }

  _makeFigure(gallery, rejected, name, limits, refresh) {
    const isNumber = (value) => typeof value === "number";
    const kept = gallery.values(name).filter(isNumber), gone = rejected ? rejected.measured.map((row) => rejected.gallery.value(name, row)).filter(isNumber) : [];
    if (!kept.length && !gone.length) return null;
    if (!limits && kept.every((value) => value === kept[0])) return make("figure", { class: "measure" }, make("figcaption", {}, make("code", {}, name), " ", make("small", {}, `${formatNumber(kept[0])} in all rows`)));
    const limit = limits ? limits[name] : { low: null, high: null }, figure = make("figure", { class: "measure" });
    const small = make("small", {}), chart = make("div", {}), inputs = make("div", { class: "ends" });
    const draw = () => {
      const { svg, low, high, median } = drawDistribution(name, kept, gone, limit);
      chart.replaceChildren(svg, make("p", { "aria-hidden": "true" }, make("span", {}, formatNumber(low)), make("span", {}, formatNumber(high))));
      small.textContent = `${describeLimit(limit) === "no limit" ? "" : `${describeLimit(limit)} · `}median ${median}`;
      return [low, high];
    };
    const [low, high] = draw();
    figure.append(make("figcaption", {}, make("code", {}, name), " ", small), chart, inputs);
    if (!limits) return figure;
    for (const [end, word] of [["low", "at least"], ["high", "at most"]]) {
      if (gallery.limits[name][end] == null) continue;
      const span = high - low;
      const slide = make("input", { type: "range", min: low - span / 4, max: high + span / 4, step: span / 200, "aria-label": `${name} ${word}` });
      const exact = make("input", { type: "number", step: "any", "aria-label": `${name} ${word}, exactly` });
      slide.value = exact.value = String(limit[end]);
      const change = (value) => {
        limit[end] = value === "" || Number.isNaN(Number(value)) ? gallery.limits[name][end] : Number(Number(value).toPrecision(6));
        draw();
        refresh();
      };
      slide.addEventListener("input", () => { exact.value = String(Number(Number(slide.value).toPrecision(3))); change(exact.value); });
      exact.addEventListener("input", () => { if (exact.value !== "") slide.value = exact.value; change(exact.value); });
      inputs.append(make("label", {}, `${word} `, slide), exact);
    }
    return figure;
  }

  _describe(gallery, rejected, limits, answer, yaml) {
    const changed = Object.entries(limits).filter(([name, limit]) => limit.low !== gallery.limits[name].low || limit.high !== gallery.limits[name].high);
    yaml.hidden = !changed.length;
    if (!changed.length) {
      answer.textContent = "Move a limit to see what it would keep.";
      return;
    }
    const { least, most, before, all } = countKept(gallery, rejected, limits);
    const sample = gallery.count < gallery.total ? ` (of those ${formatCount(gallery.count, "row")} that are in this page)` : "";
    const kept = least === most ? least.toLocaleString("en-US") : `${least.toLocaleString("en-US")} to ${most.toLocaleString("en-US")}`;
    const why = least === most ? "" : `; ${most - least} rejected before another measure was compared`;
    answer.replaceChildren("With these limits ", make("b", {}, `${kept} of ${all.toLocaleString("en-US")}`), ` would be kept, in place of ${before.toLocaleString("en-US")}${sample}${why}.`);
    const lines = changed.map(([name, limit]) => `  ${name}: {${[["min", limit.low], ["max", limit.high]].filter(([, value]) => value != null).map(([key, value]) => `${key}: ${value}`).join(", ")}}`);
    yaml.textContent = ["keep:", ...lines].join("\n");
  }
}
