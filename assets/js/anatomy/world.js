// Where everything of an opened model lies: a map that one can fly over. Units are the map's own.

/**
 * @typedef {{x: number, y: number, w: number, h: number}} Rect
 * @typedef {Rect & {layer: number, head: number, name: string, title: string, short: string, part: string, rows: import("./model.js").Rows, square: boolean}} Matrix
 * @typedef {Rect & {kind: "in" | "layer" | "out", layer: number, title: string, matrices: Matrix[], arrows: Arrow[]}} Box
 * @typedef {{points: [number, number][], says: string}} Arrow
 */

const GAP = 60;
const HEAD = { wide: 560, high: 172 }; // a head: q, k, v, scores, shares, and what they mix
const TALL = 120; // of every matrix
/** Names where there is little room. @type {Record<string, string>} */
const SHORT = {
  came: "rows",
  attended: "adds",
  middle: "sum",
  hidden: "MLP",
  thought: "adds",
  left: "sum",
  mixed: "mix",
};

/** How many boxes stand side by side. */
const beside = (/** @type {number} */ boxes, /** @type {boolean} */ narrow) =>
  Math.ceil(Math.sqrt(boxes * (narrow ? 0.85 : 1.9)));

const HEADS_FROM = 230; // right of the rows that come in, with room for the names of the heads

/**
 * The matrices of a head, from left to right.
 * @param {number} x
 * @returns {[string, string, number, number][]} name, title, x, width
 */
const places = (x) => [
  ["q", "q: asks", x, 62],
  ["k", "k: answers", x + 72, 62],
  ["v", "v: gives", x + 144, 62],
  ["scores", "scores q · k", x + 234, TALL],
  ["shares", "shares", x + 378, TALL],
  ["mixed", "mixes v", x + 516, 44],
];

/**
 * @param {import("./model.js").Model} model
 * @param {number} layer
 * @param {Rect} box
 * @returns {{matrices: Matrix[], arrows: Arrow[]}}
 */
const insideOf = (model, layer, box) => {
  const rows = model.layer(layer);
  const heads = rows.heads.length;
  const across = heads > 6 ? 2 : 1;
  const down = Math.ceil(heads / across);
  const top = box.y + 70;
  const left = box.x + 24;
  /** @type {Matrix[]} */
  const matrices = [];
  const put = (
    /** @type {string} */ name,
    /** @type {string} */ title,
    /** @type {number} */ x,
    /** @type {number} */ y,
    /** @type {number} */ w,
    head = -1,
  ) => {
    const from = head < 0 ? /** @type {any} */ (rows)[name] : /** @type {any} */ (rows.heads[head])[name];
    const square = name === "scores" || name === "shares";
    const short = SHORT[name] ?? name;
    const part = head >= 0 ? String(head) : ["hidden", "thought"].includes(name) ? "mlp" : "";
    matrices.push({ layer, head, part, name, title, short, x, y, w, h: TALL, rows: from, square });
  };
  const start = left + HEADS_FROM;
  const end = start + across * (HEAD.wide + 30);
  const middle = top + (down * HEAD.high) / 2 - TALL / 2;
  put("came", "rows come in", left, middle, 110);
  rows.heads.forEach((_, head) => {
    const [x, y] = [start + (head % across) * (HEAD.wide + 30), top + Math.floor(head / across) * HEAD.high + 40];
    for (const [name, title, at, wide] of places(x)) put(name, title, at, y, wide, head);
  });
  put("attended", "attention adds", end + 20, middle, 110);
  const low = top + down * HEAD.high + 60;
  put("middle", "sum", left, low, 110);
  put("hidden", "inside the MLP", left + 190, low, 240);
  put("thought", "the MLP adds", left + 510, low, 110);
  put("left", "sum: goes on", left + 700, low, 110);
  const half = TALL / 2;
  /** @type {Arrow[]} */
  const arrows = [
    { points: [[left + 110, middle + half], [start - 8, middle + half]], says: "" },
    { points: [[end - 22, middle + half], [end + 18, middle + half]], says: "× weights" },
    { points: [[left + 55, middle + TALL], [left + 55, low - 16]], says: "residual" },
    { points: [[end + 75, middle + TALL], [end + 75, low - 40], [left + 90, low - 40], [left + 90, low - 16]], says: "+" },
    { points: [[left + 110, low + half], [left + 188, low + half]], says: "× weights" },
    { points: [[left + 430, low + half], [left + 508, low + half]], says: "× weights" },
    { points: [[left + 620, low + half], [left + 698, low + half]], says: "+" },
    { points: [[left + 55, low + TALL], [left + 55, low + TALL + 24], [left + 755, low + TALL + 24], [left + 755, low + TALL + 4]], says: "residual" },
  ]; // prettier-ignore
  return { matrices, arrows };
};

/** The map of a model: a box where the text comes in, one for each layer, one where the next token comes out. */
export class World {
  /**
   * @param {import("./model.js").Model} model
   * @param {boolean} narrow
   */
  constructor(model, narrow) {
    const { layers, heads } = model.told.shape;
    const columns = beside(layers + 2, narrow);
    const across = heads > 6 ? 2 : 1;
    const size = {
      w: 24 + HEADS_FROM + across * (HEAD.wide + 30) + 20 + 110 + 24,
      h: 70 + Math.ceil(heads / across) * HEAD.high + 60 + TALL + 60,
    };
    this.w = columns * (size.w + GAP) + GAP;
    this.h = Math.ceil((layers + 2) / columns) * (size.h + GAP) + GAP;
    this.model = model;
    /** @type {Box[]} */
    this.boxes = Array.from({ length: layers + 2 }, (_, at) => ({
      x: GAP + (at % columns) * (size.w + GAP),
      y: GAP + Math.floor(at / columns) * (size.h + GAP),
      ...size,
      kind: at === 0 ? "in" : at === layers + 1 ? "out" : "layer",
      layer: at - 1,
      title: at === 0 ? "text" : at === layers + 1 ? "next token" : `layer ${at}`,
      matrices: [],
      arrows: [],
    }));
  }

