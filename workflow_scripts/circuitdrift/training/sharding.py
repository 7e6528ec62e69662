"""One model spread over several processes: fully sharded data parallel training (Zhao et al. 2023, arXiv 2304.11277).

Each process keeps an equal part of every parameter, of its gradient and of the optimiser's averages. A decoder block's
weights are put together for its forward and for its backward pass, and let go of after each; gradients are summed as
they are spread. torch's ``fully_shard`` does this; its sharded tensors are DTensors, which PyTorch's own functions take
like others, and files hold the whole ones. What is collective here must be called by all processes.
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
    """Spread a model, which all processes hold whole, over them.

    Its gradients are then sums over the processes (where torch's default is the mean). Collective.

    Args:
        network: the model to train, with what is trained made trainable; its parameters are replaced.
        processes: those that train it.
    """
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for module in (*decoder_blocks(network).values(), network):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        sharded = cast(FSDPModule, module)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its parts; one that is not sharded as it is. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """Tensors put together one after the other in the first process, on the CPU; the others get none. Collective.

    Tensors that are not sharded are taken as they are.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        together = whole(tensor)
        if processes.is_first:
            found[name] = together.cpu() if isinstance(tensor, DTensor) else together
    return found


def spread_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor, sharded as a parameter of its shape is; as it is where that is whole."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    values = tensor.to(parameter.device)
    return distribute_tensor(values, parameter.device_mesh, parameter.placements, src_data_rank=None)
