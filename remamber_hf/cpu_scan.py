# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The scan's C++ kernel for CPUs (csrc/scan.cpp): the libraries, and the backend "cpu" of `selective_scan` over them.

`selective_scan.py` has the contracts and the letters. The libraries are built when the package is installed, one per
instruction set; where they are missing, as beside weights on the Hub, `why_not` says so and another backend runs.
"""

import ctypes
import functools
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .torch_scan import (
    cross_selective_scan_flops,
    operator_name,
    register_backward,
    register_flops,
    selective_scan_flops,
)


INSTALL = "pip install --force-reinstall --no-deps .  (in a copy of remamber_hf's source, with GCC or Clang installed)"

OTHER_VERSION = f"was built from another version of the source; build it again with: {INSTALL}"
FOLDER = Path(__file__).parent  # where the libraries are
BLOCK_STEPS = 32  # time steps whose states the backward pass computes again from the one that enters; STEPS in C++
THREAD_STATES = 2**16  # a further thread is worth starting for this many states
KERNEL_VARIABLE = "REMAMBER_CPU_KERNEL"  # names the one library that may run, or "none": to test or to compare them


class _Arguments(ctypes.Structure):
    """`ScanArguments` of csrc/scan.cpp, which says what each of them is."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                "x delta projections B C dt_proj_weight bias A D directions y carries grad_y grad_x "
                "grad_delta grad_projections grad_B grad_C grad_dt_proj_weight grad_bias grad_A grad_D parallel"
            ).split()
        ),
        *(
            (name, ctypes.c_int64)
            for name in "batch height width parts channels rank states panel_groups batch_groups".split()
        ),
        *(
            (name, ctypes.c_int32)
            for name in "x_is_bfloat16 delta_is_bfloat16 projections_is_bfloat16 delta_softplus x_has_parts".split()
        ),
    ]


# ------------------------------------------------------------------------------------------------------- the libraries


