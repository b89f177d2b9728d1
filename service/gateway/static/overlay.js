// What lies over a picture, as strong as a slider says.

import {element} from "./elements.js";

const STRENGTH = 0.6;

/** picture, over: canvases, the one stretched over the other; what: "the mask". */
export function overlay(picture, over, what) {
  const under = element("canvas", {width: picture.width, height: picture.height, role: "img", "aria-label": "the picture"});
  under.getContext("2d").drawImage(picture, 0, 0);
  over.setAttribute("role", "img");
  over.setAttribute("aria-label", what);
  over.style.opacity = STRENGTH;
  const slider = element("input", {type: "range", min: 0, max: 1, step: 0.05, value: STRENGTH});
  slider.addEventListener("input", () => (over.style.opacity = slider.value));
  return element("div", {},
    element("div", {class: "overlay"}, under, over),
    element("label", {class: "row quiet"}, `How strong ${what} is`, slider));
}

/** A canvas of `values` [height][width], each drawn as colour(value) says: [red, green, blue, alpha]. */
export function painted(values, colour) {
  const height = values.length, width = values[0].length;
  const canvas = element("canvas", {width, height});
  const image = new ImageData(width, height);
  values.flat().forEach((value, at) => image.data.set(colour(value), 4 * at));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
