// All views by the name that Python gives them.

import { mount as anatomy } from "./anatomy.js";
import { mount as brush } from "./brush.js";
import { mount as chips } from "./chips.js";
import { mount as draw } from "./draw.js";
import { mount as gantt } from "./gantt.js";
import { mount as lines } from "./lines.js";
import { mount as matrix } from "./matrix.js";
import { mount as pairs } from "./pairs.js";
import { mount as pictures } from "./pictures.js";
import { mount as plot } from "./plot.js";
import { mount as reader } from "./reader.js";
import { mount as text } from "./text.js";

/** @type {Record<string, import("../types.js").Mount>} */
export const views = { anatomy, brush, chips, draw, gantt, lines, matrix, pairs, pictures, plot, reader, text };

/** Views that a run adds to (`update`); the others show a frame. */
export const live = new Set(["lines", "text"]);
