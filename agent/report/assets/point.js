// Pointing at a map: what is there, in a box of text, and everything that the tensor holds, outlined.
const KINDS = ["parameter", "computed value", "result of the program"];
const tip = document.getElementById("tip");

function clearMarks() {
  tip.hidden = true;
  for (const mark of document.querySelectorAll(".mark")) mark.remove();
}
function showTip(event, title, rows) {
  tip.replaceChildren();
  if (title) tip.appendChild(document.createElement("b")).textContent = title;
  const table = tip.appendChild(document.createElement("table"));
  for (const cells of rows) {
    const row = table.insertRow();
    for (const cell of cells) row.insertCell().textContent = cell;
  }
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect(), { clientX, clientY } = event;
  const left = clientX + 16 + width > innerWidth ? clientX - width - 16 : clientX + 16;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(clientY + 16, innerHeight - height - 4))}px`;
}
// Over the plot rather than in it: cheaper than having Plotly draw anew.
function outline({ map, plot }, value) {
  const { xaxis, yaxis } = plot._fullLayout, { chunks } = map, x = xOf(map);
  const clamp = (pixel, { _length }) => Math.min(Math.max(pixel, 0), _length);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "mark");
  for (let i = 0; i < chunks.value.length; i++) {
    if (chunks.value[i] !== value) continue;
    const [left, right] = [chunks.start[i], chunks.end[i]].map((time) => clamp(xaxis.d2p(x(time)), xaxis));
    const [low, high] = [0, chunks.size[i]].map((size) => clamp(yaxis.d2p((chunks.offset[i] + size) / memoryUnit), yaxis));
    if (right <= left || low <= high) continue; // out of sight
    const rect = document.createElementNS(svg.namespaceURI, "rect");
    const place = { x: xaxis._offset + left, y: yaxis._offset + high, width: right - left, height: low - high };
    for (const [name, number] of Object.entries(place)) rect.setAttribute(name, number);
    svg.append(rect);
  }
  plot.append(svg);
}

function lastIndex(columns, isHit) {
  for (let i = columns.value.length - 1; i >= 0; i--) if (isHit(i)) return i;
  return -1;
}
function aboutChunk({ chunks }, i) {
  const value = chunks.value[i], size = values.size[value], saved = chunks.saved[i];
  const rows = [["kind", KINDS[values.kind[value]]]];
  if (values.shape[value]) rows.push(["shape", values.shape[value]]);
  rows.push(["size", sizeText(size) + (chunks.size[i] < size ? `; ${shortSize(chunks.size[i])} of it here` : "")]);
  rows.push(["offset", sizeText(chunks.offset[i])]);
  const last = chunks.end[i] - 1;
  rows.push(["held", `${nameAt(chunks.start[i])} … ${nameAt(last)} (${count(chunks.start[i])}–${count(last)})`]);
  if (chunks.filled[i] > chunks.start[i]) rows.push(["arrives", `before ${nameAt(chunks.filled[i])} (${count(chunks.filled[i])})`]);
  rows.push([saved < 0 ? "costs" : "saves", saved ? cyclesText(Math.abs(saved)) : "nothing by itself"]);
  return { title: values.name[value], value, rows };
}
function aboutCopy({ copies }, i) {
  const value = copies.value[i], rows = [["size", sizeText(copies.size[i])]];
  if (values.shape[value]) rows.unshift(["shape", values.shape[value]]);
  rows.push(["under way", `from ${nameAt(copies.start[i])}, awaited before ${nameAt(copies.end[i])}`]);
  return { title: `${copies.prefetch[i] ? "prefetch" : "eviction"} of ${values.name[value]}`, value, rows };
}
function aboutBandwidth(map, time) {
  const share = (part) => `${count(part * peak)} GB/s (${(100 * part).toFixed(0)}%)`;
  const rows = [["instruction", share(map.ownShare[time])], ["copies", share(map.copyShare[time])]];
  return { title: "default-memory bandwidth", value: -1, rows };
}
function aboutTime(map, time) {
  const rows = [["at", `${nameAt(time)} (${opcodeAt(time)}), time ${count(time)}: ${cyclesText(map.cycles[time])}`]];
  for (const other of maps) if (other.cycles[time] !== map.cycles[time]) rows.push([other.label, cyclesText(other.cycles[time])]);
  if (map.wait[time] > 0) rows.push(["waits", `${cyclesText(map.wait[time])} for copies before it`]);
  return rows;
}
function point({ map, plot }, event) {
  clearMarks();
  const { xaxis, yaxis, yaxis2, yaxis3 } = plot._fullLayout, bounds = plot.getBoundingClientRect();
  const inside = (axis, pixel) => (pixel >= 0 && pixel <= axis._length ? axis.p2d(pixel) : null);
  const x = inside(xaxis, event.clientX - bounds.left - xaxis._offset);
  const [level, rate, lane] = [yaxis, yaxis2, yaxis3].map((axis) => inside(axis, event.clientY - bounds.top - axis._offset));
  if (x === null || (level ?? rate ?? lane) === null) return;
  const time = timeAt(map, x), at = xOf(map);
  let found = { title: "", value: -1, rows: [] };
  if (level !== null) {
    const { chunks } = map, offset = level * memoryUnit;
    const i = lastIndex(chunks, (k) => at(chunks.start[k]) <= x && x < at(chunks.end[k]) && chunks.offset[k] <= offset && offset < chunks.offset[k] + chunks.size[k]);
    if (i >= 0) found = aboutChunk(map, i);
  } else if (rate !== null) found = aboutBandwidth(map, time);
  else {
    const { copies } = map;
    const i = lastIndex(copies, (k) => copies.lane[k] === Math.floor(lane) && at(copies.start[k]) <= x && x < at(copies.end[k]));
    if (i >= 0) found = aboutCopy(map, i);
  }
  showTip(event, found.title, [...found.rows, ...aboutTime(map, time)]);
  if (found.value >= 0) for (const panel of panels) if (panel.drawn && !panel.figure.hidden) outline(panel, found.value);
}
