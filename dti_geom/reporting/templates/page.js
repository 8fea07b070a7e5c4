"use strict";
const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const darkColors = JSON.parse(document.getElementById("dark-colors").textContent);
const toggle = document.getElementById("theme");

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);

function draw({ dark = isDark(), width } = {}) {
  // Only values of keys named …color are exchanged: a token may be called "#0072B2".
  const recolour = (key, value) => (dark && key.endsWith("color") && darkColors[value]) || value;
  const touch = matchMedia("(pointer: coarse)").matches;
  for (const plot of document.querySelectorAll(".plot")) {
    const { data, layout } = JSON.parse(plot.nextElementSibling.textContent, recolour);
    Object.assign(layout, { width, dragmode: touch ? false : "zoom" }); // a finger scrolls the page
    Plotly.react(plot, data, layout, {
      responsive: true,
      displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    });
  }
  toggle.textContent = isDark() ? "Light theme" : "Dark theme";
}

toggle.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  draw();
});
prefersDark.addEventListener("change", () => draw());
addEventListener("beforeprint", () => draw({ dark: false, width: 680 }));
addEventListener("afterprint", () => draw());

for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => {
    const data = JSON.parse(document.getElementById(button.dataset.download + "-data").textContent);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(data, null, 2)], { type: "application/json" }));
    link.download = button.dataset.download + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

for (const slider of document.querySelectorAll(".slide input")) {
  const stills = slider.closest("tr").querySelectorAll(".still img");
  const show = slider.parentElement.querySelector("img");
  slider.addEventListener("input", () => { show.src = stills[slider.value].src; });
}

draw();

// A point whose customdata is a number shows that picture of its section's data.
for (const plot of document.querySelectorAll(".plot")) {
  const hide = () => plot.querySelector(".pointed")?.remove();
  plot.on("plotly_unhover", hide);
  plot.on("plotly_hover", ({ points: [point] }) => {
    hide();
    if (typeof point.customdata !== "number") return;
    const data = document.getElementById(plot.closest("section").id + "-data").textContent;
    const picture = document.createElement("img");
    picture.className = "pointed";
    picture.src = "data:image/png;base64," + JSON.parse(data).pictures[point.customdata].png;
    plot.append(picture);
  });
}
