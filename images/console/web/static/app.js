"use strict";
// Questions before what cannot be taken back.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// What stands beside a line's name: the value under the pointer, and nothing where there is none.
function figure(_plot, value) { return value === null || value === undefined ? "" : String(Number(value.toPrecision(4))); }

// Steps and users are counted: their axis has whole numbers.
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 1e7, 1e8];

// A plot is a table of numbers beside it; the picture is drawn from the same.
function draw(box) {
  const data = JSON.parse(box.dataset.series);
  if (box.plot) { box.plot.destroy(); box.plot = null; }
  if (!data.x.length || typeof uPlot === "undefined") return;
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim(), grid = style.getPropertyValue("--line").trim();
  const colours = [style.getPropertyValue("--accent").trim(), style.getPropertyValue("--busy").trim(), style.getPropertyValue("--good").trim(), style.getPropertyValue("--bad").trim()];
  const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid } };
  const options = {
    width: box.clientWidth, height: 240, scales: { x: { time: false } },
    axes: [{ ...axis, label: data.label, incrs: WHOLE }, { ...axis }],
    series: [{ label: data.label, value: figure }, ...data.lines.map((line, at) => ({
      label: line.name, stroke: colours[(line.colour ?? at) % colours.length], width: 2, value: figure, spanGaps: true,
      dash: line.dashed ? [6, 4] : undefined, points: { show: data.x.length < 40 } }))],
  };
  if (data.band) options.bands = [{ series: data.band, fill: grid }];
  box.plot = new uPlot(options, [data.x, ...data.lines.map((line) => line.values)], box);
}
function drawAll(root) { for (const box of root.querySelectorAll("[data-series]")) draw(box); }
// What is wider than its box is scrolled by keys too.
function reachAll(root) {
  for (const box of root.querySelectorAll(".wide")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
  }
}
for (const name of ["DOMContentLoaded", "resize"]) window.addEventListener(name, () => { drawAll(document); reachAll(document); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document));

// Events of a training that is watched. A connection can be lost without a word: after half a minute in which nothing
// came, the page is asked for anew.
let heard = Date.now();
const SILENCE = 30000;
document.addEventListener("htmx:after:swap", () => { heard = Date.now(); });
setInterval(() => {
  if (Date.now() - heard > SILENCE && document.querySelector("[hx-sse\\:connect]")) window.location.reload();
}, 5000);
for (const name of ["curve", "log", "alive", "end"]) {
  document.addEventListener(name, (event) => {
    if (event.detail === null || event.detail.data === undefined) return;
    heard = Date.now();
    const found = JSON.parse(event.detail.data);
    if (name === "curve") {
      const box = document.getElementById("curve");
      box.dataset.series = JSON.stringify(found);
      draw(box);
    } else if (name === "log") {
      const box = document.getElementById("log");
      const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
      if (found.fresh) box.textContent = "";
      if (found.lines.length) box.append(found.lines.join("\n") + "\n");
      if (atEnd) box.scrollTop = box.scrollHeight;
    } else if (name === "end") {
      window.location.reload();
    }
  });
}

// The sequence of a test, drawn again when htmx has brought a new one.
document.addEventListener("htmx:after:swap", () => { drawAll(document); reachAll(document); });

// What is wrong is said beside its field too.
document.addEventListener("htmx:after:swap", () => {
  const verdict = document.getElementById("verdict");
  if (!verdict) return;
  for (const note of document.querySelectorAll(".field .fault")) note.textContent = "";
  for (const input of document.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  for (const link of verdict.querySelectorAll("[data-fault]")) {
    const note = document.getElementById(link.dataset.fault + "-fault"), input = document.getElementById(link.dataset.fault);
    if (note && input && (input.value || input.dataset.touched)) { note.textContent = link.nextElementSibling.textContent; input.setAttribute("aria-invalid", "true"); }
  }
});
document.addEventListener("change", (event) => { if (event.target.id) event.target.dataset.touched = "1"; });
