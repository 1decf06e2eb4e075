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
"""The Triton kernels of `cross_selective_scan` and what launches them; `triton_scan.py` makes operators of it.

`selective_scan.py` has the contract and the letters. The sequence of a direction is cut into chunks. A pass is three
kernels, each a grid of programs over chunks × blocks of channels × pictures:

    summarise chunks: the state that leaves each chunk if zeros enter it, and the sum of its time steps
    → chain chunks: the states that leave each chunk in truth
    → scan chunks: the output, one direction after the other.

The backward pass does the same with gradients of states, from the last chunk to the first, and computes the states
inside of chunks again. Every program writes its own part of every tensor, and directions add to the output in the
order of their launches: nothing is atomic, and the same inputs give the same bits.

All tiles are (time steps, channels) in float32, read from the map where it lies. Time steps after the last have
Δ = 0, so that a state passes them unchanged.
"""

from typing import Any

import torch


try:  # in `try`, for transformers would ask all who load the model's code from the Hub for any other import
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(f"{error}; install it with: pip install triton") from error


STEPS = 64  # time steps of a chunk
CHANNELS = 32  # channels of a program
RANKS = 16  # columns of the time-step projection that are multiplied at once; a GPU's tl.dot takes no fewer
CHAINED_CHUNKS = 64  # chunks that are chained at once
NUM_WARPS = 8  # of a program. With 4 the backward pass spills registers (compiled for compute capability 9.0)


# ------------------------------------------------------------------------------------------------ parts of the kernels


@triton.jit
def _combine(decay, state, next_decay, next_state):
    """Two stretches of the recurrence as one: its decay, and the state that leaves it if zeros enter."""
    return decay * next_decay, state * next_decay + next_state


@triton.jit
def _softplus(z):
    """
    log(1 + exp(z)) to the last digits: log(1 + e) = 2·artanh(e / (2 + e)) with e = exp(−|z|), as a series.

    tl.log would lose all digits of a small e, and its accuracy near 1 differs between devices.
    """
    e = tl.exp(-tl.abs(z))
    s = e / (2.0 + e)  # at most 1/3
    q = s * s
    series = 1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13)))))
    return tl.maximum(z, 0.0) + 2.0 * s * (1.0 + q * series)


