// The page of one model: fields made from its signature, and what it answers.

import {copyButton, element} from "./elements.js";
import {field} from "./inputs.js";
import {predict, snippets} from "./requests.js";
import {render} from "./answers.js";
import {watch} from "./live.js";
import {why} from "./why.js";

const facts = JSON.parse(document.getElementById("facts").textContent);
const form = document.getElementById("form");
const fieldsPlace = document.getElementById("fields");
const answerPlace = document.getElementById("answer");
const said = document.getElementById("said");
const signatureChoice = document.getElementById("signature");
const versionChoice = document.getElementById("version");
const besideChoice = document.getElementById("beside");
let fields = [];
let asked = 0; // how often: an answer that comes after the next question is nobody's

function signature() {
  return facts.signatures.find((each) => each.name === signatureChoice.value);
}

function build() {
  asked++; // what is asked already is an answer to another signature
  said.textContent = "";
  const pixels = facts.signatures.find((each) => each.name === "serving_default");
  fields = signature().inputs.map((spec) => {
    const seen = pixels?.inputs.find((each) => each.name === spec.name)?.shape ?? spec.shape;
    return field(spec, spec.dtype === "string" && !seen ? null : seen, pictureChanged);
  });
  fieldsPlace.replaceChildren(...fields.map((each) => each.element));
  document.getElementById("samples")?.toggleAttribute("hidden", !fields.some((each) => each.picture));
}

/** A picture is asked about at once where it is all that the model wants. */
function pictureChanged() {
  if (fields.length === 1) form.requestSubmit();
}

async function ask(event) {
  event.preventDefault();
  const turn = ++asked;
  said.textContent = "Asking …";
  said.className = "quiet";
  try {
    const inputs = Object.fromEntries(await Promise.all(fields.map(async (each) => [each.name, await each.rows()])));
    const wanted = [versionChoice.value, ...(besideChoice?.value ? [besideChoice.value] : [])];
    const answers = [];
    for (const version of wanted) answers.push(await predict(facts.model, version, signature(), inputs));
    if (turn === asked) show(answers, inputs);
  } catch (error) {
    if (turn !== asked) return;
    said.textContent = error.message;
    said.className = "bad";
  }
}

function show(answers, inputs) {
  const pictures = Object.fromEntries(fields.filter((each) => each.picture).map((each) => [each.name, each.canvases()]));
  const explaining = facts.explaining[signature().name];
  const question = {model: facts.model, inputs, explaining, labels: facts.labels};
  answerPlace.replaceChildren(...answers.map((each) => element("div", {},
    element("p", {class: "quiet"}, times(each)),
    ...render(each.outputs, signature().outputs, Object.values(pictures)[0] ?? [], facts.kinds),
    ...(explaining ? [why(question, each, pictures)] : []))));
  said.textContent = "";
  const lines = snippets(facts.model, versionChoice.value, signature(), fields, facts.grpc);
  document.getElementById("lines").replaceChildren(...Object.entries(lines).flatMap(([name, text]) => [
    element("div", {class: "row"}, element("h3", {}, name), copyButton(() => text)), element("pre", {tabindex: 0}, text)]));
  document.getElementById("repeat").hidden = false;
}

function times({version, times: {total, queue, model}}) {
  const parts = [`${total.toFixed(0)} ms in all`];
  if (model !== undefined) parts.push(`${queue.toFixed(1)} ms waiting`, `${model.toFixed(1)} ms in the model`);
  return `${version ? `Version ${version}: ` : ""}${parts.join(", ")}`;
}

/** A sample's files go to the inputs that they are named after, or to the only one. */
async function takeSample(button) {
  const files = JSON.parse(button.dataset.files);
  for (const [name, address] of Object.entries(files)) {
    const target = fields.find((each) => each.picture && (each.name === name || name === ""));
    const content = await (await fetch(address)).blob();
    await target?.take([new File([content], address.split("/").pop(), {type: "image/png"})]);
  }
  if (fields.length > 1) form.requestSubmit();
}

form.addEventListener("submit", ask);
signatureChoice.addEventListener("change", build);
for (const choice of [versionChoice, besideChoice]) {
  choice?.addEventListener("change", () => answerPlace.hasChildNodes() && form.requestSubmit());
}
for (const button of document.querySelectorAll("#samples button")) {
  button.addEventListener("click", () => takeSample(button));
}
document.addEventListener("paste", (event) => {
  const target = fields.find((each) => each.picture);
  if (target && event.clipboardData.files.length) target.take(event.clipboardData.files);
});
build();
const now = document.getElementById("now");
watch(facts.model, now, document.getElementById("now-shown"));
