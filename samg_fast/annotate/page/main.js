// The page: what is chosen, what is shown, and what the hands do.

import { ask, look, picture, state } from "./api.js";
import { colour, View } from "./view.js";

const byId = (id) => document.getElementById(id);
const view = new View(byId("canvas"));
let known = { frames: [], objects: [] };
let chosen = null; // the object that is being shown
let frame = 0;
let found = {};
let drawing = 0; // only the newest answer is drawn
let shown = { number: -1, image: null };
let looking = new AbortController(); // a look that is still asked for, and of no use once the next one is

const tool = () => document.querySelector('input[name="tool"]:checked').value;
const radius = () => Number(byId("radius").value);

function say(words, wrong = false) {
  byId("status").textContent = words;
  byId("status").classList.toggle("error", wrong);
}

// Runs what may be refused, and says why
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  }
}

async function draw(seen) {
  const mine = ++drawing;
  found = seen;
  const names = known.objects.map((each) => each.name);
  const masks = await Promise.all(
    names.filter((name) => name in seen).map(async (name) => ({
      image: await picture(`data:image/png;base64,${seen[name].mask}`),
      colour: colour(names.indexOf(name)),
      absent: !seen[name].present,
    })),
  );
  if (shown.number !== frame) shown = { number: frame, image: await picture(`api/frame/${frame}`) };
  const { image } = shown;
  if (mine !== drawing) return;
  view.show(image, masks);
  list();
}

function list() {
  byId("objects").replaceChildren(...known.objects.map((each, index) => {
    const row = document.createElement("li");
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = colour(index);
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "object", value: each.name });
    radio.checked = each.name === chosen;
    radio.addEventListener("change", () => { chosen = each.name; });
    label.append(radio, ` ${each.name}`);
    const there = found[each.name];
    const figure = Object.assign(document.createElement("span"), { className: "figure" });
    figure.textContent = !there ? "" : there.reference ? "shown here" : there.present ? `found ${there.score}` : "absent";
    const rename = small("✎", `Rename ${each.name}`, () => {
      const name = window.prompt("Name", each.name);
      if (name) act("rename", { name: each.name, new: name }, name);
    });
    const remove = small("✕", `Remove ${each.name}`, () => {
      if (window.confirm(`Remove ${each.name}?`)) act("remove", { name: each.name });
    });
    row.append(swatch, label, figure, rename, remove);
    return row;
  }));
}

function small(text, label, clicked) {
  const button = Object.assign(document.createElement("button"), { textContent: text, className: "small" });
  button.setAttribute("aria-label", label);
  button.addEventListener("click", clicked);
  return button;
}

let doing = Promise.resolve(); // one after the other, so that the last word is about the last deed

function act(what, more = {}, choose = chosen) {
  doing = doing.then(() => done(what, more, choose));
  return doing;
}

function done(what, more, choose) {
  return attempt(async () => {
    const began = performance.now();
    const answered = await ask(what, { frame, ...more });
    known = answered.state;
    chosen = known.objects.some((each) => each.name === choose) ? choose : known.objects.at(-1)?.name ?? null;
    await draw(answered.found);
    const took = Math.round(performance.now() - began);
    say(answered.written.length ? `Saved ${answered.written.length} files in ${known.folder}` : `${took} ms`);
  });
}

async function show(action) {
  if (chosen === null) {
    const answered = await ask("add", { name: "object" });
    known = answered.state;
    chosen = "object";
  }
  await act("act", { name: chosen, action });
}

