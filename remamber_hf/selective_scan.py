# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The selective scan of Mamba (arXiv 2312.00752) and SS2D's cross-selective-scan over it (VMamba, arXiv 2401.10166).

Two operations, each with one contract and the same backends:

- `selective_scan` is mamba-ssm's operation on sequences.
- `cross_selective_scan` reads a map along several directions, scans each and sums the outputs in pixel order.

The file goes contract, reference, composition over mamba-ssm's kernel, blocked PyTorch version, table of backends,
dispatch; the C++ kernel for CPUs is in `cpu_scan.py`, the Triton kernels for GPUs are in `triton_scan.py`. Letters are
those of the paper: `u` input, `delta` time step, `A` decay, `B` input and `C` output projection, `D` skip, N state
size, R time-step rank, K number of directions.
"""

import functools
import importlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F
from transformers.utils import logging

from .cpu_scan import cross_selective_scan_cpu, operator_name, register_backward, selective_scan_cpu
from .cpu_scan import why_not as _why_not_cpu
from .triton_scan import cross_selective_scan_triton
from .triton_scan import why_not as _why_not_triton


logger = logging.get_logger(__name__)

MAMBA_SSM_INSTALL = (
    "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation --no-binary mamba-ssm mamba-ssm causal-conv1d"
)


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


class Direction(IntEnum):
    """Reading order of a map: along rows, along columns, or the reverse of either."""

    ROW = 0
    COLUMN = 1
    ROW_REVERSED = 2
    COLUMN_REVERSED = 3

    @property
    def is_column(self) -> bool:
        return self in (Direction.COLUMN, Direction.COLUMN_REVERSED)

    @property
    def is_reversed(self) -> bool:
        return self in (Direction.ROW_REVERSED, Direction.COLUMN_REVERSED)


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
    _check_tensors(u=u, delta=delta, A=A, B=B, C=C)
    _check_tensors(u=u, **{name: bias for name, bias in (("D", D), ("delta_bias", delta_bias)) if bias is not None})
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
    _check_shape("D", D, "(channels)", (channels,))
    _check_shape("delta_bias", delta_bias, "(channels)", (channels,))
    scan = _find_backend(backend, u.device, u.dtype, "selective_scan").selective_scan
    if not u.numel():
        return u.to(_scan_dtype(u))
    with _without_autocast(u):
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
    _check_tensors(
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
    _check_shape("dt_proj_bias", dt_proj_bias, "(K, channels)", (num_directions, channels))
    _check_shape("A_log", A_log, "(K·channels, N)", (num_directions * channels, state_size))
    _check_shape("D", D, "(K·channels)", (num_directions * channels,))
    scan = _find_backend(backend, x.device, x.dtype).cross_selective_scan
    if not x.numel():
        return x.to(_scan_dtype(x))
    # 1×1 convolutions commute with the reading order: one matrix product in pixel order serves all directions.
    projections = F.linear(x, x_proj_weight.to(x.dtype).flatten(0, 1)).unflatten(-1, x_proj_weight.shape[:2])
    with _without_autocast(x):
        dtype = _scan_dtype(x)
        A, D = -torch.exp(A_log.to(dtype)), D.to(dtype)
        return scan(x, projections, dt_proj_weight.to(dtype), dt_proj_bias.to(dtype), A, D, directions)


def _without_autocast(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """A context in which autocast is off; the meta device has none."""
    device_type = tensor.device.type
    return torch.autocast(device_type, enabled=False) if device_type != "meta" else nullcontext()


def _check_tensors(**tensors: torch.Tensor) -> None:
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


def _check_shape(name: str, tensor: torch.Tensor | None, words: str, shape: tuple[int, ...]) -> None:
    """ValueError for another shape: a kernel would read or write past the tensor's end."""
    if tensor is not None and tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {words} = {shape}.")


def _scan_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


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
    dtype = _scan_dtype(u)
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
        plane = plane.transpose(1, 2) if direction.is_column else plane
        sequence = plane.flatten(1, 2).transpose(1, 2)  # (batch, channels, height * width)
        sequences.append(sequence.flip(-1) if direction.is_reversed else sequence)
    return torch.stack(sequences, dim=1)


