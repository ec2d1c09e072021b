// The galleries: what is selected, where cells are moved, and what others change meanwhile.

import { cells, describe, isUndo, label, mayChange, onState, send, state, text } from "./cells.js";
import { openLarge } from "./large.js";

const review = document.getElementById("review");
const galleries = document.getElementById("galleries");
const menu = document.getElementById("menu");
const closer = document.getElementById("closer");
const SIDE = 108;  // pixels from one cell to the next, as in the style sheet
const HEAD = 56;  // about the height of a gallery without its cells
const AHEAD = 400;  // how far beyond what is seen the small images are fetched
const selected = new Set();
const known = new Map();  // the button of each cell
const order = new Map();  // the cells of each gallery as it shows them
let anchor = null;
let band = null;
let hovering = 0;

const buttons = () => [...review.querySelectorAll(".cell[data-id]")];
const buttonOf = (id) => known.get(String(id)) ?? makeButton(id);

function makeButton(id) {
  const button = document.createElement("button");
  button.className = "cell";
  button.draggable = mayChange;
  button.dataset.id = id;
  known.set(String(id), button);
  return button;
}

// Only cells near what is seen have an image; in a large sample the others would cost seconds.
function addImages() {
  for (const gallery of galleries.querySelectorAll(".gallery")) {
    const box = gallery.getBoundingClientRect();
    if (box.bottom < -AHEAD || box.top > innerHeight + AHEAD) continue;
    const { top, width } = gallery.querySelector(".cells").getBoundingClientRect();
    const columns = columnsOf(width);
    const first = columns * Math.max(0, Math.floor((-AHEAD - top) / SIDE));
    const last = columns * Math.max(0, Math.ceil((innerHeight + AHEAD - top) / SIDE));
    for (const button of order.get(gallery).slice(first, last).map(buttonOf)) {
      if (!button.firstChild) button.append(makeImage(button.dataset.id));
    }
  }
}

function makeImage(id) {
  const image = new Image(96, 96);
  image.alt = "";
  image.draggable = false;
  image.src = `/cells/${id}/small.png`;
  return image;
}

const columnsOf = (width) => Math.max(1, Math.floor((width + 4) / SIDE));

let isWaiting = false;
function addImagesSoon() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => { isWaiting = false; addImages(); });
}
addEventListener("scroll", addImagesSoon, { passive: true });
addEventListener("resize", addImagesSoon);

// An attribute that is set anew costs the browser as much as another one.
function setChanged(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

function showSelected() {
  for (const button of buttons()) setChanged(button, "aria-pressed", selected.has(button.dataset.id));
  const place = document.getElementById("selected");
  if (place) place.textContent = text("selected", { n: selected.size });
}

function show() {
  const groups = new Map();
  for (const cell of state.cells) {
    if (!groups.has(cell.group)) groups.set(cell.group, []);
    groups.get(cell.group).push(cell.id);
  }
  const columns = columnsOf(galleries.clientWidth);
  for (const gallery of galleries.querySelectorAll(".gallery")) {
    const group = groups.get(gallery.dataset.group) ?? [];
    if (order.get(gallery)?.join() !== group.join()) {
      order.set(gallery, group);
      gallery.querySelector(".cells").append(...group.map(buttonOf));
      const height = HEAD + SIDE * Math.ceil(group.length / columns);
      gallery.style.containIntrinsicHeight = `auto ${height}px`;
    }
    gallery.querySelector(".count").textContent = group.length;
  }
  for (const cell of state.cells) {
    const button = buttonOf(cell.id);
    button.classList.toggle("corrected", Boolean(cell.label));
    const description = describe(cell);
    setChanged(button, "aria-label", description);
    setChanged(button, "title", description);
  }
  document.querySelectorAll("#differential tbody tr").forEach((line, index) => {
    const row = state.rows[index];
    [row.cells, row.share, row.interval, row.machine, row.difference].forEach((value, column) => {
      line.children[column + 1].textContent = value;
    });
  });
  const place = document.getElementById("state");
  if (place) { place.textContent = state.shown; place.dataset.state = state.state; }
  const changes = document.getElementById("changes");
  if (changes) changes.value = state.changes;
  showSelected();
  addImages();
}

async function move(name) {
  const ids = [...selected];
  selected.clear();
  await label(ids, name);
}

function selectOnly(...ids) {
  selected.clear();
  ids.forEach((id) => selected.add(id));
  showSelected();
}

function select(button, event) {
  const id = button.dataset.id;
  const order = buttons().map((other) => other.dataset.id);
  if (event.shiftKey && anchor !== null) {
    const [first, last] = [order.indexOf(anchor), order.indexOf(id)].sort((a, b) => a - b);
    order.slice(first, last + 1).forEach((other) => selected.add(other));
  } else if (event.ctrlKey || event.metaKey) {
    if (!selected.delete(id)) selected.add(id);
    anchor = id;
  } else {
    const alone = selected.size === 1 && selected.has(id);
    selected.clear();
    if (!alone) selected.add(id);
    anchor = id;
  }
  showSelected();
}

function selectFrom(button) {
  const order = [...button.closest(".cells").children].map((other) => other.dataset.id);
  order.slice(order.indexOf(button.dataset.id)).forEach((id) => selected.add(id));
  showSelected();
}

function large(button) {
  const cell = cells.get(button.dataset.id);
  openLarge?.(cell, describe(cell), (comment) =>
    send("comment", { cell: cell.id, version: cell.version, comment }));
}

function closeMenu() { if (menu) menu.hidden = true; }

review.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell[data-id]");
  const name = event.target.closest("[data-label]");
  if (cell) select(cell, event);
  else if (name) move(name.dataset.label);
});
review.addEventListener("dblclick", (event) => {
  const cell = event.target.closest(".cell[data-id]");
  if (cell) large(cell);
});