async function go(to) {
  frame = Math.min(Math.max(to, 0), known.frames.length - 1);
  byId("scrub").value = frame;
  byId("frame-number").textContent = `${frame + 1} / ${known.frames.length}`;
  looking.abort();
  looking = new AbortController();
  const { signal } = looking;
  await attempt(async () => {
    try {
      await draw(await look(frame, signal));
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  });
}

const strokeOf = (points) => ({ kind: "stroke", points, radius: radius(), add: tool() === "brush" });

function boxOf(from, to) {
  const [x0, x1] = [from.x, to.x].sort((a, b) => a - b);
  const [y0, y1] = [from.y, to.y].sort((a, b) => a - b);
  return { kind: "box", box: [x0, y0, x1, y1] };
}

function draft(kind, more) {
  const index = known.objects.findIndex((each) => each.name === chosen);
  const ink = tool() === "erase" ? "#808080" : colour(Math.max(index, 0));
  view.draft = kind && { kind, colour: ink, radius: radius(), ...more };
  view.draw();
}

const canvas = byId("canvas");
let pressed = null; // where a drag began, and where it went

canvas.addEventListener("contextmenu", (event) => event.preventDefault());

canvas.addEventListener("pointerdown", (event) => {
  if (!view.frame || event.button === 1) return;
  canvas.focus();
  view.cross = null;
  const at = view.at(event);
  if (tool() === "click") {
    attempt(() => show({ kind: "click", ...at, label: event.button === 2 ? 0 : 1 }));
    return;
  }
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  pressed = { from: at, points: [[at.x, at.y]] };
  if (tool() !== "box") draft("stroke", { points: pressed.points });
});

canvas.addEventListener("pointermove", (event) => {
  if (!pressed) return;
  const at = view.at(event);
  if (tool() === "box") {
    draft("box", { from: pressed.from, to: at });
  } else {
    pressed.points.push([at.x, at.y]);
    draft("stroke", { points: pressed.points });
  }
});

canvas.addEventListener("pointerup", (event) => {
  if (!pressed) return;
  const { from, points } = pressed;
  pressed = null;
  draft(null);
  attempt(() => show(tool() === "box" ? boxOf(from, view.at(event)) : strokeOf(points)));
});

canvas.addEventListener("pointercancel", () => {
  pressed = null;
  draft(null);
});

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
let corner = null; // the first one of a box that is made with keys

canvas.addEventListener("keydown", (event) => {
  if (!view.frame) return;
  const step = event.shiftKey ? 10 : 1;
  if (event.key in MOVES) {
    const from = view.cross ?? { x: view.frame.width / 2, y: view.frame.height / 2 };
    view.cross = view.inside(from.x + MOVES[event.key][0] * step, from.y + MOVES[event.key][1] * step);
    if (corner) draft("box", { from: corner, to: view.cross });
    view.draw();
    say(`${view.cross.x}, ${view.cross.y}`);
  } else if (event.key === "Enter" && view.cross) {
    if (tool() === "click") {
      attempt(() => show({ kind: "click", ...view.cross, label: event.shiftKey ? 0 : 1 }));
    } else if (tool() !== "box") {
      attempt(() => show(strokeOf([[view.cross.x, view.cross.y]])));
    } else if (corner) {
      const box = boxOf(corner, view.cross);
      corner = null;
      draft(null);
      attempt(() => show(box));
    } else {
      corner = view.cross;
    }
  } else {
    return;
  }
  event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type]), input[type=text]");
  const control = event.ctrlKey || event.metaKey;
  const step = event.shiftKey ? 10 : 1;
  if (control && event.key === "s") byId("save").click();
  else if (control && event.key === "z" && !typing) byId("undo").click();
  else if (typing || control || event.altKey) return;
  else if ("1234".includes(event.key)) document.querySelectorAll('input[name="tool"]')[event.key - 1].click();
  else if (event.key === "," || event.key === "<") go(frame - step);
  else if (event.key === "." || event.key === ">") go(frame + step);
  else if (event.key === "[" || event.key === "]") {
    byId("radius").value = radius() + (event.key === "[" ? -1 : 1);
    byId("radius").dispatchEvent(new Event("input"));
  } else if (event.key === "?") byId("help").showModal();
  else return;
  event.preventDefault();
});

byId("scrub").addEventListener("input", (event) => go(Number(event.target.value)));
byId("before").addEventListener("click", () => go(frame - 1));
byId("after").addEventListener("click", () => go(frame + 1));
byId("radius").addEventListener("input", () => { byId("radius-value").textContent = radius(); });
byId("undo").addEventListener("click", () => chosen && act("undo", { name: chosen }));
byId("save").addEventListener("click", () => act("save"));
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("new-object").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("new-name").value.trim();
  act("add", { name }, name).then(() => { byId("new-name").value = ""; });
});

await attempt(async () => {
  known = await state();
  chosen = known.objects[0]?.name ?? null;
  byId("source").textContent = `${known.source} → ${known.folder}`;
  byId("scrub").max = known.frames.length - 1;
  await go(0);
  say("Click on what is to be cut out.");
});
document.body.dataset.ready = "yes";
