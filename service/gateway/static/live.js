// What happens to the model now, from the gateway's own counts. It is asked while somebody looks.

import {element} from "./elements.js";

const EVERY_MS = 2000;
const KEPT = 60;

/** details: an element that is open while somebody looks. */
export function watch(model, details, shown) {
  const rates = [];
  let last = null;

  async function look() {
    if (!details.open || document.hidden) {
      last = null;
      return;
    }
    const reply = await fetch(`/v2/models/${encodeURIComponent(model)}/stats`);
    if (!reply.ok) return;
    const now = totals(await reply.json());
    if (last) {
      const seconds = (now.at - last.at) / 1000;
      const answered = now.count - last.count;
      rates.push(answered / seconds);
      rates.splice(0, rates.length - KEPT);
      shown.replaceChildren(...lines(now, last, answered, seconds), chart(rates));
    }
    last = now;
  }

  setInterval(look, EVERY_MS);
  details.addEventListener("toggle", look);
}

function totals(document) {
  const sum = (kind, what) => document.model_stats.reduce((all, each) => all + Number(each.inference_stats[kind]?.[what] ?? 0), 0);
  return {
    at: performance.now(),
    count: sum("success", "count"),
    failed: sum("fail", "count"),
    success_ns: sum("success", "ns"),
    queue_ns: sum("queue", "ns"),
    model_ns: sum("compute_infer", "ns"),
  };
}

function lines(now, last, answered, seconds) {
  const mean = (what) => (answered ? `${((now[what] - last[what]) / answered / 1e6).toFixed(1)} ms` : "–");
  const rows = [
    ["requests a second", (answered / seconds).toFixed(1)],
    ["errors since the start", String(now.failed)],
    ["mean time in all", mean("success_ns")],
    ["of it waiting", mean("queue_ns")],
    ["of it in the model", mean("model_ns")],
  ];
  return [element("table", {}, element("tbody", {}, ...rows.map(([name, value]) =>
    element("tr", {}, element("th", {scope: "row"}, name), element("td", {class: "number"}, value)))))];
}

function chart(rates) {
  const most = Math.max(1, ...rates);
  const points = rates.map((rate, at) => `${(at / (KEPT - 1)) * 100},${40 - (rate / most) * 38}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "line");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `requests a second, at most ${most.toFixed(1)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points);
  svg.append(line);
  return svg;
}
