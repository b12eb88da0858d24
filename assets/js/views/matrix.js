import { Bin, bytesOf, make, short, visible } from "../dom.js";
import { surface } from "../surface.js";
import { color, font, onTheme, textSize } from "../theme.js";

const rgb = (/** @type {string} */ hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/**
 * The color of a value from 0 to 1. signed: the middle has the color of nothing, the ends two colors.
 * @param {number} value
 * @param {boolean} signed
 * @param {{cold: number[], hot: number[], a: number[], b: number[]}} inks
 */
export const mixed = (value, signed, inks) => {
  const t = signed ? Math.abs(2 * value - 1) : Math.sqrt(value);
  const to = !signed ? inks.hot : value < 0.5 ? inks.a : inks.b;
  return inks.cold.map((from, channel) => from + (to[channel] - from) * t);
};

/**
 * Small multiples of heat maps with a scale of their colors. Point at a cell, or move with the arrow keys, to read it.
 * Data of a frame: {shape: [rows, columns, height, width], bytes, names, top, left, below, low, high}.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  /** @type {any} */
  let now = null;
  /** @type {any} */
  let layout = null;
  /** @type {OffscreenCanvas[]} */
  let tiles = [];
  /** @type {[number, number, number, number] | null} */
  let cell = null;
  const note = place.appendChild(make("p", "viz-note", spec.hint || ""));
  note.setAttribute("aria-live", "polite");

  const inks = () => {
    const [cold, hot, a, b] = ["cold", "hot", "a", "b"].map((name) => rgb(color(name)));
    return { cold, hot, a, b };
  };

  const measure = (/** @type {number} */ w) => {
    if (!now) return spec.height || 160;
    const [rows, columns, high, wide] = now.shape;
    const size = textSize();
    const gap = 8;
    const left = now.left ? 10 + size * 0.62 * Math.max(...now.left.map((/** @type {string} */ t) => t.length)) : 0;
    const top = size + 6;
    const tileWide = Math.min((w - left - gap * (columns - 1)) / columns, spec.square ? 230 : 1e4);
    const tileHigh = spec.square ? (tileWide * high) / wide : Math.max(size * 1.05, 12) * high;
    layout = { gap, left, top, tileWide, tileHigh, size };
    return rows * (tileHigh + top + gap) + (now.below ? size + 6 : 0) + size * 1.8;
  };

  const paintScale = (/** @type {CanvasRenderingContext2D} */ ctx, /** @type {number} */ h) => {
    const size = textSize();
    const ink = inks();
    const [low, high] = [short(now.low ?? 0), short(now.high ?? 1)];
    const from = layout.left + ctx.measureText(low).width + 6;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.fillStyle = color("text");
    ctx.fillText(low, layout.left, h - size * 0.7);
    ctx.fillText(high, from + 86, h - size * 0.7);
    for (let i = 0; i < 40; i++) {
      ctx.fillStyle = `rgb(${mixed(i / 39, spec.signed, ink)
        .map(Math.round)
        .join(",")})`;
      ctx.fillRect(from + i * 2, h - size * 1.2, 2, size);
    }
    ctx.strokeStyle = color("grid");
    ctx.strokeRect(from, h - size * 1.2, 80, size);
  };

  const { canvas, redraw } = surface(place, bin, measure, (ctx, _, h) => {
    if (!now || !layout) return;
    const [rows, columns, high, wide] = now.shape;
    const { gap, left, top, tileWide, tileHigh, size } = layout;
    ctx.font = font(size);
    ctx.imageSmoothingEnabled = false;
    for (let k = 0; k < rows * columns; k++) {
      const x = left + (k % columns) * (tileWide + gap);
      const y = top + Math.floor(k / columns) * (tileHigh + top + gap);
      ctx.drawImage(tiles[k], x, y, tileWide, tileHigh);
      ctx.lineWidth = 1;
      ctx.strokeStyle = color("grid");
      ctx.strokeRect(x, y, tileWide, tileHigh);
      ctx.fillStyle = color("text");
      ctx.textAlign = "left";
      ctx.textBaseline = "bottom";
      ctx.fillText(now.names[k], x, y - 3, tileWide);
      if (now.left && k % columns === 0) {
        ctx.textAlign = "right";
        ctx.textBaseline = "middle";
        now.left.forEach((/** @type {string} */ t, /** @type {number} */ row) =>
          ctx.fillText(t, left - 6, y + (tileHigh * (row + 0.5)) / high),
        );
      }
      if (now.below && k >= (rows - 1) * columns) {
        ctx.textAlign = "center";
        ctx.textBaseline = "top";
        ctx.font = `${Math.min(size, (1.5 * tileWide) / wide)}px monospace`;
        [...now.below].forEach((t, at) =>
          ctx.fillText(visible(t), x + (tileWide * (at + 0.5)) / wide, y + tileHigh + 4),
        );
        ctx.font = font(size);
      }
    }
    if (cell) {
      const [r, c, t, s] = cell;
      ctx.lineWidth = 2;
      ctx.strokeStyle = color("text");
      ctx.strokeRect(
        left + c * (tileWide + gap) + (s * tileWide) / wide,
        top + r * (tileHigh + top + gap) + (t * tileHigh) / high,
        tileWide / wide,
        tileHigh / high,
      );
    }
    paintScale(ctx, h);
    canvas.setAttribute(
      "aria-label",
      `${spec.title || "heat maps"}: ${now.names.join(", ")}. Arrow keys read the cells.`,
    );
  });

  const prepare = () => {
    if (!now) return;
    const [rows, columns, high, wide] = now.shape;
    const ink = inks();
    tiles = Array.from({ length: rows * columns }, (_, k) => {
      const tile = new OffscreenCanvas(wide, high);
      const ctx = /** @type {OffscreenCanvasRenderingContext2D} */ (tile.getContext("2d"));
      const image = ctx.createImageData(wide, high);
      for (let i = 0; i < wide * high; i++)
        image.data.set([...mixed(now.values[k * wide * high + i] / 255, spec.signed, ink), 255], 4 * i);
      ctx.putImageData(image, 0, 0);
      return tile;
    });
    redraw();
  };
  bin.add(onTheme(prepare));

  const read = (/** @type {[number, number, number, number] | null} */ at) => {
    cell = at;
    redraw();
    if (!at) return (note.textContent = spec.hint || "");
    const [r, c, t, s] = at;
    const [, columns, high, wide] = now.shape;
    const fraction = now.values[(r * columns + c) * wide * high + t * wide + s] / 255;
    const [low, top] = [now.low ?? 0, now.high ?? 1];
    const below = now.below || now.top;
    /** @type {Record<string, any>} */
    const words = {
      name: now.names[r * columns + c],
      from: now.left ? now.left[t] : now.top ? `“${visible(now.top[t])}”` : t,
      row: t,
      to: below ? `“${visible(below[s])}”` : s,
      column: s,
      value: short(low + fraction * (top - low)),
      percent: Math.round(100 * fraction) + " %",
    };
    note.textContent = (spec.words || "{name}: row {row}, column {column}: {value}").replace(
      /\{(\w+)\}/g,
      (/** @type {string} */ _, /** @type {string} */ key) => words[key],
    );
  };
  bin.on(canvas, "pointermove", (event) => {
    if (!now || !layout) return;
    const [rows, columns, high, wide] = now.shape;
    const { gap, left, top, tileWide, tileHigh } = layout;
    const c = Math.floor((event.offsetX - left) / (tileWide + gap));
    const r = Math.floor((event.offsetY - top) / (tileHigh + top + gap));
    const s = Math.floor(((event.offsetX - left - c * (tileWide + gap)) / tileWide) * wide);
    const t = Math.floor(((event.offsetY - top - r * (tileHigh + top + gap)) / tileHigh) * high);
    const outside = c < 0 || r < 0 || c >= columns || r >= rows || s < 0 || t < 0 || s >= wide || t >= high;
    read(outside ? null : [r, c, t, s]);
  });
  for (const kind of ["pointerleave", "blur"]) bin.on(canvas, kind, () => cell && read(null));
  canvas.tabIndex = 0;
  bin.on(canvas, "keydown", (event) => {
    const by = /** @type {Record<string, number[]>} */ ({
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
    })[event.key];
    if (!by || !now) return;
    event.preventDefault();
    event.stopPropagation(); // in a player the arrows would move the film
    const [rows, columns, high, wide] = now.shape;
    if (!cell) return read([0, 0, 0, 0]);
    const row = Math.max(0, Math.min(rows * high - 1, cell[0] * high + cell[2] + by[0]));
    const column = Math.max(0, Math.min(columns * wide - 1, cell[1] * wide + cell[3] + by[1]));
    read([Math.floor(row / high), Math.floor(column / wide), row % high, column % wide]);
  });

  return {
    show: (frames, i) => {
      const data = frames.length ? frames[i][spec.id] : null;
      if (data === now) return;
      now = data || null;
      cell = null;
      if (!now) return redraw();
      now.values ??= bytesOf(now.bytes);
      prepare();
    },
    destroy: () => bin.empty(),
  };
};
