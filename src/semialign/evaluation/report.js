"use strict";
// Sorts tables and leafs through slices. Without it the page still shows everything but the other slices.

function figure(cell) {
  const told = cell.querySelector("[data-sort]");
  const text = (told ? told.dataset.sort : cell.textContent).trim().replace(/\u2212/g, "-").replace(/\u202f/g, "");
  if (/^-?\u221e/.test(text)) return text[0] === "-" ? -Infinity : Infinity;
  const number = /^[+-]?\d+(\.\d+)?(e[+-]?\d+)?/i.exec(text);
  return number ? Number(number[0]) : NaN;
}

function figured(cell) {
  return !Number.isNaN(figure(cell)) || ["", "-", "\u2013"].includes(cell.textContent.trim());
}

function order(a, b, column, numeric, sign) {
  if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true });
  const [first, second] = [figure(a.cells[column]), figure(b.cells[column])];
  if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second); // nothing stands last
  return first === second ? 0 : sign * (first < second ? -1 : 1);
}

function sort(table, column, button) {
  const head = table.tHead.rows[0].cells;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const numeric = column > 0 && rows.every((row) => figured(row.cells[column]));
  const before = head[column].getAttribute("aria-sort");
  const down = before ? before === "ascending" : numeric;
  for (const cell of head) cell.removeAttribute("aria-sort");
  head[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  rows.sort((a, b) => order(a, b, column, numeric, down ? -1 : 1));
  body.append(...rows);
  button.focus({ preventScroll: true });
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...cell.childNodes);
    button.addEventListener("click", () => sort(table, column, button));
    cell.append(button);
  });
}

function makeViewer(viewer) {
  const slices = JSON.parse(viewer.querySelector("script").textContent);
  const picture = viewer.querySelector("svg");
  const layers = [...picture.querySelectorAll("image")];
  const [slider, where] = [viewer.querySelector("input[type=range]"), viewer.querySelector("output")];
  const boxes = [...viewer.querySelectorAll("input[type=checkbox]")];
  function show() {
    const slice = slices[slider ? slider.value : 0];
    layers.forEach((layer, i) => {
      const box = boxes.find((other) => other.value === layer.dataset.layer);
      const seen = slice.layers[i] && (!box || box.checked);
      layer.style.display = seen ? "" : "none";
      if (seen) layer.setAttribute("href", layer.dataset.kind + slice.layers[i]);
    });
    if (!slider) return;
    where.textContent = slice.where;
    slider.setAttribute("aria-valuetext", slice.where + "; " + slice.told);
    picture.setAttribute("aria-label", picture.dataset.about + ", " + slice.where + "; " + slice.told);
  }
  viewer.querySelector(".controls").hidden = false;
  for (const input of [slider, ...boxes]) if (input) input.addEventListener("input", show);
  show();
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".viewer").forEach(makeViewer);
