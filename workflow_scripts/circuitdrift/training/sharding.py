"""One model spread over several processes: fully sharded data parallel training (Zhao et al. 2023, arXiv 2304.11277).

Each process keeps an equal part of every parameter, of its gradient and of the optimiser's averages. A decoder block's
weights are gathered for its forward and for its backward pass and freed after each; gradients are summed while they are
spread. torch's ``fully_shard`` does this. Its sharded tensors are DTensors, which PyTorch's own functions accept like
others; files hold whole tensors. All processes must call the functions that are marked as collective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from circuitdrift.decoder.linears import decoder_blocks
from circuitdrift.training.processes import Processes


def shard(network: PreTrainedModel, processes: Processes) -> None:
    """Spread a model, which every process holds whole, over the processes. Collective.

    Its gradients are then sums over the processes (torch's default is the mean).

    Args:
        network: the model, with its trained parameters trainable; the parameters are replaced.
        processes: the processes that train it.
    """
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for module in (*decoder_blocks(network).values(), network):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        sharded = cast(FSDPModule, module)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its parts; an unsharded tensor is returned as it is. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """Tensors put together one after the other in process 0, on the CPU; the other processes get none. Collective.

    Unsharded tensors are returned as they are.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        together = whole(tensor)
        if processes.is_first:
            found[name] = together.cpu() if isinstance(tensor, DTensor) else together
    return found


def spread_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor, sharded like a parameter; the tensor itself if that is not sharded."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    values = tensor.to(parameter.device)
    return distribute_tensor(values, parameter.device_mesh, parameter.placements, src_data_rank=None)
