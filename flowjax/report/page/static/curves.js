// Curves by layer: data of flowjax/report/page/flow.py. Many edges are rows of a heat map.

const MOST_LINES = 7, DASHES = ["", "6 4", "2 3", "9 3 2 3", "4 2", "1 3", "12 4"];
const LINE_COLOURS = ["#0060A8", "#D55E00", "#008F6B", "#C9609E", "#222222", "#6B6BD6", "#8A6D00"];

WIDGETS.curves = function (root, data) {
  const state = { run: data.start, task: 0 };
  const charts = make("div", { class: "charts" });
  const controls = make("div", { class: "controls" });
  function update() {
    const shown = data.views.find((v) => v.run === state.run && v.task === state.task);
    const panels = [];
    data.sets.forEach((set, index) => {
      const own = shown ? shown.edges.filter(([edge]) => data.edges[edge].set === index) : [];
      if (own.length) panels.push(panel(data, set, own));
    });
    charts.replaceChildren(...(panels.length ? panels : ["This run has no rows of this task."]));
  }
  if (data.runs.length > 1) {
    controls.append(select("Model", data.runs.map((run) => run.label), data.start, (value) => {
      state.run = value; update();
    }));
  }
  if (data.tasks.length > 1) {
    controls.append(select("Task", data.tasks.map(readable), 0, (value) => {
      state.task = value; update();
    }));
  }
  if (controls.childElementCount) root.append(controls);
  root.append(charts);
  update();
};

function edgeLabel(edge) { return edge.head < 0 ? edge.name : `${edge.name}, head ${edge.head}`; }

function panel(data, set, own) {
  const heat = own.length > MOST_LINES || set.name === "patch";
  const chart = make("div", { class: "chart" });
  const lines = own.map(([edge, n, x, mean, low, high, p], i) => ({
    label: edgeLabel(data.edges[edge]), n, x, mean, low, high, p, style: i,
  }));
  const redraw = whenResized(chart, (width) => chart.replaceChildren(
    heat ? heatMap(lines, width) : lineChart(lines, width, { unit: "%", label: "change of probability (%)" })));
  const legend = heat ? [] : [lineLegend(lines)];
  const title = set.about ? `${set.about} (${set.name})` : set.name;
  queueMicrotask(redraw);
  return make("div", {}, make("h3", { dir: "auto" }, title), chart, ...legend);
}

function lineLegend(lines) {
  return make("ul", { class: "legend" }, lines.map((line) => make("li", {},
    draw("svg", { width: 34, height: 10, "aria-hidden": "true" }, draw("line", { x1: 0, x2: 34, y1: 5, y2: 5,
      stroke: LINE_COLOURS[line.style], "stroke-width": 2.5, "stroke-dasharray": DASHES[line.style] })),
    line.label)));
}

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
  const out = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step / 1e6; t += step) out.push(t);
  return { out, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

// Lines with bands. Every point can be pointed at; what it says is in its tip.
function lineChart(lines, width, { unit, label, zero = true, cap = null }) {
  const height = 250, left = 48, right = 8, top = 8, bottom = 34;
  const every = lines.flatMap((l) => [...l.mean, ...(l.low || []), ...(l.high || [])]).filter((v) => v !== null);
  let low = Math.min(...every, 0), high = Math.max(...every, zero ? 0 : -Infinity);
  if (cap) [low, high] = cap;
  if (high - low < 1e-9) high = low + 1;
  if (!cap && unit === "%") { low = Math.min(low, -20); high = Math.max(high, 10); }
  const xs = lines.flatMap((l) => l.x), first = Math.min(...xs), last = Math.max(...xs);
  const X = (v) => left + (last === first ? 0.5 : (v - first) / (last - first)) * (width - left - right - 10) + 5;
  const Y = (v) => top + (high - v) / (high - low) * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `${label} by layer: ${lines.map((l) => l.label).join("; ")}` });
  const vertical = ticks(low, high, 5);
  vertical.out.forEach((t) => {
    svg.append(draw("line", { x1: left, x2: width - right, y1: Y(t), y2: Y(t), stroke: Math.abs(t) < 1e-9 ? "#55606e" : "#e4e8ed" }));
    svg.append(draw("text", { class: "axis", x: left - 6, y: Y(t) + 4, "text-anchor": "end" }, t.toFixed(vertical.digits).replace("-", "\u2212")));
  });
  const step = Math.ceil((last - first + 1) / Math.max(2, (width - left) / 30));
  for (let t = first; t <= last; t += step) {
    svg.append(draw("text", { class: "axis", x: X(t), y: height - bottom + 16, "text-anchor": "middle" }, t));
  }
  svg.append(draw("text", { class: "axis", x: left, y: height - 3 }, `layer, from 1; vertical: ${label}`));
  lines.forEach((line) => {
    const colour = LINE_COLOURS[line.style % LINE_COLOURS.length];
    if (line.low && line.low[0] !== null) {
      const clip = (v) => Math.max(low, Math.min(high, v));
      const there = line.x.map((x, i) => `${X(x)} ${Y(clip(line.high[i]))}`);
      const back = line.x.map((x, i) => `${X(x)} ${Y(clip(line.low[i]))}`).reverse();
      svg.append(draw("path", { d: `M${[...there, ...back].join("L")}Z`, fill: colour, "fill-opacity": 0.13 }));
    }
    svg.append(draw("path", { d: `M${line.x.map((x, i) => `${X(x)} ${Y(line.mean[i])}`).join("L")}`, fill: "none",
      stroke: colour, "stroke-width": 2, "stroke-dasharray": DASHES[line.style % DASHES.length] }));
  });
  lines.forEach((line) => line.x.forEach((x, i) => {
    const colour = LINE_COLOURS[line.style % LINE_COLOURS.length];
    const texts = line.texts ? line.texts[i] : told(line.mean[i], line.low[i], line.high[i], line.n, line.p[i],
      isEffect(line.p[i], line.low[i], line.high[i]), false);
    const dot = draw("circle", { cx: X(x), cy: Y(line.mean[i]), r: 3.2, fill: colour });
    dot.addEventListener("pointerenter", (event) => showTip(dot, `${line.label}, layer ${x}`, texts, event));
    dot.addEventListener("pointerleave", hideTip);
    svg.append(dot);
  }));
  return svg;
}

