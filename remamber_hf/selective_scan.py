# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The selective scan of Mamba (arXiv 2312.00752) and SS2D's cross-selective-scan over it (VMamba, arXiv 2401.10166).

Two operations, each with one contract and the same backends:

- `selective_scan` is mamba-ssm's operation on sequences.
- `cross_selective_scan` reads a map along several directions, scans each and sums the outputs in pixel order.

The file goes contract, reference, composition over mamba-ssm's kernel (installed, or prebuilt from the Hub), table of
backends, dispatch. The blocked PyTorch version is in `torch_scan.py`, the C++ kernel for CPUs in `cpu_scan.py`, the
Triton kernels in `triton_scan.py`. Letters are those of the paper: `u` input, `delta` time step, `A` decay, `B` input
and `C` output projection, `D` skip, N state size, R time-step rank, K number of directions.
"""

import functools
import importlib
import importlib.metadata
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of httpx or, in newer ones, of httpx2
from torch.autograd.forward_ad import unpack_dual
from transformers.utils import logging
from transformers.utils.import_utils import ENV_VARS_TRUE_VALUES

from .cpu_scan import cross_selective_scan_cpu, selective_scan_cpu
from .cpu_scan import why_not as _why_not_cpu
from .torch_scan import Direction, cross_selective_scan_torch, scan_dtype, selective_scan_torch
from .triton_scan import cross_selective_scan_triton
from .triton_scan import why_not as _why_not_triton


logger = logging.get_logger(__name__)

MAMBA_SSM_INSTALL = (
    "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation --no-binary mamba-ssm mamba-ssm causal-conv1d"
)
# mamba-ssm's kernels, prebuilt; the version is the one that transformers takes for its own Mamba.
HUB_KERNEL, HUB_KERNEL_VERSION = "kernels-community/mamba-ssm", 4


# What importing a package raises that is missing, or that is there and does not fit PyTorch or the GPU's driver.
BROKEN = (
    ImportError,
    OSError,
    RuntimeError,
    AttributeError,
    LookupError,
    NameError,
    SyntaxError,
    TypeError,
    ValueError,
)


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    backend: str = "auto",
) -> torch.Tensor:
    """
    Scan sequences with a linear recurrence that depends on the input.

    h_t = exp(Δ_t·A)·h_{t-1} + Δ_t·B_t·u_t, y_t = C_t·h_t + D·u_t.

    Source: Mamba, arXiv 2312.00752, section 3.2; the signature is that of mamba-ssm's `selective_scan_fn`.

    Args:
        u: input (batch, channels, length).
        delta: time steps (batch, channels, length), before bias and softplus.
        A: decay rates (channels, state_size), negative.
        B, C: (batch, groups, state_size, length) or (batch, state_size, length); `groups` divides `channels`.
        D: skip weights (channels), or `None` for none.
        delta_bias: (channels), added to `delta`, or `None`.
        delta_softplus: whether softplus is applied to `delta` after the bias.
        backend: `"auto"` or a name from `BACKENDS`.

    Returns:
        y (batch, channels, length) in float32 (float64 for float64 input): half precision is scanned in float32.

    Raises:
        ValueError: if shapes do not fit, one is no dense floating-point tensor or on another device, or the backend
            is unknown.
        RuntimeError: if the named backend cannot run on this device.
    """
    check_tensors(u=u, delta=delta, A=A, B=B, C=C)
    check_tensors(u=u, **{name: bias for name, bias in (("D", D), ("delta_bias", delta_bias)) if bias is not None})
    for name, tensor, num_axes in (("u", u, 3), ("A", A, 2)):
        if tensor.dim() != num_axes:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must have {num_axes} axes.")
    if B.dim() == 3:
        B = B.unsqueeze(1)
    if C.dim() == 3:
        C = C.unsqueeze(1)
    batch, channels, length = u.shape
    groups, state_size = B.shape[1] if B.dim() == 4 else 1, A.shape[-1]
    if delta.shape != u.shape:
        raise ValueError(f"delta has shape {tuple(delta.shape)}, u has {tuple(u.shape)}; give them the same shape.")
    if A.shape != (channels, state_size):
        raise ValueError(f"A has shape {tuple(A.shape)}; it must be (channels, state_size) with {channels} channels.")
    for name, tensor in (("B", B), ("C", C)):
        if tensor.shape != (batch, groups, state_size, length) or not groups or channels % groups:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; it must be (batch, groups, state_size, length) = "
                f"({batch}, groups, {state_size}, {length}) with groups dividing the {channels} channels."
            )
    check_shape("D", D, "(channels)", (channels,))
    check_shape("delta_bias", delta_bias, "(channels)", (channels,))
    name = find_backend_name(backend, u.device, u.dtype, "selective_scan")
    scan = BACKENDS[name].selective_scan
    check_derivative(name, u, delta, A, B, C, D, delta_bias)
    if not u.numel():
        return u.to(scan_dtype(u))
    with without_autocast(u):
        return scan(u, delta, A, B, C, D, delta_bias, delta_softplus)


def cross_selective_scan(
    x: torch.Tensor,
    x_proj_weight: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A_log: torch.Tensor,
    D: torch.Tensor,
    directions: tuple[Direction, ...] = tuple(Direction),
    backend: str = "auto",
) -> torch.Tensor:
    """
    Read a map along K directions, run a selective scan with its own weights on each, sum the outputs in pixel order.

    Source: VMamba, arXiv 2401.10166, section 4.2. Time steps are softplus(dt_proj(…) + bias), A = −exp(A_log).

    Args:
        x: map (batch, height, width, channels).
        x_proj_weight: (K, R + 2·N, channels); projects a pixel to time-step rank, B and C.
        dt_proj_weight: (K, channels, R).
        dt_proj_bias: (K, channels).
        A_log: (K·channels, N).
        D: skip weights (K·channels).
        directions: the reading order of each of the K scans.
        backend: `"auto"` or a name from `BACKENDS`.

    Returns:
        y (batch, height, width, channels) in float32 (float64 for float64 input).

    Raises:
        ValueError: if shapes do not fit, one is no dense floating-point tensor or on another device, or the backend
            is unknown.
        RuntimeError: if the named backend cannot run on this device.
    """
    check_tensors(
        x=x, x_proj_weight=x_proj_weight, dt_proj_weight=dt_proj_weight, dt_proj_bias=dt_proj_bias, A_log=A_log, D=D
    )
    for name, tensor, num_axes in (("dt_proj_weight", dt_proj_weight, 3), ("A_log", A_log, 2)):
        if tensor.dim() != num_axes:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must have {num_axes} axes.")
    num_directions, channels, time_step_rank = dt_proj_weight.shape
    if x.dim() != 4 or x.shape[-1] != channels:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (batch, height, width, channels = {channels}).")
    if not isinstance(directions, (tuple, list)):
        raise ValueError(f"directions is a {type(directions).__name__}; give a tuple of members of Direction.")
    if len(directions) != num_directions:
        raise ValueError(f"{len(directions)} directions came with weights for {num_directions}; give one per scan.")
    unknown = [direction for direction in directions if not isinstance(direction, Direction)]
    if unknown:
        raise ValueError(f"directions has {unknown[0]!r}; give members of Direction.")
    state_size = A_log.shape[-1]
    if x_proj_weight.shape != (num_directions, time_step_rank + 2 * state_size, channels):
        raise ValueError(
            f"x_proj_weight has shape {tuple(x_proj_weight.shape)}; it must be (K, R + 2·N, channels) = "
            f"({num_directions}, {time_step_rank + 2 * state_size}, {channels})."
        )
    check_shape("dt_proj_bias", dt_proj_bias, "(K, channels)", (num_directions, channels))
    check_shape("A_log", A_log, "(K·channels, N)", (num_directions * channels, state_size))
    check_shape("D", D, "(K·channels)", (num_directions * channels,))
    name = find_backend_name(backend, x.device, x.dtype, "cross_selective_scan")
    scan = BACKENDS[name].cross_selective_scan
    check_derivative(name, x, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D)
    if not x.numel():
        return x.to(scan_dtype(x))
    # 1×1 convolutions commute with the reading order: one matrix product in pixel order serves all directions.
    projections = F.linear(x, x_proj_weight.to(x.dtype).flatten(0, 1)).unflatten(-1, x_proj_weight.shape[:2])
    with without_autocast(x):
        dtype = scan_dtype(x)
        A, D = -torch.exp(A_log.to(dtype)), D.to(dtype)
        return scan(x, projections, dt_proj_weight.to(dtype), dt_proj_bias.to(dtype), A, D, directions)


def check_derivative(name: str, *tensors: torch.Tensor | None) -> None:
    """RuntimeError for forward-mode differentiation through an operator, which would take every derivative for 0."""
    if name == "reference" or torch.compiler.is_compiling():
        return
    if any(tensor is not None and unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise RuntimeError(
            f"scan backend {name!r} has no forward-mode derivative (torch.func.jvp, forward_ad); call "
            "model.set_scan_backend('reference')."
        )


def without_autocast(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """A context in which autocast is off; the meta device has none."""
    device_type = tensor.device.type
    return torch.autocast(device_type, enabled=False) if device_type != "meta" else nullcontext()


def check_tensors(**tensors: torch.Tensor) -> None:
    """ValueError unless all are dense floating-point tensors on the device of the first: kernels read their memory."""
    first = next(iter(tensors))
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}; it must be a tensor.")
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise ValueError(
                f"{name} is of {tensor.dtype}, {tensor.layout}; it must be floating point and dense (torch.strided)."
            )
        device = tensors[first].device
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, {first} is on {device}; give them on one device.")


def check_shape(name: str, tensor: torch.Tensor | None, words: str, shape: tuple[int, ...]) -> None:
    """ValueError for another shape: a kernel would read or write past the tensor's end."""
    if tensor is not None and tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {words} = {shape}.")


