/* What all parts of the page share: elements, numbers, tooltips, data, light and dark. */
"use strict";
const page = { redraws: [], terms: new Map() };

/** Returns a new element; every text is set as text, so that no name becomes markup. */
page.element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
};

page.timeUnit = (values) => {
  const largest = page.largest(values);
  if (largest >= 1e10) return { name: "s", size: 1e9 };
  return largest > 0 && largest < 1e6 ? { name: "us", size: 1e3 } : { name: "ms", size: 1e6 };
};
page.sizeUnit = (values) => {
  const [size, name] = unitOf(page.largest(values), SIZES);
  return { name, size };
};
page.largest = (values) => values.reduce((most, value) => (value == null ? most : Math.max(most, Math.abs(value))), 0);

const SCALES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "K"], [1, ""]];
const SIZES = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]];
const unitOf = (value, units) => units.find(([least]) => Math.abs(value) >= least) || units[units.length - 1];
const scaled = (value, units) => {
  const [scale, name] = unitOf(value, units);
  return `${Number((value / scale).toFixed(2))} ${name}`.trim();
};
const inUnit = (value, unit) => {
  const own = value / unit.size;
  return Math.abs(own) < 1000 ? own.toFixed(2) : own.toFixed(1);
};
/** Returns a value as the text report writes it; times without their unit, which stands in the title. */
page.format = (kind, value, unit) => {
  if (value == null) return "n/a";
  if (kind === "time") return inUnit(value, unit);
  if (kind === "bytes") return scaled(value, SIZES);
  if (kind === "rate") return `${scaled(value, SIZES)}/s`;
  if (kind === "share") return page.percent(value);
  if (kind === "ratio") return value.toFixed(2);
  if (kind === "count") return Number.isInteger(value) ? value.toLocaleString("en-US") : String(value);
  if (kind === "number") return scaled(value, SCALES);
  return String(value);
};
/** Returns a share with one decimal; one that is not zero never reads as zero. */
page.percent = (share) => (share !== 0 && Math.abs(share) < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
page.titled = (title, kind, unit) => (kind === "time" ? `${title} (${unit.name})` : title);
page.withUnit = (kind, value, unit) =>
  value == null || kind !== "time" ? page.format(kind, value, unit) : `${page.format(kind, value, unit)} ${unit.name}`;
/** Returns a name in at most ``width`` characters, without its middle. */
page.short = (name, width) => {
  if (name.length <= width) return name;
  const end = Math.ceil((width - 3) / 2);
  return `${name.slice(0, width - 3 - end)}...${name.slice(-end)}`;
};
page.median = (values) => {
  const own = values.filter((value) => value != null).sort((a, b) => a - b);
  const half = own.length >> 1;
  return own.length ? (own.length % 2 ? own[half] : (own[half - 1] + own[half]) / 2) : null;
};

page.tip = (text, x, y) => {
  const tip = document.getElementById("tip");
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const width = tip.offsetWidth;
  const right = document.documentElement.clientWidth - width - 12;
  tip.style.left = `${Math.max(4, Math.min(x + 14, right)) + window.scrollX}px`;
  const below = y + 18 + tip.offsetHeight < window.innerHeight;
  tip.style.top = `${(below ? y + 16 : y - tip.offsetHeight - 10) + window.scrollY}px`;
};
/** Makes an element show the meaning of a word of the glossary when it is hovered or has the focus. */
page.explain = (element, word) => {
  const meaning = page.terms.get(word);
  if (!meaning) return element;
  const show = () => {
    const box = element.getBoundingClientRect();
    page.tip(`${word}: ${meaning}`, box.left, box.bottom - 10);
  };
  element.classList.add("term");
  if (element.tabIndex < 0) element.tabIndex = 0;
  for (const name of ["mouseenter", "focus"]) element.addEventListener(name, show);
  for (const name of ["mouseleave", "blur"]) element.addEventListener(name, () => page.tip(""));
  return element;
};

/** Marks a box while columns of its table are hidden at its right, so that they are looked for. */
page.showMore = (box) => {
  const mark = () => box.classList.toggle("more", box.scrollWidth - box.clientWidth - box.scrollLeft > 2);
  const changes = new ResizeObserver(mark);
  for (const one of [box, box.firstElementChild]) changes.observe(one);
  box.addEventListener("scroll", mark, { passive: true });
};

page.colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
page.isDark = () => document.documentElement.dataset.theme === "dark";
page.setTheme = (theme, keep) => {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
  if (keep) try { localStorage.setItem("distprof-theme", theme); } catch { /* storage is off: the choice is for now */ }
  for (const redraw of page.redraws) redraw();
};
page.chosenTheme = () => {
  try { return localStorage.getItem("distprof-theme"); } catch { return null; }
};

/** Returns the text of a packed block: base64 of gzip. */
page.unpack = async (packed) => {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};
