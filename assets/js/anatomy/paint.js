// Painting the map of an opened model through a window: what both ways to see a layer share, and the way from close by.

import { short, visible } from "../dom.js";
import { far, incoming, outgoing } from "./far.js";
import { Tiles } from "./tiles.js";

/**
 * @typedef {import("./world.js").Rect} Rect
 * @typedef {{scale: number, dx: number, dy: number, w: number, h: number}} View
 * @typedef {{layer: number, part: string}} Part
 * @typedef {{matrix: import("./world.js").Matrix, row: number, column: number}} Cell
 * @typedef {{knocked: Part | null, focus: Part | null, cell: Cell | null, from: import("./model.js").From[]}} State
 */

const DETAIL = [225, 275]; // pixels of a box: below the first it is seen from far, above the second from close by
const NUMBERS = 30; // pixels of a cell that holds its number

/** Paints a world through a window that moves over it. */
export class Painter {
  /** @param {import("./world.js").World} world */
  constructor(world) {
    this.world = world;
    this.model = world.model;
    this.tiles = new Tiles(world.model);
    /** @type {CanvasRenderingContext2D} */
    this.ctx = /** @type {any} */ (null);
    /** @type {View} */
    this.view = { scale: 1, dx: 0, dy: 0, w: 0, h: 0 };
    /** @type {State} */
    this.state = { knocked: null, focus: null, cell: null, from: [] };
  }

  /**
   * @param {CanvasRenderingContext2D} ctx
   * @param {View} view
   * @param {State} state
   */
  paint(ctx, view, state) {
    [this.ctx, this.view, this.state] = [ctx, view, state];
    ctx.lineJoin = "round";
    this.flow();
    for (const box of this.world.boxes) {
      const r = this.onScreen(box);
      if (!this.seen(r)) continue;
      this.frame(r, box);
      this.world.fill(box);
      if (box.kind === "in") incoming(this, box);
      else if (box.kind === "out") outgoing(this, box);
      else this.layer(box, r);
    }
  }

  /** @param {Rect} r @returns {Rect} */
  onScreen({ x, y, w, h }) {
    const { scale, dx, dy } = this.view;
    return { x: x * scale + dx, y: y * scale + dy, w: w * scale, h: h * scale };
  }

  /** @param {Rect} r */
  seen(r) {
    return r.x < this.view.w && r.y < this.view.h && r.x + r.w > 0 && r.y + r.h > 0;
  }

  /**
   * @param {string} words
   * @param {number} x in pixels
   * @param {number} y
   * @param {{align?: CanvasTextAlign, size?: number, ink?: string, bold?: boolean, most?: number}} [how]
   */
  write(words, x, y, { align = "left", size = this.tiles.size, ink = "text", bold = false, most = undefined } = {}) {
    const ctx = this.ctx;
    ctx.font = (bold ? "bold " : "") + this.tiles.letters(size);
    ctx.textAlign = align;
    ctx.textBaseline = "middle";
    ctx.fillStyle = this.tiles.ink(ink);
    ctx.fillText(words, x, y, most);
  }

  /**
   * @param {Rect} r
   * @param {string} ink
   * @param {number} width
   */
  outline(r, ink, width) {
    this.ctx.strokeStyle = this.tiles.ink(ink);
    this.ctx.lineWidth = width;
    this.ctx.strokeRect(r.x, r.y, r.w, r.h);
  }

  /** @param {Rect} r @param {string} ink */
  block(r, ink) {
    this.ctx.fillStyle = this.tiles.ink(ink);
    this.ctx.fillRect(r.x, r.y, r.w, r.h);
  }

  /** The way of the rows from box to box. */
  flow() {
    const ctx = this.ctx;
    ctx.strokeStyle = this.tiles.ink("level");
    ctx.lineWidth = Math.max(1.5, 8 * this.view.scale);
    const boxes = this.world.boxes;
    boxes.slice(1).forEach((box, at) => {
      const [a, b] = [this.onScreen(boxes[at]), this.onScreen(box)];
      ctx.beginPath();
      if (a.y === b.y) {
        ctx.moveTo(a.x + a.w, a.y + a.h / 2);
        ctx.lineTo(b.x, b.y + b.h / 2);
      } else {
        const lane = (a.y + a.h + b.y) / 2;
        ctx.moveTo(a.x + a.w / 2, a.y + a.h);
        ctx.lineTo(a.x + a.w / 2, lane);
        ctx.lineTo(b.x + b.w / 2, lane);
        ctx.lineTo(b.x + b.w / 2, b.y);
      }
      ctx.stroke();
    });
  }

