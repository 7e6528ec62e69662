"use strict";

const LEVELS = 10;
const MOST_STROKES = 500;
const DOT = 2; // pixels
const ROW = 64;
const ABOVE = 320; // what stands above the graph in the window
const BACK_TO_FRONT = ["undecided", "kept", "lost", "gained", "neither", "first", "second", "both"];
const FAINT = new Set(["undecided", "kept", "neither"]); // what changed, or is of a sub-task, stands out
const DASHED = new Set(["undecided", "neither"]);
const UNMARKED = new Set(["kept", "both"]); // most nodes
const NODE_LABELS = { input: "input", logits: "logits" };

/* The picture of a comparison: rows of nodes, the input at the bottom, and curves that run upwards. */
class Graph {
  constructor(canvas, tip, pick, tell) {
    Object.assign(this, { canvas, tip, pick, tell, shown: null, picked: null });
    canvas.addEventListener("mousemove", (event) => this.hover(event));
    canvas.addEventListener("mouseleave", () => (tip.hidden = true));
    canvas.addEventListener("click", (event) => this.pick(this.nodeAt(event.offsetX, event.offsetY)));
    new ResizeObserver(() => this.shown && this.draw()).observe(canvas.parentElement);
  }

  show(comparison, shown, picked) {
    Object.assign(this, { comparison, shown, picked });
    this.draw();
  }

