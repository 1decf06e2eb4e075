# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The C++ kernel of the causal convolutions of both directions (csrc/causal_conv.cpp), as PyTorch operators.

It is in the libraries that `cpu_scan.py` loads.
"""

import ctypes
from typing import Any

import torch

from .cpu_scan import loaded_library, run_kernel
from .torch_scan import operator_name, register_flops


THREAD_VALUES = 2**15  # a further thread is worth starting for this many values of the output


class _Arguments(ctypes.Structure):
    """`ConvArguments` of csrc/causal_conv.cpp, which says what each of them is."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in "x weight bias y grad_y grad_x grad_weight grad_bias parallel".split()),
        *((name, ctypes.c_int64) for name in "batch length channels width x_stride workers".split()),
    ]


def _kernel_arguments(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> tuple[ctypes.CDLL, dict[str, torch.Tensor], dict[str, int]]:
    """The library, what both passes give it, and the sizes. A half of in_proj's output is read where it lies."""
    library = loaded_library()
    batch, length, channels = x.shape
    rows = x.reshape(batch * length, channels)  # where that is no view of x, a copy
    if channels > 1 and rows.stride(1) != 1:
        rows = rows.contiguous()
    blocks = -(-channels // library.remamber_conv_block())
    workers = max(1, min(torch.get_num_threads(), blocks, 2 * x.numel() // THREAD_VALUES))
    tensors = {
        "x": rows,
        "weight": weight.unflatten(0, (2, channels)).mT.contiguous(),  # (2, width, channels)
        "bias": bias.contiguous(),
    }
    sizes = {
        "batch": batch,
        "length": length,
        "channels": channels,
        "width": weight.shape[1],
        "x_stride": rows.stride(0) if len(rows) > 1 else channels,  # of a single one it may be anything
        "workers": workers,
    }
    return library, tensors, sizes


@torch.library.custom_op(operator_name("causal_conv_both_ways"), mutates_args=(), device_types="cpu")
def _conv_op(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    library, tensors, sizes = _kernel_arguments(x, weight, bias)
    y = _make_output(x)
    run_kernel(library.remamber_conv_forward, _Arguments, {**tensors, "y": y}, sizes)
    return y


@_conv_op.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return _make_output(x)


def _make_output(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], x.shape[1], 2, x.shape[2])


@torch.library.custom_op(operator_name("causal_conv_both_ways_backward"), mutates_args=(), device_types="cpu")
def _conv_backward_op(
    grad_y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> list[torch.Tensor]:
    """Gradients of x, weight, bias."""
    library, tensors, sizes = _kernel_arguments(x, weight, bias)
    grad_weight = weight.new_empty(2, sizes["width"], sizes["channels"])
    gradients = {"grad_x": x.new_zeros(x.shape), "grad_weight": grad_weight, "grad_bias": bias.new_empty(bias.shape)}
    tensors |= {"grad_y": grad_y.contiguous(), **gradients}
    run_kernel(library.remamber_conv_backward, _Arguments, tensors, sizes)
    return [gradients["grad_x"], grad_weight.mT.flatten(0, 1).contiguous(), gradients["grad_bias"]]


@_conv_backward_op.register_fake
def _(grad_y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
    return [torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in (x, weight, bias)]


def _setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(_conv_backward_op(grad_y, *ctx.saved_tensors))


_conv_op.register_autograd(_backward, setup_context=_setup_context)


def conv_flops(x: tuple[int, ...], weight: tuple[int, ...], *others: Any) -> int:
    """Operations of both convolutions by the shapes of their arguments, as PyTorch counts one."""
    return 2 * x[0] * x[1] * weight[0] * weight[1]


register_flops(_conv_op, _conv_backward_op, conv_flops)


def causal_conv_both_ways(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """
    SiLU of two depthwise convolutions, of which one sees the current step and those before it, the other those after.

    Args:
        x: (batch, length, channels), of any type but float64.
        weight: (2 * channels, width), forward and then backward, in float32; the last column for the current step.
        bias: (2 * channels), or `None`.

    Returns:
        (batch, length, 2, channels) in float32, both in the order of `x`.
    """
    weight = weight.float()
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias.float()
    return _conv_op(x.float(), weight, bias)
