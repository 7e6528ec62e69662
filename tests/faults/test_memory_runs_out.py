"""Memory that really runs out while edges are scored: the kernel grants a process no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from small_study import ROOT

pytestmark = pytest.mark.faults

SCORING = """
import logging, re, resource, sys
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from circuitdrift.circuits.attribution import score_edges
from circuitdrift.circuits.memory import bytes_to_score, largest_pair
from circuitdrift.circuits.prompts import PromptPairs
from circuitdrift.config.circuits import Attribution
from circuitdrift.decoder.anatomy import anatomy_of

logging.basicConfig(level=logging.WARNING, format="%(message)s")
EXAMPLES, LENGTH, VOCABULARY = 32, 60, 4000
torch.manual_seed(0)
sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 512}
model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCABULARY, attn_implementation="eager", **sizes)).eval()
anatomy = anatomy_of(model)
clean = torch.randint(VOCABULARY, (EXAMPLES, LENGTH)).tolist()
corrupted = [[(ids[0] + 1) % VOCABULARY, *ids[1:]] for ids in clean]
pairs = PromptPairs(clean, corrupted, [[1]] * EXAMPLES, [[2]] * EXAMPLES)
recipe = Attribution()
expected = score_edges(anatomy, pairs, recipe, 1).scores
needed = EXAMPLES * bytes_to_score(anatomy, largest_pair(anatomy, pairs), recipe)
used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
limit = used + int(needed * float(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
found = score_edges(anatomy, pairs, recipe, EXAMPLES).scores
print("largest difference", float((found - expected).abs().max() / expected.abs().max()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process is read from /proc")
def test_scoring_goes_on_with_smaller_batches() -> None:
    """A sixteenth of what the batch may need; a single example fits into what is there already."""
    folders = [str(ROOT / "workflow_scripts"), str(ROOT / "tests" / "oracle")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCORING, "0.0625"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "memory ran out with 32 examples at once" in done.stderr
    assert "going on with 16" in done.stderr
    difference = re.search(r"largest difference (\S+)", done.stdout)
    assert difference is not None
    assert float(difference[1]) < 1e-6
