// One sample: data of flowjax/report/page/sample.py.

WIDGETS.sample = function (root, data) {
  const state = { sample: 0, layer: 0, frame: 0, seen: 0, tokens: 0 };
  const controls = make("div", { class: "controls" });
  const body = make("div", {});
  root.classList.add("sample");
  root.append(controls, body);

  function choose(index) {
    Object.assign(state, { sample: index, layer: 0, frame: 0, seen: 0, tokens: 0 });
    const one = unpacked(data.samples[index]);
    const labels = [...new Set(one.attention.map((seen) => seen.label))];
    controls.replaceChildren();
    if (data.samples.length > 1) {
      controls.append(select("Sample", data.samples.map((s) => s.label), index, choose));
    }
    const parts = [];
    const update = () => parts.forEach((part) => part());
    if (one.layers > 1) {
      state.layer = one.layers - 1;
      controls.append(slider("Layer", { min: 1, max: one.layers, value: one.layers,
        text: (value) => `${value} of ${one.layers}` }, (value) => { state.layer = value - 1; update(); }));
    }
    if (one.frames.length > 1) {
      const seen = one.attention[0]?.frames[state.layer];
      state.frame = seen ? seen.indexOf(Math.max(...seen)) : one.frames.length >> 1;
      const frames = slider("Frame", { min: 1, max: one.frames.length, value: state.frame + 1,
        text: (value) => `${value} of ${one.frames.length}` }, (value) => { state.frame = value - 1; update(); });
      state.show = (index) => {
        frames.querySelector("input").value = index + 1;
        frames.querySelector("input").dispatchEvent(new Event("input"));
      };
      controls.append(frames);
    }
    if (labels.length > 1) {
      controls.append(select("Attention", labels, 0, (value) => { state.seen = value; update(); }));
    }
    if (one.tokens.length > 1) {
      controls.append(select("Tokens cut", one.tokens.map((cut) => readable(cut.label)), 0, (value) => {
        state.tokens = value; update();
      }));
    }
    body.replaceChildren(asked(one), ...pictures(one, labels, state, parts), ...tokens(one, state, parts),
      ...options(one));
    update();
  }
  choose(0);
};

function unpacked(one) {
  const words = one.words && { ...one.words, top: array(one.words.top), probability: array(one.words.probability) };
  const attention = one.attention.map((seen) => ({ ...seen, root: array(seen.root) }));
  const layers = words ? words.top.shape[0] : attention.length ? attention[0].root.shape[0]
    : Math.max(0, ...one.tokens.flatMap((cut) => cut.layers));
  return { ...one, words, attention, layers };
}

// Base64 as numbers, little-endian.
function array({ shape, bytes, data }) {
  const raw = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const view = new DataView(raw.buffer);
  const read = { 1: (i) => raw[i], 2: (i) => view.getUint16(2 * i, true), 4: (i) => view.getUint32(4 * i, true) }[bytes];
  return { shape, at: (...index) => read(index.reduce((sum, i, axis) => sum * shape[axis] + i, 0)) };
}

function asked(one) {
  return make("div", { class: "asked" },
    make("pre", { dir: "auto" }, one.prompt),
    make("p", {}, "Answer: ", make("b", {}, one.answer), one.true ? [" (right: ", make("b", {}, one.true), ")"] : ""));
}

