"use strict";

const INPUTS = ["", "q", "k", "v"];

/* Reads what figures/explorer_payload.py writes. */
async function readStudy(text) {
  const letters = atob(text.trim());
  const packed = new Uint8Array(letters.length);
  for (let at = 0; at < packed.length; at++) packed[at] = letters.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const start = 4 + new DataView(bytes.buffer).getUint32(0, true);
  const study = JSON.parse(new TextDecoder().decode(bytes.subarray(4, start)));
  const section = (name) => {
    const place = study.sections[name];
    const from = start + place.start;
    const low = bytes.subarray(from, from + place.length);
    if (place.bytes === 1) return low;
    const numbers = new Uint16Array(place.length);
    for (let at = 0; at < place.length; at++) numbers[at] = low[at] + 256 * bytes[from + place.length + at];
    return numbers;
  };
  study.models.forEach((model, place) => readModel(model, place, section));
  placeCircuits(study, section("scores"));
  readCertainty(study, section);
  for (const composition of study.compositions) {
    composition.circuits = composition.circuits.map((place) => study.circuits[place]);
    composition.steps = study.steps;
    composition.parts = composition.parts.map((place) => study.runs[place]);
  }
  study.tables = Object.fromEntries(Object.entries(study.tables).map(([name, table]) => [name, rowsOf(table)]));
  return study;
}

function readModel(model, place, section) {
  model.nodes = rowsOf(model.nodes);
  for (const node of model.nodes) node.row = Math.floor(node.y);
  model.rows = Math.max(...model.nodes.map((node) => node.row)) + 1;
  for (const name of ["sources", "targets", "inputs", "members"]) model[name] = section(`${name}_${place}`);
  model.width = Math.ceil(model.edges / 8);
  // Each row of bits was stored as its difference from the row before.
  for (let byte = model.width; byte < model.members.length; byte++) model.members[byte] ^= model.members[byte - model.width];
}

function placeCircuits(study, scores) {
  const rows = study.models.map(() => 0);
  let at = 0;
  for (const circuit of study.circuits) {
    circuit.members = rows[circuit.model]++ * study.models[circuit.model].width;
    circuit.codes = scores.subarray(at, (at += circuit.kept));
    circuit.model = study.models[circuit.model];
  }
}

function readCertainty(study, section) {
  const names = ["included_before", "included_after", "effect", "effect_lower", "effect_upper", "q_value"];
  const columns = Object.fromEntries(names.map((name) => [name, section(name)]));
  const change = section("change");
  let at = 0;
  for (const run of study.runs) {
    run.circuits = run.circuits.map((place) => study.circuits[place]);
    const first = at;
    run.change = (edge) => study.changes[change[first + edge]];
    run.certainty = (name, edge) => numberOf(columns[name][first + edge]);
    at += run.changes;
  }
}

function rowsOf(table) {
  const names = Object.keys(table);
  return (table[names[0]] ?? []).map((_, at) => Object.fromEntries(names.map((name) => [name, table[name][at]])));
}

/* A number of three digits from its two bytes. */
function numberOf(code) {
  const rest = code & 0x7fff;
  if (rest === 0x7fff) return NaN;
  if (rest === 0) return 0;
  const size = (((rest - 1) % 900) + 100) * 10 ** (Math.floor((rest - 1) / 900) - 27);
  return code & 0x8000 ? -size : size;
}

/* The score of each edge of the model in a circuit; NaN outside it. Kept, because a reader moves back and forth. */
function scoresOf(circuit) {
  if (circuit.scores) return circuit.scores;
  const { members, edges } = circuit.model;
  const scores = new Float32Array(edges).fill(NaN);
  let at = 0;
  for (let edge = 0; edge < edges; edge++) {
    if ((members[circuit.members + (edge >> 3)] >> (edge & 7)) & 1) scores[edge] = numberOf(circuit.codes[at++]);
  }
  return (circuit.scores = scores);
}

function digits(number) {
  if (Number.isNaN(number)) return "–";
  if (number === 0) return "0";
  const size = Math.abs(number);
  return size >= 1e-3 && size < 999.5 ? number.toPrecision(3) : number.toExponential(2);
}
