"""Two GPUs, pretended: SLURM gives each job one that no other job has, however the job asks for it."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from slurm_calls import HERE, ON_ONE_MACHINE, call_snakemake, needs_slurm

pytestmark = [
    needs_slurm,
    pytest.mark.skipif(os.environ.get("NODE_GPUS") != "2", reason="the cluster was started without NODE_GPUS=2"),
]
WANTED = ("gpu/1.txt", "gpu/2.txt", "gres/1.txt", "gres/2.txt")


def test_jobs_share_two_gpus_without_clash(tmp_path):
    run = call_snakemake(HERE / "jobs.smk", tmp_path, *ON_ONE_MACHINE, *WANTED)
    assert run.status == 0, run.output[-3000:]
    jobs = [(tmp_path / name).read_text().split() for name in WANTED]
    times = {"0": [], "1": []}
    for begin, card, end in jobs:
        times[card].append((float(begin), float(end)))
    for card in times.values():
        assert card, "a card was never used"
        assert all(end <= begin for (_, end), (begin, _) in pairwise(sorted(card)))
