# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels for GPUs as PyTorch operators: `cross_selective_scan` over them.

`selective_scan.py` has the contract and the letters, `triton_kernels.py` the kernels, which are imported when they are
first looked for. With TRITON_INTERPRET=1 in the environment they run on CPU tensors, in Triton's interpreter: a check
of what they compute, thousands of times slower.
"""

import functools
import os
from collections.abc import Sequence

import torch

from .torch_scan import cross_selective_scan_flops, operator_name, register_backward, register_flops


def why_not(device: torch.device) -> str:
    """Why the kernels cannot run on `device`, or an empty string."""
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the Triton kernels need CUDA tensors, these are on {device.type}; use 'auto'"
    if device.type == "cuda" and torch.cuda.is_available():
        if torch.version.hip:
            return "the Triton kernels were never tried on an AMD GPU"
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            return f"the Triton kernels need TF32, compute capability 8.0 or newer; this GPU has {major}.{minor}"
    return _why_not_imported()


@functools.cache
def _why_not_imported() -> str:
    """Why the kernels cannot be imported, or an empty string; looked up once, for it is asked at every scan."""
    try:
        from .triton_kernels import scan_map  # noqa: F401
    except ImportError as error:
        return str(error)
    return ""


@torch.library.custom_op(operator_name("cross_selective_scan_triton"), mutates_args=())
def _cross_selective_scan_op(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: list[int],
    keeps_states: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and states (batch, K, …, N, channels) for the backward pass, none unless they are kept."""
    from .triton_kernels import scan_map

    tensors = (x, projections, dt_proj_weight, dt_proj_bias, A, D)
    return scan_map(*(tensor.contiguous() for tensor in tensors), directions=directions, keeps_states=keeps_states)


@_cross_selective_scan_op.register_fake
def _(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: list[int],
    keeps_states: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    from .triton_kernels import num_kept

    kept = num_kept(x) if keeps_states else 0
    return A.new_empty(x.shape), A.new_empty(x.shape[0], len(directions), kept, A.shape[-1], x.shape[-1])


@torch.library.custom_op(operator_name("cross_selective_scan_triton_backward"), mutates_args=())
def _cross_selective_scan_backward_op(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    states: torch.Tensor,
    directions: list[int],
) -> list[torch.Tensor]:
    """Gradients of x, projections, dt_proj_weight, dt_proj_bias, A, D."""
    from .triton_kernels import scan_map_backward

    tensors = (grad_y, x, projections, dt_proj_weight, dt_proj_bias, A, D, states)
    gradients = scan_map_backward(*(tensor.contiguous() for tensor in tensors), directions=directions)
    return [gradient.to(tensor.dtype).contiguous() for gradient, tensor in zip(gradients, tensors[1:7])]


register_backward(_cross_selective_scan_op, _cross_selective_scan_backward_op)
register_flops(_cross_selective_scan_op, _cross_selective_scan_backward_op, cross_selective_scan_flops)


def cross_selective_scan_triton(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: Sequence[int],
) -> torch.Tensor:
    """`cross_selective_scan` by the Triton kernels: x and projections in any type but float64, weights in float32."""
    codes = [int(direction) for direction in directions]
    keeps_states = torch.is_grad_enabled()  # only a backward pass reads them
    return _cross_selective_scan_op(x, projections, dt_proj_weight, dt_proj_bias, A, D, codes, keeps_states)[0]
