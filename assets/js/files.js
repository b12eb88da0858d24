// The files that belong to an experiment: a row of names above the code; the chosen one is shown.

import { button, make } from "./dom.js";
import { cards, follow } from "./parts.js";

/**
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 */
export const files = (element, props, watch) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-files"));
  // the code view scrolls, so the keyboard must be able to reach it
  const code = element.closest(".viz-code");
  if (code)
    new MutationObserver(() => {
      for (const view of /** @type {NodeListOf<HTMLElement>} */ (code.querySelectorAll('.cm-scroller[tabindex="-1"]')))
        view.tabIndex = 0;
    }).observe(code, { childList: true, subtree: true });
  const press = (/** @type {string} */ module) => {
    for (const node of root.querySelectorAll("button"))
      node.setAttribute("aria-pressed", String(node.dataset.module === module));
  };
  let listed = "";
  const list = (/** @type {[string, string][]} */ modules) => {
    root.textContent = "";
    for (const [module, path] of modules) {
      const pick = () => {
        press(module);
        cards.get(root.dataset.topic ?? "")?.pick(module);
      };
      root.appendChild(button("viz-button viz-file", path, pick)).dataset.module = module;
    }
    root.appendChild(make("p", "viz-note", "These files ran, the experiment first. Read them in this order."));
  };
  follow(props, watch, (message) => {
    if (!message.modules) return;
    if (listed !== message.experiment) list(message.modules); // else the focus stays where it is
    listed = message.experiment;
    press(message.shown);
  });
};