// A diverging scale through white: brown where the probability falls, purple where it rises.
function heatColour(share) {
  const end = share < 0 ? [127, 59, 8] : [45, 0, 75];
  const part = Math.min(1, Math.abs(share)) ** 0.8;
  return `rgb(${end.map((c) => Math.round(247 + (c - 247) * part)).join(",")})`;
}

function heatMap(lines, width) {
  const row = Math.max(9, Math.min(20, 420 / lines.length)), left = Math.min(200, width * 0.4), top = 4;
  const xs = lines.flatMap((l) => l.x), first = Math.min(...xs), last = Math.max(...xs);
  const cell = (width - left - 6) / (last - first + 1), height = top + row * lines.length + 56;
  const most = Math.max(1e-9, ...lines.flatMap((l) => l.mean.map(Math.abs)));
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `Mean change by layer, a row each: ${lines.map((l) => l.label).join("; ")}` });
  lines.forEach((line, i) => {
    const y = top + row * i, size = Math.min(12, row - 1), room = Math.floor(left / (size * 0.55));
    const text = line.label.length > room ? `${line.label.slice(0, room - 1)}\u2026` : line.label;
    svg.append(draw("text", { x: left - 5, y: y + row * 0.75, "text-anchor": "end", "font-size": size, fill: "#1b2430" }, text));
    line.x.forEach((x, j) => {
      const box = draw("rect", { x: left + cell * (x - first), y, width: Math.max(1, cell - 0.5), height: row - 0.5, fill: heatColour(line.mean[j] / most) });
      const effect = isEffect(line.p[j], line.low[j], line.high[j]);
      box.addEventListener("pointerenter", (event) => showTip(box, `${line.label}, layer ${x}`, told(line.mean[j], line.low[j], line.high[j], line.n, line.p[j], effect, false), event));
      box.addEventListener("pointerleave", hideTip);
      svg.append(box);
      if (effect) {
        svg.append(draw("circle", { class: "effect", cx: left + cell * (x - first + 0.5), cy: y + row / 2, r: Math.min(3, row / 4, cell / 4),
          fill: Math.abs(line.mean[j]) > most * 0.5 ? "#fff" : "#1b2430", "pointer-events": "none" }));
      }
    });
  });
  const tested = lines.some((l) => l.p.some((p) => p !== null));
  const few = Math.max(...lines.map((l) => l.n));
  const step = Math.ceil((last - first + 1) / Math.max(2, (width - left) / 28));
  for (let t = first; t <= last; t += step) {
    svg.append(draw("text", { class: "axis", x: left + cell * (t - first + 0.5), y: height - 40, "text-anchor": "middle" }, t));
  }
  svg.append(draw("text", { class: "axis", x: 0, y: height - 20 },
    `layer, from 1; brown: falls, purple: rises, darkest at ${most.toFixed(1)}%`));
  svg.append(draw("text", { class: "axis", x: 0, y: height - 4 },
    tested ? "dots: significant" : `not tested: n = ${few}, and a verdict needs 6`));
  return svg;
}
