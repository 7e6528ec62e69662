"""Continuing a killed run: it ends in the same bytes (on CPU) as an uninterrupted run.

Beside its outputs a run keeps a folder that the workflow does not declare, because Snakemake deletes the declared
outputs of a failed job::

    .resume/checkpoints/00/ ...           the checkpoints taken so far (hard links to the outputs, where possible)
    .resume/step-00000120/state.safetensors, state.json

A state is written at each checkpoint and every ten minutes, whole or not at all, and the last two states are kept. A
state names the sha256 of all files that it needs. A truncated or changed state is reported, and the state before it is
taken. States of other settings, code, data or packages are not used. When the run ends, the folder is removed.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from circuitdrift.provenance import Provenance, digest_of_config
from circuitdrift.storage import StorageError, read_json, read_tensors, write_json, write_tensors
from circuitdrift.training.folders import copy_folder, digest_of_file, digests_of, remove_folder, write_folder
from circuitdrift.training.history import History
from circuitdrift.training.processes import ALONE, Processes
from circuitdrift.training.sharding import gathered
from circuitdrift.training.state import StateError, TrainingState

logger = logging.getLogger(__name__)

STATES_KEPT = 2
SECONDS_BETWEEN_STATES = 600.0
TENSORS, VALUES = "state.safetensors", "state.json"
NO_STATE = -1
"""The step that stands for no state."""


def identity_of_run(origin: Provenance, settings: Mapping[str, Any], inputs: Sequence[Path | None]) -> dict[str, str]:
    """Digests of everything that determines a run's results, by kind: a state belongs to the run if all are equal.

    Args:
        origin: holds the digest of the code, the seed, the device and the versions of the packages.
        settings: the config sections of the run.
        inputs: files that the run reads; None for a file that its method does not need.
    """
    return {
        "settings": digest_of_config({**settings, "seed": origin.seed}),
        "code": origin.code_digest,
        "inputs": digest_of_config([path and digest_of_file(path) for path in inputs]),
        "packages": digest_of_config({**origin.packages, "python": platform.python_version()}),
        "device": f"{origin.device} {origin.dtype}",
    }


class ResumeFolder:
    """The folder of one run's states."""

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, str],
        checkpoints: Sequence[Path],
        provenance: Provenance,
        processes: Processes = ALONE,
    ) -> None:
        """Take note of the folder without reading or writing it.

        Args:
            folder: the folder, which need not exist.
            identity: digests from :func:`identity_of_run`; states of another identity are not used.
            checkpoints: the run's checkpoint folders in order, which are its outputs.
            provenance: written into the headers of states.
            processes: the processes that train together; all call each method, and process 0 alone writes.
        """
        self.folder = folder
        self.identity = dict(identity)
        self.checkpoints = tuple(checkpoints)
        self.provenance = provenance
        self.processes = processes
        self._kept: dict[str, str] = {}
        self._last_saved = time.monotonic()

    def restore(self, state: TrainingState) -> History:
        """Set a run to the newest usable state and put its checkpoints back in place.

        Process 0 finds and verifies the state, and the others read the same state.

        Returns:
            The history of the run up to that state; an empty history for an unchanged run if no state is usable.
        """
        history = self._restore(state) if self.processes.is_first else History()
        step = self.processes.value_of_first(history.step if history.scores else NO_STATE)
        if self.processes.is_first or step == NO_STATE:
            return history
        return self._load(state, self._state_folder(step), read_json(self._state_folder(step) / VALUES)["content"])

    def _restore(self, state: TrainingState) -> History:
        for folder in reversed(self._states()):
            try:
                content = self._read_verified(folder)
            except StorageError as error:
                logger.warning("%s; taking the state before it, or starting again", error)
                remove_folder(folder)
                continue
            if differing := self._differing(content["identity"]):
                logger.info("%s belongs to a run with other %s, so starting again", folder, ", ".join(differing))
                break
            try:
                history = self._load(state, folder, content)
            except StateError as error:
                logger.warning("%s does not fit the model: %s; starting again", folder, error)
                break
            for output in self.checkpoints[: len(history.scores)]:
                copy_folder(self._kept_folder(output), output)
            self._kept = {name: digest for name, digest in content["files"].items() if name.startswith("checkpoints/")}
            logger.info("continuing after step %d from %s", history.step, folder)
            return history
        self.remove()
        return History()

    @staticmethod
    def _load(state: TrainingState, folder: Path, content: dict[str, Any]) -> History:
        """Set a run to a verified state.

        Raises:
            StateError: the state does not fit the model.
        """
        state.load(read_tensors(folder / TENSORS)[0], content["values"])
        return History.from_json(content["history"])

    def is_due(self) -> bool:
        """Whether the last state is so old that another is due between checkpoints."""
        is_due = time.monotonic() - self._last_saved >= SECONDS_BETWEEN_STATES
        return bool(self.processes.value_of_first(int(is_due)))

    def save(self, state: TrainingState, history: History) -> None:
        """Keep the checkpoints saved so far and write the state after the history's last step."""
        tensors = gathered(state.tensors(), self.processes)
        if not self.processes.is_first:
            return
        for output in self.checkpoints[: len(history.scores)]:
            if not any(name.startswith(f"checkpoints/{output.name}/") for name in self._kept):
                kept = self._kept_folder(output)
                copy_folder(output, kept)
                self._kept |= {f"checkpoints/{output.name}/{name}": found for name, found in digests_of(kept).items()}
        write_folder(self._state_folder(history.step), lambda folder: self._write(folder, tensors, state, history))
        for folder in self._states()[:-STATES_KEPT]:
            remove_folder(folder)
        self._last_saved = time.monotonic()

    def remove(self) -> None:
        """Remove the folder, when the run has ended and its outputs are written, or no state is usable."""
        remove_folder(self.folder)

    def _write(self, folder: Path, tensors: dict[str, Tensor], state: TrainingState, history: History) -> None:
        write_tensors(folder / TENSORS, tensors, {}, self.provenance)
        name = f"{self._state_folder(history.step).name}/{TENSORS}"
        content = {
            "identity": self.identity,
            "history": history.as_json(),
            "values": state.values(),
            "files": self._kept | {name: digest_of_file(folder / TENSORS)},
        }
        write_json(folder / VALUES, {"content": content, "digest": digest_of_config(content)})

    def _read_verified(self, folder: Path) -> dict[str, Any]:
        """The content of a state's JSON, once its own digest and those of its files are verified.

        Raises:
            StorageError: a file is missing, truncated or changed.
        """
        path = folder / VALUES
        values = read_json(path)
        if not isinstance(values, dict) or values.get("digest") != digest_of_config(values.get("content")):
            raise StorageError(f"{path}: changed since it was written")
        content: dict[str, Any] = values["content"]
        for name, digest in content["files"].items():
            file = self.folder / name
            if not file.is_file():
                raise StorageError(f"{file}: missing, but {path} needs it")
            if digest_of_file(file) != digest:
                raise StorageError(f"{file}: truncated, or changed since it was written")
        return content

    def _differing(self, identity: Mapping[str, str]) -> list[str]:
        """The kinds of digests in which another identity differs from this one."""
        return [key for key in sorted({*identity, *self.identity}) if identity.get(key) != self.identity.get(key)]

    def _states(self) -> list[Path]:
        """The folders of states, oldest first, since all names have the same number of digits."""
        return sorted(self.folder.glob("step-*"))

    def _state_folder(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _kept_folder(self, output: Path) -> Path:
        return self.folder / "checkpoints" / output.name
