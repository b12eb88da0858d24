import { Bin, button, make } from "../dom.js";
import { forms, transports } from "../parts.js";
import { surface } from "../surface.js";
import { color } from "../theme.js";
import { tileOf } from "./pictures.js";

/**
 * Squares as text: a hexadecimal digit for each four of them, row by row; nothing painted is the empty text.
 * @param {number[]} cells
 */
export const written = (cells) => {
  if (!cells.some(Boolean)) return "";
  let text = "";
  for (let i = 0; i < cells.length; i += 4)
    text += (8 * cells[i] + 4 * cells[i + 1] + 2 * cells[i + 2] + cells[i + 3]).toString(16);
  return text;
};

/**
 * The squares that a text says.
 * @param {string} text
 * @param {number} count
 */
export const cellsOf = (text, count) =>
  Array.from({ length: count }, (_, i) => ((parseInt(text[i >> 2] || "0", 16) || 0) >> (3 - (i & 3))) & 1);

/**
 * A picture to paint on. The setting `field` holds what is painted, so that a link holds it too. Keys: arrows move, Space paints.
 * Data: {picture (as in `pictures`), field, cells: squares on a side}.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  /** @type {any} */
  let data = null;
  /** @type {any} */
  let tile = null;
  let topic = "";
  /** @type {number[]} */
  let cells = [];
  let last = "";
  let erase = false;
  let down = false;
  let cursor = -1;
  const sideOf = (/** @type {number} */ w) => Math.min(w, spec.most || 320);

  const { canvas, redraw } = surface(place, bin, sideOf, (ctx, w) => {
    if (!data) return;
    const side = sideOf(w);
    const one = side / data.cells;
    const corner = (/** @type {number} */ i) => [(i % data.cells) * one, Math.floor(i / data.cells) * one];
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(tile, 0, 0, side, side);
    ctx.globalAlpha = 0.75;
    ctx.fillStyle = color("b");
    cells.forEach((on, i) => on && ctx.fillRect(corner(i)[0], corner(i)[1], one, one));
    ctx.globalAlpha = 1;
    ctx.strokeStyle = color("text");
    ctx.strokeRect(0.5, 0.5, side - 1, side - 1);
    if (cursor >= 0 && document.activeElement === canvas)
      ctx.strokeRect(corner(cursor)[0] + 0.5, corner(cursor)[1] + 0.5, one, one);
    const painted = cells.filter(Boolean).length;
    canvas.setAttribute(
      "aria-label",
      `${spec.title}: ${painted} of ${cells.length} squares are painted. Arrow keys move, Space paints.`,
    );
  });

  const read = () => {
    const text = forms.get(topic)?.get(data.field) || "";
    if (text === last && cells.length === data.cells ** 2) return;
    last = text;
    cells = cellsOf(text, data.cells ** 2);
    redraw();
  };
  const write = () => {
    last = written(cells);
    forms.get(topic)?.put(data.field, last);
    transports.get(topic)?.reset();
    redraw();
  };
  const paint = (/** @type {PointerEvent} */ event) => {
    const one = canvas.clientHeight / data.cells;
    const [x, y] = [Math.floor(event.offsetX / one), Math.floor(event.offsetY / one)];
    const reach = spec.radius ?? 1;
    for (let j = y - reach; j <= y + reach; j++)
      for (let i = x - reach; i <= x + reach; i++)
        if (i >= 0 && j >= 0 && i < data.cells && j < data.cells) cells[j * data.cells + i] = erase ? 0 : 1;
    redraw();
  };

  const bar = place.appendChild(make("div", "viz-buttons"));
  bar.appendChild(
    button("viz-button", "Clear", () => {
      cells.fill(0);
      write();
    }),
  );
  bar.appendChild(
    button("viz-button", "Paint the other squares", () => {
      cells = cells.map((on) => 1 - on);
      write();
    }),
  );
  canvas.tabIndex = 0;
  canvas.style.touchAction = "none";
  canvas.style.cursor = "crosshair";
  canvas.setAttribute("role", "application");
  bin.on(canvas, "pointerdown", (event) => {
    if (!data) return;
    down = true;
    erase = event.shiftKey;
    canvas.setPointerCapture(event.pointerId);
    paint(event);
  });
  bin.on(canvas, "pointermove", (event) => down && paint(event));
  for (const kind of ["pointerup", "pointercancel"])
    bin.on(canvas, kind, () => {
      if (down) write();
      down = false;
    });
  bin.on(canvas, "keydown", (event) => {
    if (!data) return;
    const by = /** @type {Record<string, number>} */ ({
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -data.cells,
      ArrowDown: data.cells,
      " ": 0,
    })[event.key];
    if (by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    cursor = Math.max(0, Math.min(cells.length - 1, Math.max(0, cursor) + by));
    if (event.key === " ") {
      cells[cursor] ^= 1;
      write();
    }
    redraw();
  });

  return {
    show: (frames) => {
      if (!frames.length || !frames[0][spec.id]) return;
      if (!data) {
        topic = /** @type {HTMLElement} */ (place.closest("[data-topic]")).dataset.topic || "";
        bin.add(forms.get(topic)?.onChange(() => data && read()) ?? (() => {}));
      }
      data = frames[0][spec.id];
      tile = tileOf(data.picture);
      read();
      redraw();
    },
    destroy: () => bin.empty(),
  };
};
