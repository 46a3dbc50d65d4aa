// What a browser with scripts adds: the time since, and curves that can be read off and zoomed. Every page works without it.
"use strict";

(() => {
  const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];
  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

  function since(moment) {
    const seconds = (new Date(moment) - Date.now()) / 1000;
    const [unit, length] = units.find(([, each]) => Math.abs(seconds) >= each) || ["second", 1];
    return relative.format(Math.round(seconds / length), unit);
  }

  function tellTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]")) time.title = `${since(time.dateTime)} (UTC)`;
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dashes = [[], [6, 3], [2, 3], [9, 3, 2, 3], [12, 3], []];

  function table(chart) {
    const xs = [...new Set(chart.curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
    const at = new Map(xs.map((x, index) => [x, index]));
    const columns = chart.curves.map((curve) => {
      const ys = Array(xs.length).fill(null);
      curve.x.forEach((x, index) => { ys[at.get(x)] = curve.y[index]; });
      return ys;
    });
    return [xs, ...columns];
  }

  const named = (axis) => (axis.unit ? `${axis.label} (${axis.unit})` : axis.label);

  function options(chart, width) {
    const font = '13px "Source Sans 3", system-ui, sans-serif';
    const axis = (label) => ({ label, font, labelFont: font, stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--strong"), width: 1 } });
    return {
      width,
      height: Math.max(260, Math.min(340, width * 0.45)),
      scales: { x: { time: false }, y: chart.zero ? { range: (u, low, high) => [0, high > 0 ? high * 1.05 : 1] } : {} },
      axes: [{ ...axis(named(chart.x)), incrs: chart.whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10000, 100000] : undefined }, { ...axis(named(chart.y)), size: 62, values: (u, ticks) => ticks.map((tick) => (tick === null ? "" : String(Number(tick.toPrecision(5))))) }],
      series: [{ label: named(chart.x) }, ...chart.curves.map((curve, index) => ({
        label: curve.name, stroke: colour(`--c${(index % 6) + 1}`), width: 1.8, dash: dashes[index % 6], points: { show: chart.marks, size: 7, fill: colour(`--c${(index % 6) + 1}`) },
        value: (u, value) => (value === null || value === undefined ? "—" : Number(value.toPrecision(4)).toString()),
      }))],
      cursor: { drag: { x: true, y: false } },
    };
  }

  async function enliven(figure) {
    if (!window.uPlot || figure.dataset.alive) return;
    figure.dataset.alive = "yes";
    const [address, path] = figure.dataset.chart.split("#");
    const answer = await fetch(address, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const chart = path.split(".").reduce((found, key) => found && found[key], await answer.json());
    const plot = figure.querySelector(".plot");
    if (!chart || !plot) return;
    const drawn = plot.firstElementChild;
    const holder = document.createElement("div");
    holder.setAttribute("aria-hidden", "true");
    plot.append(holder);
    const live = new uPlot(options(chart, plot.clientWidth), table(chart), holder);
    drawn.classList.add("unseen");
    new ResizeObserver(() => live.setSize({ width: plot.clientWidth, height: live.height })).observe(plot);
  }

  function prepare(root) {
    tellTimes(root);
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) { watch.unobserve(entry.target); enliven(entry.target); }
    }, { rootMargin: "200px" });
    for (const figure of root.querySelectorAll("[data-chart]")) watch.observe(figure);
  }

  document.addEventListener("DOMContentLoaded", () => prepare(document));
  document.addEventListener("htmx:after:swap", () => prepare(document));
})();
