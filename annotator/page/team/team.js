// @ts-check
/** The page of a team: its parts, as far as the reviewer may use them. */

import { call, Problem } from "../api.js";
import { applyLook, byId, make, nextLook, readSetting } from "../dom.js";
import { t, translatePage } from "../texts/texts.js";
import { groundList } from "../ground/ground.js";
import { listenToLarge } from "./cards.js";
import { expertQueue, itemSearch } from "./items.js";
import { people, programs } from "./people.js";
import { wording } from "./wording.js";

/** Parts of the page; all but the first two are for admins. @type {Record<string, (page: any) => Node[]>} */
const PARTS = { queue: expertQueue, grounds: groundList, items: itemSearch, people, wording, programs };

/** @param {string} text */
const say = (text) => { byId("state").textContent = text; };

/** @param {any} me */
function build(me) {
  const names = me.admin ? Object.keys(PARTS) : ["queue", "grounds"];
  const open = (/** @type {string} */ name) => {
    say("");
    history.replaceState(null, "", `#${name}`);
    for (const tab of byId("tabs").children) {
      const isOpen = tab.dataset.part === name;
      tab.setAttribute("aria-selected", String(isOpen));
      tab.tabIndex = isOpen ? 0 : -1;
      if (isOpen) byId("panel").setAttribute("aria-labelledby", tab.id);
    }
    byId("panel").replaceChildren(...PARTS[name]({ me, say }));
  };
  byId("tabs").replaceChildren(...names.map((name) => {
    const tab = make("button", { role: "tab", id: `tab-${name}`, "data-part": name, "aria-controls": "panel" }, t(`team.${name}`));
    tab.addEventListener("click", () => open(name));
    tab.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = names[(names.indexOf(name) + step + names.length) % names.length];
      byId(`tab-${next}`).focus();
      open(next);
    });
    return tab;
  }));
  open(names.includes(location.hash.slice(1)) ? location.hash.slice(1) : names[0]);
}

async function boot() {
  applyLook();
  translatePage();
  const showLook = (/** @type {string} */ look) => { byId("look").textContent = t(`look.${look}`); };
  showLook(readSetting("look", "auto"));
  byId("look").addEventListener("click", () => showLook(nextLook()));
  listenToLarge();
  document.title = `${t("nav.team")} · Rasura`;
  try {
    const me = await call("me");
    byId("run").textContent = me.run;
    byId("to-admin").hidden = !me.admin;
    if (me.admin || me.expert) build(me);
    else say(t("team.forbidden"));
  } catch (error) {
    if (error instanceof Problem && error.status === 401) location.replace("/");
    else say(/** @type {Error} */ (error).message);
  }
}

boot();