// A rubber band: what it touches is selected, and with Ctrl added to what is.
galleries.addEventListener("pointerdown", (event) => {
  if (event.button || event.target.closest(".cell") || !mayChange) return;
  const before = event.ctrlKey || event.metaKey ? [...selected] : [];
  band = { x: event.pageX, y: event.pageY, before, shown: document.createElement("div") };
  band.shown.className = "band";
  document.body.append(band.shown);
  galleries.setPointerCapture(event.pointerId);
  event.preventDefault();
});
galleries.addEventListener("pointermove", (event) => {
  if (!band) return;
  const [left, right] = [band.x, event.pageX].sort((a, b) => a - b);
  const [top, bottom] = [band.y, event.pageY].sort((a, b) => a - b);
  Object.assign(band.shown.style, {
    left: `${left}px`, top: `${top}px`, width: `${right - left}px`, height: `${bottom - top}px`,
  });
  const touched = buttons().filter((button) => {
    const box = button.getBoundingClientRect();
    return box.left + scrollX < right && box.right + scrollX > left
      && box.top + scrollY < bottom && box.bottom + scrollY > top;
  });
  selectOnly(...band.before, ...touched.map((button) => button.dataset.id));
});
function endBand() {
  band?.shown.remove();
  band = null;
}
galleries.addEventListener("pointerup", endBand);
galleries.addEventListener("pointercancel", endBand);

// A cell over which the pointer rests is shown larger.
galleries.addEventListener("pointerover", (event) => {
  clearTimeout(hovering);
  closer.hidden = true;
  const cell = event.target.closest(".cell");
  if (!cell || band || event.pointerType === "touch") return;
  hovering = setTimeout(() => {
    const box = cell.getBoundingClientRect();
    closer.src = `/cells/${cell.dataset.id}/large.png`;
    closer.style.left = `${box.right + 250 < innerWidth ? box.right + 6 : box.left - 246}px`;
    closer.style.top = `${Math.max(0, Math.min(box.top - 70, innerHeight - 244))}px`;
    closer.hidden = false;
  }, 400);
});
galleries.addEventListener("pointerleave", () => { clearTimeout(hovering); closer.hidden = true; });

review.addEventListener("contextmenu", (event) => {
  const cell = event.target.closest(".cell[data-id]");
  if (!cell || !mayChange || !menu) return;
  event.preventDefault();
  if (!selected.has(cell.dataset.id)) selectOnly(cell.dataset.id);
  anchor = cell.dataset.id;
  menu.hidden = false;
  menu.style.left = `${Math.min(event.clientX, innerWidth - menu.offsetWidth)}px`;
  menu.style.top = `${Math.min(event.clientY, innerHeight - menu.offsetHeight)}px`;
  menu.querySelector("button").focus();
});
menu?.addEventListener("click", (event) => {
  const name = event.target.closest("[data-label]");
  closeMenu();
  if (name) move(name.dataset.label);
  else if (event.target.closest("#from-here")) selectFrom(buttonOf(anchor));
});
document.addEventListener("click", (event) => { if (!menu?.contains(event.target)) closeMenu(); });

review.addEventListener("dragstart", (event) => {
  const cell = event.target.closest(".cell[data-id]");
  if (!cell || !mayChange) return;
  if (!selected.has(cell.dataset.id)) selectOnly(cell.dataset.id);
  event.dataTransfer.setData("text/plain", [...selected].join());
});
for (const gallery of review.querySelectorAll(".gallery")) {
  gallery.addEventListener("dragover", (event) => {
    if (mayChange) { event.preventDefault(); gallery.classList.add("over"); }
  });
  gallery.addEventListener("dragleave", () => gallery.classList.remove("over"));
  gallery.addEventListener("drop", (event) => {
    event.preventDefault();
    gallery.classList.remove("over");
    move(gallery.dataset.group);
  });
}

document.getElementById("clear")?.addEventListener("click", () => selectOnly());

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || document.querySelector("dialog[open]")) return;
  if (isUndo(event)) return;
  const key = event.key.toLowerCase();
  const cell = document.activeElement.closest?.(".cell");
  const step = { arrowright: 1, arrowleft: -1 }[key];
  if (key === "escape") { closeMenu(); selectOnly(); return; }
  if (cell && key === "enter") { event.preventDefault(); large(cell); return; }
  if (cell && key === "a") { selectFrom(cell); return; }
  if (cell && step) {
    event.preventDefault();
    const order = buttons();
    order[order.indexOf(cell) + step]?.focus();
    return;
  }
  const name = review.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (name) move(name.dataset.label);
});

onState(show);
