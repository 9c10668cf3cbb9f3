// @ts-check
/** Calls of the server, and the votes that wait to be sent. */

import { remember, remembered } from "./dom.js";

/** What the server refused, with its status; status 0 where there was no answer. */
export class Problem extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * A call; with a body it changes something.
 * @param {string} path below /api/
 * @param {object} [body]
 * @returns {Promise<any>}
 */
export async function call(path, body) {
  /** @type {RequestInit} */
  const request = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(`/api/${path}`, { ...request, credentials: "same-origin" });
  } catch {
    throw new Problem(0, "the server does not answer");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const detail = typeof told.detail === "string" ? told.detail : `the server answered ${answer.status}`;
    throw new Problem(answer.status, detail);
  }
  return told;
}

/** A name for something that is sent, so that sent twice it is noted once. @returns {string} */
export function nonce() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

/**
 * Votes on their way. They are sent one after the other in their order, again and again until the server has answered,
 * and outlast a reload: what a reviewer has said is never lost.
 */
export class Outbox {
  /**
   * @param {string} name whose
   * @param {(entry: any, answer: any) => void} sent
   * @param {(entry: any, problem: Problem) => void} refused
   * @param {(waiting: number, problem: Problem | null) => void} changed
   */
  constructor(name, sent, refused, changed) {
    this.key = `outbox:${name}`;
    this.sent = sent;
    this.refused = refused;
    this.changed = changed;
    /** @type {any[]} */
    this.entries = remembered(this.key, []);
    this.busy = false;
    this.delay = 500;
    /** @type {Problem | null} */
    this.problem = null;
    addEventListener("online", () => this.send());
    this.send();
  }

  /** Items that were judged here and that the server may still think open. @returns {Set<string>} */
  items() {
    return new Set(this.entries.map((entry) => entry.body.item));
  }

  /** @param {string} path @param {any} body */
  put(path, body) {
    this.entries.push({ path, body });
    remember(this.key, this.entries);
    if (this.problem) this.changed(this.entries.length, this.problem);
    this.send();
  }

  /** Resolves when everything is sent. @returns {Promise<void>} */
  async empty() {
    while (this.entries.length) await new Promise((done) => setTimeout(done, 20));
  }

  async send() {
    if (this.busy) return;
    this.busy = true;
    while (this.entries.length) {
      const entry = this.entries[0];
      let answer = null, problem = null;
      try {
        answer = await call(entry.path, entry.body);
      } catch (error) {
        problem = /** @type {Problem} */ (error);
      }
      this.problem = problem && (problem.status === 0 || problem.status === 401 || problem.status >= 500) ? problem : null;
      if (this.problem) {
        this.changed(this.entries.length, this.problem);
        if (this.problem.status === 401) break;
        await new Promise((done) => setTimeout(done, this.delay));
        this.delay = Math.min(this.delay * 2, 10_000);
        continue;
      }
      this.delay = 500;
      this.entries.shift();
      remember(this.key, this.entries);
      this.changed(this.entries.length, null);
      if (problem) this.refused(entry, problem);
      else this.sent(entry, answer);
    }
    this.busy = false;
  }
}
