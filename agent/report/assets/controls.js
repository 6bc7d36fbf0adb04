// The switches above the maps, the legend, and the first drawing.
function drawLegend() {
  const entries = state.colour === "kind"
    ? KINDS.map((name, kind) => [name, `--kind${kind}a`])
    : ["costs cycles", "makes no difference by itself", "saves under 0.1% of the program", "up to 1%", "more"].map((name, i) => [name, `--saved${i}`]);
  entries.push(["faint: still being copied in", null], ["bandwidth: instructions", "--own"], ["bandwidth: prefetches", "--copy"]);
  if (maps.some(({ copies }) => copies.prefetch.includes(0))) entries.push(["evictions", "--evict"]);
  if (data.reserved.length) entries.push(["reserved by the instruction", "--reserved"]);
  document.getElementById("legend").replaceChildren(...entries.map(([name, colour]) => {
    const entry = document.createElement("span");
    if (colour) entry.appendChild(document.createElement("i")).style.background = `var(${colour})`;
    entry.append(name);
    return entry;
  }));
}
async function redraw(range) {
  clearMarks();
  const isShown = (i) => maps.length < 2 || state.view === "both" || state.view === String(i);
  panels.forEach((panel, i) => (panel.figure.hidden = !isShown(i)));
  const shown = panels.filter((panel) => !panel.figure.hidden);
  document.getElementById("maps").classList.toggle("single", shown.length === 1);
  for (const group of document.querySelectorAll(".switch"))
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.value === state[group.dataset.control]));
  drawLegend();
  await Promise.all(shown.map((panel) => draw(panel, range)));
}
function rangeInSight() {
  const panel = panels.find(({ drawn, figure }) => drawn && !figure.hidden);
  return panel && viewOf(panel).x;
}
for (const group of document.querySelectorAll(".switch"))
  group.addEventListener("click", ({ target }) => {
    const { value } = target.dataset, { control } = group.dataset;
    if (!value || state[control] === value) return;
    const range = control === "axis" ? undefined : rangeInSight();
    state[control] = value;
    redraw(range);
  });
// A name in the tables leads to its time in the maps.
for (const button of document.querySelectorAll("tr[data-time] button"))
  button.addEventListener("click", () => {
    const time = Number(button.closest("tr").dataset.time), x = xOf(maps.at(-1));
    const around = isCycles() ? span() / 40 : Math.max(4, times / 40);
    document.getElementById("memory").scrollIntoView({ behavior: "smooth" });
    redraw([Math.max(0, x(time) - around), Math.min(span(), x(time + 1) + around)]);
  });
document.querySelector(".controls").hidden = false;
document.querySelector('[data-control="view"]').hidden = maps.length < 2;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", async () => {
  colours.clear();
  await redraw(rangeInSight());
  await drawCycles();
});
(async () => {
  await redraw();
  // For whoever measures: milliseconds since the page began to load.
  document.documentElement.dataset.mapsAfter = String(Math.round(performance.now()));
  await drawCycles();
  document.documentElement.dataset.drawnAfter = String(Math.round(performance.now()));
})();