  /** @param {Rect} r @param {import("./world.js").Box} box */
  frame(r, box) {
    const ctx = this.ctx;
    ctx.fillStyle = this.tiles.ink("soft");
    ctx.strokeStyle = this.tiles.ink("grid");
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.roundRect(r.x, r.y, r.w, r.h, 6);
    ctx.fill();
    ctx.stroke();
    if (r.w < 40) return;
    const size = Math.max(this.tiles.size, Math.min(22, 34 * this.view.scale));
    if (box.kind === "layer" && 100 * this.view.scale < size) return; // its heads fill it, seen from very far
    const y = r.y + Math.max(size * 0.8, 34 * this.view.scale);
    this.write(box.title, r.x + r.w / 2, y, { align: "center", size, bold: true, most: r.w - 6 });
  }

  /** Whether a part of a layer is knocked out. @param {number} layer @param {string} part */
  gone(layer, part) {
    const k = this.state.knocked;
    return k !== null && k.layer === layer && (k.part === part || k.part === "all");
  }

  /** @param {Rect} r */
  cross(r) {
    const ctx = this.ctx;
    this.block(r, "veil");
    ctx.strokeStyle = this.tiles.ink("b");
    ctx.lineWidth = 3;
    ctx.beginPath();
    ctx.moveTo(r.x + 4, r.y + 4);
    ctx.lineTo(r.x + r.w - 4, r.y + r.h - 4);
    ctx.moveTo(r.x + r.w - 4, r.y + 4);
    ctx.lineTo(r.x + 4, r.y + r.h - 4);
    ctx.stroke();
  }

  /** @param {import("./world.js").Box} box @param {Rect} r */
  layer(box, r) {
    const near = box.matrices.length ? Math.min(1, Math.max(0, (r.w - DETAIL[0]) / (DETAIL[1] - DETAIL[0]))) : 0;
    this.ctx.globalAlpha = 1 - near;
    if (near < 1) far(this, box, r);
    if (near > 0) this.close(box, near);
    this.ctx.globalAlpha = 1;
  }

  /** A layer from close by: all its matrices. @param {import("./world.js").Box} box @param {number} near */
  close(box, near) {
    const { focus } = this.state;
    const only = focus?.layer === box.layer && /^\d+$/.test(focus.part) ? +focus.part : -1;
    this.ctx.globalAlpha = near;
    for (const arrow of box.arrows) this.arrow(arrow);
    for (const m of box.matrices) {
      const r = this.onScreen(m);
      if (!this.seen(r)) continue;
      this.ctx.globalAlpha = near * (only >= 0 && m.head >= 0 && m.head !== only ? 0.25 : 1);
      this.matrix(m, r);
    }
    this.ctx.globalAlpha = near;
    this.marks(box);
  }

  /** @param {import("./world.js").Arrow} arrow */
  arrow({ points, says }) {
    const ctx = this.ctx;
    const at = points.map(([x, y]) => this.onScreen({ x, y, w: 0, h: 0 }));
    ctx.strokeStyle = ctx.fillStyle = this.tiles.ink("level");
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    at.forEach((p, i) => (i ? ctx.lineTo(p.x, p.y) : ctx.moveTo(p.x, p.y)));
    ctx.stroke();
    const [from, to] = at.slice(-2);
    const angle = Math.atan2(to.y - from.y, to.x - from.x);
    ctx.beginPath();
    for (const turn of [0, 2.6, -2.6]) ctx.lineTo(to.x + 7 * Math.cos(angle + turn), to.y + 7 * Math.sin(angle + turn));
    ctx.fill();
    const size = Math.min(15, 17 * this.view.scale);
    if (size < 8 || !says) return;
    const long = at.slice(1).map((p, i) => Math.hypot(p.x - at[i].x, p.y - at[i].y));
    const k = long.indexOf(Math.max(...long));
    const upright = at[k].x === at[k + 1].x;
    const [x, y] = [(at[k].x + at[k + 1].x) / 2, (at[k].y + at[k + 1].y) / 2];
    if (upright) this.write(says, x + 6, y, { size });
    else this.write(says, x, y - size * 0.8, { align: "center", size });
  }

