import { Bin, bytesOf } from "../dom.js";
import { surface } from "../surface.js";
import { color, font, textSize } from "../theme.js";

/** @typedef {{wide: number, high: number, bytes: string, name?: string, under?: string, mark?: string}} Picture */

/**
 * The pixels of a picture as a canvas.
 * @param {Picture} picture
 */
export const tileOf = (picture) => {
  const tile = new OffscreenCanvas(picture.wide, picture.high);
  const ctx = /** @type {OffscreenCanvasRenderingContext2D} */ (tile.getContext("2d"));
  const image = ctx.createImageData(picture.wide, picture.high);
  const bytes = bytesOf(picture.bytes);
  for (let i = 0; i < picture.wide * picture.high; i++) {
    for (let channel = 0; channel < 3; channel++) image.data[4 * i + channel] = bytes[3 * i + channel];
    image.data[4 * i + 3] = 255;
  }
  ctx.putImageData(image, 0, 0);
  return tile;
};

/**
 * Small pictures in rows, every pixel a square. Data of a frame: {columns, pictures: [{wide, high, bytes: RGB, name, under, mark}]}.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  /** @type {{columns?: number, pictures: Picture[]} | null} */
  let now = null;
  /** @type {OffscreenCanvas[]} */
  let tiles = [];

  const sizes = (/** @type {number} */ w, /** @type {{columns?: number, pictures: Picture[]}} */ data) => {
    const size = textSize();
    const gap = 8;
    const fit = Math.floor((w + gap) / ((spec.least || 56) + gap));
    const columns = Math.max(1, Math.min(data.columns || data.pictures.length, fit));
    const side = Math.min((w - gap * (columns - 1)) / columns, spec.most || 160);
    const line = (/** @type {"name" | "under"} */ key) => (data.pictures.some((p) => p[key]) ? size * 1.35 : 0);
    const high = (side * data.pictures[0].high) / data.pictures[0].wide;
    return { size, gap, columns, side, high, over: line("name"), below: line("under") };
  };

  const { canvas, redraw } = surface(
    place,
    bin,
    (w) => {
      if (!now) return spec.height || 160;
      const { gap, columns, high, over, below } = sizes(w, now);
      return Math.ceil(now.pictures.length / columns) * (high + over + below + gap);
    },
    (ctx, w) => {
      if (!now) return;
      const { size, gap, columns, side, high, over, below } = sizes(w, now);
      ctx.font = font(size);
      ctx.imageSmoothingEnabled = false;
      ctx.textAlign = "left";
      ctx.textBaseline = "alphabetic";
      now.pictures.forEach((p, k) => {
        const x = (k % columns) * (side + gap);
        const y = Math.floor(k / columns) * (high + over + below + gap) + over;
        ctx.drawImage(tiles[k], x, y, side, high);
        ctx.lineWidth = p.mark ? 3 : 1;
        ctx.strokeStyle = color(p.mark || "grid");
        ctx.strokeRect(x + 0.5, y + 0.5, side - 1, high - 1);
        ctx.fillStyle = color("text");
        if (p.name) ctx.fillText(p.name, x, y - size * 0.4, side);
        if (p.under) ctx.fillText(p.under, x, y + high + size * 1.05, side);
      });
      const names = now.pictures.map((p) => [p.name, p.under].filter(Boolean).join(", ")).join("; ");
      canvas.setAttribute("aria-label", `${spec.title || "pictures"}: ${names}`);
    },
  );

  return {
    show: (frames, i) => {
      let k = Math.min(i, frames.length - 1);
      while (k >= 0 && !frames[k][spec.id]) k--; // a frame without pictures keeps the last ones
      const data = k < 0 ? null : frames[k][spec.id];
      if (data === now) return;
      now = data && data.pictures.length ? data : null;
      tiles = now ? now.pictures.map(tileOf) : [];
      redraw();
    },
    destroy: () => bin.empty(),
  };
};
