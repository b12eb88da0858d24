// Pictures of matrices, a pixel for each cell, made once; and the colors they are made with.

import { bytesOf } from "../dom.js";
import { color, font, textSize } from "../theme.js";
import { mixed as shade } from "../views/matrix.js";

const rgb = (/** @type {string} */ hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/**
 * A picture of a matrix, a pixel for each cell.
 * @param {number} rows
 * @param {number} columns
 * @param {(row: number, column: number) => number} value from 0 to 1; signed: 0.5 is nothing
 * @param {boolean} signed
 */
const tileOf = (rows, columns, value, signed) => {
  const [cold, hot, a, b] = ["cold", "c", "a", "b"].map((name) => rgb(color(name)));
  const tile = new OffscreenCanvas(columns, rows);
  const ctx = /** @type {OffscreenCanvasRenderingContext2D} */ (tile.getContext("2d"));
  const image = ctx.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    const v = value(Math.floor(i / columns), i % columns);
    image.data.set([...shade(v, signed, { cold, hot, a, b }), 255], 4 * i);
  }
  ctx.putImageData(image, 0, 0);
  return tile;
};

/** Pictures and colors, each worked out once and kept until the theme changes: asking the page takes longer than painting. */
export class Tiles {
  /** @param {import("./model.js").Model} model */
  constructor(model) {
    this.model = model;
    /** @type {Map<string, OffscreenCanvas>} */
    this.made = new Map();
    /** @type {Map<string, string>} */
    this.inks = new Map();
    /** @type {Uint8Array | null} */
    this.shares = null;
    this.size = textSize();
    this.family = font();
  }

  /** Another theme, or larger letters: all is made anew. */
  forget() {
    this.made.clear();
    this.inks.clear();
    this.size = textSize();
    this.family = font();
  }

  /** @param {string} name */
  ink(name) {
    const known = this.inks.get(name) ?? color(name);
    this.inks.set(name, known);
    return known;
  }

  /** @param {number} size */
  letters(size) {
    return this.family.replace(/^[\d.]+px/, `${size}px`);
  }

  /**
   * @param {string} key
   * @param {() => OffscreenCanvas} make
   */
  once(key, make) {
    const tile = this.made.get(key) ?? make();
    this.made.set(key, tile);
    return tile;
  }

  /** @param {import("./world.js").Matrix} m */
  of(m) {
    return this.once(`${m.layer} ${m.head} ${m.name}`, () => {
      const { rows, columns, at } = m.rows;
      if (m.name === "shares") return tileOf(rows, columns, at, false);
      let most = 1e-9;
      for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) most = Math.max(most, Math.abs(at(r, c)));
      const strong = (/** @type {number} */ v) => (1 + Math.sign(v) * Math.sqrt(Math.abs(v) / most)) / 2;
      return tileOf(rows, columns, (r, c) => strong(at(r, c)), true);
    });
  }

  /** The shares of a head, which came for every layer. @param {number} layer @param {number} head */
  thumb(layer, head) {
    return this.once(`thumb ${layer} ${head}`, () => {
      const { shape, bytes } = this.model.told.shares;
      const shares = (this.shares ??= bytesOf(bytes));
      const [, heads, rows] = shape;
      const from = (layer * heads + head) * rows * rows;
      return tileOf(rows, rows, (r, c) => shares[from + r * rows + c] / 255, false);
    });
  }
}
