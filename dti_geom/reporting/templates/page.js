"use strict";
const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const darkColors = JSON.parse(document.getElementById("dark-colors").textContent);
const toggle = document.getElementById("theme");

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

const plots = document.querySelectorAll(".plot");
const maps = []; // see map.js

let magnitude = null; // where the slider of magnitudes stands, in multiples of the mean norm

function withMagnitude({ shapes = [], meta }) {
  const others = shapes.filter(({ name }) => name !== "magnitude");
  if (magnitude === null || !meta?.magnitude) return others;
  const x = magnitude * meta.magnitude.mean;
  const line = { color: getComputedStyle(document.body).color, width: 2 };
  const lines = meta.magnitude.axes.map((axis) => (
    { name: "magnitude", type: "line", xref: axis, x0: x, x1: x, yref: `${axis.replace("x", "y")} domain`, y0: 0, y1: 1, line }
  ));
  return [...others, ...lines];
}

function draw(plot, { dark = isDark(), width } = {}) {
  // Only values of keys named …color are exchanged: a token may be called "#0072B2".
  const recolour = (key, value) => (dark && key.endsWith("color") && darkColors[value]) || value;
  const touch = matchMedia("(pointer: coarse)").matches;
  const { data, layout } = JSON.parse(plot.nextElementSibling.textContent, recolour);
  layout.shapes = withMagnitude(layout);
  Object.assign(layout, { width, dragmode: touch ? false : "zoom" }); // a finger scrolls the page
  Plotly.react(plot, data, layout, {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"],
    modeBarButtonsToAdd: ["png", "svg"].map((format) => ({
      name: `Save as ${format.toUpperCase()}`,
      icon: format === "png" ? Plotly.Icons.camera : Plotly.Icons.disk,
      click: () => Plotly.downloadImage(plot, { format, filename: fileName(plot), scale: format === "png" ? 3 : 1 }),
    })),
  });
}

function fileName(plot) {
  const section = plot.closest("section[id]");
  return `${section?.id || "plot"}-${[...(section || document).querySelectorAll(".plot")].indexOf(plot) + 1}`;
}

function redraw(options) {
  toggle.textContent = isDark() ? "Light theme" : "Dark theme";
  if (!window.Plotly) return; // it is drawn as soon as plotly is unpacked
  for (const plot of plots) draw(plot, options);
  for (const map of maps) map.draw(options);
}

toggle.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  redraw();
});
prefersDark.addEventListener("change", () => redraw());
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true; // paper unfolds nothing
  redraw({ dark: false, width: 680 });
});
addEventListener("afterprint", () => redraw());

// The contents say which section is being read.
const sections = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const link = document.querySelector(`nav a[href="#${target.id}"]`);
    if (!isIntersecting) {
      link.removeAttribute("aria-current");
      continue;
    }
    link.setAttribute("aria-current", "location");
    link.parentElement.scrollTo({ left: link.offsetLeft - 16 });
  }
}, { rootMargin: "-20% 0px -79% 0px" });
document.querySelectorAll("main > section[id]").forEach((section) => sections.observe(section));

// Downloads and plotly are most of the page, so they are kept compressed: gzip, in base64.
async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a busy machine takes its time to save
}

for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", async () => {
    const data = JSON.parse(await unpacked(button.dataset.download + "-data"));
    save(button.dataset.download + ".json", "application/json", JSON.stringify(data, null, 2));
  });
}

for (const button of document.querySelectorAll("[data-tables]")) {
  const name = button.dataset.tables;
  button.addEventListener("click", async () => save(name + ".csv", "text/csv", await unpacked(name + "-csv")));
}

// Long tables can be searched, and sorted by any column: numbers by value, texts by the alphabet.
const superscripts = "⁰¹²³⁴⁵⁶⁷⁸⁹";

function numberIn(text) {
  const plain = text.trim().replace(/^×/, "").replaceAll(",", "").replace("−", "-");
  const [, mantissa, sign, power] = /^(-?[\d.]+)(?:×10(⁻?)([⁰¹²³⁴-⁹]+))?/.exec(plain) || [];
  if (mantissa === undefined) return -Infinity; // no value
  const exponent = [...(power || "")].reduce((sum, digit) => 10 * sum + superscripts.indexOf(digit), 0);
  return mantissa * 10 ** (sign ? -exponent : exponent);
}

function readyTable(table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 13 || table.closest(".scroll").previousElementSibling?.matches(".tools")) return;
  const search = Object.assign(document.createElement("input"), { type: "search", className: "search", placeholder: `Search ${rows.length} rows` });
  search.setAttribute("aria-label", `Search in ${table.parentElement.getAttribute("aria-label")}`);
  table.parentElement.before(search);
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const numeric = head.className === "n";
    const value = ({ cells }) => (numeric ? numberIn(cells[place].textContent) : cells[place].textContent);
    const compare = (a, b) => (numeric ? value(b) - value(a) || 0 : value(a).localeCompare(value(b)));
    const sort = () => {
      const first = numeric ? "descending" : "ascending";
      const again = head.getAttribute("aria-sort") === first;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", again ? (first === "ascending" ? "descending" : "ascending") : first);
      const ordered = [...rows].sort((a, b) => (again ? compare(b, a) : compare(a, b)));
      body.append(...ordered);
    };
    head.tabIndex = 0;
    head.classList.add("sorts");
    head.addEventListener("click", sort);
    head.addEventListener("keydown", ({ key }) => key === "Enter" && sort());
  });
}

