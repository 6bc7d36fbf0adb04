// Cycles of each instruction before and after, and what that has saved up to each time.
const cyclesPlot = document.getElementById("cycles");

function savedSoFar([before, after]) {
  const saved = [0];
  let sum = 0;
  for (let time = 0; time < times; time++) {
    sum += before.cycles[time] + before.wait[time] - after.cycles[time] - after.wait[time];
    saved.push(sum);
  }
  return saved;
}
async function drawCycles() {
  if (!cyclesPlot) return;
  const [before, after] = maps, saved = savedSoFar(maps), edges = saved.map((_, time) => time);
  const line = (y, colour, name, more) => ({
    type: "scatter", mode: "lines", hoverinfo: "skip", x: edges, y, name: plain(name),
    line: { shape: "hv", width: 1.6, color: css(colour) }, ...more,
  });
  const steps = (column) => [...column, column.at(-1)].map((cycles) => (cycles > 0 ? cycles : null));
  const traces = [
    line(steps(before.cycles), "--before", before.label),
    line(steps(after.cycles), "--accent", after.label),
    line(saved, "--good", "saved so far", { yaxis: "y2", fill: "tozeroy", fillcolor: `${css("--good")}30`, line: { width: 1.6, color: css("--good") } }),
  ];
  traces[0].line.width = 2.6; // still to be seen under the other
  const all = [0, times];
  const layout = {
    ...theme(), height: 430, legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom" },
    xaxis: axis({ range: all, anchor: "y2", tickformat: ",d", title: { text: "logical time (instructions)", standoff: 8 } }),
    yaxis: axis({ type: "log", domain: [0.42, 1], dtick: 1, exponentformat: "SI", title: { text: "cycles" }, fixedrange: true }),
    yaxis2: axis({ domain: [0, 0.34], zeroline: true, zerolinecolor: css("--soft"), exponentformat: "SI", title: { text: "cycles saved" }, fixedrange: true }),
  };
  const seeAllCycles = () => Plotly.relayout(cyclesPlot, { "xaxis.range": all });
  await Plotly.react(cyclesPlot, traces, layout, { ...config, modeBarButtons: buttons(seeAllCycles) });
  if (cyclesPlot.dataset.listens) return;
  cyclesPlot.dataset.listens = "yes";
  cyclesPlot.on("plotly_doubleclick", seeAllCycles);
  cyclesPlot.addEventListener("mouseleave", clearMarks);
  cyclesPlot.addEventListener("mousemove", (event) => {
    clearMarks();
    const { xaxis } = cyclesPlot._fullLayout;
    const pixel = event.clientX - cyclesPlot.getBoundingClientRect().left - xaxis._offset;
    if (pixel < 0 || pixel > xaxis._length) return;
    const time = Math.min(times - 1, Math.max(0, Math.floor(xaxis.p2d(pixel))));
    const rows = maps.map((map) => [map.label, cyclesText(map.cycles[time])]);
    showTip(event, nameAt(time), [["time", `${count(time)}, ${opcodeAt(time)}`], ...rows, ["saved so far", cyclesText(saved[time + 1])]]);
  });
}