def library_names() -> list[str]:
    """Libraries for this processor, the fastest first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ["_scan_baseline"]
    capability = torch.backends.cpu.get_cpu_capability()
    names = ["_scan_avx512", "_scan_avx2", "_scan_baseline"]
    return names if capability.startswith("AVX512") else names[1:] if capability == "AVX2" else names[2:]


def open_library(name: str) -> ctypes.CDLL:
    """
    The library called `name`, from `FOLDER`.

    Raises:
        FileNotFoundError: if it was not built.
        OSError: if the system cannot load it.
        RuntimeError: if it was built from another version of the source.
    """
    paths = sorted(FOLDER.glob(f"{name}.*so"))
    if not paths:
        raise FileNotFoundError(f"{name} was not built; build it with: {INSTALL}")
    library = ctypes.CDLL(str(paths[0]))
    constants = (
        *("remamber_scan_argument_bytes", "remamber_scan_steps", "remamber_scan_panel"),
        *("remamber_conv_argument_bytes", "remamber_conv_block"),
    )
    for constant in constants:
        if not hasattr(library, constant):
            raise RuntimeError(f"{paths[0].name} {OTHER_VERSION}")
        getattr(library, constant).restype = ctypes.c_int64
    found = (library.remamber_scan_argument_bytes(), library.remamber_scan_steps())
    if found != (ctypes.sizeof(_Arguments), BLOCK_STEPS):
        raise RuntimeError(f"{paths[0].name} {OTHER_VERSION}")
    for entry in (
        *(library.remamber_scan_forward, library.remamber_scan_backward),
        *(library.remamber_conv_forward, library.remamber_conv_backward),
    ):
        entry.argtypes, entry.restype = [ctypes.c_void_p], ctypes.c_int32
    return library


@functools.cache
def load_library() -> tuple[ctypes.CDLL | None, str]:
    """
    The fastest library that runs here and its name, or `None` and the reason why there is none.

    The environment variable `KERNEL_VARIABLE` names the one that may run.
    """
    names, wanted, reasons = library_names(), os.environ.get(KERNEL_VARIABLE, ""), []
    if wanted:
        names = [name for name in names if name == f"_scan_{wanted}"]
        can_run = ", ".join(name.removeprefix("_scan_") for name in library_names())
        reasons.append(f"{KERNEL_VARIABLE} is {wanted!r}; this processor runs {can_run}, and 'none' is for none")
    for name in names:
        try:
            return open_library(name), name
        except (OSError, RuntimeError) as error:  # FileNotFoundError is an OSError
            reasons.append(str(error))
    return None, reasons[-1]


def why_not(device: torch.device) -> str:
    """Why the kernel cannot run on `device`, or an empty string."""
    if device.type != "cpu":
        return f"the C++ kernel needs CPU tensors, these are on {device.type}; use 'auto'"
    library, reason = load_library()
    return "" if library else reason


def loaded_library() -> ctypes.CDLL:
    """
    The library that runs here.

    Raises:
        RuntimeError: if there is none; a program that was exported where there is one asks no `why_not`.
    """
    library, reason = load_library()
    if library is None:
        raise RuntimeError(f"The scan's C++ kernel cannot run: {reason}.")
    return library


# ------------------------------------------------------------------------------------------------------------ the call


def _groups(library: ctypes.CDLL, num_states: int, channels: int, batch: int) -> dict[str, int]:
    """
    Into how many groups the panels of `channels` and the batch are cut, each pair the work of one thread.

    Of the ways to cut `num_states` states in all, the one whose largest share is smallest; of equals the one with the
    most groups of panels, which have fewer gradients to sum afterwards.
    """
    panels = -(-channels // library.remamber_scan_panel())
    threads = max(1, min(torch.get_num_threads(), num_states // THREAD_STATES))

    def largest_share(groups: tuple[int, int]) -> tuple[int, int]:
        panel_groups, batch_groups = groups
        return -(-panels // panel_groups) * -(-batch // batch_groups), -panel_groups

    ways = [(count, min(batch, threads // count)) for count in range(1, min(panels, threads) + 1)]
    panel_groups, batch_groups = min(ways, key=largest_share)
    return {"panel_groups": panel_groups, "batch_groups": batch_groups}


@functools.cache
def _parallel() -> int | None:
    """Address of GOMP_parallel in the OpenMP that PyTorch runs on; `None` has the kernel start threads of its own."""
    try:
        torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return ctypes.cast(torch_library.GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def run_kernel(
    entry: Callable[..., int],
    arguments: type[ctypes.Structure],
    tensors: dict[str, torch.Tensor],
    sizes: dict[str, int],
) -> None:
    """Call a C function with its struct of `arguments`; every tensor must live until it returns."""
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    if entry(ctypes.byref(arguments(**pointers, parallel=_parallel(), **sizes))):
        raise RuntimeError("The C++ kernel ran out of memory for its buffers; use a smaller batch or fewer threads.")


def _run(entry: Callable[..., int], tensors: dict[str, torch.Tensor], sizes: dict[str, int]) -> None:
    """Call a function of the scan; every tensor must be contiguous."""
    run_kernel(entry, _Arguments, tensors, sizes)


def _num_blocks(length: int) -> int:
    return -(-length // BLOCK_STEPS)


def _readable(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in a type that the kernel reads: float32 or bfloat16."""
    return tensor if tensor.dtype in (torch.float32, torch.bfloat16) else tensor.float()


# ------------------------------------------------------------------------------------------------ cross-selective-scan


def _map_arguments(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: list[int],
) -> tuple[ctypes.CDLL, dict[str, torch.Tensor], dict[str, int]]:
    """The library, what both passes give it, and the shape of the states that enter blocks."""
    library = loaded_library()
    batch, height, width, channels = *x.shape[:3], x.shape[-1]
    parts, _, rank = dt_proj_weight.shape
    states = A.shape[-1]
    tensors = {
        "x": x.contiguous(),
        "projections": projections.contiguous(),
        "dt_proj_weight": dt_proj_weight.contiguous(),
        "bias": dt_proj_bias.contiguous(),
        "A": A.contiguous(),
        "D": D.contiguous(),
        "directions": torch.tensor(directions, dtype=torch.int32),
    }
    sizes = {
        "batch": batch,
        "height": height,
        "width": width,
        "parts": parts,
        "channels": channels,
        "rank": rank,
        "states": states,
        **_groups(library, batch * height * width * channels * parts * states, channels, batch),
        "x_has_parts": x.dim() == 5,
        "x_is_bfloat16": x.dtype == torch.bfloat16,
        "projections_is_bfloat16": projections.dtype == torch.bfloat16,
    }
    return library, tensors, sizes


