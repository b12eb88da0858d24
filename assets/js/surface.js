// A canvas as wide as its place, redrawn at most once per frame: on new data, on resize, on a change of theme.

import { make } from "./dom.js";
import { onTheme } from "./theme.js";

/**
 * @param {HTMLElement} place
 * @param {import("./dom.js").Bin} bin ends it
 * @param {(width: number) => number} heightOf
 * @param {(ctx: CanvasRenderingContext2D, width: number, height: number) => void} draw
 */
export const surface = (place, bin, heightOf, draw) => {
  const canvas = place.appendChild(make("canvas"));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "drawing, still empty");
  let waiting = false;
  const paint = () => {
    waiting = false;
    const width = place.clientWidth;
    const ctx = canvas.getContext("2d");
    if (!width || !ctx) return; // in a hidden tab: the ResizeObserver calls again when it is shown
    const height = heightOf(width);
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = height + "px";
    }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    draw(ctx, width, height);
  };
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    if (document.hidden) setTimeout(paint, 50);
    else requestAnimationFrame(paint);
  };
  bin.add(onTheme(redraw));
  bin.onResize(place, redraw);
  redraw();
  return { canvas, redraw };
};
