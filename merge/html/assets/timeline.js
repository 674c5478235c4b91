/* One iteration of some ranks on one clock: phases, modules, waits and collectives, one band of lanes for each rank. */
"use strict";
page.timeline = (slot, data) => {
  const { element } = page;
  const LANES = [["phases", 7], ["modules", 13], ["collectives", 5]];
  const BAND = 30;
  const LEFT = 64;
  const RIGHT = 10;
  const AXIS = 26;
  const MOST_HEIGHT = 720;
  const all = data.ranks.flatMap((rank) => LANES.concat([["waits"], ["pauses"]]).flatMap(([kind]) => ends(rank[kind])));
  function ends(flat) { const found = []; for (let at = 0; at < flat.length; at += 3) found.push(flat[at + 1] + flat[at + 2]); return found; }
  const begin = Math.min(0, ...data.ranks.map((rank) => (rank.phases.length ? rank.phases[1] : 0)));
  const end = all.reduce((most, value) => Math.max(most, value), begin + 1);
  let view = [begin, end];
  let cursor = null;
  let drag = null;
  const band = Math.max(4, Math.min(BAND, Math.floor(MOST_HEIGHT / data.ranks.length)));
  const height = band * data.ranks.length;
  const canvas = element("canvas", { tabindex: 0, role: "img", "aria-label": "One iteration. Arrow keys move in time and between ranks." });
  const readout = element("output", { class: "readout" });
  const width = () => Math.max(320, slot.clientWidth);
  const xOf = (time) => LEFT + ((time - view[0]) / (view[1] - view[0])) * (width() - LEFT - RIGHT);
  const timeOf = (x) => view[0] + ((x - LEFT) / (width() - LEFT - RIGHT)) * (view[1] - view[0]);
  const PALETTE = ["c1", "c2", "c0", "c4", "c5", "c3"];
  /* The same module has the same colour on every rank, forward and backward. */
  const moduleColour = (number) => {
    const name = data.names[number];
    if (name.startsWith("(")) return page.colour("nothing");
    let sum = 0;
    for (const letter of name.replace(" (backward)", "")) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
    return page.colour(PALETTE[sum % PALETTE.length]);
  };
  const laneOf = (kind) => {
    let top = 1;
    for (const [name, size] of LANES) {
      const high = (size / BAND) * band;
      if (name === kind || (name === "modules" && (kind === "waits" || kind === "pauses"))) return [top, Math.max(1, high)];
      top += high + (band > 16 ? 1 : 0);
    }
    return [top, 2];
  };
  const drawKind = (ctx, rank, row, kind, colourOf) => {
    const [top, high] = laneOf(kind);
    const flat = rank[kind];
    for (let at = 0; at < flat.length; at += 3) {
      const [from, to] = [flat[at + 1], flat[at + 1] + flat[at + 2]];
      if (to < view[0] || from > view[1]) continue;
      const x = Math.max(LEFT, xOf(from));
      ctx.fillStyle = colourOf(flat[at]);
      ctx.fillRect(x, row * band + top, Math.max(0.7, Math.min(width() - RIGHT, xOf(to)) - x - (kind === "modules" ? 0.3 : 0)), high);
    }
  };
  const hatch = () => {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const ctx = tile.getContext("2d");
    ctx.fillStyle = page.colour("back");
    ctx.fillRect(0, 0, 6, 6);
    ctx.strokeStyle = page.colour("faint");
    ctx.beginPath();
    for (const shift of [-6, 0, 6]) { ctx.moveTo(shift, 6); ctx.lineTo(shift + 6, 0); }
    ctx.stroke();
    return tile;
  };
  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.ceil(width() * ratio);
    canvas.height = Math.ceil((height + AXIS) * ratio);
    canvas.style.width = `${width()}px`;
    canvas.style.height = `${height + AXIS}px`;
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    const waits = ctx.createPattern(hatch(), "repeat");
    ctx.font = "12px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    const step = Math.max(1, Math.ceil(14 / band));
    const colours = new Map();
    const cached = (number) => { if (!colours.has(number)) colours.set(number, moduleColour(number)); return colours.get(number); };
    for (const [row, rank] of data.ranks.entries()) {
      drawKind(ctx, rank, row, "phases", (number) => page.colour(`c${data.colours[number] ?? 6}`));
      drawKind(ctx, rank, row, "modules", cached);
      drawKind(ctx, rank, row, "waits", () => waits);
      drawKind(ctx, rank, row, "pauses", () => page.colour("found"));
      if (band >= 8) drawKind(ctx, rank, row, "collectives", () => page.colour("ink"));
      ctx.fillStyle = page.colour(rank.slow ? "found" : "faint");
      ctx.textAlign = "right";
      if (row % step === 0 || rank.slow) ctx.fillText(`${rank.slow ? "\u25B6 " : ""}${rank.rank}`, LEFT - 8, (row + 0.5) * band);
      if (band > 16) { ctx.fillStyle = page.colour("line"); ctx.fillRect(LEFT, (row + 1) * band - 1, width() - LEFT - RIGHT, 0.6); }
    }
    ctx.fillStyle = page.colour("faint");
    const span = view[1] - view[0];
    const tick = [1, 2, 5].flatMap((n) => [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].map((p) => n * p)).sort((a, b) => a - b).find((one) => span / one <= 12) || span;
    for (let time = Math.ceil(view[0] / tick) * tick; time <= view[1]; time += tick) {
      ctx.textAlign = "center";
      ctx.fillRect(xOf(time), height, 1, 4);
      const label = tick >= 1000 ? `${time / 1000} ms` : `${time} us`;
      ctx.fillText(label, Math.min(xOf(time), width() - ctx.measureText(label).width / 2), height + 14);
    }
    if (drag?.to != null) {
      ctx.fillStyle = page.colour("accent");
      ctx.globalAlpha = 0.25;
      ctx.fillRect(xOf(drag.from), 0, xOf(drag.to) - xOf(drag.from), height);
      ctx.globalAlpha = 1;
    }
    if (cursor) {
      ctx.fillStyle = page.colour("accent");
      ctx.fillRect(xOf(cursor.time), 0, 1, height);
      ctx.strokeStyle = page.colour("accent");
      ctx.strokeRect(LEFT - 1, cursor.row * band, width() - LEFT - RIGHT + 2, band);
    }
  };
  const inside = (flat, time, slack) => {
    const found = [];
    for (let at = 0; at < flat.length; at += 3) if (flat[at + 1] - slack <= time && time <= flat[at + 1] + flat[at + 2] + slack) found.push(at);
    return found;
  };
  const words = ({ row, time }) => {
    const rank = data.ranks[row];
    const lines = [`rank ${rank.rank}, ${(time / 1000).toFixed(2)} ms`];
    for (const kind of ["phases", "modules", "waits", "collectives", "pauses"]) {
      for (const at of inside(rank[kind], time, kind === "pauses" ? (view[1] - view[0]) / 400 : 0).slice(0, 3)) {
        lines.push(`${kind.slice(0, -1)}: ${page.short(data.names[rank[kind][at]], 120)}, ${(rank[kind][at + 2] / 1000).toFixed(2)} ms`);
      }
    }
    return lines;
  };
  const show = () => { readout.textContent = cursor ? words(cursor).join("; ") : ""; draw(); };
  const zoomTo = (from, to) => {
    const span = Math.max(20, Math.min(end - begin, to - from));
    const start = Math.max(begin, Math.min(end - span, from));
    view = [start, start + span];
    show();
  };
  const zoomBy = (factor) => {
    const middle = cursor ? cursor.time : (view[0] + view[1]) / 2;
    const half = ((view[1] - view[0]) / 2) * factor;
    zoomTo(middle - half, middle + half);
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const isInside = x >= LEFT && x <= width() - RIGHT && y >= 0 && y < height;
    return isInside ? { row: Math.min(data.ranks.length - 1, Math.floor(y / band)), time: timeOf(x) } : null;
  };
  canvas.addEventListener("mousemove", (event) => {
    const place = at(event);
    if (drag && place) drag.to = place.time;
    if (place) cursor = place;
    page.tip(place ? words(place).join("\n") : "", event.clientX, event.clientY);
    show();
  });
  canvas.addEventListener("mousedown", (event) => { const place = at(event); drag = place ? { from: place.time } : null; });
  canvas.addEventListener("mouseup", () => {
    const [from, to] = [drag?.from, drag?.to];
    drag = null;
    if (to != null && Math.abs(xOf(to) - xOf(from)) > 5) zoomTo(Math.min(from, to), Math.max(from, to));
    else draw();
  });
  canvas.addEventListener("mouseleave", () => { drag = null; page.tip(""); draw(); });
  canvas.addEventListener("dblclick", () => zoomTo(begin, end));
  canvas.addEventListener("keydown", (event) => {
    const span = view[1] - view[0];
    const now = cursor || { row: Math.max(0, data.ranks.findIndex((rank) => rank.slow)), time: (view[0] + view[1]) / 2 };
    const moves = { ArrowLeft: [0, -span / 100], ArrowRight: [0, span / 100], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (moves[event.key]) {
      const [down, later] = cursor ? moves[event.key] : [0, 0];
      cursor = { row: Math.max(0, Math.min(data.ranks.length - 1, now.row + down)), time: Math.max(begin, Math.min(end, now.time + later)) };
      if (cursor.time < view[0] || cursor.time > view[1]) zoomTo(cursor.time - span / 2, cursor.time + span / 2);
      show();
    } else if (event.key === "+" || event.key === "=") zoomBy(0.5);
    else if (event.key === "-") zoomBy(2);
    else if (event.key === "0") zoomTo(begin, end);
    else return;
    event.preventDefault();
  });
  const shownPhases = [...new Set(data.ranks.flatMap((rank) => rank.phases.filter((_, place) => place % 3 === 0)))];
  const swatches = shownPhases.map((number) => element("li", {}, element("span", { class: `swatch c${data.colours[number] ?? 6}` }), data.names[number]));
  const hatched = element("span", { class: "swatch hatched" });
  slot.append(element("h3", { text: "One iteration, rank by rank" }), element("p", { class: "note", text: data.note }),
    element("ul", { class: "legend" }, element("li", { text: "Upper lane, phases:" }), ...swatches, element("li", {}, hatched, "waits for another rank"),
      element("li", { text: "middle lane: modules, a colour each, grey in none; lower lane: collectives" })),
    element("div", { class: "tools" }, ...[["Zoom in", () => zoomBy(0.5)], ["Zoom out", () => zoomBy(2)], ["All", () => zoomTo(begin, end)]]
      .map(([text, act]) => element("button", { type: "button", text, onclick: act }))),
    element("div", { class: "figure" }, canvas), readout,
    element("p", { class: "keys", text: "Drag to zoom, double click for all. Keys: arrows, +, -, 0." }));
  draw();
  page.redraws.push(draw);
};
