"use strict";

const MOST_ROWS = 100;
const REST = 80; // milliseconds

const named = (checkpoint) => (checkpoint ? `checkpoint ${checkpoint}` : "base model");
const percent = (share) => `${(100 * share).toFixed(1)} %`;

/* A run, or a circuit of a compositional task: the graph, the list of its edges, and the charts of the run. */
class Panel {
  constructor(study, element) {
    Object.assign(this, { study, element, picked: null, views: null });
    element.panel = this;
    this.part = (name) => element.querySelector(`.${name}`);
    const pick = (node) => this.pick(node === this.picked ? null : node);
    this.graph = new Graph(this.part("graph"), this.part("tip"), pick, (node, edge) => this.tell(node, edge));
    this.part("node").addEventListener("change", (event) => this.pick(event.target.value === "" ? null : Number(event.target.value)));
    this.part("edges").addEventListener("click", (event) => event.target.dataset.node && this.pick(Number(event.target.dataset.node)));
  }

  show(shown, checkpoint, against, filters) {
    if (shown.circuits[0].model !== this.comparison?.model) this.picked = null;
    const to = Math.min(checkpoint, shown.circuits.length - 1);
    this.comparison = shown.at(to, against);
    this.shown = filtered(this.comparison, filters);
    this.part("title").textContent = `${shown.group}: ${shown.label}`;
    this.part("note").hidden = this.part("charts").hidden = !shown.hasCharts;
    this.draw();
    delete this.element.dataset.settled;
    this.whenAtRest(async () => {
      this.list();
      if (shown.hasCharts) await this.showCharts(shown, to);
    });
  }

