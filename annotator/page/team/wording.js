// @ts-check
/** The wording of a review: guidelines in Markdown with a preview, reasons and labels, in versions. */

import { call } from "../api.js";
import { make } from "../dom.js";
import { t, textOr } from "../texts/texts.js";
import { buildMarkdown } from "./markdown.js";

/** @typedef {import("./items.js").Page} Page */

const MOST = 9;

/** Makes the rows in which the reasons of a task are edited. @param {string} task @param {Record<string, string>} reasons */
function reasonEditor(task, reasons) {
  const rows = make("div");
  const number = () => [...rows.children].forEach((row, index) => { row.firstElementChild.textContent = String(index + 1); });
  const add = (/** @type {string} */ word, /** @type {string} */ label) => {
    const remove = make("button", { type: "button", "aria-label": t("wording.removeReason", { label: label || word }) }, "✕");
    const row = make("div", { class: "reason" }, make("span", { class: "soft" }),
      make("input", { value: word, pattern: "[a-z][a-z0-9_]{0,15}", required: true, placeholder: t("wording.word"), "aria-label": t("wording.word") }),
      make("input", { value: label, maxlength: 60, required: true, placeholder: t("wording.label"), "aria-label": t("wording.label") }), remove);
    remove.addEventListener("click", () => { row.remove(); number(); });
    rows.append(row);
    number();
  };
  for (const [word, label] of Object.entries(reasons)) add(word, label);
  const more = make("button", { type: "button" }, t("wording.addReason"));
  more.addEventListener("click", () => { if (rows.children.length < MOST) add("", ""); });
  const read = () => Object.fromEntries([...rows.children].map((row) => {
    const [word, label] = row.querySelectorAll("input");
    return [word.value.trim(), label.value.trim()];
  }));
  return { node: make("fieldset", {}, make("legend", {}, t(`task.${task}`)), rows, more), read };
}

/** The wording. @param {Page} page */
export function wording(page) {
  const place = make("div");
  const load = async () => {
    const { versions, reasons: own } = await call("admin/settings");
    place.replaceChildren(...build(versions, own));
  };

  /** @param {any[]} versions @param {Record<string, Record<string, string>>} own */
  const build = (versions, own) => {
    const newest = versions[0], value = newest?.value ?? { guidelines: null, reasons: {}, labels: {} };
    const text = make("textarea", { maxlength: 20000, "aria-label": t("wording.guidelines") });
    text.value = value.guidelines ?? "";
    const preview = make("div", { class: "preview prose", "aria-live": "polite" });
    let timer = 0;
    const show = () => {
      clearTimeout(timer);
      timer = setTimeout(() => call("admin/preview", { text: text.value })
        .then(({ guidelines }) => preview.replaceChildren(...(guidelines.length ? buildMarkdown(guidelines) : [t("wording.own")])), (error) => page.say(error.message)), 250);
    };
    text.addEventListener("input", show);
    show();
    const own_labels = (/** @type {Record<string, string>} */ words) => Object.fromEntries(Object.entries(words).map(([word, label]) => [word, textOr(`reason.${word}`, label)]));
    const editors = Object.fromEntries(Object.keys(own).map((task) => [task, reasonEditor(task, value.reasons[task] ?? own_labels(own[task]))]));
    const labels = Object.fromEntries(["yes", "no", "unsure"].map((word) => [word,
      make("input", { value: value.labels[word] ?? "", maxlength: 60, placeholder: t(`verdict.${word}`) })]));
    const history = make("select", { "aria-label": t("wording.versions") }, make("option", { value: "" }, t("wording.versions")),
      ...versions.map((version) => make("option", { value: version.version }, t("wording.version", {
        number: version.version, time: new Date(1000 * version.time).toLocaleString(document.documentElement.lang) }))));
    history.addEventListener("change", () => {
      const chosen = versions.find((version) => String(version.version) === history.value);
      if (chosen) place.replaceChildren(...build([{ ...newest, value: chosen.value }, ...versions.slice(1)], own));
    });
    const form = make("form", {}, make("div", { class: "two" },
      make("div", {}, make("h2", {}, t("wording.guidelines")), make("p", { class: "soft" }, t("wording.about")), text),
      make("div", {}, make("h2", {}, t("wording.preview")), preview)),
    make("h2", {}, t("wording.labels")), make("div", { class: "row" }, ...Object.entries(labels).map(([word, input]) => make("label", {}, t(`verdict.${word}`), input))),
    make("h2", {}, t("wording.reasons")), make("p", { class: "soft" }, t("wording.reasonsAbout")), ...Object.values(editors).map(({ node }) => node),
    make("div", { class: "row" }, make("button", { class: "primary" }, t("wording.save")), versions.length ? history : null));
    form.addEventListener("submit", async (/** @type {Event} */ event) => {
      event.preventDefault();
      page.say("");
      const changed = Object.entries(editors).map(([task, { read }]) => [task, read()])
        .filter(([task, words]) => JSON.stringify(words) !== JSON.stringify(own_labels(own[/** @type {string} */ (task)])));
      const given = Object.entries(labels).map(([word, input]) => [word, input.value.trim()]).filter(([, label]) => label);
      try {
        await call("admin/settings", { based_on: newest?.version ?? 0, value: {
          guidelines: text.value.trim() ? text.value : null, reasons: Object.fromEntries(changed), labels: Object.fromEntries(given) } });
        await load();
        page.say(t("wording.saved"));
      } catch (error) {
        page.say(/** @type {Error} */ (error).message);
      }
    });
    return [form];
  };
  load().catch((error) => page.say(error.message));
  return [place];
}
