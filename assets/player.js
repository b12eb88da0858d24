/* The player: frames that were computed once and sent once, played here. Play, pause, step, scrub, speed; mouse and keyboard.
   A player has views, all on one timeline: text, reader, matrix, pictures, draw (canvas, moves smoothly between frames), gantt, plot (Plotly). */
(() => {
  "use strict";
  const Viz = window.Viz, make = Viz.make;

  Viz.player = (place, spec) => {
    const frames = [], root = place.appendChild(make("div", "viz-player"));
    const grid = root.appendChild(make("div", "viz-views"));
    let at = 0, playing = false, speed = 1, clock = 0;
    const seek = (position) => {
      at = Math.max(0, Math.min(frames.length - 1, position));
      const i = Math.floor(at), fraction = at - i;
      for (const view of views) view.smooth ? view.show(frames, i, fraction) : view.show(frames, Math.round(at), 0);
      range.value = at;
      caption.textContent = frames.length ? frames[Math.round(at)].label : "";
      range.setAttribute("aria-valuetext", caption.textContent);
    };
    const tick = (now) => {
      if (!playing || !root.isConnected) return;
      const passed = Math.min(0.1, (now - clock) / 1000); // a hidden tab stops the clock; it goes on where it was
      clock = now;
      root.dataset.drawn = +(root.dataset.drawn || 0) + 1;
      seek(at + passed * speed * (spec.rate || 4));
      at >= frames.length - 1 ? pause() : requestAnimationFrame(tick);
    };
    const play = () => {
      if (frames.length < 2) return;
      if (at >= frames.length - 1) seek(0);
      playing = true; clock = performance.now();
      Viz.face(button, "pause"); button.setAttribute("aria-label", "Pause");
      requestAnimationFrame(tick);
    };
    const pause = () => { playing = false; Viz.face(button, "play"); button.setAttribute("aria-label", "Play"); };
    const step = (by) => { pause(); seek((by > 0 ? Math.floor(at + 1e-9) : Math.ceil(at - 1e-9)) + by); };

    const bar = make("div", "viz-bar");
    const press = (label, text, act) => {
      const b = bar.appendChild(make("button", "viz-button"));
      Viz.face(b, text);
      b.type = "button"; b.setAttribute("aria-label", label); b.title = label; b.onclick = act;
      return b;
    };
    press("One frame back", "back", () => step(-1));
    const button = press("Play", "play", () => (playing ? pause() : play()));
    press("One frame on", "on", () => step(1));
    const range = bar.appendChild(make("input"));
    Object.assign(range, { type: "range", min: 0, max: 0, step: 1, value: 0 });
    range.setAttribute("aria-label", spec.scrub || "Position");
    range.oninput = () => { pause(); seek(+range.value); };
    const caption = bar.appendChild(make("output", "viz-caption"));
    caption.setAttribute("aria-live", "off");
    const pace = bar.appendChild(make("select", "viz-button"));
    pace.setAttribute("aria-label", "Speed");
    for (const s of [0.25, 0.5, 1, 2, 4]) { const o = pace.appendChild(make("option", "", `${s}×`)); o.value = s; o.selected = s === 1; }
    pace.onchange = () => (speed = +pace.value);
    root.addEventListener("keydown", (event) => {
      if (event.target === pace || event.ctrlKey || event.metaKey || event.altKey) return;
      const acts = { " ": () => (playing ? pause() : play()), ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => seek(0), End: () => seek(frames.length - 1) };
      if (!acts[event.key] || (event.key === " " && event.target.tagName === "BUTTON")) return;
      event.preventDefault();
      acts[event.key]();
    });

    const members = {};
    const views = spec.views.map((v, index) => {
      if (index === spec.bar_before) grid.appendChild(bar);
      const box = grid.appendChild(make("div", "viz-view"));
      box.style.setProperty("--span", v.span || 12);
      if (v.title) box.appendChild(make("h5", "", v.title));
      const made = Viz.views[v.type](box.appendChild(make("div", "viz-place")), v, seek);
      if (made.update) members[v.id] = made;
      return made;
    });
    if (!bar.isConnected && !bar.parentElement) grid.appendChild(bar);
    return {
      frames, seek, play, pause, members,
      position: () => at,
      update: (data) => {
        const follows = at >= frames.length - 1 - 1e-6;
        if (data.whole) { frames.length = 0; views.forEach((v) => v.clear && v.clear()); }
        for (const frame of data.frames) frames.push(frame);
        range.max = Math.max(0, frames.length - 1);
        for (const view of views) view.grown && view.grown(frames);
        if (follows && !playing) seek(data.opens ?? frames.length - 1); else seek(at);
      },
    };
  };

  const bytesOf = (b64) => Uint8Array.from(atob(b64), (c) => c.charCodeAt(0));
  const tileOf = (picture) => {
    const tile = new OffscreenCanvas(picture.wide, picture.high), ctx = tile.getContext("2d"), image = ctx.createImageData(picture.wide, picture.high), bytes = bytesOf(picture.bytes);
    for (let i = 0; i < picture.wide * picture.high; i++) { for (let c = 0; c < 3; c++) image.data[4 * i + c] = bytes[3 * i + c]; image.data[4 * i + 3] = 255; }
    ctx.putImageData(image, 0, 0);
    return tile;
  };
  const visible = (c) => (c === "\n" ? "↵" : c === " " ? "␣" : c === "\t" ? "⇥" : c);

  Viz.views = {
    // A live line chart (see viz.js) with a cursor at the frame's `at`.
    lines: (place, v) => {
      const chart = Viz.lines(place, v);
      return { update: chart.update, show: (frames, i) => frames.length && chart.cursor(frames[i].at ?? null) };
    },

    text: (place, v) => {
      const pre = place.appendChild(make("pre", "viz-text"));
      pre.tabIndex = 0;
      if (v.height) pre.style.height = v.height + "px";
      return { show: (frames, i) => (pre.textContent = frames.length ? frames[i][v.id] : "") };
    },

    // A text of one span per frame, shaded by a number from 0 to 1; click a character to go to its frame.
    reader: (place, v, seek) => {
      const pre = place.appendChild(make("pre", "viz-text viz-reader")), spans = [];
      pre.tabIndex = 0;
      let marked = null;
      return {
        clear: () => { pre.textContent = ""; spans.length = 0; },
        grown: (frames) => {
          for (let i = spans.length; i < frames.length; i++) {
            const span = pre.appendChild(make("span", "", frames[i][v.id].text));
            span.style.setProperty("--shade", frames[i][v.id].shade);
            span.onclick = () => seek(i);
            spans.push(span);
          }
          pre.scrollTop = pre.scrollHeight;
        },
        show: (frames, i) => {
          if (marked) marked.classList.remove("viz-now");
          marked = spans[i];
          if (marked) marked.classList.add("viz-now");
        },
      };
    },

    // Small multiples of heat maps: data {shape: [rows, columns, height, width], bytes, top, left, name}
    matrix: (place, v) => {
      let now = null, layout = null, hover = null, tiles = [];
      const note = place.appendChild(make("p", "viz-note", v.hint || ""));
      const surface = Viz.surface(place, (w) => {
        if (!now) return v.height || 160;
        const [rows, columns, high, wide] = now.shape, size = Viz.textSize();
        const gap = 8, left = now.left ? 10 + size * 0.62 * Math.max(...[...now.left].map((t) => t.length)) : 0, top = size + 6;
        const tileWide = Math.min((w - left - gap * (columns - 1)) / columns, v.square ? 230 : 1e4);
        const tileHigh = v.square ? (tileWide * high) / wide : Math.max(size * 1.05, 12) * high;
        layout = { gap, left, top, tileWide, tileHigh, size };
        return rows * (tileHigh + top + gap) + (now.below ? size + 6 : 0);
      }, (ctx, w) => {
        if (!now || !layout) return;
        const [rows, columns, high, wide] = now.shape, { gap, left, top, tileWide, tileHigh, size } = layout;
        ctx.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
        ctx.imageSmoothingEnabled = false;
        for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
          const x = left + c * (tileWide + gap), y = top + r * (tileHigh + top + gap);
          ctx.drawImage(tiles[r * columns + c], x, y, tileWide, tileHigh);
          ctx.strokeStyle = Viz.colour("grid"); ctx.strokeRect(x, y, tileWide, tileHigh);
          ctx.fillStyle = Viz.colour("text"); ctx.textAlign = "left"; ctx.textBaseline = "bottom";
          ctx.fillText(now.names[r * columns + c], x, y - 3, tileWide);
          if (now.left && c === 0) { ctx.textAlign = "right"; ctx.textBaseline = "middle"; now.left.forEach((t, k) => ctx.fillText(t, left - 6, y + (tileHigh * (k + 0.5)) / high)); }
          if (now.below && r === rows - 1) {
            ctx.textAlign = "center"; ctx.textBaseline = "top"; ctx.font = `${Math.min(size, (1.5 * tileWide) / wide)}px monospace`;
            [...now.below].forEach((t, k) => ctx.fillText(visible(t), x + (tileWide * (k + 0.5)) / wide, y + tileHigh + 4));
            ctx.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
          }
        }
        surface && surface.canvas.setAttribute("aria-label", (v.title || "heat maps") + ": " + now.names.join(", "));
      });
      const prepare = () => {
        if (!now) return;
        const [rows, columns, high, wide] = now.shape, bytes = now.values;
        const parse = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)), a = parse(Viz.colour("cold")), b = parse(Viz.colour("hot"));
        const bare = parse(Viz.colour("cold")), one = parse(Viz.colour("a")), other = parse(Viz.colour("b"));
        tiles = [];
        for (let k = 0; k < rows * columns; k++) {
          const tile = new OffscreenCanvas(wide, high), ctx = tile.getContext("2d"), image = ctx.createImageData(wide, high);
          for (let i = 0; i < wide * high; i++) {
            const value = bytes[k * wide * high + i] / 255, t = v.signed ? Math.abs(2 * value - 1) : Math.sqrt(value);
            const from = v.signed ? bare : a, to = !v.signed ? b : value < 0.5 ? one : other;
            for (let ch = 0; ch < 3; ch++) image.data[4 * i + ch] = from[ch] + (to[ch] - from[ch]) * t;
            image.data[4 * i + 3] = 255;
          }
          ctx.putImageData(image, 0, 0);
          tiles.push(tile);
        }
        surface.redraw();
      };
      Viz.onTheme(prepare);
      surface.canvas.addEventListener("pointermove", (event) => {
        if (!now || !layout) return;
        const [rows, columns, high, wide] = now.shape, { gap, left, top, tileWide, tileHigh } = layout;
        const c = Math.floor((event.offsetX - left) / (tileWide + gap)), r = Math.floor((event.offsetY - top) / (tileHigh + top + gap));
        const s = Math.floor(((event.offsetX - left - c * (tileWide + gap)) / tileWide) * wide), t = Math.floor(((event.offsetY - top - r * (tileHigh + top + gap)) / tileHigh) * high);
        if (c < 0 || r < 0 || c >= columns || r >= rows || s < 0 || t < 0 || s >= wide || t >= high) return (note.textContent = v.hint || "");
        const share = now.values[(r * columns + c) * wide * high + t * wide + s] / 255, low = now.low ?? 0, high_ = now.high ?? 1;
        const from = now.left ? now.left[t] : now.top ? `“${visible(now.top[t])}”` : t, to = now.below || now.top ? `“${visible((now.below || now.top)[s])}”` : s;
        const said = { name: now.names[r * columns + c], from, row: t, to, column: s, value: Viz.short(low + share * (high_ - low)) };
        note.textContent = (v.words || "{name}: row {row}, column {column}: {value}").replace(/\{(\w+)\}/g, (_, key) => said[key]);
      });
      surface.canvas.addEventListener("pointerleave", () => (note.textContent = v.hint || ""));
      return {
        show: (frames, i) => {
          const data = frames.length ? frames[i][v.id] : null;
          if (!data) { now = null; return surface.redraw(); }
          if (!data.values) data.values = bytesOf(data.bytes);
          if (now !== data) { now = data; prepare(); }
        },
      };
    },

    // Small pictures in rows, every pixel a square: data {columns, pictures: [{wide, high, bytes: RGB, name, under, mark}]}.
    pictures: (place, v) => {
      let now = null, tiles = [];
      const sizes = (w) => {
        const size = Viz.textSize(), gap = 8, columns = Math.max(1, Math.min(now.columns || now.pictures.length, Math.floor((w + gap) / ((v.least || 56) + gap))));
        const side = Math.min((w - gap * (columns - 1)) / columns, v.most || 160), lines = (key) => (now.pictures.some((p) => p[key]) ? size * 1.35 : 0);
        return { size, gap, columns, side, over: lines("name"), below: lines("under") };
      };
      const surface = Viz.surface(place, (w) => {
        if (!now) return v.height || 160;
        const { gap, columns, side, over, below } = sizes(w);
        return Math.ceil(now.pictures.length / columns) * (side * ratio() + over + below + gap);
      }, (ctx, w) => {
        if (!now) return;
        const { size, gap, columns, side, over, below } = sizes(w), high = side * ratio();
        ctx.font = `${size}px ${getComputedStyle(document.body).fontFamily}`; ctx.imageSmoothingEnabled = false; ctx.textAlign = "left"; ctx.textBaseline = "alphabetic";
        now.pictures.forEach((p, k) => {
          const x = (k % columns) * (side + gap), y = Math.floor(k / columns) * (high + over + below + gap) + over;
          ctx.drawImage(tiles[k], x, y, side, high);
          ctx.lineWidth = p.mark ? 3 : 1; ctx.strokeStyle = Viz.colour(p.mark || "grid"); ctx.strokeRect(x + 0.5, y + 0.5, side - 1, high - 1);
          ctx.fillStyle = Viz.colour("text");
          if (p.name) ctx.fillText(p.name, x, y - size * 0.4, side);
          if (p.under) ctx.fillText(p.under, x, y + high + size * 1.05, side);
        });
        surface && surface.canvas.setAttribute("aria-label", `${v.title || "pictures"}: ` + now.pictures.map((p) => [p.name, p.under].filter(Boolean).join(", ")).join("; "));
      });
      const ratio = () => now.pictures[0].high / now.pictures[0].wide;
      return {
        show: (frames, i) => {
          let k = Math.min(i, frames.length - 1);
          while (k >= 0 && !frames[k][v.id]) k--; // a frame without pictures keeps the last ones
          const data = k < 0 ? null : frames[k][v.id];
          if (data === now) return;
          now = data && data.pictures.length ? data : null;
          tiles = now ? now.pictures.map(tileOf) : [];
          surface.redraw();
        },
      };
    },

    // Shapes that move: data [{id, kind: text | circle | rect | line, x, y, w, h, text, fill}], in units of the whole film
    draw: (place, v) => {
      let pair = [[], []], mix = 0, limits = [0, 1, 0, 1];
      const surface = Viz.surface(place, (w) => Math.min(w * (v.aspect || 0.8), v.height || 300), (ctx, w, h) => {
        const size = Viz.textSize(), pad = size * 1.4, [x0, x1, y0, y1] = limits;
        const foot = v.x ? size * 1.4 : 0;
        const X = (x) => pad + ((x - x0) / (x1 - x0 || 1)) * (w - 2 * pad), Y = (y) => h - foot - pad - ((y - y0) / (y1 - y0 || 1)) * (h - foot - 2 * pad);
        const next = new Map(pair[1].map((s) => [s.id, s])), ease = mix * mix * (3 - 2 * mix);
        ctx.strokeStyle = Viz.colour("grid"); ctx.strokeRect(0.5, 0.5, w - 1, h - foot - 1);
        ctx.font = `${size}px ${getComputedStyle(document.body).fontFamily}`; ctx.textAlign = "center"; ctx.textBaseline = "middle";
        if (v.x) { ctx.fillStyle = Viz.colour("text"); ctx.fillText(v.x, w / 2, h - size * 0.6); }
        for (const s of pair[0]) {
          const to = next.get(s.id) || s, at = (key) => (s[key] ?? 0) + ((to[key] ?? 0) - (s[key] ?? 0)) * ease;
          ctx.fillStyle = ctx.strokeStyle = Viz.colour(s.fill || "text");
          if (s.kind === "text") { ctx.font = `bold ${size}px monospace`; ctx.fillText(s.text, X(at("x")), Y(at("y"))); }
          else if (s.kind === "circle") { ctx.beginPath(); ctx.arc(X(at("x")), Y(at("y")), at("r") || 5, 0, 7); ctx.fill(); }
          else if (s.kind === "rect") { ctx.fillRect(X(at("x")), Y(at("y") + at("h")), X(at("x") + at("w")) - X(at("x")), Y(at("y")) - Y(at("y") + at("h"))); if (s.text) { ctx.fillStyle = Viz.colour("veil"); ctx.fillText(s.text, X(at("x") + at("w") / 2), Y(at("y") + at("h") / 2)); } }
          else { ctx.lineWidth = 2; ctx.beginPath(); ctx.moveTo(X(at("x")), Y(at("y"))); ctx.lineTo(X(at("x") + at("w")), Y(at("y") + at("h"))); ctx.stroke(); }
        }
        surface && surface.canvas.setAttribute("aria-label", v.alt || v.title || "drawing");
      });
      return {
        smooth: true,
        grown: (frames) => {
          limits = [Infinity, -Infinity, Infinity, -Infinity];
          for (const f of frames) for (const s of f[v.id] || []) {
            limits = [Math.min(limits[0], s.x, s.x + (s.w || 0)), Math.max(limits[1], s.x, s.x + (s.w || 0)), Math.min(limits[2], s.y, s.y + (s.h || 0)), Math.max(limits[3], s.y, s.y + (s.h || 0))];
          }
        },
        show: (frames, i, fraction) => {
          if (!frames.length) return;
          pair = [frames[i][v.id] || [], (frames[i + 1] || frames[i])[v.id] || []]; mix = fraction;
          surface.redraw();
        },
      };
    },

    // A row per worker, what it does over time: data {span, unit, rows: [{name, bars: [[start, length, colour, text, strong]]} or {name, cells: "aab..", keys}]}.
    // A frame {at} shows the latest rows up to that time; between two frames time runs on.
    gantt: (place, v) => {
      let data = null, at = null;
      const bounded = (t) => Math.max(0, Math.min(at ?? Infinity, t));
      const high = () => (data ? Math.max(2, Math.min(v.row || 26, (v.most || 420) / data.rows.length)) : 26);
      const surface = Viz.surface(place, () => (data ? data.rows.length : v.rows || 4) * high() + Viz.textSize() * 3.2, (ctx, w, h) => {
        if (!data) return;
        const found = {}, paint = (name) => (found[name] ??= Viz.colour(name));
        const size = Viz.textSize(), row = high(), foot = h - size * 3.2, step = Math.ceil((size * 1.2) / row), gap = row > 8 ? 2 : 0;
        ctx.font = `${size}px ${getComputedStyle(document.body).fontFamily}`; ctx.textBaseline = "middle"; ctx.lineWidth = 1;
        const left = 8 + Math.max(...data.rows.map((r) => ctx.measureText(r.name).width)), X = (t) => left + (t / data.span) * (w - left - 8), end = data.end ?? data.span;
        data.rows.forEach((r, k) => {
          const y = k * row, t = at ?? Infinity;
          ctx.fillStyle = paint("text"); ctx.textAlign = "right";
          if (k % step === 0) ctx.fillText(r.name, left - 6, y + Math.max(row, size) / 2);
          ctx.fillStyle = paint("grid"); ctx.fillRect(left, y, X(Math.min(end, t)) - left, row - gap);
          for (const [start, length, colour, text, strong] of r.bars || []) {
            if (start >= t) continue;
            const x = X(start), wide = X(bounded(start + length)) - x;
            ctx.fillStyle = paint(colour); ctx.globalAlpha = strong ?? 1;
            ctx.fillRect(x, y, Math.max(0.5, wide - (wide > 4 ? 1 : 0)), row - gap);
            ctx.globalAlpha = 1;
            if (!text || wide < ctx.measureText(text).width + 4 || row < size) continue;
            ctx.fillStyle = paint("veil"); ctx.textAlign = "center"; ctx.fillText(text, x + wide / 2, y + (row - gap) / 2 + 1);
          }
          for (let c = 0, from = 0; r.cells && c < r.cells.length; c++) {
            if (r.cells[c + 1] === r.cells[c]) continue;
            const [colour, strong] = data.keys[r.cells[c]] || [], one = end / r.cells.length, [x, until] = [X(bounded(from * one)), X(bounded((c + 1) * one))];
            from = c + 1;
            if (!colour || until <= x) continue;
            ctx.fillStyle = paint(colour); ctx.globalAlpha = strong ?? 1; ctx.fillRect(x, y, until - x, row - gap); ctx.globalAlpha = 1;
          }
        });
        ctx.fillStyle = paint("text"); ctx.strokeStyle = paint("grid"); ctx.textAlign = "center";
        for (const t of Viz.niceTicks(0, data.span, w / 110)) {
          ctx.beginPath(); ctx.moveTo(X(t), foot); ctx.lineTo(X(t), foot + 5); ctx.stroke();
          ctx.fillText(Viz.short(t), X(t), foot + 6 + size * 0.7);
        }
        ctx.fillText(data.unit, (left + w) / 2, foot + 6 + size * 1.9);
        if (at !== null && at < data.span) ctx.fillRect(X(at) - 1, 0, 2, foot);
        surface && surface.canvas.setAttribute("aria-label", `${v.title || "chart of work over time"}: ${data.rows.length} rows, ${Viz.short(end)} ${data.unit}`);
      });
      return {
        smooth: true,
        show: (frames, i, fraction) => {
          let k = Math.min(i, frames.length - 1);
          const now = frames[k] && frames[k][v.id], next = (frames[i + 1] || {})[v.id];
          while (k >= 0 && !(frames[k][v.id] && frames[k][v.id].rows)) k--;
          data = k < 0 ? null : frames[k][v.id];
          at = now && now.at !== undefined ? now.at + (next && next.at !== undefined && !next.rows ? (next.at - now.at) * fraction : 0) : null;
          surface.redraw();
        },
      };
    },

    // A Plotly chart with one set of traces per frame; plotly.js comes from the installed plotly package, when first needed.
    plot: (place, v) => {
      const chart = place.appendChild(make("div", "viz-plot"));
      chart.style.height = (v.height || 280) + "px";
      let shown = null, busy = false;
      const layout = (width) => {
        const text = Viz.colour("text"), grid = Viz.colour("grid"), font = { color: text, size: Viz.textSize(), family: getComputedStyle(document.body).fontFamily };
        const axis = (a) => ({ ...a, title: { ...a.title, font }, gridcolor: grid, zerolinecolor: grid, linecolor: grid, fixedrange: true });
        return { ...v.layout, width, font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis(v.layout.xaxis), yaxis: axis(v.layout.yaxis) };
      };
      // Colours have names, so that light and dark each have their own.
      const painted = (t) => {
        const colour = t.colours ? t.colours.map(Viz.colour) : Viz.colour(t.colour), line = { width: 2, ...t.line, ...(t.colour ? { color: colour } : {}) };
        return { ...t, marker: { color: colour, size: 8 }, ...(t.type === "bar" ? {} : { line }), ...(t.mode === "text" && t.colour ? { textfont: { color: colour } } : {}), ...(t.error_y ? { error_y: { ...t.error_y, color: colour } } : {}) };
      };
      const said = (t) => {
        const points = t.x.map((x, k) => [x, t.y[k]]).filter(([x, y]) => x !== null && y !== null), text = (p) => (typeof p === "number" ? Viz.short(p) : p);
        const told = points.length > 24 ? [points[0], points[points.length - 1]] : points; // of a long line, its ends
        return told.map(([x, y]) => (t.orientation === "h" ? `${text(y)} ${text(x)}` : `${text(x)}: ${text(y)}`)).join(", ");
      };
      // Names of points that would lie on each other: the later one goes up or down, to the nearest free place. A sign (●) is the point itself.
      const apart = () => {
        const names = [...chart.querySelectorAll(".textpoint")].filter((name) => /[\p{L}\p{N}]/u.test(name.textContent)), placed = [];
        for (const name of names) name.style.translate = "";
        const boxes = names.map((name) => name.getBoundingClientRect());
        names.forEach((name, k) => {
          const { left, right, top, bottom } = boxes[k], text = name.textContent;
          const covers = (p, by) => p.text !== text && p.left < right + 2 && left < p.right + 2 && p.top < bottom + by - 3 && top + by < p.bottom - 3;
          const by = [0, -4, 4, -8, 8, -12, 12, -16, 16].find((by) => !placed.some((p) => covers(p, by))) || 0;
          if (by) name.style.translate = `0 ${by}px`;
          placed.push({ text, left, right, top: top + by, bottom: bottom + by });
        });
      };
      const redraw = async () => {
        if (busy || !shown || !place.clientWidth) return;
        busy = true;
        const data = shown, width = place.clientWidth;
        try {
          const Plotly = await Viz.plotly();
          const traces = data.map(painted);
          await Plotly.react(chart, traces, layout(width), { responsive: false, displayModeBar: false });
          apart();
          chart.querySelectorAll("svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
          chart.setAttribute("role", "img");
          chart.setAttribute("aria-label", `${v.title}: ` + data.map((t) => (t.name ? t.name + ": " : "") + said(t)).join("; "));
        } finally { busy = false; }
        if (shown !== data || place.clientWidth !== width) redraw();
      };
      new ResizeObserver(redraw).observe(place);
      Viz.onTheme(redraw);
      return { show: (frames, i) => { const data = frames.length ? frames[i][v.id] : null; if (data && data !== shown) { shown = data; redraw(); } } };
    },
  };

  // Two texts to choose from, one pair after the other. The setting `field` holds the choices ("abba"), so a link holds them
  // too; `chooser` is the setting that says who chooses, and `me` its value for the user. A click makes it so and runs anew.
  // Data: {pairs, field, chooser, me, picks: what a rule likes better ("ab-"), who: the rule in words, fewest: to learn from}.
  let held = null; // what had the focus when a new run replaced the picture: {topic, name}, until the user goes elsewhere
  for (const kind of ["focusin", "pointerdown"]) document.addEventListener(kind, (event) => { if (!event.target.closest?.(".viz-pairs")) held = null; });
  Viz.views.pairs = (place, v) => {
    const root = place.appendChild(make("div", "viz-pairs"));
    let data = null, drawn = "", topic = "";
    const get = (name) => Viz.forms.get(topic)?.get(name);
    const put = (text, name) => {
      Viz.forms.get(topic).put(data.chooser, data.me);
      Viz.forms.get(topic).put(data.field, text);
      draw(name);
      text.length >= data.fewest ? Viz.transports.get(topic).again() : Viz.transports.get(topic).reset();
    };
    const choose = (letter) => { const sofar = get(data.field) || ""; if (sofar.length < data.pairs.length) put(sofar + letter, letter); };
    const button = (place, name, classes, words, act) => {
      const b = place.appendChild(make("button", classes, words));
      b.type = "button"; b.dataset.name = name; b.onclick = act;
      return b;
    };
    const draw = (name) => {
      const sofar = get(data.field) || "", all = data.pairs.length, full = sofar.length >= all, at = Math.min(sofar.length, all - 1), self = get(data.chooser) === data.me;
      if ([sofar, self].join() === drawn) return;
      drawn = [sofar, self].join();
      if (root.contains(document.activeElement)) held = { topic, name: name || document.activeElement.dataset.name };
      root.textContent = "";
      const few = self && sofar.length < data.fewest ? ` ${data.fewest - sofar.length} more, and the model begins to learn.` : "";
      const who = self ? `You have chosen ${sofar.length} of ${all} times.${few}` : `Now ${data.who} chooses${data.picks[at] === "-" ? " (likes both the same here)" : ""}. Click a card, and it is you.`;
      const note = root.appendChild(make("p", "viz-note", full ? `${who} There are no more pairs.` : `${who} Pair ${at + 1}: which do you like better? Keys: ← and →.`));
      note.setAttribute("aria-live", "polite");
      const cards = root.appendChild(make("div", "viz-cards"));
      for (const [k, letter] of ["a", "b"].entries()) {
        const card = button(cards, letter, "viz-button viz-card", data.pairs[at][k], () => choose(letter));
        card.disabled = full;
        if (!self && data.picks[at] === letter) { card.classList.add("viz-picked"); card.appendChild(make("small", "", `\nthe choice of ${data.who}`)); }
      }
      const bar = root.appendChild(make("div", "viz-buttons"));
      button(bar, "back", "viz-button", "Take back the last choice", () => put(sofar.slice(0, -1), "back")).disabled = !sofar;
      button(bar, "forget", "viz-button", "Forget my choices", () => put("", "forget")).disabled = !sofar;
      if (held && held.topic === topic && document.activeElement === document.body) // the focus went with what was replaced
        (root.querySelector(`[data-name="${held.name}"]:not(:disabled)`) || root.querySelector("button:not(:disabled)"))?.focus({ preventScroll: true });
    };
    root.addEventListener("keydown", (event) => {
      const letter = { ArrowLeft: "a", ArrowRight: "b" }[event.key];
      if (!letter || !data || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      choose(letter);
    });
    const follow = () => { // the form may be changed by hand
      if (root.isConnected) return setTimeout(() => draw());
      for (const kind of ["input", "click"]) document.getElementById(topic + "-form")?.removeEventListener(kind, follow);
    };
    const begin = () => { // only now the picture is part of the page
      topic = place.closest("[data-topic]").dataset.topic;
      for (const kind of ["input", "click"]) document.getElementById(topic + "-form")?.addEventListener(kind, follow);
    };
    return { show: (frames) => { if (frames.length && frames[0][v.id]) { if (!data) begin(); data = frames[0][v.id]; drawn = ""; draw(); } } };
  };

  // A picture to paint on. The setting `field` holds what is painted, row by row: a hexadecimal digit for each four squares, so that a
  // link holds it too. Data: {picture (as in `pictures`), field, cells: squares on a side}. Keys: arrows move, Space paints.
  Viz.views.brush = (place, v) => {
    let data = null, tile = null, topic = "", cells = [], last = "", erase = false, cursor = null;
    const side = (w) => Math.min(w, v.most || 320);
    const surface = Viz.surface(place, side, (ctx, w) => {
      if (!data) return;
      const a = side(w), one = a / data.cells;
      ctx.imageSmoothingEnabled = false; ctx.drawImage(tile, 0, 0, a, a);
      ctx.globalAlpha = 0.75; ctx.fillStyle = Viz.colour("b");
      cells.forEach((on, i) => on && ctx.fillRect((i % data.cells) * one, Math.floor(i / data.cells) * one, one, one));
      ctx.globalAlpha = 1; ctx.strokeStyle = Viz.colour("text"); ctx.strokeRect(0.5, 0.5, a - 1, a - 1);
      if (cursor !== null && document.activeElement === surface.canvas) ctx.strokeRect((cursor % data.cells) * one + 0.5, Math.floor(cursor / data.cells) * one + 0.5, one, one);
      surface.canvas.setAttribute("aria-label", `${v.title}: ${cells.filter(Boolean).length} of ${cells.length} squares are painted. Arrow keys move, Space paints.`);
    });
    const bar = place.appendChild(make("div", "viz-buttons"));
    const button = (words, act) => { const b = bar.appendChild(make("button", "viz-button", words)); b.type = "button"; b.onclick = act; };
    const read = () => {
      const text = Viz.forms.get(topic)?.get(data.field) || "";
      if (text === last && cells.length === data.cells ** 2) return;
      last = text;
      cells = Array.from({ length: data.cells ** 2 }, (_, i) => ((parseInt(text[i >> 2] || "0", 16) || 0) >> (3 - (i & 3))) & 1);
      surface.redraw();
    };
    const write = () => {
      last = "";
      for (let i = 0; i < cells.length; i += 4) last += (8 * cells[i] + 4 * cells[i + 1] + 2 * cells[i + 2] + cells[i + 3]).toString(16);
      if (!cells.some(Boolean)) last = "";
      Viz.forms.get(topic).put(data.field, last);
      Viz.transports.get(topic).reset();
    };
    const canvas = surface.canvas;
    canvas.tabIndex = 0; canvas.style.touchAction = "none"; canvas.style.cursor = "crosshair"; canvas.setAttribute("role", "application");
    button("Clear", () => { cells.fill(0); write(); surface.redraw(); });
    button("Paint the other squares", () => { cells = cells.map((on) => 1 - on); write(); surface.redraw(); });
    const paint = (event) => {
      const one = canvas.clientHeight / data.cells, x = Math.floor(event.offsetX / one), y = Math.floor(event.offsetY / one), r = v.radius ?? 1;
      for (let j = y - r; j <= y + r; j++) for (let i = x - r; i <= x + r; i++) if (i >= 0 && j >= 0 && i < data.cells && j < data.cells) cells[j * data.cells + i] = erase ? 0 : 1;
      surface.redraw();
    };
    let down = false;
    canvas.addEventListener("pointerdown", (event) => { if (!data) return; down = true; erase = event.shiftKey; canvas.setPointerCapture(event.pointerId); paint(event); });
    canvas.addEventListener("pointermove", (event) => down && paint(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { if (down) { down = false; write(); } });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -data?.cells, ArrowDown: data?.cells }[event.key];
      if (!data || (by === undefined && event.key !== " ")) return;
      event.preventDefault();
      if (by === undefined) { cells[cursor ?? 0] ^= 1; write(); } else cursor = Math.max(0, Math.min(cells.length - 1, (cursor ?? 0) + by));
      surface.redraw();
    });
    return { show: (frames) => {
      if (!frames.length || !frames[0][v.id]) return;
      if (!data) {
        topic = place.closest("[data-topic]").dataset.topic;
        for (const kind of ["input", "click"]) document.getElementById(topic + "-form")?.addEventListener(kind, () => canvas.isConnected && setTimeout(read));
      }
      data = frames[0][v.id]; tile = tileOf(data.picture); read(); surface.redraw();
    } };
  };

  let loading = null;
  Viz.plotly = () => (loading ||= new Promise((done, failed) => {
    const script = make("script");
    script.src = window.plotlySource;
    script.onload = () => done(window.Plotly);
    script.onerror = failed;
    document.head.appendChild(script);
  }));
})();
