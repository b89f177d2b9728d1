// The request behind an answer: sent, timed, and as lines to copy.

/** {outputs, version, times} of one signature; throws an Error with the gateway's own words. */
export async function predict(model, version, signature, inputs) {
  const began = performance.now();
  const path = `/v1/models/${encodeURIComponent(model)}${version ? `/versions/${version}` : ""}:predict`;
  const reply = await fetch(path, {
    method: "POST",
    headers: {"Content-Type": "application/json", "X-Sluice-Timing": "on"},
    body: JSON.stringify({signature_name: signature.name, inputs}),
  });
  const text = await reply.text();
  const total = performance.now() - began;
  if (!reply.ok) throw new Error(errorIn(text) || `${reply.status} ${reply.statusText}`);
  const answer = parsed(text).outputs;
  const names = signature.outputs.map((each) => each.name);
  return {
    outputs: names.length === 1 ? {[names[0]]: answer} : answer, // one output stands bare
    version: reply.headers.get("X-Sluice-Version"),
    times: {total, ...timesIn(reply.headers.get("Server-Timing"))},
  };
}

/** Of JSON in which NaN and Infinity may stand, as in TensorFlow Serving's. */
function parsed(text) {
  if (!/NaN|Infinity/.test(text)) return JSON.parse(text);
  const quoted = text.replace(/("(?:[^"\\]|\\.)*")|(-?Infinity|NaN)/g, (_, string, number) => string ?? `"\\u0000${number}"`);
  return JSON.parse(quoted, (_, value) => (typeof value === "string" && value[0] === "\0" ? Number(value.slice(1)) : value));
}

function errorIn(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return "";
  }
}

/** "queue;dur=1.5, model;dur=3" -> {queue: 1.5, model: 3}, milliseconds */
function timesIn(header) {
  return Object.fromEntries((header || "").split(",").filter(Boolean).map((part) => {
    const [name, duration] = part.trim().split(";dur=");
    return [name, Number(duration)];
  }));
}

/** The same request for a shell, for Python over HTTP and over gRPC. fields: those of inputs.js. */
export function snippets(model, version, signature, fields, grpcAddress) {
  const url = `${location.origin}/v1/models/${encodeURIComponent(model)}${version ? `/versions/${version}` : ""}:predict`;
  const options = [version ? `version=${version}` : "", `signature=${JSON.stringify(signature.name)}`].filter(Boolean).join(", ");
  const given = Object.fromEntries(fields.map((each) => [each.name, each.snippet()]));
  const python = (address) =>
    `from sluice import Client\n\nwith Client(${JSON.stringify(address)}) as client:\n` +
    `    answer = client.predict(${JSON.stringify(model)}, ${pythonInputs(fields, given)}, ${options})\n` +
    "    print(answer)";
  const lines = {curl: curl(url, signature, fields, given), Python: python(location.origin)};
  if (grpcAddress) lines["Python, gRPC"] = python(`grpc://${grpcAddress}`);
  return lines;
}

function curl(url, signature, fields, given) {
  if (!fields.some((each) => each.picture)) {
    return `curl -d ${quoted(JSON.stringify({signature_name: signature.name, inputs: given}))} \\\n     ${quoted(url)}`;
  }
  const parts = fields.map((each) => each.picture
    ? given[each.name].map((file) => `-F ${quoted(`${each.name}=@${file}`)}`).join(" ")
    : `-F ${quoted(`${each.name}=${JSON.stringify(given[each.name][0])}`)}`);
  return `curl ${parts.join(" ")} \\\n     ${quoted(`${url}?signature_name=${signature.name}`)}`;
}

function pythonInputs(fields, given) {
  const values = fields.map((each) => [JSON.stringify(each.name),
    each.picture && given[each.name].length === 1 ? JSON.stringify(given[each.name][0]) : JSON.stringify(given[each.name])]);
  return values.length === 1 && fields[0].picture ? values[0][1] : `{${values.map((pair) => pair.join(": ")).join(", ")}}`;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
