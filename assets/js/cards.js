// The experiments of a topic as cards: one is chosen, those that were run have a tick.

import { button, make, whenDrawn } from "./dom.js";
import { markTerms } from "./glossary.js";
import { done } from "./memory.js";
import { cards as registry, follow, forms } from "./parts.js";

/** @typedef {{name: string, title: string, level: string, seconds: number, note: string, question: string}} Card */

/** "How it works" begins folded. @param {HTMLElement} prose */
const readOn = (prose) => {
  const more = button("viz-button viz-read-on", "", () => show(prose.classList.toggle("viz-whole")));
  const show = (/** @type {boolean} */ whole) => {
    more.textContent = whole ? "Fold" : "Read on";
    more.setAttribute("aria-expanded", String(whole));
  };
  show(false);
  prose.after(more);
};

/**
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 * @param {(event: string) => void} trigger
 */
export const cards = (element, props, watch, trigger) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-cards"));
  const topic = root.dataset.topic ?? "";
  const row = root.appendChild(make("div", "viz-card-row"));
  const question = root.appendChild(make("p", "viz-asks"));
  question.setAttribute("aria-live", "polite");
  /** @type {Card[]} */
  let all = [];
  /** @type {Map<string, HTMLButtonElement>} */
  const nodes = new Map();
  let chosen = "";
  let below = ""; // the experiment whose prose and code stand under the picture
  row.setAttribute("role", "radiogroup");
  row.setAttribute("aria-label", "Experiment");

  const mark = () => {
    const ran = done()[topic] ?? [];
    for (const [name, node] of nodes) node.classList.toggle("viz-done", ran.includes(name));
  };
  const choose = (/** @type {string} */ name) => {
    chosen = name;
    for (const [other, node] of nodes) {
      node.setAttribute("aria-checked", String(other === name));
      node.tabIndex = other === name ? 0 : -1;
    }
    question.textContent = all.find((card) => card.name === name)?.question ?? "";
    // not before the picture is seen: there is more to draw down there than in it
    requestAnimationFrame(() => setTimeout(about));
  };
  const ask = (module = "") => {
    below = chosen;
    props.value = { experiment: chosen, module };
    trigger("about");
  };
  const about = () => below !== chosen && ask();
  const build = () => {
    for (const card of all) {
      const node = row.appendChild(button("viz-card", "", () => forms.get(topic)?.choose(card.name)));
      node.setAttribute("role", "radio");
      node.dataset.name = card.name;
      node.appendChild(make("strong", "", card.title));
      node.appendChild(make("span", `viz-level viz-level-${card.level}`, card.level));
      node.appendChild(make("small", "", `${card.note} · ${card.seconds} s`));
      nodes.set(card.name, node);
    }
    row.addEventListener("keydown", (event) => {
      const by = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 })[
        event.key
      ];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      const names = [...nodes.keys()];
      const next = names[(names.indexOf(chosen) + by + names.length) % names.length];
      nodes.get(next)?.focus();
      forms.get(topic)?.choose(next);
    });
    choose(forms.get(topic)?.read().experiment || all[0].name);
    mark();
    whenDrawn(document.getElementById(topic + "-idea"), markTerms);
    whenDrawn(document.getElementById(topic + "-more"), readOn);
  };
  registry.set(topic, { mark, choose, pick: ask });
  follow(props, watch, (message) => {
    if (!message.cards || all.length) return;
    all = message.cards;
    build();
  });
};
