// A map of points: search, true neighbours, selection, a linked histogram, and an address.

const NUMBERS = { float32: Float32Array, uint32: Uint32Array, uint16: Uint16Array, int16: Int16Array };
const MAP_ROWS = 100; // of a selection that are shown; the file holds all
const MAP_BINS = 60;

function unpack({ dtype, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return new NUMBERS[dtype](bytes.buffer);
}

// Plotly reads a little HTML in labels.
const plain = (text) => text.replace(/[&<>$]/g, (sign) => `&#${sign.charCodeAt(0)};`);
const short = (text) => (text.length > 40 ? text.slice(0, 39) + "…" : text);
const rounded = (value) => Number(value.toPrecision(4));

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function around(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const spare = 0.04 * (high - low) || 1;
  return [low - spare, high + spare];
}

function inside(x, y, [xs, ys]) {
  let is = false;
  for (let at = 0, before = xs.length - 1; at < xs.length; before = at++) {
    if (ys[at] > y !== ys[before] > y && x < ((xs[before] - xs[at]) * (y - ys[at])) / (ys[before] - ys[at]) + xs[at]) is = !is;
  }
  return is;
}

// What an address such as #map=0&find=12&norm=0.3,0.4&view=…&area=… says of one map.
function addressed(number) {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.get("map") !== String(number)) return null;
  const numbers = (name, least) => {
    const found = (given.get(name) || "").split(",").map(Number);
    return found.length >= least && found.every(Number.isFinite) ? found : null;
  };
  const area = numbers("area", 6);
  const half = area && area.length / 2;
  return {
    find: given.get("find"),
    norm: numbers("norm", 2),
    view: numbers("view", 4),
    area: area && [area.filter((_, place) => place % 2 === 0), area.filter((_, place) => place % 2).slice(0, half)],
  };
}

