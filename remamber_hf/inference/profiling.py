# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a model takes on this machine: the time of a forward pass, and the most memory."""

import gc
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..configuration_remamber import ReMamberConfig, VMambaConfig
from ..configuration_vim import VimConfig
from ..modeling_remamber import ReMamberForImageSegmentation
from ..modeling_vim import VimBackbone, VimForImageClassification, VimModel
from ..modeling_vmamba import VMambaBackbone, VMambaForImageClassification, VMambaModel
from ..selective_scan import fastest_backend
from .cost import make_inputs
from .devices import DTYPES
from .memory import keep_freed_memory


NUM_WARMUP = 3  # passes before those that are timed: kernels are compiled, memory is taken
# By the type of a configuration: the classes that may have saved it, and of a hand-written one the first.
MODELS: dict[str, tuple[Any, ...]] = {
    ReMamberConfig.model_type: (ReMamberForImageSegmentation,),
    VMambaConfig.model_type: (VMambaModel, VMambaBackbone, VMambaForImageClassification),
    VimConfig.model_type: (VimModel, VimBackbone, VimForImageClassification),
}
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workload:
    """
    What is measured: passes of `batch_size` pictures of one size, with so many expressions about each.

    image_size: (height, width) in pixels. dtype: a name of `DTYPES`; half precision is autocast. num_runs: passes that
    are timed. num_threads: of a CPU, None for as many as PyTorch takes.
    """

    image_size: tuple[int, int]
    batch_size: int = 1
    num_expressions: int = 1
    dtype: str = "float32"
    num_runs: int = 10
    num_threads: int | None = None


def build_model(config: PreTrainedConfig) -> nn.Module:
    """The model of this package that a configuration describes, with random weights, in evaluation mode."""
    classes = MODELS[config.model_type]
    saved_by: Any = getattr(config, "architectures", None)
    saved_by = saved_by if isinstance(saved_by, list) else ()
    model: nn.Module = next((each for each in classes if each.__name__ in saved_by), classes[0])(config)
    return model.eval()


# --------------------------------------------------------------------------------------------------------------- time


def time_passes(
    model: nn.Module, inputs: dict[str, torch.Tensor], dtype: str = "float32", num_runs: int = 10
) -> list[float]:
    """
    Times of forward passes in ms, after `NUM_WARMUP` that are not timed; a GPU is waited for before and after each.

    Args:
        model: in evaluation mode.
        inputs: where the model is, as `make_inputs` makes them.
        dtype: a name of `DTYPES`; those of half precision by autocast.
        num_runs: how many are timed.
    """
    device = next(model.parameters()).device
    times = []
    with torch.inference_mode(), torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32"):
        for _ in range(NUM_WARMUP + num_runs):
            wait_for(device)
            start = time.perf_counter()
            model(**inputs)
            wait_for(device)
            times.append(1000 * (time.perf_counter() - start))
    return times[NUM_WARMUP:]


def wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def quartiles(times: list[float]) -> dict[str, float]:
    """ "q1", "median" and "q3" of one number or more."""
    return dict(zip(("q1", "median", "q3"), quantiles(times if len(times) > 1 else 2 * times, method="inclusive")))


# ------------------------------------------------------------------------------------------------------------- memory


class PeakMemory:
    """
    The most memory that a model takes on a device, weights included: what is taken at the peak since `reset` beyond
    what was taken when this was made.

    On CUDA it is what PyTorch's allocator gave to tensors. On a CPU it is the resident memory of the process, so it is
    for one that has done nothing else, and has with it what libraries load at the first pass, some 25 MiB.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.is_known = device.type in ("cpu", "cuda")
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else read_resident("VmRSS")

    def reset(self) -> None:
        """To be called when the model is made, so that making it does not count."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self.is_known = self.is_known and reset_peak_resident()

    def read(self) -> int | None:
        """Bytes; None where neither PyTorch nor the system tells: on a CPU that is everywhere but on Linux."""
        is_cuda = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if is_cuda else read_resident("VmHWM")
        return peak - self.before if self.is_known and peak is not None and self.before is not None else None


def read_resident(name: str) -> int | None:
    """Bytes of this process in memory: "VmRSS" now, "VmHWM" at the peak; None where the system does not tell."""
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        return None if found is None else 1024 * int(found.group(1))
    return None


def reset_peak_resident() -> bool:
    """Have the peak start anew from what is there now; whether the system does so."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def machine_memory() -> int | None:
    """Bytes of the machine; None where the system does not tell."""
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


# ------------------------------------------------------------------------------------------------------------ together


def measure_model(config: PreTrainedConfig, workload: Workload, device: torch.device) -> dict[str, Any]:
    """
    Time and memory of a model with random weights, whose values do not matter; for a process that did nothing else.

    Returns:
        "milliseconds" of a pass, → "q1", "median", "q3"; "pictures_per_second"; "peak_mib", maybe None; and how it
        "ran", → "threads", "scan_backend".
    """
    logging.set_verbosity_error()
    keep_freed_memory()
    if workload.num_threads is not None:
        torch.set_num_threads(workload.num_threads)
    memory = PeakMemory(device)
    model = build_model(config).to(device)
    inputs = make_inputs(config, workload.image_size, device, workload.batch_size, workload.num_expressions)
    gc.collect()
    memory.reset()
    milliseconds = quartiles(time_passes(model, inputs, workload.dtype, workload.num_runs))
    peak = memory.read()
    return {
        "milliseconds": milliseconds,
        "pictures_per_second": 1000 * workload.batch_size / milliseconds["median"],
        "peak_mib": None if peak is None else peak / 2**20,
        "ran": {"threads": torch.get_num_threads(), "scan_backend": name_scan_backends(config, device)},
    }


def name_scan_backends(config: Any, device: torch.device) -> str:
    """What "auto" is for the scans of such a model; it has run, so what could not be fetched is known."""
    is_of_sequences = config.model_type == VimConfig.model_type
    operations = ["selective_scan"] if is_of_sequences else ["cross_selective_scan"]
    if getattr(config, "fusion", None) == "in_context":
        operations.append("selective_scan")
    names = (fastest_backend(device.type, operation=operation)[0] for operation in operations)
    return " and ".join(dict.fromkeys(names))


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """
    What `function` returns in a process that has done nothing else; it ends when this one does.

    Python starts it by importing the running script anew, which must do its work under `if __name__ == "__main__"`.

    Raises:
        BrokenProcessPool: if it was killed, as for want of memory; and what `function` raises.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=end_with_parent) as pool:
        return pool.submit(function, *arguments).result()


def end_with_parent() -> None:
    """Have this process end with the one that started it, which a worker of a pool does not by itself."""

    def wait() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]  # it has one
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