document.querySelectorAll(".scroll > table").forEach(readyTable);

// Rows of pictures can be searched and put in another order.
for (const select of document.querySelectorAll(".order")) {
  const tools = select.closest(".tools");
  const body = tools.nextElementSibling.querySelector("tbody");
  const rows = [...body.rows];
  select.addEventListener("change", () => {
    const place = ({ dataset }) => Number(dataset.places.split(" ")[select.selectedIndex]);
    body.append(...[...rows].sort((a, b) => place(a) - place(b)));
    tools.nextElementSibling.scrollTo({ top: 0 });
  });
  tools.querySelector(".search").addEventListener("input", ({ target }) => {
    const wanted = target.value.toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}

for (const slider of document.querySelectorAll(".slide input")) {
  const stills = slider.closest("tr").querySelectorAll(".still img");
  const show = slider.parentElement.querySelector("img");
  slider.addEventListener("input", () => { show.src = stills[slider.value].src; });
  // One slider moves all of its table, so that ways between the same tokens are compared.
  slider.addEventListener("input", ({ isTrusted }) => {
    if (!isTrusted) return;
    for (const other of slider.closest("table").querySelectorAll(".slide input")) {
      if (other === slider || other.max !== slider.max) continue;
      other.value = slider.value;
      other.dispatchEvent(new Event("input"));
    }
  });
}

// One slider changes the length of all tokens, in the pictures and on every plot against the norm.
const dials = document.querySelectorAll(".dial input");

function dial(input) {
  magnitude = Number(input.dataset.magnitudes.split(" ")[input.value]);
  const label = `×${magnitude}`;
  input.setAttribute("aria-valuetext", label);
  input.nextElementSibling.value = label;
  for (const { children } of input.closest(".slot").nextElementSibling.querySelectorAll("figure")) {
    [...children].slice(0, -1).forEach((image, place) => { image.hidden = place !== Number(input.value); });
  }
}

for (const input of dials) {
  dial(input);
  input.addEventListener("input", () => {
    dial(input);
    for (const plot of plots) {
      if (plot.layout?.meta?.magnitude) Plotly.relayout(plot, { shapes: withMagnitude(plot.layout) });
    }
  });
  const pictures = input.closest(".slot").nextElementSibling;
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target);
    input.parentElement.classList.toggle("afloat", seen.size > 0 && !seen.has(pictures));
  });
  watch.observe(pictures);
  for (const plot of plots) {
    if (JSON.parse(plot.nextElementSibling.textContent).layout.meta?.magnitude) watch.observe(plot);
  }
}

// A key hides the curves of its name and shows them again, by mouse, touch or keyboard.
function readyKeys(plot) {
  const keys = [...plot.querySelectorAll(".annotation")].filter((key) => keyed(plot, key.dataset.index).length);
  for (const key of keys) {
    key.classList.add("key");
    key.setAttribute("tabindex", "0");
    key.setAttribute("role", "button");
    key.setAttribute("aria-pressed", plot.data[keyed(plot, key.dataset.index)[0]].visible !== false);
  }
}

function keyed(plot, index) {
  const { name } = plot.layout.annotations[index];
  return plot.data.flatMap((trace, place) => (name && trace.name === name ? [place] : []));
}

function press(plot, index) {
  const places = keyed(plot, index);
  if (places.length) return Plotly.restyle(plot, { visible: plot.data[places[0]].visible === false }, places);
}

function ready(plot) {
  readyKeys(plot);
  plot.on("plotly_afterplot", () => readyKeys(plot));
  plot.on("plotly_clickannotation", ({ index }) => press(plot, index));
  plot.addEventListener("keydown", async (event) => {
    const key = event.target.closest(".key");
    if (!key || !["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    const { index } = key.dataset;
    await press(plot, index);
    plot.querySelector(`.key[data-index="${index}"]`).focus(); // plotly has drawn it anew
  });
  const hide = () => plot.querySelector(".pointed")?.remove();
  plot.on("plotly_unhover", hide);
  plot.on("plotly_hover", ({ points: [point] }) => {
    hide();
    if (typeof point.customdata !== "number") return; // the number of a picture
    const picture = document.createElement("img");
    picture.className = "pointed";
    picture.src = document.querySelector(`[data-picture="${point.customdata}"]`).src;
    plot.append(picture);
  });
}

// A plot that is folded away has no width until it is unfolded.
document.addEventListener("toggle", ({ target }) => {
  if (target.open) target.querySelectorAll(".plot.js-plotly-plot").forEach((plot) => Plotly.Plots.resize(plot));
}, true);

// The page shows itself before its first plot, and answers between one plot and the next.
(async () => {
  toggle.textContent = isDark() ? "Light theme" : "Dark theme";
  if (document.getElementById("plotly")) {
    const script = document.createElement("script");
    script.textContent = await unpacked("plotly");
    document.head.append(script);
  }
  for (const plot of plots) {
    await new Promise((resolve) => setTimeout(resolve));
    draw(plot);
    ready(plot);
  }
  for (const element of document.querySelectorAll(".map")) {
    await new Promise((resolve) => setTimeout(resolve));
    maps.push(await openMap(element));
  }
  linkTokens();
  root.dataset.drawn = "";
})();
