"use strict";

// The heavy ball, v = momentum*v + g; p = p - lr*v, on f = (ALONG*x^2 + ACROSS*y^2)/2. What a direction does is as
// fast_momentum.theory has it; tests/test_site.py compares the two.

const ALONG = 1, ACROSS = 25, START = [9, 1], STEPS = 120;
const STRETCH = 2;  // of the direction across, in the picture
const ROUNDING = 16 * Number.EPSILON;

/** Regime and rate at one curvature, from the roots of z^2 - trace*z + momentum. */
function direction(curvature, lr, momentum) {
  const a = 1 - lr * curvature, b = -lr * momentum, c = curvature, d = momentum;
  const mean = (a + d) / 2, square = ((a - d) / 2) ** 2 + b * c;
  const noise = ROUNDING * (Math.abs(a - d) / 2 * (Math.abs(a) + Math.abs(d)) + Math.abs(b * c));
  const determinant = momentum * (1 - lr * curvature) + lr * momentum * curvature;
  const rate = square < 0 ? Math.sqrt(Math.abs(determinant)) : Math.abs(mean) + Math.sqrt(square);
  let regime = "overdamped";
  if (rate > 1 + ROUNDING) regime = "divergent";
  else if (Math.abs(square) <= noise) regime = "critical";
  else if (square < 0) regime = "underdamped";
  else if (mean <= 0) regime = "alternating";
  return { regime, rate };
}

/** The lr beyond which the heavy ball diverges, the momentum between creeping and swinging, and the best of both. */
const limit = (momentum) => 2 * (1 + momentum) / ACROSS;
const critical = (lr) => (1 - Math.sqrt(lr * ALONG)) ** 2;
const best = () => {
  const roots = Math.sqrt(ALONG) + Math.sqrt(ACROSS);
  return { lr: 4 / roots ** 2, momentum: ((Math.sqrt(ACROSS) - Math.sqrt(ALONG)) / roots) ** 2 };
};

function path(lr, momentum) {
  const p = [...START], v = [0, 0], points = [[...p]];
  for (let k = 0; k < STEPS && Math.hypot(...p) < 1e3; k++) {
    [ALONG, ACROSS].forEach((curvature, i) => {
      v[i] = momentum * v[i] + curvature * p[i];
      p[i] -= lr * v[i];
    });
    points.push([...p]);
  }
  return points;
}

const WORDS = {
  overdamped: "over-damped: it creeps to the minimum",
  critical: "critically damped: as fast as it can be without swinging",
  underdamped: "under-damped: it swings around the minimum",
  alternating: "alternating: it jumps to the other side at each step",
  divergent: "diverging: each step leads further away",
};

function described(name, curvature, lr, momentum) {
  const { regime, rate } = direction(curvature, lr, momentum);
  const steps = rate < 1 && rate > 0 ? `; half of the error is gone in ${(Math.log(2) / -Math.log(rate)).toPrecision(2)} steps` : "";
  return `${name} (curvature ${curvature}) ${WORDS[regime]}${steps}.`;
}

// ---- the page ----

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, parent) {
  const made = document.createElementNS(name === "svg" || parent?.namespaceURI === SVG ? SVG : "http://www.w3.org/1999/xhtml", name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  parent?.append(made);
  return made;
}

function picture(parent) {
  const svg = element("svg", { viewBox: "-11 -5.2 22 10.4", role: "img", "aria-label": "Path of the parameters over the contours of a ravine" }, parent);
  for (let value = 1; value < 12; value++) {
    const size = value * value / 2;
    element("ellipse", { class: "contour", rx: Math.sqrt(2 * size / ALONG), ry: STRETCH * Math.sqrt(2 * size / ACROSS) }, svg);
  }
  element("circle", { class: "minimum", r: 0.12 }, svg);
  return { line: element("polyline", { class: "path" }, svg), dots: element("g", { class: "dots" }, svg) };
}

function slider(parent, name, attributes) {
  const label = element("label", {}, parent);
  const text = element("span", {}, label);
  const input = element("input", { type: "range", "aria-label": name, ...attributes }, label);
  return { text, input };
}

function build(figure) {
  const drawing = picture(figure), controls = element("div", { class: "controls" }, figure);
  const lr = slider(controls, "lr", { min: -3, max: -0.6, step: 0.001 });  // of its logarithm
  const momentum = slider(controls, "momentum", { min: 0, max: 0.99, step: 0.001 });
  const buttons = element("div", { class: "buttons" }, controls);
  const status = element("p", { role: "status" }, figure);
  const chosen = { lr: 0.03, momentum: 0.9 };

  function draw() {
    const points = path(chosen.lr, chosen.momentum).map(([x, y]) => [x, -STRETCH * y]);
    drawing.line.setAttribute("points", points.map((p) => p.join()).join(" "));
    drawing.dots.replaceChildren();
    points.slice(0, 40).forEach(([cx, cy]) => element("circle", { cx, cy, r: 0.11 }, drawing.dots));
    lr.text.textContent = `lr ${chosen.lr.toPrecision(3)} (limit ${limit(chosen.momentum).toPrecision(3)})`;
    momentum.text.textContent = `momentum ${chosen.momentum.toFixed(3)}`;
    lr.input.value = Math.log10(chosen.lr);
    momentum.input.value = chosen.momentum;
    const lines = [["Across", ACROSS], ["Along", ALONG]].map(([name, l]) => described(name, l, chosen.lr, chosen.momentum));
    status.replaceChildren(...lines.flatMap((line) => [line, document.createElement("br")]));
  }

  function choose(values) {
    Object.assign(chosen, values);
    draw();
  }

  lr.input.addEventListener("input", () => choose({ lr: 10 ** Number(lr.input.value) }));
  momentum.input.addEventListener("input", () => choose({ momentum: Number(momentum.input.value) }));
  const presets = {
    "no momentum": () => ({ lr: 2 / (ALONG + ACROSS), momentum: 0 }),
    "critical along": () => ({ momentum: critical(chosen.lr) }),
    "best of both": best,
    "too much": () => ({ lr: 1.02 * limit(chosen.momentum) }),
  };
  Object.entries(presets).forEach(([name, values]) => {
    const button = element("button", { type: "button" }, buttons);
    button.textContent = name;
    button.addEventListener("click", () => choose(values()));
  });
  draw();
}

if (typeof document !== "undefined") {
  const figure = document.getElementById("ravine");
  if (figure) {
    figure.replaceChildren();  // the picture for where there are no scripts
    build(figure);
  }
} else {
  module.exports = { direction, limit, critical, best, path, ALONG, ACROSS, START };
}
