/* Cells of tables that show a change: intervals around a zero line, and bars to both sides of it. */
"use strict";
page.changes = {};
const signedPercent = (share) => `${share > 0 ? "+" : ""}${(100 * share).toFixed(1)} %`;

/** Returns an interval's words: the change, and what chance allows. */
page.changes.words = (one) =>
  one == null ? "n/a" : `${signedPercent(one.value)}${one.low == null ? "" : ` (${signedPercent(one.low)} .. ${signedPercent(one.high)})`}`;

/** Returns the largest change or bound to draw: bounds far beyond all changes are cut. */
page.changes.limit = (intervals) => {
  const known = intervals.filter((one) => one != null);
  const changes = page.largest(known.map((one) => one.value));
  const bounds = page.largest(known.flatMap((one) => [one.low, one.high]));
  return Math.max(0.05, Math.min(bounds, 3 * Math.max(changes, 0.05)), changes) * 1.05;
};
const percentOf = (value, limit) => 50 + 50 * Math.max(-1, Math.min(1, value / limit));
const line = (kind, left, right) => {
  const made = page.element("span", { class: kind });
  made.style.left = `${left}%`;
  if (right != null) made.style.width = `${Math.max(0.5, right - left)}%`;
  return made;
};

page.changes.interval = (one, limit) => {
  const track = page.element("span", { class: "track interval" }, line("zero", 50));
  if (one.low != null) track.append(line(`range ${one.side}`, percentOf(one.low, limit), percentOf(one.high, limit)));
  track.append(line(`dot ${one.side}`, percentOf(one.value, limit)));
  const words = page.changes.words(one);
  const cell = page.element("td", { class: "interval" }, page.element("div", { class: "barcell" }, track, page.element("span", { class: "words", text: words })));
  cell.addEventListener("mousemove", (event) => page.tip(explained(one), event.clientX, event.clientY));
  cell.addEventListener("mouseleave", () => page.tip(""));
  return cell;
};
const explained = (one) => {
  if (one.low == null) return `${signedPercent(one.value)}; its noise is not known`;
  const outside = one.low > 0 || one.high < 0;
  return `${signedPercent(one.value)}, by chance between ${signedPercent(one.low)} and ${signedPercent(one.high)}: ${outside ? "a real change" : "inside the noise"}`;
};

page.changes.signed = (value, text, most) => {
  const length = Math.max(0.5, Math.abs(percentOf(value, most || 1) - 50));
  const left = value > 0 ? 50 : 50 - length;
  const track = page.element("span", { class: "track interval" }, line("zero", 50), line(`side ${value > 0 ? "cost" : "gain"}`, left, left + length));
  return page.element("td", {}, page.element("div", { class: "barcell" }, track, text));
};
