// The flow map: data of flowjax/report/page/flow.py.

const LANE = 54, TOP = 30, GAP = 12, THICK = 30, THIN = 1.1;

WIDGETS.flow = function (root, data) {
  const heads = [...new Set(data.edges.map((edge) => edge.head))].sort((a, b) => a - b);
  const state = { run: data.start, task: 0, head: liveliest(data, heads), least: 0, off: new Set() };
  const maps = [];
  const view = (run, task) => data.views.find((v) => v.run === run && v.task === task);
  const holder = make("div", { class: data.beside ? "many" : "" });
  const stages = make("ol", { class: "stages" });
  const numbers = make("details", {}, make("summary", {}, "The numbers as a table"));
  const status = make("p", { class: "note", role: "status" });

  function update() {
    maps.forEach((map) => map());
    const shown = view(state.run, state.task);
    status.textContent = shown ? describe(data, shown, state) : "This run has no rows of this task.";
    stages.replaceChildren(...(data.beside || !shown ? [] : shown.stages).map((stage) =>
      make("li", { class: stage.found ? "found" : "" },
        make("b", {}, stage.name), make("small", {}, stage.what), stage.said)));
    numbers.querySelector(".scroll")?.remove();
    numbers.append(tableOf(data, shownViews(), state));
  }
  function shownViews() {
    const runs = data.beside ? data.runs.map((_, run) => run) : [state.run];
    return runs.map((run) => [data.runs[run], view(run, state.task)]).filter(([, v]) => v);
  }

  const controls = make("div", { class: "controls" });
  if (!data.beside && data.runs.length > 1) {
    controls.append(select("Model", data.runs.map((run) => run.label), data.start, (value) => {
      state.run = value; update();
    }));
  }
  if (data.tasks.length > 1) {
    controls.append(select("Task", data.tasks.map(readable), 0, (value) => {
      state.task = value; update();
    }));
  }
  if (heads.length > 1) {
    controls.append(select("Head (from 0)", heads.map((h) => (h < 0 ? "all at once" : String(h))), heads.indexOf(state.head),
      (value) => { state.head = heads[value]; update(); }));
  }
  controls.append(slider("Ribbons from a change of", {
    min: 0, max: 100, value: 0, text: (value) => `${value}%`,
  }, (value) => { state.least = value; update(); }));
  const drawn = data.sets.map((set, index) => [set, index]).filter(([, index]) =>
    data.edges.some((edge) => edge.set === index && edge.parts.length));
  controls.append(make("fieldset", {}, make("legend", {}, "Edges cut"), make("div", {},
    drawn.map(([set, index]) => make("label", { title: set.name },
      make("input", { type: "checkbox", checked: "", change: (event) => {
        event.target.checked ? state.off.delete(index) : state.off.add(index);
        update();
      } }),
      make("span", { class: "swatch", style: `border-color:${set.colour}` }),
      set.about || set.name)))));
  root.classList.add("flow");
  root.append(controls, holder);
  for (let run = 0; run < (data.beside ? data.runs.length : 1); run += 1) {
    const map = make("div", { class: "map" });
    const own = () => (data.beside ? run : state.run);
    const title = data.beside ? [make("h3", {}, data.runs[run].label)] : [];
    holder.append(make("div", {}, ...title, map));
    const redraw = whenResized(map, (width) => drawMap(map, data, view(own(), state.task), {
      ...state, width, difference: data.runs[own()].difference, label: data.runs[own()].label,
    }));
    maps.push(redraw);
  }
  root.append(status, stages, numbers);
  update();
};

// The head that is shown first: all at once, or else the one with the largest effect.
function liveliest(data, heads) {
  const first = data.views.find((v) => v.run === data.start && v.task === 0);
  if (heads[0] < 0 || !first) return heads[0];
  const most = (head) => Math.max(0, ...first.edges.filter(([index]) => data.edges[index].head === head)
    .flatMap(([, , , mean, low, high, p]) => mean.map((value, i) => (isEffect(p[i], low[i], high[i]) ? Math.abs(value) : 0))));
  return heads.reduce((a, b) => (most(b) > most(a) ? b : a));
}

function isEffect(p, low, high) { return p !== null && p < 0.05 && !(low <= 0 && high >= 0); }

function readable(text) { return text.replaceAll("_", " "); }

function describe(data, shown, state) {
  const tokens = data.edges.filter((edge) => !edge.parts.length).length;
  const few = shown.n < 6 ? " Fewer than 6 samples are not tested, so all are dotted hairlines." : "";
  const rest = tokens ? ` ${tokens} cuts of single tokens or patched states are among the curves.` : "";
  const last = data.beside ? " In the last map, solid: the second model loses more; dashed: the first." : "";
  return `${readable(data.tasks[shown.task])}: up to ${shown.n} samples; ${data.window}. `
    + `Solid: the probability falls; dashed: it rises.${last}${few}${rest}`;
}