  /** @param {import("./world.js").Matrix} m @param {Rect} r */
  matrix(m, r) {
    const { rows, columns } = m.rows;
    this.ctx.imageSmoothingEnabled = r.w < columns;
    this.ctx.drawImage(this.tiles.of(m), r.x, r.y, r.w, r.h);
    this.outline(r, "grid", 1);
    const size = Math.max(9.5, Math.min(17, 15 * this.view.scale));
    const room = this.view.scale * 50; // above a matrix
    if (room > size * 1.2) this.write(r.w > 92 ? m.title : m.short, r.x, r.y - size * 0.7, { size });
    if (m.name === "q") {
      const words = `head ${m.head + 1}`;
      if (room > size * 2.4) this.write(words, r.x, r.y - size * 1.9, { size, bold: true });
      else if (room > size) this.write(words, r.x - 4, r.y + size * 0.6, { size, bold: true, align: "right" });
    }
    const [wide, high] = [r.w / columns, r.h / rows];
    if (high > 8.5 && (m.square || m.name === "q" || m.head < 0)) this.names(r, high, m.square ? wide : 0);
    if (wide > NUMBERS && high > 12) this.numbers(m, r, wide, high);
    const part = m.name === "thought" ? "mlp" : m.name === "mixed" ? String(m.head) : "";
    if (part && this.gone(m.layer, part)) this.cross(r);
  }

  /** The tokens beside a matrix, and under a square one. @param {Rect} r @param {number} high @param {number} wide */
  names(r, high, wide) {
    const size = Math.min(high * 0.9, this.tiles.size);
    this.model.told.tokens.forEach((/** @type {string} */ token, /** @type {number} */ at) => {
      this.write(visible(token), r.x - 4, r.y + (at + 0.5) * high, { align: "right", size, most: 60 });
      if (wide <= 8) return;
      const x = r.x + (at + 0.5) * wide;
      this.write(visible(token), x, r.y + r.h + size * 0.7, { align: "center", size, most: wide });
    });
  }

  /** @param {import("./world.js").Matrix} m @param {Rect} r @param {number} wide @param {number} high */
  numbers(m, r, wide, high) {
    const size = Math.min(13, wide / 3.4, high * 0.7);
    const within = (
      /** @type {number} */ start,
      /** @type {number} */ step,
      /** @type {number} */ end,
      /** @type {number} */ most,
    ) => [Math.max(0, Math.floor(-start / step)), Math.min(most, Math.ceil((end - start) / step))];
    const [left, right] = within(r.x, wide, this.view.w, m.rows.columns);
    const [top, bottom] = within(r.y, high, this.view.h, m.rows.rows);
    this.ctx.strokeStyle = this.tiles.ink("veil");
    this.ctx.lineWidth = 3;
    for (let row = top; row < bottom; row++)
      for (let column = left; column < right; column++) {
        const [x, y] = [r.x + (column + 0.5) * wide, r.y + (row + 0.5) * high];
        const words = short(+m.rows.at(row, column).toFixed(2));
        this.ctx.font = this.tiles.letters(size);
        this.ctx.textAlign = "center";
        this.ctx.textBaseline = "middle";
        this.ctx.strokeText(words, x, y);
        this.write(words, x, y, { align: "center", size });
      }
  }

  /** The cell that is read, and the rows and columns that it was made of. @param {import("./world.js").Box} box */
  marks(box) {
    const { cell, from } = this.state;
    if (!cell || !box.matrices.includes(cell.matrix)) return;
    const ring = (/** @type {import("./world.js").Matrix} */ m, row = -1, column = -1, ink = "b") => {
      const r = this.onScreen(m);
      const [wide, high] = [r.w / m.rows.columns, r.h / m.rows.rows];
      const [x, w] = column < 0 ? [r.x, r.w] : [r.x + column * wide, Math.max(wide, 2)];
      const [y, h] = row < 0 ? [r.y, r.h] : [r.y + row * high, Math.max(high, 2)];
      this.outline({ x, y, w, h }, ink, 2);
    };
    const own = cell.matrix.head;
    for (const one of from)
      for (const m of box.matrices)
        if (m.name === one.name && (m.head < 0 || own < 0 || m.head === own)) ring(m, one.row, one.column);
    ring(cell.matrix, cell.row, cell.column, "text");
  }
}
