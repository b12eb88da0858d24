import { drawNext, drawWays, nameOf } from "../anatomy/beside.js";
import { Camera, ease } from "../anatomy/camera.js";
import { Model, origin } from "../anatomy/model.js";
import { Painter } from "../anatomy/paint.js";
import { World, between, holds } from "../anatomy/world.js";
import { Bin, button, make } from "../dom.js";
import { surface } from "../surface.js";
import { onTheme } from "../theme.js";

/** @typedef {import("../anatomy/paint.js").Part} Part */

const NARROW = 620; // pixels
const NEAR = 260; // pixels of a layer whose matrices can be pointed at
const KNOCK = "Press a layer, a head or an MLP: what it adds becomes 0. One at a time; press it again and it is back.";

/** What is open at a stop of the film. @param {any} stop @returns {Part | null} */
const openAt = ({ place, layer, head }) => {
  if (["whole", "in", "out"].includes(place)) return null;
  const ofHead = ["qkv", "scores", "shares", "mixed"].includes(place);
  return { layer, part: ofHead ? String(head) : place === "hidden" ? "mlp" : "" };
};

/**
 * An opened transformer as a map: fly over it, open a layer and a head, read where a number comes from, knock parts out.
 * Data of a frame: {place, layer, head, give}; `give` adds to what is known of the model (see pages/nanogpt/inside.py).
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  let model = new Model();
  /** @type {World | null} */
  let world = null;
  /** @type {Painter | null} */
  let painter = null;
  let narrow = false;
  /** Where the film is: two stops, and how far between. @type {[any, any, number] | null} */
  let film = null;
  let free = false; // moved by hand
  let given = 0; // frames
  let mode = "look";
  /** @type {import("../anatomy/paint.js").State} */
  const state = { knocked: null, focus: null, cell: null, from: [] };

  const bar = place.appendChild(make("div", "viz-anatomy-bar"));
  const modes = bar.appendChild(make("span", "viz-anatomy-ways"));
  const ways = bar.appendChild(make("span", "viz-anatomy-ways"));
  const side = place.appendChild(make("div", "viz-anatomy-side"));
  const stage = place.appendChild(make("div", "viz-anatomy-map"));
  const hint = `${spec.hint} ${matchMedia("(pointer: coarse)").matches ? "Two fingers" : "Ctrl and the wheel"} zoom.`;
  const note = place.appendChild(make("p", "viz-note viz-anatomy-note", hint));
  note.setAttribute("aria-live", "polite");

  const { canvas, redraw } = surface(
    stage,
    bin,
    (w) => (world ? Math.max(320, Math.min(470, (w * world.h) / world.w)) : 320),
    (ctx, w, h) => {
      if (w < NARROW !== narrow) {
        narrow = w < NARROW;
        build();
      }
      if (!world || !painter || !camera.rect) return;
      painter.paint(ctx, camera.view(w, h), state);
      const { focus } = state;
      const where = focus ? nameOf(focus) : "the whole model";
      canvas.setAttribute(
        "aria-label",
        `An opened model, showing ${where}. The buttons above open layers and heads; arrow keys read numbers, plus and minus zoom.`,
      );
    },
  );
  canvas.tabIndex = 0;
  canvas.classList.add("viz-anatomy-canvas");
  /** A person moves: the film waits. */
  const byHand = () => {
    free = true;
    place.dispatchEvent(new CustomEvent("viz-hold", { bubbles: true }));
  };
  const camera = new Camera(canvas, bin, redraw, byHand);

  /** What the camera shows: a place of the film, or what was opened by hand. */
  const target = () => {
    const { focus } = state;
    if (!world) return null;
    if (!free && film) {
      const [a, b, t] = film;
      const [here, next] = [a, b].map((stop) => /** @type {World} */ (world).rect(stop.place, stop.layer, stop.head));
      return between(here, next, ease(Math.max(0, 2 * t - 1))); // first there is time to read
    }
    if (!focus) return world.rect("whole");
    const name = focus.part === "" ? "layer" : focus.part === "mlp" ? "mlp" : "head";
    return world.rect(name, focus.layer, +focus.part || 0);
  };
  /** The map, anew: the model is another, or the page has become narrow. */
  const build = () => {
    if (!model.ready) return;
    world = new World(model, narrow);
    painter = new Painter(world);
    camera.widest = world.w;
    read(null);
    drawButtons(); // on a phone their words are shorter
    camera.jump(target());
  };

  const drawButtons = () => {
    const kinds = [["look", "Look"], ["knock", "Knock out"]]; // prettier-ignore
    const pressed = kinds.map(([value, words]) => {
      const one = button("viz-button", words, () => {
        mode = value;
        note.textContent = value === "look" ? hint : KNOCK;
        drawButtons();
        /** @type {any} */ (modes.children[kinds.findIndex(([v]) => v === value)]).focus();
      });
      one.setAttribute("aria-pressed", String(mode === value));
      return one;
    });
    modes.replaceChildren(...pressed);
    drawWays(ways, model, { ...state, mode, narrow }, press);
  };
  const press = (/** @type {Part | null} */ part) => {
    if (mode === "look" || !part) return open(part);
    if (state.focus?.layer !== part.layer) open(part); // so that its heads can be pressed, too
    knock({ layer: part.layer, part: part.part || "all" });
  };
  const open = (/** @type {Part | null} */ part) => {
    byHand();
    state.focus = part;
    read(null);
    drawButtons();
    camera.fly(target());
  };
  const knock = (/** @type {Part} */ part) => {
    if (!model.without(part.layer, part.part)) return;
    const { knocked } = state;
    state.knocked = knocked?.layer === part.layer && knocked.part === part.part ? null : part;
    drawButtons();
    drawNext(side, model, state.knocked);
    redraw();
  };

  const read = (/** @type {import("../anatomy/paint.js").Cell | null} */ cell) => {
    const told = cell && origin(model, cell.matrix, cell.row, cell.column);
    state.cell = cell;
    state.from = told ? told.from : [];
    note.textContent = told ? told.says : mode === "look" ? hint : KNOCK;
    redraw();
  };
  /** What lies under the pointer. @param {MouseEvent} event */
  const under = (event) => {
    if (!world || !camera.rect) return null;
    const { scale, dx, dy } = camera.view(canvas.clientWidth, canvas.clientHeight);
    const [x, y] = [(event.offsetX - dx) / scale, (event.offsetY - dy) / scale];
    const found = world.at(x, y);
    const near = (found.box?.w ?? 0) * scale >= NEAR;
    const thumb =
      found.box?.kind === "layer" && !near ? world.thumbs(found.box).find((one) => holds(one, x, y)) : undefined;
    const { matrix } = found;
    const part = thumb?.part ?? matrix?.part ?? "";
    return { ...found, matrix: near ? matrix : null, part, large: near && matrix && scale * matrix.h > 90 };
  };
  bin.on(canvas, "pointermove", (event) => {
    if (camera.move(event)) return;
    const on = under(event);
    canvas.style.cursor = on?.box ? "pointer" : "grab";
    if (on?.matrix && mode === "look") read({ matrix: on.matrix, row: on.row, column: on.column });
    else if (state.cell) read(null);
  });
  bin.on(canvas, "pointerleave", (event) => event.pointerType === "mouse" && state.cell && read(null));
  bin.on(canvas, "click", (event) => {
    const on = under(event);
    if (camera.dragged > 4 || !on?.box || !world) return;
    const { box, matrix } = on;
    if (mode === "knock" && box.kind === "layer") return knock({ layer: box.layer, part: on.part || "all" });
    if (matrix && on.large) return read({ matrix, row: on.row, column: on.column });
    if (box.kind === "layer") return open({ layer: box.layer, part: on.matrix ? on.part : "" });
    open(null);
    camera.fly(world.rect(box.kind));
  });

  /** The cell the arrow keys begin with. */
  const firstCell = () => {
    const { focus } = state;
    if (!world || !focus) return null;
    const name = focus.part === "mlp" ? "hidden" : focus.part ? "shares" : "came";
    const box = world.boxes[focus.layer + 1];
    const matrix = box.matrices.find((m) => m.name === name && (m.head < 0 || String(m.head) === focus.part));
    if (!matrix) return null;
    const row = matrix.rows.rows - 1; // the last token's largest number
    const sizes = Array.from({ length: matrix.rows.columns }, (_, c) => Math.abs(matrix.rows.at(row, c)));
    return { matrix, row, column: sizes.indexOf(Math.max(...sizes)) };
  };
  bin.on(canvas, "keydown", (event) => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const by = /** @type {Record<string, number[]>} */ (moves)[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own
    const zooms = /** @type {Record<string, number>} */ ({ "+": 1.6, "=": 1.6, "-": 1 / 1.6 });
    const out = event.key === "Escape" && state.focus;
    if (!by && !zooms[event.key] && !out) return;
    event.preventDefault();
    event.stopPropagation(); // in a player the arrows would move the film
    if (out) return open(state.focus?.part ? { layer: state.focus.layer, part: "" } : null);
    if (zooms[event.key]) return camera.zoom(zooms[event.key]);
    if (!state.cell) return read(firstCell());
    const { matrix, row, column } = state.cell;
    const within = (/** @type {number} */ at, /** @type {number} */ most) => Math.max(0, Math.min(most - 1, at));
    read({ matrix, row: within(row + by[0], matrix.rows.rows), column: within(column + by[1], matrix.rows.columns) });
  });
  const corner = stage.appendChild(make("span", "viz-anatomy-zoom"));
  for (const [sign, words, by] of [
    ["+", "Zoom in", 1.6],
    ["−", "Zoom out", 1 / 1.6],
  ]) {
    const one = corner.appendChild(button("viz-button", String(sign), () => camera.zoom(+by)));
    one.setAttribute("aria-label", String(words));
  }
  bin.add(
    onTheme(() => {
      painter?.tiles.forget();
      redraw();
    }),
  );
  drawButtons();

  return {
    smooth: true,
    clear: () => {
      model = new Model();
      [world, painter, film, given, free] = [null, null, null, 0, false];
      Object.assign(state, { knocked: null, focus: null, cell: null, from: [] });
      camera.jump(null);
    },
    grown: (frames) => {
      for (; given < frames.length; given++) {
        const { give } = frames[given][spec.id];
        if (give) model.take(give);
      }
      if (!world) build();
      drawButtons();
      drawNext(side, model, state.knocked);
    },
    show: (frames, i, fraction) => {
      if (!frames.length) return redraw();
      const [a, b] = [frames[i][spec.id], (frames[i + 1] || frames[i])[spec.id]];
      if (film && film[0] === a && film[1] === b && film[2] === fraction) return redraw();
      const near = fraction < 0.5 ? a : b;
      film = [a, b, fraction];
      free = false;
      const was = JSON.stringify(state.focus);
      state.focus = openAt(near);
      if (was !== JSON.stringify(state.focus)) drawButtons();
      if (state.cell) read(null);
      camera.jump(target());
    },
    destroy: () => bin.empty(),
  };
};
