// @ts-check
/** Requests to the server, and the votes that wait to be sent. */

import { saveSetting, readSetting } from "./dom.js";

/** A request that failed, with the status of the answer; 0 where there was no answer. */
export class Problem extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * Sends a request; with a body it is a POST.
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
  const result = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const detail = typeof result.detail === "string" ? result.detail : `the server answered ${answer.status}`;
    throw new Problem(answer.status, detail);
  }
  return result;
}

/** Makes an id for a request, so that the server counts it once however often it is sent. @returns {string} */
export function nonce() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

/**
 * Votes that are not stored yet. They are sent one after the other, each until the server has answered, and survive a
 * reload: a verdict that the page has shown as given is never lost.
 */
export class Outbox {
  /**
   * @param {string} name of the reviewer
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
    this.entries = readSetting(this.key, []);
    this.busy = false;
    this.delay = 500;
    /** @type {Problem | null} */
    this.problem = null;
    addEventListener("online", () => this.send());
    this.send();
  }

  /** Returns the items that were judged here and that may still be open on the server. @returns {Set<string>} */
  items() {
    return new Set(this.entries.map((entry) => entry.body.item));
  }

  /** @param {string} path @param {any} body */
  put(path, body) {
    this.entries.push({ path, body });
    saveSetting(this.key, this.entries);
    if (this.problem) this.changed(this.entries.length, this.problem);
    this.send();
  }

  /** Resolves when all votes are sent. @returns {Promise<void>} */
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
      saveSetting(this.key, this.entries);
      this.changed(this.entries.length, null);
      if (problem) this.refused(entry, problem);
      else this.sent(entry, answer);
    }
    this.busy = false;
  }
}
