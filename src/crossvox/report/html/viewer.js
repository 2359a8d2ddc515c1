// The viewer: one scan and one crosshair on three canvases, one per plane.
class Viewer {
  constructor(root) {
    this.root = root;
    const classes = JSON.parse(root.dataset.classes);
    this.names = classes.map(([name]) => name);
    this.hexes = classes.map(([, hex]) => hex);
    this.errors = Object.entries(JSON.parse(root.dataset.errors));
    this.colours = {
      classes: this.hexes.map(rgb),
      errors: Object.fromEntries(this.errors.map(([kind, hex]) => [kind, rgb(hex)])),
    };
    this.facts = [...root.querySelectorAll(".scan-facts")].map((e) => JSON.parse(e.textContent));
    this.sources = [...root.querySelectorAll(".scan-data")];
    this.select = root.querySelector("select.scan");
    this.toggles = Object.fromEntries(
      [...root.querySelectorAll("input[type=checkbox]")].map((box) => [box.name, box]),
    );
    this.opacity = root.querySelector("input[name=opacity]");
    this.planes = [...root.querySelectorAll(".plane")].map((element) => ({
      canvas: element.querySelector("canvas"),
      slider: element.querySelector("input"),
      output: element.querySelector("output"),
      axes: element.querySelector("canvas").dataset.axes.split(" ").map(Number),
    }));
    this.at = [0, 0, 0];
    this.plane = 0;
    this.listen();
    this.open();
  }

  listen() {
    this.select.addEventListener("change", () => this.open());
    this.opacity.addEventListener("input", () => this.draw());
    for (const box of Object.values(this.toggles)) {
      box.addEventListener("change", () => this.draw());
    }
    this.planes.forEach((plane, k) => {
      plane.slider.addEventListener("input", () => {
        this.plane = k;
        this.at[plane.axes[2]] = Number(plane.slider.value);
        this.draw();
      });
      plane.canvas.addEventListener("focus", () => (this.plane = k));
      plane.canvas.addEventListener("pointerdown", (event) => this.point(plane, event));
    });
    this.root.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  async open() {
    const wanted = Number(this.select.value);
    const status = this.root.querySelector(".status");
    if (typeof DecompressionStream === "undefined") {
      status.textContent = "This browser is too old for the viewer (it lacks DecompressionStream).";
      return;
    }
    status.textContent = "Opening …";
    try {
      const bytes = await unpack(this.sources[wanted].textContent);
      // Another scan may have been chosen meanwhile.
      if (wanted !== Number(this.select.value)) return;
      this.scan = new Scan(this.facts[wanted], bytes);
    } catch {
      status.textContent = "This scan cannot be opened; the file is damaged. Write the report again.";
      return;
    }
    this.at = this.scan.centre();
    for (const { slider, axes } of this.planes) slider.max = this.scan.shape[axes[2]] - 1;
    for (const name of ["truth", "error"]) this.toggles[name].disabled = !this.scan.labelled;
    this.root.querySelector(".scan-note").textContent = this.scan.note;
    this.draw();
  }

  draw() {
    if (!this.scan) return;
    for (const plane of this.planes) {
      const through = plane.axes[2];
      plane.slider.value = this.at[through];
      plane.output.textContent = `${this.at[through] + 1} / ${this.scan.shape[through]}`;
      this.drawPlane(plane);
    }
    this.describe();
  }

  // Return a voxel's size in pixels, and the picture's corner and size on the canvas.
  layout({ canvas, axes: [across, down] }) {
    const { shape, spacing } = this.scan;
    const size = [shape[across] * spacing[across], shape[down] * spacing[down]];
    const scale = Math.min(canvas.width / size[0], canvas.height / size[1]);
    const voxel = [scale * spacing[across], scale * spacing[down]];
    const corner = [(canvas.width - scale * size[0]) / 2, (canvas.height - scale * size[1]) / 2];
    return { voxel, corner, size: [scale * size[0], scale * size[1]] };
  }

  drawPlane(plane) {
    const { canvas, axes } = plane;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const side = Math.round(canvas.clientWidth * ratio);
    if (side === 0) return;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const { voxel, corner, size } = this.layout(plane);
    const show = Object.fromEntries(Object.entries(this.toggles).map(([k, box]) => [k, box.checked]));
    const [under, over] = paint(this.scan, axes, this.at[axes[2]], show, this.colours);
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
    this.blit(context, under, corner, size, 1, true);
    this.blit(context, over, corner, size, this.opacity.value / 100, false);
    if (show.truth && this.scan.truth) this.drawOutlines(context, plane, voxel, corner, ratio);
    this.drawCrosshair(context, plane, voxel, corner, ratio);
    this.drawLetters(context, axes, ratio);
  }

  blit(context, pixels, [x, y], [width, height], alpha, smooth) {
    const small = document.createElement("canvas");
    small.width = pixels.width;
    small.height = pixels.height;
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.globalAlpha = alpha;
    context.imageSmoothingEnabled = smooth;
    context.drawImage(small, x, y, width, height);
    context.globalAlpha = 1;
  }

  drawOutlines(context, { axes }, [w, h], [left, top], ratio) {
    const paths = new Map();
    for (const [name, x0, y0, x1, y1] of outlines(this.scan, axes, this.at[axes[2]])) {
      if (!paths.has(name)) paths.set(name, new Path2D());
      paths.get(name).moveTo(left + x0 * w, top + y0 * h);
      paths.get(name).lineTo(left + x1 * w, top + y1 * h);
    }
    context.lineCap = "square";
    context.lineWidth = 1.5 * ratio;
    for (const [name, path] of paths) {
      context.strokeStyle = this.hexes[name - 1];
      context.stroke(path);
    }
  }

  drawCrosshair(context, { axes: [across, down], canvas }, [w, h], [left, top], ratio) {
    const x = left + (this.at[across] + 0.5) * w;
    const y = top + (this.at[down] + 0.5) * h;
    context.strokeStyle = "rgba(255, 255, 255, 0.35)";
    context.lineWidth = ratio;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, canvas.height);
    context.moveTo(0, y);
    context.lineTo(canvas.width, y);
    context.stroke();
  }

