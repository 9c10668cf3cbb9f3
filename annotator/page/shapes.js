// @ts-check
/** Arithmetic on pixels: outlines of masks and heat maps of differences. Pure functions. */

/**
 * Converts RGBA pixels to a mask: 1 where there is object.
 * @param {Uint8ClampedArray} rgba
 * @returns {Uint8Array}
 */
export function toMask(rgba) {
  const mask = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < mask.length; i++) mask[i] = rgba[4 * i] > 127 ? 1 : 0;
  return mask;
}

/**
 * Traces the border of a mask as line segments on the pixels' edges, runs joined: [x0, y0, x1, y1, …].
 * @param {Uint8Array} mask
 * @param {number} width
 * @param {number} height
 * @returns {number[]}
 */
export function traceOutline(mask, width, height) {
  const lines = [];
  const at = (/** @type {number} */ x, /** @type {number} */ y) =>
    x >= 0 && y >= 0 && x < width && y < height ? mask[y * width + x] : 0;
  for (let y = 0; y <= height; y++) {
    for (let x = 0, start = -1; x <= width; x++) {
      const edge = x < width && at(x, y) !== at(x, y - 1);
      if (edge && start < 0) start = x;
      if (!edge && start >= 0) { lines.push(start, y, x, y); start = -1; }
    }
  }
  for (let x = 0; x <= width; x++) {
    for (let y = 0, start = -1; y <= height; y++) {
      const edge = y < height && at(x, y) !== at(x - 1, y);
      if (edge && start < 0) start = y;
      if (!edge && start >= 0) { lines.push(x, start, x, y); start = -1; }
    }
  }
  return lines;
}

/**
 * Dilates a mask by a square: by `radius` pixels to each side.
 * @param {Uint8Array} mask
 * @param {number} width
 * @param {number} height
 * @param {number} radius
 * @returns {Uint8Array}
 */
export function dilate(mask, width, height, radius) {
  if (radius <= 0) return mask;
  const spread = (/** @type {Uint8Array} */ from, /** @type {number} */ length, /** @type {number} */ lines,
                  /** @type {number} */ step, /** @type {number} */ stride) => {
    const to = new Uint8Array(from.length);
    for (let line = 0; line < lines; line++) {
      for (let i = 0, until = -1; i < length + radius; i++) {
        if (i < length && from[line * stride + i * step]) until = i + 2 * radius;
        if (i >= radius && i <= until) to[line * stride + (i - radius) * step] = 1;
      }
    }
    return to;
  };
  return spread(spread(mask, width, height, 1, width), height, width, width, 1);
}

const STOPS = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];

/** Colours of the heat map by difference, 0 to 255: dark to bright, steps of 1 visible at the lower end. */
const RAMP = new Uint8ClampedArray(256 * 4);
for (let value = 1; value < 256; value++) {
  const t = Math.min(1, 0.25 + (0.75 * Math.log2(1 + value)) / Math.log2(65)) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(t));
  for (let c = 0; c < 3; c++) RAMP[4 * value + c] = STOPS[low][c] + (STOPS[low + 1][c] - STOPS[low][c]) * (t - low);
  RAMP[4 * value + 3] = 255;
}

/**
 * Computes the heat map of the difference of two pictures outside a mask: the largest difference of a channel, as
 * colour on black. Inside the mask it is transparent.
 * @param {Uint8ClampedArray} first RGBA
 * @param {Uint8ClampedArray} second RGBA
 * @param {Uint8Array} mask
 * @returns {{rgba: Uint8ClampedArray, changed: number, outside: number, largest: number}} pixels that differ, pixels
 *   outside the mask, and the largest difference
 */
export function computeHeat(first, second, mask) {
  const rgba = new Uint8ClampedArray(first.length);
  let changed = 0, outside = 0, largest = 0;
  for (let i = 0, p = 0; p < mask.length; p++, i += 4) {
    if (mask[p]) continue;
    outside++;
    const difference = Math.max(
      Math.abs(first[i] - second[i]), Math.abs(first[i + 1] - second[i + 1]), Math.abs(first[i + 2] - second[i + 2]));
    rgba[i + 3] = 184;
    if (difference) {
      changed++;
      if (difference > largest) largest = difference;
      const c = 4 * difference;
      rgba[i] = RAMP[c]; rgba[i + 1] = RAMP[c + 1]; rgba[i + 2] = RAMP[c + 2]; rgba[i + 3] = 255;
    }
  }
  return { rgba, changed, outside, largest };
}

/**
 * Shrinks a heat map so that no difference vanishes: of each block of pixels the most different one stays.
 * @param {Uint8ClampedArray} rgba of the map
 * @param {number} width
 * @param {number} height
 * @param {number} side of the shrunk map at most, px
 * @returns {{rgba: Uint8ClampedArray, width: number, height: number}}
 */
export function shrinkHeat(rgba, width, height, side) {
  const step = Math.ceil(Math.max(width, height) / side);
  if (step <= 1) return { rgba, width, height };
  const small = { width: Math.ceil(width / step), height: Math.ceil(height / step) };
  const from = new Uint32Array(rgba.buffer, rgba.byteOffset, width * height);
  const to = new Uint32Array(small.width * small.height), most = new Int32Array(to.length).fill(-1);
  for (let y = 0, p = 0; y < height; y++) {
    const line = Math.floor(y / step) * small.width;
    for (let x = 0; x < width; x++, p++) {
      const at = line + Math.floor(x / step), i = 4 * p;
      const weight = 1024 * rgba[i + 3] + rgba[i] + rgba[i + 1] + rgba[i + 2];
      if (weight > most[at]) { most[at] = weight; to[at] = from[p]; }
    }
  }
  return { rgba: new Uint8ClampedArray(to.buffer), ...small };
}
