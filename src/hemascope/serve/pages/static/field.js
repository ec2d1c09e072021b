// Zooms and moves a field by changing what part of it the view box shows.

const field = document.getElementById("field");
const whole = field.viewBox.baseVal;
const [width, height] = [whole.width, whole.height];
let view = { x: 0, y: 0, width, height };
let from = null;

function show() {
  field.setAttribute("viewBox", `${view.x} ${view.y} ${view.width} ${view.height}`);
}

field.addEventListener("wheel", (event) => {
  event.preventDefault();
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(
    field.getScreenCTM().inverse(),
  );
  const factor = Math.min(width / view.width, Math.max(0.05, event.deltaY > 0 ? 1.2 : 1 / 1.2));
  view = {
    x: place.x - (place.x - view.x) * factor,
    y: place.y - (place.y - view.y) * factor,
    width: view.width * factor,
    height: view.height * factor,
  };
  show();
}, { passive: false });

field.addEventListener("pointerdown", (event) => {
  from = { x: event.clientX, y: event.clientY, scale: field.getScreenCTM().a };
  field.setPointerCapture(event.pointerId);
});
field.addEventListener("pointermove", (event) => {
  if (!from) return;
  view.x -= (event.clientX - from.x) / from.scale;
  view.y -= (event.clientY - from.y) / from.scale;
  from = { ...from, x: event.clientX, y: event.clientY };
  show();
});
field.addEventListener("pointerup", () => { from = null; });
