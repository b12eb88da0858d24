// Round numbers for the ticks of an axis.

/**
 * At most about `most` round numbers from low to high. A range that differs only in the last bits has one tick:
 * steps smaller than the numbers can tell apart would never end.
 * @param {number} low
 * @param {number} high
 * @param {number} most
 * @returns {number[]}
 */
export const niceTicks = (low, high, most) => {
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (!Number.isFinite(size) || !(high - low > size * 1e-9)) return Number.isFinite(low) ? [low] : [];
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * (1 - 1e-9)) ?? 10 * power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-6);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, k) => +((first + k) * step).toPrecision(12));
};

/**
 * The range of an axis around its values: a little room on both sides, and some even where all values are the same.
 * @param {number} low
 * @param {number} high
 * @returns {[number, number]}
 */
export const padded = (low, high) => {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const size = Math.max(Math.abs(low), Math.abs(high));
  const pad = high - low > size * 1e-9 ? (high - low) * 0.06 : size * 0.05 || 0.5;
  return [low - pad, high + pad];
};
