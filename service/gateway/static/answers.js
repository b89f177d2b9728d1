// What a model answered, as what it is: labels as bars, masks over the picture, pictures, numbers.

import {element, saveLink} from "./elements.js";
import {npy} from "./npy.js";
import {overlay, painted} from "./overlay.js";

const SHOWN = 12; // numbers of an array
const SIDE = 288; // CSS pixels
const UNIT = 1.5; // no number of a picture of 0..1 is above
const SIGNED = -0.5; // what is below is no slip below 0, and the picture of -1..1

/** outputs: by name, [N, ...]; specs: of them; canvases: the first picture of each row, as the model saw it;
 * kinds: by name "picture", "mask" or "numbers", of outputs of which it is known. */
export function render(outputs, specs, canvases, kinds) {
  const rows = Math.max(0, ...Object.values(outputs).map((each) => (Array.isArray(each) ? each.length : 0)));
  const parts = [];
  for (let row = 0; row < rows; row++) {
    if (rows > 1) parts.push(element("h3", {}, `Row ${row + 1}`));
    parts.push(...oneRow(outputs, row, canvases[row], kinds));
  }
  const arrays = specs.filter(({name, dtype}) =>
    dtype !== "string" && Array.isArray(outputs[name]) && isExact(outputs[name], dtype));
  parts.push(element("p", {class: "row"},
    saveLink("answer.json", () => new Blob([JSON.stringify(outputs, null, 1)], {type: "application/json"})),
    ...arrays.map(({name, dtype}) => saveLink(`${name}.npy`, () => npy(outputs[name], shapeOf(outputs[name]), dtype)))));
  return parts;
}

/** Whether JSON's numbers, which are doubles here, are the model's: not of whole ones beyond 2^53. */
function isExact(values, dtype) {
  return !/int64/.test(dtype) || values.flat(Infinity).every(Number.isSafeInteger);
}

function oneRow(outputs, row, canvas, kinds) {
  const parts = [];
  for (const [name, values] of Object.entries(outputs)) {
    if (/_(classes|scores)$/.test(name) && outputs[name.replace(/_\w+$/, "_classes")]) continue;
    if (name === "novelty" && typeof values[row] === "number") continue;
    const classes = outputs[`${name}_classes`]?.[row];
    const block = element("div", {"data-output": name}, element("h3", {}, name));
    if (classes) {
      block.append(bars(classes, outputs[`${name}_scores`][row]), element("details", {},
        element("summary", {}, "every number"), numbers(values[row])));
    } else {
      block.append(asWhatItIs(values[row], canvas, kinds[name]));
    }
    parts.push(block);
  }
  const novelty = outputs.novelty?.[row];
  if (typeof novelty === "number") parts.push(said(novelty));
  return parts;
}

/** How unlike the training images the row is; the threshold is 1 (docs/novelty.md). */
function said(novelty) {
  const number = `Novelty ${+novelty.toPrecision(3)}; above 1 is unlike.`;
  return novelty > 1
    ? element("p", {"data-output": "novelty"}, element("strong", {}, "Unlike anything it was trained on."), ` This answer is worth little. ${number}`)
    : element("p", {class: "quiet", "data-output": "novelty"}, `Like what it was trained on. ${number}`);
}

function asWhatItIs(value, canvas, kind) {
  const shape = shapeOf(value);
  if (shape.length !== 3 || kind === "numbers") return numbers(value);
  const [height, width, channels] = shape;
  const said = kind ?? guess(value.flat(), channels);
  if (said === "mask" && canvas && canvas.width === width && canvas.height === height) {
    return overlay(canvas, mask(value, channels), "the mask");
  }
  const isPicture = [1, 3].includes(channels) && (kind === "picture" || !areLogits(value.flat(2), channels));
  return isPicture ? picture(value, width) : numbers(value);
}

/** By its pixels, of an output of which nothing is known. One number of 0..1 a pixel may be either. */
function guess(pixels, channels) {
  const flat = pixels.flat();
  if (channels === 1) return flat.every((each) => each >= 0 && each <= 1) ? "mask" : "picture";
  if (channels !== 3 || areLogits(flat, channels)) return "mask";
  const areShares = pixels.every((each) => Math.abs(each[0] + each[1] + each[2] - 1) < 0.01);
  return areShares ? "mask" : "picture";
}

function areLogits(flat, channels) {
  return channels > 1 && greatest(flat) > UNIT && flat.some((each) => each < 0); // pictures are of 0.., or -1..1
}

function greatest(flat) {
  return flat.reduce((most, each) => Math.max(most, each), -Infinity);
}

function bars(classes, scores) {
  const grid = element("div", {class: "bars"});
  classes.forEach((label, at) => {
    const filled = element("div");
    filled.style.width = `${Math.max(0, Math.min(1, scores[at])) * 100}%`;
    grid.append(element("span", {class: "label"}, String(label)), element("div", {class: "bar"}, filled),
      element("span", {class: "number"}, `${(scores[at] * 100).toFixed(1)} %`));
  });
  return grid;
}

/** Classes of each pixel, or how sure one is. */
function mask(value, channels) {
  return painted(value, (scores) => {
    const best = channels === 1 ? (scores[0] > 0.5 ? 1 : 0) : scores.indexOf(Math.max(...scores));
    return best > 0 ? [...colour(best), 255] : [0, 0, 0, 0];
  });
}

/** [H][W][C] of 0..255, of 0..1, or of -1..1. */
function picture(value, width) {
  const flat = value.flat(2);
  const isUnit = greatest(flat) <= UNIT;
  const isSigned = isUnit && flat.some((each) => each < SIGNED);
  const canvas = painted(value, (pixel) => {
    const [red, green = red, blue = red] = pixel.map((each) => (isSigned ? (each + 1) * 127.5 : isUnit ? each * 255 : each));
    return [red, green, blue, 255];
  });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "a picture that the model made");
  canvas.style.width = `${Math.min(SIDE, Math.max(width, 144))}px`;
  return canvas;
}

function numbers(value) {
  const flat = [value].flat(Infinity);
  const shape = shapeOf(value);
  const shown = flat.slice(0, SHOWN).map((each) => (typeof each === "number" ? +each.toPrecision(5) : each?.b64 ? "bytes" : String(each)));
  const more = flat.length > SHOWN ? ` … ${flat.length} in all` : "";
  const table = element("table", {}, element("tbody", {},
    element("tr", {}, ...shown.map((_, at) => element("th", {scope: "col"}, String(at)))),
    element("tr", {}, ...shown.map((each) => element("td", {class: "number"}, String(each))))));
  return element("div", {}, element("span", {class: "quiet"}, shape.length ? `[${shape.join(", ")}]${more}` : ""),
    element("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "numbers"}, table));
}

function shapeOf(value) {
  return Array.isArray(value) ? [value.length, ...shapeOf(value[0])] : [];
}

function colour(number) {
  const angle = ((number * 137.5) % 360) / 60;
  const rising = Math.round(255 * (1 - Math.abs((angle % 2) - 1)));
  return [[255, rising, 0], [rising, 255, 0], [0, 255, rising], [0, rising, 255], [rising, 0, 255], [255, 0, rising]][Math.floor(angle)];
}
