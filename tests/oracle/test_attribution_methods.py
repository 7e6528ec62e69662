"""Every attribution method, objective and ablation, and answers of several tokens, against the naive decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from naive_decoder import Carry, NaiveDecoder, naive_of, whole
from random_models import MODELS, POST_NORM_MODELS, ROUNDING, random_pairs
from torch import Tensor

from circuitdrift.circuits.ablation import ablated_activations, batches_for, run_circuits
from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.prompts import PromptPairs, pair_batches
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import anatomy_of
from circuitdrift.decoder.graph import Graph

every_model = pytest.mark.parametrize("name", [name for name in MODELS if name not in POST_NORM_MODELS])

Loss = Callable[[Tensor], Tensor]


def answered_pairs(n: int, longest_answer: int) -> PromptPairs:
    """Pairs whose answers have one to ``longest_answer`` tokens; corrupted answers are longer or shorter."""
    clean, corrupted = random_pairs(n)
    answers = [[(i + j) % 7 for j in range(1 + i % longest_answer)] for i in range(n)]
    others = [[(i + 2 * j + 3) % 7 for j in range(1 + (i + 1) % longest_answer)] for i in range(n)]
    return PromptPairs(clean, corrupted, answers, others)


def inputs_of(pairs: PromptPairs, i: int) -> tuple[list[int], list[int], list[int]]:
    """Clean and corrupted input of an example, both ending in the clean answer less its last token; the answer."""
    answer = list(pairs.answers[i])
    return [*pairs.clean[i], *answer[:-1]], [*pairs.corrupted[i], *answer[:-1]], answer


def naive_loss(objective: str, clean_logits: Tensor, answer: list[int], other: list[int]) -> Loss:
    def of_position(t: int, logits: Tensor) -> Tensor:
        if objective == "kl":
            p = clean_logits[t].softmax(-1)
            return (p * (p.log() - logits[t].softmax(-1).log())).sum()
        if objective == "answer_loss":
            return -logits[t].softmax(-1)[answer[t]].log()
        return logits[t, other[t]] - logits[t, answer[t]] if t < len(other) else 0 * logits[t, 0]

    return lambda logits: sum(of_position(t, logits) for t in range(len(answer)))


def all_logits(decoder: NaiveDecoder, ids: list[int], n: int, carry: Carry = whole, embeddings: Tensor | None = None):
    """Logits of the last n positions, each by a run of its own on the tokens up to it, and what writers wrote."""
    x = decoder.embedding[ids] if embeddings is None else embeddings
    runs = [decoder.run(x[: len(ids) - n + 1 + t], carry) for t in range(n)]
    return torch.stack([logits for logits, _ in runs]), runs[-1][1]


def gradients_at(decoder: NaiveDecoder, graph: Graph, x: Tensor, n: int, loss: Loss, carry: Carry) -> dict:
    """dL / d(what an edge carries), for every edge, at each position."""
    edges = [(graph.writers[u], graph.readers[v]) for u, v in graph.edge_mask.nonzero().tolist()]
    copies = {edge: torch.zeros_like(x, requires_grad=True) for edge in edges}

    def moved(u: str, v: str, z: Tensor) -> Tensor:
        return carry(u, v, z) + copies[u, v][: len(z)]

    logits = torch.stack([decoder.run(x[: len(x) - n + 1 + t], moved)[0] for t in range(n)])
    found = torch.autograd.grad(loss(logits), list(copies.values()), materialize_grads=True)
    return dict(zip(edges, found, strict=True))


def runs_of_method(method: str, steps: int, graph: Graph, x: Tensor, y: Tensor, z_x: dict, z_y: dict) -> Iterator:
    """Embeddings and carried activations of each run that a method takes gradients at; x clean, y corrupted."""
    if method in {"eap", "relp", "gim"}:
        yield x, whole
    elif method == "clean-corrupted":
        yield x, whole
        yield y, whole
    else:
        places = [["input"]]
        for layer in range(graph.n_layers):
            places += [[f"a{layer}.h{h}" for h in range(graph.n_heads)], [f"m{layer}"]]
        for place in places:
            for k in range(1, steps + 1):
                set_to = {u: z_y[u] + k / steps * (z_x[u] - z_y[u]) for u in place}

                def carry(u: str, v: str, z: Tensor, set_to=set_to) -> Tensor:
                    return set_to[u][: len(z)] if u in set_to else z

                yield x, carry


def naive_scores(decoder: NaiveDecoder, graph: Graph, pairs: PromptPairs, recipe: Attribution) -> Tensor:
    scores = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
    for i in range(len(pairs)):
        clean, corrupted, answer = inputs_of(pairs, i)
        n = len(answer)
        clean_logits, z_x = all_logits(decoder, clean, n)
        _, z_y = all_logits(decoder, corrupted, n)
        loss = naive_loss(recipe.objective, clean_logits, answer, list(pairs.corrupted_answers[i]))
        if recipe.attribution == "exact":
            for u, v in graph.edge_mask.nonzero().tolist():
                edge = (graph.writers[u], graph.readers[v])

                def carry(a: str, b: str, z: Tensor, edge=edge, z_y=z_y) -> Tensor:
                    return z_y[a][: len(z)] if (a, b) == edge else z

                scores[u, v] += loss(all_logits(decoder, clean, n, carry)[0]) - loss(clean_logits)
            continue
        runs = list(
            runs_of_method(
                recipe.attribution,
                recipe.steps,
                graph,
                decoder.embedding[clean],
                decoder.embedding[corrupted],
                z_x,
                z_y,
            )
        )
        for x, carry in runs:
            gradients = gradients_at(decoder, graph, x, n, loss, carry)
            for u, v in graph.edge_mask.nonzero().tolist():
                writer = graph.writers[u]
                gradient = gradients[writer, graph.readers[v]]
                scores[u, v] += ((z_y[writer] - z_x[writer]) * gradient).sum() / len(runs)
    return scores / len(pairs)


@every_model
@pytest.mark.parametrize(
    ("method", "objective", "longest_answer"),
    [
        ("eap", "logit_difference", 1),
        ("eap", "answer_loss", 3),
        ("clean-corrupted", "kl", 2),
        ("eap-ig-activations", "kl", 1),
        ("eap-ig-activations", "logit_difference", 2),
        ("exact", "kl", 1),
        ("exact", "logit_difference", 2),
    ],
)
def test_scores(name: str, method: str, objective: str, longest_answer: int) -> None:
    model, pairs = MODELS[name](), answered_pairs(3, longest_answer)
    anatomy, decoder = anatomy_of(model), naive_of(model)
    recipe = Attribution(attribution=method, objective=objective, steps=2)
    found = score_edges(anatomy, pairs, recipe, 2).scores.double()
    expected = naive_scores(decoder, anatomy.graph, pairs, recipe)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=10 * ROUNDING, atol=10 * ROUNDING * expected.abs().max().item())


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name not in POST_NORM_MODELS and ("untied" in name or "tied" not in name)]
)
def test_exact_and_gradient_scores_agree_where_differences_are_small(name: str) -> None:
    """To first order in the difference of the two prompts' embeddings, a score is the change under patching.

    Tied embeddings cannot be moved together without changing the head, so models with them are left out.
    """
    model, pairs = MODELS[name](), answered_pairs(2, 1)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.copy_(table.mean(dim=0) + 1e-4 * (table - table.mean(dim=0)))
    anatomy = anatomy_of(model)
    exact, slope = (
        score_edges(anatomy, pairs, Attribution(attribution=method, objective="logit_difference"), 2).scores
        for method in ("exact", "eap")
    )
    assert (exact - slope).abs().max() < 1e-2 * slope.abs().max()


def naive_conductance(decoder: NaiveDecoder, graph: Graph, pairs: PromptPairs, recipe: Attribution) -> Tensor:
    """Step by step from corrupted to clean: what each writer's output changes by, times the gradient in this step."""
    m = recipe.steps
    offset = {"right": 1.0, "left": 0.0, "midpoint": 0.5}[recipe.quadrature]
    scores = torch.zeros(graph.edge_mask.shape, dtype=torch.float64)
    for i in range(len(pairs)):
        clean, corrupted, answer = inputs_of(pairs, i)
        x, y, n = decoder.embedding[clean], decoder.embedding[corrupted], len(answer)
        loss = naive_loss(recipe.objective, all_logits(decoder, clean, n)[0], answer, list(pairs.corrupted_answers[i]))
        points = [y + (k + offset) / m * (x - y) for k in range(m)]
        ends = [decoder.run(y + k / m * (x - y), whole)[1] for k in range(m + 1)]
        if recipe.quadrature == "midpoint":
            at = [decoder.run(point, whole)[1] for point in points]
            inner = [{u: (at[k - 1][u] + at[k][u]) / 2 for u in graph.writers} for k in range(1, m)]
            ends = [ends[0], *inner, ends[m]]
        for k in range(m):
            gradients = gradients_at(decoder, graph, points[k], n, loss, whole)
            for u, v in graph.edge_mask.nonzero().tolist():
                writer, reader = graph.writers[u], graph.readers[v]
                scores[u, v] += ((ends[k][writer] - ends[k + 1][writer]) * gradients[writer, reader]).sum()
    return scores / len(pairs)


