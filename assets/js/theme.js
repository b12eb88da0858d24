// Colors by name, so that light and dark each have their own; redrawing when the theme or presenter mode changes.

/** @type {Set<() => void>} */
const drawings = new Set();
const redrawAll = () => drawings.forEach((redraw) => redraw());

/** Watch the classes that switch the theme (on html and body). */
export const watchTheme = () => {
  const observer = new MutationObserver(redrawAll);
  for (const node of [document.documentElement, document.body])
    observer.observe(node, { attributes: true, attributeFilter: ["class"] });
};

/**
 * Call `redraw` when the theme changes.
 * @param {() => void} redraw
 * @returns {() => void} ends it
 */
export const onTheme = (redraw) => {
  drawings.add(redraw);
  return () => drawings.delete(redraw);
};

/**
 * The value of a color name (text, grid, a, b, c ...) in the theme of the moment.
 * @param {string} name
 */
export const color = (name) =>
  getComputedStyle(document.body)
    .getPropertyValue("--viz-" + name)
    .trim();

export const presenting = () => document.body.classList.contains("presenter");

/** Pixels of the letters in charts. */
export const textSize = () => (presenting() ? 19 : 13);

/** The font of a canvas. */
export const font = (size = textSize()) => `${size}px ${getComputedStyle(document.body).fontFamily}`;