// The chosen frame under words, and under attention as it is and with edges cut; all frames below.
function pictures(one, labels, state, parts) {
  if (!one.frames.length) return [];
  const panels = make("div", { class: "panels" });
  const own = () => one.attention.filter((seen) => seen.label === labels[state.seen]);
  if (one.words) {
    panels.append(framePanel(one, state, parts, {
      grid: () => one.words.top.shape.slice(2, 4), title: () => `Words, layer ${state.layer + 1}`, cell: wordCell,
    }));
  }
  const slots = Math.max(0, ...labels.map((label) => one.attention.filter((s) => s.label === label).length));
  for (let i = 0; i < slots; i += 1) {
    panels.append(framePanel(one, state, parts, {
      grey: true, grid: () => own()[0].root.shape.slice(2),
      title: () => {
        const seen = own()[i];
        return seen ? `Attention of ${seen.label}, layer ${state.layer + 1}${seen.cut ? `, cut: ${seen.cut}` : ""}` : "";
      },
      cell: (o, s, row, column) => (own()[i] ? attentionCell(own()[i], s, row, column) : null),
    }));
  }
  if (!panels.childElementCount) {
    panels.append(framePanel(one, state, parts, { grid: () => [1, 1], title: () => "The frame", cell: () => null }));
  }
  const strip = make("ol", { class: "strip" }, one.frames.map((source, index) => {
    const said = make("span", {});
    parts.push(() => {
      const seen = own()[0];
      said.textContent = seen ? `${index + 1}: ${(100 * seen.frames[state.layer][index]).toFixed(1)}%` : `${index + 1}`;
      item.classList.toggle("chosen", index === state.frame);
    });
    const item = make("li", {}, make("button", { type: "button", click: () => state.show?.(index) },
      make("img", { src: source, alt: `Frame ${index + 1}` }), said));
    return item;
  }));
  const about = one.attention.length ? "All frames, with the attention to each as it is" : "All frames";
  return [panels, make("p", { class: "note" }, about), strip];
}

