import { make } from "./dom.js";

/**
 * Colors and what they mean, so that no title has to say it.
 * @param {[string, string, string?][]} entries color name, meaning, and how it is drawn where it fills no area: line, dashed, dot, ring, frame, pale
 */
export const legend = (entries) => {
  const list = make("ul", "viz-legend");
  for (const [ink, meaning, kind = "area"] of entries) {
    const item = list.appendChild(make("li", `viz-key-${kind}`, meaning));
    item.style.setProperty("--ink", `var(--viz-${ink})`);
  }
  return list;
};
