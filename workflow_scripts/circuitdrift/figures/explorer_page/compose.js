"use strict";

const PARTS = ["both", "first", "second", "neither"];

/* A circuit of a compositional task at a checkpoint, strongest edges first, by the sub-tasks' circuits that hold its edges. */
function compose(composition, at) {
  const circuit = composition.circuits[at];
  const model = circuit.model;
  const scores = scoresOf(circuit);
  const [first, second] = composition.parts.map((run) => scoresOf(run.circuits[at]));
  const edges = [];
  for (let edge = 0; edge < model.edges; edge++) {
    if (Number.isNaN(scores[edge])) continue;
    edges.push({
      source: model.sources[edge],
      target: model.targets[edge],
      input: INPUTS[model.inputs[edge]],
      score: scores[edge],
      ofParts: [first[edge], second[edge]],
      status: partOf(!Number.isNaN(first[edge]), !Number.isNaN(second[edge])),
      strength: Math.abs(scores[edge]),
    });
  }
  edges.sort((one, other) => other.strength - one.strength);
  const nodes = partsOfNodes(model, edges, [first, second]);
  return { model, edges, nodes, isSure: false, to: circuit.checkpoint, ...wordsOfParts(composition, circuit.checkpoint) };
}

function partOf(inFirst, inSecond) {
  return inFirst && inSecond ? "both" : inFirst ? "first" : inSecond ? "second" : "neither";
}

/* A node is in a circuit if an edge of the circuit touches it. */
function partsOfNodes(model, edges, parts) {
  const shown = new Set(edges.flatMap((edge) => [edge.source, edge.target]));
  const [first, second] = parts.map((scores) => {
    const touched = new Set();
    scores.forEach((score, edge) => Number.isNaN(score) || touched.add(model.sources[edge]).add(model.targets[edge]));
    return touched;
  });
  return model.nodes.map((_, node) => (shown.has(node) ? partOf(first.has(node), second.has(node)) : "absent"));
}

const partWords = ([one, other]) => ({ both: "of both steps", first: `of ${one} alone`, second: `of ${other} alone`, neither: "of neither" });

/* What a panel says of such a circuit. */
function wordsOfParts({ part_names: tasks, steps }, checkpoint) {
  const words = { ...partWords(steps), absent: "absent" };
  return {
    statuses: PARTS,
    word: (status) => words[status],
    headline: `At ${named(checkpoint)}`,
    remark: `By membership alone, in the circuits of ${tasks[0]} and ${tasks[1]} at this checkpoint. Grey nodes are in both. Charts are with the runs.`,
    columns: ["edge", "circuit", "score", ...steps.map((step) => `score in ${step}`)],
    cells: (edge) => [edge.score, ...edge.ofParts].map(digits),
    lines: (edge) => [`score ${digits(edge.score)}`, ...steps.map((step, at) => `in ${step} ${digits(edge.ofParts[at])}`)],
  };
}
