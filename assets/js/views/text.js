import { make } from "../dom.js";

/**
 * A text. As a panel of its own a run replaces it: {text, marks}, marks being parts of it as [first, end]; in a player
 * each frame has one. `prose`: a sentence of the page, not something that a model wrote.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const pre = place.appendChild(make("pre", "viz-text" + (spec.prose ? " viz-prose" : ""), spec.text || ""));
  pre.tabIndex = 0;
  if (spec.height) {
    pre.classList.add("viz-high");
    pre.style.setProperty("--high", `${spec.height}px`);
    pre.style.setProperty("--high-narrow", `${spec.narrow || spec.height}px`);
  }
  return {
    update: ({ text, marks = [] }) => {
      const letters = [...text]; // as Python counts them
      let at = 0;
      pre.textContent = "";
      for (const [first, end] of marks) {
        pre.append(letters.slice(at, first).join(""), make("mark", "", letters.slice(first, end).join("")));
        at = end;
      }
      pre.append(letters.slice(at).join(""));
    },
    show: (frames, i) => (pre.textContent = frames.length ? frames[i][spec.id] : ""),
    destroy: () => {},
  };
};
