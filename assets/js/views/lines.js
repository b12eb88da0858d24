import { Bin, short } from "../dom.js";
import { surface } from "../surface.js";
import { color, font, textSize } from "../theme.js";
import { niceTicks, padded } from "../ticks.js";

/** @typedef {{id: string, label: string, colour: string, dots?: boolean, faint?: boolean, width?: number, xs: number[], ys: number[]}} Series */

/**
 * The range of both axes: what is drawn, and how far x reaches before there is data.
 * @param {Iterable<Series>} members
 * @param {{y: number}[]} levels
 * @param {number | null} reach
 */
export const boundsOf = (members, levels, reach) => {
  let x1 = reach || 1;
  let low = Infinity;
  let high = -Infinity;
  for (const s of members)
    for (let i = 0; i < s.xs.length; i++) {
      if (s.xs[i] > x1) x1 = s.xs[i];
      if (!Number.isFinite(s.ys[i])) continue;
      if (s.ys[i] < low) low = s.ys[i];
      if (s.ys[i] > high) high = s.ys[i];
    }
  for (const level of levels) {
    low = Math.min(low, level.y);
    high = Math.max(high, level.y);
  }
  const [y0, y1] = padded(low, high);
  return { x0: 0, x1, y0, y1 };
};

/**
 * Of each line the point nearest to x.
 * @param {Iterable<Series>} members
 * @param {number} x
 * @returns {[Series, number, number][]}
 */
export const nearest = (members, x) => {
  /** @type {[Series, number, number][]} */
  const found = [];
  for (const s of members) {
    let best = -1;
    for (let i = 0; i < s.xs.length; i++) if (best < 0 || Math.abs(s.xs[i] - x) < Math.abs(s.xs[best] - x)) best = i;
    if (best >= 0) found.push([s, s.xs[best], s.ys[best]]);
  }
  return found;
};

/**
 * Heights for labels: each as near as can be to where it belongs, in its order, `gap` apart, and none below `bottom`.
 * @param {number[]} wanted from the highest on the screen to the lowest
 * @param {number} gap
 * @param {number} bottom
 */
export const apart = (wanted, gap, bottom) => {
  const places = [...wanted];
  for (let i = 1; i < places.length; i++) places[i] = Math.max(places[i], places[i - 1] + gap);
  for (let i = places.length - 1; i >= 0; i--)
    places[i] = Math.min(places[i], i === places.length - 1 ? bottom : places[i + 1] - gap);
  return places;
};

