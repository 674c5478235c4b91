/* Heat maps on a canvas of our own: uPlot has none.  Where several rows share a pixel, the most remarkable value shows. */
"use strict";
page.heat = (slot, map) => {
  const { element } = page;
  const MOST_HEIGHT = 560;
  const CELL = 22;
  const LONGEST = 30;  // letters of a slanted name
  const TOP = 8;  // room for the first name of a thin row
  const rowCount = map.rows.length;
  const columnCount = map.columns.length;
  const unit = page.timeUnit([map.limit, map.middle]);
  const longNames = map.columns.some((name) => name.length > 6);
  const rowWidth = 14 + 7 * Math.min(26, Math.max(...map.rows.map((name) => name.length), 4));
  const left = longNames ? Math.max(rowWidth, 130) : rowWidth;  // room for the first slanted name
  const bottom = longNames ? 140 : 30;
  const right = longNames ? 20 : 8;
  let view = { row: 0, rows: rowCount, column: 0, columns: columnCount };
  let cursor = null;
  let drag = null;
  const canvas = element("canvas", { tabindex: 0, role: "img", "aria-label": `${map.title}. Arrow keys move over the cells.` });
  const readout = element("output", { class: "readout" });
  const legend = element("canvas", { width: 160, height: 12, "aria-hidden": "true" });
  const SMALL = 10;  // pixels of a cell
  const marked = new Set(map.marked.map(([row, column]) => `${row},${column}`));

  const STOPS = {
    light: [[5, 80, 150], [112, 170, 214], [246, 246, 244], [238, 152, 96], [158, 42, 10]],
    dark: [[132, 196, 255], [44, 104, 160], [38, 43, 50], [176, 84, 32], [255, 176, 120]],
  };
  /** Returns the colour of a place between -1 and 1. */
  const colourOf = (place) => {
    const stops = STOPS[page.isDark() ? "dark" : "light"];
    const at = ((Math.max(-1, Math.min(1, place)) + 1) / 2) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(at));
    const mixed = stops[low].map((part, index) => Math.round(part + (stops[low + 1][index] - part) * (at - low)));
    return `rgb(${mixed.join(",")})`;
  };
  const placeOf = (value) => (map.limit ? (value - map.middle) / map.limit : 0);
  const height = () => Math.min(MOST_HEIGHT, Math.max(3, view.rows) * CELL);
  const cell = () => {
    const wide = slot.clientWidth - left - right;
    return { width: Math.min(wide / view.columns, longNames ? 64 : 48), height: height() / view.rows };
  };
  /** Returns the value of the rows from ``from`` to ``to`` in a column that lies furthest from the middle. */
  const furthest = (from, to, column) => {
    let found = null;
    for (let row = from; row < to; row += 1) {
      const value = map.values[row][column];
      if (value != null && (found == null || Math.abs(value - map.middle) > Math.abs(found - map.middle))) found = value;
    }
    return found;
  };
  const every = (count, room, size) => {
    let step = 1;
    while ((room / count) * step < size) step *= 2;
    return step;
  };
  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    const box = cell();
    const width = left + box.width * view.columns + right;
    const whole = TOP + height() + bottom;
    canvas.width = Math.ceil(width * ratio);
    canvas.height = Math.ceil(whole * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${whole}px`;
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    const together = Math.max(1, Math.ceil(1 / box.height));
    const gap = box.height > 6 && box.width > 6 ? 1 : 0;
    for (let row = view.row; row < view.row + view.rows; row += together) {
      const top = (row - view.row) * box.height;
      const end = Math.min(row + together, view.row + view.rows);
      for (let column = 0; column < view.columns; column += 1) {
        const [low, high] = [Math.round(top), Math.max(Math.round(top) + 1, Math.round(top + box.height * (end - row)))];
        const value = together > 1 ? furthest(row, end, view.column + column) : map.values[row][view.column + column];
        const empty = value == null ? "nothing" : map.zero && value === 0 ? "c2" : "";
        ctx.fillStyle = empty ? page.colour(empty) : colourOf(placeOf(value));
        ctx.fillRect(left + column * box.width, TOP + low, box.width - gap, high - low - gap);
      }
    }
    ctx.fillStyle = page.colour("ink");
    for (const column of map.separators) {
      const x = left + (column - view.column) * box.width - gap;
      if (x > left && x < left + box.width * view.columns) ctx.fillRect(Math.round(x), TOP, 1, height());
    }
    ctx.fillStyle = page.colour("faint");
    ctx.font = "12px system-ui, sans-serif";
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    const rowStep = every(view.rows, height(), 14);
    for (let row = 0; row < view.rows; row += rowStep) {
      ctx.fillText(page.short(map.rows[view.row + row], 26), left - 6, TOP + (row + 0.5) * box.height);
    }
    const columnStep = every(view.columns, box.width * view.columns, longNames ? 14 : 30);
    for (let column = 0; column < view.columns; column += columnStep) {
      const x = left + (column + 0.5) * box.width;
      ctx.save();
      ctx.translate(x, TOP + height() + 8);
      if (longNames) ctx.rotate(-Math.PI / 4);
      ctx.textAlign = longNames ? "right" : "center";
      ctx.fillText(page.short(map.columns[view.column + column], LONGEST), 0, longNames ? 0 : 6);
      ctx.restore();
    }
    for (const [row, column] of map.marked) frame(ctx, box, row, column, page.colour("ink"), 2);
    if (cursor) frame(ctx, box, ...cursor, page.colour("accent"), 2);
    if (drag && drag.to) {
      ctx.strokeStyle = page.colour("accent");
      ctx.strokeRect(drag.x, TOP + drag.y, drag.to.x - drag.x, drag.to.y - drag.y);
    }
  };
  const frame = (ctx, box, row, column, colour, line) => {
    const [y, x] = [row - view.row, column - view.column];
    if (y < 0 || x < 0 || y >= view.rows || x >= view.columns) return;
    const top = TOP + y * box.height;
    if (box.width < SMALL && box.height < SMALL) {  // a frame would cover the cell: a larger one is drawn around it
      for (const [edge, wide] of [[page.colour("back"), line + 3], [colour, line]]) {
        ctx.strokeStyle = edge;
        ctx.lineWidth = wide;
        ctx.strokeRect(left + (x + 0.5) * box.width - SMALL / 2, top + (box.height - SMALL) / 2, SMALL, SMALL);
      }
      return;
    }
    ctx.strokeStyle = colour;
    ctx.lineWidth = line;
    const high = Math.max(box.height, 4);
    ctx.strokeRect(left + x * box.width, top - (high - box.height) / 2, box.width - 1, high - (box.height > 6 ? 1 : 0));
    if (high > box.height) {  // too thin to be seen: an arrow points at it
      ctx.fillStyle = colour;
      ctx.beginPath();
      ctx.moveTo(left + (x + 1) * box.width + 1, top);
      ctx.lineTo(left + (x + 1) * box.width + 9, top - 5);
      ctx.lineTo(left + (x + 1) * box.width + 9, top + 5);
      ctx.fill();
    }
  };
  const words = (row, column) => {
    const value = map.values[row][column];
    const sign = map.middle === 0 && value > 0 ? "+" : "";
    const found = value == null ? map.grey || "n/a" : value === 0 && map.zero ? map.zero : `${map.value_title} ${sign}${page.withUnit(map.kind, value, unit)}`;
    const named = marked.has(`${row},${column}`) ? ", named by the verdict" : "";
    const rowWord = map.row_title === "layer" ? "" : `${map.row_title} `;
    const columnWord = map.column_title === "module" ? "" : `${map.column_title} `;
    return `${rowWord}${map.rows[row]}, ${columnWord}${map.columns[column]}: ${found}${named}`;
  };
  const at = (event) => {
    const box = cell();
    const area = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - area.left, event.clientY - area.top - TOP];
    const column = Math.floor((x - left) / box.width);
    let row = Math.floor(y / box.height);
    if (column < 0 || column >= view.columns || row < 0 || row >= view.rows) return { x, y };
    const together = Math.max(1, Math.ceil(1 / box.height));
    if (together > 1) {  // the row of the value that is drawn there
      const from = view.row + row - (row % together);
      const value = furthest(from, Math.min(from + together, rowCount), view.column + column);
      for (let one = from; one < Math.min(from + together, rowCount); one += 1) if (map.values[one][view.column + column] === value) row = one - view.row;
    }
    return { x, y, cell: [view.row + row, view.column + column] };
  };
  const show = () => { readout.textContent = cursor ? words(...cursor) : ""; draw(); };
  const zoomTo = (row, rows, column, columns) => {
    const [r, c] = [Math.max(1, Math.min(rowCount, rows)), Math.max(1, Math.min(columnCount, columns))];
    view = { rows: r, columns: c, row: Math.max(0, Math.min(rowCount - r, row)), column: Math.max(0, Math.min(columnCount - c, column)) };
    page.tip("");  // another cell is below the mouse now
    show();
  };
  const zoomBy = (factor) => {
    const [row, column] = cursor || [view.row + view.rows / 2, view.column + view.columns / 2];
    const rows = Math.max(1, Math.round(view.rows * factor));
    const columns = columnCount > 64 ? Math.max(1, Math.round(view.columns * factor)) : columnCount;
    zoomTo(Math.round(row - rows / 2), rows, Math.round(column - columns / 2), columns);
  };
  const all = () => zoomTo(0, rowCount, 0, columnCount);
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-20, 0], PageDown: [20, 0] };
  canvas.addEventListener("keydown", (event) => {
    if (moves[event.key]) {
      const [down, across] = moves[event.key];
      const [row, column] = cursor || map.marked[0] || [view.row, view.column];
      const next = cursor ? [row + down, column + across] : [row, column];
      cursor = [Math.max(0, Math.min(rowCount - 1, next[0])), Math.max(0, Math.min(columnCount - 1, next[1]))];
      const inside = cursor[0] >= view.row && cursor[0] < view.row + view.rows && cursor[1] >= view.column && cursor[1] < view.column + view.columns;
      if (!inside) zoomTo(cursor[0] - (view.rows >> 1), view.rows, cursor[1] - (view.columns >> 1), view.columns);
      show();
    } else if (event.key === "+" || event.key === "=") zoomBy(0.5);
    else if (event.key === "-") zoomBy(2);
    else if (event.key === "0") all();
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("mousedown", (event) => { const { x, y, cell: own } = at(event); drag = own ? { x, y, from: own } : null; });
  canvas.addEventListener("mousemove", (event) => {
    const found = at(event);
    if (drag && found.cell) drag.to = { x: found.x, y: found.y, cell: found.cell };
    if (found.cell) { cursor = found.cell; show(); page.tip(words(...cursor), event.clientX, event.clientY); } else page.tip("");
  });
  canvas.addEventListener("mouseup", () => {
    const [start, end] = [drag?.from, drag?.to];
    const isFar = end && Math.hypot(end.x - drag.x, end.y - drag.y) > 6;
    drag = null;
    if (isFar && (start[0] !== end.cell[0] || start[1] !== end.cell[1])) {
      const [top, low] = [Math.min(start[0], end.cell[0]), Math.max(start[0], end.cell[0])];
      const [first, last] = [Math.min(start[1], end.cell[1]), Math.max(start[1], end.cell[1])];
      zoomTo(top, low - top + 1, first, last - first + 1);
    } else draw();
  });
  canvas.addEventListener("mouseleave", () => { page.tip(""); drag = null; draw(); });
  canvas.addEventListener("dblclick", all);

  const colours = element("div", { class: "scale note" },
    element("span", { text: `${map.value_title}:` }),
    element("span", { text: page.withUnit(map.kind, map.middle - map.limit < 0 && map.middle > 0 ? 0 : map.middle - map.limit, unit) }),
    legend, element("span", { text: page.withUnit(map.kind, map.middle + map.limit, unit) }),
    ...(map.grey && map.values.some((row) => row.some((value) => value == null)) ? [element("span", { class: "swatch grey" }), element("span", { text: map.grey })] : []),
    ...(map.zero && map.values.some((row) => row.includes(0)) ? [element("span", { class: "swatch green" }), element("span", { text: map.zero })] : []),
    ...(map.separators.length ? [element("span", { text: `lines: ${map.separator_title}` })] : []),
    ...(map.marked.length ? [element("span", { text: "framed: named by the verdict" })] : []));
  const drawLegend = () => {
    const ctx = legend.getContext("2d");
    const lowest = Math.max(-1, map.middle > 0 ? -map.middle / map.limit : -1);
    for (let x = 0; x < 160; x += 1) {
      ctx.fillStyle = colourOf(lowest + ((1 - lowest) * x) / 159);
      ctx.fillRect(x, 0, 1, 12);
    }
  };
  const zooms = element("div", { class: "tools" }, ...[["Zoom in", () => zoomBy(0.5)], ["Zoom out", () => zoomBy(2)], ["All", all]]
    .map(([text, act]) => element("button", { type: "button", text, onclick: act })));
  slot.append(element("h3", { text: map.title }), ...(map.note ? [element("p", { class: "note", text: map.note })] : []),
    colours, ...(rowCount > 32 || columnCount > 64 ? [zooms] : []), element("div", { class: "figure" }, canvas), readout,
    element("p", { class: "keys", text: "Drag over cells to zoom, double click for all. Keys: arrows, page up and down, +, -, 0." }));
  const redraw = () => { draw(); drawLegend(); };
  redraw();
  page.redraws.push(redraw);
};
