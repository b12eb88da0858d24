import { Bin, short } from "../dom.js";
import { surface } from "../surface.js";
import { color, font, textSize } from "../theme.js";
import { niceTicks } from "../ticks.js";

/**
 * A row per worker: what it does over time. Data of a frame: {span, unit, rows: [{name, bars: [[start, length, color, text,
 * strength]]} or {name, cells: "aab..", keys}]}. A frame {at} shows the latest rows up to that time; between two frames time runs on.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  /** @type {any} */
  let data = null;
  /** @type {number | null} */
  let at = null;
  const rowHigh = () => (data ? Math.max(2, Math.min(spec.row || 26, (spec.most || 420) / data.rows.length)) : 26);
  const bounded = (/** @type {number} */ t) => Math.max(0, Math.min(at ?? Infinity, t));

  const paintBars = (/** @type {CanvasRenderingContext2D} */ ctx, /** @type {any} */ row, /** @type {any} */ g) => {
    for (const [start, length, ink, text, strength] of row.bars || []) {
      if (start >= g.t) continue;
      const x = g.X(start);
      const wide = g.X(bounded(start + length)) - x;
      ctx.fillStyle = g.paint(ink);
      ctx.globalAlpha = strength ?? 1;
      ctx.fillRect(x, g.y, Math.max(0.5, wide - (wide > 4 ? 1 : 0)), g.high);
      ctx.globalAlpha = 1;
      if (!text || wide < ctx.measureText(text).width + 4 || g.row < g.size) continue;
      ctx.fillStyle = g.paint("veil");
      ctx.textAlign = "center";
      ctx.fillText(text, x + wide / 2, g.y + g.high / 2 + 1);
    }
  };

  const paintCells = (/** @type {CanvasRenderingContext2D} */ ctx, /** @type {any} */ row, /** @type {any} */ g) => {
    for (let c = 0, from = 0; row.cells && c < row.cells.length; c++) {
      if (row.cells[c + 1] === row.cells[c]) continue; // neighbors of one kind are one bar
      const [ink, strength] = data.keys[row.cells[c]] || [];
      const one = g.end / row.cells.length;
      const [x, until] = [g.X(bounded(from * one)), g.X(bounded((c + 1) * one))];
      from = c + 1;
      if (!ink || until <= x) continue;
      ctx.fillStyle = g.paint(ink);
      ctx.globalAlpha = strength ?? 1;
      ctx.fillRect(x, g.y, until - x, g.high);
      ctx.globalAlpha = 1;
    }
  };

  const paintTime = (/** @type {CanvasRenderingContext2D} */ ctx, /** @type {any} */ g) => {
    ctx.fillStyle = g.paint("text");
    ctx.strokeStyle = g.paint("grid");
    ctx.textAlign = "center";
    for (const t of niceTicks(0, data.span, g.w / 110)) {
      ctx.beginPath();
      ctx.moveTo(g.X(t), g.foot);
      ctx.lineTo(g.X(t), g.foot + 5);
      ctx.stroke();
      ctx.fillText(short(t), g.X(t), g.foot + 6 + g.size * 0.7);
    }
    ctx.fillText(data.unit, (g.left + g.w) / 2, g.foot + 6 + g.size * 1.9);
    if (at !== null && at < data.span) ctx.fillRect(g.X(at) - 1, 0, 2, g.foot);
  };

  const { canvas, redraw } = surface(
    place,
    bin,
    () => (data ? data.rows.length : spec.rows || 4) * rowHigh() + textSize() * 3.2,
    (ctx, w, h) => {
      if (!data) return;
      /** @type {Record<string, string>} */
      const inks = {};
      const size = textSize();
      const row = rowHigh();
      ctx.font = font(size);
      ctx.textBaseline = "middle";
      ctx.lineWidth = 1;
      const left = 8 + Math.max(...data.rows.map((/** @type {any} */ r) => ctx.measureText(r.name).width));
      const g = {
        w,
        size,
        row,
        left,
        high: row - (row > 8 ? 2 : 0),
        foot: h - size * 3.2,
        t: at ?? Infinity,
        y: 0,
        end: data.end ?? data.span,
        X: (/** @type {number} */ t) => left + (t / data.span) * (w - left - 8),
        paint: (/** @type {string} */ name) => (inks[name] ??= color(name)),
      };
      const every = Math.ceil((size * 1.2) / row); // names where there is room
      data.rows.forEach((/** @type {any} */ r, /** @type {number} */ k) => {
        g.y = k * row;
        ctx.fillStyle = g.paint("text");
        ctx.textAlign = "right";
        if (k % every === 0) ctx.fillText(r.name, left - 6, g.y + Math.max(row, size) / 2);
        ctx.fillStyle = g.paint("grid");
        ctx.fillRect(left, g.y, g.X(Math.min(g.end, g.t)) - left, g.high);
        paintBars(ctx, r, g);
        paintCells(ctx, r, g);
      });
      paintTime(ctx, g);
      canvas.setAttribute(
        "aria-label",
        `${spec.title || "chart of work over time"}: ${data.rows.length} rows, ${short(g.end)} ${data.unit}`,
      );
    },
  );

  return {
    smooth: true,
    show: (frames, i, fraction) => {
      let k = Math.min(i, frames.length - 1);
      const now = frames[k] && frames[k][spec.id];
      const next = (frames[i + 1] || {})[spec.id];
      while (k >= 0 && !(frames[k][spec.id] && frames[k][spec.id].rows)) k--;
      data = k < 0 ? null : frames[k][spec.id];
      const goesOn = next && next.at !== undefined && !next.rows;
      at = now && now.at !== undefined ? now.at + (goesOn ? (next.at - now.at) * fraction : 0) : null;
      redraw();
    },
    destroy: () => bin.empty(),
  };
};
