// The report's data, what is shown of it, and numbers as text. All names come from `data` and reach
// the page as text only: by textContent, or escaped where Plotly would read markup (`plain`).
const data = JSON.parse(document.getElementById("data").textContent);
const { instructions, values, maps } = data;
const times = instructions.name.length;
const state = { view: "both", axis: "logical", colour: "kind" };
const panels = [...document.querySelectorAll("#maps figure")].map((figure, i) => ({
  figure, map: maps[i], plot: figure.querySelector(".plot"), drawn: false, busy: false,
}));

// Colours of the style sheet, read once for each drawing: to read one lays out the page anew.
const colours = new Map();
function css(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return colours.get(name);
}
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const count = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 }).format;
function inUnits(number, units) {
  const [unit, name] = units.find(([size]) => number >= size) ?? units.at(-1);
  return `${+(number / unit).toPrecision(4)} ${name}`;
}
const duration = (cycles) => inUnits(cycles / data.clockHz, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]]);
const cyclesText = (cycles) => `${count(cycles)} cycles (${duration(Math.abs(cycles))})`;
const shortSize = (size) => inUnits(size, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]]);
const sizeText = (size) => (size < 1024 ? shortSize(size) : `${shortSize(size)} (${count(size)} B)`);
// The instruction at a time; one past the last is the end of the program.
const nameAt = (time) => instructions.name[time] ?? "the end";
const opcodeAt = (time) => instructions.opcode[time] + (instructions.trips[time] > 1 ? ` ×${count(instructions.trips[time])}` : "");

const [memoryUnit, memoryUnitName] = data.capacity >= 2 ** 20 ? [2 ** 20, "MiB"] : [2 ** 10, "KiB"];
const peak = data.bytesPerSecond / 1e9;

// The x of a logical time: itself, or the cycles that have passed when it begins. An instruction's
// own stretch, the wait for copies before it included, begins where that of the one before ends; the
// wait at the end of the program is the last.
const isCycles = () => state.axis === "cycles";
const xOf = (map) => (isCycles() ? (time) => map.start[time] : (time) => time);
const beginOf = (map) => (time) => {
  if (!isCycles()) return Math.min(time, times);
  return time > times ? map.start[times] : map.start[time] - map.wait[time];
};
const span = () => (isCycles() ? Math.max(...maps.map((map) => map.start[times]), 1) : times);
function timeAt(map, x) {
  const begin = beginOf(map);
  let low = 0, high = times - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (begin(middle) <= x) low = middle;
    else high = middle - 1;
  }
  return low;
}
