// What the viewer shows, without the page: scans, views of them, colours and gestures.
const UNKNOWN = 255;
const MAX_ZOOM = 16;
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// A scan's voxels.
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

// The crosshair in a scan, and the part of it that is shown: `focus` lies in every picture's middle.
// Places are in voxels, 0 at the first one's edge. Pictures are square, `side` pixels wide.
class View {
  constructor({ shape, spacing }, at) {
    Object.assign(this, { shape, spacing, at });
    this.reset();
  }

  reset() {
    this.zoom = 1;
    this.focus = this.shape.map((n) => n / 2);
  }

  place(axis, position) {
    this.at[axis] = clamp(Math.floor(position), 0, this.shape[axis] - 1);
  }

  hasRoom(axis, by) {
    return by < 0 ? this.at[axis] > 0 : this.at[axis] < this.shape[axis] - 1;
  }

  // Move the crosshair by voxels; zoomed pictures follow.
  step(axis, by) {
    this.place(axis, this.at[axis] + by);
    const half = this.shape[axis] / this.zoom / 2;
    this.look(axis, clamp(this.focus[axis], this.at[axis] + 1 - half, this.at[axis] + half));
  }

  // Move the pictures' middle, as far as they stay full.
  look(axis, position) {
    const half = this.shape[axis] / this.zoom / 2;
    this.focus[axis] = clamp(position, half, this.shape[axis] - half);
  }

  // Return a plane's voxel size, and the corner and size of its slice, in pixels.
  layout(plane, side) {
    const axes = plane.slice(0, 2);
    const fit = Math.min(...axes.map((a) => side / (this.shape[a] * this.spacing[a])));
    const voxel = axes.map((a) => fit * this.zoom * this.spacing[a]);
    const corner = axes.map((a, k) => side / 2 - this.focus[a] * voxel[k]);
    return { voxel, corner, size: axes.map((a, k) => this.shape[a] * voxel[k]) };
  }

  // Return the place under a pixel: two voxel positions, across and down.
  under(plane, side, pixel) {
    const { voxel, corner } = this.layout(plane, side);
    return pixel.map((p, k) => (p - corner[k]) / voxel[k]);
  }

  point(plane, side, pixel) {
    this.under(plane, side, pixel).forEach((position, k) => this.place(plane[k], position));
  }

  // Move what is shown by pixels.
  pan(plane, side, by) {
    const { voxel } = this.layout(plane, side);
    by.forEach((pixels, k) => this.look(plane[k], this.focus[plane[k]] - pixels / voxel[k]));
  }

  // Zoom; what is `fixed` stays in its place, by default the crosshair.
  zoomBy(factor, fixed = this.at.map((n) => n + 0.5)) {
    const before = this.zoom;
    this.zoom = clamp(before * factor, 1, MAX_ZOOM);
    fixed.forEach((p, a) => this.look(a, p + ((this.focus[a] - p) * before) / this.zoom));
  }

  zoomAt(plane, side, factor, pixel) {
    const fixed = this.at.map((n) => n + 0.5);
    this.under(plane, side, pixel).forEach((position, k) => (fixed[plane[k]] = position));
    this.zoomBy(factor, fixed);
  }

  // Follow two fingers from their pixels before to those after.
  pinch(plane, side, [a, b], [c, d]) {
    const gap = (p, q) => Math.max(1, Math.hypot(p[0] - q[0], p[1] - q[1]));
    const middle = (p, q) => p.map((x, k) => (x + q[k]) / 2);
    const to = middle(c, d);
    this.pan(plane, side, to.map((x, k) => x - middle(a, b)[k]));
    this.zoomAt(plane, side, gap(c, d) / gap(a, b), to);
  }
}

// Wheel events as whole slices: a notch is one, the small ones of a touchpad add up to one.
class Wheel {
  constructor(notch = 50) {
    this.notch = notch;
    this.rest = 0;
  }

  // Return an event's pixels, a notch at most; `mode` is 0 where it counts pixels.
  pixels(delta, mode) {
    return clamp(mode ? delta * this.notch : delta, -this.notch, this.notch);
  }

