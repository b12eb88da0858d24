import { Bin, make, short } from "../dom.js";
import { color, onTheme, textSize } from "../theme.js";

/** @type {Promise<any> | null} */
let loading = null;

/** plotly.js, from the installed plotly package, when a chart first needs it. */
const plotly = () =>
  (loading ??= new Promise((done, failed) => {
    const script = make("script");
    script.src = window.plotlySource;
    script.onload = () => done(window.Plotly);
    script.onerror = failed;
    document.head.appendChild(script);
  }));

/**
 * A text for Plotly, which reads a little HTML of its own: what stands for itself must not be markup, and a new line is its `<br>`.
 * @param {any} text
 */
export const plain = (text) =>
  typeof text === "string"
    ? text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("\n", "<br>")
    : text;

const plainAll = (/** @type {any} */ values) => (Array.isArray(values) ? values.map(plain) : values);

/**
 * A trace with the colors of the theme and texts without markup.
 * @param {any} t
 */
const painted = (t) => {
  const ink = t.colours ? t.colours.map(color) : color(t.colour);
  const line = { width: 2, ...t.line, ...(t.colour ? { color: ink } : {}) };
  return {
    ...t,
    name: plain(t.name),
    x: plainAll(t.x),
    y: plainAll(t.y),
    ...(t.text ? { text: plainAll(t.text) } : {}),
    marker: { color: ink, size: 8 },
    ...(t.type === "bar" ? {} : { line }),
    ...(t.mode === "text" && t.colour ? { textfont: { color: ink } } : {}),
    ...(t.error_y ? { error_y: { ...t.error_y, color: ink } } : {}),
  };
};

/**
 * A trace in words, for people who cannot see it; of a long line, its ends.
 * @param {any} t
 */
const inWords = (t) => {
  const text = (/** @type {any} */ p) => (typeof p === "number" ? short(p) : p);
  const points = t.x.map((/** @type {any} */ x, /** @type {number} */ k) => [x, t.y[k]]);
  const there = points.filter((/** @type {any[]} */ [x, y]) => x !== null && y !== null);
  const some = there.length > 24 ? [there[0], there[there.length - 1]] : there;
  const pair = (/** @type {any[]} */ [x, y]) =>
    t.orientation === "h" ? `${text(y)} ${text(x)}` : `${text(x)}: ${text(y)}`;
  return (t.name ? t.name + ": " : "") + some.map(pair).join(", ");
};

/**
 * Names of points that would lie on each other: the later one goes up or down, to the nearest free place. A sign (●) is the point itself.
 * @param {HTMLElement} chart
 */
const keepApart = (chart) => {
  const all = /** @type {NodeListOf<SVGElement>} */ (chart.querySelectorAll(".textpoint"));
  const names = [...all].filter((name) => /[\p{L}\p{N}]/u.test(name.textContent || ""));
  for (const name of names) name.style.translate = "";
  const boxes = names.map((name) => name.getBoundingClientRect());
  /** @type {{text: string | null, left: number, right: number, top: number, bottom: number}[]} */
  const placed = [];
  names.forEach((name, k) => {
    const { left, right, top, bottom } = boxes[k];
    const text = name.textContent;
    const covers = (/** @type {number} */ by) =>
      placed.some(
        (p) =>
          p.text !== text &&
          p.left < right + 2 &&
          left < p.right + 2 &&
          p.top < bottom + by - 3 &&
          top + by < p.bottom - 3,
      );
    const by = [0, -4, 4, -8, 8, -12, 12, -16, 16].find((shift) => !covers(shift)) || 0;
    if (by) name.style.translate = `0 ${by}px`;
    placed.push({ text, left, right, top: top + by, bottom: bottom + by });
  });
};

/**
 * How many lines a legend of these names takes, so that the axes can leave room for it before it is drawn.
 * @param {string[]} names
 * @param {number} width
 * @param {number} size
 */