  /* Lists and charts follow once the slider rests and the picture is there, so that it moves freely. */
  whenAtRest(follow) {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.resting);
    this.frame = requestAnimationFrame(() => {
      const resting = (this.resting = setTimeout(async () => {
        await follow();
        if (resting === this.resting) this.element.dataset.settled = "yes";
      }, REST));
    });
  }

  pick(node) {
    this.picked = node;
    this.draw();
    this.list();
  }

  draw() {
    this.graph.show(this.comparison, this.shown, this.picked);
    this.summarise();
  }

  list() {
    this.listNodes();
    this.listEdges();
  }

  summarise() {
    const { edges, nodes, statuses, word, headline, remark } = this.comparison;
    const counted = (found) => {
      const counts = countBy(statuses, found);
      return statuses.filter((s) => counts[s] || !DASHED.has(s)).map((s) => [s, `${counts[s]} ${word(s)}`]);
    };
    const { drawn, passing, share } = this.shown;
    const keys = counted(edges.map((edge) => edge.status)).flatMap(([s, text]) => [", ", spanOf(`key ${s}`, text)]);
    const most = `the ${drawn.length} strongest of ${passing.length} edges that pass the filters, with ${percent(share)} of their |score|`;
    const picture = drawn.length === passing.length ? `all ${drawn.length} edges that pass the filters` : most;
    this.part("counts").replaceChildren(
      ...[`${headline}: edges `, ...keys.slice(1), `; nodes ${counted(nodes).map(([, text]) => text).join(", ")}. `],
      spanOf("drawn", `Drawn: ${picture}.`),
    );
    this.part("certainty").textContent = remark;
  }

  listNodes() {
    const { model, nodes, word } = this.comparison;
    const options = model.nodes.map((node, at) => (nodes[at] === "absent" && at !== this.picked ? null : new Option(`${node.node} (${word(nodes[at])})`, at)));
    this.part("node").replaceChildren(new Option("none", ""), ...options.filter(Boolean));
    this.part("node").value = this.picked ?? "";
  }

  listEdges() {
    const { model, columns } = this.comparison;
    const ofNode = (edge) => edge.source === this.picked || edge.target === this.picked;
    const edges = this.picked === null ? this.shown.drawn : this.shown.passing.filter(ofNode);
    const name = this.picked === null ? null : model.nodes[this.picked].node;
    const ins = edges.filter((edge) => edge.target === this.picked).length;
    const rows = edges.slice(0, MOST_ROWS);
    this.part("edges caption".replace(" ", " > ")).textContent =
      (name ? `${name}: ${ins} in-edges, ${edges.length - ins} out-edges that pass the filters` : "Edges drawn") +
      (rows.length < edges.length ? `; the strongest ${rows.length} of ${edges.length}` : "");
    this.part("edges > thead").replaceChildren(rowOf("th", columns));
    this.part("edges > tbody").replaceChildren(...rows.map((edge) => this.rowOfEdge(edge)));
  }

  rowOfEdge(edge) {
    const ends = document.createElement("span");
    ends.append(this.link(edge.source), " → ", this.link(edge.target), edge.input && ` ${edge.input}`);
    const row = rowOf("td", [ends, this.comparison.word(edge.status), ...this.comparison.cells(edge)]);
    row.className = edge.status;
    return row;
  }

  link(node) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: this.comparison.model.nodes[node].node });
    button.dataset.node = node;
    return button;
  }

  /* What the pointer shows of a node or an edge. */
  tell(node, edge) {
    const { model, nodes, edges, word, lines } = this.comparison;
    if (edge === null) {
      const [ins, outs] = ["target", "source"].map((end) => edges.filter((other) => other[end] === node).length);
      return `${model.nodes[node].node}: ${word(nodes[node])}\n${ins} in-edges, ${outs} out-edges`;
    }
    const name = `${model.nodes[edge.source].node} → ${model.nodes[edge.target].node} ${edge.input}`.trim();
    return [`${name}: ${word(edge.status)}`, ...lines(edge)].join("\n");
  }

  async showCharts(run, checkpoint) {
    if (!this.views) [this.views, this.charted] = [this.makeViews(run), run];
    const views = await this.views;
    for (const [name, { view }] of Object.entries(views)) {
      const table = this.study.table_of[name];
      if (this.charted !== run) view.data(table, this.rowsOf(table, run));
      view.signal("picked_method", run.method).signal("picked_checkpoint", checkpoint);
    }
    this.charted = run;
    await Promise.all(Object.values(views).map(({ view }) => view.runAsync()));
  }

  rowsOf(table, run) {
    const same = (row) => row.model === run.model && row.task === run.task && row.seed === run.seed;
    return this.study.tables[table].filter((row) => same(row) && (table === "accuracy" || row.method === run.method));
  }

  async makeViews(run) {
    const settings = { actions: false, renderer: "svg", config: chartColours(), logLevel: 1 }; // errors: an empty chart is none
    const made = Object.entries(this.study.charts).map(async ([name, chart]) => {
      const place = document.createElement("div");
      this.part("charts").append(place);
      const table = this.study.table_of[name];
      return [name, await vegaEmbed(place, { ...chart, datasets: { ...chart.datasets, [table]: this.rowsOf(table, run) } }, settings)];
    });
    return Object.fromEntries(await Promise.all(made));
  }

  /* Charts take their colours when they are made. */
  recolour() {
    this.part("charts").replaceChildren();
    this.views = null;
  }
}

function spanOf(className, textContent) {
  return Object.assign(document.createElement("span"), { className, textContent });
}

function rowOf(kind, contents) {
  const row = document.createElement("tr");
  for (const content of contents) {
    const cell = row.appendChild(document.createElement(kind));
    if (kind === "th") cell.scope = "col";
    cell.append(content);
  }
  return row;
}

function chartColours() {
  const style = getComputedStyle(document.documentElement);
  const [ink, muted, faint] = ["ink", "muted", "faint"].map((name) => style.getPropertyValue(`--${name}`).trim());
  const words = { labelColor: ink, titleColor: ink };
  return {
    background: "transparent",
    title: { color: ink, fontSize: 12 },
    axis: { ...words, gridColor: faint, domainColor: muted, tickColor: muted },
    legend: words,
  };
}
