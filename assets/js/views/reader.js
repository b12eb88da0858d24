import { make } from "../dom.js";

/**
 * A text of one span per frame, shaded by a number from 0 to 1. Click a character, or move with the arrow keys, to go to its frame.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec, seek = () => {}) => {
  const pre = place.appendChild(make("pre", "viz-text viz-reader"));
  /** @type {HTMLElement[]} */
  const spans = [];
  /** @type {HTMLElement | null} */
  let marked = null;
  pre.tabIndex = 0;
  pre.setAttribute("aria-label", spec.title || "text");
  return {
    clear: () => {
      pre.textContent = "";
      spans.length = 0;
    },
    grown: (frames) => {
      for (let i = spans.length; i < frames.length; i++) {
        const span = pre.appendChild(make("span", "", frames[i][spec.id].text));
        span.style.setProperty("--shade", frames[i][spec.id].shade);
        span.onclick = () => seek(i);
        spans.push(span);
      }
      pre.scrollTop = pre.scrollHeight;
    },
    show: (_, i) => {
      marked?.classList.remove("viz-now");
      marked = spans[i] ?? null;
      marked?.classList.add("viz-now");
    },
    destroy: () => {},
  };
};