export const legendLines = (names, width, size) => {
  let lines = 1;
  let used = 0;
  for (const name of names) {
    const wide = 52 + name.length * size * 0.58;
    if (used && used + wide > width) {
      lines++;
      used = 0;
    }
    used += wide;
  }
  return lines;
};

/**
 * A Plotly chart with one set of traces per frame.
 * @type {import("../types.js").Mount}
 */
export const mount = (place, spec) => {
  const bin = new Bin();
  const chart = place.appendChild(make("div", "viz-plot"));
  /** @type {any[] | null} */
  let shown = null;
  /** Width and top margin of what is drawn. @type {[number, number]} */
  let size = [0, 0];
  let busy = false;
  let gone = false;
  let reach = 0; // of the bars of all frames, where the axis stands still (`steady`)

  const layoutOf = (/** @type {number} */ width, /** @type {any[]} */ data) => {
    const ink = color("text");
    const grid = color("grid");
    const size = textSize();
    const letters = { color: ink, size, family: getComputedStyle(document.body).fontFamily };
    const axis = (/** @type {any} */ a, /** @type {number} */ room) => ({
      ...a,
      title: { ...a.title, font: { ...letters, size: Math.min(size, room / (0.52 * (a.title?.text?.length || 1))) } },
      gridcolor: grid,
      zerolinecolor: grid,
      linecolor: grid,
      fixedrange: true,
    });
    // margins and heights are given for the letters of every day
    const grow = size / 13;
    const { t, r, b, l } = { t: 0, r: 0, b: 0, l: 0, ...spec.layout.margin };
    const margin = { t: t * grow, r: grow > 1 ? (r + 6) * grow : r, b: b * grow, l: l * grow };
    const height = (spec.height || 280) * Math.sqrt(grow);
    let extra = 0;
    if (spec.layout.showlegend) {
      const names = data.filter((t) => t.name && t.showlegend !== false).map((t) => t.name);
      extra = (legendLines(names, width - 20, size) - 1) * size * 1.5;
      margin.t = size * 2.2 + extra;
    }
    chart.style.height = height + extra + "px";
    return {
      ...spec.layout,
      margin,
      width,
      font: letters,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: axis(
        reach ? { ...spec.layout.xaxis, range: [0, 1.05 * reach] } : spec.layout.xaxis,
        width - margin.l + margin.r,
      ),
      yaxis: axis(spec.layout.yaxis, height + extra),
    };
  };

  const redraw = async () => {
    if (busy || !shown || !place.clientWidth) return;
    busy = true;
    const data = shown;
    const width = place.clientWidth;
    try {
      const Plotly = await plotly();
      if (gone) return;
      const layout = layoutOf(width, data);
      // `react` keeps the old size of the drawing where width and margins change together, as they do with a legend
      const draw = layout.width === size[0] && layout.margin.t === size[1] ? Plotly.react : Plotly.newPlot;
      size = [layout.width, layout.margin.t];
      await draw(chart, data.map(painted), layout, { responsive: false, displayModeBar: false });
      keepApart(chart);
      chart.querySelectorAll("svg").forEach((node) => node.setAttribute("aria-hidden", "true"));
      chart.setAttribute("role", "img");
      chart.setAttribute("aria-label", `${spec.title}: ` + data.map(inWords).join("; "));
    } finally {
      busy = false;
    }
    if (!gone && (shown !== data || place.clientWidth !== width)) redraw();
  };
  chart.style.height = (spec.height || 280) + "px";
  bin.onResize(place, redraw);
  bin.add(onTheme(redraw));
  bin.add(() => {
    gone = true;
    if (loading)
      loading.then(
        (Plotly) => Plotly.purge(chart),
        () => {},
      );
  });

  return {
    grown: (frames) => {
      if (spec.steady) for (const frame of frames) for (const t of frame[spec.id]) reach = Math.max(reach, ...t.x);
    },
    clear: () => (reach = 0),
    show: (frames, i) => {
      const data = frames.length ? frames[i][spec.id] : null;
      if (!data || data === shown) return;
      shown = data;
      redraw();
    },
    destroy: () => bin.empty(),
  };
};
