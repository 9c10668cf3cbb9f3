// @ts-check
/** Floors and horizons drawn on photographs: the list of them, and the dialog with its canvas. */

import { call } from "../api.js";
import { make, thousands } from "../dom.js";
import { t } from "../texts/texts.js";

/** @typedef {[number, number]} Corner in px of the photograph */
/** @typedef {{floor: Corner[][], not_floor: Corner[][], horizon: Corner[] | null}} Shapes */
/** @typedef {import("../team/items.js").Page} Page */

const PAGE = 24;
const TOOLS = /** @type {const} */ ([["floor", "f"], ["not_floor", "n"], ["horizon", "h"]]);
const MARGIN = 0.12; // of the canvas around the photograph, in which a horizon may lie
const COLOURS = { floor: "#5fd38a", not_floor: "#ff7b6b", horizon: "#6fc8ff" };

/** The photographs. @param {Page} page */
export function groundList(page) {
  const list = make("ul", { class: "photos" }), total = make("p", { class: "soft", role: "status" }), more = make("button", { class: "more" }, t("list.more"));
  const load = async (/** @type {boolean} */ fresh) => {
    const start = fresh ? 0 : list.children.length, answer = await call(`drawings?start=${start}&count=${PAGE}`);
    const cards = answer.items.map((/** @type {any} */ photo) => {
      const label = make("span", {}, make("bdi", {}, photo.name), photo.is_drawn ? " · " : null, photo.is_drawn ? make("b", {}, t("ground.drawn")) : null);
      const button = make("button", { "aria-label": t("ground.open", { name: photo.name }) },
        make("img", { src: `/api/drawings/${photo.id}/picture`, alt: "", loading: "lazy" }), label);
      button.addEventListener("click", async () => {
        if (await new GroundDialog(photo).closed) load(true).catch((error) => page.say(error.message));
      });
      return make("li", {}, button);
    });
    if (fresh) list.replaceChildren(...cards);
    else list.append(...cards);
    total.textContent = answer.total ? t("list.total", { count: answer.total, number: thousands(answer.total) }) : t("ground.none");
    more.hidden = start + answer.items.length >= answer.total;
  };
  more.addEventListener("click", () => load(false));
  load(true).catch((error) => page.say(error.message));
  return [make("p", { class: "soft" }, t("ground.about")), total, list, more];
}

class GroundDialog {
  /** @param {{id: string, name: string}} photo */
  constructor(photo) {
    this.photo = photo;
    /** @type {"floor" | "not_floor" | "horizon"} */
    this.tool = "floor";
    /** @type {Shapes} */
    this.shapes = { floor: [], not_floor: [], horizon: null };
    /** @type {Corner[]} */
    this.open = []; // corners of the shape that is being drawn
    /** @type {string[]} */
    this.past = [];
    /** @type {ImageBitmap | null} */
    this.picture = null;
    this.saved = false;
    this.version = 0;
    this.rest = {};
    /** @type {Map<string, any>} */
    this.tools = new Map();
    this.width = 1;
    this.height = 1;
    this.observer = new ResizeObserver(() => this.draw());
    this.build();
    /** @type {Promise<boolean>} */
    this.closed = new Promise((resolve) => this.node.addEventListener("close", () => {
      this.observer.disconnect();
      this.node.remove();
      resolve(this.saved);
    }));
    document.body.append(this.node);
    this.node.showModal();
    this.load().catch((error) => this.say(error.message));
  }

