/** What a page has is filled in: rows, measures, near-duplicates, cost. */

const galleries = (readJson("galleries") || []).map((raw) => new Gallery(raw));
const rowsPlace = document.getElementById("rows-place");
const rowsView = rowsPlace && galleries.length ? new Rows(rowsPlace, galleries) : null;

const measuresPlace = document.getElementById("measures-place");
if (measuresPlace) {
  // far below the first pictures: made when it comes near, or when it is asked for
  const makeMeasures = () => new Measures(measuresPlace, galleries);
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    makeMeasures();
  }, { rootMargin: "600px" });
  watcher.observe(measuresPlace);
}

/** Shows pairs of pictures that are nearly the same. */
function showPairs(place, pairs) {
  const list = make("div", { class: "pairs" });
  for (const { rows, note } of pairs) {
    const pair = make("div", { class: "pair" });
    for (const [id, row] of rows) {
      const gallery = galleries.find((other) => other.id === id);
      const caption = make("div", { class: "caption" }, make("code", { title: String(gallery.value("id", row)) }, shortenId(String(gallery.value("id", row)))), make("span", {}, `split ${formatCell(gallery.value("split", row))}`), make("span", { class: "areas", hidden: true }));
      const card = make("article", { class: "card first-only" }, make("div", { class: "panels" }), caption);
      fillPanels(card, gallery, row);
      pair.append(card);
    }
    if (note) pair.append(make("p", { class: "note bad" }, note));
    list.append(pair);
  }
  place.append(list);
}
const pairsPlace = document.getElementById("pairs-place");
if (pairsPlace) showPairs(pairsPlace, readJson("near-duplicates") || []);

/** Fills the column of costs when a price is given, and says what all stages cost together. */
const price = document.getElementById("price");
if (price) {
  const cells = [...document.querySelectorAll("td[data-seconds]")], total = document.getElementById("total"), hint = total.textContent;
  const rows = Number(document.getElementById("costs").dataset.rows);
  const format = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
  price.addEventListener("input", () => {
    const hour = Number(price.value), isGiven = price.value !== "" && hour >= 0;
    let sum = 0;
    for (const cell of cells) {
      const cost = Number(cell.dataset.seconds) / 3600 * hour;
      sum += cost;
      cell.textContent = isGiven && cost ? cost.toLocaleString("en-US", { maximumSignificantDigits: 2 }) : "";
    }
    total.textContent = isGiven ? `all stages ${format(sum)}${rows ? `, ${format(sum / rows * 1000)} for 1,000 triplets` : ""}` : hint;
  });
}

for (const button of document.querySelectorAll("button[data-gallery]")) {
  button.addEventListener("click", () => {
    const gallery = galleries.find((other) => other.id === button.dataset.gallery);
    if (!gallery || !rowsView) return;
    rowsView.open(gallery, [{ column: "reason", condition: "is", value: button.dataset.reason }]);
    document.getElementById("rows").scrollIntoView();
  });
}
