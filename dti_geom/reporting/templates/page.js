"use strict";
const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const darkColors = JSON.parse(document.getElementById("dark-colors").textContent);
const toggle = document.getElementById("theme");

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

const plots = document.querySelectorAll(".plot");

function draw(plot, { dark = isDark(), width } = {}) {
  // Only values of keys named …color are exchanged: a token may be called "#0072B2".
  const recolour = (key, value) => (dark && key.endsWith("color") && darkColors[value]) || value;
  const touch = matchMedia("(pointer: coarse)").matches;
  const { data, layout } = JSON.parse(plot.nextElementSibling.textContent, recolour);
  Object.assign(layout, { width, dragmode: touch ? false : "zoom" }); // a finger scrolls the page
  Plotly.react(plot, data, layout, {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });
}

function redraw(options) {
  toggle.textContent = isDark() ? "Light theme" : "Dark theme";
  for (const plot of plots) draw(plot, options);
}

toggle.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  redraw();
});
prefersDark.addEventListener("change", () => redraw());
addEventListener("beforeprint", () => redraw({ dark: false, width: 680 }));
addEventListener("afterprint", () => redraw());

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a busy machine takes its time to save
}

for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => {
    const data = JSON.parse(document.getElementById(button.dataset.download + "-data").textContent);
    save(button.dataset.download + ".json", "application/json", JSON.stringify(data, null, 2));
  });
}

// What a cell says, for machines: 1,234 → 1234, −1.2×10⁻⁵ → -1.2e-5, ×3.5 → 3.5, 36.9° → 36.9 and its unit apart.
function plain(cell) {
  const text = cell.textContent.trim();
  const found = text.match(/^×?([−\d.,]+)(?:×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?\s?([%°]?)$/u);
  if (text === "–") return { value: "" };
  // A spreadsheet would take a text that starts so for a formula.
  if (!found || !cell.matches(".n")) return { value: text.replace(/^(?=[=+\-@])/, "'") };
  const power = [...(found[2] ?? "")].map((digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹".indexOf(digit) - 1).join("").replace("-1", "-");
  const digits = found[1].replaceAll(",", "").replace("−", "-");
  return { value: power ? digits + "e" + power : digits, unit: found[3] };
}

// All tables of a section as one: a first column names the table, and each has the columns it has.
function csv(section) {
  const columns = new Map([["table", 0]]), lines = [];
  let about = "";
  for (const part of section.querySelectorAll("h3, .scroll:not(.strip)")) {
    if (part.matches("h3")) {
      about = (part.querySelector("bdi") ?? part).textContent.trim() + ": ";
      continue;
    }
    const rows = [...part.querySelectorAll("tbody tr")].map((row) =>
      [...row.cells].flatMap((cell) => [plain(cell), ...Array(cell.colSpan - 1).fill({ value: "" })]));
    const heads = [...part.querySelectorAll("thead th")].map((head) => head.textContent.trim());
    const names = heads.map((head, place) => {
      const unit = rows.map((row) => row[place]?.unit).find(Boolean);
      const twice = heads.indexOf(head) < place || heads.lastIndexOf(head) > place;
      return (twice && place ? heads[place - 1] + " " : "") + head + (unit ? ", " + unit : "");
    });
    for (const name of names) if (!columns.has(name)) columns.set(name, columns.size);
    for (const row of rows) {
      const line = [about + part.getAttribute("aria-label")];
      row.forEach(({ value }, place) => { line[columns.get(names[place])] = value; });
      lines.push(line);
    }
  }
  const quote = (value = "") => (/[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value);
  return [[...columns.keys()], ...lines]
    .map((line) => Array.from({ length: columns.size }, (_, place) => quote(line[place])).join(",") + "\r\n")
    .join("");
}

for (const button of document.querySelectorAll("[data-tables]")) {
  const name = button.dataset.tables;
  button.addEventListener("click", () => save(name + ".csv", "text/csv", csv(document.getElementById(name))));
}

for (const slider of document.querySelectorAll(".slide input")) {
  const stills = slider.closest("tr").querySelectorAll(".still img");
  const show = slider.parentElement.querySelector("img");
  slider.addEventListener("input", () => { show.src = stills[slider.value].src; });
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

// The page shows itself before its first plot, and answers between one plot and the next.
(async () => {
  toggle.textContent = isDark() ? "Light theme" : "Dark theme";
  for (const plot of plots) {
    await new Promise((resolve) => setTimeout(resolve));
    draw(plot);
    ready(plot);
  }
  root.dataset.drawn = "";
})();
