// @ts-check
/** The people of a review and the programs that use it: invited, renamed, removed; votes set aside and brought back. */

import { call } from "../api.js";
import { make, thousands } from "../dom.js";
import { t } from "../texts/texts.js";

/** @typedef {import("./items.js").Page} Page */

/** Shows something that is shown once. @param {string} title @param {string} text */
function secret(title, text) {
  const copy = make("button", { type: "button" }, t("people.copy"));
  copy.addEventListener("click", () => navigator.clipboard?.writeText(text).then(() => { copy.textContent = t("people.copied"); }));
  return make("div", { class: "secret", role: "status" }, make("p", {}, title), make("code", {}, text), make("p", {}, copy));
}

/** Asks before something that cannot be seen at once. @param {string} text @returns {Promise<boolean>} */
function ask(text) {
  const yes = make("button", { class: "primary", value: "yes" }, t("ask.yes")), no = make("button", { value: "" }, t("ask.no"));
  const dialog = make("dialog", { "aria-label": text }, make("form", { method: "dialog" }, make("p", {}, text), make("p", { class: "row" }, yes, no)));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue === "yes"); }));
}

/** Makes a box to tick with its label. @param {string} label */
function check(label) {
  const input = make("input", { type: "checkbox" });
  return { input, node: make("label", { class: "check" }, input, label) };
}

/** @param {number | null} time */
const when = (time) => (time ? new Date(1000 * time).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" }) : "–");

/** The people. @param {Page} page */
export function people(page) {
  const place = make("div"), table = make("table", { class: "table" }), scroll = make("div", { class: "scroll" }, table);
  const name = make("input", { required: true, maxlength: 64, autocomplete: "off" }), admin = check(t("people.admin")), expert = check(t("people.expert"));
  const form = make("form", { class: "row" }, make("label", {}, t("people.name"), name), admin.node, expert.node,
    make("button", { class: "primary" }, t("people.invite")));

  const run = async (/** @type {() => Promise<any>} */ job) => {
    page.say("");
    try {
      const answer = await job();
      await load();
      return answer;
    } catch (error) {
      page.say(/** @type {Error} */ (error).message);
      return null;
    }
  };
  const showLink = (/** @type {any} */ answer, /** @type {string} */ who) => {
    if (answer?.link) place.replaceChildren(secret(t("people.link", { name: who }), location.origin + answer.link));
  };
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    const who = name.value.trim();
    const answer = await run(() => call("admin/people", { name: who, admin: admin.input.checked, expert: expert.input.checked }));
    showLink(answer, who);
    if (answer) form.reset();
  });

  const button = (/** @type {string} */ key, /** @type {() => void} */ then) => {
    const node = make("button", {}, t(`people.${key}`));
    node.addEventListener("click", then);
    return node;
  };
  const buttons = (/** @type {any} */ person) => [
    button("rename", () => renameInPlace(person)),
    button("newLink", async () => {
      if (await ask(t("people.askLink", { name: person.name }))) showLink(await run(() => call(`admin/people/${person.id}/link`, {})), person.name);
    }),
    person.admin ? null : button(person.expert ? "noExpert" : "makeExpert", () => run(() => call(`admin/people/${person.id}`, { expert: !person.expert }))),
    person.active && person.name !== page.me.name ? button("remove", async () => {
      if (await ask(t("people.askRemove", { name: person.name }))) run(() => call(`admin/people/${person.id}`, { active: false }));
    }) : null,
    person.votes ? button("setAside", async () => {
      if (await ask(t("people.askSetAside", { name: person.name, count: person.votes, number: thousands(person.votes) }))) run(() => call(`admin/people/${person.id}/votes/set-aside`, {}));
    }) : null,
    person.set_aside ? button("restore", () => run(() => call(`admin/people/${person.id}/votes/restore`, {}))) : null,
  ];

  const renameInPlace = (/** @type {any} */ person) => {
    const cell = table.querySelector(`[data-person="${person.id}"] th`), input = make("input", { value: person.name, maxlength: 64, "aria-label": t("people.name") });
    const edit = make("form", {}, input);
    edit.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      run(() => call(`admin/people/${person.id}`, { name: input.value }));
    });
    input.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => { if (event.key === "Escape") load(); });
    cell.replaceChildren(edit);
    input.select();
  };

  const load = async () => {
    const rows = await call("admin/people");
    const heads = ["name", "role", "votes", "aside", "last", ""];
    table.replaceChildren(make("thead", {}, make("tr", {}, ...heads.map((key) => make(key ? "th" : "td", { scope: key ? "col" : null }, key ? t(`people.${key}`) : "")))),
      make("tbody", {}, ...rows.map((/** @type {any} */ person) => make("tr", { "data-person": person.id, class: person.active ? "" : "gone" },
        make("th", { scope: "row" }, make("bdi", {}, person.name)),
        make("td", { "data-head": t("people.role") }, !person.active ? t("people.gone") : person.admin ? t("people.admin") : person.expert ? t("people.expert") : t("people.reviewer")),
        make("td", { "data-head": t("people.votes") }, thousands(person.votes)),
        make("td", { "data-head": t("people.aside") }, person.set_aside ? thousands(person.set_aside) : "–"),
        make("td", { "data-head": t("people.last") }, when(person.last)),
        make("td", {}, make("div", { class: "buttons" }, ...buttons(person)))))));
  };
  load().catch((error) => page.say(error.message));
  return [form, place, scroll];
}

