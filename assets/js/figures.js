// Figures of a run: cards for the headlines, a table for all. What stands beside a number is worded by its kind.

import { make, short } from "./dom.js";

/** @typedef {import("./types.js").Figure} Figure */

/** What the other number is called, by kind. @type {Record<string, string>} */
export const BESIDE = {
  theory: "formula says",
  paper: "paper reports",
  baseline: "compared with",
  limit: "limit",
};

/**
 * The gap in percent, where there is one: only against a theory or a paper.
 * @param {Figure} figure
 */
export const gapOf = (figure) => {
  if (figure.gap === null || figure.predicted === null) return "";
  const tiny = Math.abs(figure.gap) <= 1e-6 * Math.abs(figure.predicted);
  if (figure.gap === 0 || tiny) return "no gap";
  const sign = figure.gap > 0 ? "+" : "−";
  if (!figure.predicted) return `gap ${sign}${short(Math.abs(figure.gap))}`;
  const percent = Math.abs((100 * figure.gap) / figure.predicted);
  return `gap ${sign}${percent >= 99.5 ? short(Math.round(percent)) : +percent.toPrecision(2)} %`;
};

/**
 * "formula says 4.09 (ln V: ...)", or where the number comes from.
 * @param {Figure} figure
 */
export const besideOf = (figure) => {
  if (!figure.against || figure.predicted === null) return "";
  return `${BESIDE[figure.against]} ${short(figure.predicted)}`;
};

/**
 * The headline figures, at most four, as cards.
 * @param {HTMLElement} place
 * @param {Figure[]} figures
 */
export const showCards = (place, figures) => {
  place.textContent = "";
  for (const figure of figures.filter((f) => f.headline && f.measured !== null).slice(0, 4)) {
    const card = place.appendChild(make("div", "viz-figure"));
    card.appendChild(make("h4", "", figure.name));
    card.appendChild(make("strong", "", short(figure.measured)));
    card.appendChild(make("span", "viz-unit", figure.unit));
    const beside = besideOf(figure);
    if (beside) card.appendChild(make("p", "", beside));
    if (figure.source) card.appendChild(make("small", "", figure.source));
    const gap = gapOf(figure);
    const kind = figure.label === "measured" ? "measured here" : figure.label;
    card.appendChild(make("span", `viz-tag viz-tag-${figure.against ?? "none"}`, gap ? `${kind} · ${gap}` : kind));
  }
  place.hidden = !place.childElementCount;
};

/**
 * All figures as a table.
 * @param {HTMLElement} place
 * @param {Figure[]} figures
 * @param {string} machine
 */
export const showTable = (place, figures, machine) => {
  place.textContent = "";
  if (!figures.length) return;
  const table = place.appendChild(make("table"));
  table.appendChild(make("caption", "", "Each number of this run, and what it is compared with"));
  const head = table.appendChild(make("thead")).appendChild(make("tr"));
  for (const name of ["figure", "this run", "compared with", "gap"]) {
    const cell = head.appendChild(make("th", "", name));
    cell.scope = "col";
  }
  const body = table.appendChild(make("tbody"));
  for (const figure of figures) {
    const row = body.appendChild(make("tr"));
    const name = row.appendChild(make("th", "", figure.name));
    name.scope = "row";
    name.appendChild(make("small", "", `${figure.unit} · ${figure.label}`));
    row.appendChild(make("td", "viz-number", short(figure.measured)));
    const beside = row.appendChild(make("td", "", besideOf(figure)));
    if (figure.source) beside.appendChild(make("small", "", figure.source));
    row.appendChild(make("td", "viz-number", gapOf(figure)));
  }
  place.appendChild(make("p", "viz-machine", "Measured on: " + machine));
};