@every_model
@pytest.mark.parametrize(
    ("quadrature", "objective", "longest_answer"),
    [("right", "kl", 1), ("left", "kl", 2), ("midpoint", "kl", 1), ("right", "logit_difference", 2)],
)
def test_conductance(name: str, quadrature: str, objective: str, longest_answer: int) -> None:
    model, pairs = MODELS[name](), answered_pairs(3, longest_answer)
    anatomy, decoder = anatomy_of(model), naive_of(model)
    recipe = Attribution(attribution="ceap", objective=objective, steps=3, quadrature=quadrature)
    found = score_edges(anatomy, pairs, recipe, 2).scores.double()
    expected = naive_conductance(decoder, anatomy.graph, pairs, recipe)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=10 * ROUNDING, atol=10 * ROUNDING * expected.abs().max().item())


@every_model
def test_conductance_is_complete_at_every_cut_of_the_graph(name: str) -> None:
    """The edges across any cut add up to the objective's change from clean to corrupted, where it is zero at clean.

    What the writers before a cut write adds up to the residual stream there, and the gradients of all readers after
    it to the gradient by this stream. EAP-IG has this at the cut behind ``input`` alone.
    """
    anatomy, pairs = anatomy_of(MODELS[name]()), answered_pairs(2, 1)
    graph, decoder = anatomy.graph, naive_of(MODELS[name]())
    recipe = Attribution(attribution="ceap", steps=1000, quadrature="midpoint")
    found = score_edges(anatomy, pairs, recipe, 2).scores
    change = 0.0
    for i in range(len(pairs)):
        clean, corrupted, answer = inputs_of(pairs, i)
        loss = naive_loss("kl", all_logits(decoder, clean, 1)[0], answer, [])
        change += loss(all_logits(decoder, corrupted, 1)[0]).item() / len(pairs)
    cuts = [(graph.n_writers, graph.n_readers - 1)]
    for layer in range(graph.n_layers):
        cuts.append((graph.n_writers_before_heads(layer), graph.head_readers(layer).start))
        if not graph.parallel:
            cuts.append((graph.n_writers_before_mlp(layer), graph.mlp_reader(layer)))
    for writers, first_reader in cuts:
        assert found[:writers, first_reader:].sum().item() == pytest.approx(change, rel=0.01)


