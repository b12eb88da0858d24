import { make } from "../dom.js";

const COLORS = 4; // pieces beside each other differ

/**
 * A text in pieces, side by side. Data of a frame: {chips: [[text, new], ...]}; new pieces have a frame.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const row = place.appendChild(make("p", "viz-chips"));
  row.setAttribute("role", "img");
  return {
    show: (frames, i) => {
      /** @type {[string, boolean][]} */
      const chips = frames[i]?.[spec.id].chips ?? [];
      row.replaceChildren(
        ...chips.map(([text, fresh], at) => make("span", `viz-chip-${at % COLORS}${fresh ? " viz-fresh" : ""}`, text)),
      );
      row.setAttribute("aria-label", `${chips.length} pieces: ${chips.map(([text]) => text).join(" | ")}`);
    },
    destroy: () => {},
  };
};
