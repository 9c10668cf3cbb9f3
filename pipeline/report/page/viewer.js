/** Cards of pictures, their outlines, and the dialog that shows one picture large. Data enters the page as text only. */

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element; attributes that are null or false are left out. */
function make(tag, attributes = {}, ...children) {
  const node = ["svg", "path", "rect", "line", "g"].includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

const ALT = {
  source: "the picture with the object",
  target: "the picture without it",
  difference: "where source and target differ",
  "cut-out": "the object with its effects, cut out",
};

/** Where pictures come from: the page itself, the folder beside it, or the server. */
class Pictures {
  constructor() {
    this.settings = readJson("pictures") || {};
    this.sources = readJson("sources") || {};
    this.loaded = new Map();
  }

  /** Returns the address of a picture by its name. */
  address(name) {
    if (name.startsWith("data:")) return name;
    return name in this.sources ? `data:image/webp;base64,${this.sources[name]}` : `${encodeURIComponent(this.settings.folder)}/${name}`;
  }

  get isServed() { return Boolean(this.settings.served); }

  /** Returns a promise of the pictures of a row; null where the page has none of it. */
  async get(gallery, row, full = false) {
    if (!gallery.hasPictures || (gallery.isRejected && gallery.value("row of", row) === null)) return null;
    if (!this.isServed) {
      if (!this.loaded.has(gallery.id)) this.loaded.set(gallery.id, readJson(`pictures-${gallery.id}`) || {});
      return this.loaded.get(gallery.id)[row] || null;
    }
    const key = `${gallery.id}/${row}/${full ? "full" : "small"}`;
    if (!this.loaded.has(key)) {
      if (this.loaded.size > 400) this.loaded.clear();
      this.loaded.set(key, fetch(`pictures/${key}`).then((answer) => {
        if (!answer.ok) throw new Error(answer.status === 401 ? "signed out: open the printed link again" : `the server answered ${answer.status}`);
        return answer.json();
      }));
    }
    try {
      return await this.loaded.get(key);
    } catch (error) {
      this.loaded.delete(key);
      return { panels: [], areas: {}, fault: String(error.message || error) };
    }
  }
}

const pictures = new Pictures();

/** Makes the button of one picture with its outlines. */
function makePanel(panel, gallery, row) {
  const id = String(gallery.value("id", row) ?? row), label = gallery.value("label", row);
  const alt = `${panel.name} of ${shortenId(id)}${label ? ` (${String(label).slice(0, 80)})` : ""}: ${ALT[panel.name] || panel.name.replaceAll("_", " ")}`;
  const button = make("button", { class: "panel", type: "button", "data-name": panel.name });
  const aspect = panel.name === "cut-out" ? 1 : panel.width / panel.height;
  button.style.setProperty("--a", aspect.toFixed(4));
  const image = make("img", { alt, width: panel.width, height: panel.height, decoding: "async", loading: "lazy" });
  image.src = pictures.address(panel.src);
  button.append(image);
  const over = makeOutlines(panel);
  if (over) button.append(over);
  button.append(make("span", { class: "tag" }, panel.name.replaceAll("_", " ")));
  return button;
}

function makeOutlines(panel) {
  const kinds = Object.entries(panel.paths || {}).filter(([, path]) => path);
  if (!kinds.length) return null;
  const over = make("svg", { viewBox: `0 0 ${panel.width} ${panel.height}`, "aria-hidden": "true" });
  for (const [kind, path] of kinds) over.append(make("path", { class: kind, d: path }));
  return over;
}

/** Fills a card's place for pictures; the aspect of the whole lets cards of a row of the page be equally high. */
async function fillPanels(card, gallery, row) {
  const place = card.querySelector(".panels"), loaded = await pictures.get(gallery, row);
  if (loaded === null) {
    const isAlone = gallery.isRejected && gallery.value("row of", row) === null;
    const text = isAlone ? "This input is no row of another table: it has no picture." : "No picture in this page: rasura report --serve shows all, --rows more.";
    place.replaceChildren(make("p", { class: "empty" }, text));
    card.classList.add("bare");
    return;
  }
  card.style.setProperty("--aspect", String(loaded.panels.reduce((sum, panel) => sum + (panel.name === "cut-out" ? 1 : panel.width / panel.height), 0) || 3));
  card.classList.toggle("single", loaded.panels.length === 1);
  place.replaceChildren(...loaded.panels.map((panel) => makePanel(panel, gallery, row)));
  if (loaded.fault) place.append(make("p", { class: "empty" }, `Its pictures cannot be read: ${loaded.fault}`));
  const chips = card.querySelector(".areas");
  chips.replaceChildren(...Object.entries(loaded.areas || {}).map(([name, area]) => make("span", {}, `${name} ${(100 * area).toPrecision(2)} %`)));
  viewer.connect(card, loaded.panels, gallery, row);
}

class Viewer {
  constructor(dialog) {
    this.dialog = dialog;
    this.frame = dialog.querySelector(".frame");
    this.label = dialog.querySelector(".bottom span");
    this.help = dialog.querySelector(".bottom small");
    this.entry = null;
    this.entries = new WeakMap();
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    dialog.querySelector(".actual").addEventListener("click", () => this.zoom());
    dialog.querySelector(".stage").addEventListener("click", (event) => { if (!this.frame.contains(event.target)) dialog.close(); });
    this.frame.addEventListener("pointerdown", () => this.hold(true));
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) this.frame.addEventListener(end, () => this.hold(false));
    dialog.addEventListener("keydown", (event) => {
      const keys = { ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1), 1: () => this.zoom(), " ": () => this.hold(true) };
      if (event.target.tagName === "BUTTON" && event.key === " ") return;
      if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
    });
    dialog.addEventListener("keyup", (event) => { if (event.key === " ") this.hold(false); });
    dialog.addEventListener("close", () => this.entry?.button.focus());
  }

  /** Lets the pictures of a card be opened, and a source show its target while the pointer is over it. */
  connect(card, panels, gallery, row) {
    const buttons = [...card.querySelectorAll("button.panel")];
    const target = panels.find((panel) => panel.name === "target");
    buttons.forEach((button, index) => {
      const panel = panels[index], entry = { button, panel, target: panel.name === "source" ? target : null, gallery, row, index };
      this.entries.set(button, entry);
      button.addEventListener("click", () => { this.show(entry); this.dialog.showModal(); });
      if (!entry.target) return;
      const image = button.querySelector("img"), tag = button.querySelector(".tag");
      const swap = (on) => {
        image.src = pictures.address((on ? entry.target : panel).src);
        tag.textContent = on ? "target" : "source";
        button.classList.toggle("blink", on);
      };
      button.addEventListener("pointerenter", () => swap(true));
      for (const end of ["pointerleave", "pointerup", "pointercancel", "blur"]) button.addEventListener(end, () => swap(false));
    });
  }

  async show(entry) {
    this.entry = entry;
    const { panel, gallery, row } = entry;
    this.frame.className = "frame";
    this.frame.dataset.name = panel.name;
    this.frame.style.setProperty("--a", (panel.width / panel.height).toFixed(4));
    this.full = [panel.full || panel.src, entry.target ? entry.target.full || entry.target.src : null];
    this.paint(false);
    const id = String(gallery.value("id", row) ?? row), label = gallery.value("label", row);
    const natural = panel.natural || [panel.width, panel.height];
    const isSmall = !panel.full && natural[0] > panel.width && !pictures.isServed;
    this.label.replaceChildren(make("b", {}, panel.name.replaceAll("_", " ")), ` · ${shortenId(id)}${label ? ` · ${label}` : ""} · ${natural[0]} × ${natural[1]} px${isSmall ? `, shown from ${panel.width} × ${panel.height}: rasura report --full or --serve has it whole` : ""}`);
    this.help.textContent = `${entry.target ? "Hold the picture or Space for the target. " : ""}Arrow keys: next picture. 1: actual size. Escape: close.`;
    if (pictures.isServed && natural[0] > panel.width) {
      const loaded = await pictures.get(gallery, row, true);
      if (this.entry !== entry || loaded.fault || !loaded.panels[entry.index]) return;
      this.full = [loaded.panels[entry.index].src, entry.target ? loaded.panels.find((other) => other.name === "target")?.src : null];
      this.paint(false);
    }
  }

  paint(isTarget) {
    const { panel } = this.entry, natural = panel.natural || [panel.width, panel.height];
    const image = this.frame.querySelector("img") || this.frame.appendChild(make("img", { alt: "" }));
    image.alt = `${isTarget ? "target" : panel.name}, enlarged`;
    image.src = pictures.address(this.full[isTarget ? 1 : 0]);
    this.frame.style.setProperty("--natural", `${natural[0]}px`);
    this.frame.querySelector("svg")?.remove();
    const over = makeOutlines(panel);
    if (over) this.frame.append(over);
  }

  hold(on) {
    if (!this.entry) return;
    this.frame.classList.toggle("blink", on);
    if (this.entry.target) {
      this.paint(on);
      this.label.querySelector("b").textContent = on ? "target" : this.entry.panel.name;
    }
  }

  zoom() { this.dialog.classList.toggle("is-actual"); }

  step(by) {
    const buttons = [...document.querySelectorAll("main button.panel")].filter((button) => this.entries.has(button));
    const at = buttons.indexOf(this.entry.button);
    const next = buttons[(at + by + buttons.length) % buttons.length];
    if (next) this.show(this.entries.get(next));
  }
}

const viewer = new Viewer(document.querySelector("dialog"));
