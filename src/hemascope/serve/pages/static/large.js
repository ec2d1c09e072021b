// One cell, large, beside where the image supports the machine's label.

const dialog = document.getElementById("large");
const comment = document.getElementById("comment");
let keep = null;
let shown = null;

export function openLarge(cell, text, onComment) {
  document.getElementById("large-cell").src = `/cells/${cell.id}/large.png`;
  const map = document.getElementById("large-map");
  map.hidden = false;
  map.onerror = () => { map.hidden = true; };
  map.src = `/cells/${cell.id}/map.png`;
  document.getElementById("large-text").textContent = text;
  showLooks(cell);
  if (comment) comment.elements.comment.value = cell.comment;
  keep = (value) => onComment(cell, value);
  dialog.showModal();
}

// What the machine says that the cell looks like; nothing where it does not tell.
async function showLooks(cell) {
  const place = document.getElementById("large-looks");
  place.textContent = "";
  shown = cell.id;
  const response = await fetch(`/cells/${cell.id}/looks`);
  const answer = response.ok ? await response.json() : { looks: "" };
  if (shown === cell.id) place.textContent = answer.looks;
}

comment?.addEventListener("submit", (event) => {
  event.preventDefault();
  keep(comment.elements.comment.value);
  dialog.close();
});
document.getElementById("close").addEventListener("click", () => dialog.close());
