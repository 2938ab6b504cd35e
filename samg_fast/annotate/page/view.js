// Draws a frame, the objects' masks over it, and what is being done.

export const COLOURS = ["#ff30e0", "#30a0ff", "#ffc828", "#40e080", "#ff7030", "#a070ff"];

export const colour = (index) => COLOURS[index % COLOURS.length];

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.frame = null;
    this.masks = [];
    this.cross = null;
    this.draft = null;
  }

  // How many pixels of the canvas a pixel of the frame takes: small frames are enlarged, so that edges can be seen
  get scale() {
    return Math.max(1, Math.round(720 / Math.max(this.frame.width, this.frame.height)));
  }

  show(frame, masks) {
    this.frame = frame;
    this.masks = masks;
    this.canvas.width = frame.width * this.scale;
    this.canvas.height = frame.height * this.scale;
    this.draw();
  }

  // Where a pointer is, in pixels of the frame
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    // The canvas is fitted into its box, with bars at two sides
    const fit = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const left = box.left + (box.width - this.canvas.width * fit) / 2;
    const top = box.top + (box.height - this.canvas.height * fit) / 2;
    const size = fit * this.scale;
    return this.inside((event.clientX - left) / size - 0.5, (event.clientY - top) / size - 0.5);
  }

  inside(x, y) {
    return {
      x: Math.min(Math.max(Math.round(x), 0), this.frame.width - 1),
      y: Math.min(Math.max(Math.round(y), 0), this.frame.height - 1),
    };
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.frame, 0, 0, width, height);
    for (const { image, colour, absent } of this.masks) this.#tint(context, image, colour, absent);
    if (this.draft) this.#draft(context);
    if (this.cross) this.#cross(context);
  }

  #tint(context, mask, colour, absent) {
    const { width, height } = this.canvas;
    const layer = new OffscreenCanvas(width, height);
    const paint = layer.getContext("2d");
    paint.imageSmoothingEnabled = false;
    paint.drawImage(mask, 0, 0, width, height);
    paint.globalCompositeOperation = "source-in";
    paint.fillStyle = colour;
    paint.fillRect(0, 0, width, height);
    context.globalAlpha = absent ? 0.15 : 0.45;
    context.drawImage(layer, 0, 0);
    context.globalAlpha = 1;
    if (!absent) this.#outline(context, layer);
  }

  #outline(context, layer) {
    const edge = new OffscreenCanvas(layer.width, layer.height);
    const paint = edge.getContext("2d");
    for (const [x, y] of [[-2, 0], [2, 0], [0, -2], [0, 2]]) paint.drawImage(layer, x, y);
    paint.globalCompositeOperation = "destination-out";
    paint.drawImage(layer, 0, 0);
    context.drawImage(edge, 0, 0);
  }

  #draft(context) {
    const { kind, colour, points, radius, from, to } = this.draft;
    const size = this.scale;
    context.strokeStyle = colour;
    context.fillStyle = colour;
    context.lineCap = context.lineJoin = "round";
    if (kind === "box") {
      context.lineWidth = 2;
      context.strokeRect((from.x + 0.5) * size, (from.y + 0.5) * size, (to.x - from.x) * size, (to.y - from.y) * size);
      return;
    }
    context.globalAlpha = 0.6;
    context.lineWidth = 2 * radius * size;
    context.beginPath();
    for (const [x, y] of points) context.lineTo((x + 0.5) * size, (y + 0.5) * size);
    if (points.length === 1) context.lineTo((points[0][0] + 0.5) * size + 0.1, (points[0][1] + 0.5) * size);
    context.stroke();
    context.globalAlpha = 1;
  }

  #cross(context) {
    const x = (this.cross.x + 0.5) * this.scale;
    const y = (this.cross.y + 0.5) * this.scale;
    for (const [style, width] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(x - 9, y);
      context.lineTo(x + 9, y);
      context.moveTo(x, y - 9);
      context.lineTo(x, y + 9);
      context.stroke();
    }
  }
}
