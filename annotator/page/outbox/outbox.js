// @ts-check
/**
 * The way of a verdict from the page to the server: stored in this browser first, then sent. A verdict that the page
 * has shown as given is never lost: it survives a reload, a server that is away or killed, and the end of a session.
 * Of all tabs of a reviewer one sends at a time, and the others hear of it.
 */

import { call, Problem } from "../api.js";
import { addEntry, listEntries, refuseEntry, removeEntry, warmUp } from "./entries.js";
import { t } from "../texts/texts.js";

/** @typedef {import("./entries.js").Entry} Entry */
/** @typedef {{review: string, reviewer: number, run: string, name: string}} Owner */
/** @typedef {{type: "put" | "sent" | "refused" | "dismissed", entry: Entry, answer?: any}} Notice */

const FIRST_DELAY_MS = 500;
const LAST_DELAY_MS = 10_000;
const NEW_S = 1; // age of a verdict that did not wait
const LONGEST_WAIT_S = 30 * 86_400;

/** A verdict that could be stored neither in this browser nor on the server: it was not given. */
export class NotStored extends Error {}

/**
 * Returns the body of a request; a verdict that waited says for how long. A clock that was set back says nothing.
 * @param {Entry} entry
 * @returns {any}
 */
function addAge({ path, body, given }) {
  const age = given === undefined ? 0 : Math.round(Date.now() - given) / 1000;
  return path === "votes" && age > NEW_S && age < LONGEST_WAIT_S ? { ...body, age } : body;
}

/** The verdicts of one reviewer of one review. */
export class Outbox {
  /**
   * @param {Owner} owner
   * @param {(notice: Notice, isOwn: boolean) => void} onNotice called for what happens in this tab and in others
   * @param {() => void} onChange called when the numbers or the problem change
   */
  constructor(owner, onNotice, onChange) {
    this.owner = owner;
    this.onNotice = onNotice;
    this.onChange = onChange;
    /** Entries that wait to be sent. @type {Entry[]} */
    this.waiting = [];
    /** Entries that the server has refused, until somebody dismisses them. @type {Entry[]} */
    this.refused = [];
    /** Entries of other reviews and reviewers, which wait until these are back. @type {Entry[]} */
    this.foreign = [];
    /** The problem for which nothing can be sent at the moment. @type {Problem | null} */
    this.problem = null;
    /** True where the browser stores nothing, so that each verdict is sent before the next item. */
    this.isDirect = false;
    this.delay = FIRST_DELAY_MS;
    this.timer = 0;
    this.isSending = false;
    this.isAgain = false;
    this.isClosed = false;
    /** Nonces that are done, if their entries cannot be changed. @type {Set<string>} */
    this.done = new Set();
    /** Refused entries that cannot be marked as such. @type {Entry[]} */
    this.unmarked = [];
    this.name = `rasura:${owner.review}:${owner.reviewer}`;
    this.channel = new BroadcastChannel(this.name);
    this.channel.onmessage = async ({ data }) => {
      await this.refresh();
      this.onNotice(data, false);
    };
    this.wake = () => { this.send(); };
    addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
  }

  /** Reads what earlier visits have left, and sends it. @returns {Promise<void>} */
  async start() {
    await warmUp().catch(() => {}); // the first verdict will tell
    await this.refresh();
    this.send();
  }

