// Uploads a file as the raw body of a request, and looks again while samples are imported.

const texts = JSON.parse(document.getElementById("texts").textContent);
const text = (key) => texts[key];
const form = document.getElementById("upload");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const status = form.querySelector("output");
  const file = form.elements.file.files[0];
  const query = new URLSearchParams({ name: form.elements.name.value });
  for (const name of ["wbc", "um_per_pixel"]) {
    if (form.elements[name].value) query.set(name, form.elements[name].value);
  }
  const kind = file.name.toLowerCase().endsWith(".zip") ? "application/zip" : file.type;
  status.textContent = text("uploading");
  const answer = await fetch(`/samples/upload?${query}`, {
    method: "POST",
    headers: { "Content-Type": kind || "image/unknown", "X-CSRF-Token": form.dataset.csrf },
    body: file,
  });
  if (answer.ok) location.reload();
  else status.textContent = (await answer.json()).detail;
});

if (document.querySelector("[data-importing]")) {
  setInterval(() => {
    if (!form?.contains(document.activeElement)) location.reload();
  }, 3000);
}