async function openMap(element) {
  const source = JSON.parse(element.nextElementSibling.textContent);
  const [ids, norms, positions, neighbors, cosines] = ["ids", "norms", "positions", "neighbors", "cosines"].map((name) => unpack(source[name]));
  const { labels, placed, mean_norm: mean, cosine_unit: unit } = source;
  const count = labels.length;
  const k = source.neighbors.shape[1];
  const x = new Float32Array(count);
  const y = new Float32Array(count);
  for (let place = 0; place < count; place++) [x[place], y[place]] = [positions[2 * place], positions[2 * place + 1]];
  const sorted = norms.slice().sort();
  const quantile = (share) => sorted[Math.round(share * (count - 1))];
  const place = new Map(Array.from(ids, (id, at) => [id, at]));
  const lower = labels.map((label) => label.toLowerCase());
  const number = [...document.querySelectorAll(".map")].indexOf(element);
  const part = (name) => element.querySelector(name);
  const [cloud, card, bars, list, field, mode] = [".cloud", ".card", ".bars-of-norms", ".selected", ".search", ".mode"].map(part);
  const touch = matchMedia("(pointer: coarse)").matches;
  const state = { find: null, norm: null, view: null, area: null };
  let chosen = null; // places inside area and norms; null: nothing is selected
  let theme = {};

  // A point is its row number, or learned-0, learned-1 and so on: names may be shared.
  const pointOf = (key) => {
    const learned = /^learned-(\d+)$/.exec(key ?? "");
    if (learned) {
      const one = placed[learned[1]];
      if (!one) return null;
      const near = one.neighbors.map(([label, id, cosine]) => ({ label, key: String(id), cosine, at: place.get(id) }));
      return { key, label: one.label, x: one.x, y: one.y, norm: one.norm, note: one.note, near };
    }
    const at = place.get(Number(key));
    if (key === null || key === "" || at === undefined) return null;
    const near = Array.from(neighbors.subarray(at * k, at * k + k), (other, rank) => ({
      label: labels[other], key: String(ids[other]), cosine: cosines[at * k + rank] * unit, at: other,
    }));
    return { key, label: labels[at], x: x[at], y: y[at], norm: norms[at], note: `row ${ids[at]}`, near };
  };

  const remember = () => {
    const entries = { map: number };
    if (state.find) entries.find = state.find;
    if (state.norm) entries.norm = state.norm.map(rounded).join(",");
    if (state.view) entries.view = state.view.map(rounded).join(",");
    if (state.area) entries.area = state.area[0].flatMap((value, at) => [rounded(value), rounded(state.area[1][at])]).join(",");
    const words = Object.entries(entries).map(([name, value]) => `${name}=${value}`);
    history.replaceState(null, "", "#" + words.join("&"));
  };

  const select = () => {
    const { norm, area } = state;
    chosen = null;
    if (!norm && !area) return;
    chosen = [];
    for (let at = 0; at < count; at++) {
      if (norm && !(norms[at] >= norm[0] && norms[at] <= norm[1])) continue;
      if (area && !inside(x[at], y[at], area)) continue;
      chosen.push(at);
    }
  };

  const marks = (point) => {
    if (!point) return { shapes: [], annotations: [] };
    const ends = point.near.filter(({ at }) => at !== undefined);
    const ring = (px, py, size, color) => ({
      type: "circle", xref: "x", yref: "y", xsizemode: "pixel", ysizemode: "pixel",
      xanchor: px, yanchor: py, x0: -size, x1: size, y0: -size, y1: size, line: { color, width: 1.5 },
    });
    return {
      shapes: [
        ...ends.map(({ at }) => ({
          type: "line", xref: "x", yref: "y", x0: point.x, y0: point.y, x1: x[at], y1: y[at], line: { color: theme.ink, width: 0.75 },
        })),
        ...ends.map(({ at }) => ring(x[at], y[at], 5, theme.ink)),
        ring(point.x, point.y, 8, theme.ink),
      ],
      annotations: [{
        x: point.x, y: point.y, text: `<b>${plain(short(point.label))}</b>`, showarrow: false, yshift: 20,
        font: { color: theme.ink }, bgcolor: theme.paper, borderpad: 2,
      }],
    };
  };

  const describe = (point) => {
    card.replaceChildren();
    if (!point) {
      card.append(make("p", { textContent: "Point at a token, or search, to see its true neighbours." }));
      return;
    }
    const rows = point.near.map(({ label, key, cosine }) => {
      const button = make("button", { type: "button", textContent: short(label), title: label });
      button.addEventListener("click", () => focus(key));
      return make("li", {}, button, ` ${cosine.toFixed(3)}`);
    });
    card.append(
      make("h4", {}, make("bdi", { textContent: short(point.label), title: point.label })),
      make("p", { textContent: `${point.note} · norm ${point.norm.toPrecision(4)}, ×${(point.norm / mean).toFixed(2)} the mean` }),
      make("ol", {}, ...rows),
    );
  };

  let pointed; // what is under the pointer
  const mark = (point) => {
    if (pointed === point?.key) return;
    pointed = point?.key;
    describe(point);
    Plotly.relayout(cloud, marks(point));
  };
  const focus = (key) => {
    state.find = pointOf(key) && key;
    mark(pointOf(state.find));
    remember();
  };

  const counts = (places) => {
    const [low, high] = [quantile(0.001), quantile(0.999)];
    const width = (high - low) / MAP_BINS || 1;
    const found = new Array(MAP_BINS).fill(0);
    const add = (at) => found[Math.min(MAP_BINS - 1, Math.max(0, Math.floor((norms[at] - low) / width)))]++;
    if (places) places.forEach(add);
    else for (let at = 0; at < count; at++) add(at);
    return { x: found.map((_, bin) => low + (bin + 0.5) * width), y: found, width };
  };

  const table = () => {
    list.replaceChildren();
    if (!chosen) return;
    const ordered = [...chosen].sort((one, other) => norms[other] - norms[one]);
    const nearest = (at) => [labels[neighbors[at * k]], cosines[at * k] * unit];
    const total = chosen.reduce((sum, at) => sum + norms[at], 0);
    const said = chosen.length ? `, mean norm ${(total / chosen.length).toPrecision(4)}` : "";
    const shown = ordered.length > MAP_ROWS ? `; the ${MAP_ROWS} longest:` : "";
    const button = make("button", { type: "button", textContent: "Selection (CSV)" });
    button.addEventListener("click", () => {
      const cell = (value) => (/[",\n\r]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
      const lines = ordered.map((at) => [labels[at], ids[at], norms[at], x[at], y[at], ...nearest(at)].map(cell).join(","));
      save("selection.csv", "text/csv", ["token,id,norm,x,y,nearest,cosine", ...lines].join("\n") + "\n");
    });
    const head = make("tr", {}, ...["token", "id", "norm", "nearest", "cosine"].map((title) => make("th", { textContent: title, className: ["token", "nearest"].includes(title) ? "" : "n" })));
    const rows = ordered.slice(0, MAP_ROWS).map((at) => {
      const [near, cosine] = nearest(at);
      const token = make("button", { type: "button", textContent: short(labels[at]) });
      token.addEventListener("click", () => focus(String(ids[at])));
      const cells = [ids[at], norms[at].toPrecision(4)].map((value) => make("td", { className: "n", textContent: value }));
      return make("tr", {}, make("td", { className: "t" }, token), ...cells, make("td", { className: "t", textContent: short(near) }), make("td", { className: "n", textContent: cosine.toFixed(3) }));
    });
    const region = make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", "Selected tokens");
    list.append(make("div", { className: "bar" }, make("h4", { textContent: `${chosen.length} tokens selected${said}${shown}` }), button), region);
  };

  const outline = () => (state.area
    ? [{ type: "path", xref: "x", yref: "y", path: "M" + state.area[0].map((px, at) => `${px},${state.area[1][at]}`).join("L") + "Z", line: { color: theme.ink, width: 1, dash: "dot" } }]
    : []);
  const band = () => (state.norm
    ? [{ type: "rect", xref: "x", yref: "y domain", x0: state.norm[0], x1: state.norm[1], y0: 0, y1: 1, line: { color: theme.ink, width: 1, dash: "dot" } }]
    : []);

  const refresh = async () => {
    select();
    await Plotly.update(cloud, { selectedpoints: [chosen] }, { selections: outline() }, [0]);
    const part = chosen ? counts(chosen) : { x: [], y: [] };
    await Plotly.update(bars, { x: [part.x], y: [part.y] }, { selections: band() }, [1]);
    table();
    remember();
  };

  const draw = async ({ dark = isDark(), width } = {}) => {
    const color = (value) => (dark && darkColors[value]) || value;
    const style = getComputedStyle(root);
    const scheme = dark ? "dark" : "light";
    const named = (name) => style.getPropertyValue(`--${name}`).match(/#\w+/g)[scheme === "dark" ? 1 : 0];
    theme = { ink: named("ink"), muted: named("muted"), paper: named("paper"), rule: named("rule"), blue: color("#0072B2"), red: color("#D55E00") };
    const common = {
      width, paper_bgcolor: theme.paper, plot_bgcolor: theme.paper, showlegend: false,
      font: { family: "system-ui, sans-serif", size: 12, color: theme.ink },
      modebar: { bgcolor: theme.paper, color: theme.muted, activecolor: theme.ink },
      hoverlabel: { bgcolor: theme.paper, bordercolor: theme.muted, font: { color: theme.ink } },
      newselection: { line: { color: theme.ink, width: 1, dash: "dot" } },
    };
    const dots = {
      type: "scattergl", mode: "markers", x, y, hoverinfo: "none", selectedpoints: chosen ?? undefined,
      marker: {
        size: count > 20000 ? 2.5 : count > 3000 ? 4 : 7, color: norms, cmin: quantile(0.01), cmax: quantile(0.99), opacity: 0.8,
        colorscale: [[0, theme.blue], [0.5, dark ? "#77756f" : "#b3afa4"], [1, theme.red]], showscale: true,
        colorbar: { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", len: 0.5, thickness: 8, nticks: 4, title: { text: "norm", side: "top" }, outlinewidth: 0 },
      },
      unselected: { marker: { opacity: 0.06 } },
    };
    const lines = new Map();
    placed.forEach((one, at) => lines.set(one.line, [...(lines.get(one.line) || []), at]));
    const paths = [...lines.values()].map((places) => ({
      type: "scatter", mode: "lines+markers+text", hoverinfo: "none", cliponaxis: false,
      x: places.map((at) => placed[at].x), y: places.map((at) => placed[at].y), customdata: places.map((at) => `learned-${at}`),
      text: places.map((at, rank) => (rank === places.length - 1 ? plain(short(placed[at].label)) : "")), textposition: "top center",
      line: { color: theme.ink, width: 1.5 }, textfont: { color: theme.ink },
      marker: { color: theme.ink, symbol: "diamond", size: places.map((_, rank) => (rank === places.length - 1 ? 11 : 6)), line: { color: theme.paper, width: 1 } },
    }));
    // Fixed ranges: with automatic ones plotly computes all points again for every mark.
    const [x0, x1, y0, y1] = state.view || [...around(x), ...around(y)];
    const axis = { visible: false, zeroline: false };
    const across = { ...axis, range: [x0, x1] };
    const up = { ...axis, range: [y0, y1], scaleanchor: "x" };
    const selecting = mode.getAttribute("aria-pressed") === "true";
    await Plotly.react(cloud, [dots, ...paths], {
      ...common, ...marks(pointOf(state.find)), selections: outline(), height: Math.max(340, Math.min(560, (width ?? cloud.clientWidth) + 60)), margin: { l: 4, r: 4, t: 48, b: 4 },
      xaxis: across, yaxis: up, dragmode: selecting ? "lasso" : touch ? false : "pan", hovermode: "closest",
    }, { responsive: true, displaylogo: false, scrollZoom: !touch, modeBarButtonsToRemove: ["select2d", "autoScale2d"] });
    const all = counts(null);
    const part = chosen ? counts(chosen) : { x: [], y: [] };
    const bar = { type: "bar", hoverinfo: "x+y", width: all.width };
    await Plotly.react(bars, [{ ...bar, x: all.x, y: all.y, marker: { color: theme.rule } }, { ...bar, x: part.x, y: part.y, marker: { color: theme.blue } }], {
      ...common, selections: band(), height: 130, margin: { l: 44, r: 8, t: 4, b: 34 }, barmode: "overlay", bargap: 0,
      dragmode: touch ? false : "select", selectdirection: "h", xaxis: { title: { text: "norm", standoff: 4 }, zeroline: false, gridcolor: theme.rule },
      yaxis: { fixedrange: true, gridcolor: theme.rule, nticks: 3, zeroline: false },
    }, { responsive: true, displayModeBar: false });
  };

  const find = (text) => {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return [];
    const ranked = [[], [], []];
    placed.forEach(({ label }, at) => label.toLowerCase().includes(wanted) && ranked[0].push([label, `learned-${at}`]));
    for (let at = 0; at < count; at++) {
      const where = lower[at].indexOf(wanted);
      if (where >= 0) ranked[lower[at] === wanted ? 0 : where === 0 ? 1 : 2].push([labels[at], String(ids[at])]);
    }
    return ranked.flat().slice(0, 12);
  };
  const matches = part(".matches");
  field.addEventListener("input", () => {
    const found = find(field.value);
    matches.replaceChildren(...found.map(([label, key]) => {
      const button = make("button", { type: "button", textContent: short(label), title: label });
      button.addEventListener("click", () => focus(key));
      return button;
    }));
    if (field.value.trim() && !found.length) matches.append("no such token here");
  });
  field.addEventListener("keydown", ({ key }) => key === "Enter" && matches.querySelector("button")?.click());
  mode.addEventListener("click", () => {
    const selecting = mode.getAttribute("aria-pressed") !== "true";
    mode.setAttribute("aria-pressed", selecting);
    Plotly.relayout(cloud, { dragmode: selecting ? "lasso" : touch ? false : "pan" });
    Plotly.relayout(bars, { dragmode: selecting || !touch ? "select" : false });
  });
  part(".clear").addEventListener("click", () => {
    Object.assign(state, { norm: null, area: null, view: null });
    field.value = "";
    matches.replaceChildren();
    state.find = null;
    show();
    remember();
  });

  const show = async () => {
    select();
    await draw();
    describe(pointOf(state.find));
    table();
  };
  // Returns whether the address is about this map.
  const restore = () => {
    const given = addressed(number);
    if (given) Object.assign(state, given, { find: pointOf(given.find) && given.find });
    return Boolean(given);
  };

  if (restore()) element.scrollIntoView();
  await show();
  addEventListener("hashchange", () => restore() && show());
  const keyOf = ({ points: [point] }) => point.customdata ?? String(ids[point.pointNumber]);
  cloud.on("plotly_hover", (event) => mark(pointOf(keyOf(event))));
  cloud.on("plotly_unhover", () => mark(pointOf(state.find)));
  cloud.on("plotly_click", (event) => focus(keyOf(event)));
  cloud.on("plotly_selected", (event) => {
    if (!event?.lassoPoints) return;
    state.area = [event.lassoPoints.x, event.lassoPoints.y];
    refresh();
  });
  bars.on("plotly_selected", (event) => {
    if (!event?.range) return;
    state.norm = event.range.x;
    refresh();
  });
  for (const plot of [cloud, bars]) {
    plot.on("plotly_deselect", () => {
      state[plot === cloud ? "area" : "norm"] = null;
      refresh();
    });
  }
  cloud.on("plotly_relayout", (change) => {
    if (!Object.keys(change).some((key) => /axis\.(range|autorange)/.test(key))) return;
    state.view = [...cloud.layout.xaxis.range, ...cloud.layout.yaxis.range];
    remember();
  });
  const keys = new Map([...placed.map(({ label }, at) => [label, `learned-${at}`]), ...labels.map((label, at) => [label, String(ids[at])])]);
  const seek = (label) => {
    element.scrollIntoView();
    focus(keys.get(label));
  };
  return { draw, seek, has: (label) => keys.has(label) };
}

// A token in a table of the page is shown on the map by a click.
function linkTokens() {
  for (const cell of document.querySelectorAll("td.t")) {
    const label = cell.textContent;
    const map = maps.find(({ has }) => has(label));
    if (!map) continue;
    const button = make("button", { type: "button", className: "on-map", title: "Show on the map", textContent: label });
    button.addEventListener("click", () => map.seek(label));
    cell.replaceChildren(button);
  }
}
