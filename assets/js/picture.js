// The main picture of a tab: scenes (one per experiment) of panels, what you saw, the figures, the log.

import { make } from "./dom.js";
import { showCards, showTable } from "./figures.js";
import { markTerms } from "./glossary.js";
import { legend } from "./legend.js";
import { keepPicture, keptPicture, markDone } from "./memory.js";
import { cards, diagrams, follow, forms, transports } from "./parts.js";
import { mount as player } from "./player.js";
import { live, views } from "./views/index.js";

const MOST_LOG = 400; // lines

/**
 * A view that is no film stands alone: one frame, replaced by each message.
 * @type {import("./types.js").Mount}
 */
const alone = (place, spec) => {
  const view = views[spec.type](place, spec, () => {});
  return {
    update: (data) => {
      const frames = [{ [spec.id]: data.shown }];
      view.clear?.();
      view.grown?.(frames);
      view.show?.(frames, 0, 0);
    },
    destroy: () => view.destroy(),
  };
};

/** One experiment's picture. */
class Scene {
  /**
   * @param {any[]} panels
   * @param {boolean} ran
   */
  constructor(panels, ran) {
    this.node = make("div", "viz-scene");
    this.ran = ran;
    /** @type {Map<string, import("./types.js").View>} */
    this.panels = new Map();
    /** @type {any[]} */
    this.messages = []; // for a reload
    const main = this.node.appendChild(make("div", "viz-panels"));
    const more = make("details", "viz-fold");
    const folded = more.appendChild(make("summary", "", "More of this run"));
    const extra = more.appendChild(make("div", "viz-panels"));
    for (const spec of panels) this.mount(spec.more ? extra : main, spec);
    this.saw = this.node.appendChild(make("section", "viz-saw"));
    this.saw.setAttribute("aria-live", "polite");
    this.saw.hidden = true;
    this.cards = this.node.appendChild(make("div", "viz-figures"));
    this.cards.hidden = true;
    if (extra.childElementCount) {
      folded.textContent = `More of this run: ${panels
        .filter((p) => p.more)
        .map((p) => p.title)
        .join(" · ")}`;
      this.node.appendChild(more);
    }
    const all = this.node.appendChild(make("details", "viz-fold viz-strip"));
    this.count = all.appendChild(make("summary", "", "All figures of this run"));
    this.table = all.appendChild(make("div"));
    const log = this.node.appendChild(make("details", "viz-fold viz-log"));
    log.appendChild(make("summary", "", "Log of this run"));
    this.log = log.appendChild(make("ol"));
    this.log.tabIndex = 0;
  }

  /**
   * @param {HTMLElement} place
   * @param {any} spec
   */
  mount(place, spec) {
    const panel = place.appendChild(make("section", "viz-panel"));
    panel.dataset.panel = spec.id;
    panel.style.setProperty("--span", spec.span || 12);
    if (spec.title) panel.appendChild(make("h4", "", spec.title));
    if (spec.legend) panel.appendChild(legend(spec.legend));
    const mount = spec.type === "player" ? player : live.has(spec.type) ? views[spec.type] : alone;
    const made = mount(panel.appendChild(make("div", "viz-place")), spec);
    this.panels.set(spec.id, made);
    for (const [id, member] of Object.entries(made.members ?? {})) this.panels.set(id, member);
  }

  /** @param {import("./types.js").PictureMessage} message */
  take(message) {
    for (const [id, data] of JSON.parse(message.updates || "[]")) {
      const panel = this.panels.get(id);
      if (!panel?.update) throw new Error(`the picture “${message.scene}” has no panel “${id}”`);
      panel.update(data);
    }
    if (message.figures) {
      showTable(this.table, message.figures, message.machine);
      showCards(this.cards, message.takeaways?.length ? message.figures : []);
      this.count.textContent =
        message.figures.length > 1 ? `All ${message.figures.length} figures of this run` : "The figure of this run";
    }
    if (message.takeaways?.length) {
      this.saw.textContent = "";
      this.saw.appendChild(make("h4", "", "What you saw"));
      for (const sentence of message.takeaways) this.saw.appendChild(make("p", "", sentence));
      markTerms(this.saw);
      this.saw.hidden = false;
    }
    for (const line of message.log ?? []) {
      this.log.appendChild(make("li", "", line));
      if (this.log.childElementCount > MOST_LOG) this.log.firstChild?.remove();
    }
  }

  destroy() {
    for (const panel of new Set(this.panels.values())) panel.destroy();
    this.node.remove();
  }
}

/**
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 * @param {(event: string) => void} trigger
 */
export const picture = (element, props, watch, trigger) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-picture"));
  const topic = root.dataset.topic ?? "";
  /** @type {Map<string, Scene>} */
  const scenes = new Map();
  let last = "";
  let first = true;

  const show = (/** @type {string} */ name) => {
    for (const [key, scene] of scenes) scene.node.hidden = key !== name;
  };
  const open = (/** @type {{scene: string, panels: any[], preview: boolean}} */ message) => {
    // a preview that comes late, after another card was chosen, is kept and not shown
    const chosen = message.preview ? forms.get(topic)?.read().experiment : "";
    const first = () => show(chosen && scenes.has(chosen) ? chosen : message.scene);
    if (message.preview && scenes.get(message.scene)?.ran) return first(); // what a run has drawn stays
    const old = scenes.get(message.scene);
    const scene = new Scene(message.panels, !message.preview);
    if (old) {
      old.node.before(scene.node);
      old.destroy();
    } else root.appendChild(scene.node);
    scenes.set(message.scene, scene);
    first();
  };
  const keep = (/** @type {Scene} */ scene, /** @type {any} */ message) => {
    if (message.open) scene.messages = [];
    scene.messages.push({ ...message, log: [] });
    const ran = scene.ran && (scene.messages.length > 1 || !!message.takeaways?.length); // else it was reset
    if (ran) keepPicture(topic, { messages: scene.messages, ended: !!message.takeaways?.length });
    else if (scene.ran) keepPicture(topic, null);
  };
  const take = (/** @type {import("./types.js").PictureMessage} */ message) => {
    if (message.open) open(message.open);
    const scene = scenes.get(message.scene);
    if (!scene || (message.open?.preview && scene.ran)) return;
    scene.take(message);
    if (message.open) diagrams.get(topic)?.clear();
    if (message.parts) diagrams.get(topic)?.light(message.parts);
    keep(scene, message);
  };
  /** After a reload: the picture that was there, and a word that its run is over. */
  const restore = () => {
    const kept = keptPicture(topic);
    if (!kept) return;
    try {
      for (const message of kept.messages)
        take({ ...message, open: message.open && { ...message.open, preview: false } });
    } catch {
      keepPicture(topic, null); // of an older version of the page
      return;
    }
    const words = kept.ended
      ? "This is the picture of your last run; the page was loaded anew since."
      : "The page was loaded anew or the connection was lost, so your run ended. What it had computed by then is here.";
    keepPicture(topic, { ...kept, ended: true });
    const chosen = forms.get(topic)?.read().experiment ?? "";
    if (scenes.has(chosen)) show(chosen); // another card may have been chosen since
    transports.get(topic)?.words(words);
  };

  follow(props, watch, (message) => {
    if (message.id && message.id === last) return; // Gradio delivers the last message of a run twice
    last = message.id;
    take(message);
    if (first) {
      first = false;
      restore();
    }
    if (message.takeaways?.length) {
      markDone(topic, message.scene);
      cards.get(topic)?.mark();
    }
  });
  trigger("mounted");
};
