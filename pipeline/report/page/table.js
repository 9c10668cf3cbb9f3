/** Rows as columns: reading them from the page's JSON, searching, filtering and sorting. Nothing here touches the page. */

/** Returns an element of the page's JSON as a value; what is not there is null. */
function readJson(id) {
  const element = document.getElementById(id);
  return element ? JSON.parse(element.textContent) : null;
}

/** Returns a function from a row's number to its value, and whether the values are numbers. */
function readColumn(raw) {
  if ("numbers" in raw) return { isNumber: true, at: (row) => raw.numbers[row] };
  if ("texts" in raw) return { isNumber: false, at: (row) => raw.texts[row] };
  if ("codes" in raw) return { isNumber: false, at: (row) => (raw.codes[row] < 0 ? null : raw.words[raw.codes[row]]) };
  return { isNumber: typeof raw.all === "number", at: () => raw.all };
}

const CONDITIONS = {
  contains: { label: "contains", test: (value, operand) => value !== null && String(value).toLowerCase().includes(String(operand).toLowerCase()) },
  is: { label: "is", test: (value, operand) => value !== null && String(value) === String(operand) },
  not: { label: "is not", test: (value, operand) => value === null || String(value) !== String(operand) },
  least: { label: "at least", test: (value, operand) => value !== null && value >= operand },
  most: { label: "at most", test: (value, operand) => value !== null && value <= operand },
  missing: { label: "is missing", test: (value) => value === null },
  present: { label: "is there", test: (value) => value !== null },
};
const OF_TEXT = ["contains", "is", "not", "missing", "present"];
const OF_NUMBERS = ["least", "most", "is", "missing", "present"];
const WORST = "*";

class Gallery {
  /** @param {any} raw one element of the page's JSON, as `galleries.py` writes it */
  constructor(raw) {
    Object.assign(this, { id: raw.id, title: raw.title, total: raw.total, count: raw.count });
    this.limits = Object.assign(Object.create(null), raw.limits); // a column may be called `constructor`
    this.isRejected = Boolean(raw.rejected);
    this.hasPictures = !raw.bare;
    this.of = raw.of || null;
    this.note = raw.note || "";
  }

  /** The columns by name, read from the page when they are first needed. */
  get columns() {
    this._columns ||= new Map(Object.entries(readJson(`columns-${this.id}`) || {}).map(([name, column]) => [name, readColumn(column)]));
    return this._columns;
  }

  get names() { return [...this.columns.keys()]; }

  isNumber(name) { return Boolean(this.columns.get(name)?.isNumber); }

  value(name, row) { return this.columns.get(name)?.at(row) ?? null; }

  /** Returns the values of a column that are there. */
  values(name) {
    const result = [];
    for (let row = 0; row < this.count; row++) {
      const value = this.value(name, row);
      if (value !== null) result.push(value);
    }
    return result;
  }

  /** Returns the words of a column with their counts, the most frequent first. */
  words(name) {
    const counts = new Map();
    for (const value of this.values(name)) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  }

  /** Returns how far a row is within a limit: 0 at it, 1 at the median, negative beyond; infinite where that says nothing. */
  margin(name, row) {
    const value = this.value(name, row), { low, high, typical } = this.limits[name];
    let least = Infinity;
    for (const [end, sign] of [[low, 1], [high, -1]]) {
      if (end !== null && typeof value === "number" && typical !== null && end !== typical) least = Math.min(least, sign * (value - end) / Math.abs(typical - end));
    }
    return least;
  }

  /** Returns the limited columns of a row, the one that is nearest to its limit first. */
  nearest(row) {
    return Object.keys(this.limits).map((name) => [this.margin(name, row), name])
      .filter(([margin]) => Number.isFinite(margin)).sort((a, b) => a[0] - b[0]).map(([, name]) => name);
  }

  get hasWorst() { return Object.keys(this.limits).length > 0 && !this.isRejected; }

  /** Returns the numbers of the rows that pass a search and all filters, in the order of a column. */
  select({ search = "", filters = [], sort = "", descending = false }) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [];
    for (let row = 0; row < this.count; row++) {
      if (words.length && !words.every((word) => this._text(row).includes(word))) continue;
      if (filters.every(({ column, condition, value }) => CONDITIONS[condition].test(this.value(column, row), value))) rows.push(row);
    }
    if (!sort) return rows;
    const keys = new Array(this.count);
    for (const row of rows) keys[row] = sort === WORST ? Math.min(Infinity, ...Object.keys(this.limits).map((name) => this.margin(name, row))) : this.value(sort, row);
    const sign = descending ? -1 : 1;
    return rows.sort((a, b) => {
      const x = keys[a], y = keys[b];
      if (x === null || y === null) return (x === null ? 1 : 0) - (y === null ? 1 : 0) || a - b; // what is missing comes last
      return x < y ? -sign : x > y ? sign : a - b;
    });
  }

  _text(row) {
    this._texts ||= [];
    if (this._texts[row] === undefined) {
      const parts = [];
      for (const column of this.columns.values()) if (!column.isNumber) parts.push(column.at(row) ?? "");
      this._texts[row] = parts.join("\n").toLowerCase();
    }
    return this._texts[row];
  }
}

const formatNumber = (value) => (Number.isInteger(value) && Math.abs(value) < 1e12 ? value.toLocaleString("en-US") : String(Number(value.toPrecision(4))));
const formatCell = (value) => (value === null ? "–" : typeof value === "number" ? formatNumber(value) : value);
const formatCount = (count, noun) => `${count.toLocaleString("en-US")} ${count === 1 ? noun : `${noun}s`}`;
const nameColumn = (name) => name.replaceAll("_", " ").replace("psnr", "PSNR");
const shortenId = (id) => {
  const at = id.indexOf(".");
  return at < 0 ? id.slice(0, 10) : `${id.slice(0, Math.min(at, 10))}.${id.slice(at + 1, at + 17)}`;
};
