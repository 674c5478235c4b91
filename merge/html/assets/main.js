/* Fills the places of the page from the packed data, once it is read. */
"use strict";
page.start = async () => {
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  page.setTheme(page.chosenTheme() || (prefersDark.matches ? "dark" : "light"));
  prefersDark.addEventListener("change", (event) => { if (!page.chosenTheme()) page.setTheme(event.matches ? "dark" : "light"); });
  document.getElementById("theme").addEventListener("click", () => page.setTheme(page.isDark() ? "light" : "dark", true));
  document.getElementById("print").addEventListener("click", () => window.print());
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") page.tip(""); });

  for (const part of document.querySelectorAll("section[data-nav]")) {
    const link = page.element("a", { href: `#${part.id}`, text: part.dataset.nav });
    document.getElementById("nav").append(page.element("li", {}, link));
  }
  const words = document.querySelectorAll(".glossary dt");
  for (const word of words) page.terms.set(word.textContent, word.nextElementSibling.textContent);
  for (const label of document.querySelectorAll("[data-term]")) page.explain(label, label.dataset.term);
  for (const button of document.querySelectorAll("[data-download]")) button.addEventListener("click", () => page.download(button.dataset.download));

  const data = JSON.parse(await page.unpack(document.getElementById("data").textContent));
  for (const slot of document.querySelectorAll(".slot")) {
    const { table, chart, heat, tree, timeline } = slot.dataset;
    if (table) page.table(slot, data.tables[table]);
    else if (chart) page.chart(slot, data.charts[chart]);
    else if (heat) page.heat(slot, data.heat_maps[heat]);
    else if (tree) page.tree(slot, data.tree);
    else if (timeline) page.timeline(slot, data.timeline);
  }
  for (const box of document.querySelectorAll(".scroll")) page.showMore(box);
  let width = root.clientWidth;
  addEventListener("resize", () => {
    if (root.clientWidth !== width) { width = root.clientWidth; for (const redraw of page.redraws) redraw(); }
  });
  let before = null;
  addEventListener("beforeprint", () => { before = root.dataset.theme; page.setTheme("light"); });
  addEventListener("afterprint", () => { if (before) page.setTheme(before); });
  requestAnimationFrame(() => requestAnimationFrame(() => {  // everything is drawn
    performance.mark("ready");
    root.dataset.ready = "yes";
  }));
};
page.download = async (name) => {
  const packed = document.querySelector(`script[data-file="${CSS.escape(name)}"]`).textContent;
  const address = URL.createObjectURL(new Blob([await page.unpack(packed)], { type: "text/csv" }));
  page.element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
};
page.start().catch((error) => {
  const place = document.getElementById("failed");
  place.hidden = false;
  place.textContent = `Tables and pictures could not be drawn (${error}): this page needs a browser of 2023 or later.`;
  document.documentElement.dataset.ready = "failed";
});
