// The window that moves over the map: flights, zooming, dragging, two fingers.

import { between } from "./world.js";

/** @typedef {import("./world.js").Rect} Rect */

const FLIGHT = 550; // milliseconds
const FARTHEST = 1.2; // times the whole map
const NEAREST = 20; // units of the map

export const ease = (/** @type {number} */ t) => t * t * (3 - 2 * t);

export class Camera {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {import("../dom.js").Bin} bin
   * @param {() => void} redraw
   * @param {() => void} byHand called when a person moves it
   */
  constructor(canvas, bin, redraw, byHand) {
    this.canvas = canvas;
    this.redraw = redraw;
    this.byHand = byHand;
    /** @type {Rect | null} */
    this.rect = null;
    this.widest = 1;
    this.flight = 0;
    this.dragged = 0; // pixels, since the pointer went down
    /** @type {Map<number, PointerEvent>} */
    this.fingers = new Map();
    bin.on(canvas, "pointerdown", (event) => this.down(event));
    for (const kind of ["pointerup", "pointercancel", "pointerleave"])
      bin.on(canvas, kind, (event) => this.fingers.delete(event.pointerId));
    const wheel = (/** @type {WheelEvent} */ event) => {
      if (!event.ctrlKey && !event.metaKey) return; // plain scrolling moves the page
      event.preventDefault();
      const at = [event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight];
      this.zoom(Math.exp(-event.deltaY / 200), at);
    };
    canvas.addEventListener("wheel", wheel, { passive: false });
    bin.add(() => canvas.removeEventListener("wheel", wheel));
  }

  /** How the map lies in the canvas. @param {number} w @param {number} h @returns {import("./paint.js").View} */
  view(w, h) {
    const r = this.rect ?? { x: 0, y: 0, w: 1, h: 1 };
    const scale = Math.min(w / r.w, h / r.h);
    return { scale, dx: (w - r.w * scale) / 2 - r.x * scale, dy: (h - r.h * scale) / 2 - r.y * scale, w, h };
  }

  /** @param {Rect | null} to */
  jump(to) {
    this.flight++;
    this.rect = to;
    this.redraw();
  }

  /** @param {Rect | null} to */
  fly(to) {
    if (!to || !this.rect || matchMedia("(prefers-reduced-motion: reduce)").matches) return this.jump(to);
    const from = this.rect;
    const begun = performance.now();
    const mine = ++this.flight;
    const tick = (/** @type {number} */ now) => {
      if (mine !== this.flight || !this.canvas.isConnected) return;
      const t = Math.min(1, Math.max(0, (now - begun) / FLIGHT));
      this.rect = between(from, to, ease(t));
      this.redraw();
      if (t < 1) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  /** @param {number} by @param {number[]} at the point that stays, as parts of width and height */
  zoom(by, at = [0.5, 0.5]) {
    if (!this.rect) return;
    const { x, y, w, h } = this.rect;
    const factor = Math.min(FARTHEST * this.widest, Math.max(NEAREST, w / by)) / w;
    this.byHand();
    this.jump({ x: x + w * (1 - factor) * at[0], y: y + h * (1 - factor) * at[1], w: w * factor, h: h * factor });
  }

  /** @param {PointerEvent} event */
  down(event) {
    this.fingers.set(event.pointerId, event);
    this.dragged = 0;
    if (event.pointerType === "mouse") this.canvas.setPointerCapture(event.pointerId);
  }

  /**
   * A pointer has moved; false where nothing is held.
   * @param {PointerEvent} event
   */
  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before || !this.rect) return false;
    const other = [...this.fingers.values()].find((one) => one.pointerId !== event.pointerId);
    this.fingers.set(event.pointerId, event);
    if (other) {
      const far = (/** @type {PointerEvent} */ a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY);
      this.zoom(far(event) / Math.max(1, far(before)));
      return true;
    }
    if (event.pointerType !== "mouse") return true; // one finger scrolls the page
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    this.dragged += Math.abs(dx) + Math.abs(dy);
    if (this.dragged <= 4) return true;
    const { scale } = this.view(this.canvas.clientWidth, this.canvas.clientHeight);
    this.byHand();
    this.jump({ ...this.rect, x: this.rect.x - dx / scale, y: this.rect.y - dy / scale });
    return true;
  }
}
