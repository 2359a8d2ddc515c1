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
    this.ranges = Object.fromEntries(
      ["opacity", "brightness", "contrast"].map((name) => [name, root.querySelector(`[name=${name}]`)]),
    );
    this.help = root.querySelector("details");
    this.planes = [...root.querySelectorAll(".plane")].map((element) => ({
      canvas: element.querySelector("canvas"),
      slider: element.querySelector("input"),
      position: element.querySelector(".position"),
      axes: element.querySelector("canvas").dataset.axes.split(" ").map(Number),
      pointers: new Map(),
      wheel: new Wheel(),
    }));
    this.plane = 0;
    this.listen();
    this.open();
  }

  listen() {
    this.select.addEventListener("change", () => this.open());
    for (const input of [...Object.values(this.ranges), ...Object.values(this.toggles)]) {
      input.addEventListener("input", () => this.draw());
    }
    for (const button of this.root.querySelectorAll("button")) {
      button.addEventListener("click", () => this.do(keyAction(button.value, false)));
    }
    this.planes.forEach((plane, k) => {
      plane.slider.addEventListener("input", () => {
        if (!this.scan) return;
        this.plane = k;
        const through = plane.axes[2];
        this.view.step(through, Number(plane.slider.value) - this.view.at[through]);
        this.draw();
      });
      this.listenToPictures(plane, k);
    });
    this.root.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  listenToPictures(plane, k) {
    const on = (name, act, options) =>
      plane.canvas.addEventListener(name, (event) => this.scan && act.call(this, plane, event), options);
    plane.canvas.addEventListener("focus", () => (this.plane = k));
    on("pointerdown", this.grasp);
    on("pointermove", this.drag);
    on("pointerup", this.release);
    on("pointercancel", this.release);
    on("click", this.tap);
    on("wheel", this.roll, { passive: false });
    on("contextmenu", (_, event) => event.preventDefault());
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
    this.view = new View(this.scan, this.scan.centre());
    this.ranges.brightness.value = this.ranges.contrast.value = 0;
    for (const { slider, axes } of this.planes) slider.max = this.scan.shape[axes[2]] - 1;
    for (const name of ["truth", "error"]) this.toggles[name].disabled = !this.scan.labelled;
    this.root.querySelector(".scan-note").textContent = this.scan.note;
    this.draw();
  }

  draw() {
    if (!this.scan) return;
    const greys = greyRange(Number(this.ranges.brightness.value), Number(this.ranges.contrast.value));
    const table = greyTable(greys);
    for (const plane of this.planes) {
      const through = plane.axes[2];
      plane.slider.value = this.view.at[through];
      plane.position.textContent = `${this.view.at[through] + 1} / ${this.scan.shape[through]}`;
      this.drawPlane(plane, table);
    }
    const [black, white] = inUnits(greys, this.scan.window);
    this.root.querySelector(".greys").textContent = `black ${black}, white ${white}`;
    this.describe();
  }

  drawPlane(plane, table) {
    const { canvas, axes } = plane;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const side = Math.round(canvas.clientWidth * ratio);
    if (side === 0) return;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const { voxel, corner, size } = this.view.layout(axes, side);
    const show = Object.fromEntries(Object.entries(this.toggles).map(([k, box]) => [k, box.checked]));
    show.opacity = this.ranges.opacity.value / 100;
    const slice = paint(this.scan, axes, this.view.at[axes[2]], show, this.colours, table);
    const picture = (pixels) => new ImageData(pixels, slice.width, slice.height);
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
    this.blit(context, picture(slice.under), corner, size, true);
    this.blit(context, picture(slice.over), corner, size, false);
    if (show.truth && this.scan.truth) this.drawOutlines(context, plane, voxel, corner, ratio);
    this.drawCrosshair(context, plane, voxel, corner, ratio);
    this.drawLetters(context, axes, ratio);
  }

  blit(context, pixels, [x, y], [width, height], smooth) {
    const small = document.createElement("canvas");
    small.width = pixels.width;
    small.height = pixels.height;
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.imageSmoothingEnabled = smooth;
    context.drawImage(small, x, y, width, height);
  }

  drawOutlines(context, { axes }, [w, h], [left, top], ratio) {
    const paths = new Map();
    for (const [name, x0, y0, x1, y1] of outlines(this.scan, axes, this.view.at[axes[2]])) {
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
    const x = left + (this.view.at[across] + 0.5) * w;
    const y = top + (this.view.at[down] + 0.5) * h;
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
    const k = this.scan.index(this.view.at);
    const name = (v) => (v === UNKNOWN ? "not annotated" : v ? this.names[v - 1] : "background");
    const parts = [`prediction: ${name(this.scan.prediction[k])}`];
    if (this.scan.truth) {
      const kind = errorKind(this.scan.truth[k], this.scan.prediction[k]);
      parts.push(`truth: ${name(this.scan.truth[k])}${kind ? ` (${kind})` : ""}`);
    }
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

  pixel({ canvas }, event) {
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  }

  // A finger on a picture without focus scrolls the page; a tap moves the crosshair and gives focus.
  grasp(plane, event) {
    const { canvas, pointers } = plane;
    plane.tapped = event.pointerType === "touch";
    if (plane.tapped && document.activeElement !== canvas) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, this.pixel(plane, event));
    plane.gesture = pointers.size > 1 ? "pinch" : dragKind(event);
    if (plane.gesture === "crosshair" && !plane.tapped) this.drag(plane, event);
  }

  drag(plane, event) {
    const { axes, canvas: { width: side }, pointers } = plane;
    const from = pointers.get(event.pointerId);
    if (!from) return;
    const before = [...pointers.values()];
    const to = this.pixel(plane, event);
    pointers.set(event.pointerId, to);
    const by = to.map((p, k) => p - from[k]);
    if (plane.gesture === "crosshair") this.view.point(axes, side, to);
    else if (plane.gesture === "pan") this.view.pan(axes, side, by);
    else if (plane.gesture === "greys") this.shiftGreys(by.map((p) => (200 * p) / side));
    else if (before.length === 2) this.view.pinch(axes, side, before, [...pointers.values()]);
    this.draw();
  }

  release(plane, event) {
    plane.pointers.delete(event.pointerId);
  }

  tap(plane, event) {
    if (!plane.tapped) return;
    plane.canvas.focus({ preventScroll: true });
    this.view.point(plane.axes, plane.canvas.width, this.pixel(plane, event));
    this.draw();
  }

  // At the last slice the wheel scrolls the page again.
  roll(plane, event) {
    const { axes, canvas, wheel } = plane;
    if (event.ctrlKey || event.metaKey) {
      const factor = Math.exp(-wheel.pixels(event.deltaY, event.deltaMode) / 200);
      this.view.zoomAt(axes, canvas.width, factor, this.pixel(plane, event));
    } else if (event.deltaY && this.view.hasRoom(axes[2], event.deltaY)) {
      this.view.step(axes[2], wheel.slices(event.deltaY, event.deltaMode));
    } else return;
    event.preventDefault();
    this.draw();
  }

  // As in other viewers: to the right for less contrast, upwards for brighter.
  shiftGreys([right, down]) {
    this.shift("contrast", -right / 2);
    this.shift("brightness", -down);
  }

  shift(name, by) {
    const range = this.ranges[name];
    range.value = Number(range.value) + by;
  }

  press(event) {
    // Sliders and the list of scans have arrow keys of their own, buttons have the space bar.
    const own = event.target.matches("select, input[type=range]");
    if (!this.scan || event.ctrlKey || event.metaKey || event.altKey) return;
    if (own && (event.target === this.select || event.key.startsWith("Arrow"))) return;
    const action = keyAction(event.key, event.shiftKey);
    if (!action) return;
    event.preventDefault();
    this.do(action);
  }

  do([name, ...values]) {
    if (this.scan) this[name](...values);
    this.draw();
  }

  // The actions of `keyAction`.
  step(offset, by) {
    this.view.step(this.planes[(this.plane + offset) % 3].axes[2], by);
  }

  pan(direction) {
    const { axes, canvas } = this.planes[this.plane];
    this.view.pan(axes, canvas.width, direction.map((sign) => (sign * canvas.width) / 10));
  }

  focusPlane(k) {
    this.planes[(this.plane = k)].canvas.focus();
  }

  toggle(name) {
    const box = this.toggles[name];
    if (!box.disabled) box.checked = !box.checked;
  }

  zoom(factor) {
    this.view.zoomBy(factor);
  }

  reset() {
    this.view.reset();
    this.ranges.brightness.value = this.ranges.contrast.value = 0;
  }

  showHelp() {
    this.help.open = !this.help.open;
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