function framePanel(one, state, parts, { title, grid, cell, grey }) {
  const said = make("figcaption", {});
  const holder = make("div", {});
  const image = new Image();
  image.src = one.frames[0];
  const redraw = () => {
    const [rows, columns] = grid();
    // Words in many places need the whole width.
    panel.classList.toggle("wide", !grey && columns > 8);
    const width = !grey && columns > 8 ? 1000 : 600, height = Math.round(width * (image.naturalHeight / image.naturalWidth || 1));
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${title()}. Arrow keys go from place to place.` },
      draw("image", { href: one.frames[state.frame], width, height, preserveAspectRatio: "none", class: grey ? "grey" : null }));
    const cells = [];
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const found = cell(one, state, row, column);
        if (!found) continue;
        const w = width / columns, h = height / rows;
        const box = draw("rect", { x: column * w, y: row * h, width: w, height: h, tabindex: -1, role: "img",
          class: "place", fill: found.fill, "fill-opacity": found.opacity, "aria-label": [found.title, ...found.lines].join("; "),
          focus: () => showTip(box, found.title, found.lines), blur: hideTip,
          pointerenter: (event) => showTip(box, found.title, found.lines, event), pointerleave: hideTip });
        svg.append(box, ...written(found.text, column * w + w / 2, row * h + h / 2, w));
        cells.push({ box, row, column });
      }
    }
    gridKeys(cells);
    said.textContent = title();
    holder.replaceChildren(svg);
  };
  image.onload = redraw;
  parts.push(redraw);
  const panel = make("figure", {}, said, holder);
  return panel;
}

function written(text, x, y, width) {
  if (text === undefined) return [];
  const shown = text.trim() || "\u2423";
  const size = Math.max(7, Math.min(17, 1.6 * width / Math.max(3, shown.length)));
  const room = Math.max(1, Math.floor(1.7 * width / size));
  const cut = shown.length > room ? `${shown.slice(0, Math.max(1, room - 1))}\u2026` : shown;
  return [draw("text", { x, y: y + size * 0.35, "text-anchor": "middle", "font-size": size, class: "word" }, cut)];
}

function wordCell(one, state, row, column) {
  const { top, probability, texts } = one.words;
  const at = [state.layer, state.frame, row, column];
  const k = top.shape[4];
  const found = [...Array(k).keys()].map((i) => [texts[top.at(...at, i)], probability.at(...at, i) / 255]);
  if (found[0][0] === undefined) return null;
  return { fill: "#000", opacity: 0.5, text: found[0][0], title: `row ${row + 1}, column ${column + 1}`,
    lines: found.filter(([text]) => text !== undefined).map(([text, p]) => `\u201c${text}\u201d ${(100 * p).toFixed(1)}%`) };
}

function attentionCell(seen, state, row, column) {
  const part = (seen.root.at(state.layer, state.frame, row, column) / 255) ** 2;
  return { fill: "#e05a00", opacity: 0.05 + 0.8 * part, title: `row ${row + 1}, column ${column + 1}`,
    lines: [`attention ${(100 * part * seen.most[state.layer]).toFixed(3)}%`, `largest in this layer ${(100 * seen.most[state.layer]).toFixed(2)}%`] };
}

function gridKeys(cells) {
  if (!cells.length) return;
  cells[0].box.setAttribute("tabindex", 0);
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  cells.forEach((cell) => cell.box.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const to = cells.find((c) => c.row === cell.row + move[0] && c.column === cell.column + move[1]);
    if (!to) return;
    cell.box.setAttribute("tabindex", -1);
    to.box.setAttribute("tabindex", 0);
    to.box.focus();
  }));
}

function tokens(one, state, parts) {
  if (!one.tokens.length) return [];
  const line = make("p", { class: "tokens", dir: "auto" });
  const note = make("p", { class: "note" });
  parts.push(() => {
    const cut = one.tokens[state.tokens];
    const most = Math.max(5, ...cut.change.flat().map(Math.abs));  // less than 5% is never dark
    const nearest = cut.layers.reduce((a, b, i) => (Math.abs(b - state.layer - 1) < Math.abs(cut.layers[a] - state.layer - 1) ? i : a), 0);
    line.replaceChildren(...cut.texts.map((text, i) => {
      const value = cut.change[i][nearest];
      const lines = [`probability changes by ${signed(value)}%`];
      const mark = make("span", { tabindex: 0, style: `background:${heatColour(value / most)};color:${Math.abs(value / most) > 0.6 ? "#fff" : "#1b2430"}`,
        focus: () => showTip(mark, text, lines), blur: hideTip,
        pointerenter: (event) => showTip(mark, text, lines, event), pointerleave: hideTip }, text);
      return mark;
    }));
    note.textContent = `Each token's edges ${readable(cut.label)} cut in the window around layer ${cut.layers[nearest]}; `
      + `brown: the probability falls, purple: it rises, darkest at ${most.toFixed(1)}% in any layer. One sample: nothing is tested.`;
  });
  return [make("h3", {}, "Which words of the question are read"), line, note];
}

function options(one) {
  if (!one.options) return [];
  const { letters, probability } = one.options;
  const x = probability.map((_, i) => i + 1);
  const lines = letters.map((letter, i) => ({
    label: letter === one.true ? `${letter} (right)` : letter, x, style: i, mean: probability.map((row) => row[i]), low: null, high: null,
    texts: probability.map((row) => [`probability ${row[i].toFixed(4)}`]),
  }));
  const shown = lines.length > MOST_LINES ? lines.filter((line, i) => letters[i] === one.true
    || Math.max(...line.mean) >= [...lines].map((l) => Math.max(...l.mean)).sort((a, b) => b - a)[MOST_LINES - 1]).slice(0, MOST_LINES) : lines;
  shown.forEach((line, i) => { line.style = i; });
  const chart = make("div", { class: "chart" });
  const redraw = whenResized(chart, (width) => chart.replaceChildren(lineChart(shown, Math.min(width, 620), {
    unit: "", label: "probability as the next token", cap: [0, 1] })));
  queueMicrotask(redraw);
  const rest = shown.length < lines.length
    ? [make("p", { class: "note" }, `The right one and the most probable of ${lines.length} options.`)] : [];
  return [make("h3", {}, "Probability of the options, read after every layer"), chart, lineLegend(shown), ...rest];
}
