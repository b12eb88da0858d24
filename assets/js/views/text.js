import { make } from "../dom.js";

/**
 * A text. As a panel of its own a run replaces it; in a player each frame has one.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const pre = place.appendChild(make("pre", "viz-text", spec.text || ""));
  pre.tabIndex = 0;
  const height = matchMedia("(max-width: 700px)").matches ? spec.narrow || spec.height : spec.height;
  if (height) pre.style.height = height + "px";
  return {
    update: (data) => (pre.textContent = data.text),
    show: (frames, i) => (pre.textContent = frames.length ? frames[i][spec.id] : ""),
    destroy: () => {},
  };
};