// Heights of lanes and boxes.
function placed(data) {
  const starts = data.lanes.map((_, i) => data.boxes.filter((box) => box.first === i).length);
  const ends = data.lanes.map((_, i) => data.boxes.filter((box) => box.last === i).length);
  const lane = {}, box = {};
  let y = TOP;
  data.lanes.forEach(({ id }, i) => {
    y += GAP * starts[i] + LANE;
    lane[id] = y - LANE / 2;
    y += GAP * ends[i];
  });
  data.boxes.forEach((one) => {
    const inner = data.boxes.filter((other) => other !== one && other.first >= one.first
      && other.last <= one.last);
    const above = inner.filter((other) => other.first === one.first).length;
    const below = inner.filter((other) => other.last === one.last).length;
    box[one.id] = {
      top: lane[data.lanes[one.first].id] - LANE / 2 - GAP * (above + 0.4),
      bottom: lane[data.lanes[one.last].id] + LANE / 2 + GAP * (below + 0.4),
    };
  });
  return { lane, box, height: y + 66 };
}

function drawMap(holder, data, shown, options) {
  const narrow = options.width < 560;
  const label = narrow ? 84 : 128;
  const column = Math.max(24, (options.width - label - 8) / data.layers);
  const width = label + 8 + column * data.layers;
  const at = placed(data);
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${at.height}`, width, height: at.height, role: "group",
    "aria-label": `Flow map of ${options.label}. Arrow keys left and right go through layers, up and `
      + "down through edges.",
  });
  data.boxes.forEach((one) => {
    const { top, bottom } = at.box[one.id];
    svg.append(draw("rect", { x: label - 4, y: top, width: width - label, height: bottom - top,
      rx: 7, fill: "#f1f4f8", stroke: "#b9c2ce" }));
    svg.append(draw("text", { class: "axis", x: label + 4, y: top + 13 }, one.label));
  });
  for (let layer = 1; layer <= data.layers; layer += 1) {
    const x = label + column * (layer - 0.5);
    if (column > 26 || layer % 2) {
      svg.append(draw("text", { class: "axis", x, y: 14, "text-anchor": "middle" }, layer));
      svg.append(draw("text", { class: "axis", x, y: at.height - 50, "text-anchor": "middle" }, layer));
    }
    if (layer > 1) {
      svg.append(draw("line", { x1: x - column / 2, x2: x - column / 2, y1: TOP - 8, y2: at.height - 64,
        stroke: "#e8ebef" }));
    }
  }
  svg.append(draw("text", { class: "axis", x: narrow ? 2 : label, y: at.height - 32 }, "layer, from 1 (centre of the window); widths below"));
  // How wide a change is.
  const scale = Math.min(THICK, column * 0.75) / 100, right = width - 8;
  const unit = options.difference ? " points" : "%";
  [100, 50, 10].forEach((value, i) => {
    const x = right - (options.difference ? 112 : 100) * i, y = at.height - 8;
    svg.append(draw("text", { class: "axis", x, y, "text-anchor": "end" }, `${value}${unit}`));
    svg.append(draw("line", { x1: x - (options.difference ? 106 : 90), x2: x - (options.difference ? 72 : 40), y1: y - 5, y2: y - 5,
      stroke: "#8a94a3", "stroke-width": value * scale }));
  });
  data.lanes.forEach(({ id, label: text }) => {
    const y = at.lane[id];
    svg.append(draw("line", { x1: label, x2: width - 6, y1: y, y2: y, stroke: "#9aa4b2" }));
    const words = narrow || text.length > 17 ? text.split(" ") : [text];
    svg.append(draw("text", { class: "lane" }, words.map((word, i) => draw("tspan", {
      x: 2, y: y + 4 + 15 * (i - (words.length - 1) / 2),
    }, word))));
  });
  const marks = shown ? ribbons(data, shown, { ...options, label, column, scale, at }) : [];
  // Hairlines first, then ribbons from wide to narrow, so that all can be seen and reached.
  [...marks].sort((a, b) => a.ribbon - b.ribbon || b.size - a.size)
    .forEach((mark) => svg.append(mark.node));
  keys(marks);
  const scroll = holder.scrollLeft;
  holder.replaceChildren(svg);
  holder.scrollLeft = scroll;
}

function ribbons(data, shown, o) {
  const own = shown.edges.filter(([index]) => {
    const edge = data.edges[index];
    return edge.parts.length && edge.head === o.head && !o.off.has(edge.set);
  });
  const slots = Math.max(1, own.length);
  const scale = o.scale;
  const marks = [];
  own.forEach(([index, n, layers, mean, low, high, p], slot) => {
    const edge = data.edges[index];
    layers.forEach((layer, i) => {
      const effect = isEffect(p[i], low[i], high[i]);
      const ribbon = effect && Math.abs(mean[i]) >= o.least;
      const x0 = o.label + o.column * (layer - 1 + 0.08 + 0.36 * (slot + 0.5) / slots);
      const path = edge.parts.map((part) => route(part, x0, x0 + o.column * 0.46, o.at)).join(" ");
      const lines = told(mean[i], low[i], high[i], n, p[i], effect, o.difference);
      const title = `${edge.name}, layer ${layer}${edge.head < 0 ? "" : `, head ${edge.head}`}`;
      const hit = draw("path", {
        class: "hit", d: path, "stroke-width": Math.max(9, Math.abs(mean[i]) * scale), tabindex: -1,
        role: "img", "aria-label": [title, ...lines].join("; "),
        focus: () => showTip(hit, title, lines), blur: hideTip,
        pointermove: (event) => showTip(hit, title, lines, event), pointerleave: hideTip,
      });
      const stroke = ribbon ? Math.max(2.5, Math.min(100, Math.abs(mean[i])) * scale) : THIN;
      const dash = p[i] === null ? "1 4" : (ribbon && mean[i] > 0 ? "7 4" : null);
      const line = draw("path", {
        class: "ribbon", d: path, stroke: data.sets[edge.set].colour, "stroke-width": stroke,
        "stroke-opacity": ribbon ? 0.62 : 0.45, "stroke-dasharray": dash,
        "data-kind": ribbon ? "ribbon" : "hairline",
      });
      marks.push({ node: draw("g", {}, hit, line), hit, edge: slot, layer, ribbon, size: stroke,
        strength: effect ? Math.abs(mean[i]) : Math.abs(mean[i]) / 1e3 });
    });
  });
  return marks;
}

function told(mean, low, high, n, p, effect, difference) {
  const unit = difference ? " points" : "%";
  const interval = low === null ? "no interval (fewer than 6 samples)"
    : `95% interval [${signed(low)}, ${signed(high)}]`;
  const verdict = p === null ? "not tested"
    : `adjusted p ${pText(p)}: ${effect ? "significant" : "not significant"}`;
  const what = difference ? "difference of the changes" : "probability changes by";
  return [`${what} ${signed(mean)}${unit}`, interval, `n = ${n}`, verdict];
}

// From where a group is read to who reads it; a group that reads itself has a loop above its lane.
function route([source, target], x0, x1, at) {
  const height = (id, below) => at.lane[id] ?? (below ? at.box[id].bottom : at.box[id].top);
  if (source === target) {
    const y = height(source, false), up = at.lane[source] ? 30 : 24;
    return `M${x0} ${y}C${x0} ${y - up} ${x1} ${y - up} ${x1} ${y}`;
  }
  const inside = at.box[target] && at.lane[source] > at.box[target].top
    && at.lane[source] < at.box[target].bottom;
  const y0 = height(source, true), y1 = height(target, inside), bend = (x1 - x0) * 0.6;
  return `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`;
}

// One mark can be reached by Tab; arrow keys go from there.
function keys(marks) {
  if (!marks.length) return;
  const strongest = marks.reduce((a, b) => (b.strength > a.strength ? b : a));
  strongest.hit.setAttribute("tabindex", 0);
  const go = (from, to) => {
    if (!to) return;
    from.hit.setAttribute("tabindex", -1);
    to.hit.setAttribute("tabindex", 0);
    to.hit.focus();
  };
  marks.forEach((mark) => mark.hit.addEventListener("keydown", (event) => {
    const row = marks.filter((m) => m.edge === mark.edge);
    const col = marks.filter((m) => m.layer === mark.layer);
    const moves = {
      ArrowLeft: () => row[row.indexOf(mark) - 1], ArrowRight: () => row[row.indexOf(mark) + 1],
      ArrowUp: () => col[col.indexOf(mark) - 1], ArrowDown: () => col[col.indexOf(mark) + 1],
      Home: () => row[0], End: () => row[row.length - 1],
    };
    if (event.key === "Escape") hideTip();
    if (!moves[event.key]) return;
    event.preventDefault();
    go(mark, moves[event.key]());
  }));
}

function tableOf(data, views, state) {
  const many = views.length > 1;
  const head = [...(many ? ["model"] : []), "edge cut", "n", "layer (from 1)", "change", "95% interval",
    "adjusted p", "effect"];
  const rows = views.flatMap(([run, shown]) => shown.edges
    .filter(([index]) => data.edges[index].head === state.head && !state.off.has(data.edges[index].set))
    .map(([index, n, layers, mean, low, high, p]) => {
      const i = mean.reduce((best, value, j) => (Math.abs(value) > Math.abs(mean[best]) ? j : best), 0);
      const effect = isEffect(p[i], low[i], high[i]);
      return [...(many ? [run.label] : []), data.edges[index].name, n, layers[i], signed(mean[i]),
        low[i] === null ? "n < 6" : `[${signed(low[i])}, ${signed(high[i])}]`,
        p[i] === null ? "" : p[i].toFixed(4), p[i] === null ? "n < 6" : (effect ? "yes" : "no")];
    }));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Strongest window of every edge" },
    make("table", {}, make("caption", {}, "The window of every edge whose mean change is largest in size"),
      make("thead", {}, make("tr", {}, head.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell) => make("td", {}, String(cell))))))));
}