/** The tokens of programs. @param {Page} page */
export function programs(page) {
  const place = make("div"), table = make("table", { class: "table" });
  const name = make("input", { required: true, maxlength: 64, autocomplete: "off" });
  const scopes = ["read", "push", "vote"].map((word) => ({ word, ...check(t(`programs.${word}`)) }));
  scopes[0].input.checked = true;
  const form = make("form", { class: "row" }, make("label", {}, t("programs.name"), name), ...scopes.map(({ node }) => node),
    make("button", { class: "primary" }, t("programs.create")));
  const load = async () => {
    const rows = await call("admin/tokens");
    table.replaceChildren(make("tbody", {}, ...rows.map((/** @type {any} */ row) => {
      const revoke = make("button", {}, t("programs.revoke"));
      revoke.addEventListener("click", () => call(`admin/tokens/${row.id}/revoke`, {}).then(load, (error) => page.say(error.message)));
      return make("tr", {}, make("th", { scope: "row" }, make("bdi", {}, row.name)), make("td", {}, row.scopes.join(", ")),
        make("td", {}, make("bdi", {}, row.owner)), make("td", {}, when(row.created)), make("td", {}, revoke));
    })));
  };
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault();
    page.say("");
    try {
      const chosen = scopes.filter(({ input }) => input.checked).map(({ word }) => word);
      const { token } = await call("admin/tokens", { name: name.value, scopes: chosen });
      place.replaceChildren(secret(t("programs.token"), token));
      form.reset();
      await load();
    } catch (error) {
      page.say(/** @type {Error} */ (error).message);
    }
  });
  load().catch((error) => page.say(error.message));
  const list = make("ul", { class: "operations" });
  call("admin/openapi.json").then((description) => {
    for (const [path, methods] of Object.entries(description.paths)) {
      if (!path.startsWith("/api/v1/")) continue;
      for (const [method, operation] of Object.entries(/** @type {Record<string, any>} */ (methods))) {
        list.append(make("li", {}, make("code", {}, `${method.toUpperCase()} ${path}`), " ", operation.description ?? operation.summary ?? ""));
      }
    }
  }, () => {});
  return [make("p", { class: "soft" }, t("programs.about")), form, place, make("div", { class: "scroll" }, table),
    make("h2", {}, t("programs.operations")), list,
    make("p", {}, make("a", { href: "/api/admin/openapi.json", download: "openapi.json" }, t("programs.openapi")))];
}
