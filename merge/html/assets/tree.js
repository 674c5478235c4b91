/* The module tree: rows unfold; bars show inclusive time, and in full colour the module's own part of it. */
"use strict";
page.tree = (slot, tree) => {
  const { element } = page;
  const count = tree.label.length;
  const children = Array.from({ length: count }, () => []);
  const roots = [];
  for (let place = 0; place < count; place += 1) {
    if (tree.parent[place] < 0) roots.push(place);
    else children[tree.parent[place]].push(place);
  }
  const depths = [];
  for (let place = 0; place < count; place += 1) depths.push(tree.parent[place] < 0 ? 0 : depths[tree.parent[place]] + 1);
  const most = Math.max(page.largest(tree.forward_ns), page.largest(tree.backward_ns)) || 1;
  const unit = page.timeUnit([...tree.forward_ns, ...tree.backward_ns]);
  const open = new Set();
  const state = { filter: "" };
  /* Opens each root to the first place where the tree branches, so that the first screen shows more than wrappers. */
  for (const root of roots) {
    for (let place = root; ; [place] = children[place]) {
      open.add(place);
      if (children[place].length !== 1) {
        if (children[place].length < 12) for (const child of children[place]) if (children[child].length > 1) open.add(child);
        break;
      }
    }
  }

  const bar = (whole, self, colour) => {
    const cell = element("td");
    if (whole == null) return element("td", { class: "na", text: "n/a" });
    const track = element("span", { class: "track" });
    for (const [name, value] of [["whole", whole], ["self", self]]) {
      if (value == null) continue;
      const part = element("span", { class: `${name} c${colour}` });
      part.style.width = `${(100 * value) / most}%`;
      track.append(part);
    }
    const text = `${page.format("time", whole, unit)} / ${page.format("time", self, unit)}`;
    cell.append(element("div", { class: "barcell" }, track, element("span", { text })));
    return cell;
  };
  const toggle = (place, isOpen) => {
    if (isOpen == null ? open.has(place) : !isOpen) open.delete(place);
    else open.add(place);
    fill();
    body.querySelector(`[data-place="${place}"]`)?.focus();
  };
  const onKey = (event, place) => {
    const buttons = [...body.querySelectorAll("button")];
    const at = buttons.indexOf(event.currentTarget);
    if (event.key === "ArrowRight" && children[place].length) toggle(place, true);
    else if (event.key === "ArrowLeft" && open.has(place)) toggle(place, false);
    else if (event.key === "ArrowLeft" && tree.parent[place] >= 0) body.querySelector(`[data-place="${tree.parent[place]}"]`)?.focus();
    else if (event.key === "ArrowDown") buttons[at + 1]?.focus();
    else if (event.key === "ArrowUp") buttons[at - 1]?.focus();
    else return;
    event.preventDefault();
  };
  const rowElement = (place, flat) => {
    const has = children[place].length > 0 && !flat;
    const sign = has ? (open.has(place) ? "\u25BE" : "\u25B8") : "\u00A0";
    const name = flat ? tree.label[place] : tree.name[place];
    const button = element("button", {
      type: "button", text: `${sign} ${page.short(name, 90)}`, "data-place": place, title: name.length > 90 ? name : null,
      "aria-expanded": has ? String(open.has(place)) : null,
      onclick: () => has && toggle(place), onkeydown: (event) => onKey(event, place),
    });
    const label = element("td", { class: "text", title: tree.repr[place] || null }, button,
      element("span", { class: "class", text: page.short(tree.class[place], 60) }));
    label.style.paddingLeft = `${flat ? 0.4 : 0.4 + 1.1 * depths[place]}rem`;
    const some = tree.ranks[place] < tree.recorded ? `${tree.ranks[place]} of ${tree.recorded}` : "all";
    return element("tr", { role: "row", "aria-level": flat ? null : depths[place] + 1 }, label,
      bar(tree.forward_ns[place], tree.forward_self_ns[place], 1),
      bar(tree.backward_ns[place], tree.backward_self_ns[place], 3),
      element("td", { text: share(place) }),
      element("td", { text: page.format("number", tree.params[place]) }),
      element("td", { text: page.format("number", tree.flops[place]), class: tree.flops[place] == null ? "na" : null }),
      element("td", { text: page.format("number", tree.calls[place]) }),
      element("td", { text: some }));
  };
  const selfOf = (place) => (tree.forward_self_ns[place] ?? 0) + (tree.backward_self_ns[place] ?? 0);
  const share = (place) => {
    const isKnown = tree.forward_self_ns[place] != null || tree.backward_self_ns[place] != null;
    return isKnown && tree.iteration_ns ? page.percent(selfOf(place) / tree.iteration_ns) : "n/a";
  };
  const FIRST = 400;
  const body = element("tbody");
  const note = element("span", { class: "count", role: "status" });
  const fill = () => {
    const rows = [];
    const word = state.filter.toLowerCase().trim();
    if (word || state.flat) {
      for (let place = 0; place < count; place += 1) {
        const words = `${tree.label[place]} ${tree.class[place]}`.toLowerCase();
        if (words.includes(word) && (word || selfOf(place) > 0)) rows.push(place);
      }
      if (state.flat) rows.sort((a, b) => selfOf(b) - selfOf(a));
    } else {
      const stack = [...roots].reverse();
      while (stack.length) {
        const place = stack.pop();
        rows.push(place);
        if (open.has(place)) stack.push(...[...children[place]].reverse());
      }
    }
    const shown = rows.slice(0, FIRST);
    body.replaceChildren(...shown.map((place) => rowElement(place, Boolean(word || state.flat))));
    const cut = shown.length < rows.length ? `, the first ${FIRST} of these` : "";
    note.textContent = `${rows.length} of ${count} modules${cut}`;
  };
  const all = (isOpen) => {
    open.clear();
    for (let place = 0; place < count; place += 1) if (isOpen && children[place].length) open.add(place);
    fill();
  };
  const titles = [
    ["module", ""], [`forward, inclusive / self (${unit.name})`, "self time"],
    [`backward, inclusive / self (${unit.name})`, "self time"], ["self, share of iteration", "self time"],
    ["params", ""], ["flops", "FLOPs, flops"], ["calls", ""], ["ranks", ""],
  ];
  const head = element("tr", {}, ...titles.map(([text, term], place) => {
    const label = page.explain(element("span", { text }), term);
    return element("th", { scope: "col", class: place ? null : "text" }, label);
  }));
  slot.append(
    element("h3", { text: "Modules" }),
    element("p", { class: "note", text: "Medians over the ranks that have a module. Pale: inclusive, with the modules inside. Full colour: the module's own (self) time. Waits in collectives are included." }),
    element("div", { class: "tools" },
      element("input", { type: "search", placeholder: "Filter by name or class", "aria-label": "Filter modules",
        oninput: (event) => { state.filter = event.target.value; fill(); } }),
      element("label", {}, element("input", { type: "checkbox", onchange: (event) => { state.flat = event.target.checked; fill(); } }),
        " as a list, most self time first"),
      element("button", { type: "button", text: "Unfold all", onclick: () => all(true) }),
      element("button", { type: "button", text: "Fold all", onclick: () => all(false) }), note),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Modules" },
      element("table", { class: "data tree" }, element("thead", {}, head), body)));
  fill();
};
