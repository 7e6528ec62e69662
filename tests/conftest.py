"""Puts the stage scripts and the library on the path, as Snakemake does for a script; one thread for each worker."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
