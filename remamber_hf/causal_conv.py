# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The causal convolution before Mamba's scan (arXiv 2312.00752, figure 3): contract, versions, table, dispatch."""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import logging

from .selective_scan import BROKEN, MAMBA_SSM_INSTALL


logger = logging.get_logger(__name__)

KERNEL_WIDTHS = (2, 3, 4)  # of causal-conv1d's kernel


def causal_conv1d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, backend: str = "auto"
) -> torch.Tensor:
    """
    SiLU of a depthwise convolution that sees the current step and those before it.

    Args:
        x: sequences (batch, channels, length).
        weight: (channels, width), the last column for the current step.
        bias: (channels), or `None`.
        backend: `"auto"` or a name from `CONV_BACKENDS`.

    Returns:
        (batch, channels, length) in the type of `x`.

    Raises:
        ValueError: if shapes do not fit or the backend is unknown.
        RuntimeError: if the named backend cannot run on these tensors.
    """
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[1]:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, weight has {tuple(weight.shape)}; they must be (batch, channels, length) "
            "and (channels, width)."
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}; it must be (channels) = ({weight.shape[0]},).")
    name = choose_conv_backend(x.device.type, x.dtype, weight.shape[1]) if backend == "auto" else backend
    check_conv_backend_name(name)
    why_not = why_not_conv(name, x.device.type, x.dtype, weight.shape[1])
    if why_not:
        raise RuntimeError(f"convolution backend {name!r} cannot run: {why_not}.")
    return CONV_BACKENDS[name].convolve(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def causal_conv1d_torch(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """By PyTorch's convolution, on any device."""
    channels, width = weight.shape
    convolved = F.conv1d(x, weight.unsqueeze(1), bias, padding=width - 1, groups=channels)
    return F.silu(convolved[..., : x.shape[-1]])


def causal_conv1d_cuda(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """By causal-conv1d's CUDA kernel."""
    kernel, why_not = load_causal_conv1d()
    if kernel is None:
        raise RuntimeError(f"causal-conv1d's kernel cannot run: {why_not}.")
    return kernel(x.contiguous(), weight.contiguous(), bias, activation="silu")


@functools.cache
def load_causal_conv1d() -> tuple[Callable[..., torch.Tensor] | None, str]:
    """causal-conv1d's function and an empty string, or `None` and the reason why it cannot be used."""
    try:
        importlib.import_module("causal_conv1d_cuda")  # what the package imports where it is there; else it is None
        return importlib.import_module("causal_conv1d").causal_conv1d_fn, ""
    except BROKEN as error:
        return None, f"{type(error).__name__}: {error}; install it with: {MAMBA_SSM_INSTALL}"


def _why_not_causal_conv1d(device_type: str, dtype: torch.dtype, width: int) -> str:
    if device_type != "cuda":
        return f"causal-conv1d's kernel needs CUDA tensors, these are on {device_type}; use 'auto'"
    if dtype == torch.float64 or width not in KERNEL_WIDTHS:
        return (
            f"causal-conv1d's kernel is for widths {KERNEL_WIDTHS} in 16 or 32 bits, here {width} in {dtype}; "
            "use 'auto'"
        )
    return load_causal_conv1d()[1]


@dataclass(frozen=True)
class ConvBackend:
    """
    One implementation: `convolve` takes x, weight and bias of one type. `why_not` says why it cannot run on a type of
    device and of tensor with a width, or returns an empty string. `device_type` is the device that it is for, `None`
    for any.
    """

    convolve: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
    why_not: Callable[[str, torch.dtype, int], str]
    device_type: str | None = None


# "auto" takes the first that can run.
CONV_BACKENDS = {
    "causal_conv1d": ConvBackend(causal_conv1d_cuda, _why_not_causal_conv1d, "cuda"),
    "torch": ConvBackend(causal_conv1d_torch, lambda device_type, dtype, width: ""),
}


def check_conv_backend_name(name: str) -> None:
    """ValueError if `name` is neither "auto" nor in the table."""
    if name not in ["auto", *CONV_BACKENDS]:
        raise ValueError(f"convolution backend {name!r} is unknown; use 'auto' or one of {sorted(CONV_BACKENDS)}.")


# torch.compile takes the answers of the next two and does not trace the search for them.


@torch.compiler.assume_constant_result
def why_not_conv(name: str, device_type: str, dtype: torch.dtype, width: int) -> str:
    """Why the backend called `name` cannot run on such tensors, or an empty string."""
    return CONV_BACKENDS[name].why_not(device_type, dtype, width)


@torch.compiler.assume_constant_result
def choose_conv_backend(device_type: str, dtype: torch.dtype, width: int) -> str:
    """Name of the first backend that can run; says so once where the one that is made for the device is missing."""
    for name, backend in CONV_BACKENDS.items():
        why_not = backend.why_not(device_type, dtype, width)
        if not why_not:
            return name
        if backend.device_type == device_type:
            logger.warning_once(f"The causal convolution runs as PyTorch's own: {why_not}.")
    raise AssertionError("the last backend of the table runs anywhere")


__all__ = ["CONV_BACKENDS", "ConvBackend", "causal_conv1d", "check_conv_backend_name"]