  drawLetters(context, [across, down], ratio) {
    const [first, last] = ["RL", "AP", "SI"][across];
    const [top, bottom] = ["RL", "AP", "SI"][down];
    const { width, height } = context.canvas;
    const edge = 10 * ratio;
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3 * ratio;
    context.strokeStyle = "#000";
    context.fillStyle = "#fff";
    const places = [[first, edge, height / 2], [last, width - edge, height / 2],
                    [top, width / 2, edge], [bottom, width / 2, height - edge]];
    for (const [letter, x, y] of places) {
      context.strokeText(letter, x, y);
      context.fillText(letter, x, y);
    }
  }

  // Say in words what is at the crosshair, and show the colours' legend.
  describe() {
    const k = this.scan.index(this.at);
    const name = (v) => (v === UNKNOWN ? "not annotated" : v ? this.names[v - 1] : "background");
    const parts = [`prediction: ${name(this.scan.prediction[k])}`];
    if (this.scan.truth) parts.push(`truth: ${name(this.scan.truth[k])}`);
    parts.push(`uncertainty: ${(this.scan.uncertainty[k] / this.scan.levels).toFixed(2)}`);
    this.root.querySelector(".status").textContent = `At the crosshair: ${parts.join(", ")}`;
    const entries = this.names.map((label, n) => [label, this.hexes[n]]);
    if (this.toggles.error.checked && this.scan.truth) {
      for (const [kind, hex] of this.errors) entries.push([`error: ${kind}`, hex]);
    }
    if (this.toggles.uncertainty.checked) {
      for (const [label, v] of [["a little unsure", 0.2], ["no idea", 1]]) {
        entries.push([label, `rgb(${glow(v).map(Math.round).join(" ")})`]);
      }
    }
    this.root.querySelector(".classes").replaceChildren(...entries.map(swatch));
  }

  point(plane, event) {
    if (!this.scan) return;
    const box = plane.canvas.getBoundingClientRect();
    const ratio = plane.canvas.width / box.width;
    const { voxel, corner } = this.layout(plane);
    const pixels = [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    plane.axes.slice(0, 2).forEach((axis, k) => {
      this.move(axis, Math.floor((pixels[k] - corner[k]) / voxel[k]) - this.at[axis]);
    });
    this.draw();
  }

  move(axis, by) {
    this.at[axis] = Math.max(0, Math.min(this.scan.shape[axis] - 1, this.at[axis] + by));
  }

  press(event) {
    // Sliders and the list of scans have arrow keys of their own.
    const own = event.target.matches("select, input[type=range]");
    if (!this.scan || event.ctrlKey || event.metaKey || event.altKey) return;
    if (own && (event.target === this.select || event.key.startsWith("Arrow"))) return;
    if (!this.act(event.key)) return;
    event.preventDefault();
    this.draw();
  }

  act(key) {
    const through = (offset) => this.planes[(this.plane + offset) % 3].axes[2];
    const names = { p: "prediction", t: "truth", e: "error", u: "uncertainty" };
    const toggle = this.toggles[names[key.toLowerCase()]];
    const turn = { "[": -1, "]": 1 }[key];
    const fade = { "+": 10, "=": 10, "-": -10, "−": -10 }[key];
    if (key === "ArrowUp" || key === "ArrowDown") this.move(through(0), key === "ArrowUp" ? -1 : 1);
    else if (key === "ArrowLeft" || key === "ArrowRight") this.move(through(1), key === "ArrowLeft" ? -1 : 1);
    else if (["1", "2", "3"].includes(key)) this.planes[(this.plane = Number(key) - 1)].canvas.focus();
    else if (toggle) toggle.checked = toggle.disabled ? toggle.checked : !toggle.checked;
    else if (fade) this.opacity.value = Number(this.opacity.value) + fade;
    else if (turn) this.turn(turn);
    else return false;
    return true;
  }

  turn(by) {
    const count = this.sources.length;
    this.select.value = (Number(this.select.value) + by + count) % count;
    this.open();
  }
}

// Return a legend's entry.
function swatch([text, colour]) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const square = document.createElementNS(space, "rect");
  svg.setAttribute("viewBox", "0 0 10 10");
  for (const [name, value] of [["width", 10], ["height", 10], ["fill", colour]]) {
    square.setAttribute(name, value);
  }
  svg.append(square);
  const item = document.createElement("li");
  item.append(svg, text);
  return item;
}

for (const root of document.querySelectorAll(".viewer")) new Viewer(root);