def cross_merge(sequences: torch.Tensor, size: tuple[int, ...], directions: tuple[Direction, ...]) -> torch.Tensor:
    """
    Put `sequences` (batch, K, channels, height * width) back in pixel order and sum: (batch, height, width, channels).
    """
    merged = sequences.new_zeros(())
    for sequence, direction in zip(sequences.unbind(1), directions):
        sequence = sequence.flip(-1) if direction.is_reversed else sequence
        plane = sequence.transpose(1, 2).unflatten(1, size[::-1] if direction.is_column else size)
        merged = merged + (plane.transpose(1, 2) if direction.is_column else plane)
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


def selective_scan_mamba_ssm(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
) -> torch.Tensor:
    """`selective_scan` by mamba-ssm's CUDA kernel, in float32."""
    kernel, why_not = _load_mamba_ssm()
    if kernel is None:
        raise RuntimeError(f"mamba-ssm's kernel cannot run: {why_not}.")
    u, delta, A, B, C = (tensor.float().contiguous() for tensor in (u, delta, A, B, C))
    D, delta_bias = (None if tensor is None else tensor.float() for tensor in (D, delta_bias))
    return kernel(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)


cross_selective_scan_mamba_ssm = functools.partial(_cross_selective_scan_composed, selective_scan_mamba_ssm)


# ------------------------------------------------------------------------------------------ blocked PyTorch version
#
# Time is cut into blocks that fit the cache. Of each block only the state that enters it is kept; the backward pass
# computes the rest again. Inside, sequences are (batch, time, groups, channels), states (batch, time, groups, N,
# channels).

BLOCK_STATES = 2**18  # states of a block in all: 1 MiB in float32
MIN_BLOCK_LENGTH = 64  # time steps