  build() {
    const button = (/** @type {string} */ key, /** @type {string} */ hint, /** @type {() => void} */ then, /** @type {object} */ more = {}) => {
      const node = make("button", { type: "button", ...more }, t(key), hint ? " " : "", hint ? make("kbd", {}, hint) : null);
      node.addEventListener("click", then);
      return node;
    };
    this.tools = new Map(TOOLS.map(([tool, key]) => [tool, button(`ground.${tool}`, key, () => this.choose(tool))]));
    this.canvas = make("canvas", { tabindex: 0, role: "img", "aria-label": t("ground.canvas") });
    this.message = make("p", { class: "correct-message", role: "status" });
    this.saveButton = button("correct.save", "", () => this.save(), { class: "primary" });
    this.node = make("dialog", { class: "correct ground", "aria-labelledby": "ground-title" },
      make("header", {}, make("h2", { id: "ground-title" }, t("ground.title")), make("bdi", { class: "soft" }, this.photo.name),
        make("div", { class: "buttons" }, this.saveButton, button("correct.cancel", "esc", () => this.node.close()))),
      make("div", { class: "tools", role: "toolbar", "aria-label": t("correct.tools") },
        make("div", { class: "segments", role: "group", "aria-label": t("correct.tools") }, ...this.tools.values()),
        button("ground.close", "⏎", () => this.closeShape()), button("ground.undo", "z", () => this.undo()), button("ground.clear", "", () => this.clear())),
      make("div", { class: "correct-stage" }, this.canvas, this.message), make("p", { class: "soft hint" }, t("ground.hint")));
    this.observer.observe(this.canvas);
    this.canvas.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => { event.preventDefault(); this.canvas.focus(); this.addCorner(this.pixel(event)); });
    this.node.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.keyDown(event));
    this.choose("floor");
  }

  async load() {
    const [answer, picture] = await Promise.all([call(`drawings/${this.photo.id}`),
      fetch(`/api/drawings/${this.photo.id}/picture`, { credentials: "same-origin" }).then((response) => response.blob()).then((blob) => createImageBitmap(blob))]);
    [this.width, this.height, this.version, this.picture] = [answer.width, answer.height, answer.version, picture];
    const { floor = [], not_floor = [], horizon = null, ...rest } = answer.value ?? {};
    this.shapes = { floor, not_floor, horizon };
    this.rest = rest; // what is drawn elsewhere, such as upright lengths, stays
    this.draw();
  }

  /** @param {string} text */
  say(text) {
    this.message.textContent = text;
  }

  /** Returns where the photograph is on the canvas. @returns {{scale: number, x: number, y: number}} */
  place() {
    const box = this.canvas.getBoundingClientRect(), inner = 1 - 2 * MARGIN;
    const scale = Math.min((box.width * inner) / this.width, (box.height * inner) / this.height);
    return { scale, x: (box.width - this.width * scale) / 2, y: (box.height - this.height * scale) / 2 };
  }

  /** @param {PointerEvent} event @returns {Corner} */
  pixel(event) {
    const box = this.canvas.getBoundingClientRect(), { scale, x, y } = this.place();
    return [(event.clientX - box.left - x) / scale, (event.clientY - box.top - y) / scale];
  }

  /** @param {"floor" | "not_floor" | "horizon"} tool */
  choose(tool) {
    if (this.open.length && tool !== this.tool) {
      this.say(t("ground.open_shape"));
      return;
    }
    this.tool = tool;
    for (const [name, node] of this.tools) node.setAttribute("aria-pressed", String(name === tool));
  }

  remember() {
    this.past.push(JSON.stringify([this.shapes, this.open]));
    this.say("");
  }

  /** @param {Corner} corner */
  addCorner(corner) {
    this.remember();
    const round = (/** @type {number} */ at, /** @type {number} */ most) => Math.round(10 * (this.tool === "horizon" ? at : Math.min(most, Math.max(0, at)))) / 10;
    this.open.push([round(corner[0], this.width), round(corner[1], this.height)]);
    if (this.tool === "horizon" && this.open.length === 2) {
      this.shapes.horizon = this.open.sort((a, b) => a[0] - b[0]);
      this.open = [];
    }
    this.draw();
  }

  closeShape() {
    if (this.tool === "horizon" || !this.open.length) return;
    if (this.open.length < 3) {
      this.say(t("ground.corners"));
      return;
    }
    this.remember();
    this.shapes[this.tool].push(this.open);
    this.open = [];
    this.draw();
  }

  undo() {
    const before = this.past.pop();
    if (before) [this.shapes, this.open] = JSON.parse(before);
    this.draw();
  }

  clear() {
    this.remember();
    this.shapes = { floor: [], not_floor: [], horizon: null };
    this.open = [];
    this.draw();
  }

  draw() {
    const { canvas } = this, box = canvas.getBoundingClientRect(), context = canvas.getContext("2d"), { scale, x, y } = this.place();
    canvas.width = Math.max(1, Math.round(box.width * devicePixelRatio));
    canvas.height = Math.max(1, Math.round(box.height * devicePixelRatio));
    context.setTransform(devicePixelRatio * scale, 0, 0, devicePixelRatio * scale, devicePixelRatio * x, devicePixelRatio * y);
    if (this.picture) context.drawImage(this.picture, 0, 0, this.width, this.height);
    const trace = (/** @type {Corner[]} */ corners, /** @type {string} */ colour, /** @type {boolean} */ isClosed) => {
      context.beginPath();
      corners.forEach(([px, py], index) => (index ? context.lineTo(px, py) : context.moveTo(px, py)));
      if (isClosed) {
        context.closePath();
        context.fillStyle = `${colour}55`;
        context.fill();
      }
      for (const [stroke, wide] of /** @type {[string, number][]} */ ([["#000a", 4], [colour, 2]])) {
        context.strokeStyle = stroke;
        context.lineWidth = wide / scale;
        context.stroke();
      }
      context.fillStyle = colour;
      for (const [px, py] of corners) context.fillRect(px - 3 / scale, py - 3 / scale, 6 / scale, 6 / scale);
    };
    for (const name of /** @type {const} */ (["floor", "not_floor"])) for (const shape of this.shapes[name]) trace(shape, COLOURS[name], true);
    if (this.shapes.horizon) trace(this.shapes.horizon, COLOURS.horizon, false);
    if (this.open.length) trace(this.open, COLOURS[this.tool], false);
  }

  /** @param {KeyboardEvent} event */
  keyDown(event) {
    event.stopPropagation();
    const key = /^[ -~]$/.test(event.key) ? event.key.toLowerCase() : event.key, tool = TOOLS.find(([, letter]) => letter === key);
    if (tool && !event.ctrlKey && !event.altKey) this.choose(tool[0]);
    else if (key === "z") this.undo();
    else if (key === "Enter" && !/** @type {HTMLElement} */ (event.target).matches("button")) this.closeShape();
    else return;
    event.preventDefault();
  }

  async save() {
    if (this.open.length) {
      this.say(t("ground.open_shape"));
      return;
    }
    const { floor, not_floor, horizon } = this.shapes, isEmpty = !floor.length && !horizon && !Object.keys(this.rest).some((name) => !["version", "width", "height"].includes(name));
    const value = isEmpty ? null : { ...this.rest, version: 1, width: this.width, height: this.height, floor, not_floor, ...(horizon ? { horizon } : {}) };
    this.saveButton.disabled = true;
    try {
      await call(`drawings/${this.photo.id}`, { based_on: this.version, value });
      this.saved = true;
      this.node.close();
    } catch (error) {
      this.say(t("correct.notSaved", { why: /** @type {Error} */ (error).message }));
    }
    this.saveButton.disabled = false;
  }
}
