// The player: frames that were computed once and sent once, played here. Play, pause, step, scrub, speed; mouse and keyboard.

import { Bin, button, face, make } from "./dom.js";
import { legend } from "./legend.js";
import { views } from "./views/index.js";

/**
 * A panel whose views share one timeline. Data: {frames: [{label, at, view id: data of the view}], whole, opens}.
 * @type {import("./types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  /** @type {any[]} */
  const frames = [];
  const root = place.appendChild(make("div", "viz-player"));
  const grid = root.appendChild(make("div", "viz-views"));
  let at = 0;
  let playing = false;
  let speed = 1;
  let clock = 0;

  const seek = (/** @type {number} */ position) => {
    at = Math.max(0, Math.min(frames.length - 1, position));
    const i = Math.floor(at);
    for (const view of shown) {
      if (view.smooth) view.show?.(frames, i, at - i);
      else view.show?.(frames, Math.round(at), 0);
    }
    range.value = String(at);
    caption.textContent = frames.length ? frames[Math.round(at)].label : "";
    range.setAttribute("aria-valuetext", caption.textContent ?? "");
  };
  const tick = (/** @type {number} */ now) => {
    if (!playing || !root.isConnected) return;
    const passed = Math.min(0.1, (now - clock) / 1000); // a hidden tab stops the clock; it goes on where it was
    clock = now;
    root.dataset.drawn = String(+(root.dataset.drawn || 0) + 1);
    seek(at + passed * speed * (spec.rate || 4));
    if (at >= frames.length - 1) pause();
    else requestAnimationFrame(tick);
  };
  const play = () => {
    if (frames.length < 2) return;
    if (at >= frames.length - 1) seek(0);
    playing = true;
    clock = performance.now();
    face(toggle, "pause");
    toggle.setAttribute("aria-label", "Pause");
    requestAnimationFrame(tick);
  };
  const pause = () => {
    playing = false;
    face(toggle, "play");
    toggle.setAttribute("aria-label", "Play");
  };
  const step = (/** @type {number} */ by) => {
    pause();
    seek((by > 0 ? Math.floor(at + 1e-9) : Math.ceil(at - 1e-9)) + by);
  };

  const bar = make("div", "viz-bar");
  const press = (/** @type {string} */ label, /** @type {string} */ icon, /** @type {() => void} */ act) => {
    const node = bar.appendChild(button("viz-button", "", act));
    face(node, icon);
    node.setAttribute("aria-label", label);
    node.title = label;
    return node;
  };
  press("One frame back", "back", () => step(-1));
  const toggle = press("Play", "play", () => (playing ? pause() : play()));
  press("One frame on", "on", () => step(1));
  const range = bar.appendChild(make("input"));
  Object.assign(range, { type: "range", min: 0, max: 0, step: 1, value: 0 });
  range.setAttribute("aria-label", spec.scrub || "Position");
  range.oninput = () => {
    pause();
    seek(+range.value);
  };
  const caption = bar.appendChild(make("output", "viz-caption"));
  caption.setAttribute("aria-live", "off");
  const pace = bar.appendChild(make("select", "viz-button"));
  pace.setAttribute("aria-label", "Speed");
  for (const s of [0.25, 0.5, 1, 2, 4]) {
    const option = pace.appendChild(make("option", "", `${s}×`));
    option.value = String(s);
    option.selected = s === 1;
  }
  pace.onchange = () => (speed = +pace.value);
  bin.on(root, "viz-hold", pause); // a view is moved by hand
  bin.on(root, "keydown", (event) => {
    if (event.target === pace || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = /** @type {Record<string, () => void>} */ ({
      " ": () => (playing ? pause() : play()),
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      Home: () => seek(0),
      End: () => seek(frames.length - 1),
    });
    if (!acts[event.key] || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    event.stopPropagation(); // the walk-through listens to the same keys
    acts[event.key]();
  });

  /** @type {Record<string, import("./types.js").View>} */
  const members = {};
  /** @type {import("./types.js").View[]} */
  const shown = spec.views.map((/** @type {any} */ v, /** @type {number} */ index) => {
    if (index === spec.bar_before) grid.appendChild(bar);
    const box = grid.appendChild(make("div", "viz-view"));
    box.dataset.panel = v.id;
    box.style.setProperty("--span", v.span || 12);
    if (v.title) box.appendChild(make("h5", "", v.title));
    if (v.legend) box.appendChild(legend(v.legend));
    const made = views[v.type](box.appendChild(make("div", "viz-place")), v, seek);
    bin.add(made.destroy);
    if (made.update) members[v.id] = made;
    return made;
  });
  if (!bar.parentElement) grid.appendChild(bar);

  return {
    members,
    update: (data) => {
      const follows = at >= frames.length - 1 - 1e-6;
      if (data.whole) {
        frames.length = 0;
        for (const view of shown) view.clear?.();
      }
      frames.push(...data.frames);
      range.max = String(Math.max(0, frames.length - 1));
      for (const view of shown) view.grown?.(frames);
      seek(follows && !playing ? (data.opens ?? frames.length - 1) : at);
    },
    destroy: () => {
      playing = false;
      bin.empty();
    },
  };
};
