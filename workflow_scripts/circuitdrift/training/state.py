"""The state of training that the next step depends on, as named tensors and JSON values.

The learning rate and the order of the data are functions of the step, so they are not saved.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from circuitdrift.errors import CircuitDriftError
from circuitdrift.training.adalora import RankSchedule
from circuitdrift.training.sharding import spread_like

PARAMETER, OPTIMIZER, RANDOM = "parameter/", "optimizer/", "random/"


class StateError(CircuitDriftError):
    """A saved state that does not fit the run; the message names the first parameter that differs."""


@dataclass(frozen=True)
class TrainingState:
    """The moving parts of a run.

    Attributes:
        network: the model, of which only the trainable parameters belong to the state.
        optimizer: the optimiser of these parameters.
        ranks: AdaLoRA's rank allocation; None for other methods.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    ranks: RankSchedule | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Trainable parameters, the optimiser's averages and step counters, and torch's random states as bytes.

        Parameters and averages of a sharded model are sharded.
        """
        parameters = self._trainable()
        found: dict[str, Tensor] = {PARAMETER + name: parameter.detach() for name, parameter in parameters.items()}
        for name, parameter in parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                found[f"{OPTIMIZER}{key}/{name}"] = value
        if self.ranks:
            found |= self.ranks.tensors()
        return found | {RANDOM + name: state for name, state in self._torch_random_states().items()}

    def values(self) -> dict[str, Any]:
        """The random states of Python and NumPy, as JSON values."""
        kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
        return {
            "python": random.getstate(),
            "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        }

    def load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Restore the state that ``tensors`` and ``values`` returned.

        Raises:
            StateError: the tensors have other names, shapes or dtypes than the parameters, which stay unchanged.
        """
        parameters = self._trainable()
        saved = {name.removeprefix(PARAMETER): t for name, t in tensors.items() if name.startswith(PARAMETER)}
        for name in sorted({*parameters, *saved}):
            if _kind(parameters.get(name)) != _kind(saved.get(name)):
                raise StateError(
                    f"parameter {name} is {_kind(saved.get(name))} there and {_kind(parameters.get(name))} in this run"
                )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(spread_like(saved[name], parameter))
        self._load_optimizer(tensors, parameters)
        if self.ranks:
            self.ranks.load(tensors)
        for name in self._torch_random_states():
            _set_random_state(name, tensors[RANDOM + name])
        version, internal, gauss = values["python"]
        random.setstate((version, tuple(internal), gauss))
        np.random.set_state(tuple(values["numpy"]))

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.network.named_parameters() if parameter.requires_grad}

    def _load_optimizer(self, tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter]) -> None:
        layout = self.optimizer.state_dict()["param_groups"]
        groups = self.optimizer.param_groups
        numbers = {
            id(parameter): number
            for group, described in zip(groups, layout, strict=True)
            for parameter, number in zip(group["params"], described["params"], strict=True)
        }
        state: dict[int, dict[str, Tensor]] = {}
        for full_name, tensor in tensors.items():
            if full_name.startswith(OPTIMIZER):
                key, name = full_name.removeprefix(OPTIMIZER).split("/", 1)
                own = spread_like(tensor, parameters[name])
                state.setdefault(numbers[id(parameters[name])], {})[key] = own
        self.optimizer.load_state_dict({"state": state, "param_groups": layout})

    def _torch_random_states(self) -> dict[str, Tensor]:
        device = next(self.network.parameters()).device
        states = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(device)
        if device.type == "mps":
            states["mps"] = torch.mps.get_rng_state()
        return states


def _set_random_state(device: str, state: Tensor) -> None:
    if device == "cuda":
        torch.cuda.set_rng_state(state)
    elif device == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def _kind(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{list(tensor.shape)} of {tensor.dtype}"
