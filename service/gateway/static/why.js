// Why a model answers what it does: the heat of a class over each picture, for the class chosen.

import {element} from "./elements.js";
import {overlay, painted} from "./overlay.js";
import {predict} from "./requests.js";

const BEST = -1;

/**
 * A button that asks why, and what comes of it.
 *
 * asked: {model, signature, inputs} as `predict` takes them, `explaining` the signature that says
 * why, `labels` of all classes by head; answer: what `predict` gave; pictures: by input name the
 * canvas of each row.
 */
export function why(asked, answer, pictures) {
  const heads = asked.explaining.inputs.filter((each) => /(^|_)class$/.test(each.name) && each.dtype === "int32")
    .map((each) => headOf(each.name, asked, answer));
  const said = element("p", {class: "quiet", role: "status"});
  let turn = 0; // heat that comes after the next question is nobody's
  const show = async () => {
    const mine = ++turn;
    said.textContent = "Asking why …";
    said.className = "quiet";
    try {
      const rows = Object.values(asked.inputs)[0].length;
      const classes = Object.fromEntries(heads.map((head) => [head.input, Array(rows).fill(Number(head.choice.value))]));
      const found = await predict(asked.model, answer.version, asked.explaining, {...asked.inputs, ...classes});
      if (mine !== turn) return;
      for (const head of heads) head.place.replaceChildren(...shown(head, found.outputs, pictures));
      said.textContent = "";
    } catch (error) {
      if (mine !== turn) return;
      said.textContent = error.message;
      said.className = "bad";
    }
  };
  const button = element("button", {type: "button", onclick: () => {
    button.replaceWith(...heads.map((head) => element("div", {"data-why": head.name}, head.label, head.place)));
    heads[0].choice.focus();
    show();
  }}, "Why?");
  for (const head of heads) head.choice.addEventListener("change", show);
  return element("div", {class: "why"}, button, said);
}

/** Its names, and the choice of a class: all that are known, and the best one of each row. */
function headOf(input, asked, answer) {
  const prefix = input.replace(/class$/, "");
  const name = prefix.replace(/_$/, "") || onlyHead(answer.outputs);
  const labels = asked.labels?.[name] ?? labelsIn(answer.outputs, name);
  const choice = element("select", {},
    element("option", {value: BEST}, "the best class"),
    ...[...labels].map(([index, label]) => element("option", {value: index}, String(label))));
  return {input, prefix, name, labels, choice, place: element("div", {}),
    label: element("label", {}, `Why, of ${name}, `, choice)};
}

function onlyHead(outputs) {
  const named = Object.keys(outputs).find((name) => name.endsWith("_classes"));
  return named ? named.replace(/_classes$/, "") : Object.keys(outputs)[0];
}

/** By index: the labels that came with the answer; else the index of every class, of two where one number tells both. */
function labelsIn(outputs, head) {
  const scores = outputs[head] ?? [];
  if (scores[0]?.length === 1) return new Map([[0, 0], [1, 1]]);
  const labels = new Map();
  scores.forEach((row, at) => {
    const order = row.map((_, index) => index).sort((one, other) => row[other] - row[one]);
    outputs[`${head}_classes`]?.[at].forEach((label, rank) => labels.set(order[rank], label));
  });
  return labels.size ? labels : new Map((scores[0] ?? []).map((_, index) => [index, index]));
}

function shown(head, outputs, pictures) {
  const stem = `${head.prefix}heatmap`;
  const classes = outputs[`${head.prefix}class`], scores = outputs[`${head.prefix}score`];
  const labels = new Map(head.labels);
  const maps = Object.keys(outputs).filter((name) => name === stem || name.startsWith(`${stem}_`)).sort();
  return classes.map((index, row) => element("figure", {},
    element("figcaption", {}, `${labels.get(index) ?? `class ${index}`}: ${(100 * scores[row]).toFixed(1)} %`),
    element("div", {class: maps.length > 1 ? "several row" : ""}, ...maps.map((name) => {
      const input = name.slice(stem.length + 1);
      const picture = pictures[input] ?? Object.values(pictures)[0];
      const of = input ? ` in ${input}` : "";
      return picture?.[row] ? overlay(picture[row], heat(outputs[name][row]), `the heat${of}`) : "";
    }))));
}

/** Yellow to red, and stronger where it is hotter. */
function heat(map) {
  const canvas = painted(map, (value) => [255, 230 * (1 - value), 0, 255 * Math.min(1, 1.2 * value)]);
  canvas.classList.add("heat");
  return canvas;
}