def _block_length(states_per_step: int) -> int:
    return max(MIN_BLOCK_LENGTH, BLOCK_STATES // states_per_step)


def _has_unknown_size(tensor: torch.Tensor) -> bool:
    """Whether a program is traced for many sizes: the number of blocks, which depends on them, is unknown then too."""
    return any(isinstance(size, torch.SymInt) for size in tensor.shape)


def _recurrence_(decay: torch.Tensor, drive: torch.Tensor, carry: torch.Tensor, is_reversed: bool) -> torch.Tensor:
    """
    States h_t = decay_t · h_{t-1} + drive_t along dimension 1 of (batch, time, …), from `carry` (batch, …).

    Chunks of about √time steps run side by side, then the states that enter them are chained. Overwrites both inputs.
    """
    batch, length = drive.shape[:2]
    chunk = math.isqrt(length - 1) + 1
    num_chunks = -(-length // chunk)
    padding = num_chunks * chunk - length
    if padding:  # steps with decay 1 and drive 0 pass the state on
        decay = torch.cat([decay, decay.new_ones(batch, padding, *decay.shape[2:])], dim=1)
        drive = torch.cat([drive, drive.new_zeros(batch, padding, *drive.shape[2:])], dim=1)
    states = drive.view(batch, num_chunks, chunk, -1)
    products = decay.view(batch, num_chunks, chunk, -1)
    order = slice(None, None, -1) if is_reversed else slice(None)
    state_steps, product_steps = states.unbind(2)[order], products.unbind(2)[order]
    for t in range(1, chunk):
        state_steps[t].addcmul_(product_steps[t], state_steps[t - 1])
        product_steps[t].mul_(product_steps[t - 1])
    carry = carry.flatten(1)
    entering = []  # the state that enters each chunk
    for state, product in zip(state_steps[-1].unbind(1)[order], product_steps[-1].unbind(1)[order]):
        entering.append(carry)
        carry = torch.addcmul(state, product, carry)
    states.addcmul_(products, torch.stack(entering[order], dim=1).unsqueeze(2))
    return drive[:, :length]


def _delayed(values: torch.Tensor, first: torch.Tensor, is_reversed: bool) -> torch.Tensor:
    """`values` (batch, time, …) one step later in scan order, with `first` (batch, …) entering."""
    if is_reversed:
        return torch.cat([values[:, 1:], first.unsqueeze(1)], dim=1)
    return torch.cat([first.unsqueeze(1), values[:, :-1]], dim=1)


def _sum_states(values: torch.Tensor) -> torch.Tensor:
    """Sum over N of (batch, time, groups, N, channels)."""
    return values.squeeze(3) if values.shape[3] == 1 else values.sum(3)


def _block_forward(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    carry: torch.Tensor,
    is_reversed: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of one block, and the state that leaves it."""
    decay = torch.exp_(delta.unsqueeze(3) * A)
    drive = (delta * u).unsqueeze(3) * B.unsqueeze(4)
    states = _recurrence_(decay, drive, carry, is_reversed)
    carry = states[:, 0 if is_reversed else -1].clone()
    return _sum_states(states.mul_(C.unsqueeze(4))).addcmul_(D, u), carry


def _block_backward(
    grad_y: torch.Tensor,
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor,
    carry: torch.Tensor,
    grad_carry: torch.Tensor,
    is_reversed: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of u, delta, A, B, C, D and of the state that enters, from those of output and leaving state."""
    decay = torch.exp_(delta.unsqueeze(3) * A)
    drive = (delta * u).unsqueeze(3) * B.unsqueeze(4)
    states = _recurrence_(decay.clone(), drive, carry, is_reversed)
    grad_states = grad_y.unsqueeze(3) * C.unsqueeze(4)
    next_decay = _delayed(decay, torch.ones_like(carry), not is_reversed)
    grad_states = _recurrence_(next_decay, grad_states, grad_carry, not is_reversed)
    grad_C = (states * grad_y.unsqueeze(3)).sum(4)
    grad_decayed = grad_states * decay
    grad_carry = grad_decayed[:, -1 if is_reversed else 0].clone()
    grad_exponent = grad_decayed.mul_(_delayed(states, carry, is_reversed))  # of delta · A
    grad_A = (grad_exponent * delta.unsqueeze(3)).sum((0, 1))
    grad_B = (grad_states * (delta * u).unsqueeze(3)).sum(4)
    grad_input = _sum_states(grad_states.mul_(B.unsqueeze(4)))  # of delta · u
    grad_delta = _sum_states(grad_exponent.mul_(A)).addcmul_(grad_input, u)
    grad_u = (grad_input * delta).addcmul_(D, grad_y)
    grad_D = (grad_y * u).sum((0, 1))
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_carry


def _softplus_backward(grad_delta: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Gradient before softplus, from its output: the derivative is 1 − exp(−softplus)."""
    return grad_delta.mul_(torch.expm1(-delta).neg_())


BlockInputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # u, …, D


class _SequenceBlocks:
    """Blocks of `selective_scan`'s tensors, laid out as (batch, time, groups, …)."""

    def __init__(
        self,
        u: torch.Tensor,
        delta: torch.Tensor,
        A: torch.Tensor,
        B: torch.Tensor,
        C: torch.Tensor,
        D: torch.Tensor,
        delta_bias: torch.Tensor,
        delta_softplus: bool,
    ):
        batch, channels, self.length = u.shape
        self.groups, self.state_size = B.shape[1:3]
        self.inner = channels // self.groups
        self.u, self.delta, self.B, self.C = u, delta, B, C
        self.dtype, self.delta_softplus = A.dtype, delta_softplus
        self.A = A.view(self.groups, self.inner, self.state_size).transpose(1, 2).contiguous()
        self.D, self.delta_bias = D.view(self.groups, self.inner), delta_bias.view(self.groups, self.inner)
        self.block = _block_length(batch * channels * self.state_size)
        self.starts = range(0, self.length, self.block)
        self.state_shape = (batch, self.groups, self.state_size, self.inner)

    def sequence(self, tensor: torch.Tensor, start: int) -> torch.Tensor:
        """Block of (batch, channels, length) as (batch, time, groups, channels / groups)."""
        block = tensor[..., start : start + self.block].transpose(1, 2)
        return block.unflatten(2, (self.groups, self.inner)).to(self.dtype).contiguous()

    def projection(self, tensor: torch.Tensor, start: int) -> torch.Tensor:
        """Block of (batch, groups, N, length) as (batch, time, groups, N)."""
        block = tensor[..., start : start + self.block].permute(0, 3, 1, 2)
        return block.to(self.dtype).contiguous()

    def inputs(self, start: int) -> BlockInputs:
        delta = self.sequence(self.delta, start) + self.delta_bias
        delta = F.softplus(delta) if self.delta_softplus else delta
        B, C = self.projection(self.B, start), self.projection(self.C, start)
        return self.sequence(self.u, start), delta, self.A, B, C, self.D


@torch.library.custom_op(operator_name("selective_scan"), mutates_args=())
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
    """Output, and the states that enter each block (blocks, batch, groups, N, channels / groups)."""
    blocks = _SequenceBlocks(u, delta, A, B, C, D, delta_bias, delta_softplus)
    y = torch.empty_like(u, dtype=A.dtype, memory_format=torch.contiguous_format)
    carries = A.new_empty(len(blocks.starts), *blocks.state_shape)
    carry = A.new_zeros(blocks.state_shape)
    for index, start in enumerate(blocks.starts):
        carries[index] = carry
        y_block, carry = _block_forward(*blocks.inputs(start), carry, is_reversed=False)
        y[..., start : start + blocks.block] = y_block.flatten(2).transpose(1, 2)
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
    batch, channels, length = u.shape
    groups, state_size = B.shape[1:3]
    num_blocks: int | torch.SymInt
    if _has_unknown_size(u):
        num_blocks = torch.library.get_ctx().new_dynamic_size()
    else:
        num_blocks = -(-length // _block_length(batch * channels * state_size))
    y = torch.empty_like(u, dtype=A.dtype, memory_format=torch.contiguous_format)
    return y, A.new_empty(num_blocks, batch, groups, state_size, channels // groups)


@torch.library.custom_op(operator_name("selective_scan_backward"), mutates_args=())
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
    blocks = _SequenceBlocks(u, delta, A, B, C, D, delta_bias, delta_softplus)
    grad_u, grad_delta, grad_B, grad_C = (tensor.new_empty(tensor.shape) for tensor in (u, delta, B, C))
    grad_A, grad_D = torch.zeros_like(blocks.A), torch.zeros_like(blocks.D)
    grad_bias = torch.zeros_like(blocks.D)
    grad_carry = A.new_zeros(blocks.state_shape)
    for index in reversed(range(len(blocks.starts))):
        start = blocks.starts[index]
        time = slice(start, start + blocks.block)
        inputs = blocks.inputs(start)
        du, ddelta, dA, dB, dC, dD, grad_carry = _block_backward(
            blocks.sequence(grad_y, start), *inputs, carries[index], grad_carry, is_reversed=False
        )
        if delta_softplus:
            ddelta = _softplus_backward(ddelta, inputs[1])
        grad_u[..., time] = du.flatten(2).transpose(1, 2)
        grad_delta[..., time] = ddelta.flatten(2).transpose(1, 2)
        grad_B[..., time], grad_C[..., time] = dB.permute(0, 2, 3, 1), dC.permute(0, 2, 3, 1)
        grad_A, grad_D, grad_bias = grad_A + dA, grad_D + dD, grad_bias + ddelta.sum((0, 1))
    grad_A = grad_A.transpose(1, 2).reshape(A.shape)
    return [grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D.flatten(), grad_bias.flatten()]


register_backward(_selective_scan_op, _selective_scan_backward_op)


def selective_scan_torch(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
) -> torch.Tensor:
    """`selective_scan` in blocks of PyTorch operations, on any device."""
    A = A.to(_scan_dtype(u))
    zeros = A.new_zeros(A.shape[0])
    D = zeros if D is None else D.to(A.dtype)
    delta_bias = zeros.clone() if delta_bias is None else delta_bias.to(A.dtype)
    return _selective_scan_op(u, delta, A, B, C, D, delta_bias, delta_softplus)[0]


def _lines(plane: torch.Tensor, direction: Direction) -> torch.Tensor:
    """
    View of a map (batch, height, width, …) as lines (batch, lines, line length, …) in reading order, unreversed.

    A map of one single line is read the same by rows and by columns; it is viewed as lines of length 1.
    """
    lines = plane.transpose(1, 2) if direction.is_column else plane
    return lines.transpose(1, 2) if lines.shape[1] == 1 else lines


class _MapBlocks:
    """Blocks of whole lines of `cross_selective_scan`'s tensors, laid out as (batch, time, one group, …)."""

    def __init__(
        self,
        x: torch.Tensor,
        projections: torch.Tensor,
        dt_proj_weight: torch.Tensor,
        dt_proj_bias: torch.Tensor,
        A: torch.Tensor,
        D: torch.Tensor,
        directions: list[int],
    ):
        batch, self.height, self.width, channels = x.shape
        num_directions, _, self.rank = dt_proj_weight.shape
        self.state_size = A.shape[-1]
        self.x, self.projections = x, projections
        self.dt_proj_weight, self.dt_proj_bias = dt_proj_weight, dt_proj_bias
        self.A = A.view(num_directions, 1, channels, self.state_size).transpose(2, 3).contiguous()
        self.D = D.view(num_directions, 1, channels)
        self.directions = [Direction(code) for code in directions]
        self.state_shape = (batch, 1, self.state_size, channels)
        self.target = _block_length(batch * channels * self.state_size)

    def in_scan_order(self, index: int) -> list[slice]:
        """The line ranges of direction `index`, first to last as the scan meets them."""
        direction = self.directions[index]
        num_lines, line_length = (self.width, self.height) if direction.is_column else (self.height, self.width)
        if num_lines == 1:
            num_lines, line_length = line_length, 1
        step = max(1, self.target // line_length)
        ranges = [slice(start, min(start + step, num_lines)) for start in range(0, num_lines, step)]
        return ranges[::-1] if direction.is_reversed else ranges

    def sequence(self, plane: torch.Tensor, index: int, lines: slice) -> torch.Tensor:
        """Block of (batch, height, width, channels) as (batch, time, 1, channels)."""
        block = _lines(plane, self.directions[index])[:, lines]
        return block.flatten(1, 2).unsqueeze(2).to(self.A.dtype)

    def inputs(self, index: int, lines: slice) -> tuple[BlockInputs, torch.Tensor]:
        u = self.sequence(self.x, index, lines)
        projection = self.sequence(self.projections[..., index, :], index, lines)
        dt, B, C = projection.split([self.rank, self.state_size, self.state_size], dim=-1)
        delta = F.softplus(F.linear(dt, self.dt_proj_weight[index], self.dt_proj_bias[index]))
        return (u, delta, self.A[index], B, C, self.D[index]), dt

    def add_(self, plane: torch.Tensor, index: int, lines: slice, block: torch.Tensor) -> None:
        """Add a block (batch, time, 1, channels) to its place in `plane` (batch, height, width, channels)."""
        target = _lines(plane, self.directions[index])[:, lines]
        target += block.view(target.shape)


@torch.library.custom_op(operator_name("cross_selective_scan"), mutates_args=())
def _cross_selective_scan_op(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and the states that enter each block, direction after direction (blocks, batch, 1, N, channels)."""
    blocks = _MapBlocks(x, projections, dt_proj_weight, dt_proj_bias, A, D, directions)
    y = torch.zeros_like(x, dtype=A.dtype, memory_format=torch.contiguous_format)
    carries = []
    for index, direction in enumerate(blocks.directions):
        carry = A.new_zeros(blocks.state_shape)
        for lines in blocks.in_scan_order(index):
            carries.append(carry)
            inputs, _ = blocks.inputs(index, lines)
            y_block, carry = _block_forward(*inputs, carry, direction.is_reversed)
            blocks.add_(y, index, lines, y_block)
    return y, torch.stack(carries)


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
    y = torch.empty_like(x, dtype=A.dtype, memory_format=torch.contiguous_format)
    num_blocks: int | torch.SymInt
    if _has_unknown_size(x):
        num_blocks = torch.library.get_ctx().new_dynamic_size()
    else:
        blocks = _MapBlocks(x, projections, dt_proj_weight, dt_proj_bias, A, D, directions)
        num_blocks = sum(len(blocks.in_scan_order(index)) for index in range(len(directions)))
    return y, A.new_empty(num_blocks, x.shape[0], 1, A.shape[-1], x.shape[-1])


@torch.library.custom_op(operator_name("cross_selective_scan_backward"), mutates_args=())
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
    blocks = _MapBlocks(x, projections, dt_proj_weight, dt_proj_bias, A, D, directions)
    grad_x, grad_projections = A.new_zeros(x.shape), A.new_zeros(projections.shape)
    grad_weight, grad_bias = A.new_zeros(dt_proj_weight.shape), A.new_zeros(dt_proj_bias.shape)
    grad_A, grad_D = torch.zeros_like(blocks.A), torch.zeros_like(blocks.D)
    entering = list(carries)
    for index in reversed(range(len(directions))):
        is_reversed = blocks.directions[index].is_reversed
        grad_carry = A.new_zeros(blocks.state_shape)
        for lines in reversed(blocks.in_scan_order(index)):
            inputs, dt = blocks.inputs(index, lines)
            grad_block = blocks.sequence(grad_y, index, lines)
            du, ddelta, dA, dB, dC, dD, grad_carry = _block_backward(
                grad_block, *inputs, entering.pop(), grad_carry, is_reversed
            )
            ddelta = _softplus_backward(ddelta, inputs[1])
            blocks.add_(grad_x, index, lines, du)
            projection = torch.cat([ddelta @ dt_proj_weight[index], dB, dC], dim=-1)
            blocks.add_(grad_projections[..., index, :], index, lines, projection)
            grad_weight[index] += ddelta.flatten(0, 2).T @ dt.flatten(0, 2)
            grad_bias[index] += ddelta.sum((0, 1, 2))
            grad_A[index] += dA
            grad_D[index] += dD
    grad_A = grad_A.transpose(2, 3).reshape(A.shape)
    return [
        grad_x.to(x.dtype), grad_projections.to(projections.dtype), grad_weight, grad_bias, grad_A, grad_D.flatten()
    ]  # fmt: skip


register_backward(_cross_selective_scan_op, _cross_selective_scan_backward_op)


def cross_selective_scan_torch(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    directions: tuple[Direction, ...],
) -> torch.Tensor:
    """`cross_selective_scan` in blocks of PyTorch operations, on any device."""
    codes = [int(direction) for direction in directions]
    return _cross_selective_scan_op(x, projections, dt_proj_weight, dt_proj_bias, A, D, codes)[0]


# ------------------------------------------------------------------------------------- table of backends and dispatch


@dataclass(frozen=True)
class ScanBackend:
    """
    One implementation of the two operations.

    `selective_scan` takes the arguments of the public function but `backend`. `cross_selective_scan` takes x,
    projections (batch, height, width, K, R + 2·N), dt_proj_weight, dt_proj_bias, A (K·channels, N), D, directions.
    `why_not` says why it cannot run on a device, or returns an empty string. `device_type` is the device that it is
    for, `None` for any; `is_float64` says whether it computes float64 in float64; `automatic` has the operations for
    which "auto" may take it.
    """

    selective_scan: Callable[..., torch.Tensor]
    cross_selective_scan: Callable[..., torch.Tensor]
    why_not: Callable[[torch.device], str]
    device_type: str | None = None
    is_float64: bool = True
    automatic: tuple[str, ...] = ("selective_scan", "cross_selective_scan")


def _why_not_mamba_ssm(device: torch.device) -> str:
    if device.type != "cuda":
        return f"mamba-ssm's kernel needs CUDA tensors, these are on {device.type}; use 'auto'"
    return _load_mamba_ssm()[1]


# "auto" takes the first that can run; docs/gpu.md has the figures behind the order.
BACKENDS = {
    "cpu": ScanBackend(selective_scan_cpu, cross_selective_scan_cpu, _why_not_cpu, "cpu", is_float64=False),
    # Only the fused core is in Triton: the models run no scan of sequences.
    "triton": ScanBackend(
        selective_scan_torch,
        cross_selective_scan_triton,
        _why_not_triton,
        "cuda",
        is_float64=False,
        automatic=("cross_selective_scan",),
    ),
    "mamba_ssm": ScanBackend(
        selective_scan_mamba_ssm, cross_selective_scan_mamba_ssm, _why_not_mamba_ssm, "cuda", is_float64=False
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
        is_meant = backend.device_type == device_type and operation in backend.automatic
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


def _find_backend(
    name: str, device: torch.device, dtype: torch.dtype, operation: str = "cross_selective_scan"
) -> ScanBackend:
    """The backend called `name`; for `"auto"` the fastest that runs on `device` and keeps float64."""
    if name == "auto":
        return BACKENDS[_choose_backend(device.type, dtype, operation)]
    check_backend_name(name)
    why_not = BACKENDS[name].why_not(device)
    if why_not:
        raise RuntimeError(f"scan backend {name!r} cannot run: {why_not}.")
    if dtype == torch.float64 and not BACKENDS[name].is_float64:
        raise RuntimeError(
            f"scan backend {name!r} computes in float32, these tensors are float64; "
            "use 'auto', 'torch' or 'reference'."
        )
    return BACKENDS[name]


@torch.compiler.assume_constant_result  # torch.compile takes the answer and does not trace the search for it
def _choose_backend(
    device_type: str, dtype: torch.dtype = torch.float32, operation: str = "cross_selective_scan"
) -> str:
    """Name of the fastest backend; says so once when all that are meant for the device are missing."""
    name, why_not = fastest_backend(device_type, dtype, operation)
    if why_not:
        kernel = {"cpu": "C++", "cuda": "CUDA"}[device_type]
        logger.warning_once(
            f"The scan runs in blocks of PyTorch operations, for the fast {kernel} kernel is missing: {why_not}; "
            "`remamber env` shows what can run here."
        )
    return name