  /** Ends this tab's part in sending. */
  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.channel.close();
    removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
  }

  /** @param {Entry} entry */
  isMine(entry) {
    return entry.review === this.owner.review && entry.reviewer === this.owner.reviewer;
  }

  /** Reads the entries of all tabs. @returns {Promise<void>} */
  async refresh() {
    const entries = (await listEntries().catch(() => [])).filter((entry) => !this.done.has(entry.nonce));
    this.waiting = entries.filter((entry) => this.isMine(entry) && entry.problem === null);
    this.refused = entries.filter((entry) => this.isMine(entry) && entry.problem !== null).concat(this.unmarked);
    this.foreign = entries.filter((entry) => !this.isMine(entry));
    this.onChange();
  }

  /** Returns the items with a verdict that waits. @returns {Set<string>} */
  items() {
    return new Set(this.waiting.filter(({ path }) => path === "votes").map(({ body }) => body.item));
  }

  /**
   * Stores a request in this browser; it is sent in its turn. Where the browser cannot store it, it is sent at once.
   * @param {string} path
   * @param {any} body
   * @param {string | null} [label] of the object, for people
   * @returns {Promise<void>}
   * @throws {NotStored} it is neither here nor on the server
   */
  async put(path, body, label = null) {
    const entry = { ...this.owner, nonce: body.nonce, path, body, label, given: Date.now(), problem: null };
    try {
      await addEntry(entry);
    } catch {
      await this.sendNow({ ...entry, order: 0 });
      return;
    }
    this.isDirect = false;
    const stored = { ...entry, order: Infinity };
    this.waiting.push(stored);
    this.tell({ type: "put", entry: stored });
    if (this.problem) this.onChange();
    this.send();
  }

  /**
   * Waits for the tab that sends. Without https a browser has no locks: then two tabs may send the same entry, which the
   * server counts once.
   * @param {() => Promise<void>} work
   * @returns {Promise<void>}
   */
  async lock(work) {
    if (navigator.locks) await navigator.locks.request(this.name, work);
    else await work();
  }

  /** Sends a request that cannot be stored here, after those that are. @param {Entry} entry @returns {Promise<void>} */
  async sendNow(entry) {
    this.isDirect = true;
    this.onChange();
    await this.lock(async () => {
      await this.drain();
      if (this.problem) throw new NotStored(t("outbox.nothingStored", { why: this.problem.message }));
      let answer;
      try {
        answer = await call(entry.path, entry.body);
      } catch (problem) {
        if (/** @type {Problem} */ (problem).isTemporary) this.problem = /** @type {Problem} */ (problem);
        this.onChange();
        throw new NotStored(t("outbox.nothingStored", { why: /** @type {Error} */ (problem).message }));
      }
      this.tell({ type: "sent", entry, answer });
    });
  }

  /** Sends what waits, unless this or another tab does so already. */
  async send() {
    if (this.isClosed) return;
    if (this.isSending) {
      this.isAgain = true;
      return;
    }
    this.isSending = true;
    clearTimeout(this.timer);
    try {
      do {
        this.isAgain = false;
        await this.lock(() => this.drain());
      } while (this.isAgain && !this.problem);
    } finally {
      this.isSending = false;
    }
    if (this.problem && this.waiting.length && !this.isClosed) {
      this.timer = setTimeout(this.wake, this.delay);
      this.delay = Math.min(2 * this.delay, LAST_DELAY_MS);
    }
  }

  /** Sends the entries in their order until none is left or nobody takes them. @returns {Promise<void>} */
  async drain() {
    for (await this.refresh(); this.waiting.length && !this.isClosed; await this.refresh()) {
      const [entry] = this.waiting;
      let answer = null;
      /** @type {Problem | null} */
      let refusal = null;
      try {
        answer = await call(entry.path, addAge(entry));
      } catch (error) {
        refusal = error instanceof Problem ? error : new Problem(0, String(error));
      }
      if (refusal?.isTemporary) {
        this.problem = refusal;
        this.onChange();
        return;
      }
      this.problem = null;
      this.delay = FIRST_DELAY_MS;
      if (refusal) {
        const refused = { ...entry, problem: refusal.message };
        await refuseEntry(entry, refusal.message).catch(() => { this.done.add(entry.nonce); this.unmarked.push(refused); });
        this.tell({ type: "refused", entry: refused });
      } else {
        await removeEntry(entry).catch(() => { this.done.add(entry.nonce); });
        this.tell({ type: "sent", entry, answer });
      }
    }
    this.problem = null;
    this.onChange();
  }

  /** Removes a refused entry. @param {Entry} entry @returns {Promise<void>} */
  async dismiss(entry) {
    this.unmarked = this.unmarked.filter(({ nonce }) => nonce !== entry.nonce);
    await removeEntry(entry).catch(() => { this.done.add(entry.nonce); });
    await this.refresh();
    this.tell({ type: "dismissed", entry });
  }

  /** Resolves when all is sent, or when it cannot be at the moment. @returns {Promise<boolean>} true: all is sent */
  async settle() {
    await this.send();
    while (this.isSending) await new Promise((done) => setTimeout(done, 20));
    await this.refresh();
    return this.waiting.length === 0;
  }

  /** @param {Notice} notice */
  tell(notice) {
    this.onNotice(notice, true);
    if (!this.isClosed) this.channel.postMessage(notice);
  }
}
