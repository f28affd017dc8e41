"""Processes that a launcher started: either they know each other, or nothing is done."""

import gc
import os
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState
    from torch import Tensor

__all__ = [
    "check_connected",
    "count_launched",
    "count_processes",
    "join_processes",
    "leave_processes",
    "refuse_several",
    "sum_over_processes",
]

PATIENCE = timedelta(days=2)  # with the slowest process; a scene or a question may take long
# What accelerate counts the processes of a launcher by.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def count_launched() -> int:
    """Count the processes that a launcher started; 1 without a launcher.

    It is read from the variables of torchrun, accelerate and MPI, whether or not the processes are connected.
    """
    counts = [int(value) for name in SIZES if (value := os.environ.get(name, "")).isdecimal()]
    place = os.environ.get("LOCAL_RANK", "")
    return max([1, *counts, int(place) + 1 if place.isdecimal() else 1])


def count_processes() -> int:
    """Count the processes that are connected; 1 without a process group."""
    import torch

    is_joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if is_joined else 1


def sum_over_processes(values: "Tensor") -> "Tensor":
    """Return the sum of a tensor over all connected processes; every process must call it.

    Args:
        values: Numbers of one shape in all processes, on a device of their backend; they stay as they are.
    """
    import torch

    if count_processes() > 1:
        values = values.clone()
        torch.distributed.all_reduce(values)
    return values


def check_connected(state: "PartialState") -> None:
    """Check that this process works together with all that its launcher started.

    Args:
        state: Processes as accelerate knows them. With `distributed_type` NO it may count several and still gather
            nothing: so on a CPU where a backend is named and the CPU is not.

    Raises:
        ValueError: If the launcher started more than work together.
    """
    launched, joined = count_launched(), state.num_processes if state.use_distributed else 1
    if joined < launched:
        raise ValueError(
            f"A launcher started {launched} processes, but only {joined} of them work together: each would do all of "
            "the work and write over the files of the others. Start one process. Or connect them on the CPU, with "
            "use_cpu=True in the arguments of a training, or with the variable ACCELERATE_USE_CPU=true for other "
            "commands."
        )


def join_processes() -> "PartialState":
    """Connect the processes of a launcher, on the CPU where there is no accelerator.

    Returns:
        Number, rank and device of this process.

    Raises:
        ValueError: If the processes stay without connection.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Without an accelerator, accelerate joins processes only where it is told that they run on the CPU.
    is_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=is_cpu, timeout=PATIENCE)
    check_connected(state)
    return state


def leave_processes() -> None:
    """Wait for the other processes and end their group, at the end of a program.

    A process that is done early does not take the connection from the others. The threads of the group end before the
    interpreter shuts down: one that wants it back by then would abort the process. They end with the last user of the
    group, so call this behind the function that trains. A script that wraps a model in `DistributedDataParallel`
    itself should import `torch.distributed.nn` first: else that module keeps the group.
    """
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        gc.collect()  # a trainer is part of reference cycles, and holds the group


def refuse_several(work: str) -> None:
    """Check that no launcher started several processes for work that one process does.

    Args:
        work: Name of the work in the message, such as "`ide3d export`".

    Raises:
        ValueError: If a launcher did.
    """
    launched = count_launched()
    if launched > 1:
        raise ValueError(
            f"{work} works in one process, but a launcher started {launched}, and each would do all of the work. "
            "Start it without `accelerate launch`, `torchrun` or `mpirun`."
        )
