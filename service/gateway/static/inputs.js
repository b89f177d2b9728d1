// A field for each input of a signature: pictures, text or numbers.
//
// A field is {name, element, take(files), rows(), snippet()}: `rows` gives what JSON carries for the
// input, [N, ...]; `snippet` what stands for it in a line to copy.

import {element} from "./elements.js";
import {takePhoto} from "./camera.js";

/** seen: the shape [N, H, W, C] in which the model sees this input, or null. */
export function field(spec, seen, onChange) {
  if (isPicture(spec, seen)) return pictureField(spec, seen, onChange);
  return spec.dtype === "string" ? textField(spec) : numbersField(spec);
}

function isPicture(spec, seen) {
  if (!seen || seen.length !== 4 || ![1, 3].includes(seen[3])) return false;
  return spec.dtype === "string" || spec.shape.length === 4;
}

function pictureField(spec, seen, onChange) {
  const [, height, width, channels] = seen;
  const previews = element("div", {class: "previews"});
  const chooser = element("input", {type: "file", accept: "image/*", multiple: true});
  const drop = element("label", {class: "drop"}, "Drop, paste or choose a picture", chooser);
  let chosen = [], taken = 0;

  async function take(files) {
    const turn = ++taken;
    const found = await Promise.all([...files].map((file) => read(file)));
    if (turn !== taken) return; // others were chosen meanwhile
    chosen = found;
    previews.replaceChildren(...chosen.map(({file, canvas}) =>
      element("figure", {}, canvas, element("figcaption", {}, file.name))));
    onChange();
  }

  async function read(file) {
    const canvas = element("canvas", {role: "img", "aria-label": `${file.name} as the model sees it`});
    try {
      const bitmap = await createImageBitmap(file);
      canvas.width = width || bitmap.width;
      canvas.height = height || bitmap.height;
      const context = canvas.getContext("2d", {willReadFrequently: true});
      context.imageSmoothingQuality = "high";
      context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
      if (channels === 1) grey(context, canvas);
    } catch { // no picture that a browser reads: the gateway says what it thinks of it
      canvas.width = canvas.height = 1;
    }
    return {file, canvas};
  }

  chooser.addEventListener("change", () => take(chooser.files));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files);
    });
  }
  const photograph = async () => {
    const photo = await takePhoto();
    if (photo) take([photo]);
  };
  // Browsers lend the camera to pages of https and of this machine alone.
  const camera = navigator.mediaDevices ? element("button", {type: "button", onclick: photograph}, "Camera") : "";
  const size = height && width ? `${height} × ${width}` : "any size";
  const what = `${size}, ${channels === 1 ? "grey" : "colour"}`;
  return {
    name: spec.name,
    picture: true,
    canvases: () => chosen.map(({canvas}) => canvas),
    element: element("fieldset", {"data-input": spec.name},
      element("legend", {}, spec.name),
      drop,
      element("div", {class: "row"}, camera, element("span", {class: "quiet"}, `The model sees ${what}.`)),
      previews),
    take,
    rows: async () => {
      if (!chosen.length) throw new Error(`Choose a picture for ${spec.name} first.`);
      return Promise.all(chosen.map(({file, canvas}) =>
        spec.dtype === "string" ? base64(file) : pixels(canvas, channels)));
    },
    snippet: () => chosen.map(({file}) => file.name),
  };
}

function textField(spec) {
  const text = element("textarea", {id: `input-${spec.name}`, rows: 3, "aria-label": spec.name});
  return {
    name: spec.name,
    element: element("fieldset", {"data-input": spec.name}, element("legend", {}, spec.name), text,
      element("p", {class: "quiet"}, "Text; one row.")),
    rows: async () => [nested(spec.shape.slice(1), () => text.value)],
    snippet: () => [nested(spec.shape.slice(1), () => text.value)],
  };
}

function numbersField(spec) {
  const sizes = spec.shape.slice(1);
  const shape = sizes.map((size) => size || 1);
  const text = element("textarea", {id: `input-${spec.name}`, "aria-label": spec.name});
  const whole = /int/.test(spec.dtype);
  const fill = (draw) => (text.value = JSON.stringify(nested(shape, draw)));
  const nothing = () => (spec.dtype === "bool" ? false : 0);
  fill(nothing);
  const normal = () => +(Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random())).toFixed(4);
  const drawn = () => (spec.dtype === "bool" ? Math.random() < 0.5 : whole ? Math.floor(Math.random() * 10) : normal());
  const parse = () => {
    try {
      return [JSON.parse(text.value)];
    } catch {
      // As spreadsheets have them: numbers between commas, semicolons, tabs or spaces, rows by line.
      const lines = text.value.trim().split(/\n/).map((line) => line.trim().split(/[,;\s]+/).map(Number));
      if (lines.flat().some(Number.isNaN)) throw new Error(`${spec.name}: these are no numbers.`);
      return [reshape(lines.flat(), fitting(spec.name, sizes, lines.flat().length))];
    }
  };
  return {
    name: spec.name,
    element: element("fieldset", {"data-input": spec.name}, element("legend", {}, spec.name), text,
      element("div", {class: "row"},
        element("button", {type: "button", onclick: () => fill(nothing)}, "Zeros"),
        element("button", {type: "button", onclick: () => fill(drawn)}, "Random"),
        element("span", {class: "quiet"}, `${spec.dtype} [${sizes.map((size) => size || "any").join(", ")}], as JSON or CSV`))),
    rows: async () => parse(),
    snippet: () => parse(),
  };
}

function nested(shape, draw) {
  if (!shape.length) return draw();
  return Array.from({length: shape[0] || 1}, () => nested(shape.slice(1), draw));
}

/** The sizes of an array of so many numbers; one of them may be any. */
function fitting(name, sizes, count) {
  const known = sizes.reduce((product, size) => product * (size || 1), 1);
  const free = sizes.filter((size) => !size).length;
  const found = sizes.map((size) => size || (free === 1 ? count / known : 1));
  if (!found.every(Number.isInteger) || found.reduce((product, size) => product * size, 1) !== count) {
    throw new Error(`${name}: expected ${known} numbers${free ? ", or a multiple of that" : ""}, got ${count}.`);
  }
  return found;
}

function reshape(flat, shape) {
  if (!shape.length) return flat[0];
  const step = flat.length / shape[0];
  return Array.from({length: shape[0]}, (_, at) => reshape(flat.slice(at * step, (at + 1) * step), shape.slice(1)));
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({b64: reader.result.slice(reader.result.indexOf(",") + 1)});
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function grey(context, canvas) {
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < image.data.length; at += 4) {
    const [red, green, blue] = image.data.subarray(at, at + 3);
    image.data.fill(0.2989 * red + 0.587 * green + 0.114 * blue, at, at + 3);
  }
  context.putImageData(image, 0, 0);
}

/** [H][W][channels] of 0..255: for a model that takes no files. */
function pixels(canvas, channels) {
  const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return Array.from({length: height}, (_, y) => Array.from({length: width}, (_, x) => {
    const at = 4 * (y * width + x);
    return [...data.subarray(at, at + channels)];
  }));
}
