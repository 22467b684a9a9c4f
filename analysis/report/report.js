// Draws the figures of a report from the numbers that stand in the page, and follows what is chosen there.
"use strict";
(() => {
  const numbers = JSON.parse(document.getElementById("numbers").textContent);
  const { models } = numbers;
  if (!models.length) return;
  const element = (id) => document.getElementById(id);
  const selects = { p: element("choose-p"), p_star: element("choose-p-star"), a: element("choose-a") };
  const boxes = [...document.querySelectorAll("#sizes input")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const coarse = matchMedia("(pointer: coarse)").matches;
  const PRINT = { width: 640, height: 300 }; // pixels that fit an upright page, A4 or letter
  let chosen = models[0];
  let printing = false;

  const themeName = () => (dark.matches && !printing ? "dark" : "light");
  const shown = () => {
    const wanted = new Set(boxes.filter((box) => box.checked).map((box) => Number(box.value)));
    return chosen.sizes.filter((size) => wanted.has(size.N));
  };
  const { figures, titles, digits, withError, thousands, pointOf, nameOf, colourOf } =
    networkFigures(numbers, { chosen: () => chosen, shown, themeName });

  function draw(id) {
    const theme = figureLook.themes[themeName()];
    const place = element(`figure-${id}`);
    const { traces, layout } = figures[id](theme);
    const size = printing ? PRINT : { width: place.clientWidth, height: place.clientHeight };
    const all = figureLook.layout(theme, size, coarse, `${nameOf(chosen)} ${printing}`, layout);
    const config = figureLook.config(coarse, size.width);
    place.setAttribute("aria-label", `${titles[id]}, ${nameOf(chosen)}, N = ${shown().map((at) => thousands(at.N)).join(", ") || "none"}. The numbers stand in the table below the figures.`);
    return Plotly.react(place, traces, all, config);
  }

  // Text with its symbols, α_BBP with a subscript.
  function write(place, text) {
    const parts = text.split(/(?<=[αλ])_(BBP|c|0|−|\*)/);
    place.replaceChildren(...parts.map((part, i) => (i % 2 ? Object.assign(document.createElement("sub"), { textContent: part }) : part)));
  }

  function tell() {
    const load = chosen.alpha_0 === null ? "" : `, α_0 = ${digits(chosen.alpha_0)}`;
    const found = chosen.estimates.map(({ name, value, error, trusted, verdict, reason }) => (value === null
      ? `${name}: ${verdict} (${reason})` : `${name}: α_c = ${withError(value, error)}, ${trusted ? verdict : `not trusted: ${reason}`}`));
    write(element("chosen"), `${nameOf(chosen)}: ${chosen.kind}, α_BBP = ${digits(chosen.alpha_bbp)}${load}. ${found.join("; ")}`);
    boxes.forEach((box) => {
      const there = chosen.sizes.some((size) => size.N === Number(box.value));
      box.disabled = !there;
      box.parentElement.classList.toggle("absent", !there);
      box.parentElement.style.setProperty("--swatch", colourOf(Number(box.value)));
    });
    const rows = shown().flatMap((size) => size.alpha.map((_, i) => {
      const [overlap, eigenvalue] = ["overlap", "eigenvalue"].map((what) => pointOf(size, i, what));
      return [overlap.N, overlap.alpha, overlap.seeds, overlap.mean, overlap.theory, overlap.pull, overlap.limit,
        eigenvalue.mean, eigenvalue.theory, eigenvalue.pull, eigenvalue.limit];
    }));
    element("points").replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      return row;
    }));
  }

  function drawAll() {
    tell();
    return Promise.all(Object.keys(figures).map(draw));
  }

  // A model that is there: of those with the value just chosen, the one most like the last.
  function choose(axis) {
    const wanted = Object.fromEntries(Object.entries(selects).map(([name, select]) => [name, Number(select.value)]));
    const score = (model) => Object.keys(wanted).filter((name) => model[name] === wanted[name]).length;
    const there = models.filter((model) => model[axis] === wanted[axis]);
    chosen = there.reduce((best, model) => (score(model) > score(best) ? model : best));
    for (const [name, select] of Object.entries(selects)) select.value = String(chosen[name]);
    drawAll();
  }

  function onPaper(now) {
    if (now === printing) return;
    printing = now;
    drawAll();
  }

  for (const [axis, select] of Object.entries(selects)) {
    select.value = String(chosen[axis]);
    select.addEventListener("change", () => choose(axis));
  }
  for (const box of boxes) box.addEventListener("change", drawAll);
  dark.addEventListener("change", drawAll);
  paper.addEventListener("change", (event) => onPaper(event.matches));
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
  const wide = new ResizeObserver((seen) => {
    for (const { target } of seen) target.classList.toggle("wider", target.scrollWidth > target.clientWidth + 1);
  });
  for (const table of document.querySelectorAll(".scroll")) wide.observe(table);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width && !printing) drawAll();
    width = innerWidth;
  });
  drawAll().then(() => document.documentElement.setAttribute("data-drawn", ""));
})();
