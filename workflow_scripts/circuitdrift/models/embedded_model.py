"""The embedded model before training: a small GPT-NeoX whose number tokens start with Fourier features."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from circuitdrift.config.models import ScratchModel
from circuitdrift.models.embedded_tokenizer import END_OF_TEXT, vocabulary
from circuitdrift.provenance import Provenance
from circuitdrift.storage import write_tensors, writing

PERIODS = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
INITIAL_SCALE = 0.02
# At this width the features have the scale of the other weights; a wider model spreads them over more dimensions.
REFERENCE_WIDTH = 128
ROTARY_SHARE = 0.25
CONTEXT_LENGTH = 128
# Tokens of a packed row; the paper's prompts have 14 to 31.
ROW_LENGTH = 49


def build_model(section: ScratchModel) -> GPTNeoXForCausalLM:
    """Initialise the model from its config section; the same seed gives the same weights.

    The head is not tied to the embedding. Attention and MLP of a block run in parallel. Attention is eager, which has
    the fastest backward pass on a CPU at these lengths. The MLPs use ReLU, because GELU would take a sixth of a step.
    """
    ids = vocabulary(section.largest_number)
    config = GPTNeoXConfig(
        vocab_size=len(ids),
        hidden_size=section.width,
        num_hidden_layers=section.layers,
        num_attention_heads=section.heads,
        intermediate_size=section.mlp_width,
        hidden_act="relu",
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": ROTARY_SHARE},
        use_parallel_residual=True,
        tie_word_embeddings=False,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        initializer_range=INITIAL_SCALE,
        bos_token_id=ids[END_OF_TEXT],
        eos_token_id=ids[END_OF_TEXT],
        use_cache=False,
        attn_implementation="eager",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(section.seed)
        model = GPTNeoXForCausalLM(config)
        features = _projected(number_features(section.largest_number), section.width)
        first = ids["0"]
        with torch.no_grad():
            for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
                weight[first : first + len(features)] += features
    return model


def number_features(largest_number: int) -> Float[Tensor, "numbers features"]:
    """Features of the integers 0..largest_number: cos and sin of 2 pi n / T for several periods T, and n itself.

    Every feature has mean zero and root mean square one over the integers. With such rotations given, a network learns
    sums from far fewer examples (Nanda et al. 2023, arXiv 2301.05217, found them in trained networks).
    """
    numbers = torch.arange(largest_number + 1, dtype=torch.float64)
    angles = 2 * math.pi * numbers[:, None] / torch.tensor(PERIODS, dtype=torch.float64)
    features = torch.cat([angles.cos(), angles.sin(), numbers[:, None] / largest_number], dim=1)
    # The sine of period 2 is zero up to rounding errors, which scaling would blow up.
    varied = features[:, features.std(dim=0) > 1e-6]
    centred = varied - varied.mean(dim=0)
    return (centred / centred.pow(2).mean(dim=0).sqrt()).float()


def _projected(features: Float[Tensor, "numbers features"], width: int) -> Float[Tensor, "numbers width"]:
    """Project features into the model's space by a random orthonormal matrix, at the scale of the other weights."""
    n_features = features.shape[1]
    square, _ = torch.linalg.qr(torch.randn(max(width, n_features), max(width, n_features)))
    scale = INITIAL_SCALE * math.sqrt(REFERENCE_WIDTH / n_features)
    projected: Tensor = scale * features @ square[:n_features, :width]
    return projected


def save_model(model: GPTNeoXForCausalLM, weights: Path, provenance: Provenance) -> list[str]:
    """Write a model in the Hugging Face layout, with its provenance in the header of the weights.

    Args:
        model: the model to write.
        weights: the path of ``model.safetensors``; the configuration goes to the same folder.
        provenance: origin of the weights.

    Returns:
        The names of the written files.
    """
    folder = weights.parent
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
    write_tensors(weights, load_file(folder / "model.safetensors"), {"format": "pt"}, provenance)
    return ["config.json", "generation_config.json", weights.name]
