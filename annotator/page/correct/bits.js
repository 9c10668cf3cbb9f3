// @ts-check
/** Masks on their way to the server and back: one bit a pixel, rows padded to bytes, deflated, in base64. */

/** @param {BufferSource} bytes @param {GenericTransformStream} stream @returns {Promise<Uint8Array>} */
async function pass(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

/**
 * @param {Uint8Array} mask 0 or 1 a pixel
 * @param {number} width
 * @param {number} height
 * @returns {Promise<string>}
 */
export async function packMask(mask, width, height) {
  const row = (width + 7) >> 3, bits = new Uint8Array(row * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) if (mask[y * width + x]) bits[y * row + (x >> 3)] |= 128 >> (x & 7);
  }
  const packed = await pass(bits, new CompressionStream("deflate"));
  let text = "";
  for (let i = 0; i < packed.length; i += 8192) text += String.fromCharCode(...packed.subarray(i, i + 8192));
  return btoa(text);
}

/** @param {string} text @param {number} width @param {number} height @returns {Promise<Uint8Array>} */
export async function unpackMask(text, width, height) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const bits = await pass(packed, new DecompressionStream("deflate"));
  const row = (width + 7) >> 3, mask = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) mask[y * width + x] = (bits[y * row + (x >> 3)] >> (7 - (x & 7))) & 1;
  }
  return mask;
}
