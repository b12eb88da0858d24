// An opened model: the tensors that Python sent, and those that follow from them by the formulas of the lesson.

import { bytesOf, short } from "../dom.js";

/**
 * @typedef {{shape: number[], step: number, values: Int16Array | Int8Array}} Sent
 * @typedef {{rows: number, columns: number, at: (row: number, column: number) => number}} Rows
 * @typedef {{came: Rows, attended: Rows, middle: Rows, hidden: Rows, thought: Rows, left: Rows, heads: HeadRows[]}} LayerRows
 * @typedef {{name: string, row?: number, column?: number}} From
 * @typedef {{q: Rows, k: Rows, v: Rows, scores: Rows, shares: Rows, mixed: Rows}} HeadRows
 */

/**
 * Numbers that traveled as steps of the largest one, in 16 bits or in 8.
 * @param {{shape: number[], bytes: string, most: number, steps: number}} packed
 * @returns {Sent}
 */
export const unpacked = ({ shape, bytes, most, steps }) => {
  const { buffer } = bytesOf(bytes);
  return { shape, step: most / steps, values: steps > 127 ? new Int16Array(buffer) : new Int8Array(buffer) };
};

/**
 * One matrix of a tensor: the last two dimensions, at `which` of the one before.
 * @param {Sent} sent
 * @returns {Rows}
 */
export const rowsOf = (sent, which = 0) => {
  const [rows, columns] = sent.shape.slice(-2);
  const from = which * rows * columns;
  return { rows, columns, at: (row, column) => sent.values[from + row * columns + column] * sent.step };
};

/**
 * A matrix that is computed once, row by row.
 * @param {number} rows
 * @param {number} columns
 * @param {(row: number, column: number) => number} value
 * @returns {Rows}
 */
const computed = (rows, columns, value) => {
  const values = Float64Array.from({ length: rows * columns }, (_, i) => value(Math.floor(i / columns), i % columns));
  return { rows, columns, at: (row, column) => values[row * columns + column] };
};

/**
 * What a head makes of its q, k and v.
 * @param {Rows} q
 * @param {Rows} k
 * @param {Rows} v
 * @returns {HeadRows}
 */
export const headOf = (q, k, v) => {
  const { rows, columns } = q;
  const dot = (/** @type {number} */ i, /** @type {number} */ j) => {
    let sum = 0;
    for (let c = 0; c < columns; c++) sum += q.at(i, c) * k.at(j, c);
    return sum;
  };
  const scores = computed(rows, rows, (i, j) => dot(i, j) / Math.sqrt(columns));
  const total = Array.from({ length: rows }, (_, i) => {
    let sum = 0;
    for (let j = 0; j <= i; j++) sum += Math.exp(scores.at(i, j));
    return sum;
  });
  const shares = computed(rows, rows, (i, j) => (j > i ? 0 : Math.exp(scores.at(i, j)) / total[i]));
  const mixed = computed(rows, columns, (i, c) => {
    let sum = 0;
    for (let j = 0; j <= i; j++) sum += shares.at(i, j) * v.at(j, c);
    return sum;
  });
  return { q, k, v, scores, shares, mixed };
};

/**
 * @param {Rows} a
 * @param {Rows} b
 * @param {boolean} adds without residual connections what is new replaces what was there
 */
const added = (a, b, adds) => computed(a.rows, a.columns, (r, c) => (adds ? a.at(r, c) : 0) + b.at(r, c));

/** The model of a run; layers are worked out when they are first looked at. */
export class Model {
  constructor() {
    /** @type {any} */
    this.told = {};
    /** @type {Map<number, LayerRows>} */
    this.layers = new Map();
    /** @type {Map<string, any>} */
    this.parts = new Map();
    this.most = 1e-9; // nats that a head or an MLP changes
  }

  /** @param {any} more what another frame tells */
  take(more) {
    Object.assign(this.told, more);
    for (const one of more.knocked ?? []) {
      this.parts.set(`${one.layer} ${one.part}`, one);
      if (one.part !== "all") this.most = Math.max(this.most, one.nats);
    }
  }

  get ready() {
    return Boolean(this.told.tokens);
  }

  /** @param {number} layer */
  has(layer) {
    return Boolean(this.told.tensors?.[layer]);
  }

  /**
   * All matrices of a layer that can be opened.
   * @param {number} layer
   * @returns {LayerRows}
   */
  layer(layer) {
    const known = this.layers.get(layer);
    if (known) return known;
    const sent = this.told.tensors[layer];
    const [q, k, v] = [unpacked(sent.q), unpacked(sent.k), unpacked(sent.v)];
    const came = sent.came ? rowsOf(unpacked(sent.came)) : this.layer(layer - 1).left;
    const [attended, thought] = [rowsOf(unpacked(sent.attended)), rowsOf(unpacked(sent.thought))];
    const adds = Boolean(this.told.shape.residual);
    const middle = added(came, attended, adds);
    const made = {
      came,
      attended,
      middle,
      hidden: rowsOf(unpacked(sent.hidden)),
      thought,
      left: added(middle, thought, adds),
      heads: Array.from({ length: this.told.shape.heads }, (_, h) => headOf(rowsOf(q, h), rowsOf(k, h), rowsOf(v, h))),
    };
    this.layers.set(layer, made);
    return made;
  }

  /**
   * What happens without a part: layer, and "0" for its first head, "mlp", or "all" of it.
   * @param {number} layer
   * @param {string} part
   */
  without(layer, part) {
    return this.parts.get(`${layer} ${part}`);
  }
}