@triton.jit
def _sigmoid(z):
    e = tl.exp(-tl.abs(z))
    return tl.where(z >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _pixels(steps, order, picture, height, width):
    """Number of the pixel, counted over all pictures, that is read at each of `steps`; `order` is a `Direction`."""
    length = height * width
    steps = tl.where(order >= 2, length - 1 - steps, steps)
    steps = tl.where(order % 2 == 1, steps % height * width + steps // height, steps)
    return picture.to(tl.int64) * length + steps


@triton.jit
def _project(rows, is_step, weight, bias, channels, is_channel, rank, RANKS: tl.constexpr):
    """Time steps before softplus: the first `rank` columns of the projections at `rows` times `weight`, plus bias."""
    z = tl.zeros((is_step.shape[0], is_channel.shape[0]), tl.float32)
    for first in range(0, rank, RANKS):
        ranks = first + tl.arange(0, RANKS)
        is_rank = ranks < rank
        dt = tl.load(rows[:, None] + ranks[None, :], is_step[:, None] & is_rank[None, :], 0.0).to(tl.float32)
        columns = weight + channels[None, :] * rank + ranks[:, None]
        z = tl.dot(dt, tl.load(columns, is_rank[:, None] & is_channel[None, :], 0.0), z, input_precision="ieee")
    return z + tl.load(bias + channels, is_channel, 0.0)[None, :]


# --------------------------------------------------------------------------------------------------------- the kernels


@triton.jit
def _summarise_chunks(
    x, projections, weight, bias, A, totals, summaries, orders, parts, height, width, num_channels, rank,
    N: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """
    The sum of each chunk's time steps, and the state that leaves it if zeros enter; one program for each direction.

    totals (batch, K, chunks, channels), summaries (batch, K, chunks, N, channels). orders holds two bits for each
    direction.
    """
    chunk, plane = tl.program_id(0), tl.program_id(2)
    picture, part = plane // parts, plane % parts
    steps = chunk * STEPS + tl.arange(0, STEPS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_step, is_channel = steps < height * width, channels < num_channels
    is_inside = is_step[:, None] & is_channel[None, :]
    pixels = _pixels(steps, (orders >> (2 * part)) & 3, picture, height, width)
    rows = projections + (pixels * parts + part) * (rank + 2 * N)
    weight_channels = part * num_channels + channels

    z = _project(rows, is_step, weight, bias, weight_channels, is_channel, rank, RANKS)
    delta = tl.where(is_step[:, None], _softplus(z), 0.0)
    u = tl.load(x + pixels[:, None] * num_channels + channels[None, :], is_inside, 0.0).to(tl.float32)
    place = plane.to(tl.int64) * tl.num_programs(0) + chunk
    tl.store(totals + place * num_channels + channels, tl.sum(delta, 0), is_channel)
    is_last = (tl.arange(0, STEPS) == STEPS - 1)[:, None]
    for n in range(N):
        decays = tl.exp(delta * tl.load(A + weight_channels * N + n, is_channel, 0.0)[None, :])
        B = tl.load(rows + rank + n, is_step, 0.0).to(tl.float32)
        _, states = tl.associative_scan((decays, delta * u * B[:, None]), 0, _combine)
        leaving = tl.sum(tl.where(is_last, states, 0.0), 0)
        tl.store(summaries + (place * N + n) * num_channels + channels, leaving, is_channel)


@triton.jit
def _chain_chunks(
    totals, summaries, A, chained, parts, num_chunks, num_channels,
    N: tl.constexpr, IS_REVERSED: tl.constexpr, CHUNKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What leaves each chunk when what leaves its neighbour enters it, from the first chunk or from the last."""
    n, plane = tl.program_id(1), tl.program_id(2).to(tl.int64)
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    rates = tl.load(A + (plane % parts * num_channels + channels) * N + n, is_channel, 0.0)
    is_last = (tl.arange(0, CHUNKS) == CHUNKS - 1)[:, None]
    entering = tl.zeros((CHANNELS,), tl.float32)
    for first in range(0, num_chunks, CHUNKS):
        chunks = first + tl.arange(0, CHUNKS)
        is_inside = (chunks < num_chunks)[:, None] & is_channel[None, :]
        if IS_REVERSED:
            chunks = num_chunks - 1 - chunks
        places = plane * num_chunks + chunks
        total = tl.load(totals + places[:, None] * num_channels + channels[None, :], is_inside, 0.0)
        offsets = (places * N + n)[:, None] * num_channels + channels[None, :]
        summary = tl.load(summaries + offsets, is_inside, 0.0)
        decays, states = tl.associative_scan((tl.exp(total * rates[None, :]), summary), 0, _combine)
        states += decays * entering[None, :]
        tl.store(chained + offsets, states, is_inside)
        entering = tl.sum(tl.where(is_last, states, 0.0), 0)


@triton.jit(do_not_specialize=["part", "orders"])
def _scan_chunks(
    x, projections, weight, bias, A, D, states, y, part, orders, parts, height, width, num_channels, rank,
    IS_FIRST: tl.constexpr, N: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """Write the output of direction `part`, or add it to that of the directions before it."""
    chunk, picture = tl.program_id(0), tl.program_id(2)
    steps = chunk * STEPS + tl.arange(0, STEPS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_step, is_channel = steps < height * width, channels < num_channels
    is_inside = is_step[:, None] & is_channel[None, :]
    pixels = _pixels(steps, (orders >> (2 * part)) & 3, picture, height, width)
    rows = projections + (pixels * parts + part) * (rank + 2 * N)
    weight_channels = part * num_channels + channels

    z = _project(rows, is_step, weight, bias, weight_channels, is_channel, rank, RANKS)
    delta = tl.where(is_step[:, None], _softplus(z), 0.0)
    offsets = pixels[:, None] * num_channels + channels[None, :]
    u = tl.load(x + offsets, is_inside, 0.0).to(tl.float32)
    output = u * tl.load(D + weight_channels, is_channel, 0.0)[None, :]
    before = (picture.to(tl.int64) * parts + part) * tl.num_programs(0) + chunk - 1
    has_before = channels < tl.minimum(chunk, 1) * num_channels
    for n in range(N):
        decays = tl.exp(delta * tl.load(A + weight_channels * N + n, is_channel, 0.0)[None, :])
        B = tl.load(rows + rank + n, is_step, 0.0).to(tl.float32)
        C = tl.load(rows + rank + N + n, is_step, 0.0).to(tl.float32)
        decays, h = tl.associative_scan((decays, delta * u * B[:, None]), 0, _combine)
        entering = tl.load(states + (before * N + n) * num_channels + channels, has_before, 0.0)
        output += C[:, None] * (h + decays * entering[None, :])
    if not IS_FIRST:
        output += tl.load(y + offsets, is_inside, 0.0)
    tl.store(y + offsets, output, is_inside)


@triton.jit
def _summarise_gradients(
    grad_y, projections, weight, bias, A, totals, summaries, orders, parts, height, width, num_channels, rank,
    N: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """As `_summarise_chunks`: the gradient of the state that enters, if that of the state that leaves is 0."""
    chunk, plane = tl.program_id(0), tl.program_id(2)
    picture, part = plane // parts, plane % parts
    steps = chunk * STEPS + tl.arange(0, STEPS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_step, is_channel = steps < height * width, channels < num_channels
    is_inside = is_step[:, None] & is_channel[None, :]
    pixels = _pixels(steps, (orders >> (2 * part)) & 3, picture, height, width)
    rows = projections + (pixels * parts + part) * (rank + 2 * N)
    weight_channels = part * num_channels + channels

    z = _project(rows, is_step, weight, bias, weight_channels, is_channel, rank, RANKS)
    delta = tl.where(is_step[:, None], _softplus(z), 0.0)
    grad = tl.load(grad_y + pixels[:, None] * num_channels + channels[None, :], is_inside, 0.0)
    place = plane.to(tl.int64) * tl.num_programs(0) + chunk
    tl.store(totals + place * num_channels + channels, tl.sum(delta, 0), is_channel)
    elapsed = tl.cumsum(delta, 0)
    for n in range(N):
        decays = tl.exp(elapsed * tl.load(A + weight_channels * N + n, is_channel, 0.0)[None, :])
        C = tl.load(rows + rank + N + n, is_step, 0.0).to(tl.float32)
        summary = tl.sum(decays * C[:, None] * grad, 0)
        tl.store(summaries + (place * N + n) * num_channels + channels, summary, is_channel)


@triton.jit(do_not_specialize=["part", "orders"])
def _scan_chunks_backward(
    grad_y, x, projections, weight, bias, A, D, states, grad_states, grad_x, grad_rows, grad_weights,
    part, orders, parts, height, width, num_channels, rank,
    IS_FIRST: tl.constexpr, N: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """
    Gradients of direction `part`.

    That of x is written, or added to that of the directions before it. grad_rows (blocks of channels, pixels,
    R + 2·N) has that of the projections, grad_weights (batch, chunks, channels, R + N + 2) those of dt_proj_weight, A,
    dt_proj_bias and D: parts that the caller sums.
    """
    chunk, picture = tl.program_id(0), tl.program_id(2)
    steps = chunk * STEPS + tl.arange(0, STEPS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    length = height * width
    is_step, is_channel = steps < length, channels < num_channels
    is_inside = is_step[:, None] & is_channel[None, :]
    order = (orders >> (2 * part)) & 3
    pixels = _pixels(steps, order, picture, height, width)
    rows = projections + (pixels * parts + part) * (rank + 2 * N)
    weight_channels = part * num_channels + channels
    num_pixels = tl.num_programs(2).to(tl.int64) * length
    grad_rows += (tl.program_id(1) * num_pixels + pixels) * (rank + 2 * N)
    place = (picture.to(tl.int64) * tl.num_programs(0) + chunk) * num_channels
    grad_weights += (place + channels) * (rank + N + 2)

    z = _project(rows, is_step, weight, bias, weight_channels, is_channel, rank, RANKS)
    delta = tl.where(is_step[:, None], _softplus(z), 0.0)
    # Of the next time step; 0 at the chunk's end, where the gradient of the state that leaves takes over.
    has_next = (steps + 1 < length) & (tl.arange(0, STEPS) < STEPS - 1)
    next_rows = projections + (_pixels(steps + 1, order, picture, height, width) * parts + part) * (rank + 2 * N)
    next_z = _project(next_rows, has_next, weight, bias, weight_channels, is_channel, rank, RANKS)
    next_delta = tl.where(has_next[:, None], _softplus(next_z), 0.0)

    offsets = pixels[:, None] * num_channels + channels[None, :]
    u = tl.load(x + offsets, is_inside, 0.0).to(tl.float32)
    grad = tl.load(grad_y + offsets, is_inside, 0.0)
    grad_u = grad * tl.load(D + weight_channels, is_channel, 0.0)[None, :]
    grad_delta = tl.zeros((STEPS, CHANNELS), tl.float32)
    here = (picture.to(tl.int64) * parts + part) * tl.num_programs(0) + chunk
    has_before = channels < tl.minimum(chunk, 1) * num_channels
    has_after = channels < tl.minimum(tl.num_programs(0) - 1 - chunk, 1) * num_channels
    for n in range(N):
        rates = tl.load(A + weight_channels * N + n, is_channel, 0.0)
        B = tl.load(rows + rank + n, is_step, 0.0).to(tl.float32)
        C = tl.load(rows + rank + N + n, is_step, 0.0).to(tl.float32)
        entering = tl.load(states + ((here - 1) * N + n) * num_channels + channels, has_before, 0.0)
        leaving = tl.load(grad_states + ((here + 1) * N + n) * num_channels + channels, has_after, 0.0)
        drive = delta * u * B[:, None]
        decays, h = tl.associative_scan((tl.exp(delta * rates[None, :]), drive), 0, _combine)
        h += decays * entering[None, :]
        next_decays = tl.exp(next_delta * rates[None, :])
        decays, grad_h = tl.associative_scan((next_decays, grad * C[:, None]), 0, _combine, reverse=True)
        grad_h += decays * leaving[None, :]

        grad_exponent = grad_h * (h - drive)  # of delta · A
        grad_input = grad_h * B[:, None]  # of delta · u
        grad_delta += grad_exponent * rates[None, :] + grad_input * u
        grad_u += grad_input * delta
        tl.store(grad_rows + rank + n, tl.sum(grad_h * delta * u, 1), is_step)
        tl.store(grad_rows + rank + N + n, tl.sum(grad * h, 1), is_step)
        tl.store(grad_weights + rank + n, tl.sum(grad_exponent * delta, 0), is_channel)

    grad_z = tl.where(is_step[:, None], grad_delta * _sigmoid(z), 0.0)
    tl.store(grad_weights + rank + N, tl.sum(grad_z, 0), is_channel)
    tl.store(grad_weights + rank + N + 1, tl.sum(grad * u, 0), is_channel)
    if not IS_FIRST:
        grad_u += tl.load(grad_x + offsets, is_inside, 0.0)
    tl.store(grad_x + offsets, grad_u, is_inside)
    for first in range(0, rank, RANKS):
        ranks = first + tl.arange(0, RANKS)
        is_rank = ranks < rank
        step_rank, channel_rank = is_step[:, None] & is_rank[None, :], is_channel[:, None] & is_rank[None, :]
        dt = tl.load(rows[:, None] + ranks[None, :], step_rank, 0.0).to(tl.float32)
        columns = tl.load(weight + weight_channels[:, None] * rank + ranks[None, :], channel_rank, 0.0)
        grad_dt = tl.dot(grad_z, columns, input_precision="ieee")
        tl.store(grad_rows[:, None] + ranks[None, :], grad_dt, step_rank)
        grad_columns = tl.dot(tl.trans(grad_z), dt, input_precision="ieee")
        tl.store(grad_weights[:, None] + ranks[None, :], grad_columns, channel_rank)


# ------------------------------------------------------------------------------------------------------ their launches


class _Launch:
    """Sizes, grids and constants of the launches for one map."""

    def __init__(self, x: torch.Tensor, dt_proj_weight: torch.Tensor, A: torch.Tensor, directions: list[int]):
        self.batch, self.height, self.width, self.channels = x.shape
        self.parts, _, self.rank = dt_proj_weight.shape
        self.N = A.shape[-1]
        self.chunks = num_chunks(x)
        self.blocks = triton.cdiv(self.channels, CHANNELS)
        self.orders = sum(int(direction) << (2 * part) for part, direction in enumerate(directions))
        self.sizes = (self.parts, self.height, self.width, self.channels, self.rank)
        self.constants = {"N": self.N, "STEPS": STEPS, "CHANNELS": CHANNELS, "RANKS": RANKS, "num_warps": NUM_WARPS}

    def summarise(
        self,
        kernel: Any,
        values: torch.Tensor,
        projections: torch.Tensor,
        dt_proj_weight: torch.Tensor,
        dt_proj_bias: torch.Tensor,
        A: torch.Tensor,
        is_reversed: bool,
    ) -> torch.Tensor:
        """States, or their gradients, between chunks (batch, K, chunks, N, channels)."""
        totals = A.new_empty(self.batch, self.parts, self.chunks, self.channels)
        summaries = A.new_empty(self.batch, self.parts, self.chunks, self.N, self.channels)
        kernel[(self.chunks, self.blocks, self.batch * self.parts)](
            values, projections, dt_proj_weight, dt_proj_bias, A, totals, summaries, self.orders, *self.sizes,
            **self.constants,
        )  # fmt: skip
        chained = torch.empty_like(summaries)
        _chain_chunks[(self.blocks, self.N, self.batch * self.parts)](
            totals, summaries, A, chained, self.parts, self.chunks, self.channels,
            N=self.N, IS_REVERSED=is_reversed, CHUNKS=CHAINED_CHUNKS, CHANNELS=CHANNELS,
        )  # fmt: skip
        return chained

    def scan(self, kernel: Any, tensors: tuple[torch.Tensor, ...], part: int) -> None:
        kernel[(self.chunks, self.blocks, self.batch)](
            *tensors, part, self.orders, *self.sizes, IS_FIRST=part == 0, **self.constants
        )


def num_chunks(x: torch.Tensor) -> int:
    return -(-x.shape[1] * x.shape[2] // STEPS)


def scan_map(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    *,
    directions: list[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (batch, height, width, channels), and the states that leave each chunk; all tensors are contiguous."""
    launch = _Launch(x, dt_proj_weight, A, directions)
    with torch.cuda.device_of(x):
        states = launch.summarise(_summarise_chunks, x, projections, dt_proj_weight, dt_proj_bias, A, False)
        y = A.new_empty(x.shape)
        for part in range(launch.parts):
            tensors = (x, projections, dt_proj_weight, dt_proj_bias, A, D, states, y)
            launch.scan(_scan_chunks, tensors, part)
    return y, states


def scan_map_backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    states: torch.Tensor,
    *,
    directions: list[int],
) -> list[torch.Tensor]:
    """Gradients of x, projections, dt_proj_weight, dt_proj_bias, A, D in float32."""
    launch = _Launch(x, dt_proj_weight, A, directions)
    weights = (dt_proj_weight, dt_proj_bias, A)
    grad_x, grad_projections = A.new_empty(x.shape), A.new_empty(projections.shape)
    grad_rows = A.new_empty(launch.blocks, *projections.shape[:3], projections.shape[-1])
    grad_weights = A.new_empty(launch.batch, launch.chunks, launch.channels, launch.rank + launch.N + 2)
    sums = A.new_empty(launch.parts, launch.channels, launch.rank + launch.N + 2)
    with torch.cuda.device_of(x):
        grad_states = launch.summarise(_summarise_gradients, grad_y, projections, *weights, True)
        for part in range(launch.parts):
            tensors = (grad_y, x, projections, *weights, D, states, grad_states, grad_x, grad_rows, grad_weights)
            launch.scan(_scan_chunks_backward, tensors, part)
            grad_projections[..., part, :] = grad_rows.sum(0)
            sums[part] = grad_weights.sum((0, 1))
    grad_weight, grad_A, grad_bias, grad_D = sums.split([launch.rank, launch.N, 1, 1], dim=-1)
    return [
        grad_x, grad_projections, grad_weight, grad_bias.squeeze(-1), grad_A.flatten(0, 1), grad_D.flatten()
    ]  # fmt: skip
