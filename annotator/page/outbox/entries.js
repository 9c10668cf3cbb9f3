// @ts-check
/**
 * The verdicts that this browser keeps until a server has stored them: in IndexedDB, which all tabs share, one entry a
 * verdict. No clock orders them: entries are in the order of a counter.
 */

import { t } from "../texts/texts.js";

const DATABASE = "rasura", STORE = "outbox";

/**
 * @typedef {object} Entry
 * @property {string} review id of the review
 * @property {number} reviewer id of the reviewer in it
 * @property {string} nonce of the request
 * @property {number} order of the entries of all reviews
 * @property {string} run name of the run, for people
 * @property {string} name of the reviewer, for people
 * @property {string} path of the request
 * @property {any} body of the request
 * @property {string | null} label of the object, for people
 * @property {number} [given] time at which it was given by this machine's clock, ms
 * @property {string | null} problem why the server refused it; null: it waits to be sent
 */

/** @type {Promise<IDBDatabase> | null} */
let opening = null;

/** @returns {Promise<IDBDatabase>} */
function open() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(STORE, { keyPath: ["review", "reviewer", "nonce"] }).createIndex("order", "order");
    };
    request.onsuccess = () => {
      const database = request.result;
      database.onversionchange = database.onclose = () => { database.close(); opening = null; };
      resolve(database);
    };
    request.onerror = () => { opening = null; reject(request.error); };
  });
  opening.catch(() => { opening = null; });
  return opening;
}

/**
 * Runs requests in one transaction, and resolves when it is complete.
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore, done: (value: T) => void) => void} work
 * @returns {Promise<T>}
 */
async function transact(mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode);
    /** @type {any} */
    let result;
    transaction.oncomplete = () => resolve(result);
    transaction.onabort = () => reject(transaction.error ?? new Error(t("outbox.noStore")));
    work(transaction.objectStore(STORE), (value) => { result = value; });
  });
}

/** @param {Pick<Entry, "review" | "reviewer" | "nonce">} entry @returns {IDBValidKey} */
const getKey = ({ review, reviewer, nonce }) => [review, reviewer, nonce];

/**
 * Adds an entry after all others.
 * @param {Omit<Entry, "order">} entry
 * @returns {Promise<void>} fails where the browser cannot store it: no room, no permission
 */
export function addEntry(entry) {
  return transact("readwrite", (store) => {
    const last = store.index("order").openKeyCursor(null, "prev");
    last.onsuccess = () => { store.add({ ...entry, order: Number(last.result?.key ?? 0) + 1 }); };
  });
}

/** Writes and removes an entry, since the first write of a visit takes long. @returns {Promise<void>} */
export function warmUp() {
  return transact("readwrite", (store) => {
    store.put({ review: "", reviewer: 0, nonce: "", order: 0 });
    store.delete(["", 0, ""]);
  });
}

/** Lists all entries in their order. @returns {Promise<Entry[]>} */
export function listEntries() {
  return transact("readonly", (store, done) => {
    const all = store.index("order").getAll();
    all.onsuccess = () => done(all.result);
  });
}

/** @param {Entry} entry @returns {Promise<void>} */
export function removeEntry(entry) {
  return transact("readwrite", (store) => { store.delete(getKey(entry)); });
}

/** Keeps an entry that the server has refused, with the reason. @param {Entry} entry @param {string} problem @returns {Promise<void>} */
export function refuseEntry(entry, problem) {
  return transact("readwrite", (store) => { store.put({ ...entry, problem }); });
}
