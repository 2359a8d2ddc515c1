// A scan's voxels, and the colours of a slice of them.
class Scan {
  constructor(facts, bytes) {
    Object.assign(this, facts);
    const size = this.shape[0] * this.shape[1] * this.shape[2];
    const part = (k) => bytes.subarray(k * size, (k + 1) * size);
    this.grey = part(0);
    this.prediction = part(1);
    this.uncertainty = part(2);
    this.truth = this.labelled ? part(3) : null;
    this.steps = [1, this.shape[0], this.shape[0] * this.shape[1]];
  }

  index(at) {
    return at[0] * this.steps[0] + at[1] * this.steps[1] + at[2] * this.steps[2];
  }

  // Return where a slice starts in the volume, its size, and the steps to neighbouring voxels.
  slice([across, down, through], position) {
    return {
      start: position * this.steps[through],
      width: this.shape[across],
      height: this.shape[down],
      right: this.steps[across],
      below: this.steps[down],
    };
  }

  // Return the centre of the foreground, where the crosshair starts.
  centre() {
    const labels = this.truth || this.prediction;
    const sums = [0, 0, 0];
    let count = 0;
    const [nx, ny] = this.shape;
    for (let k = 0; k < labels.length; k++) {
      if (labels[k] === 0 || labels[k] === UNKNOWN) continue;
      sums[0] += k % nx;
      sums[1] += Math.floor(k / nx) % ny;
      sums[2] += Math.floor(k / (nx * ny));
      count++;
    }
    return sums.map((sum, a) => Math.round(count ? sum / count : (this.shape[a] - 1) / 2));
  }
}

const UNKNOWN = 255;

// Return the kind of error at a voxel, or null; a voxel without annotation has none.
function errorKind(truth, prediction) {
  if (truth === UNKNOWN || truth === prediction) return null;
  if (prediction === 0) return "missed";
  return truth === 0 ? "extra" : "wrong class";
}

const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

// Return a colour from dark red over orange to yellow.
function glow(share) {
  return [120 + 135 * Math.min(1, share * 1.6), 255 * share ** 1.1, 60 * share ** 4];
}

async function unpack(base64) {
  const text = atob(base64.trim());
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Return two images of a slice, one pixel per voxel: the greys and the overlay.
function paint(scan, plane, position, show, colours) {
  const s = scan.slice(plane, position);
  const under = new ImageData(s.width, s.height);
  const over = new ImageData(s.width, s.height);
  const put = (at, [r, g, b], alpha) => over.data.set([r, g, b, alpha], at);
  for (let y = 0; y < s.height; y++) {
    for (let x = 0; x < s.width; x++) {
      const k = s.start + x * s.right + y * s.below;
      const at = 4 * (y * s.width + x);
      const grey = scan.grey[k];
      under.data.set([grey, grey, grey, 255], at);
      const kind = show.error && scan.truth ? errorKind(scan.truth[k], scan.prediction[k]) : null;
      const unsure = show.uncertainty ? scan.uncertainty[k] / scan.levels : 0;
      if (kind) put(at, colours.errors[kind], 255);
      else if (unsure > 0) put(at, glow(unsure), 70 + 185 * unsure);
      else if (show.prediction && scan.prediction[k]) put(at, colours.classes[scan.prediction[k] - 1], 255);
    }
  }
  return [under, over];
}

// Return the edges between voxels of different truth, as [class, x0, y0, x1, y1] in voxels.
function outlines(scan, plane, position) {
  const s = scan.slice(plane, position);
  const edges = [];
  const label = (x, y) => {
    if (x < 0 || y < 0 || x >= s.width || y >= s.height) return 0;
    const value = scan.truth[s.start + x * s.right + y * s.below];
    return value === UNKNOWN ? 0 : value;
  };
  for (let y = 0; y <= s.height; y++) {
    for (let x = 0; x <= s.width; x++) {
      const here = label(x, y);
      const left = label(x - 1, y);
      const above = label(x, y - 1);
      if (here !== left) edges.push([here || left, x, y, x, y + 1]);
      if (here !== above) edges.push([here || above, x, y, x + 1, y]);
    }
  }
  return edges;
}
