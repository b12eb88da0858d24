// A page without a screen for the tests: jsdom, and what it lacks.

import { after } from "node:test";

// @ts-expect-error jsdom has no types of its own
import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><body></body>", {
  url: "http://localhost/?tab=nanogpt",
  pretendToBeVisual: true,
});
const { window } = dom;
/** @type {any} */
const world = globalThis;
for (const name of [
  "window",
  "document",
  "location",
  "history",
  "sessionStorage",
  "localStorage",
  "Node",
  "NodeFilter",
  "HTMLElement",
  "HTMLInputElement",
  "CustomEvent",
  "MutationObserver",
  "requestAnimationFrame",
  "getComputedStyle",
])
  Object.defineProperty(world, name, { value: /** @type {any} */ (window)[name], configurable: true, writable: true });
world.innerHeight = 900;
world.CSS = { escape: (/** @type {string} */ text) => text };
world.ResizeObserver = class {
  observe() {}
  disconnect() {}
};
world.IntersectionObserver = world.ResizeObserver;
window.HTMLCanvasElement.prototype.getContext = () => null;
window.HTMLElement.prototype.scrollIntoView = () => {};

/**
 * A component as Gradio makes it: an element, props, and a watch that is told when the value changes.
 * @param {string} name
 */
export const component = (name, topic = "nanogpt") => {
  const element = document.body.appendChild(document.createElement("div"));
  element.innerHTML = `<div class="viz-${name}" data-topic="${topic}"></div>`;
  /** @type {any} */
  const props = { value: null };
  /** @type {(() => void)[]} */
  const handlers = [];
  return {
    element,
    props,
    watch: (/** @type {string} */ _, /** @type {() => void} */ handler) => handlers.push(handler),
    send: (/** @type {any} */ value) => {
      props.value = value;
      for (const handler of handlers) handler();
    },
  };
};

after(() => dom.window.close()); // its clock would keep the process alive
