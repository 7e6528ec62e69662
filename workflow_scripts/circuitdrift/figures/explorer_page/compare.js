"use strict";

const MOST_DRAWN = 500; // more is a haze
const STATUSES = ["kept", "gained", "lost", "undecided"];

/* The edges of two circuits of a run, strongest first. Certainty is known from the base model to the last checkpoint alone. */
function compare(run, from, to) {
  const [first, second] = [run.circuits[from], run.circuits[to]];
  const model = first.model;
  const [before, after] = [scoresOf(first), scoresOf(second)];
  const isSure = from === 0 && to > 0 && to === run.circuits.length - 1;
  const edges = [];
  for (let edge = 0; edge < model.edges; edge++) {
    const [inBefore, inAfter] = [!Number.isNaN(before[edge]), !Number.isNaN(after[edge])];
    if (!inBefore && !inAfter) continue;
    const place = edges.length;
    const change = isSure ? run.change(place) : inBefore && inAfter ? "kept" : inAfter ? "gained" : "lost";
    edges.push({
      source: model.sources[edge],
      target: model.targets[edge],
      input: INPUTS[model.inputs[edge]],
      before: before[edge],
      after: after[edge],
      status: STATUSES.includes(change) ? change : "undecided",
      strength: Math.max(inBefore ? Math.abs(before[edge]) : 0, inAfter ? Math.abs(after[edge]) : 0),
      held: isSure ? Math.max(run.certainty("included_before", place), run.certainty("included_after", place)) : NaN,
      place,
    });
  }
  const nodes = nodeStatuses(run, edges, isSure);
  edges.sort((one, other) => other.strength - one.strength);
  return { model, edges, nodes, isSure, to: second.checkpoint, ...wordsOfChanges(run, first.checkpoint, second.checkpoint, isSure) };
}

/* What a panel says of such a comparison. */
function wordsOfChanges(run, from, to, isSure) {
  const certaintyOf = ({ place }) => {
    const found = (name) => digits(run.certainty(name, place));
    return [
      `${found("included_before")} → ${found("included_after")}`,
      `${found("effect")} [${found("effect_lower")}, ${found("effect_upper")}]`,
      found("q_value"),
    ];
  };
  const certain = (edge) => {
    const [held, effect, q] = certaintyOf(edge);
    return [`in resampled circuits ${held}`, `effect ${effect} cut-offs (95 % interval)`, `q = ${q}`];
  };
  return {
    statuses: STATUSES,
    word: (status) => status,
    headline: `From ${named(from)} to ${named(to)}`,
    remark: isSure
      ? "Judged by circuits of resampled prompts. Gained: in fewer than 5 % of them before, in more than 95 % after. Undecided: the prompts do not tell."
      : "By membership in the two circuits alone. Certainty is known from the base model to the last checkpoint only.",
    columns: ["edge", "change", "score before", "score after", ...(isSure ? ["in resamples", "effect [95 %]", "q"] : [])],
    cells: (edge) => [digits(edge.before), digits(edge.after), ...(isSure ? certaintyOf(edge) : [])],
    lines: (edge) => [`score ${digits(edge.before)} → ${digits(edge.after)} nats`, ...(isSure ? certain(edge) : [])],
  };
}

function nodeStatuses(run, edges, isSure) {
  const model = run.circuits[0].model;
  const [before, after] = [new Set(), new Set()];
  for (const edge of edges) {
    if (!Number.isNaN(edge.before)) before.add(edge.source).add(edge.target);
    if (!Number.isNaN(edge.after)) after.add(edge.source).add(edge.target);
  }
  return model.nodes.map((_, node) => {
    if (!before.has(node) && !after.has(node)) return "absent";
    if (isSure) {
      const change = run.changeNames[run.node_changes[node]];
      return STATUSES.includes(change) ? change : "undecided";
    }
    return before.has(node) && after.has(node) ? "kept" : after.has(node) ? "gained" : "lost";
  });
}

/* The edges that pass the filters, strongest first, and how many of them are drawn; these carry `share` of their |score|. */
function filtered(comparison, filters) {
  const { nodes } = comparison.model;
  const passing = comparison.edges.filter(
    (edge) =>
      filters.statuses.has(edge.status) &&
      edge.strength >= filters.least &&
      (filters.row === null || nodes[edge.source].row === filters.row || nodes[edge.target].row === filters.row) &&
      (filters.input === "all" || edge.input === (filters.input === "other" ? "" : filters.input)) &&
      (!comparison.isSure || edge.held >= filters.held),
  );
  const most = filters.size === "most" ? MOST_DRAWN : Math.ceil(passing.length * filters.size);
  const drawn = passing.slice(0, most);
  const total = sizeOf(passing);
  return { passing, drawn, share: total ? sizeOf(drawn) / total : 0 };
}

const sizeOf = (edges) => edges.reduce((sum, edge) => sum + edge.strength, 0);

function countBy(statuses, found) {
  const counts = Object.fromEntries(statuses.map((status) => [status, 0]));
  for (const status of found) if (status in counts) counts[status]++;
  return counts;
}

/* How many edges two circuits of one model share; q, k and v inputs are apart. */
function overlap(one, other) {
  const [a, b] = [scoresOf(one), scoresOf(other)];
  let [shared, either] = [0, 0];
  for (let edge = 0; edge < one.model.edges; edge++) {
    const [inA, inB] = [!Number.isNaN(a[edge]), !Number.isNaN(b[edge])];
    shared += inA && inB;
    either += inA || inB;
  }
  return { shared, either };
}
