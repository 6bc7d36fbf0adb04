// The memory maps. All rectangles of one colour are one path, so that ten thousand open quickly.
const SHADES = ["a", "b", "c"]; // tell neighbours of one kind apart
const MAX_LABELS = 60;
const MAX_EDGED = 1500; // rectangles in sight that get an edge
const MARGIN = { l: 62, r: 8, t: 28, b: 44 };
const MEMORY_SHARE = [0.36, 1]; // of the height of a plot

function savedClass(saved) {
  const share = saved / Math.max(maps[0].start[times], 1);
  if (saved <= 0) return saved < 0 ? 0 : 1;
  return share < 1e-3 ? 2 : share < 1e-2 ? 3 : 4;
}
function colourOf(map, i) {
  if (state.colour === "saved") return `--saved${savedClass(map.chunks.saved[i])}`;
  const value = map.chunks.value[i];
  return `--kind${values.kind[value]}${SHADES[value % SHADES.length]}`;
}

const silent = { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false };
// No lines: Plotly would make an element of its own for the outline of each rectangle.
const boxes = (colour, more = {}) => ({ ...silent, mode: "none", x: [], y: [], fill: "toself", fillcolor: colour, ...more });
function addBox(trace, left, right, low, high) {
  trace.x.push(left, right, right, left, left, null);
  trace.y.push(low, low, high, high, low, null);
}
function memoryTraces(map) {
  const { chunks } = map, x = xOf(map), traces = new Map();
  const reserved = boxes(css("--reserved"), { opacity: 0.5 });
  const arriving = boxes(css("--page"), { opacity: 0.55 });
  data.reserved.forEach((size, time) => size && addBox(reserved, x(time), x(time + 1), 0, size / memoryUnit));
  for (let i = 0; i < chunks.value.length; i++) {
    const colour = colourOf(map, i), left = x(chunks.start[i]);
    const low = chunks.offset[i] / memoryUnit, high = low + chunks.size[i] / memoryUnit;
    if (!traces.has(colour)) traces.set(colour, boxes(css(colour)));
    addBox(traces.get(colour), left, x(chunks.end[i]), low, high);
    if (chunks.filled[i] > chunks.start[i]) addBox(arriving, left, x(chunks.filled[i]), low, high);
  }
  return [reserved, ...traces.values(), arriving].filter((trace) => trace.x.length);
}
function copyTraces(map) {
  const { copies } = map, x = xOf(map), thinnest = span() / 2000;
  const traces = ["--evict", "--copy"].map((colour) => boxes(css(colour), { yaxis: "y3" }));
  for (let i = 0; i < copies.value.length; i++) {
    const left = x(copies.start[i]), right = Math.max(x(copies.end[i]), left + thinnest);
    addBox(traces[copies.prefetch[i]], left, right, copies.lane[i] + 0.12, copies.lane[i] + 0.88);
  }
  // Without a trace its axis would be gone, and the axis of times with it.
  const none = boxes("", { x: [0], y: [0], yaxis: "y3" });
  return [none, ...traces.filter((trace) => trace.x.length)];
}

// --- what depends on the part in sight -------------------------------------------------------------

function viewOf(panel) {
  const full = panel.plot._fullLayout;
  if (panel.drawn) return { x: [...full.xaxis.range], y: [...full.yaxis.range], width: full.xaxis._length, height: full.yaxis._length };
  const width = Math.max(50, panel.plot.clientWidth - MARGIN.l - MARGIN.r);
  const height = (HEIGHT - MARGIN.t - MARGIN.b) * (MEMORY_SHARE[1] - MEMORY_SHARE[0]);
  return { x: [0, span()], y: [0, data.capacity / memoryUnit], width, height };
}
// Stairs of a column, averaged over pixels where there are more instructions than pixels.
function stairs(map, column, view) {
  const begin = beginOf(map), [left, right] = view.x, x = [], y = [];
  const first = timeAt(map, left), last = Math.min(timeAt(map, right) + 1, times);
  const add = (from, to, height) => (x.push(from, to), y.push(height, height));
  const step = (right - left) / Math.floor(view.width / 1.5);
  const averages = (last - first) * 2 > view.width;
  let edge = left, sum = 0; // the pixel under way, and its area so far
  for (let time = first; time <= last; time++) {
    let from = Math.max(begin(time), left);
    const to = Math.min(begin(time + 1), right);
    if (!averages && to > from) add(from, to, column[time]);
    while (averages && to > from) {
      const until = Math.min(to, edge + step);
      sum += column[time] * (until - from);
      from = until;
      if (until < edge + step) break;
      add(edge, edge + step, sum / step);
      edge += step;
      sum = 0;
    }
  }
  if (averages && edge < right) add(edge, right, sum / (right - edge));
  return { x, y };
}
// Names in the rectangles that have room for them, the largest first.
function labels(panel, view) {
  const { chunks } = panel.map, x = xOf(panel.map), found = [];
  const [left, right] = view.x, [low, high] = view.y;
  const perX = view.width / (right - left), perY = view.height / (high - low);
  let inSight = 0;
  for (let i = 0; i < chunks.value.length; i++) {
    const x0 = Math.max(x(chunks.start[i]), left), x1 = Math.min(x(chunks.end[i]), right);
    const offset = chunks.offset[i] / memoryUnit;
    const y0 = Math.max(offset, low), y1 = Math.min(offset + chunks.size[i] / memoryUnit, high);
    const width = (x1 - x0) * perX, height = (y1 - y0) * perY;
    if (width <= 0 || height <= 0) continue;
    inSight++;
    const text = values.name[chunks.value[i]];
    if (height >= 14 && width >= 7 * text.length) found.push({ area: width * height, x: (x0 + x1) / 2, y: (y0 + y1) / 2, text: plain(text) });
  }
  const shown = found.sort((a, b) => b.area - a.area).slice(0, MAX_LABELS);
  return { x: shown.map((f) => f.x), y: shown.map((f) => f.y), text: shown.map((f) => f.text), inSight };
}
function details(panel) {
  const { map } = panel, view = viewOf(panel), own = stairs(map, map.ownShare, view);
  const copied = stairs(map, map.copyShare, view), named = labels(panel, view);
  own.y = own.y.map((share) => share * peak);
  copied.y = copied.y.map((share, i) => share * peak + own.y[i]);
  panel.figure.classList.toggle("edged", named.inSight <= MAX_EDGED);
  return { own, copied, named };
}

