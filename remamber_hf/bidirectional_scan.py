# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The core of Vim's block (arXiv 2401.09417, algorithm 1): a sequence, convolved and scanned forward and backward.

Composed of the two operations that have backends, `causal_conv1d` and `selective_scan`: one call of each, in which the
directions are two groups of channels. On a CPU with the C++ kernels it is composed of these instead, which read a
sequence from either end where it lies: nothing is turned or put together.
"""

import torch
import torch.nn.functional as F

from .causal_conv import causal_conv1d
from .cpu_conv import causal_conv_both_ways
from .cpu_scan import cross_selective_scan_cpu
from .selective_scan import (
    Direction,
    check_derivative,
    check_shape,
    check_tensors,
    find_backend_name,
    scan_dtype,
    selective_scan,
    without_autocast,
)


NUM_DIRECTIONS = 2  # forward, backward


def bidirectional_scan(
    x: torch.Tensor,
    conv_weight: torch.Tensor,
    conv_bias: torch.Tensor | None,
    x_proj_weight: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A_log: torch.Tensor,
    D: torch.Tensor,
    scan_backend: str = "auto",
    conv_backend: str = "auto",
) -> torch.Tensor:
    """
    Sum of two selective scans of a sequence, forward and backward, each behind a causal convolution of its own.

    Time steps are softplus(dt_proj(…) + bias), A = −exp(A_log). All weights have the forward direction first.

    Args:
        x: (batch, length, channels).
        conv_weight, conv_bias: (2 * channels, width) and (2 * channels), or `None`, of the depthwise convolutions.
        x_proj_weight: (2, R + 2·N, channels); projects a step to time-step rank, B and C.
        dt_proj_weight: (2, channels, R).
        dt_proj_bias: (2, channels).
        A_log: (2 * channels, N).
        D: skip weights (2 * channels).
        scan_backend: `"auto"` or a name from `selective_scan.BACKENDS`.
        conv_backend: `"auto"` or a name from `causal_conv.CONV_BACKENDS`.

    Returns:
        y (batch, length, channels) in float32 (float64 for float64 input).

    Raises:
        ValueError: if shapes do not fit, one is no dense floating-point tensor or on another device, or a backend is
            unknown.
        RuntimeError: if a named backend cannot run on this device.
    """
    biases = {} if conv_bias is None else {"conv_bias": conv_bias}
    check_tensors(x=x, conv_weight=conv_weight, x_proj_weight=x_proj_weight, dt_proj_weight=dt_proj_weight, **biases)
    check_tensors(x=x, dt_proj_bias=dt_proj_bias, A_log=A_log, D=D)
    if x.dim() != 3 or not x.shape[-1]:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (batch, length, channels).")
    channels = x.shape[-1]
    both = NUM_DIRECTIONS * channels
    width, rank, state_size = (
        tensor.shape[-1] if tensor.dim() else 0 for tensor in (conv_weight, dt_proj_weight, A_log)
    )
    projected = (NUM_DIRECTIONS, rank + 2 * state_size, channels)
    check_shape("conv_weight", conv_weight, "(2 * channels, width)", (both, max(width, 1)))
    check_shape("conv_bias", conv_bias, "(2 * channels)", (both,))
    check_shape("x_proj_weight", x_proj_weight, "(2, R + 2·N, channels)", projected)
    check_shape("dt_proj_weight", dt_proj_weight, "(2, channels, R)", (NUM_DIRECTIONS, channels, rank))
    check_shape("dt_proj_bias", dt_proj_bias, "(2, channels)", (NUM_DIRECTIONS, channels))
    check_shape("A_log", A_log, "(2 * channels, N)", (both, state_size))
    check_shape("D", D, "(2 * channels)", (both,))
    dtype = scan_dtype(x)
    with without_autocast(x):
        weights = dt_proj_weight.to(dtype), dt_proj_bias.to(dtype), -torch.exp(A_log.to(dtype)), D.to(dtype)
    name = find_backend_name(scan_backend, x.device, x.dtype, "selective_scan")
    check_derivative(name, x, conv_weight, conv_bias, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D)
    if name == "cpu" and conv_backend == "auto" and x.numel():
        return _scan_where_it_lies(x, conv_weight, conv_bias, x_proj_weight, *weights)
    return _scan_as_groups(x, conv_weight, conv_bias, x_proj_weight, *weights, name, conv_backend)


def _scan_as_groups(
    x: torch.Tensor,
    conv_weight: torch.Tensor,
    conv_bias: torch.Tensor | None,
    x_proj_weight: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    scan_backend: str,
    conv_backend: str,
) -> torch.Tensor:
    """One call of the convolution and one of the scan, in which the second half of the channels runs backward."""
    rank, state_size = dt_proj_weight.shape[-1], A.shape[-1]
    u = causal_conv1d(both_ways(x.mT), conv_weight, conv_bias, conv_backend)  # (batch, 2 * channels, length)
    projections = torch.matmul(x_proj_weight.to(u.dtype), u.unflatten(1, (NUM_DIRECTIONS, -1)))
    with without_autocast(u):
        dt, B, C = projections.to(A.dtype).split([rank, state_size, state_size], dim=2)
        delta = torch.matmul(dt_proj_weight, dt).flatten(1, 2)
        bias = dt_proj_bias.flatten()
        y = selective_scan(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True, backend=scan_backend)
    return one_way(y).mT


def _scan_where_it_lies(
    x: torch.Tensor,
    conv_weight: torch.Tensor,
    conv_bias: torch.Tensor | None,
    x_proj_weight: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
) -> torch.Tensor:
    """By the C++ kernels: the sequence is a map of one row, read along it and back."""
    u = causal_conv_both_ways(x, conv_weight, conv_bias).to(x.dtype)  # (batch, length, 2, channels)
    weight = x_proj_weight.to(u.dtype)
    projections = torch.stack([F.linear(u[:, :, way], weight[way]) for way in range(NUM_DIRECTIONS)], dim=2)
    with without_autocast(x):
        directions = (Direction.ROW, Direction.ROW_REVERSED)
        weights = dt_proj_weight, dt_proj_bias, A, D, directions
        y = cross_selective_scan_cpu(u.unsqueeze(1), projections.unsqueeze(1), *weights)
    forward, backward = y.squeeze(1).unbind(2)
    return forward + backward


def both_ways(x: torch.Tensor) -> torch.Tensor:
    """Sequences (batch, channels, length) and, as further channels, the same from their ends."""
    return torch.cat([x, x.flip(-1)], dim=1)


def one_way(y: torch.Tensor) -> torch.Tensor:
    """Sum of the two halves of `both_ways`, the second turned round."""
    forward, backward = y.chunk(2, dim=1)
    return forward + backward.flip(-1)


__all__ = ["bidirectional_scan"]