  /** Layers whose tensors have come are filled when they are first painted. @param {Box} box */
  fill(box) {
    if (box.matrices.length) return;
    if (box.kind === "in" && this.model.has(0)) {
      const place = { x: box.x + 130, y: box.y + 150, w: box.w - 190, h: box.h - 260 };
      const rows = this.model.layer(0).came;
      const named = {
        layer: 0,
        head: -1,
        part: "",
        name: "came",
        title: "a row of numbers for each token",
        short: "embedding",
      };
      box.matrices.push({ ...place, ...named, rows, square: false });
    }
    if (box.kind === "layer" && this.model.has(box.layer)) Object.assign(box, insideOf(this.model, box.layer, box));
  }

  /**
   * The part of the map that shows a place.
   * @param {string} place "whole", "in", "out", "layer", "head", or the name of a matrix
   * @param {number} layer
   * @param {number} head
   * @returns {Rect}
   */
  rect(place, layer = 0, head = 0) {
    if (place === "whole") return { x: 0, y: 0, w: this.w, h: this.h };
    if (place === "in") return grown(this.boxes[0], 20);
    if (place === "out") return grown(this.boxes[this.boxes.length - 1], 20);
    const box = this.boxes[layer + 1];
    this.fill(box);
    const of = (/** @type {string[]} */ names) =>
      around(box.matrices.filter((m) => names.includes(m.name) && (m.head < 0 || m.head === head)));
    const named = {
      layer: () => grown(box, 20),
      head: () => of(["q", "mixed"]),
      qkv: () => of(["q", "k", "v"]),
      scores: () => of(["q", "k", "scores"]),
      shares: () => of(["scores", "shares"]),
      mixed: () => of(["v", "shares", "mixed"]),
      added: () => grown(box, 20),
      mlp: () => of(["middle", "thought"]),
      hidden: () => of(["middle", "hidden", "thought"]),
      left: () => of(["middle", "hidden", "thought", "left"]),
    }[place];
    const found = (named ?? (() => of([place])))();
    return found.w > 0 ? found : grown(box, 20);
  }

  /** What lies under a point of the map. @param {number} x @param {number} y */
  at(x, y) {
    const box = this.boxes.find((b) => holds(b, x, y));
    const matrix = box?.matrices.find((m) => holds(m, x, y));
    if (!matrix) return { box, matrix: null, row: 0, column: 0 };
    return {
      box,
      matrix,
      row: Math.floor(((y - matrix.y) / matrix.h) * matrix.rows.rows),
      column: Math.floor(((x - matrix.x) / matrix.w) * matrix.rows.columns),
    };
  }

  /**
   * The thumbnails of a layer as they are seen from far: its heads, then its MLP.
   * @param {Box} box
   * @returns {(Rect & {part: string})[]}
   */
  thumbs(box) {
    const parts = [...Array(this.model.told.shape.heads).keys()].map(String).concat("mlp");
    const columns = Math.ceil(Math.sqrt(parts.length));
    const rows = Math.ceil(parts.length / columns);
    const side = Math.min((box.w - 40) / columns, (box.h - 250) / rows);
    const [left, top] = [box.x + (box.w - side * columns) / 2, box.y + 100 + (box.h - 240 - side * rows) / 2];
    return parts.map((part, at) => ({
      part,
      x: left + (at % columns) * side + 8,
      y: top + Math.floor(at / columns) * side + 8,
      w: side - 16,
      h: side - 16,
    }));
  }
}

/** @param {Rect} r @param {number} by @returns {Rect} */
export const grown = (r, by) => ({ x: r.x - by, y: r.y - by, w: r.w + 2 * by, h: r.h + 2 * by });

/** @param {Rect} r @param {number} x @param {number} y */
export const holds = (r, x, y) => x >= r.x && y >= r.y && x < r.x + r.w && y < r.y + r.h;

/** What frames all of these, with room for their names. @param {Rect[]} all @returns {Rect} */
const around = (all) => {
  if (!all.length) return { x: 0, y: 0, w: 0, h: 0 };
  const [x, y] = [Math.min(...all.map((r) => r.x)), Math.min(...all.map((r) => r.y))];
  const right = Math.max(...all.map((r) => r.x + r.w));
  const bottom = Math.max(...all.map((r) => r.y + r.h));
  return { x: x - 40, y: y - 52, w: right - x + 90, h: bottom - y + 90 };
};

/**
 * Between two rectangles; sizes by their ratio, so that a flight has an even pace.
 * @param {Rect} a
 * @param {Rect} b
 * @param {number} t 0 to 1
 * @returns {Rect}
 */
export const between = (a, b, t) => {
  if (t <= 0 || t >= 1) return t <= 0 ? a : b;
  const w = a.w * (b.w / a.w) ** t;
  const h = a.h * (b.h / a.h) ** t;
  const far = Math.abs(b.w - a.w) < 1e-6 * a.w ? t : (w - a.w) / (b.w - a.w); // what grows stays on a straight way
  const mid = (/** @type {number} */ p, /** @type {number} */ q) => p + (q - p) * far;
  return { x: mid(a.x + a.w / 2, b.x + b.w / 2) - w / 2, y: mid(a.y + a.h / 2, b.y + b.h / 2) - h / 2, w, h };
};