/**
 * The largest products of a sum, as "0.31 × 1.20 + −0.40 × 0.90 + … (32 in all)".
 * @param {number} count
 * @param {(at: number) => [number, number]} pair
 */
const products = (count, pair) => {
  const pairs = Array.from({ length: count }, (_, at) => pair(at)).sort(
    (a, b) => Math.abs(b[0] * b[1]) - Math.abs(a[0] * a[1]),
  );
  const shown = pairs.slice(0, 3).map(([a, b]) => `${round(a)} × ${round(b)}`);
  return shown.join(" + ") + (count > 3 ? ` + … (${count} products)` : "");
};

const round = (/** @type {number} */ value) => short(+value.toFixed(2)).replace("-", "−");

/**
 * Where a number comes from, in one sentence, and which rows and columns of which matrices it was made of.
 * @param {Model} model
 * @param {{layer: number, head: number, name: string}} matrix
 * @param {number} r
 * @param {number} c
 * @returns {{says: string, from: From[]}}
 */
export const origin = (model, { layer, head, name }, r, c) => {
  const token = (/** @type {number} */ at) => {
    const all = model.told.tokens;
    const twice = all.indexOf(all[at]) !== all.lastIndexOf(all[at]); // then its place is told, too
    return `“${all[at].replaceAll("\n", "↵")}”${twice ? ` (token ${at + 1})` : ""}`;
  };
  const rows = model.layer(layer);
  const one = rows.heads[Math.max(head, 0)];
  const width = rows.came.columns;
  const gpt2 = model.told.shape.dialect === "gpt2";
  const sum = (/** @type {Rows} */ a, /** @type {Rows} */ b, /** @type {Rows} */ all) =>
    model.told.shape.residual
      ? `The residual connection adds: ${round(a.at(r, c))} + ${round(b.at(r, c))} = ${round(all.at(r, c))}.`
      : `This model has no residual connection: what is new takes the place of the row: ${round(all.at(r, c))}.`;
  /** @type {Record<string, string>} */
  const middles = {
    modern: `a column of ${width} weights; 0 if negative, else squared`,
    gpt2: `a column of ${width} weights; GELU of it`,
    llama: `two columns of ${width} weights: one sum z is a gate, z / (1 + e^−z), for the other`,
  };
  const kind = { q: "asks with (q)", k: "answers with (k)", v: "gives (v)" };
  switch (name) {
    case "came":
      return {
        says: layer
          ? `Number ${c + 1} of the row of ${token(r)}, as layer ${layer} left it: ${round(rows.came.at(r, c))}.`
          : `Number ${c + 1} of the embedding of ${token(r)}${gpt2 ? ", with that of its position added" : ""}: ${round(rows.came.at(r, c))}. Training has found it.`,
        from: [],
      };
    case "q":
    case "k":
    case "v":
      return {
        says:
          `Number ${c + 1} of what ${token(r)} ${kind[name]}: ${round(one[name].at(r, c))}. Its whole row, normalized, times a column of ${width} weights` +
          (gpt2 || name === "v"
            ? "."
            : "; then turned by an angle that grows with its position, so that q · k sees how far apart two tokens are."),
        from: [{ name: "came", row: r }],
      };
    case "scores":
      return {
        says:
          `How well ${token(r)} asking and ${token(c)} answering agree: (${products(one.q.columns, (at) => [one.q.at(r, at), one.k.at(c, at)])})` +
          ` / √${one.q.columns} = ${round(one.scores.at(r, c))}.` +
          (c > r ? " The mask will take it away: it lies in the future." : ""),
        from: [
          { name: "q", row: r },
          { name: "k", row: c },
        ],
      };
    case "shares":
      return {
        says:
          c > r
            ? `${token(c)} comes after ${token(r)}, so its share is 0: nobody sees the future.`
            : `e^${round(one.scores.at(r, c))} / the sum over ${r + 1} tokens = ${round(one.shares.at(r, c))}: of what ${token(r)} takes in, ${Math.round(100 * one.shares.at(r, c))} % comes from ${token(c)}.`,
        from: c > r ? [] : [{ name: "scores", row: r }],
      };
    case "mixed":
      return {
        says: `Share times v, summed over ${r + 1} tokens: ${products(r + 1, (at) => [one.shares.at(r, at), one.v.at(at, c)])} = ${round(one.mixed.at(r, c))}.`,
        from: [
          { name: "shares", row: r },
          { name: "v", column: c },
        ],
      };
    case "attended":
      return {
        says: `What the ${rows.heads.length} heads hand on for ${token(r)}, side by side, times a column of weights: ${round(rows.attended.at(r, c))}.`,
        from: [{ name: "mixed", row: r }],
      };
    case "middle":
      return {
        says: sum(rows.came, rows.attended, rows.middle),
        from: [
          { name: "came", row: r, column: c },
          { name: "attended", row: r, column: c },
        ],
      };
    case "hidden":
      return {
        says: `The row of ${token(r)}, normalized, times ${middles[model.told.shape.dialect]}: ${round(rows.hidden.at(r, c))}.`,
        from: [{ name: "middle", row: r }],
      };
    case "thought":
      return {
        says: `The ${rows.hidden.columns} numbers in the middle, for ${token(r)}, times a column of weights: ${round(rows.thought.at(r, c))}.`,
        from: [{ name: "hidden", row: r }],
      };
    default:
      return {
        says: sum(rows.middle, rows.thought, rows.left),
        from: [
          { name: "middle", row: r, column: c },
          { name: "thought", row: r, column: c },
        ],
      };
  }
};
