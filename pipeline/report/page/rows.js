/** The rows of a table: which table, search, filters, order, pages, as cards with pictures or as a list. */

const PAGE_ROWS = 24;
const CHIPS = ["label", "kind", "remover", "verdict", "verdict_reason", "split", "joined", "true verdict", "outcome", "reason", "detail"];
const LIST_COLUMNS = 30;

class Rows {
  /** @param {HTMLElement} place @param {Gallery[]} galleries */
  constructor(place, galleries) {
    this.place = place;
    this.galleries = galleries;
    this.page = 0;
    this.view = "cards";
    this.tabs = make("div", { class: "tabs", role: "group", "aria-label": "Tables" });
    this.tools = make("div", { class: "tools" });
    this.chips = make("div", { class: "chips" });
    this.state = make("p", { class: "note", role: "status" });
    this.body = make("div", {});
    this.pager = make("nav", { class: "pager", "aria-label": "Pages" });
    const legend = document.querySelector(".legend"); // its boxes work without this script
    place.replaceChildren(this.tabs, this.tools, this.chips, ...(legend ? [legend] : []), this.state, this.body, this.pager);
    for (const gallery of galleries) {
      const tab = make("button", { type: "button", class: gallery.isRejected ? "tab rejected" : "tab" }, make("bdi", {}, gallery.title), " ", make("small", {}, gallery.total.toLocaleString("en-US")));
      tab.addEventListener("click", () => this.open(gallery));
      this.tabs.append(tab);
    }
    this.open(galleries[0]);
  }

  /** Shows a table; the order is the one that is most useful for it. */
  open(gallery, filters = []) {
    const before = this.gallery;
    this.gallery = gallery;
    this.query = { search: "", filters, sort: gallery.hasWorst ? WORST : "", descending: false };
    if (!gallery.hasPictures) this.view = "list";
    else if (before && !before.hasPictures) this.view = "cards";
    [...this.tabs.children].forEach((tab, index) => tab.setAttribute("aria-pressed", String(this.galleries[index] === gallery)));
    this._makeTools();
    this.refresh();
  }

