// @ts-check
/** Requests to the server. */

import { language, t, textOr } from "./texts/texts.js";

const TIMEOUT_MS = 30_000;

/** A request that failed, with the status of the answer; 0 where there was no answer. */
export class Problem extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  /**
   * True where the same request may succeed later: nobody answers, somebody else does, the session has ended, or the
   * server is busy. Everything else is a refusal.
   */
  get isTemporary() {
    return [0, 401, 403, 408, 421, 425, 429].includes(this.status) || this.status >= 500;
  }
}

/** The review and the reviewer for which this page works. @type {{review: string, reviewer: number} | null} */
let owner = null;

/** Names the review and the reviewer in every request that follows. @param {{review: string, reviewer: number} | null} of */
export function setOwner(of) {
  owner = of;
}

/**
 * Sends a request; with a body it is a POST. An answer that is not of the page's own review is a temporary problem:
 * another run may be served at the same address now.
 * @param {string} path below /api/
 * @param {object} [body]
 * @returns {Promise<any>}
 */
export async function call(path, body) {
  /** @type {Record<string, string>} */
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const mine = owner;
  if (mine) Object.assign(headers, { "x-review": mine.review, "x-reviewer": String(mine.reviewer) });
  /** @type {RequestInit} */
  const request = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  /** @type {Response} */
  let answer;
  let result;
  try {
    answer = await fetch(`/api/${path}`, {
      ...request, headers, credentials: "same-origin", signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const { ok } = answer;
    result = await answer.json().catch((fault) => {
      if (ok) throw fault; // cut off; what is no JSON of another status has no detail
      return {};
    });
  } catch {
    throw new Problem(0, t("problem.noAnswer"));
  }
  if (answer.status < 500 && mine && answer.headers.get("x-review") !== mine.review) {
    throw new Problem(421, t("problem.otherReview"));
  }
  if (!answer.ok) {
    const said = typeof result.detail === "string" ? result.detail : t("problem.status", { status: answer.status });
    const detail = language === "en" ? said : textOr(`problem.${result.code}`, textOr(`problem.${answer.status}`, said));
    throw new Problem(answer.status, detail);
  }
  return result;
}

/** Makes an id for a request, so that the server counts it once however often it is sent. @returns {string} */
export function nonce() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}