// --- drawing ---------------------------------------------------------------------------------------

const HEIGHT = 580;
const config = {
  responsive: true, displaylogo: false, displayModeBar: true, doubleClick: false,
  toImageButtonOptions: { format: "svg", filename: "mallocgame" },
};
const theme = () => ({
  margin: MARGIN, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: css("--panel"), hovermode: false,
  font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--text") },
  modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--accent") },
});
const axis = (more) => ({ color: css("--soft"), gridcolor: css("--line"), zeroline: false, ...more });
const buttons = (seeAll) => [["zoom2d", "pan2d", { name: "all", title: "See all", icon: Plotly.Icons.home, click: seeAll }, "toImage"]];

function layoutOf({ map }) {
  const lanes = Math.max(4, ...map.copies.lane.map((lane) => lane + 1)), fixed = { fixedrange: true };
  const note = (text, y) => ({ text, y, x: 0.5, xref: "paper", yref: "paper", showarrow: false, font: { color: css("--soft"), size: 13 } });
  return {
    ...theme(), height: HEIGHT, dragmode: "zoom", showlegend: false,
    xaxis: axis({
      range: [0, span()], anchor: "y3", ...(isCycles() ? { exponentformat: "SI" } : { tickformat: ",d" }),
      title: { text: isCycles() ? "cycles since the start" : "logical time (instructions)", standoff: 8 },
    }),
    yaxis: axis({ domain: MEMORY_SHARE, range: [0, data.capacity / memoryUnit], title: { text: `offset (${memoryUnitName})` } }),
    yaxis2: axis({ domain: [0.16, 0.32], range: [0, peak * 1.08], nticks: 4, title: { text: "GB/s" }, ...fixed }),
    yaxis3: axis({ domain: [0, 0.13], range: [lanes, 0], title: { text: "copies" }, showticklabels: false, showgrid: false, ...fixed }),
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y2", y0: peak, y1: peak, line: { color: css("--soft"), width: 1, dash: "dot" } }],
    annotations: [
      ...(map.chunks.value.length ? [] : [note("nothing is in alternate memory", 0.68)]),
      ...(map.copies.value.length ? [] : [note("no asynchronous copies", 0.04)]),
    ],
  };
}
async function draw(panel, range) {
  const { map, plot } = panel, layout = layoutOf(panel);
  if (range) layout.xaxis.range = range;
  panel.drawn = false; // measured anew: the figure may have another width now
  const { own, copied, named } = details(panel);
  const stacked = { ...silent, yaxis: "y2", line: { width: 0 } };
  const traces = [
    { ...stacked, ...own, fill: "tozeroy", fillcolor: css("--own") },
    { ...stacked, ...copied, fill: "tonexty", fillcolor: css("--copy") },
    ...memoryTraces(map), ...copyTraces(map),
    { ...silent, x: named.x, y: named.y, text: named.text, mode: "text", textfont: { size: 11, color: css("--name") } },
  ];
  panel.labels = traces.length - 1;
  panel.busy = true;
  await Plotly.react(plot, traces, layout, { ...config, modeBarButtons: buttons(() => seeAll(panel)) });
  panel.busy = false;
  panel.drawn = true;
  if (range) await refine(panel);
  if (!panel.listens) listen(panel);
}
// After zooming: what depends on the part in sight.
async function refine(panel) {
  const columns = Object.values(details(panel)), text = [null, null, columns[2].text];
  panel.busy = true;
  await Plotly.restyle(panel.plot, { x: columns.map((c) => c.x), y: columns.map((c) => c.y), text }, [0, 1, panel.labels]);
  panel.busy = false;
}
const seeAll = ({ plot }) => Plotly.relayout(plot, { "xaxis.range": [0, span()], "yaxis.range": [0, data.capacity / memoryUnit] });
function listen(panel) {
  const { plot } = panel;
  panel.listens = true;
  plot.on("plotly_relayout", async () => {
    if (panel.busy) return;
    clearMarks();
    const { x, y } = viewOf(panel);
    await refine(panel);
    // The other map shows the same times and offsets.
    for (const other of panels) {
      if (other === panel || !other.drawn || other.figure.hidden) continue;
      other.busy = true;
      await Plotly.relayout(other.plot, { "xaxis.range": x, "yaxis.range": y });
      await refine(other);
    }
  });
  plot.on("plotly_doubleclick", () => seeAll(panel));
  plot.addEventListener("mousemove", (event) => point(panel, event));
  plot.addEventListener("mouseleave", clearMarks);
}
