import { Bin } from "../dom.js";
import { surface } from "../surface.js";
import { color, font, textSize } from "../theme.js";

/** @typedef {{id: string, kind: string, x: number, y: number, w?: number, h?: number, r?: number, text?: string, fill?: string}} Shape */

/**
 * Shapes that move smoothly between frames. Data of a frame: [{id, kind: text | circle | rect | line, x, y, w, h, text, fill}],
 * in units of the whole film; equal ids move.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  /** @type {[Shape[], Shape[]]} */
  let pair = [[], []];
  let mix = 0;
  let limits = [0, 1, 0, 1];
  /** @type {any} */
  let scale = null;

  const paint = (
    /** @type {CanvasRenderingContext2D} */ ctx,
    /** @type {Shape} */ s,
    /** @type {(key: string) => number} */ at,
  ) => {
    const { X, Y, size } = scale;
    ctx.fillStyle = ctx.strokeStyle = color(s.fill || "text");
    if (s.kind === "text") {
      ctx.font = `bold ${size}px monospace`;
      ctx.fillText(s.text || "", X(at("x")), Y(at("y")));
    } else if (s.kind === "circle") {
      ctx.beginPath();
      ctx.arc(X(at("x")), Y(at("y")), at("r") || 5, 0, 7);
      ctx.fill();
    } else if (s.kind === "rect") {
      const [left, top] = [X(at("x")), Y(at("y") + at("h"))];
      ctx.fillRect(left, top, X(at("x") + at("w")) - left, Y(at("y")) - top);
      if (!s.text) return;
      ctx.fillStyle = color("veil");
      ctx.fillText(s.text, X(at("x") + at("w") / 2), Y(at("y") + at("h") / 2));
    } else {
      ctx.lineWidth = 2;
      ctx.beginPath();
      ctx.moveTo(X(at("x")), Y(at("y")));
      ctx.lineTo(X(at("x") + at("w")), Y(at("y") + at("h")));
      ctx.stroke();
    }
  };

  const { canvas, redraw } = surface(
    place,
    bin,
    (w) => Math.min(w * (spec.aspect || 0.8), spec.height || 300),
    (ctx, w, h) => {
      const size = textSize();
      const pad = size * 1.4;
      const foot = spec.x ? size * 1.4 : 0;
      const [x0, x1, y0, y1] = limits;
      const X = (/** @type {number} */ x) => pad + ((x - x0) / (x1 - x0 || 1)) * (w - 2 * pad);
      const Y = (/** @type {number} */ y) => h - foot - pad - ((y - y0) / (y1 - y0 || 1)) * (h - foot - 2 * pad);
      scale = { X, Y, size };
      const next = new Map(pair[1].map((s) => [s.id, s]));
      const ease = mix * mix * (3 - 2 * mix);
      ctx.strokeStyle = color("grid");
      ctx.strokeRect(0.5, 0.5, w - 1, h - foot - 1);
      ctx.font = font(size);
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.fillStyle = color("text");
      if (spec.x) ctx.fillText(spec.x, w / 2, h - size * 0.6);
      for (const s of pair[0]) {
        /** @type {any} */
        const from = s;
        /** @type {any} */
        const to = next.get(s.id) || s;
        paint(ctx, s, (key) => (from[key] ?? 0) + ((to[key] ?? 0) - (from[key] ?? 0)) * ease);
      }
      canvas.setAttribute("aria-label", spec.alt || spec.title || "drawing");
    },
  );

  return {
    smooth: true,
    grown: (frames) => {
      limits = [Infinity, -Infinity, Infinity, -Infinity];
      for (const frame of frames)
        for (const s of frame[spec.id] || []) {
          const [right, top] = [s.x + (s.w || 0), s.y + (s.h || 0)];
          limits = [
            Math.min(limits[0], s.x, right),
            Math.max(limits[1], s.x, right),
            Math.min(limits[2], s.y, top),
            Math.max(limits[3], s.y, top),
          ];
        }
    },
    show: (frames, i, fraction) => {
      if (!frames.length) return;
      pair = [frames[i][spec.id] || [], (frames[i + 1] || frames[i])[spec.id] || []];
      mix = fraction;
      redraw();
    },
    destroy: () => bin.empty(),
  };
};
