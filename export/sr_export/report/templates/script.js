
// Without this script, the versions of an image stand side by side; with it, two lie on one another.
for (const scene of document.querySelectorAll(".scene")) {
  const layers = [...scene.querySelectorAll(".layer")];
  const stack = scene.querySelector(".layers");
  const divider = scene.querySelector(".divider");
  const [left, right] = scene.querySelectorAll("select");
  const nameOf = (select) => select.selectedOptions[0].text;

  function show() {
    for (const layer of layers) {
      const picture = layer.dataset.picture;
      layer.classList.toggle("right", picture === right.value);
      layer.classList.toggle("left", picture === left.value && left.value !== right.value);
    }
    const share = Math.round(divider.value);
    stack.style.setProperty("--split", `${divider.value}%`);
    divider.setAttribute("aria-valuetext", `${share} % ${nameOf(left)}, the rest ${nameOf(right)}`);
  }

  for (const control of [left, right, divider]) control.addEventListener("input", show);
  for (const hidden of scene.querySelectorAll("[hidden]")) hidden.hidden = false;
  scene.classList.add("live");
  show();
}
