// What is seen of an opened model from far: the text, each layer as small maps of its heads, the next tokens.

import { visible } from "../dom.js";

/**
 * @typedef {import("./paint.js").Painter} Painter
 * @typedef {import("./world.js").Rect} Rect
 * @typedef {import("./world.js").Box} Box
 */

/**
 * The text that comes in: in one piece where it is small, else a token a line with its embedding.
 * @param {Painter} on
 * @param {Box} box
 */
export const incoming = (on, box) => {
  const tokens = on.model.told.tokens;
  const table = box.matrices[0];
  const r = on.onScreen(box);
  if (r.w > 240 && table) {
    on.matrix(table, on.onScreen(table));
    on.marks(box);
    return;
  }
  const size = on.tiles.size;
  const fits = Math.max(3, Math.floor((r.w - 12) / (size * 0.62)));
  const parts =
    tokens
      .map(visible)
      .join("")
      .match(new RegExp(`.{1,${fits}}`, "gu")) ?? [];
  parts
    .slice(0, Math.floor((r.h - 30) / (size * 1.3)))
    .forEach((/** @type {string} */ part, /** @type {number} */ at) => {
      on.write(part, r.x + r.w / 2, r.y + size * 2.6 + at * size * 1.3, { align: "center", size });
    });
};

/**
 * The likeliest next tokens, with and without what is knocked out.
 * @param {Painter} on
 * @param {Box} box
 */
export const outgoing = (on, box) => {
  const r = on.onScreen(box);
  const all = on.model.told.candidates;
  const size = on.tiles.size;
  const top = Math.max(size * 2, 80 * on.view.scale);
  const fits = Math.max(1, Math.min(all.length, 8, Math.floor((r.h - top - 6) / (size * 1.5))));
  const line = (r.h - top - 8) / fits;
  const name = Math.min(60, r.w * 0.24);
  const k = on.state.knocked;
  const gone = k && on.model.without(k.layer, k.part);
  all.slice(0, fits).forEach((/** @type {[string, number]} */ [token, p], /** @type {number} */ at) => {
    const y = r.y + top + (at + 0.5) * line;
    on.write(visible(token), r.x + name - 6, y, { align: "right", size, most: name - 8 });
    const h = Math.min(line * 0.34, 26);
    const bar = (/** @type {number} */ share, /** @type {number} */ from, /** @type {string} */ ink) =>
      on.block({ x: r.x + name, y: from, w: Math.max(0.5, (r.w - name - 12) * share), h }, ink);
    bar(p, gone ? y - h : y - h / 2, "a");
    if (gone) bar(gone.p[at], y, "b");
  });
};

/**
 * A layer: its heads as small maps, framed by how much they matter, and what it would write if it were the last.
 * @param {Painter} on
 * @param {Box} box
 * @param {Rect} r the box in pixels
 */
export const far = (on, box, r) => {
  const { ctx, model } = on;
  for (const thumb of on.world.thumbs(box)) {
    const t = on.onScreen(thumb);
    ctx.imageSmoothingEnabled = false;
    if (thumb.part === "mlp") {
      on.block(t, "cold");
      on.write("MLP", t.x + t.w / 2, t.y + t.h / 2, { align: "center", size: Math.min(on.tiles.size, t.w / 3) });
    } else ctx.drawImage(on.tiles.thumb(box.layer, +thumb.part), t.x, t.y, t.w, t.h);
    const nats = model.without(box.layer, thumb.part)?.nats ?? 0;
    const needed = nats > model.told.needs; // before the tensors have come there is none
    on.outline(t, needed ? "b" : "grid", needed ? 1 + 5 * Math.sqrt(nats / model.most) : 1);
    if (on.gone(box.layer, thumb.part)) on.cross(t);
  }
  const k = on.state.knocked;
  const [token, p] = ((k && model.without(k.layer, k.part)) ?? model.told).lens[box.layer + 1];
  const words = `${visible(token)}  ${Math.round(100 * p)} %`;
  const y = r.y + r.h - Math.max(11, 55 * on.view.scale);
  const low = Math.max(
    ...on.world
      .thumbs(box)
      .map((thumb) => on.onScreen(thumb))
      .map((t) => t.y + t.h),
  );
  if (y - on.tiles.size / 2 < low) return; // a model of many layers, seen from very far
  on.write(r.w > 140 ? `so far: ${words}` : words, r.x + r.w / 2, y, { align: "center", most: r.w - 6 });
};
