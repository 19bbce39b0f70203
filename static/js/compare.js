// Comparisons of two images: side by side or with a slider. The slider is a range input over the images, so it
// works by mouse, touch and keyboard. All comparisons inside `data-comparisons` share its position.
(() => {
  function move(group, value) {
    group.style.setProperty("--position", `${value}%`);
    for (const slider of group.querySelectorAll("[data-comparison-slider]")) {
      slider.value = value;
      const { a, b } = slider.dataset;
      slider.setAttribute("aria-valuetext", `${value} % ${a}, ${100 - value} % ${b}`);
    }
  }

  function choose(group, mode) {
    group.dataset.mode = mode;
    for (const slider of group.querySelectorAll("[data-comparison-slider]")) slider.hidden = mode !== "slider";
    // under the slider a link cannot be clicked, so it is no stop of the Tab key either
    for (const link of group.querySelectorAll("[data-comparison] .comparison-side a")) link.tabIndex = mode === "slider" ? -1 : 0;
  }

  const known = new WeakSet();

  function begin(group) {
    const modes = group.querySelector("[data-comparison-modes]") ?? document.querySelector("[data-comparison-modes]");
    if (known.has(group) || !modes || !group.querySelector("[data-comparison]")) return;
    known.add(group);
    modes.hidden = false;
    modes.addEventListener("change", (event) => choose(group, event.target.value));
    group.addEventListener("input", (event) => {
      if (event.target.matches("[data-comparison-slider]")) move(group, Number(event.target.value));
    });
    move(group, 50);
    choose(group, modes.querySelector("input:checked").value); // a restored page keeps its choice
  }

  const beginAll = () => document.querySelectorAll("[data-comparisons]").forEach(begin);
  document.addEventListener("htmx:afterSettle", beginAll);
  beginAll();
})();