  slices(delta, mode) {
    const pixels = this.pixels(delta, mode);
    if (pixels * this.rest < 0) this.rest = 0;
    this.rest += pixels;
    const whole = Math.trunc(this.rest / this.notch);
    this.rest -= whole * this.notch;
    return whole;
  }
}

// Return what dragging with a button and modifier keys does.
function dragKind({ button, shiftKey, ctrlKey }) {
  if (button === 2 || (button === 0 && ctrlKey)) return "greys";
  if (button !== 0) return null;
  return shiftKey ? "pan" : "crosshair";
}

const KEYS = {
  ArrowUp: ["step", 0, -1], ArrowDown: ["step", 0, 1],
  ArrowLeft: ["step", 1, -1], ArrowRight: ["step", 1, 1],
  1: ["focusPlane", 0], 2: ["focusPlane", 1], 3: ["focusPlane", 2],
  p: ["toggle", "prediction"], t: ["toggle", "truth"],
  e: ["toggle", "error"], u: ["toggle", "uncertainty"],
  "+": ["zoom", 1.25], "=": ["zoom", 1.25], "-": ["zoom", 0.8], "−": ["zoom", 0.8],
  b: ["shift", "brightness", 5], d: ["shift", "brightness", -5],
  c: ["shift", "contrast", 5], f: ["shift", "contrast", -5],
  ".": ["shift", "opacity", 10], ",": ["shift", "opacity", -10],
  r: ["reset"], "[": ["turn", -1], "]": ["turn", 1], "?": ["showHelp"],
};
const PANS = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 0], ArrowRight: [-1, 0] };

// Return what a key does, as a name and its arguments, or undefined.
function keyAction(key, shift) {
  if (shift && PANS[key]) return ["pan", PANS[key]];
  return KEYS[key.length === 1 ? key.toLowerCase() : key];
}

// Return the stored greys that are drawn black and white; 0 and 0 leave the scan as it is stored.
function greyRange(brightness, contrast) {
  const width = 255 * 2 ** (-contrast / 25);
  const middle = 127.5 * (1 - brightness / 100);
  return [middle - width / 2, middle + width / 2];
}

// Return the drawn grey of each stored one.
function greyTable([low, high]) {
  return Uint8ClampedArray.from({ length: 256 }, (_, grey) => (255 * (grey - low)) / (high - low));
}

// Return greys in the scan's own unit, as text.
function inUnits(range, [low, high]) {
  const value = (grey) => low + (grey / 255) * (high - low);
  return range.map((grey) => String(Number(value(grey).toPrecision(3))).replace("-", "−"));
}

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

// Return the RGBA pixels of a slice, one per voxel: the greys (`under`) and the colours (`over`).
// Errors cover more than classes of the same opacity, or a class's grey would change their colour.
function paint(scan, plane, position, show, colours, greys) {
  const s = scan.slice(plane, position);
  const under = new Uint8ClampedArray(4 * s.width * s.height);
  const over = new Uint8ClampedArray(under.length);
  const put = (pixels, at, [r, g, b], alpha) => {
    pixels[at] = r;
    pixels[at + 1] = g;
    pixels[at + 2] = b;
    pixels[at + 3] = alpha;
  };
  const faint = 255 * show.opacity;
  const strong = 255 * (1 - (1 - show.opacity) ** 2);
  let at = 0;
  for (let y = 0; y < s.height; y++) {
    for (let x = 0; x < s.width; x++, at += 4) {
      const k = s.start + x * s.right + y * s.below;
      under[at] = under[at + 1] = under[at + 2] = greys[scan.grey[k]];
      under[at + 3] = 255;
      const label = show.prediction ? scan.prediction[k] : 0;
      const kind = show.error && scan.truth ? errorKind(scan.truth[k], scan.prediction[k]) : null;
      const unsure = show.uncertainty ? scan.uncertainty[k] / scan.levels : 0;
      if (kind) put(over, at, colours.errors[kind], strong);
      else if (unsure > 0) put(over, at, glow(unsure), faint * (0.3 + 0.7 * unsure));
      else if (label) put(over, at, colours.classes[label - 1], faint);
    }
  }
  return { width: s.width, height: s.height, under, over };
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
