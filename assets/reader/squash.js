// Resizes as Pillow does (antialiased, in fixed-point numbers), so that the network sees the same pixels as in the app.

const PRECISION = 2 ** 22;

const FILTERS = {
  bicubic: { support: 2, weigh: bicubic },
  bilinear: { support: 1, weigh: (x) => Math.max(0, 1 - Math.abs(x)) },
};

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// RGBA [height, width, 4] to RGB [size, size, 3].
export function squash(rgba, width, height, size, interpolation) {
  const columns = windows(width, size, FILTERS[interpolation]);
  const rows = windows(height, size, FILTERS[interpolation]);
  const narrow = new Uint8ClampedArray(height * size * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < size; x++) {
      const { first, weights } = columns[x];
      for (let channel = 0; channel < 3; channel++) {
        let sum = PRECISION / 2;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * rgba[(y * width + first + k) * 4 + channel];
        narrow[(y * size + x) * 3 + channel] = Math.floor(sum / PRECISION);
      }
    }
  }
  const square = new Uint8ClampedArray(size * size * 3);
  for (let y = 0; y < size; y++) {
    const { first, weights } = rows[y];
    for (let x = 0; x < size * 3; x++) {
      let sum = PRECISION / 2;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * narrow[(first + k) * size * 3 + x];
      square[y * size * 3 + x] = Math.floor(sum / PRECISION);
    }
  }
  return new Uint8Array(square.buffer);
}

// For each output pixel: the first input pixel that counts, and the weights from there on.
function windows(length, size, { support, weigh }) {
  const scale = length / size;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: size }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const end = Math.min(length, Math.trunc(centre + support * stretch + 0.5));
    const weights = Array.from({ length: end - first }, (_, k) => weigh((k + first - centre + 0.5) / stretch));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: weights.map((weight) => Math.sign(weight) * Math.trunc(0.5 + (Math.abs(weight) / total) * PRECISION)) };
  });
}
