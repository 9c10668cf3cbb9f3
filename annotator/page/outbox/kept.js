// @ts-check
/** What waits in this browser while nobody is signed in: whose it is, and how it gets to the server. */

import { byId, make, thousands } from "../dom.js";
import { t } from "../texts/texts.js";
import { listEntries } from "./entries.js";

/** @typedef {import("./entries.js").Entry} Entry */

/** Returns an entry as a row of a votes file. @param {Entry} entry */
function describeRow({ name, path, body, given }) {
  const { nonce, item, verdict = null, reason = null, seconds = null, remark = null, guidelines = null } = body;
  const isSkip = verdict === "skip", action = path === "votes" ? (isSkip ? "skip" : "vote") : path;
  const time = (given ?? Date.now()) / 1000;
  return { item, reviewer: name, time, action, verdict: isSkip ? null : verdict, reason, remark, seconds, guidelines, nonce };
}

/** Has the browser store verdicts as a votes file. @param {Entry[]} entries */
function download(entries) {
  const lines = entries.map((entry) => `${JSON.stringify(describeRow(entry))}\n`);
  const address = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  make("a", { href: address, download: "votes.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Says beside the sign-in what waits, of whom and of which review, and what to do where no link works. @returns {Promise<void>} */
export async function showKept() {
  const node = byId("kept"), entries = (await listEntries().catch(() => [])).filter(({ problem }) => problem === null);
  /** @type {Map<string, Entry[]>} */
  const owners = new Map();
  for (const entry of entries) {
    const owner = JSON.stringify([entry.review, entry.reviewer]);
    owners.set(owner, [...owners.get(owner) ?? [], entry]);
  }
  node.hidden = !entries.length;
  node.replaceChildren(...[...owners.values()].map((own) => {
    const button = make("button", { type: "button" }, t("kept.download"));
    button.addEventListener("click", () => download(own));
    const [{ name, run }] = own;
    return make("div", {}, make("p", {}, t("kept.of", { count: own.length, number: thousands(own.length), name, run })), button);
  }), make("p", { class: "soft" }, t("kept.removed")));
}
