// What happens to the model now, from the gateway's own counts. It is asked while somebody looks.

import {element} from "./elements.js";

const EVERY_MS = 2000;
const KEPT = 30; // looks: a minute of them
const STEPS = {all: "in all", queue: "waiting", model: "in the model"};

/** details: an element that is open while somebody looks. */
export function watch(model, details, shown) {
  let looks = [];

  async function look() {
    if (!details.open || document.hidden) {
      looks = [];
      return;
    }
    let reply;
    try {
      reply = await fetch(`/models/${encodeURIComponent(model)}/now`);
    } catch {
      shown.replaceChildren("The gateway does not answer.");
      return;
    }
    if (!reply.ok) return;
    looks.push({at: performance.now(), versions: await reply.json()});
    looks.splice(0, looks.length - KEPT - 1);
    if (looks.length > 1) shown.replaceChildren(table(looks[0], looks.at(-1)), chart(rates(looks)));
  }

  setInterval(look, EVERY_MS);
  details.addEventListener("toggle", look);
}

/** A row for each version: of the requests of the last minute, or since somebody looks. */
function table(first, last) {
  const seconds = (last.at - first.at) / 1000;
  const names = ["version", "requests a second", "errors",
    ...Object.values(STEPS).flatMap((name) => [`p50 ${name}`, `p99 ${name}`])];
  const rows = Object.entries(last.versions).map(([version, now]) => {
    const before = first.versions[version];
    const since = (what) => now[what] - (before?.[what] ?? 0);
    const times = Object.keys(STEPS).flatMap((step) => {
      const counts = now[step].map(([bound, count], at) => [bound, count - (before?.[step][at]?.[1] ?? 0)]);
      return [quantile(0.5, counts), quantile(0.99, counts)];
    });
    return [version || "none answered", (since("answered") / seconds).toFixed(1), String(since("failed")), ...times];
  });
  return element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Now"},
    element("p", {class: "quiet"}, `In the last ${seconds.toFixed(0)} s`),
    element("table", {},
      element("thead", {}, element("tr", {}, ...names.map((name) => element("th", {scope: "col"}, name)))),
      element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {class: "number"}, cell)))))));
}

/** Within the bucket where it lies, as Prometheus' histogram_quantile has it. */
function quantile(share, counts) {
  const all = counts.at(-1)?.[1] ?? 0;
  if (!all) return "–";
  const at = counts.findIndex(([, count]) => count >= share * all);
  const [low, below] = at ? counts[at - 1] : [0, 0];
  const [high, upTo] = counts[at];
  if (high === null) return `> ${1000 * low} ms`;
  const ms = 1000 * (low + (high - low) * ((share * all - below) / (upTo - below)));
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

/** Requests a second between each two looks. */
function rates(looks) {
  const answered = (look) => Object.values(look.versions).reduce((sum, each) => sum + each.answered, 0);
  return looks.slice(1).map((look, at) => (1000 * (answered(look) - answered(looks[at]))) / (look.at - looks[at].at));
}

function chart(heights) {
  const most = Math.max(1, ...heights);
  const points = heights.map((height, at) => `${(at / (KEPT - 1)) * 100},${40 - (height / most) * 38}`).join(" ");
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
