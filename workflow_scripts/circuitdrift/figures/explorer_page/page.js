"use strict";

/* The controls of the page: one set for the graphs, the lists and the charts of both panels. */
function start(study) {
  const control = (name) => document.getElementById(name);
  for (const run of study.runs) {
    const at = (to, against) => compare(run, against === "base" ? 0 : Math.max(0, to - 1), to);
    Object.assign(run, { changeNames: study.changes, hasCharts: true, at });
  }
  for (const composition of study.compositions) Object.assign(composition, { hasCharts: false, at: (to) => compose(composition, to) });
  study.listed = [...study.runs, ...study.compositions];
  const panels = ["first", "second"].map((name) => {
    const element = document.getElementById("panel").content.firstElementChild.cloneNode(true);
    element.id = name;
    control("panels").append(element);
    return new Panel(study, element);
  });
  fillRuns(control("run"), study);
  fillRuns(control("other"), study);
  control("other").prepend(new Option("none", ""));
  control("other").value = "";
  for (const [part, word] of Object.entries(partWords(study.steps))) control(`word_${part}`).textContent = word;
  for (const part of document.querySelectorAll(".of_steps")) part.hidden = !study.compositions.length;

  const shownRuns = () => [control("run"), control("other")].map((select) => study.listed[select.value]).filter(Boolean);

  const filters = () => ({
    row: control("layer").value === "" ? null : Number(control("layer").value),
    input: control("input").value,
    least: Number(control("least").value) || 0,
    size: control("size").value === "most" ? "most" : Number(control("size").value),
    held: Number(control("held").value),
    statuses: new Set([...STATUSES, ...PARTS].filter((status) => control(`show_${status}`).checked)),
  });

  function show() {
    const runs = shownRuns();
    const checkpoint = Number(control("checkpoint").value);
    control("at").textContent = named(checkpoint);
    control("checkpoint").setAttribute("aria-valuetext", named(checkpoint));
    panels.forEach((panel, at) => {
      panel.element.hidden = !runs[at];
      if (runs[at]) panel.show(runs[at], checkpoint, control("against").value, filters());
    });
    const [first, second] = panels.map((panel) => panel.comparison);
    const comparable = runs.length === 2 && first.model === second.model;
    control("shared").textContent = comparable ? sharedBy(runs, first, second) : "";
    const isSure = panels.some((panel, at) => runs[at] && panel.comparison.isSure);
    control("held").disabled = !isSure;
    control("against").disabled = !runs.some((run) => run.hasCharts);
  }

  function sharedBy(runs, first, second) {
    const at = (run, comparison) => run.circuits.find((circuit) => circuit.checkpoint === comparison.to);
    const { shared, either } = overlap(at(runs[0], first), at(runs[1], second));
    const index = either ? digits(shared / either) : "–";
    const checkpoints = [...new Set([named(first.to), named(second.to)])].join(" and ");
    return `The circuits at ${checkpoints} share ${shared} edges: Jaccard index ${index}, with q, k and v inputs apart.`;
  }

  /* The slider and the list of layers follow the runs. */
  function showRuns() {
    const runs = shownRuns();
    const last = Math.max(...runs.map((run) => run.circuits.length - 1));
    const wasLast = control("checkpoint").value === control("checkpoint").max;
    control("checkpoint").max = last;
    if (wasLast) control("checkpoint").value = last;
    fillLayers(control("layer"), runs[0].circuits[0].model);
    control("changes").hidden = !runs.some((run) => run.hasCharts);
    control("parts").hidden = runs.every((run) => run.hasCharts);
    document.body.classList.toggle("two", runs.length === 2);
    show();
    window.dispatchEvent(new Event("resize")); // Vega's charts are as wide as their panels
  }

  for (const form of [control("controls"), control("filters")]) {
    form.addEventListener("input", ({ target }) => target.matches("input") && show());
    form.addEventListener("change", ({ target }) => target.matches("#run, #other") ? showRuns() : target.matches("select") && show());
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    panels.forEach((panel) => panel.recolour());
    show();
  });
  control("checkpoint").max = 0;
  showRuns();
  document.body.dataset.ready = "yes";
}

function fillRuns(select, { listed }) {
  select.replaceChildren(...listed.map(({ group, label }, at) => new Option(`${group}: ${label}`, at)));
}

function leftOut({ runs: shown, left_out: runs, compositions_left_out: compositions }) {
  if (!shown.length && !runs) return "The study has no run with circuits.";
  const counts = [runs && `of ${runs} further runs`, compositions && `by step of ${compositions} runs`].filter(Boolean);
  return counts.length ? `The circuits ${counts.join(" and ")} are left out, to keep the page below 10 MB.` : "";
}

function fillLayers(select, model) {
  const names = new Map(model.nodes.map((node) => [node.row, NODE_LABELS[node.kind] ?? `layer ${node.layer}`]));
  const chosen = select.value;
  select.replaceChildren(new Option("all", ""), ...[...names].sort(([a], [b]) => a - b).map(([row, name]) => new Option(name, row)));
  select.value = names.has(Number(chosen)) ? chosen : "";
}

readStudy(document.getElementById("payload").textContent).then((study) => {
  document.getElementById("left_out").textContent = leftOut(study);
  if (study.runs.length) start(study);
});
