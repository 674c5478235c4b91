/* Tables that sort, filter, and fold by one column. */
"use strict";
page.table = (slot, table) => {
  const FIRST = 100;  // rows of a long table that are shown at first
  const FOLDED_FROM = 64;  // rows of a table whose groups are folded at first
  const { element } = page;
  const columns = table.columns.map((column, index) => {
    const values = table.rows.map((row) => row[index]);
    const isText = column.kind === "text";
    const most = isText ? 0 : column.kind === "interval" ? page.changes.limit(values) : page.largest(values);
    return { ...column, index, isText, most };
  });
  for (const kind of ["time", "bytes"]) {  // bars of one table compare with each other
    const own = columns.filter((column) => column.bar && column.kind === kind);
    for (const column of own) column.most = Math.max(...own.map((one) => page.largest(table.rows.map((row) => row[one.index]))));
  }
  const unit = page.timeUnit(columns.filter((c) => c.kind === "time").flatMap((c) => table.rows.map((r) => r[c.index])));
  const marked = new Set(table.marked);
  const all = table.rows.map((values, place) => ({ values, marked: marked.has(place), place, words: "" }));
  const state = { by: null, down: false, filter: "", shown: FIRST, grouped: table.group_by != null, open: new Set() };
  const groupOf = (row) => String(row.values[table.group_by]);
  if (state.grouped) for (const row of all) if (row.marked || all.length < FOLDED_FROM) state.open.add(groupOf(row));

  const cellText = (column, value) => {
    if (value == null) return column.missing;
    return column.kind === "interval" ? page.changes.words(value) : page.format(column.kind, value, unit);
  };
  const keyOf = (value) => (value != null && typeof value === "object" ? value.value : value);
  const wordsOf = (row) => {
    row.words ||= columns.map((c) => `${c.kind === "rank" ? "rank " : ""}${cellText(c, row.values[c.index])}`).join("\t").toLowerCase();
    return row.words;
  };
  const isWanted = (row) => {
    const words = state.filter.toLowerCase().trim();
    if (!words) return true;
    const rank = /^rank\s+(\d+)$/.exec(words);
    if (rank) return columns.some((c) => c.kind === "rank" && row.values[c.index] === Number(rank[1]));
    return words.split(/\s+/).every((word) => wordsOf(row).includes(word));
  };
  const compare = (one, other) => {
    const [a, b] = [keyOf(one), keyOf(other)];
    if (a == null || b == null) return (a == null) - (b == null);  // n/a comes last in both directions
    const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
    return state.down ? -order : order;
  };

  const cell = (column, value) => {
    const text = cellText(column, value);
    const made = element("td", { class: column.wide ? "text wide" : column.isText ? "text name" : value == null ? "na" : null });
    if (column.isText && text.length > 60) made.title = text;
    if (value == null && column.why) made.title = column.why;
    if (value != null && column.kind === "interval") return page.changes.interval(value, column.most);
    if (value != null && column.signed) return page.changes.signed(value, text, column.most);
    if (!column.bar || value == null) {
      made.textContent = column.isText ? page.short(text, 300) : text;
      return made;
    }
    const bar = element("span", { class: "inbar" });
    bar.style.width = `${column.most ? (100 * Math.abs(value)) / column.most : 0}%`;
    made.append(element("div", { class: "barcell" }, element("span", { class: "track" }, bar), text));
    return made;
  };
  const rowElement = (row) =>
    element("tr", { class: row.marked ? "marked" : null }, ...columns.map((c) => cell(c, row.values[c.index])));
  const groupElement = (name, rows) => {
    const isOpen = state.open.has(name);
    const toggle = element("button", {
      type: "button", "aria-expanded": String(isOpen), text: `${isOpen ? "\u25BE" : "\u25B8"} ${page.short(name, 60)}`,
      onclick: () => {
        if (!state.open.delete(name)) state.open.add(name);
        fill();
        [...body.querySelectorAll("tr.group button")].find((b) => b.dataset.group === name)?.focus();
      },
    });
    toggle.dataset.group = name;
    const named = rows.some((row) => row.marked) ? ", with a named one" : "";
    const cells = columns.slice(2).map((c) =>
      c.kind === "time" || c.kind === "share" || c.kind === "bytes"
        ? cell({ ...c, bar: false }, page.median(rows.map((row) => row.values[c.index])))
        : element("td"));
    const label = element("td", { class: "text", colspan: 2 }, toggle, `medians of ${rows.length}${named}`);
    return element("tr", { class: "group" }, label, ...cells);
  };

  const head = element("tr");
  for (const column of columns) {
    const title = page.titled(column.title, column.kind, unit);
    const button = element("button", { type: "button", text: title, onclick: () => sortBy(column) });
    page.explain(button, column.term);
    head.append(element("th", { scope: "col", class: column.isText ? "text" : null }, button));
  }
  const body = element("tbody");
  const count = element("span", { class: "count", role: "status" });
  const more = element("button", { type: "button", text: "Show more rows", onclick: () => { state.shown *= 5; fill(); } });

  const sortBy = (column) => {
    state.down = state.by === column ? !state.down : !column.isText && column.kind !== "rank";
    state.by = column;
    for (const [place, th] of [...head.children].entries()) {
      if (columns[place] === column) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    fill();
  };
  const sorted = (rows) => {
    const by = state.by;
    return by ? [...rows].sort((a, b) => compare(a.values[by.index], b.values[by.index]) || a.place - b.place) : rows;
  };
  const fill = () => {
    const wanted = sorted(all.filter(isWanted));
    const lines = [];
    if (state.grouped && !state.filter) {
      const groups = new Map();
      for (const row of wanted) {
        if (!groups.has(groupOf(row))) groups.set(groupOf(row), []);
        groups.get(groupOf(row)).push(row);
      }
      for (const [name, rows] of groups) {
        lines.push(() => groupElement(name, rows));
        if (state.open.has(name)) lines.push(...rows.map((row) => () => rowElement(row)));
      }
    } else lines.push(...wanted.map((row) => () => rowElement(row)));
    body.replaceChildren(...lines.slice(0, state.shown).map((make) => make()));
    more.hidden = lines.length <= state.shown;
    const some = wanted.length < all.length ? `${wanted.length.toLocaleString("en-US")} of ` : "";
    count.textContent = `${some}${all.length.toLocaleString("en-US")} rows`;
  };

  const tools = element("div", { class: "tools" });
  if (all.length > 8) {
    const filter = element("input", {
      type: "search", placeholder: columns.some((c) => c.kind === "rank") ? "Filter: words, or rank 5" : "Filter: words", "aria-label": `Filter ${table.title}`,
      oninput: (event) => { state.filter = event.target.value; state.shown = FIRST; fill(); },
    });
    tools.append(filter);
    if (table.group_by != null) {
      const box = element("input", {
        type: "checkbox", checked: true, onchange: (event) => { state.grouped = event.target.checked; fill(); },
      });
      tools.append(element("label", {}, box, ` by ${table.columns[table.group_by].title}`));
    }
    tools.append(count);
  }
  slot.append(
    element("h3", { text: table.title }),
    ...(table.note ? [element("p", { class: "note", text: table.note })] : []),
    tools,
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": table.title },
      element("table", { class: "data" }, element("thead", {}, head), body)),
    more,
  );
  fill();
};
