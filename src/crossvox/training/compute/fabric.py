"""Device, precision, processes and threads of a run, as one Fabric."""

from __future__ import annotations

import atexit
import importlib.util
import os
from typing import Literal

import torch

# Imported before a process group exists. Its default arguments would otherwise keep the group and
# its threads alive.
import torch.distributed.nn.functional
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch import distributed as dist

from crossvox.errors import UsageError
from crossvox.training.compute.devices import choose_accelerator, set_up_torch
from crossvox.training.compute.distributed import use_own_port
from crossvox.training.settings import Compute, Precision


def launch_fabric(compute: Compute) -> Fabric:
    """Launch a Fabric; every line after this call runs in each process of the run.

    Under `torchrun` or `srun` the processes are theirs. Otherwise, with more than one device, the
    same command is started once more per further device.

    Raises:
        UsageError: no GPU, bf16 or compilation on a CPU, or a number of devices that contradicts
            the launcher's.
    """
    accelerator = choose_accelerator(compute.accelerator)
    precision = _precision(compute.precision, accelerator)
    if compute.compile:
        _require_compiler(accelerator)
    devices, num_nodes = _processes(compute)
    try:
        made = Fabric(
            accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=precision
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"cannot compute on {devices} × {accelerator}: {_line(error)}") from None
    use_own_port()
    made.launch()
    if made.world_size > 1:
        atexit.register(_leave)
    set_up_torch(compute, accelerator)  # after the launch, which sets the number of threads itself
    return made


def _leave() -> None:
    """Close the process group, whose threads may otherwise abort a process as it ends."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _precision(asked: Precision, accelerator: str) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    if asked == "auto":
        native = accelerator == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if native else "32-true"
    if accelerator == "cpu" and asked != "32-true":
        # A CPU without native bf16 emulates it, up to a hundred times slower.
        raise UsageError(
            f"compute.precision is '{asked}' but the run is on the CPU, where half precision is "
            "slower, not faster; use 'auto' or '32-true'"
        )
    return asked


def _require_compiler(accelerator: str) -> None:
    if accelerator != "cuda":
        raise UsageError(
            f"compute.compile is on but the run is on the {accelerator.upper()}; it is meant for "
            "NVIDIA and AMD GPUs, so leave it off"
        )
    if importlib.util.find_spec("triton") is None:
        raise UsageError("compute.compile needs triton; pip install triton, or leave it off")


def _processes(compute: Compute) -> tuple[int, int]:
    """Return devices per node and number of nodes, the launcher's if there is one."""
    if TorchElasticEnvironment.detect():
        launcher = "torchrun"
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    elif SLURMEnvironment.detect():
        launcher = "SLURM"
        devices = int(os.environ.get("SLURM_NTASKS_PER_NODE", 1))
        nodes = int(os.environ.get("SLURM_NNODES", 1))
    else:
        return compute.devices, compute.num_nodes
    if compute.devices not in (1, devices) or compute.num_nodes not in (1, nodes):
        raise UsageError(
            f"compute asks for {compute.devices} devices on {compute.num_nodes} nodes but "
            f"{launcher} started {devices} on {nodes}; make them equal, or leave compute's at 1"
        )
    return devices, nodes


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