# ---------------------------------------------------------------------------------------------------- the reference


def selective_scan_reference(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
) -> torch.Tensor:
    """The recurrence of `selective_scan`, one time step at a time."""
    dtype = scan_dtype(u)
    u, delta, A, B, C = u.to(dtype), delta.to(dtype), A.to(dtype), B.to(dtype), C.to(dtype)
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype).unsqueeze(-1)
    if delta_softplus:
        delta = F.softplus(delta)
    channels_per_group = u.shape[1] // B.shape[1]
    B = B.repeat_interleave(channels_per_group, dim=1)  # (batch, channels, state_size, length)
    C = C.repeat_interleave(channels_per_group, dim=1)
    state = u.new_zeros(*u.shape[:2], A.shape[-1])
    outputs = []
    for t in range(u.shape[-1]):
        delta_t = delta[..., t].unsqueeze(-1)
        state = torch.exp(delta_t * A) * state + delta_t * B[..., t] * u[..., t].unsqueeze(-1)
        outputs.append((C[..., t] * state).sum(-1))
    y = torch.stack(outputs, dim=-1)
    return y if D is None else y + D.to(dtype).unsqueeze(-1) * u


def cross_scan(maps: torch.Tensor, directions: tuple[Direction, ...]) -> torch.Tensor:
    """
    Read `maps` (batch, height, width, K or 1, channels) along each direction: (batch, K, channels, height * width).
    """
    sequences = []
    for index, direction in enumerate(directions):
        plane = maps[..., index if maps.shape[3] > 1 else 0, :]
        sequence = rearrange(plane, "b h w c -> b c (w h)" if direction.is_column else "b h w c -> b c (h w)")
        sequences.append(sequence.flip(-1) if direction.is_reversed else sequence)
    return torch.stack(sequences, dim=1)


