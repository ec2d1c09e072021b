// The galleries: what is selected, where cells are moved, and what others change meanwhile.

import { openLarge } from "./large.js";

const review = document.getElementById("review");
const base = `/samples/${review.dataset.sample}`;
const mayChange = review.dataset.mayChange === "true";
const message = document.getElementById("message");
const menu = document.getElementById("menu");
const selected = new Set();
let state = JSON.parse(document.getElementById("cells").textContent);
let cells = new Map(state.cells.map((cell) => [String(cell.id), cell]));
let anchor = null;

const buttons = () => [...review.querySelectorAll(".cell")];
const buttonOf = (id) => review.querySelector(`.cell[data-id="${id}"]`);

function showSelected() {
  for (const button of buttons()) {
    button.setAttribute("aria-pressed", String(selected.has(button.dataset.id)));
  }
  const text = document.getElementById("selected");
  if (text) text.textContent = `${selected.size} selected`;
}

function describe(cell) {
  const machine = cell.machine
    ? `machine: ${cell.machine}, ${Math.round(100 * cell.probability)} %` : "no name by the machine";
  const why = cell.reason ? `; for review: ${cell.reason}` : "";
  const person = cell.label ? `; ${cell.by}: ${cell.label}` : "";
  return `Cell ${cell.id}; ${machine}${why}${person}${cell.comment ? `; ${cell.comment}` : ""}`;
}

function apply(next) {
  state = next;
  cells = new Map(state.cells.map((cell) => [String(cell.id), cell]));
  for (const gallery of review.querySelectorAll(".gallery")) {
    const place = gallery.querySelector(".cells");
    const group = state.cells.filter((cell) => cell.group === gallery.dataset.group);
    const now = [...place.children].map((button) => button.dataset.id).join();
    if (now !== group.map((cell) => cell.id).join()) {
      place.append(...group.map((cell) => buttonOf(cell.id)));
    }
    gallery.querySelector(".count").textContent = group.length;
  }
  for (const cell of state.cells) {
    const button = buttonOf(cell.id);
    button.classList.toggle("corrected", Boolean(cell.label));
    button.setAttribute("aria-label", describe(cell));
    button.title = describe(cell);
  }
  document.querySelectorAll("#differential tbody tr").forEach((line, index) => {
    const row = state.rows[index];
    [row.cells, row.share, row.interval, row.machine, row.difference].forEach((text, column) => {
      line.children[column + 1].textContent = text;
    });
  });
  document.getElementById("state").textContent = state.state;
  const changes = document.getElementById("changes");
  if (changes) changes.value = state.changes;
  showSelected();
}

async function ask(path, options) {
  try {
    return await fetch(`${base}/${path}`, options);
  } catch {
    message.textContent = "The station cannot be reached; what is not shown as moved is not saved.";
    return null;
  }
}

async function send(path, body) {
  const answer = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": review.dataset.csrf },
    body: JSON.stringify(body ?? {}),
  });
  if (!answer) return;
  const found = await answer.json();
  message.textContent = answer.ok ? "" : found.detail;
  if (answer.ok) apply(found);
  else await refresh();
}

async function refresh() {
  const answer = await ask("state");
  if (!answer?.ok || answer.redirected) return;
  const next = await answer.json();
  if (next.changes !== state.changes || next.state !== state.state) apply(next);
}

async function move(label) {
  if (!mayChange || !selected.size) return;
  const versions = Object.fromEntries([...selected].map((id) => [id, cells.get(id).version]));
  selected.clear();
  await send("label", { label, cells: versions });
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
  openLarge(cells.get(button.dataset.id), describe(cells.get(button.dataset.id)), (cell, comment) =>
    send("comment", { cell: cell.id, version: cell.version, comment }));
}

function closeMenu() { menu.hidden = true; }

review.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  const label = event.target.closest("[data-label]");
  if (cell) select(cell, event);
  else if (label) move(label.dataset.label);
});
review.addEventListener("dblclick", (event) => {
  const cell = event.target.closest(".cell");
  if (cell) large(cell);
});

review.addEventListener("contextmenu", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell || !mayChange) return;
  event.preventDefault();
  if (!selected.has(cell.dataset.id)) { selected.clear(); selected.add(cell.dataset.id); }
  showSelected();
  menu.hidden = false;
  menu.style.left = `${Math.min(event.clientX, innerWidth - menu.offsetWidth)}px`;
  menu.style.top = `${Math.min(event.clientY, innerHeight - menu.offsetHeight)}px`;
  menu.querySelector("button").focus();
});
menu.addEventListener("click", (event) => {
  const label = event.target.closest("[data-label]");
  closeMenu();
  if (label) move(label.dataset.label);
});
document.addEventListener("click", (event) => { if (!menu.contains(event.target)) closeMenu(); });

review.addEventListener("dragstart", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell || !mayChange) return;
  if (!selected.has(cell.dataset.id)) { selected.clear(); selected.add(cell.dataset.id); }
  event.dataTransfer.setData("text/plain", [...selected].join());
  showSelected();
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

document.getElementById("undo")?.addEventListener("click", () => send("undo"));
document.getElementById("redo")?.addEventListener("click", () => send("redo"));
document.getElementById("clear")?.addEventListener("click", () => {
  selected.clear();
  showSelected();
});

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || document.querySelector("dialog[open]")) return;
  const key = event.key.toLowerCase();
  const cell = document.activeElement.closest?.(".cell");
  const step = { arrowright: 1, arrowleft: -1 }[key];
  if (event.ctrlKey || event.metaKey) {
    if (key === "z" && mayChange) { event.preventDefault(); send("undo"); }
    if (key === "y" && mayChange) { event.preventDefault(); send("redo"); }
    return;
  }
  if (key === "escape") { closeMenu(); selected.clear(); showSelected(); return; }
  if (cell && key === "enter") { event.preventDefault(); large(cell); return; }
  if (cell && key === "a") { selectFrom(cell); return; }
  if (cell && step) {
    event.preventDefault();
    const order = buttons();
    order[order.indexOf(cell) + step]?.focus();
    return;
  }
  const label = review.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (label) move(label.dataset.label);
});

apply(state);
setInterval(refresh, 3000);
