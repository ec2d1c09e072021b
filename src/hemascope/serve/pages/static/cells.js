// The cells of a sample as the station has them: changes are sent, and what others do is fetched.

const root = document.getElementById("review");
const message = document.getElementById("message");
const texts = JSON.parse(document.getElementById("texts").textContent);
let show = () => {};

export const base = root.dataset.base;
export const mayChange = root.dataset.mayChange === "true";
export let state = JSON.parse(document.getElementById("cells").textContent);
export let cells = byId(state);

function byId(found) {
  return new Map(found.cells.map((cell) => [String(cell.id), cell]));
}

export function text(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Shows the state now, and each new one from now on.
export function onState(shows) {
  show = shows;
  show();
  setInterval(refresh, 3000);
}

function apply(next) {
  state = next;
  cells = byId(next);
  show();
}

async function ask(path, options) {
  try {
    return await fetch(`${base}/${path}`, options);
  } catch {
    message.textContent = text("unreachable");
    return null;
  }
}

export async function send(path, body) {
  const answer = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": root.dataset.csrf },
    body: JSON.stringify(body ?? {}),
  });
  if (!answer) return null;
  const found = await answer.json();
  message.textContent = answer.ok ? "" : found.detail;
  if (answer.ok) apply(found);
  else await refresh();
  return answer.ok ? found : null;
}

export async function refresh() {
  const answer = await ask("state");
  if (!answer?.ok || answer.redirected) return;
  const next = await answer.json();
  if (next.changes !== state.changes || next.state !== state.state) apply(next);
}

// Gives the cells a label, and lets nobody overwrite what they did not see.
export async function label(ids, name) {
  if (!mayChange || !ids.length) return;
  await send("label", { label: name, cells: Object.fromEntries(ids.map((id) => [id, cells.get(id).version])) });
}

export function describe(cell) {
  const parts = [text("cell", { id: cell.id })];
  if (cell.machine !== undefined) {
    const percent = Math.round(100 * cell.probability);
    parts.push(cell.machine ? text("machine", { label: cell.machine, percent }) : text("no_name"));
  }
  if (cell.reason) parts.push(text("for_review", { reason: cell.reason }));
  if (cell.added) parts.push(text("added", { name: cell.added }));
  if (cell.label && cell.by) parts.push(`${cell.by}: ${cell.label}`);
  if (cell.comment) parts.push(cell.comment);
  return parts.join("; ");
}

// Keys that are the same on all pages; gives whether it was one of them.
export function isUndo(event) {
  if (!event.ctrlKey && !event.metaKey) return false;
  const path = { z: "undo", y: "redo" }[event.key.toLowerCase()];
  if (path && mayChange && document.getElementById(path)) { event.preventDefault(); send(path); }
  return true;
}

for (const path of ["undo", "redo"]) {
  document.getElementById(path)?.addEventListener("click", () => send(path));
}
