// Python, command and link for the settings as they are now, and a sentence about what they leave out.

import { button, copy, make } from "./dom.js";
import { follow, forms, transports } from "./parts.js";

/** @type {[string, string][]} */
const FORMS = [
  ["python", "Copy as Python"],
  ["command", "In a terminal"],
  ["link", "Link to this"],
];

/**
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 */
export const take = (element, props, watch) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-take"));
  const topic = root.dataset.topic ?? "";
  /** @type {Record<string, HTMLElement>} */
  const places = {};
  const left = root.appendChild(make("p", "viz-left-out"));
  for (const [name, label] of FORMS) {
    const box = root.appendChild(make("div", "viz-copy"));
    box.appendChild(make("strong", "", label));
    const node = box.appendChild(
      button("viz-button", "Copy", async () => {
        const worked = await copy(places[name].textContent ?? "");
        node.textContent = worked ? "Copied" : "Select it and press Ctrl+C";
        setTimeout(() => (node.textContent = "Copy"), 1500);
      }),
    );
    node.setAttribute("aria-label", label + ": copy");
    places[name] = box.appendChild(make("pre", "viz-text"));
    places[name].tabIndex = 0;
  }
  const ask = () => forms.get(topic)?.ready() && transports.get(topic)?.take();
  new IntersectionObserver((seen) => seen.some((s) => s.isIntersecting) && ask()).observe(root);
  forms.get(topic)?.onChange(() => root.offsetParent && ask());
  follow(props, watch, (message) => {
    for (const name in places) if (name in message) places[name].textContent = message[name];
    left.textContent = message.left_out ?? "";
    left.hidden = !message.left_out;
  });
};
