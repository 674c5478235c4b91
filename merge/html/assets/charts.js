/* Charts over ranks or iterations, drawn by uPlot: dragging zooms, a double click shows all again. */
"use strict";
page.chart = (slot, chart) => {
  const { element } = page;
  const HEIGHT = 260;
  const BARS_UP_TO = 160;
  const WHOLE = Array.from({ length: 13 }, (_, zeros) => 10 ** zeros).flatMap((size) => [size, 2 * size, 5 * size]);  // steps of an axis
  const units = { time: page.timeUnit, bytes: page.sizeUnit };
  const unit = units[chart.kind]?.(chart.series.flatMap((series) => series.values)) ?? { name: "", size: 1 };
  const places = new Map(chart.x.map((value, place) => [value, place]));
  const holder = element("div", { class: "figure", tabindex: 0, role: "img", "aria-label": `${chart.title}. Arrow keys move the cursor.` });
  const readout = element("output", { class: "readout" });
  const legend = element("ul", { class: "legend" }, ...chart.series.map((series) =>
    element("li", {}, element("span", { class: `swatch c${series.colour}` }), series.label)));
  let plot = null;

  /* Stacked series become sums from the bottom up, which are drawn from the top one down. */
  const drawn = () => {
    const sums = new Array(chart.x.length).fill(0);
    const stacked = [];
    for (const series of chart.series.filter((one) => one.style === "stack")) {
      stacked.push([series, series.values.map((value, place) => (sums[place] += (value ?? 0) / unit.size))]);
    }
    const others = chart.series.filter((one) => one.style !== "stack").map((series) => [series, series.values.map((v) => (v == null ? null : v / unit.size))]);
    return [...stacked.reverse(), ...others];
  };
  const pathOf = (series) => {
    if (series.style === "points") return () => null;
    if (series.style !== "stack") return undefined;
    return chart.x.length <= BARS_UP_TO ? uPlot.paths.bars({ size: [0.8, 60], align: 0 }) : columns;
  };
  /* How far the stack of each place is from the median one. */
  const distances = () => {
    const found = new Array(chart.x.length).fill(0);
    for (const { style, values } of chart.series) {
      if (style !== "stack") continue;
      const middle = page.median(values) ?? 0;
      values.forEach((value, place) => (found[place] += Math.abs((value ?? middle) - middle)));
    }
    return found;
  };
  const fromMedian = chart.x.length > BARS_UP_TO ? distances() : [];
  /* Columns of whole pixels; of several places that share a pixel, the one that is furthest from the median is drawn. */
  const columns = (u, number, first, last) => {
    const fill = new Path2D();
    const pixel = (x) => Math.round(u.valToPos(x, "x", true));
    const zero = u.valToPos(0, "y", true);
    for (let next = first; next <= last;) {
      const left = pixel(chart.x[next] - 0.5);
      let shown = next;
      let right = left + 1;
      for (; next <= last && pixel(chart.x[next] - 0.5) <= left; next += 1) {
        if (fromMedian[next] > fromMedian[shown]) shown = next;
        right = Math.max(right, pixel(chart.x[next] + 0.5));
      }
      const top = u.valToPos(u.data[number][shown], "y", true);
      fill.rect(left, top, right - left, zero - top);
    }
    return { stroke: null, fill };
  };
  const words = (place) => {
    const told = chart.series.filter((s) => s.style !== "points" || s.values[place] != null);
    const values = told.map((s) => `${s.label} ${page.withUnit(chart.kind, s.values[place], unit)}`);
    const stack = chart.series.filter((s) => s.style === "stack");
    const sum = stack.length > 1 ? `, sum ${page.withUnit(chart.kind, page.largest([stack.reduce((all, s) => all + (s.values[place] ?? 0), 0)]), unit)}` : "";
    const name = chart.names.length ? `${chart.names[place]}, ` : "";
    return `${name}${chart.x_title} ${chart.x[place]}: ${values.join(", ")}${sum}`;
  };
  const mark = (u) => {
    if (chart.marked.length > 24) return;
    const ctx = u.ctx;
    ctx.save();
    ctx.fillStyle = ctx.strokeStyle = page.colour("found");
    ctx.font = `${Math.round(12 * devicePixelRatio)}px system-ui, sans-serif`;
    ctx.textAlign = "center";
    for (const value of chart.marked) {
      if (value < u.scales.x.min || value > u.scales.x.max || !places.has(value)) continue;
      const x = u.valToPos(value, "x", true);
      ctx.fillText(`\u25BC ${value}`, x, u.bbox.top - 3 * devicePixelRatio);
    }
    ctx.restore();
  };
  /* Ranks and iterations follow each other; other numbers may be far apart. */
  const isSparse = chart.x.length > 1 && chart.x[chart.x.length - 1] - chart.x[0] > 20 * chart.x.length;
  const room = (span) => (isSparse ? 0.04 * span : 0.6);
  const margin = (span) => 0.06 * span || 0.01;
  const axis = (title) => ({
    label: title, stroke: page.colour("faint"), grid: { stroke: page.colour("line"), width: 1 }, ticks: { stroke: page.colour("line") },
    font: "12px system-ui, sans-serif", labelFont: "13px system-ui, sans-serif", labelSize: 22,
  });
  const draw = () => {
    if (plot) plot.destroy();
    const data = drawn();
    plot = new uPlot({
      width: Math.max(320, slot.clientWidth), height: HEIGHT, legend: { show: false },
      padding: [18, 12, 0, 0],
      cursor: { drag: { x: true, y: false }, points: { show: false } },
      scales: {
        x: { time: false, range: (u, min, max) => [min - room(max - min), max + room(max - min)] },
        y: { range: (u, min, max) => chart.fits ? [min - margin(max - min), max + margin(max - min)] : [Math.min(0, min * 1.08), (max || 1) * 1.06] },
      },
      axes: [
        { ...axis(chart.x_title), incrs: WHOLE, size: 34, grid: { show: false } },
        { ...axis(unit.name ? `${chart.y_title} (${unit.name})` : chart.y_title), ...(chart.kind === "count" ? { incrs: WHOLE } : {}), size: (u, shown) => Math.max(56, 22 + 7 * Math.max(0, ...(shown ?? []).map((text) => String(text ?? "").length))) },
      ],
      series: [{}, ...data.map(([series]) => {
        const colour = page.colour(`c${series.colour}`);
        const isStack = series.style === "stack";
        return {
          label: series.label, stroke: isStack ? undefined : colour, fill: isStack ? colour : undefined, width: isStack ? 0 : 1.6,
          paths: pathOf(series), points: { show: series.style === "points" || (series.style === "line" && chart.x.length < 60), size: 6, fill: colour, stroke: colour },
        };
      })],
      hooks: {
        draw: [mark],
        setScale: [() => page.tip("")],  // another place is below the mouse now
        setCursor: [(u) => {
          const place = u.cursor.idx;
          readout.textContent = place == null ? "" : words(place);
        }],
      },
    }, [chart.x, ...data.map(([, values]) => values)], holder);
    plot.over.addEventListener("mousemove", (event) => {
      const place = plot.cursor.idx;
      if (place != null) page.tip(words(place).replace(/: |, /g, "\n"), event.clientX, event.clientY);
    });
    plot.over.addEventListener("mouseleave", () => page.tip(""));
  };
  const zoom = (factor) => {
    const { min, max } = plot.scales.x;
    const middle = plot.cursor.idx == null ? (min + max) / 2 : chart.x[plot.cursor.idx];
    const half = ((max - min) / 2) * factor;
    plot.setScale("x", { min: Math.max(chart.x[0], middle - half), max: Math.min(chart.x[chart.x.length - 1], middle + half) });
  };
  holder.addEventListener("keydown", (event) => {
    const last = chart.x.length - 1;
    const at = plot.cursor.idx ?? -1;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const next = Math.max(0, Math.min(last, at + (event.key === "ArrowRight" ? 1 : -1)));
      plot.setCursor({ left: plot.valToPos(chart.x[next], "x"), top: 10 });
      readout.textContent = words(next);
    } else if (event.key === "+" || event.key === "=") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "0") plot.setScale("x", { min: chart.x[0], max: chart.x[last] });
    else return;
    event.preventDefault();
  });
  slot.append(element("h3", { text: chart.title }), ...(chart.note ? [element("p", { class: "note", text: chart.note })] : []),
    legend, holder, readout,
    element("p", { class: "keys", text: "Drag to zoom, double click for all. Keys: arrows, +, -, 0." }));
  draw();
  page.redraws.push(draw);
};
