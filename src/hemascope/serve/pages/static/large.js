// One cell, large: beside where the image supports the machine's label, and beside signed cells.

import { base } from "./cells.js";

const dialog = document.getElementById("large");
const comment = document.getElementById("comment");
const reference = document.getElementById("reference");
let keep = null;

async function showReferences() {
  const answer = await fetch(`${base}/references?${new URLSearchParams({ label: reference.value })}`);
  const found = answer.ok ? (await answer.json()).cells : [];
  document.getElementById("reference-none").hidden = found.length > 0;
  document.getElementById("references").replaceChildren(...found.map((id) => {
    const image = new Image(96, 96);
    image.src = `/cells/${id}/small.png`;
    image.alt = "";
    return image;
  }));
}

async function showLikely(cell) {
  const place = document.getElementById("likely");
  place.replaceChildren();
  const looks = document.getElementById("looks");
  looks.textContent = "";
  const answer = await fetch(`/cells/${cell.id}/probabilities`);
  if (!answer.ok) return;
  const found = await answer.json();
  looks.textContent = found.looks;
  place.replaceChildren(...found.likely.map(([title, share]) => {
    const line = document.createElement("li");
    line.textContent = `${title}: ${(100 * share).toFixed(1)} %`;
    return line;
  }));
}

// Opens the dialog for one cell; there is none where labels must not be seen.
export const openLarge = dialog && ((cell, text, onComment) => {
  document.getElementById("large-cell").src = `/cells/${cell.id}/large.png`;
  const map = document.getElementById("large-map");
  map.parentElement.hidden = false;
  map.onerror = () => { map.parentElement.hidden = true; };
  map.src = `/cells/${cell.id}/map.png`;
  document.getElementById("large-text").textContent = text;
  document.getElementById("large-field").href = `${base}/fields/${cell.field}#${cell.id}`;
  reference.value = cell.group;
  showReferences();
  showLikely(cell);
  if (comment) comment.elements.comment.value = cell.comment;
  keep = onComment;
  dialog.showModal();
});

reference?.addEventListener("change", showReferences);
comment?.addEventListener("submit", (event) => {
  event.preventDefault();
  keep(comment.elements.comment.value);
  dialog.close();
});
document.getElementById("close")?.addEventListener("click", () => dialog.close());