def cross_merge(sequences: torch.Tensor, size: tuple[int, ...], directions: tuple[Direction, ...]) -> torch.Tensor:
    """
    Put `sequences` (batch, K, channels, height * width) back in pixel order and sum: (batch, height, width, channels).
    """
    merged = sequences.new_zeros(())
    for sequence, direction in zip(sequences.unbind(1), directions):
        sequence = sequence.flip(-1) if direction.is_reversed else sequence
        order = "b c (w h) -> b h w c" if direction.is_column else "b c (h w) -> b h w c"
        merged = merged + rearrange(sequence, order, h=size[0], w=size[1])
    return merged


def _cross_selective_scan_composed(
    scan: Callable[..., torch.Tensor],
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: tuple[Direction, ...],
) -> torch.Tensor:
    """cross-scan → time-step projection → `scan` with one group per direction → cross-merge."""
    rank, state_size = dt_proj_weight.shape[-1], A.shape[-1]
    u = cross_scan(x.to(A.dtype).unsqueeze(3), directions).flatten(1, 2)  # (batch, K * channels, length)
    projections = cross_scan(projections.to(A.dtype), directions)  # (batch, K, R + 2 * N, length)
    dt, B, C = projections.split([rank, state_size, state_size], dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", dt, dt_proj_weight).flatten(1, 2)
    y = scan(u, delta, A, B, C, D, delta_bias=dt_proj_bias.flatten(), delta_softplus=True)
    return cross_merge(y.unflatten(1, dt_proj_bias.shape), x.shape[1:3], directions)


cross_selective_scan_reference = functools.partial(_cross_selective_scan_composed, selective_scan_reference)


# ----------------------------------------------------------------------------------------------- mamba-ssm's kernel


@functools.cache
def _load_mamba_ssm() -> tuple[Callable[..., torch.Tensor] | None, str]:
    """mamba-ssm's `selective_scan_fn` and an empty string, or `None` and the reason why it cannot be used."""
    try:
        importlib.import_module("selective_scan_cuda")  # mamba-ssm imports without it, and then fails when called
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn, ""
    except BROKEN as error:
        return None, f"{type(error).__name__}: {error}; install it with: {MAMBA_SSM_INSTALL}"


@functools.cache
def _fetch_mamba_ssm() -> tuple[Callable[..., torch.Tensor] | None, str]:
    """`selective_scan_fn` of the kernel on the Hub, downloaded unless it is in the cache; or `None` and why not."""
    try:
        kernel = importlib.import_module("kernels").get_kernel(HUB_KERNEL, version=HUB_KERNEL_VERSION)
        return kernel.selective_scan_fn, ""
    except (*BROKEN, HTTPError) as error:
        reason = " ".join(str(error).split())
        return None, (
            f"{HUB_KERNEL}, version {HUB_KERNEL_VERSION}, is not to be had: {type(error).__name__}: {reason}; start "
            "once with a network and without HF_HUB_OFFLINE, or bring it in the Hub's cache (HF_HOME)"
        )


def _selective_scan_fn(
    load: Callable[[], tuple[Callable[..., torch.Tensor] | None, str]],
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
) -> torch.Tensor:
    """`selective_scan` by mamba-ssm's kernel, in float32; `load` gives its function, or `None` and why not."""
    kernel, why_not = load()
    if kernel is None:
        raise RuntimeError(f"mamba-ssm's kernel cannot run: {why_not}.")
    u, delta, A, B, C = (tensor.float().contiguous() for tensor in (u, delta, A, B, C))
    D, delta_bias = (None if tensor is None else tensor.float() for tensor in (D, delta_bias))
    return kernel(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)


selective_scan_mamba_ssm = functools.partial(_selective_scan_fn, _load_mamba_ssm)
cross_selective_scan_mamba_ssm = functools.partial(_cross_selective_scan_composed, selective_scan_mamba_ssm)
selective_scan_kernels = functools.partial(_selective_scan_fn, _fetch_mamba_ssm)
cross_selective_scan_kernels = functools.partial(_cross_selective_scan_composed, selective_scan_kernels)


# ------------------------------------------------------------------------------------- table of backends and dispatch


@dataclass(frozen=True)
class ScanBackend:
    """
    One implementation of the two operations.

    `selective_scan` takes the arguments of the public function but `backend`. `cross_selective_scan` takes x,
    projections (batch, height, width, K, R + 2·N), dt_proj_weight, dt_proj_bias, A (K·channels, N), D, directions.
    `why_not` says why it cannot run on a device, or returns an empty string; it fetches nothing. `device_type` is the
    device that it is for, `None` for any; `is_float64` says whether it computes float64 in float64; `automatic` has
    the operations for which "auto" may take it. `other_devices` are types of devices for which it is too. `fetch` gets
    what it runs before its first call, from wherever that is, and says why it is not to be had.
    """

    selective_scan: Callable[..., torch.Tensor]
    cross_selective_scan: Callable[..., torch.Tensor]
    why_not: Callable[[torch.device], str]
    device_type: str | None = None
    is_float64: bool = True
    automatic: tuple[str, ...] = ("selective_scan", "cross_selective_scan")
    other_devices: tuple[str, ...] = ()
    fetch: Callable[[], str] = lambda: ""


def _why_not_mamba_ssm(device: torch.device) -> str:
    if device.type != "cuda":
        return f"mamba-ssm's kernel needs CUDA tensors, these are on {device.type}; use 'auto'"
    return _load_mamba_ssm()[1]


def _why_not_kernels(device: torch.device) -> str:
    if device.type not in ("cuda", "xpu"):
        return f"the kernel from the Hub needs CUDA or XPU tensors, these are on {device.type}; use 'auto'"
    try:
        importlib.metadata.version("kernels")
    except importlib.metadata.PackageNotFoundError:
        return "the package that fetches it from the Hub is missing; install it with: pip install kernels"
    if os.environ.get("USE_HUB_KERNELS", "YES").upper() not in ENV_VARS_TRUE_VALUES:  # as transformers reads it
        return f"USE_HUB_KERNELS={os.environ['USE_HUB_KERNELS']} forbids kernels from the Hub"
    has_tried = _fetch_mamba_ssm.cache_info().currsize
    return _fetch_mamba_ssm()[1] if has_tried else ""


# "auto" takes the first that can run; docs/gpu.md has the figures behind the order.
BACKENDS = {
    "cpu": ScanBackend(selective_scan_cpu, cross_selective_scan_cpu, _why_not_cpu, "cpu", is_float64=False),
    # Only the fused core is in Triton; sequences, which Vim and in-context fusion scan, are left to the next.
    "triton": ScanBackend(
        selective_scan_torch,
        cross_selective_scan_triton,
        _why_not_triton,
        "cuda",
        is_float64=False,
        automatic=("cross_selective_scan",),
    ),
    "mamba_ssm": ScanBackend(
        selective_scan_mamba_ssm,
        cross_selective_scan_mamba_ssm,
        _why_not_mamba_ssm,
        "cuda",
        is_float64=False,
    ),
    # The same kernel without a compiler. Whoever installs `kernels` says so that code may come from the Hub.
    "kernels": ScanBackend(
        selective_scan_kernels,
        cross_selective_scan_kernels,
        _why_not_kernels,
        "cuda",
        is_float64=False,
        other_devices=("xpu",),
        fetch=lambda: _fetch_mamba_ssm()[1],
    ),
    "torch": ScanBackend(selective_scan_torch, cross_selective_scan_torch, lambda device: ""),
    "reference": ScanBackend(selective_scan_reference, cross_selective_scan_reference, lambda device: ""),
}


def fastest_backend(
    device_type: str, dtype: torch.dtype = torch.float32, operation: str = "cross_selective_scan"
) -> tuple[str, str]:
    """
    What "auto" stands for: the first backend of the table that is meant for such tensors and can run, and an empty
    string; or "torch", and why none of those that are meant for them can run.
    """
    reasons = []
    for name, backend in BACKENDS.items():
        devices = (backend.device_type, *backend.other_devices)
        is_meant = device_type in devices and operation in backend.automatic
        if is_meant and (backend.is_float64 or dtype != torch.float64):
            why_not = backend.why_not(torch.device(device_type))
            if not why_not:
                return name, ""
            reasons.append(why_not)
    return "torch", "; ".join(reasons)


def check_backend_name(name: str) -> None:
    """ValueError if `name` is neither "auto" nor in the table."""
    if name not in ["auto", *BACKENDS]:
        raise ValueError(f"scan backend {name!r} is unknown; use 'auto' or one of {sorted(BACKENDS)}.")


def find_backend_name(name: str, device: torch.device, dtype: torch.dtype, operation: str) -> str:
    """
    `name`, or for `"auto"` that of the fastest backend that runs on `device` and keeps float64.

    Raises:
        ValueError: if there is no such backend.
        RuntimeError: if it cannot run.
    """
    if name == "auto":
        return _choose_backend(device.type, dtype, operation)
    check_backend_name(name)
    why_not = _why_not_by_name(name, device)
    if why_not:
        raise RuntimeError(f"scan backend {name!r} cannot run: {why_not}.")
    if dtype == torch.float64 and not BACKENDS[name].is_float64:
        raise RuntimeError(
            f"scan backend {name!r} computes in float32, these tensors are float64; "
            "use 'auto', 'torch' or 'reference'."
        )
    return name


# torch.compile takes the answer of the next two and does not trace the search for it.


@torch.compiler.assume_constant_result
def _why_not_by_name(name: str, device: torch.device) -> str:
    return BACKENDS[name].why_not(device) or BACKENDS[name].fetch()


@torch.compiler.assume_constant_result
def _choose_backend(
    device_type: str, dtype: torch.dtype = torch.float32, operation: str = "cross_selective_scan"
) -> str:
    """Name of the fastest backend; says so once when all that are meant for the device are missing."""
    name, why_not = fastest_backend(device_type, dtype, operation)
    if BACKENDS[name].fetch():  # not to be had, as its why_not says from now on
        name, why_not = fastest_backend(device_type, dtype, operation)
    if why_not:
        kernel = {"cpu": "C++"}.get(device_type, device_type.upper())
        logger.warning_once(
            f"The scan runs in blocks of PyTorch operations, for the fast {kernel} kernel is missing: {why_not}; "
            "`remamber env` shows what can run here."
        )
    return name


__all__ = [
    "BACKENDS",
    "Direction",
    "ScanBackend",
    "check_backend_name",
    "check_derivative",
    "check_shape",
    "check_tensors",
    "cross_selective_scan",
    "fastest_backend",
    "find_backend_name",
    "scan_dtype",
    "selective_scan",
    "without_autocast",
]