/**
 * A live line chart. Deltas come in, thousands of points stay smooth. Point at it, or use the arrow keys, to read values.
 * Data: {levels: [{label, y}], marks: [{label, x}], add: {series: [xs, ys]}, whole}; whole replaces what was there.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  /** @type {Map<string, Series>} */
  const series = new Map(spec.series.map((/** @type {any} */ s) => [s.id, { ...s, xs: [], ys: [] }]));
  /** @type {{label: string, y: number}[]} */
  let levels = spec.levels || [];
  /** @type {{label: string, x: number}[]} */
  let marks = spec.marks || [];
  /** @type {number | null} */
  let hover = null;
  /** @type {number | null} */
  let cursor = null;
  /** @type {any} */
  let box = null;

  const paintAxes = (/** @type {CanvasRenderingContext2D} */ ctx, /** @type {number} */ w, /** @type {number} */ h) => {
    const size = textSize();
    const { b } = box;
    ctx.lineWidth = 1;
    ctx.textBaseline = "middle";
    ctx.fillStyle = color("text");
    ctx.strokeStyle = color("grid");
    ctx.textAlign = "right";
    for (const t of box.heights) {
      ctx.beginPath();
      ctx.moveTo(box.left, box.Y(t));
      ctx.lineTo(box.right, box.Y(t));
      ctx.stroke();
      ctx.fillText(short(t), box.left - 6, box.Y(t));
    }
    ctx.textAlign = "center";
    for (const t of niceTicks(b.x0, b.x1, w / 110)) ctx.fillText(short(t), box.X(t), box.bottom + size * 0.9);
    ctx.fillText(spec.x.title, (box.left + box.right) / 2, h - size * 0.7);
    ctx.save();
    ctx.translate(size * 0.75, (box.top + box.bottom) / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText(spec.y.title, 0, 0);
    ctx.restore();
  };

  const paintLevels = (/** @type {CanvasRenderingContext2D} */ ctx, /** @type {number} */ w) => {
    const size = textSize();
    ctx.setLineDash([5, 4]);
    ctx.strokeStyle = color("level");
    for (const level of levels) {
      ctx.beginPath();
      ctx.moveTo(box.left, box.Y(level.y));
      ctx.lineTo(box.right, box.Y(level.y));
      ctx.stroke();
    }
    ctx.strokeStyle = color("text");
    for (const mark of marks) {
      const x = box.X(mark.x);
      const late = x > w * 0.6;
      ctx.beginPath();
      ctx.moveTo(x, box.top);
      ctx.lineTo(x, box.bottom);
      ctx.stroke();
      ctx.textAlign = late ? "right" : "left";
      ctx.fillText(mark.label, x + (late ? -5 : 5), box.top + size * 0.7);
    }
    ctx.setLineDash([]);
    if (cursor !== null) {
      ctx.fillStyle = color("cursor");
      ctx.fillRect(box.X(cursor) - 2, box.top, 4, box.bottom - box.top);
    }
  };

  /** Draws a line and returns where it ends. */
  const paintLine = (/** @type {CanvasRenderingContext2D} */ ctx, /** @type {Series} */ s) => {
    ctx.strokeStyle = color(s.colour);
    ctx.lineWidth = s.width || 2;
    ctx.globalAlpha = s.faint ? 0.55 : 1;
    ctx.beginPath();
    let pen = false;
    let y = 0;
    for (let i = 0; i < s.xs.length; i++) {
      if (!Number.isFinite(s.ys[i])) {
        pen = false;
        continue;
      }
      const x = box.X(s.xs[i]);
      y = Math.max(box.top, Math.min(box.bottom, box.Y(s.ys[i])));
      if (pen) ctx.lineTo(x, y);
      else ctx.moveTo(x, y);
      pen = true;
    }
    ctx.stroke();
    ctx.globalAlpha = 1;
    ctx.fillStyle = color(s.colour);
    if (s.dots)
      for (let i = 0; i < s.xs.length; i++) {
        ctx.beginPath();
        ctx.arc(box.X(s.xs[i]), box.Y(s.ys[i]), 3.5, 0, 7);
        ctx.fill();
      }
    return { s, y };
  };

  const onVeil = (
    /** @type {CanvasRenderingContext2D} */ ctx,
    /** @type {string} */ name,
    /** @type {number} */ x,
    /** @type {number} */ y,
    /** @type {string} */ ink,
  ) => {
    const size = textSize();
    ctx.fillStyle = color("veil");
    ctx.fillRect(x - 3, y - size * 0.65, ctx.measureText(name).width + 6, size * 1.3);
    ctx.fillStyle = color(ink);
    ctx.fillText(name, x, y);
  };

  /** Names of levels and of lines at their ends: in the margin, or over the chart where there is no room for one. */
  const paintNames = (/** @type {CanvasRenderingContext2D} */ ctx, /** @type {any[]} */ ends) => {
    const size = textSize();
    ctx.textAlign = "left";
    const names = [
      ...levels.map((level) => ({ name: levelName(level), y: box.Y(level.y), ink: "text" })),
      ...ends.map((end) => ({ name: endName(end.s), y: end.y, ink: end.s.colour })),
    ].sort((p, q) => p.y - q.y);
    const places = apart(
      names.map(({ y }) => y),
      size * 1.25,
      box.bottom,
    );
    names.forEach(({ name, ink }, i) => {
      if (box.narrow) return onVeil(ctx, name, box.right - ctx.measureText(name).width - 4, places[i], ink);
      ctx.fillStyle = color(ink);
      ctx.fillText(name, box.right + 8, places[i]);
    });
  };

  const paintHover = (/** @type {CanvasRenderingContext2D} */ ctx) => {
    if (hover === null) return;
    const size = textSize();
    const found = nearest(series.values(), hover);
    if (!found.length) return;
    const at = box.X(found[0][1]);
    const names = readingOf(found);
    const wide = Math.max(...names.map((n) => ctx.measureText(n).width)) + 16;
    const high = names.length * size * 1.35 + 8;
    const x = at + wide + 10 > box.right ? at - wide - 8 : at + 8;
    ctx.strokeStyle = color("text");
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(at, box.top);
    ctx.lineTo(at, box.bottom);
    ctx.stroke();
    ctx.fillStyle = color("veil");
    ctx.fillRect(x, box.top + 4, wide, high);
    ctx.strokeRect(x, box.top + 4, wide, high);
    ctx.textAlign = "left";
    names.forEach((name, i) => {
      ctx.fillStyle = color(i ? found[i - 1][0].colour : "text");
      ctx.fillText(name, x + 8, box.top + 4 + size * (1 + i * 1.35));
    });
  };

  const endName = (/** @type {Series} */ s) => `${s.label} ${short(s.ys[s.ys.length - 1])}`;
  const levelName = (/** @type {{label: string, y: number}} */ level) => `${level.label} ${level.y.toFixed(2)}`;
  const readingOf = (/** @type {[Series, number, number][]} */ found) => [
    `${spec.x.title.split(" (")[0]} ${short(found[0][1])}`,
    ...found.map(([s, , y]) => `${s.label} ${short(y)}`),
  ];

  const { canvas, redraw } = surface(
    place,
    bin,
    (w) => (w < 500 ? 260 : spec.height || 300),
    (ctx, w, h) => {
      const size = textSize();
      const b = boundsOf(series.values(), levels, spec.x.high);
      ctx.font = font(size);
      const drawn = [...series.values()].filter((s) => s.xs.length);
      const names = [...levels.map(levelName), ...[...series.values()].map((s) => `${s.label} -0.0000`)];
      const wanted = 14 + Math.max(0, ...names.map((name) => ctx.measureText(name).width));
      const narrow = wanted > 0.34 * w;
      const margin = narrow ? size : wanted; // half of the last number stands beyond the axis
      const heights = niceTicks(b.y0, b.y1, h / 55);
      const left = size * 1.8 + 8 + Math.max(...heights.map((t) => ctx.measureText(short(t)).width));
      box = { left: Math.max(size * 3.6, left), top: 8, right: w - margin, bottom: h - size * 2.9, b, heights, narrow };
      box.X = (/** @type {number} */ x) => box.left + ((x - b.x0) / (b.x1 - b.x0)) * (box.right - box.left);
      box.Y = (/** @type {number} */ y) => box.bottom - ((y - b.y0) / (b.y1 - b.y0)) * (box.bottom - box.top);
      paintAxes(ctx, w, h);
      paintLevels(ctx, w);
      const ends = drawn.map((s) => paintLine(ctx, s));
      paintNames(ctx, ends);
      paintHover(ctx);
      const said = ends.map((end) => `${end.s.label}: ${short(end.s.ys[end.s.ys.length - 1])}`).join(", ");
      const dashed = levels.length ? ". Lines: " + levels.map(levelName).join(", ") : "";
      canvas.setAttribute("aria-label", `${spec.title}. ${said}${dashed}`);
    },
  );

  // values by pointer, and by the arrow keys
  const note = place.appendChild(document.createElement("output"));
  note.className = "viz-offscreen";
  const point = (/** @type {number | null} */ x) => {
    hover = x;
    redraw();
  };
  canvas.tabIndex = 0;
  bin.on(canvas, "pointermove", (event) => {
    if (!box) return;
    const inside = event.offsetX >= box.left && event.offsetX <= box.right;
    const part = (event.offsetX - box.left) / (box.right - box.left);
    point(inside ? box.b.x0 + part * (box.b.x1 - box.b.x0) : null);
  });
  for (const kind of ["pointerleave", "blur"]) bin.on(canvas, kind, () => point(null));
  bin.on(canvas, "keydown", (event) => {
    const by = /** @type {Record<string, number>} */ ({ ArrowLeft: -1, ArrowRight: 1 })[event.key];
    if (!by || !box || place.closest(".viz-player")) return; // in a player the arrows move the film
    event.preventDefault();
    const step = (box.b.x1 - box.b.x0) / 40;
    point(Math.max(box.b.x0, Math.min(box.b.x1, (hover ?? box.b.x1) + by * step)));
    const found = nearest(series.values(), hover ?? 0);
    if (found.length) note.textContent = readingOf(found).join(", ");
  });

  return {
    show: (frames, i) => {
      const at = frames.length ? (frames[i].at ?? null) : null;
      if (at === cursor) return;
      cursor = at;
      redraw();
    },
    update: (data) => {
      levels = data.levels || levels;
      marks = data.marks || marks;
      for (const [id, [xs, ys]] of Object.entries(data.add || {})) {
        const s = series.get(id);
        if (!s) throw new Error(`the chart “${spec.id}” has no line “${id}”`);
        if (data.whole) [s.xs, s.ys] = [[], []];
        for (let i = 0; i < xs.length; i++) {
          s.xs.push(xs[i]);
          s.ys.push(ys[i] === null ? NaN : ys[i]);
        }
      }
      redraw();
    },
    destroy: () => bin.empty(),
  };
};
