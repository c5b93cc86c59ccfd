"use strict";
// What all parts of the page share. Text from data becomes text nodes and attributes, never markup.

const WIDGETS = {};

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat());
  return element;
}

function signed(value, digits = 1) {
  const text = Math.abs(value).toFixed(digits);
  return (value < 0 && Number(text) !== 0 ? "\u2212" : "+") + text;
}

function pText(p) {
  return p < 0.0001 ? "< 0.0001" : `= ${p.toFixed(4)}`;
}

// One labelled control; `change` is called with its value.
function select(label, options, value, change) {
  const input = make("select", { change: () => change(Number(input.value)) },
    options.map((text, index) => make("option", { value: index }, text)));
  input.value = value;
  return make("label", {}, label, input);
}

function slider(label, { min, max, value, step = 1, text }, change) {
  const shown = make("output", {}, text(value));
  const input = make("input", {
    type: "range", min, max, step, "aria-label": label, "aria-valuetext": text(value),
    input: () => {
      shown.textContent = text(Number(input.value));
      input.setAttribute("aria-valuetext", shown.textContent);
      change(Number(input.value));
    },
  });
  input.value = value;
  return make("label", {}, make("span", {}, `${label}: `, shown), input);
}

// What is said of a mark, beside it. Screen readers read the mark's own label instead.
const tip = make("div", { id: "tip", hidden: "", "aria-hidden": "true" });

function showTip(mark, title, lines, event) {
  tip.replaceChildren(make("b", { dir: "auto" }, title), ...lines.map((text) => make("div", {}, text)));
  tip.hidden = false;
  const box = mark.getBoundingClientRect();
  const x = event ? event.clientX : box.left + box.width / 2;
  const y = event ? event.clientY : box.top + box.height / 2;
  const left = Math.min(x + 14, document.documentElement.clientWidth - tip.offsetWidth - 6);
  const below = y + 18 + tip.offsetHeight < innerHeight ? y + 18 : y - tip.offsetHeight - 14;
  tip.style.left = `${Math.max(6, left) + scrollX}px`;
  tip.style.top = `${below + scrollY}px`;
}

function hideTip() { tip.hidden = true; }

// Draw again when the holder's width changes.
function whenResized(holder, redraw) {
  let width = 0;
  const check = () => {
    const now = Math.floor(holder.clientWidth);
    if (now > 0 && now !== width) { width = now; redraw(now); }
  };
  new ResizeObserver(check).observe(holder);
  addEventListener("beforeprint", check);
  return () => { width = Math.floor(holder.clientWidth) || 900; redraw(width); };
}
