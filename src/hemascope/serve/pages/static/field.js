// A field: zoom and move it, name its cells in place, and add those that were missed.

import { describe, isUndo, label, mayChange, onState, send, state, text } from "./cells.js";

const SVG = "http://www.w3.org/2000/svg";
const NOT_A_CELL = "not a cell";
const field = document.getElementById("field");
const drawn = document.getElementById("drawn");
const cross = document.getElementById("cross");
const adding = document.getElementById("add");
const places = JSON.parse(document.getElementById("places").textContent);
const { width, height } = field.viewBox.baseVal;
const usual = Number(field.dataset.usual);
const selected = new Set(places[location.hash.slice(1)] ? [location.hash.slice(1)] : []);
let view = { x: 0, y: 0, width, height };
let from = null;
let pending = null;  // the box of a cell that is being added

const isAdding = () => adding?.getAttribute("aria-pressed") === "true";

function showView() {
  field.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
  const [x, y, arm] = [view.x + view.width / 2, view.y + view.height / 2, view.width / 40];
  cross.setAttribute("d", `M${x - arm} ${y}h${2 * arm}M${x} ${y - arm}v${2 * arm}`);
}

function zoom(factor, place = { x: view.x + view.width / 2, y: view.y + view.height / 2 }) {
  const by = Math.min(width / view.width, Math.max(30 / view.width, factor));
  view = {
    x: place.x - (place.x - view.x) * by,
    y: place.y - (place.y - view.y) * by,
    width: view.width * by,
    height: view.height * by,
  };
  showView();
}

function placeOf(event) {
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(field.getScreenCTM().inverse());
}

function setBox(shape, [x0, y0, x1, y1]) {
  const values = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  for (const [name, value] of Object.entries(values)) shape.setAttribute(name, value);
}

function makeBox(id) {
  const group = document.createElementNS(SVG, "g");
  const shape = document.createElementNS(SVG, "rect");
  const name = document.createElementNS(SVG, "text");
  group.dataset.id = id;
  group.setAttribute("tabindex", "0");
  group.setAttribute("role", "button");
  setBox(shape, places[id]);
  name.setAttribute("x", places[id][0]);
  name.setAttribute("y", places[id][1] - 4);
  group.append(shape, name);
  document.getElementById("boxes").append(group);
  return group;
}

function show() {
  if (state.added && pending) places[state.added] = pending;
  const mine = state.cells.filter((cell) => cell.field === Number(field.dataset.number));
  if (mine.some((cell) => !places[cell.id])) { location.reload(); return; }  // somebody added one
  for (const cell of mine) {
    const id = String(cell.id);
    const box = field.querySelector(`[data-id="${id}"]`) ?? makeBox(id);
    const gone = cell.group === NOT_A_CELL ? " gone" : "";
    box.setAttribute("class", `box${cell.label ? " corrected" : ""}${gone}`);
    box.setAttribute("aria-pressed", String(selected.has(id)));
    box.setAttribute("aria-label", describe(cell));
    box.querySelector("text").textContent = titleOf(cell.group);
  }
  document.getElementById("selected").textContent = text("selected", { n: selected.size });
}

function titleOf(group) {
  const button = document.querySelector(`[data-label="${CSS.escape(group)}"]`);
  return button ? button.lastChild.textContent.trim() : group;
}

function select(id, event) {
  const was = selected.has(id);
  if (!event.ctrlKey && !event.shiftKey && !event.metaKey) selected.clear();
  if (was) selected.delete(id);
  else selected.add(id);
  show();
}

async function name(chosen) {
  const ids = [...selected];
  selected.clear();
  await label(ids, chosen);
}

async function add(box) {
  setAdding(false);
  const path = `fields/${field.dataset.number}/add`;
  const limits = [width, height, width, height];
  const inside = box.map((value, index) => Math.min(limits[index], Math.max(0, value)));
  pending = inside;
  const found = await send(path, { box: inside });
  pending = null;
  if (!found) return;
  selected.clear();
  selected.add(String(found.added));
  show();
}

function setAdding(on) {
  adding?.setAttribute("aria-pressed", String(on));
  field.classList.toggle("adding", on);
  cross.setAttribute("visibility", on ? "visible" : "hidden");
  drawn.setAttribute("visibility", "hidden");
  document.getElementById("message").textContent = on ? text("adding") : "";
}

const around = ({ x, y }) => [x - usual / 2, y - usual / 2, x + usual / 2, y + usual / 2];

field.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, placeOf(event));
}, { passive: false });

field.addEventListener("pointerdown", (event) => {
  const place = placeOf(event);
  from = { x: place.x, y: place.y, left: view.x, top: view.y, at: [event.clientX, event.clientY], moved: false,
    box: event.target.closest(".box") };
  field.setPointerCapture(event.pointerId);
});
field.addEventListener("pointermove", (event) => {
  if (!from) return;
  const [dx, dy] = [event.clientX - from.at[0], event.clientY - from.at[1]];
  from.moved ||= Math.hypot(dx, dy) > 4;
  if (!from.moved) return;
  if (isAdding()) {
    setBox(drawn, boxTo(placeOf(event)));
    drawn.setAttribute("visibility", "visible");
    return;
  }
  const { a } = field.getScreenCTM();
  view = { ...view, x: from.left - dx / a, y: from.top - dy / a };
  showView();
});
field.addEventListener("pointerup", (event) => {
  const began = from;
  if (!began) return;
  const box = began.moved ? boxTo(placeOf(event)) : around(began);
  from = null;
  if (isAdding()) add(box);
  else if (began.box && !began.moved) select(began.box.dataset.id, event);
});
field.addEventListener("pointercancel", () => { from = null; });

function boxTo(place) {
  const [x0, x1] = [from.x, place.x].sort((a, b) => a - b);
  const [y0, y1] = [from.y, place.y].sort((a, b) => a - b);
  return [x0, y0, x1, y1];
}

const actions = {
  in: () => zoom(1 / 1.3),
  out: () => zoom(1.3),
  whole: () => { view = { x: 0, y: 0, width, height }; showView(); },
  add: () => setAdding(!isAdding()),
  remove: () => name(NOT_A_CELL),
};
for (const [id, act] of Object.entries(actions)) document.getElementById(id)?.addEventListener("click", act);
document.getElementById("review").addEventListener("click", (event) => {
  const button = event.target.closest("[data-label]");
  if (button) name(button.dataset.label);
});

document.addEventListener("keydown", (event) => {
  if (isUndo(event)) return;
  const key = event.key.toLowerCase();
  const box = document.activeElement.closest?.(".box");
  const move = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] }[key];
  if (key === "enter" && isAdding() && !document.activeElement.closest("button")) {
    add(around({ x: view.x + view.width / 2, y: view.y + view.height / 2 }));
  } else if (box && (key === "enter" || key === " ")) {
    event.preventDefault();
    select(box.dataset.id, event);
  } else if (key === "escape") {
    setAdding(false);
    selected.clear();
    show();
  } else if (key === "home") actions.whole();
  else if (key === "+") actions.in();
  else if (key === "-") actions.out();
  else if (mayChange && key === "n") actions.add();
  else if (mayChange && key === "delete") actions.remove();
  else if (move && field.contains(document.activeElement)) {
    event.preventDefault();
    view = { ...view, x: view.x + move[0] * view.width / 10, y: view.y + move[1] * view.height / 10 };
    showView();
  } else {
    const button = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    if (button) name(button.dataset.label);
  }
});

showView();
onState(show);