  draw() {
    const { model } = this.comparison;
    const width = this.canvas.parentElement.clientWidth;
    const height = Math.min(Math.max(ROW * model.rows, 300), Math.max(window.innerHeight - ABOVE, 420));
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== width * ratio || this.canvas.height !== height * ratio) {
      Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
      this.canvas.style.height = `${height}px`;
    }
    this.place(model, width, height);
    const paint = this.canvas.getContext("2d");
    paint.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    this.colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.drawAxes(paint, model, height);
    this.drawEdges(paint);
    this.drawNodes(paint, model);
  }

  place(model, width, height) {
    const right = Math.max(...model.nodes.map((node) => node.x));
    const [left, bottom] = [52, height - 34];
    this.step = Math.min((width - left - 20) / Math.max(right, 1), (bottom - 14) / (model.rows - 0.5));
    this.radius = Math.min(Math.max(0.26 * this.step, 3), 9);
    const [across, up] = [(width - left - 20) / Math.max(right, 1), (bottom - 18) / (model.rows - 1)];
    this.places = model.nodes.map((node) => ({ x: left + node.x * across, y: bottom - node.y * up }));
    const toReader = { q: -0.6, k: 0, v: 0.6, "": 0 };
    this.curves = this.edges().map((edge) => {
      const [start, end] = [this.places[edge.source], this.places[edge.target]];
      const x = end.x + toReader[edge.input] * this.radius;
      const isLong = start.y - end.y > 1.5 * up && Math.abs(x - start.x) < 0.5 * across;
      return { edge, x0: start.x, y0: start.y, x1: x, y1: end.y, bend: isLong ? -0.06 * (start.y - end.y) : 0 };
    });
  }

  edges() {
    const { drawn, passing } = this.shown;
    const ofPicked = (edge) => edge.source === this.picked || edge.target === this.picked;
    return this.picked === null ? drawn : [...drawn.filter((edge) => !ofPicked(edge)), ...passing.filter(ofPicked)];
  }

  drawAxes(paint, model, height) {
    paint.font = "11px system-ui, sans-serif";
    paint.fillStyle = this.colour("muted");
    const labelled = new Set();
    const every = Math.max(1, Math.round(model.rows / 14));
    model.nodes.forEach((node, at) => {
      const { x, y } = this.places[at];
      const name = NODE_LABELS[node.kind] ?? (node.row % every === 1 % every ? String(node.layer) : "");
      if (node.kind !== "mlp" && !labelled.has(node.row)) {
        labelled.add(node.row);
        paint.textAlign = "right";
        paint.fillText(name, 40, y + 4);
      }
      if (node.row !== 1 || (node.kind === "head" && node.head % Math.max(1, Math.round(24 / this.step)))) return;
      paint.textAlign = "center";
      paint.fillText(node.kind === "mlp" ? "MLP" : String(node.head), x, height - 6);
    });
  }

  drawEdges(paint) {
    const isPicked = ({ edge }) => edge.source === this.picked || edge.target === this.picked;
    const [picked, others] = [this.curves.filter(isPicked), this.curves.filter((curve) => !isPicked(curve))];
    const faded = this.picked === null ? 1 : 0.15;
    if (others.length > MOST_STROKES) this.drawDensity(paint, others.slice(MOST_STROKES), faded);
    this.drawStrokes(paint, others.slice(0, MOST_STROKES), faded);
    this.drawStrokes(paint, picked, 1);
  }

  /* Curves of one status and about one strength, drawn at once; the weakest at the back. */
  drawStrokes(paint, curves, faded) {
    const strongest = Math.max(...curves.map(({ edge }) => edge.strength), Number.MIN_VALUE);
    const crowding = Math.min(1, 300 / Math.max(curves.length, 1));
    const strokes = new Map();
    for (const { edge, x0, y0, x1, y1, bend } of curves) {
      const level = Math.min(LEVELS - 1, Math.floor(LEVELS * Math.cbrt(edge.strength / strongest)));
      const order = BACK_TO_FRONT.length * level + BACK_TO_FRONT.indexOf(edge.status);
      if (!strokes.has(order)) strokes.set(order, { level, status: edge.status, path: new Path2D() });
      const { path } = strokes.get(order);
      path.moveTo(x0, y0);
      path.bezierCurveTo(x0 + bend, y0 + (y1 - y0) / 3, x1 + bend, y1 - (y1 - y0) / 3, x1, y1);
    }
    for (const [, { level, status, path }] of [...strokes].sort(([one], [other]) => one - other)) {
      const strength = (level + 0.5) / LEVELS;
      const opacity = (0.25 + 0.7 * strength) * crowding ** (1 - strength);
      paint.globalAlpha = faded * (FAINT.has(status) ? 0.7 : 1) * Math.max(opacity, 0.05);
      paint.strokeStyle = this.colour(DASHED.has(status) ? "muted" : status);
      paint.lineWidth = 0.6 + 2.6 * strength;
      paint.setLineDash(DASHED.has(status) ? [5, 4] : []);
      paint.stroke(path);
    }
    paint.globalAlpha = 1;
    paint.setLineDash([]);
  }

  /* Thousands of weak edges: how many of each status cross a dot. Strokes of so many would take seconds. */
  drawDensity(paint, curves, faded) {
    const [width, height] = [Math.ceil(this.canvas.clientWidth / DOT), Math.ceil(this.canvas.clientHeight / DOT)];
    const { statuses } = this.comparison;
    const counts = statuses.map(() => new Uint16Array(width * height));
    for (const { edge, x0, y0, x1, y1, bend } of curves) {
      const count = counts[statuses.indexOf(edge.status)];
      const [left, bottom, across, up, aside] = [x0 / DOT, y0 / DOT, (x1 - x0) / DOT, (y1 - y0) / DOT, (3 * bend) / DOT];
      const steps = Math.ceil(Math.max(1.3 * Math.abs(across), -up));
      for (let step = 0; step < steps; step++) {
        const t = step / steps;
        count[((bottom + up * t) | 0) * width + ((left + across * t * t * (3 - 2 * t) + aside * t * (1 - t)) | 0)]++;
      }
    }
    const layer = new OffscreenCanvas(width, height);
    const image = layer.getContext("2d").createImageData(width, height);
    const all = new Uint16Array(width * height);
    for (const [at, count] of counts.entries()) {
      const colour = channels(this.colour(DASHED.has(statuses[at]) ? "muted" : statuses[at]));
      for (let pixel = 0; pixel < all.length; pixel++) {
        if (!count[pixel]) continue;
        const share = count[pixel] / (all[pixel] += count[pixel]);
        for (let c = 0; c < 3; c++) image.data[4 * pixel + c] += share * (colour[c] - image.data[4 * pixel + c]);
      }
    }
    const opacity = Array.from({ length: 64 }, (_, crossing) => 153 * faded * (1 - 0.97 ** crossing));
    for (let pixel = 0; pixel < all.length; pixel++) if (all[pixel]) image.data[4 * pixel + 3] = opacity[Math.min(all[pixel], 63)];
    layer.getContext("2d").putImageData(image, 0, 0);
    paint.drawImage(layer, 0, 0, width * DOT, height * DOT);
  }

  drawNodes(paint, model) {
    model.nodes.forEach((node, at) => {
      const status = this.comparison.nodes[at];
      const { x, y } = this.places[at];
      const isOpen = status === "absent";
      paint.beginPath();
      if (node.kind === "head") paint.arc(x, y, this.radius, 0, 2 * Math.PI);
      else paint.rect(x - this.radius, y - this.radius, 2 * this.radius, 2 * this.radius);
      paint.fillStyle = this.colour(isOpen || DASHED.has(status) ? "ground" : UNMARKED.has(status) ? "node" : status);
      paint.fill();
      paint.setLineDash(DASHED.has(status) ? [3, 2] : []);
      paint.strokeStyle = this.colour(at === this.picked ? "ink" : isOpen ? "faint" : DASHED.has(status) ? "muted" : "ground");
      paint.lineWidth = at === this.picked ? 3 : 1.1;
      paint.stroke();
    });
    paint.setLineDash([]);
  }

  nodeAt(x, y) {
    const distances = this.places.map((place) => Math.hypot(place.x - x, place.y - y));
    const nearest = distances.indexOf(Math.min(...distances));
    return distances[nearest] <= this.radius + 4 ? nearest : null;
  }

  /* A curve's height is linear in t and its x is Bezier's cubic, so one t is enough to measure the distance. */
  edgeAt(x, y) {
    let [found, least] = [null, 5];
    for (const { edge, x0, y0, x1, y1, bend } of this.curves) {
      if (this.picked !== null && edge.source !== this.picked && edge.target !== this.picked) continue;
      const t = (y0 - y) / (y0 - y1);
      if (!(t > 0 && t < 1)) continue;
      const there = x0 + (x1 - x0) * t * t * (3 - 2 * t) + 3 * bend * t * (1 - t);
      const slope = (6 * (x1 - x0) * t * (1 - t) + 3 * bend * (1 - 2 * t)) / (y1 - y0);
      const distance = Math.abs(there - x) / Math.hypot(1, slope);
      if (distance < least) [found, least] = [edge, distance];
    }
    return found;
  }

  hover(event) {
    const { offsetX: x, offsetY: y } = event;
    const node = this.nodeAt(x, y);
    const edge = node === null ? this.edgeAt(x, y) : null;
    this.tip.hidden = node === null && edge === null;
    this.canvas.style.cursor = node === null ? "default" : "pointer";
    if (this.tip.hidden) return;
    this.tip.textContent = this.tell(node, edge);
    const isRight = x > this.canvas.clientWidth / 2;
    Object.assign(this.tip.style, {
      top: `${y + 14}px`,
      left: isRight ? "auto" : `${x + 12}px`,
      right: isRight ? `${this.canvas.clientWidth - x + 12}px` : "auto",
    });
  }
}

/* Red, green and blue of a colour like #0072B2. */
function channels(colour) {
  const full = colour.length === 4 ? colour.replace(/[^#]/g, "$&$&") : colour;
  return [1, 3, 5].map((at) => parseInt(full.slice(at, at + 2), 16));
}
