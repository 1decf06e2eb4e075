# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The scan in blocks of PyTorch operations, on any device; and what all backends share.

`selective_scan.py` has the contracts and the letters. Shared are the reading orders of a map, the type that is scanned
in, and how an operator gets its name, its backward pass and its count of arithmetic.

Time is cut into blocks that fit the cache. Of each block only the state that enters it is kept; the backward pass
computes the rest again. Inside, sequences are (batch, time, groups, channels), states (batch, time, groups, N,
channels).
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch.library import CustomOpDef
from torch.utils.flop_counter import register_flop_formula


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


def scan_dtype(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def operator_name(name: str) -> str:
    """
    The name under which an operator of this package is registered, in a namespace made from the package's own name.

    A saved folder has a copy of this code, which is another package; one that is loaded again is run again. Where a
    name is registered anew, PyTorch takes the operator away from whom it belonged to: so every copy has its own names.
    """
    namespace = re.sub(r"\W+", "_", __name__.rpartition(".")[0] or __name__)
    operators = getattr(torch.ops, namespace)
    copies = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
    return next(f"{namespace}::{copy}" for copy in copies if not hasattr(operators, copy))


def register_backward(scan_op: CustomOpDef, backward_op: CustomOpDef) -> None:
    """
    Make `backward_op` the backward pass of `scan_op`; both are custom operators.

    scan_op takes tensors, then an option and perhaps others that only it reads, and returns the output and the states
    that enter each block. backward_op takes the output's gradient, those tensors, those states and the option, and
    returns contiguous gradients of the tensors.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
        ctx.option = inputs[len(tensors)]
        ctx.num_options = len(inputs) - len(tensors)
        ctx.save_for_backward(*tensors, output[1])

    def backward(ctx: Any, grad_y: torch.Tensor, _: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return *backward_op(grad_y, *ctx.saved_tensors, ctx.option), *[None] * ctx.num_options

    def fake_backward(grad_y: torch.Tensor, *arguments: Any) -> list[torch.Tensor]:
        *tensors, _, _ = arguments
        return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]

    scan_op.register_autograd(backward, setup_context=setup_context)
    backward_op.register_fake(fake_backward)


# --------------------------------------------------------------------------------------------------------- arithmetic

Shape = Sequence[int]
# Of a step of a channel: for each state 9 of the recurrence, decay, input and output (Mamba's issue 110, and so
# VMamba, arXiv 2401.10166, appendix); and a multiplication and an addition for the skip.
RECURRENCE_FLOPS, SKIP_FLOPS = 9, 2


def register_flops(scan_op: CustomOpDef, backward_op: CustomOpDef, formula: Callable[..., int]) -> None:
    """
    Have PyTorch's `FlopCounterMode` count both operators; it sees into neither.

    `formula` takes scan_op's arguments, with shapes in place of the tensors. backward_op takes one more before them,
    and twice the arithmetic, as PyTorch counts matrix products.
    """

    def forward(*shapes: Any, out_shape: Any = None) -> int:
        return formula(*shapes)

    def backward(grad_y: Shape, *shapes: Any, out_shape: Any = None) -> int:
        return 2 * formula(*shapes)

    register_flop_formula(scan_op._opoverload.overloadpacket)(forward)
    register_flop_formula(backward_op._opoverload.overloadpacket)(backward)


def selective_scan_flops(u: Shape, delta: Shape, A: Shape, *others: Any) -> int:
    """Operations of `selective_scan`, by the shapes of its arguments; a multiplication and an addition are two."""
    return math.prod(u) * (RECURRENCE_FLOPS * A[-1] + SKIP_FLOPS)


def cross_selective_scan_flops(x: Shape, projections: Shape, dt_proj_weight: Shape, *others: Any) -> int:
    """
    Operations of a `cross_selective_scan` after its projections, likewise.

    Each direction takes what `selective_scan` does, and 2·R for the time step of a channel, which is projected inside.
    """
    num_directions, channels, rank = dt_proj_weight
    state_size = (projections[-1] - rank) // 2
    return math.prod(x[:3]) * channels * num_directions * (2 * rank + RECURRENCE_FLOPS * state_size + SKIP_FLOPS)


# --------------------------------------------------------------------------------------------------------- in blocks

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
        self.A = rearrange(A, "(g c) n -> g n c", g=self.groups).contiguous()
        self.D, self.delta_bias = D.view(self.groups, self.inner), delta_bias.view(self.groups, self.inner)
        self.block = _block_length(batch * channels * self.state_size)
        self.starts = range(0, self.length, self.block)
        self.state_shape = (batch, self.groups, self.state_size, self.inner)

    def sequence(self, tensor: torch.Tensor, start: int) -> torch.Tensor:
        """Block of (batch, channels, length) as (batch, time, groups, channels / groups)."""
        block = rearrange(tensor[..., start : start + self.block], "b (g c) t -> b t g c", g=self.groups)
        return block.to(self.dtype).contiguous()

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
        y[..., start : start + blocks.block] = rearrange(y_block, "b t g c -> b (g c) t")
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
        grad_u[..., time] = rearrange(du, "b t g c -> b (g c) t")
        grad_delta[..., time] = rearrange(ddelta, "b t g c -> b (g c) t")
        grad_B[..., time], grad_C[..., time] = dB.permute(0, 2, 3, 1), dC.permute(0, 2, 3, 1)
        grad_A, grad_D, grad_bias = grad_A + dA, grad_D + dD, grad_bias + ddelta.sum((0, 1))
    grad_A = rearrange(grad_A, "g n c -> (g c) n")
    return [grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D.flatten(), grad_bias.flatten()]


register_backward(_selective_scan_op, _selective_scan_backward_op)
register_flops(_selective_scan_op, _selective_scan_backward_op, selective_scan_flops)


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
    A = A.to(scan_dtype(u))
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
        self.A = rearrange(A, "(k c) n -> k 1 n c", k=num_directions).contiguous()
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
        return rearrange(block, "b lines steps c -> b (lines steps) 1 c").to(self.A.dtype)

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
    grad_A = rearrange(grad_A, "k 1 n c -> (k c) n")
    return [
        grad_x.to(x.dtype), grad_projections.to(projections.dtype), grad_weight, grad_bias, grad_A, grad_D.flatten()
    ]  # fmt: skip


register_backward(_cross_selective_scan_op, _cross_selective_scan_backward_op)
register_flops(_cross_selective_scan_op, _cross_selective_scan_backward_op, cross_selective_scan_flops)


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