  _makeTools() {
    const { gallery, query } = this;
    const search = make("input", { type: "search", placeholder: "Search all texts", "aria-label": "Search all texts", maxlength: 200 });
    let timer = 0;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => { query.search = search.value; this.refresh(); }, 150);
    });
    const sort = make("select", { "aria-label": "Order by" });
    if (gallery.hasWorst) sort.append(make("option", { value: WORST }, "worst first: nearest to a limit"));
    sort.append(make("option", { value: "" }, "order of the table"));
    const limited = Object.keys(gallery.limits), numbers = gallery.names.filter((name) => gallery.isNumber(name) && !limited.includes(name));
    const texts = gallery.names.filter((name) => !gallery.isNumber(name));
    for (const [title, names] of [["measures with a limit", limited.filter((name) => gallery.columns.has(name))], ["numbers", numbers], ["texts", texts]]) {
      if (names.length) sort.append(make("optgroup", { label: title }, ...names.map((name) => make("option", { value: name }, nameColumn(name)))));
    }
    sort.value = query.sort;
    const direction = make("button", { type: "button", class: "direction" });
    const showDirection = () => {
      direction.textContent = query.sort === WORST ? "↑ worst first" : query.descending ? "↓ largest first" : "↑ smallest first";
      direction.disabled = !query.sort;
    };
    sort.addEventListener("change", () => {
      query.sort = sort.value;
      query.descending = gallery.limits[sort.value]?.high != null && gallery.limits[sort.value]?.low == null; // worst first
      showDirection();
      this.refresh();
    });
    direction.addEventListener("click", () => { query.descending = !query.descending; showDirection(); this.refresh(); });
    showDirection();
    const view = make("button", { type: "button", "aria-pressed": String(this.view === "list") }, "as a list");
    view.addEventListener("click", () => {
      this.view = this.view === "list" ? "cards" : "list";
      view.setAttribute("aria-pressed", String(this.view === "list"));
      this.refresh();
    });
    this.tools.replaceChildren(search, make("label", {}, "Order ", sort), direction, this._makeFilter(), view);
  }

  _makeFilter() {
    const { gallery } = this;
    const column = make("select", { "aria-label": "Column to filter by" }, make("option", { value: "" }, "filter by column…"), ...gallery.names.map((name) => make("option", { value: name }, nameColumn(name))));
    const condition = make("select", { "aria-label": "Condition", hidden: true });
    const id = `words-${Math.random().toString(36).slice(2)}`;
    const value = make("input", { "aria-label": "Value", list: id, size: 12, hidden: true, maxlength: 400 });
    const words = make("datalist", { id });
    const add = make("button", { type: "submit", hidden: true }, "add");
    const needsValue = () => !["missing", "present"].includes(condition.value);
    column.addEventListener("change", () => {
      const isNumber = gallery.isNumber(column.value);
      condition.replaceChildren(...(isNumber ? OF_NUMBERS : OF_TEXT).map((key) => make("option", { value: key }, CONDITIONS[key].label)));
      for (const part of [condition, value, add]) part.hidden = !column.value;
      value.type = isNumber ? "number" : "text";
      value.step = "any";
      words.replaceChildren(...(isNumber || !column.value ? [] : gallery.words(column.value).slice(0, 60)).map(([word, count]) => make("option", { value: word }, String(count))));
    });
    condition.addEventListener("change", () => { value.hidden = !needsValue(); });
    const form = make("form", { class: "filter" }, column, condition, value, words, add);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const operand = gallery.isNumber(column.value) ? Number(value.value) : value.value;
      if (needsValue() && value.value === "") return value.focus();
      this.query.filters = [...this.query.filters, { column: column.value, condition: condition.value, value: needsValue() ? operand : null }];
      value.value = "";
      this.refresh();
    });
    return form;
  }

  /** Applies the query, from the first page. */
  refresh() {
    this.page = 0;
    this.rows = this.gallery.select(this.query);
    this._showChips();
    this.show();
  }

  _showChips() {
    const { gallery, query } = this, nodes = [];
    for (const filter of query.filters) {
      const text = `${nameColumn(filter.column)} ${CONDITIONS[filter.condition].label}${filter.value === null ? "" : ` ${formatCell(filter.value)}`}`;
      const chip = make("button", { type: "button", class: "chip on", "aria-label": `Remove the filter ${text}` }, `${text} ×`);
      chip.addEventListener("click", () => { query.filters = query.filters.filter((other) => other !== filter); this.refresh(); });
      nodes.push(chip);
    }
    const column = gallery.isRejected ? "reason" : "verdict";
    if (gallery.columns.has(column) && !query.filters.some((filter) => filter.column === column)) {
      const label = gallery.isRejected ? [] : ["verdict "];
      for (const [word, count] of gallery.words(column).slice(0, 40)) {
        const chip = make("button", { type: "button", class: "chip" }, make("b", {}, count.toLocaleString("en-US")), " ", ...label, make("bdi", {}, word));
        chip.addEventListener("click", () => { query.filters = [...query.filters, { column, condition: "is", value: word }]; this.refresh(); });
        nodes.push(chip);
      }
    }
    this.chips.replaceChildren(...nodes);
  }

  /** Shows the present page. */
  show() {
    const { gallery, rows } = this, pages = Math.max(1, Math.ceil(rows.length / PAGE_ROWS));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    const part = rows.slice(this.page * PAGE_ROWS, (this.page + 1) * PAGE_ROWS);
    const all = gallery.count < gallery.total ? `${gallery.count.toLocaleString("en-US")} of ${formatCount(gallery.total, "row")} are in this page` : formatCount(gallery.total, "row");
    const summary = rows.length === gallery.count ? all : `${rows.length.toLocaleString("en-US")} of ${all} match`;
    this.state.textContent = [rows.length ? `${summary}; ${(this.page * PAGE_ROWS + 1).toLocaleString("en-US")} to ${(this.page * PAGE_ROWS + part.length).toLocaleString("en-US")} are shown.` : gallery.count ? `None of ${all} matches.` : "No rows.", gallery.note].filter(Boolean).join(" ");
    this.body.replaceChildren(this.view === "list" ? this._makeList(part) : this._makeCards(part));
    this._showPager(pages);
  }

  _makeCards(rows) {
    const cards = make("div", { class: "cards" });
    for (const row of rows) cards.append(this._makeCard(row));
    return cards;
  }

  _makeCard(row) {
    const { gallery, query } = this, caption = make("div", { class: "caption" });
    const id = String(gallery.value("id", row) ?? "");
    caption.append(make("code", { title: id }, shortenId(id)));
    for (const name of CHIPS) {
      const value = gallery.value(name, row);
      if (value === null || value === "") continue;
      const text = name === "kind" && (value === "edited" || value === "inserted") && !gallery.value("verdict", row) ? "candidate, not judged" : formatCell(value);
      caption.append(make("span", { class: ["reason", "outcome"].includes(name) ? "rejected" : null }, make("bdi", {}, text)));
    }
    caption.append(make("span", { class: "areas" }));
    const chosen = query.sort && query.sort !== WORST && gallery.isNumber(query.sort) ? [query.sort] : [];
    const names = [...new Set([...chosen, ...gallery.nearest(row).slice(0, 2)])];
    names.forEach((name, index) => caption.append(make(index ? "span" : "b", {}, describeMeasure(gallery, name, row))));
    const details = make("details", {}, make("summary", {}, "all values"));
    details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) details.append(this._makeValues(row)); });
    caption.append(details);
    const card = make("article", { class: "card" }, make("div", { class: "panels" }), caption);
    fillPanels(card, gallery, row);
    return card;
  }

  _makeValues(row) {
    const list = make("dl", {});
    for (const name of this.gallery.names) {
      const value = this.gallery.value(name, row);
      if (value !== null) list.append(make("dt", {}, name), make("dd", {}, make("bdi", {}, formatCell(value))));
    }
    return list;
  }

  _makeList(rows) {
    const { gallery, query } = this, measures = gallery.names.filter((name) => gallery.isNumber(name) && !["seed", "bytes"].includes(name));
    const first = ["id", ...CHIPS, ...Object.keys(gallery.limits), ...measures];
    const names = [...new Set([...(query.sort && query.sort !== WORST ? [query.sort] : []), ...query.filters.map((filter) => filter.column), ...first, ...gallery.names])];
    const kept = names.filter((name) => gallery.columns.has(name)).slice(0, LIST_COLUMNS);
    const head = make("tr", {}, ...kept.map((name) => {
      const button = make("button", { type: "button" }, nameColumn(name), query.sort === name ? (query.descending ? " ↓" : " ↑") : "");
      button.addEventListener("click", () => {
        query.descending = query.sort === name ? !query.descending : false;
        query.sort = name;
        this._makeTools();
        this.refresh();
      });
      return make("th", { scope: "col", "aria-sort": query.sort === name ? (query.descending ? "descending" : "ascending") : null }, button);
    }));
    const body = rows.map((row) => make("tr", {}, ...kept.map((name) => {
      const value = gallery.value(name, row);
      return make("td", { class: gallery.isNumber(name) ? "number" : null, title: name === "id" ? value : null }, make("bdi", {}, name === "id" ? shortenId(String(value ?? "")) : formatCell(value)));
    })));
    return make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Rows as a list" }, make("table", { class: "rows" }, make("thead", {}, head), make("tbody", {}, ...body)));
  }

  _showPager(pages) {
    if (pages === 1) return this.pager.replaceChildren();
    const go = (page, focus) => {
      this.page = page;
      this.show();
      this.place.scrollIntoView({ block: "start" });
      this.pager.querySelector(focus)?.focus({ preventScroll: true });
    };
    const step = (text, page, name) => {
      const button = make("button", { type: "button", class: name, disabled: page < 0 || page >= pages || page === this.page }, text);
      button.addEventListener("click", () => go(page, `.${name}`));
      return button;
    };
    const number = make("input", { type: "number", min: 1, max: pages, value: this.page + 1, "aria-label": `Page, 1 to ${pages}` });
    number.addEventListener("change", () => go(Math.round(Number(number.value)) - 1 || 0, "input"));
    this.pager.replaceChildren(step("« first", 0, "first"), step("‹ previous", this.page - 1, "previous"), make("span", {}, "page ", number, ` of ${pages.toLocaleString("en-US")}`), step("next ›", this.page + 1, "next"), step("last »", pages - 1, "last"));
  }
}

/** Describes a measure of a row beside its limits. */
function describeMeasure(gallery, name, row) {
  const limit = gallery.limits[name], value = formatCell(gallery.value(name, row));
  return `${nameColumn(name)} ${value}${limit ? `, ${describeLimit(limit)}` : ""}`;
}

function describeLimit({ low, high }) {
  if (low != null && high != null) return `${formatNumber(low)} to ${formatNumber(high)}`;
  return low != null ? `at least ${formatNumber(low)}` : high != null ? `at most ${formatNumber(high)}` : "no limit";
}
