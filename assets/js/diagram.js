// The diagram of a topic: boxes, arrows, matrices, stacks and groups with sizes from the Config; a part lights up while it computes.

import { make, svg } from "./dom.js";
import { diagrams, follow } from "./parts.js";

const LIT_MS = 700;

/**
 * @typedef {object} Shape
 * @property {"box" | "matrix" | "stack" | "group" | "arrow" | "label"} kind
 * @property {number} [x]
 * @property {number} [y]
 * @property {number} [w]
 * @property {number} [h]
 * @property {string} [title]
 * @property {string} [size] a second line: its shape or its number of weights
 * @property {string} [color]
 * @property {string} [part] lights when a Step says that this part did the work; shows the run's number
 * @property {number} [count] sheets of a stack
 * @property {[number, number][]} [points] of an arrow
 */

/** @param {SVGElement} place @param {Shape} s */
const lettering = (place, s) => {
  const { x = 0, y = 0, w = 0, h = 0 } = s;
  const lines = [s.title, s.size].filter(Boolean);
  const top = s.kind === "group" ? y + 15 : y + h / 2 - (lines.length - 1) * 8 + 5;
  if (s.title) {
    const title = svg("text", { x: x + w / 2, y: top, class: "viz-d-title" });
    title.textContent = s.title;
    place.appendChild(title);
  }
  if (s.size || s.part) {
    const size = svg("text", { x: x + w / 2, y: top + (s.title ? 16 : 0), class: "viz-d-size" });
    size.textContent = s.size ?? "";
    if (s.part) size.dataset.size = s.size ?? "";
    place.appendChild(size);
  }
};

/** @param {Shape} s */
const drawn = (s) => {
  const { x = 0, y = 0, w = 0, h = 0 } = s;
  const group = svg("g", { class: `viz-d viz-d-${s.kind}`, style: `--ink: var(--viz-${s.color ?? "text"})` });
  if (s.part) group.dataset.part = s.part;
  if (s.kind === "arrow") {
    const points = (s.points ?? []).map((p) => p.join(",")).join(" ");
    group.appendChild(svg("polyline", { points, "marker-end": "url(#viz-tip)" }));
    return group;
  }
  for (let k = (s.count ?? 1) - 1; k >= 0 && s.kind !== "label"; k--)
    group.appendChild(
      svg("rect", { x: x + 5 * k, y: y - 5 * k, width: w, height: h, rx: s.kind === "matrix" ? 1 : 7 }),
    );
  if (s.kind === "matrix")
    for (let k = 1; k < 4; k++) {
      group.appendChild(svg("line", { x1: x + (w * k) / 4, y1: y, x2: x + (w * k) / 4, y2: y + h }));
      group.appendChild(svg("line", { x1: x, y1: y + (h * k) / 4, x2: x + w, y2: y + (h * k) / 4 }));
    }
  lettering(group, s);
  return group;
};

/**
 * @param {HTMLElement} element
 * @param {any} props
 * @param {any} watch
 */
export const diagram = (element, props, watch) => {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viz-diagram"));
  /** @type {Map<string, any>} */
  const timers = new Map();
  const light = (/** @type {Record<string, string>} */ parts) => {
    for (const [part, note] of Object.entries(parts)) {
      for (const node of /** @type {NodeListOf<SVGElement>} */ (
        root.querySelectorAll(`[data-part="${CSS.escape(part)}"]`)
      )) {
        node.classList.add("viz-d-lit");
        const size = node.querySelector("[data-size]");
        if (note && size) size.textContent = note;
      }
      clearTimeout(timers.get(part));
      timers.set(
        part,
        setTimeout(
          () =>
            root.querySelectorAll(`[data-part="${CSS.escape(part)}"]`).forEach((n) => n.classList.remove("viz-d-lit")),
          LIT_MS,
        ),
      );
    }
  };
  /** The numbers of a run go. */
  const clear = () => {
    for (const size of /** @type {NodeListOf<SVGElement>} */ (root.querySelectorAll("[data-size]")))
      size.textContent = size.dataset.size ?? "";
  };
  diagrams.set(root.dataset.topic ?? "", { light, clear });
  new ResizeObserver(() => {
    // what scrolls, the keyboard must be able to reach
    if (root.scrollWidth > root.clientWidth) root.tabIndex = 0;
    else root.removeAttribute("tabindex");
  }).observe(root);
  follow(props, watch, (message) => {
    if (!message.shapes) return;
    root.textContent = "";
    const [wide, high] = message.size;
    const picture = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": message.alt });
    const defs = picture.appendChild(svg("defs"));
    const tip = defs.appendChild(
      svg("marker", {
        id: "viz-tip",
        viewBox: "0 0 8 8",
        refX: 7,
        refY: 4,
        markerWidth: 7,
        markerHeight: 7,
        orient: "auto",
      }),
    );
    tip.appendChild(svg("path", { d: "M0 0L8 4L0 8z", class: "viz-d-tip" }));
    for (const shape of message.shapes) picture.appendChild(drawn(shape));
    root.appendChild(picture);
    root.appendChild(make("p", "viz-d-caption", message.caption ?? ""));
  });
};