@torch.library.custom_op(operator_name("cross_selective_scan_cpu"), mutates_args=(), device_types="cpu")
def _cross_selective_scan_op(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and the states that enter each block (K, batch, blocks, N, channels)."""
    library, tensors, sizes = _map_arguments(x, projections, dt_proj_weight, dt_proj_bias, A, D, directions)
    y, carries = _map_outputs(x, dt_proj_weight, A)
    _run(library.remamber_scan_forward, {**tensors, "y": y, "carries": carries}, sizes)
    return y, carries


@_cross_selective_scan_op.register_fake
def _(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    return _map_outputs(x, dt_proj_weight, A)


def _map_outputs(x: torch.Tensor, dt_proj_weight: torch.Tensor, A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    batch, height, width, channels = *x.shape[:3], x.shape[-1]
    y = A.new_empty(x.shape)
    return y, A.new_empty(dt_proj_weight.shape[0], batch, _num_blocks(height * width), A.shape[-1], channels)


@torch.library.custom_op(operator_name("cross_selective_scan_cpu_backward"), mutates_args=(), device_types="cpu")
def _cross_selective_scan_backward_op(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    carries: torch.Tensor,
    directions: list[int],
) -> list[torch.Tensor]:
    """Gradients of x, projections, dt_proj_weight, dt_proj_bias, A, D."""
    library, tensors, sizes = _map_arguments(x, projections, dt_proj_weight, dt_proj_bias, A, D, directions)
    gradients = {
        "grad_x": A.new_empty(x.shape),
        "grad_projections": A.new_empty(sizes["panel_groups"], *projections.shape),
        "grad_dt_proj_weight": A.new_empty(sizes["batch_groups"], *dt_proj_weight.shape),
        "grad_bias": A.new_empty(sizes["batch_groups"], *dt_proj_bias.shape),
        "grad_A": A.new_empty(sizes["batch_groups"], *A.shape),
        "grad_D": A.new_empty(sizes["batch_groups"], *D.shape),
    }
    tensors |= {"grad_y": grad_y.contiguous(), "carries": carries.contiguous(), **gradients}
    _run(library.remamber_scan_backward, tensors, sizes)
    grad_x, grad_projections, *grad_weights = gradients.values()
    grad_projections = _sum_groups(grad_projections).to(projections.dtype)
    return [grad_x.to(x.dtype), grad_projections, *map(_sum_groups, grad_weights)]


def _sum_groups(gradients: torch.Tensor) -> torch.Tensor:
    return gradients[0] if gradients.shape[0] == 1 else gradients.sum(0)


register_backward(_cross_selective_scan_op, _cross_selective_scan_backward_op)
register_flops(_cross_selective_scan_op, _cross_selective_scan_backward_op, cross_selective_scan_flops)


def cross_selective_scan_cpu(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: Sequence[int],
) -> torch.Tensor:
    """
    `cross_selective_scan` by the C++ kernel: x and projections in any type but float64, weights in float32.

    x may also be (batch, height, width, K, channels), a map for each direction; then so is what comes back, unsummed.
    """
    codes = [int(direction) for direction in directions]
    x, projections = _readable(x), _readable(projections)
    return _cross_selective_scan_op(x, projections, dt_proj_weight, dt_proj_bias, A, D, codes)[0]


# ------------------------------------------------------------------------------------------------------ selective scan


def _sequence_arguments(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    delta_bias: torch.Tensor,
    delta_softplus: bool,
) -> tuple[ctypes.CDLL, dict[str, torch.Tensor], dict[str, int]]:
    """The library, and what both passes give it: groups are the parts of a map of one row."""
    library = loaded_library()
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    tensors = {
        "x": u.contiguous(),
        "delta": delta.contiguous(),
        "B": B.float().contiguous(),
        "C": C.float().contiguous(),
        "bias": delta_bias.contiguous(),
        "A": A.contiguous(),
        "D": D.contiguous(),
        "directions": torch.zeros(groups, dtype=torch.int32),
    }
    sizes = {
        "batch": batch,
        "height": 1,
        "width": length,
        "parts": groups,
        "channels": channels // groups,
        "states": states,
        **_groups(library, u.numel() * states, channels // groups, batch),
        "x_is_bfloat16": u.dtype == torch.bfloat16,
        "delta_is_bfloat16": delta.dtype == torch.bfloat16,
        "delta_softplus": delta_softplus,
    }
    return library, tensors, sizes


@torch.library.custom_op(operator_name("selective_scan_cpu"), mutates_args=(), device_types="cpu")
def _selective_scan_op(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    delta_bias: torch.Tensor,
    delta_softplus: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and the states that enter each block (groups, batch, blocks, N, channels / groups)."""
    library, tensors, sizes = _sequence_arguments(u, delta, A, B, C, D, delta_bias, delta_softplus)
    y, carries = _sequence_outputs(u, A, B)
    _run(library.remamber_scan_forward, {**tensors, "y": y, "carries": carries}, sizes)
    return y, carries


@_selective_scan_op.register_fake
def _(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    delta_bias: torch.Tensor,
    delta_softplus: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return _sequence_outputs(u, A, B)


def _sequence_outputs(u: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    batch, channels, length = u.shape
    groups, states = B.shape[1:3]
    return A.new_empty(u.shape), A.new_empty(groups, batch, _num_blocks(length), states, channels // groups)


@torch.library.custom_op(operator_name("selective_scan_cpu_backward"), mutates_args=(), device_types="cpu")
def _selective_scan_backward_op(
    grad_y: torch.Tensor,
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    delta_bias: torch.Tensor,
    carries: torch.Tensor,
    delta_softplus: bool,
) -> list[torch.Tensor]:
    """Gradients of u, delta, A, B, C, D, delta_bias."""
    library, tensors, sizes = _sequence_arguments(u, delta, A, B, C, D, delta_bias, delta_softplus)
    gradients = {
        "grad_x": A.new_empty(u.shape),
        "grad_delta": A.new_empty(u.shape),
        "grad_B": A.new_empty(sizes["panel_groups"], *B.shape),
        "grad_C": A.new_empty(sizes["panel_groups"], *C.shape),
        "grad_A": A.new_empty(sizes["batch_groups"], *A.shape),
        "grad_D": A.new_empty(sizes["batch_groups"], *D.shape),
        "grad_bias": A.new_empty(sizes["batch_groups"], *D.shape),
    }
    tensors |= {"grad_y": grad_y.contiguous(), "carries": carries.contiguous(), **gradients}
    _run(library.remamber_scan_backward, tensors, sizes)
    grad_u, grad_delta = gradients.pop("grad_x"), gradients.pop("grad_delta")
    grad_B, grad_C, grad_A, grad_D, grad_bias = map(_sum_groups, gradients.values())
    return [
        grad_u.to(u.dtype),
        grad_delta.to(delta.dtype),
        grad_A,
        grad_B.to(B.dtype),
        grad_C.to(C.dtype),
        grad_D,
        grad_bias,
    ]


register_backward(_selective_scan_op, _selective_scan_backward_op)
register_flops(_selective_scan_op, _selective_scan_backward_op, selective_scan_flops)


def selective_scan_cpu(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
) -> torch.Tensor:
    """`selective_scan` by the C++ kernel, for any type but float64."""
    zeros = A.new_zeros(A.shape[0], dtype=torch.float32)
    D = zeros if D is None else D.float()
    delta_bias = zeros.clone() if delta_bias is None else delta_bias.float()
    u, delta, B, C = _readable(u), _readable(delta), _readable(B), _readable(C)
    return _selective_scan_op(u, delta, A.float(), B, C, D, delta_bias, delta_softplus)[0]