@every_model
@pytest.mark.parametrize("quadrature", ["right", "left", "midpoint"])
def test_conductance_out_of_input_is_that_of_integrated_gradients(name: str, quadrature: str) -> None:
    """The output of ``input`` moves along the path by equal steps, so the mean gradient takes the whole difference."""
    anatomy, pairs = anatomy_of(MODELS[name]()), answered_pairs(3, 1)
    conductance, integrated = (
        score_edges(anatomy, pairs, Attribution(attribution=method, steps=4, quadrature=quadrature), 2).scores
        for method in ("ceap", "eap-ig-inputs")
    )
    torch.testing.assert_close(conductance[0], integrated[0], rtol=1e-4, atol=1e-4 * integrated.abs().max().item())
    assert (conductance[1:] - integrated[1:]).abs().max() > 1e-2 * integrated.abs().max()


def test_random_scores_depend_on_their_draw_alone() -> None:
    anatomy, pairs = anatomy_of(MODELS["llama grouped"]()), answered_pairs(2, 1)
    recipe = Attribution(attribution="random")
    first, again, other = (score_edges(anatomy, pairs, recipe, 2, draw).scores for draw in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first != 0, anatomy.graph.edge_mask)


def naive_ablated(decoder: NaiveDecoder, pairs: PromptPairs, ablation: str) -> dict[str, Tensor]:
    """What each writer's activation is replaced by: zero, or its mean over all tokens of all clean inputs."""
    written: dict[str, list[Tensor]] = {}
    for i in range(len(pairs)):
        for writer, z in decoder.run(decoder.embedding[inputs_of(pairs, i)[0]], whole)[1].items():
            written.setdefault(writer, []).append(z)
    means = {writer: torch.cat(parts).mean(dim=0) for writer, parts in written.items()}
    return means if ablation == "mean" else {writer: torch.zeros_like(mean) for writer, mean in means.items()}


@every_model
@pytest.mark.parametrize("ablation", ["patching", "mean", "zero"])
def test_circuit_runs(name: str, ablation: str) -> None:
    model, pairs = MODELS[name](), answered_pairs(5, 2)
    anatomy, decoder = anatomy_of(model), naive_of(model)
    graph = anatomy.graph
    generator = torch.Generator().manual_seed(3)
    random = [torch.rand(graph.edge_mask.shape, generator=generator) < share for share in (0.3, 0.8)]
    circuits = torch.stack([graph.edge_mask & kept for kept in random] + [torch.zeros_like(graph.edge_mask)])
    batches = batches_for(ablation, pair_batches(pairs, 2, anatomy.device))
    ablated = ablated_activations(anatomy, batches, ablation)
    constants = naive_ablated(decoder, pairs, ablation)
    for batch in batches:
        runs = run_circuits(anatomy, batch, circuits, ablated, at_once=2)
        torch.testing.assert_close(runs.ablated, runs.circuits[-1], rtol=ROUNDING, atol=ROUNDING)
        for row, i in enumerate(batch.indices):
            clean, corrupted, answer = inputs_of(pairs, i)
            _, z_y = decoder.run(decoder.embedding[corrupted], whole)
            instead = z_y if ablation == "patching" else {u: m.expand_as(z_y[u]) for u, m in constants.items()}
            for circuit, logits in zip(circuits, runs.circuits, strict=True):
                kept = {(graph.writers[u], graph.readers[v]) for u, v in circuit.nonzero().tolist()}

                def carry(u: str, v: str, z: Tensor, kept=kept, instead=instead) -> Tensor:
                    return z if (u, v) in kept else instead[u][: len(z)]

                expected, _ = all_logits(decoder, clean, len(answer), carry)
                torch.testing.assert_close(logits[row], expected, rtol=10 * ROUNDING, atol=10 * ROUNDING)
