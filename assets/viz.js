/* Pictures in the browser: the panels of a tab's main picture. Python sends small messages, everything is drawn here.
   Text from users or models reaches the page only through textContent or a canvas. */
(() => {
  "use strict";
  const Viz = (window.Viz = window.Viz || {});

  // --- small things every panel uses ---
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const colour = (name) => getComputedStyle(document.body).getPropertyValue("--viz-" + name).trim();
  const textSize = () => (document.body.classList.contains("presenter") ? 19 : 13);
  const short = (v) => {
    if (v === null || v === undefined || Number.isNaN(v)) return "–";
    const size = Math.abs(v);
    if (size >= 1e12 || (v !== 0 && size < 1e-3)) return v.toExponential(1);
    return size >= 1e4 ? Math.round(v).toLocaleString("en") : String(+v.toPrecision(4));
  };
  const ICONS = { play: "M4 2l10 6-10 6z", pause: "M3 2h4v12H3zM9 2h4v12H9z", on: "M2 2l8 6-8 6zM11 2h3v12h-3z", back: "M14 2L6 8l8 6zM5 2H2v12h3z", stop: "M3 3h10v10H3z", reset: "M8 2a6 6 0 1 0 6 6h-2a4 4 0 1 1-4-4v3l5-4-5-4z" };
  const icon = (name) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 16 16"); svg.setAttribute("width", "14"); svg.setAttribute("height", "14"); svg.setAttribute("aria-hidden", "true"); svg.classList.add("viz-icon");
    path.setAttribute("d", ICONS[name]); path.setAttribute("fill", "currentColor");
    svg.appendChild(path);
    return svg;
  };
  const face = (button, name, text) => { button.textContent = ""; button.appendChild(icon(name)); if (text) button.appendChild(document.createTextNode(" " + text)); };

  // A canvas as wide as its place, redrawn once per frame at most: on new data, on resize, on a change of theme.
  const drawings = new Set();
  new MutationObserver(() => drawings.forEach((redraw) => redraw())).observe(document.documentElement, {
    attributes: true, attributeFilter: ["class"], subtree: false });
  const watchBody = () => new MutationObserver(() => drawings.forEach((redraw) => redraw())).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  document.body ? watchBody() : addEventListener("DOMContentLoaded", watchBody);
  Viz.onTheme = (redraw) => drawings.add(redraw);

  Viz.surface = (place, heightOf, draw) => {
    const canvas = place.appendChild(make("canvas"));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "drawing, still empty");
    let waiting = false;
    const paint = () => {
      waiting = false;
      const width = place.clientWidth;
      if (!canvas.isConnected) return drawings.delete(redraw);
      if (!width) return; // in a hidden tab: the ResizeObserver calls again when it is shown
      const height = heightOf(width), ratio = devicePixelRatio || 1;
      if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
        canvas.style.height = height + "px";
      }
      const ctx = canvas.getContext("2d");
      ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
      ctx.clearRect(0, 0, width, height);
      draw(ctx, width, height);
    };
    const redraw = () => {
      if (waiting) return;
      waiting = true;
      document.hidden ? setTimeout(paint, 50) : requestAnimationFrame(paint);
    };
    drawings.add(redraw);
    new ResizeObserver(redraw).observe(place);
    redraw();
    return { canvas, redraw };
  };

  const niceTicks = (low, high, most) => {
    const rough = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough || 1));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough) || power;
    const ticks = [];
    for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-6; t += step) ticks.push(+t.toPrecision(12));
    return ticks;
  };

  // --- panel: a live line chart. Deltas come in, thousands of points stay smooth ---
  Viz.lines = (place, spec) => {
    const series = new Map(spec.series.map((s) => [s.id, { ...s, xs: [], ys: [] }]));
    let levels = spec.levels || [], marks = spec.marks || [], hover = null, box = null, cursor = null;
    const bounds = () => {
      let x1 = spec.x.high || 1, low = Infinity, high = -Infinity;
      for (const s of series.values()) for (let i = 0; i < s.xs.length; i++) {
        if (s.xs[i] > x1) x1 = s.xs[i];
        if (!Number.isFinite(s.ys[i])) continue;
        if (s.ys[i] < low) low = s.ys[i];
        if (s.ys[i] > high) high = s.ys[i];
      }
      for (const l of levels) { low = Math.min(low, l.y); high = Math.max(high, l.y); }
      if (low === Infinity) { low = 0; high = 1; }
      const pad = (high - low || 1) * 0.06;
      return { x0: 0, x1, y0: low - pad, y1: high + pad };
    };
    const surface = Viz.surface(place, (w) => (w < 500 ? 260 : spec.height || 300), (ctx, w, h) => {
      const size = textSize(), b = bounds();
      ctx.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
      const narrow = w < 420, named = (l) => `${l.label} ${l.y.toFixed(2)}`;
      const right = narrow ? 10 : 12 + Math.max(0, ...levels.map((l) => ctx.measureText(named(l)).width));
      const heights = niceTicks(b.y0, b.y1, h / 55), left = size * 1.8 + 8 + Math.max(...heights.map((t) => ctx.measureText(short(t)).width));
      box = { left: Math.max(size * 3.6, left), top: 8, right: w - right, bottom: h - size * 2.9, b };
      const X = (x) => box.left + ((x - b.x0) / (b.x1 - b.x0)) * (box.right - box.left);
      const Y = (y) => box.bottom - ((y - b.y0) / (b.y1 - b.y0)) * (box.bottom - box.top);
      ctx.lineWidth = 1; ctx.textBaseline = "middle";
      ctx.fillStyle = colour("text"); ctx.strokeStyle = colour("grid");
      for (const t of heights) {
        ctx.beginPath(); ctx.moveTo(box.left, Y(t)); ctx.lineTo(box.right, Y(t)); ctx.stroke();
        ctx.textAlign = "right"; ctx.fillText(short(t), box.left - 6, Y(t));
      }
      for (const t of niceTicks(b.x0, b.x1, w / 110)) {
        ctx.textAlign = "center"; ctx.fillText(short(t), X(t), box.bottom + size * 0.9);
      }
      ctx.textAlign = "center"; ctx.fillText(spec.x.title, (box.left + box.right) / 2, h - size * 0.7);
      ctx.save(); ctx.translate(size * 0.75, (box.top + box.bottom) / 2); ctx.rotate(-Math.PI / 2); ctx.fillText(spec.y.title, 0, 0); ctx.restore();
      ctx.setLineDash([5, 4]); ctx.strokeStyle = colour("level"); ctx.textAlign = "left";
      for (const l of levels) {
        ctx.beginPath(); ctx.moveTo(box.left, Y(l.y)); ctx.lineTo(box.right, Y(l.y)); ctx.stroke();
      }
      for (const m of marks) {
        ctx.strokeStyle = colour("text"); ctx.beginPath(); ctx.moveTo(X(m.x), box.top); ctx.lineTo(X(m.x), box.bottom); ctx.stroke();
        ctx.textAlign = X(m.x) > w * 0.6 ? "right" : "left"; ctx.fillText(m.label, X(m.x) + (X(m.x) > w * 0.6 ? -5 : 5), box.top + size * 0.7);
      }
      ctx.setLineDash([]);
      if (cursor !== null) {
        ctx.fillStyle = colour("cursor"); ctx.fillRect(X(cursor) - 2, box.top, 4, box.bottom - box.top);
      }
      const ends = [];
      for (const s of series.values()) {
        ctx.strokeStyle = colour(s.colour); ctx.lineWidth = s.width || 2; ctx.globalAlpha = s.faint ? 0.55 : 1;
        ctx.beginPath();
        let pen = false, lastX = 0, lastY = 0;
        for (let i = 0; i < s.xs.length; i++) {
          if (!Number.isFinite(s.ys[i])) { pen = false; continue; }
          lastX = X(s.xs[i]); lastY = Math.max(box.top, Math.min(box.bottom, Y(s.ys[i])));
          pen ? ctx.lineTo(lastX, lastY) : ctx.moveTo(lastX, lastY); pen = true;
        }
        ctx.stroke(); ctx.globalAlpha = 1;
        if (s.xs.length) {
          if (s.dots) for (let i = 0; i < s.xs.length; i++) { ctx.beginPath(); ctx.arc(X(s.xs[i]), Y(s.ys[i]), 3.5, 0, 7); ctx.fillStyle = colour(s.colour); ctx.fill(); }
          ends.push({ s, y: lastY, x: lastX, value: s.ys[s.ys.length - 1] });
        }
      }
      ctx.textAlign = "left"; // names of levels: in the margin, or, where there is none, over the lines
      const onVeil = (name, x, y) => {
        ctx.fillStyle = colour("veil"); ctx.fillRect(x - 3, y - size * 0.65, ctx.measureText(name).width + 6, size * 1.3);
      };
      for (const l of levels) {
        const x = narrow ? box.right - ctx.measureText(named(l)).width - 4 : box.right + 6;
        if (narrow) onVeil(named(l), x, Y(l.y));
        ctx.fillStyle = colour("text"); ctx.fillText(named(l), x, Y(l.y));
      }
      ends.sort((p, q) => p.y - q.y);
      let free = -Infinity;
      for (const e of ends) { // names of lines: at their ends, kept inside and apart
        const name = `${e.s.label} ${short(e.value)}`, wide = ctx.measureText(name).width, inside = e.x + 8 + wide <= box.right;
        const y = Math.max(inside ? e.y : e.y - size * 1.1, free + size * 1.3, box.top + size * 0.7), x = inside ? e.x + 8 : box.right - wide - 4;
        free = y;
        onVeil(name, x, y);
        ctx.fillStyle = colour(e.s.colour); ctx.fillText(name, x, y);
      }
      if (hover !== null) drawHover(ctx, X, Y, size);
      surface && surface.canvas.setAttribute("aria-label", spec.title + ". " + ends.map((e) => `${e.s.label}: ${short(e.value)}`).join(", ") +
        (levels.length ? ". Lines: " + levels.map((l) => `${l.label} ${l.y.toFixed(2)}`).join(", ") : ""));
    });
    const drawHover = (ctx, X, Y, size) => {
      const found = [];
      for (const s of series.values()) {
        let best = -1;
        for (let i = 0; i < s.xs.length; i++) if (best < 0 || Math.abs(s.xs[i] - hover) < Math.abs(s.xs[best] - hover)) best = i;
        if (best >= 0) found.push([s, s.xs[best], s.ys[best]]);
      }
      if (!found.length) return;
      const at = X(found[0][1]), names = [`${spec.x.title.split(" (")[0]} ${short(found[0][1])}`, ...found.map(([s, , y]) => `${s.label} ${short(y)}`)];
      const wide = Math.max(...names.map((n) => ctx.measureText(n).width)) + 16, x = at + wide + 10 > box.right ? at - wide - 8 : at + 8;
      ctx.strokeStyle = colour("text"); ctx.lineWidth = 1; ctx.beginPath(); ctx.moveTo(at, box.top); ctx.lineTo(at, box.bottom); ctx.stroke();
      ctx.fillStyle = colour("veil"); ctx.fillRect(x, box.top + 4, wide, names.length * size * 1.35 + 8); ctx.strokeRect(x, box.top + 4, wide, names.length * size * 1.35 + 8);
      names.forEach((n, i) => { ctx.fillStyle = i ? colour(found[i - 1][0].colour) : colour("text"); ctx.textAlign = "left"; ctx.fillText(n, x + 8, box.top + 4 + size * (1 + i * 1.35)); });
    };
    surface.canvas.addEventListener("pointermove", (event) => {
      if (!box) return;
      const x = event.offsetX;
      hover = x < box.left || x > box.right ? null : box.b.x0 + ((x - box.left) / (box.right - box.left)) * (box.b.x1 - box.b.x0);
      surface.redraw();
    });
    surface.canvas.addEventListener("pointerleave", () => { hover = null; surface.redraw(); });
    return {
      cursor: (x) => { if (x !== cursor) { cursor = x; surface.redraw(); } },
      update: (data) => {
        if (data.levels) levels = data.levels;
        if (data.marks) marks = data.marks;
        for (const [id, [xs, ys]] of Object.entries(data.add || {})) {
          const s = series.get(id);
          if (data.whole) { s.xs = []; s.ys = []; }
          for (let i = 0; i < xs.length; i++) { s.xs.push(xs[i]); s.ys.push(ys[i] === null ? NaN : ys[i]); }
        }
        surface.redraw();
      },
    };
  };

  // --- panel: a text that the run replaces ---
  Viz.text = (place, spec) => {
    const pre = place.appendChild(make("pre", "viz-text", spec.text || ""));
    pre.tabIndex = 0;
    if (spec.height) pre.style.height = spec.height + "px";
    return { update: (data) => { pre.textContent = data.text; } };
  };

  // A view of the player's that stands alone: one frame, replaced by each message.
  const alone = (place, spec) => {
    const view = Viz.views[spec.type](place, spec, () => {});
    return { update: (data) => {
      const frames = [{ [spec.id]: data.shown }];
      if (view.clear) view.clear();
      if (view.grown) view.grown(frames);
      view.show(frames, 0, 0);
    } };
  };

  // --- the main picture: scenes (one per experiment) of panels, the figures strip, the log ---
  Viz.picture = (element, props, watch, trigger) => {
    const root = element.querySelector(".viz-picture"), scenes = new Map();
    let taken = null;
    const open = (message) => {
      if (message.preview && scenes.get(message.scene)?.ran) return show(message.scene); // what a run has drawn stays
      const old = scenes.get(message.scene);
      const scene = { node: make("div", "viz-scene"), panels: new Map(), ran: !message.preview };
      for (const spec of message.panels) {
        const panel = scene.node.appendChild(make("section", "viz-panel"));
        panel.style.setProperty("--span", spec.span || 12);
        if (spec.title) panel.appendChild(make("h4", "", spec.title));
        const place = panel.appendChild(make("div", "viz-place"));
        const made = (Viz[spec.type] || alone)(place, spec);
        scene.panels.set(spec.id, made);
        for (const [id, member] of Object.entries(made.members || {})) scene.panels.set(id, member);
      }
      scene.strip = scene.node.appendChild(make("div", "viz-strip"));
      const log = scene.node.appendChild(make("details", "viz-log"));
      log.appendChild(make("summary", "", "Log of this run, as text"));
      scene.log = log.appendChild(make("ol"));
      scene.log.tabIndex = 0;
      old ? old.node.replaceWith(scene.node) : root.appendChild(scene.node);
      scenes.set(message.scene, scene);
      show(message.scene);
    };
    const show = (name) => {
      for (const [key, scene] of scenes) scene.node.hidden = key !== name;
    };
    const strip = (scene, machine, figures) => {
      scene.strip.textContent = "";
      if (!figures.length) return;
      const table = scene.strip.appendChild(make("table"));
      table.appendChild(make("caption", "", "Predicted, measured, and the gap"));
      const head = table.appendChild(make("thead")).appendChild(make("tr"));
      for (const name of ["", "predicted", "this run", "gap"]) head.appendChild(make(name ? "th" : "td", "", name));
      const body = table.appendChild(make("tbody"));
      for (const f of figures) {
        const row = body.appendChild(make("tr"));
        const name = row.appendChild(make("th", "", f.name));
        name.scope = "row";
        name.appendChild(make("small", "", `${f.unit} · ${f.label}`));
        name.appendChild(make("small", "", f.source));
        row.appendChild(make("td", "viz-number", short(f.predicted)));
        row.appendChild(make("td", "viz-number", short(f.measured)));
        const gap = f.gap === null ? "–" : (f.gap > 0 ? "+" : f.gap < 0 ? "−" : "") + short(Math.abs(f.gap));
        const percent = (v) => (v >= 99.5 ? short(Math.round(v)) : v.toPrecision(2));
        const share = f.gap && f.predicted ? ` (${f.gap > 0 ? "+" : "−"}${percent(Math.abs((100 * f.gap) / f.predicted))} %)` : "";
        row.appendChild(make("td", "viz-number", gap + (Math.abs(f.gap) > 1e-6 * Math.abs(f.predicted) ? share : "")));
      }
      scene.strip.appendChild(make("p", "viz-machine", "Measured on: " + machine));
    };
    const apply = () => {
      const message = props.value;
      if (!message || typeof message !== "object" || (message.id && message.id === taken)) return;
      taken = message.id;
      if (message.open) open(message.open);
      const scene = scenes.get(message.scene);
      if (!scene || (message.open && message.open.preview && scene.ran)) return;
      for (const [id, data] of JSON.parse(message.updates || "[]")) scene.panels.get(id).update(data);
      if (message.figures) strip(scene, message.machine, message.figures);
      for (const line of message.log || []) {
        scene.log.appendChild(make("li", "", line));
        if (scene.log.childElementCount > 400) scene.log.firstChild.remove();
      }
    };
    watch("value", apply);
    apply();
    trigger("mounted");
  };

  Viz.face = face; Viz.make = make; Viz.colour = colour; Viz.short = short; Viz.niceTicks = niceTicks; Viz.textSize = textSize;
})();
