// @ts-check
/** What the page says of verdicts that are not stored yet, and of those that the server has refused. */

import { call } from "../api.js";
import { byId, make, thousands } from "../dom.js";
import { showMessage } from "../panels.js";
import { t } from "../texts/texts.js";
import { NotStored } from "./outbox.js";

/** @typedef {import("./outbox.js").Outbox} Outbox */
/** @typedef {import("./entries.js").Entry} Entry */

/** @param {Entry} entry @returns {string} */
function describe({ path, body, label }) {
  const what = path === "votes" ? t("outbox.verdict", { verdict: t(`said.${body.verdict}`) }) : t(path === "undo" ? "outbox.undo" : "outbox.remark");
  return label ? t("outbox.on", { what, label }) : what;
}

/**
 * Describes what waits.
 * @param {Outbox} outbox
 * @param {Error | null} problem of another request
 * @returns {string} empty where nothing is to be said
 */
function describeWaiting({ waiting, foreign, problem: unsent, isDirect }, problem) {
  const parts = [];
  if (unsent && waiting.length) parts.push(t("outbox.waiting", { count: waiting.length, number: thousands(waiting.length), why: unsent.message }));
  else if (problem) parts.push(problem.message);
  if (isDirect) parts.push(t("outbox.direct"));
  /** @type {Map<string, number>} */
  const owners = new Map();
  for (const { name, run } of foreign) owners.set(`${name}, ${run}`, (owners.get(`${name}, ${run}`) ?? 0) + 1);
  for (const [owner, count] of owners) parts.push(t("outbox.foreign", { count, number: thousands(count), owner }));
  return parts.join("; ");
}

/**
 * Shows what waits and what was refused.
 * @param {Outbox} outbox
 * @param {Error | null} [problem] of another request
 */
export function showOutbox(outbox, problem = null) {
  const text = describeWaiting(outbox, problem);
  byId("saving").hidden = !text;
  byId("saving").textContent = text;
  const node = byId("refused");
  node.hidden = !outbox.refused.length;
  const dismissButton = (/** @type {string} */ text, /** @type {Entry[]} */ entries) => {
    const button = make("button", {}, text);
    button.addEventListener("click", () => { for (const entry of entries) outbox.dismiss(entry); });
    return button;
  };
  const shown = outbox.refused.slice(0, 4), more = outbox.refused.length - shown.length;
  node.replaceChildren(...shown.map((entry) =>
    make("li", {}, make("span", {}, t("outbox.refused", { what: describe(entry), why: entry.problem ?? "" })), dismissButton(t("outbox.dismiss"), [entry]))));
  if (outbox.refused.length > 1) {
    node.append(make("li", {}, make("span", {}, more > 0 ? t("outbox.more", { number: thousands(more) }) : ""), dismissButton(t("outbox.dismissAll"), outbox.refused)));
  }
}

/**
 * Stores a request in this browser or on the server; says so where it could not be.
 * @param {Outbox} outbox
 * @param {string} path
 * @param {any} body
 * @param {string | null} label
 * @returns {Promise<boolean>} true where it is stored
 */
export async function store(outbox, path, body, label) {
  try {
    await outbox.put(path, body, label);
    return true;
  } catch (error) {
    if (!(error instanceof NotStored)) throw error;
    showMessage(t("outbox.notGiven", { why: error.message }), "wrong");
    return false;
  }
}

/** Ends the session when all is sent, or cannot be at the moment: then it stays in this browser. @param {Outbox | null} outbox */
export async function signOut(outbox) {
  await Promise.race([outbox?.settle(), new Promise((late) => setTimeout(late, 3000))]);
  await call("logout", {}).catch(() => {});
  location.reload();
}
