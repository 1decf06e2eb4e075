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
kernels, each a grid of programs over chunks × channels × pictures:

    summarise chunks: the state that leaves each chunk if zeros enter it, and the sum of its time steps
    → chain chunks: the states that leave each chunk in truth
    → scan chunks: the output, one direction after the other.

The backward pass does the same with gradients of states, from the last chunk to the first. It computes the states
inside of a block of time steps again from the state that enters the block, which the forward pass keeps. Every
program writes its own part of every tensor, and directions add to the output in the order of their launches: nothing
is atomic, and the same inputs give the same bits.

A program is one warp and has one number of the state (N is 1 in the published models). It walks along its chunk in
blocks of time steps. A block's time-step projections are one matrix product, on tensor cores; its rows are then taken
apart, for the recurrence goes row after row, each a vector over the program's channels. A map is read where it lies,
all rows of a block before the first is used: a GPU does not move a load before a store. Time steps after the last read
zeros; what they compute reaches nothing.
"""

from typing import Any

import torch


try:  # in `try`, for transformers would ask all who load the model's code from the Hub for any other import
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(f"{error}; install it with: pip install triton") from error
if tuple(int(number) for number in triton.__version__.split(".")[:2]) < (3, 3):
    raise ImportError(f"Triton {triton.__version__} has no tuples; 3.3 or newer is needed, which PyTorch 2.7 brings")


STEPS = 64  # time steps of a chunk
BLOCK = 16  # time steps of a block; tl.dot takes no fewer rows
CHANNELS = 64  # channels of a program
CHAINED_CHUNKS, CHAINED_CHANNELS = 64, 32  # of a program that chains
LOG2_E = tl.constexpr(1.4426950408889634)


# ------------------------------------------------------------------------------------------------ parts of the kernels


@triton.jit
def _combine(decay, state, next_decay, next_state):
    """Two stretches of the recurrence as one: its decay, and the state that leaves it if zeros enter."""
    return decay * next_decay, state * next_decay + next_state


@triton.jit
def _softplus(z):
    """
    log(1 + exp(z)) to the last digits, and exp(−|z|).

    log(1 + e) for e in 0…1 is a polynomial. tl.log would lose all digits of a small e.
    """
    e = tl.exp2(-tl.abs(z) * LOG2_E)
    p = 5.126102141e-03
    p = p * e - 2.907406468e-02
    p = p * e + 7.751608674e-02
    p = p * e - 1.360224762e-01
    p = p * e + 1.907688074e-01
    p = p * e - 2.483539899e-01
    p = p * e + 3.331812171e-01
    p = p * e - 4.999944498e-01
    p = p * e + 9.999999659e-01
    return tl.maximum(z, 0.0) + e * p, e


@triton.jit
def _sigmoid(z, e):
    """The derivative of softplus; `e` is exp(−|z|)."""
    return tl.where(z >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _place(step, order, height, width):
    """
    Where a direction reads at `step`: its pixel, counted in the picture, and its place in its line.

    Then, for `_next`, the length of a line and how far the next pixel is inside of a line and at its end. `order` is a
    `Direction`.
    """
    is_column, is_reversed = order % 2 == 1, order >= 2
    line = tl.where(is_column, height, width)
    position = tl.where(is_reversed, height * width - 1 - step, step)
    pixel = tl.where(is_column, position % height * width + position // height, position)
    inside = tl.where(is_column, width, 1)
    at_end = tl.where(is_column, 1 - (height - 1) * width, 1)
    return (
        pixel, step % line, line, tl.where(is_reversed, -inside, inside), tl.where(is_reversed, -at_end, at_end)
    )  # fmt: skip


@triton.jit
def _pixels(first, order, height, width, BLOCK: tl.constexpr):
    """The pixels of a block's time steps, one after the other."""
    pixel, place, line, inside, at_end = _place(first, order, height, width)
    pixels = ()
    for _ in tl.static_range(BLOCK):
        pixels = pixels + (pixel,)
        place += 1
        is_end = place == line
        pixel += tl.where(is_end, at_end, inside)
        place = tl.where(is_end, 0, place)
    return pixels


@triton.jit
def _rows(tile, CHANNELS: tl.constexpr):
    """The 16 rows of a tile (16, channels), first to last."""
    halves = tl.split(tl.permute(tl.reshape(tl.trans(tile), (CHANNELS, 2, 8)), (0, 2, 1)))
    rows = ()
    for i in tl.static_range(2):
        quarters = tl.split(tl.permute(tl.reshape(halves[i], (CHANNELS, 2, 4)), (0, 2, 1)))
        for j in tl.static_range(2):
            eighths = tl.split(tl.permute(tl.reshape(quarters[j], (CHANNELS, 2, 2)), (0, 2, 1)))
            for k in tl.static_range(2):
                rows = rows + tl.split(eighths[k])
    return rows


@triton.jit
def _channels_if(condition, channels, num_channels):
    """Mask of the channels there are, or of none."""
    return channels < tl.where(condition, num_channels, 0)


@triton.jit
def _time_step_weight(weight, channels, is_channel, rank, RANKS: tl.constexpr):
    """(rank, channels), padded with zeros to RANKS."""
    ranks = tl.arange(0, RANKS)[:, None]
    return tl.load(weight + channels[None, :] * rank + ranks, is_channel[None, :] & (ranks < rank), 0.0)


@triton.jit
def _project(
    rows, weight, bias, first, order, height, width, row_stride, rank,
    BLOCK: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """A block's time steps before softplus, row by row: weight times the first `rank` numbers of each, plus bias."""
    steps = first + tl.arange(0, BLOCK)
    pixels, _, _, _, _ = _place(steps, order, height, width)
    ranks = tl.arange(0, RANKS)[None, :]
    is_inside = (steps < height * width)[:, None] & (ranks < rank)
    dt = tl.load(rows + pixels[:, None] * row_stride + ranks, is_inside, 0.0).to(tl.float32)
    return _rows(tl.dot(dt, weight, input_precision="tf32x3") + bias[None, :], CHANNELS)


@triton.jit
def _load_vectors(map, pixels, first, length, channels, num_channels, BLOCK: tl.constexpr):
    """A block's rows of a map, 0 after the last time step."""
    vectors = ()
    for t in tl.static_range(BLOCK):
        is_inside = _channels_if(first + t < length, channels, num_channels)
        vectors = vectors + (tl.load(map + pixels[t] * num_channels + channels, is_inside, 0.0),)
    return vectors


@triton.jit
def _load_scalars(pointer, stride, pixels, first, length, BLOCK: tl.constexpr):
    """A number of each of a block's time steps; 0 after the last time step."""
    scalars = ()
    for t in tl.static_range(BLOCK):
        scalars = scalars + (tl.load(pointer + pixels[t] * stride, first + t < length, 0.0).to(tl.float32),)
    return scalars


# --------------------------------------------------------------------------------------------------------- the kernels


@triton.jit
def _summarise_chunks(
    x, projections, weight, bias, A, totals, summaries, orders, parts, height, width, num_channels, rank, N,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """
    The sum of each chunk's time steps, and the state that leaves it if zeros enter; one program for each direction.

    totals (batch, K, chunks, channels), summaries (batch, K, chunks, N, channels). orders holds two bits for each
    direction.
    """
    chunk, plane, n = tl.program_id(0), tl.program_id(2) // N, tl.program_id(2) % N
    picture, part = (plane // parts).to(tl.int64), plane % parts
    order = (orders >> (2 * part)) & 3
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    weight_channels = part * num_channels + channels
    length = height * width
    row_stride = parts * (rank + 2 * N)
    rows = projections + (picture * length * parts + part) * (rank + 2 * N)
    x += picture * length * num_channels

    dt_weight = _time_step_weight(weight, weight_channels, is_channel, rank, RANKS)
    dt_bias = tl.load(bias + weight_channels, is_channel, 0.0)
    rate = tl.load(A + weight_channels * N + n, is_channel, 0.0) * LOG2_E
    total, h = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    for first in range(chunk * STEPS, tl.minimum(chunk * STEPS + STEPS, length), BLOCK):
        z = _project(
            rows, dt_weight, dt_bias, first, order, height, width, row_stride, rank, BLOCK, CHANNELS, RANKS
        )  # fmt: skip
        pixels = _pixels(first, order, height, width, BLOCK)
        u = _load_vectors(x, pixels, first, length, channels, num_channels, BLOCK)
        B = _load_scalars(rows + rank + n, row_stride, pixels, first, length, BLOCK)
        for t in tl.static_range(BLOCK):
            delta, _ = _softplus(z[t])
            total += delta
            h = tl.exp2(delta * rate) * h + delta * u[t].to(tl.float32) * B[t]
    place = plane.to(tl.int64) * tl.num_programs(0) + chunk
    tl.store(totals + place * num_channels + channels, total, _channels_if(n == 0, channels, num_channels))
    tl.store(summaries + (place * N + n) * num_channels + channels, h, is_channel)


@triton.jit
def _chain_chunks(
    totals, summaries, A, chained, parts, num_chunks, num_channels, N,
    IS_REVERSED: tl.constexpr, CHUNKS: tl.constexpr, CHANNELS: tl.constexpr,
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


@triton.jit(do_not_specialize=["part", "n", "orders"])
def _scan_chunks(
    x, projections, weight, bias, A, D, states, block_states, y,
    part, n, orders, parts, height, width, num_channels, rank, N,
    KEEPS_STATES: tl.constexpr,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """
    Write the output of direction `part` and the n-th number of its state, or add it to those launched before.

    block_states (batch, K, blocks, N, channels) takes the states that enter each block, if they are kept.
    """
    chunk, picture = tl.program_id(0), tl.program_id(2).to(tl.int64)
    order = (orders >> (2 * part)) & 3
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    weight_channels = part * num_channels + channels
    length = height * width
    row_stride = parts * (rank + 2 * N)
    rows = projections + (picture * length * parts + part) * (rank + 2 * N)
    x += picture * length * num_channels
    y += picture * length * num_channels
    plane = picture * parts + part

    dt_weight = _time_step_weight(weight, weight_channels, is_channel, rank, RANKS)
    dt_bias = tl.load(bias + weight_channels, is_channel, 0.0)
    rate = tl.load(A + weight_channels * N + n, is_channel, 0.0) * LOG2_E
    skip = tl.load(D + weight_channels, _channels_if(n == 0, channels, num_channels), 0.0)
    before_length = tl.where(part + n > 0, length, 0)  # of what was launched before
    place = (plane * tl.num_programs(0) + chunk - 1) * N + n
    h = tl.load(states + place * num_channels + channels, _channels_if(chunk > 0, channels, num_channels), 0.0)
    for first in range(chunk * STEPS, tl.minimum(chunk * STEPS + STEPS, length), BLOCK):
        if KEEPS_STATES:
            place = (plane * tl.cdiv(length, BLOCK) + first // BLOCK) * N + n
            tl.store(block_states + place * num_channels + channels, h, is_channel)
        z = _project(
            rows, dt_weight, dt_bias, first, order, height, width, row_stride, rank, BLOCK, CHANNELS, RANKS
        )  # fmt: skip
        pixels = _pixels(first, order, height, width, BLOCK)
        u = _load_vectors(x, pixels, first, length, channels, num_channels, BLOCK)
        B = _load_scalars(rows + rank + n, row_stride, pixels, first, length, BLOCK)
        C = _load_scalars(rows + rank + N + n, row_stride, pixels, first, length, BLOCK)
        before = _load_vectors(y, pixels, first, before_length, channels, num_channels, BLOCK)
        for t in tl.static_range(BLOCK):
            delta, _ = _softplus(z[t])
            value = u[t].to(tl.float32)
            h = tl.exp2(delta * rate) * h + delta * value * B[t]
            output = before[t] + value * skip + C[t] * h
            is_inside = _channels_if(first + t < length, channels, num_channels)
            tl.store(y + pixels[t] * num_channels + channels, output, is_inside)


@triton.jit
def _summarise_gradients(
    grad_y, projections, weight, bias, A, totals, summaries, orders, parts, height, width, num_channels, rank, N,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """As `_summarise_chunks`: the gradient of the state that enters, if that of the state that leaves is 0."""
    chunk, plane, n = tl.program_id(0), tl.program_id(2) // N, tl.program_id(2) % N
    picture, part = (plane // parts).to(tl.int64), plane % parts
    order = (orders >> (2 * part)) & 3
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    weight_channels = part * num_channels + channels
    length = height * width
    row_stride = parts * (rank + 2 * N)
    rows = projections + (picture * length * parts + part) * (rank + 2 * N)
    grad_y += picture * length * num_channels

    dt_weight = _time_step_weight(weight, weight_channels, is_channel, rank, RANKS)
    dt_bias = tl.load(bias + weight_channels, is_channel, 0.0)
    rate = tl.load(A + weight_channels * N + n, is_channel, 0.0) * LOG2_E
    total, grad_h = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    for first in range(chunk * STEPS, tl.minimum(chunk * STEPS + STEPS, length), BLOCK):
        z = _project(
            rows, dt_weight, dt_bias, first, order, height, width, row_stride, rank, BLOCK, CHANNELS, RANKS
        )  # fmt: skip
        pixels = _pixels(first, order, height, width, BLOCK)
        grad = _load_vectors(grad_y, pixels, first, length, channels, num_channels, BLOCK)
        C = _load_scalars(rows + rank + N + n, row_stride, pixels, first, length, BLOCK)
        for t in tl.static_range(BLOCK):
            delta, _ = _softplus(z[t])
            total += delta
            grad_h += tl.exp2(total * rate) * (grad[t] * C[t])
    place = plane.to(tl.int64) * tl.num_programs(0) + chunk
    tl.store(totals + place * num_channels + channels, total, _channels_if(n == 0, channels, num_channels))
    tl.store(summaries + (place * N + n) * num_channels + channels, grad_h, is_channel)


@triton.jit(do_not_specialize=["part", "n", "orders"])
def _scan_chunks_backward(
    grad_y, x, projections, weight, bias, A, D, block_states, grad_states, grad_x, grad_z, grad_rows, grad_weights,
    part, n, orders, parts, height, width, num_channels, rank, N,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """
    Gradients of direction `part` and the n-th number of its state.

    Those of x and of the time steps before softplus, grad_z (K, pixels, channels), are written, or added to those
    launched before. grad_rows (K, 2·N, blocks of channels, pixels) has those of B and C, grad_weights
    (K, N + 2, batch, chunks, channels) those of A, D and dt_proj_bias: parts that the caller sums.
    """
    chunk, picture = tl.program_id(0), tl.program_id(2).to(tl.int64)
    order = (orders >> (2 * part)) & 3
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    weight_channels = part * num_channels + channels
    length = height * width
    num_pixels = tl.num_programs(2).to(tl.int64) * length
    row_stride = parts * (rank + 2 * N)
    rows = projections + (picture * length * parts + part) * (rank + 2 * N)
    x += picture * length * num_channels
    grad_y += picture * length * num_channels
    grad_x += picture * length * num_channels
    grad_z += (part * num_pixels + picture * length) * num_channels
    grad_B = grad_rows + ((part * 2 * N + n) * tl.num_programs(1) + tl.program_id(1)) * num_pixels + picture * length
    grad_C = grad_B + N * tl.num_programs(1) * num_pixels
    plane = picture * parts + part

    dt_weight = _time_step_weight(weight, weight_channels, is_channel, rank, RANKS)
    dt_bias = tl.load(bias + weight_channels, is_channel, 0.0)
    rate = tl.load(A + weight_channels * N + n, is_channel, 0.0)
    skip = tl.load(D + weight_channels, _channels_if(n == 0, channels, num_channels), 0.0)
    has_next = _channels_if(chunk + 1 < tl.num_programs(0), channels, num_channels)
    place = (plane * tl.num_programs(0) + chunk + 1) * N + n
    # Of the state that leaves the time step at hand, from the time steps after it.
    grad_leaving = tl.load(grad_states + place * num_channels + channels, has_next, 0.0)
    grad_A, grad_D = tl.zeros((CHANNELS,), tl.float32), tl.zeros((CHANNELS,), tl.float32)
    grad_bias = tl.zeros((CHANNELS,), tl.float32)
    num_blocks = tl.cdiv(tl.minimum(STEPS, length - chunk * STEPS), BLOCK)
    for index in range(num_blocks):
        first = chunk * STEPS + (num_blocks - 1 - index) * BLOCK
        z = _project(
            rows, dt_weight, dt_bias, first, order, height, width, row_stride, rank, BLOCK, CHANNELS, RANKS
        )  # fmt: skip
        pixels = _pixels(first, order, height, width, BLOCK)
        u = _load_vectors(x, pixels, first, length, channels, num_channels, BLOCK)
        grad = _load_vectors(grad_y, pixels, first, length, channels, num_channels, BLOCK)
        B = _load_scalars(rows + rank + n, row_stride, pixels, first, length, BLOCK)
        C = _load_scalars(rows + rank + N + n, row_stride, pixels, first, length, BLOCK)
        place = (plane * tl.cdiv(length, BLOCK) + first // BLOCK) * N + n
        h = (tl.load(block_states + place * num_channels + channels, is_channel, 0.0),)  # before every time step
        # Time steps to which launches before this one have written gradients.
        x_steps, z_steps = tl.where(part + n > 0, length - first, 0), tl.where(n > 0, length - first, 0)
        delta, slope = (), ()
        for t in tl.static_range(BLOCK):
            delta_t, e = _softplus(z[t])
            delta = delta + (delta_t,)
            slope = slope + (_sigmoid(z[t], e),)
            h = h + (tl.exp2(delta_t * (rate * LOG2_E)) * h[t] + delta_t * u[t].to(tl.float32) * B[t],)
        for t in tl.static_range(BLOCK - 1, -1, -1):
            is_step = first + t < length
            is_inside = _channels_if(is_step, channels, num_channels)
            offsets = pixels[t] * num_channels + channels
            value = u[t].to(tl.float32)
            grad_h = grad[t] * C[t] + grad_leaving
            grad_leaving = tl.exp2(delta[t] * (rate * LOG2_E)) * grad_h
            grad_exponent = grad_leaving * h[t]  # of delta · A
            grad_input = grad_h * B[t]  # of delta · u
            grad_A += grad_exponent * delta[t]
            grad_D += grad[t] * value
            tl.store(grad_B + pixels[t], tl.sum(grad_h * (delta[t] * value), 0), is_step)
            tl.store(grad_C + pixels[t], tl.sum(grad[t] * h[t + 1], 0), is_step)
            grad_z_t = (grad_exponent * rate + grad_input * value) * slope[t]
            grad_bias += grad_z_t
            grad_z_before = tl.load(grad_z + offsets, _channels_if(t < z_steps, channels, num_channels), 0.0)
            grad_z_t += grad_z_before.to(tl.float32)
            tl.store(grad_z + offsets, grad_z_t.to(grad_z.dtype.element_ty), is_inside)
            grad_u = grad[t] * skip + grad_input * delta[t]
            grad_u += tl.load(grad_x + offsets, _channels_if(t < x_steps, channels, num_channels), 0.0)
            tl.store(grad_x + offsets, grad_u, is_inside)
    grad_weights += channels + num_channels * (
        chunk + tl.num_programs(0) * (picture + tl.num_programs(2) * part.to(tl.int64) * (N + 2))
    )
    stride = tl.num_programs(2).to(tl.int64) * tl.num_programs(0) * num_channels
    tl.store(grad_weights + n * stride, grad_A, is_channel)
    tl.store(grad_weights + N * stride, grad_D, _channels_if(n == 0, channels, num_channels))
    grad_weights += (N + 1) * stride
    grad_bias += tl.load(grad_weights, _channels_if(n > 0, channels, num_channels), 0.0)
    tl.store(grad_weights, grad_bias, is_channel)


# ------------------------------------------------------------------------------------------------------ their launches


class _Launch:
    """Sizes, grids and constants of the launches for one map."""

    def __init__(self, x: torch.Tensor, dt_proj_weight: torch.Tensor, A: torch.Tensor, directions: list[int]):
        self.batch, self.height, self.width, self.channels = x.shape
        self.parts, _, self.rank = dt_proj_weight.shape
        self.N = A.shape[-1]
        self.chunks = triton.cdiv(self.height * self.width, STEPS)
        self.blocks = triton.cdiv(self.channels, CHANNELS)
        self.orders = sum(int(direction) << (2 * part) for part, direction in enumerate(directions))
        self.sizes = (self.parts, self.height, self.width, self.channels, self.rank, self.N)
        ranks = max(16, triton.next_power_of_2(self.rank))  # tl.dot takes no fewer
        self.constants = {
            "STEPS": STEPS, "BLOCK": BLOCK, "CHANNELS": CHANNELS, "RANKS": ranks, "num_warps": 1
        }  # fmt: skip

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
        kernel[(self.chunks, self.blocks, self.batch * self.parts * self.N)](
            values, projections, dt_proj_weight, dt_proj_bias, A, totals, summaries, self.orders, *self.sizes,
            **self.constants,
        )  # fmt: skip
        chained = torch.empty_like(summaries)
        blocks = triton.cdiv(self.channels, CHAINED_CHANNELS)
        _chain_chunks[(blocks, self.N, self.batch * self.parts)](
            totals, summaries, A, chained, self.parts, self.chunks, self.channels, self.N,
            IS_REVERSED=is_reversed, CHUNKS=CHAINED_CHUNKS, CHANNELS=CHAINED_CHANNELS,
        )  # fmt: skip
        return chained

    def scan(self, kernel: Any, tensors: tuple[torch.Tensor, ...], **constants: bool) -> None:
        for part in range(self.parts):
            for n in range(self.N):
                kernel[(self.chunks, self.blocks, self.batch)](
                    *tensors, part, n, self.orders, *self.sizes, **constants, **self.constants
                )


def num_blocks(x: torch.Tensor) -> int:
    return -(-x.shape[1] * x.shape[2] // BLOCK)


def scan_map(
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    *,
    directions: list[int],
    keeps_states: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Output (batch, height, width, channels), and the states that enter each block for the backward pass.

    All tensors are contiguous. States that are not kept have no blocks.
    """
    launch = _Launch(x, dt_proj_weight, A, directions)
    blocks = num_blocks(x) if keeps_states else 0
    block_states = A.new_empty(launch.batch, launch.parts, blocks, launch.N, launch.channels)
    with torch.cuda.device_of(x):
        states = launch.summarise(_summarise_chunks, x, projections, dt_proj_weight, dt_proj_bias, A, False)
        y = A.new_empty(x.shape)
        tensors = (x, projections, dt_proj_weight, dt_proj_bias, A, D, states, block_states, y)
        launch.scan(_scan_chunks, tensors, KEEPS_STATES=keeps_states)
    return y, block_states


def scan_map_backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    block_states: torch.Tensor,
    *,
    directions: list[int],
) -> list[torch.Tensor]:
    """
    Gradients of x, projections, dt_proj_weight, dt_proj_bias, A, D.

    All are summed in float32, but for the products with dt_proj_weight and with the projections: they are taken in the
    projections' type, as autocast takes them.
    """
    launch = _Launch(x, dt_proj_weight, A, directions)
    batch, height, width, channels = x.shape
    parts, rank, N = launch.parts, launch.rank, launch.N
    weights = (dt_proj_weight, dt_proj_bias, A)
    grad_x = A.new_empty(x.shape)
    grad_z = (projections if N == 1 else A).new_empty(parts, batch * height * width, channels)
    grad_rows = A.new_empty(parts, 2 * N, launch.blocks, batch, height, width)
    grad_weights = A.new_empty(parts, N + 2, batch, launch.chunks, channels)
    with torch.cuda.device_of(x):
        grad_states = launch.summarise(_summarise_gradients, grad_y, projections, *weights, True)
        tensors = (
            grad_y, x, projections, *weights, D, block_states, grad_states, grad_x, grad_z, grad_rows, grad_weights
        )  # fmt: skip
        launch.scan(_scan_chunks_backward, tensors)
    grad_z = grad_z.to(projections.dtype)
    grad_dt = torch.bmm(grad_z, dt_proj_weight.to(grad_z.dtype)).view(parts, batch, height, width, rank)
    grad_rows = grad_rows.sum(2).to(grad_dt.dtype).movedim(1, -1)
    grad_projections = torch.cat([grad_dt, grad_rows], dim=-1).permute(1, 2, 3, 0, 4)
    # Line by line: one product over all pixels would leave most of a GPU idle, and lose digits in half precision.
    dt = projections[..., :rank].permute(3, 0, 1, 2, 4).reshape(-1, width, rank)
    grad_weight = torch.bmm(grad_z.view(-1, width, channels).mT, dt).view(parts, -1, channels, rank)
    grad_weights = grad_weights.sum((2, 3))
    grad_A = grad_weights[:, :N].mT.flatten(0, 1).clone()
    grad_D, grad_bias = grad_weights[:, N].flatten().clone(), grad_weights[:, N + 1].clone()
    return [grad_x, grad_projections, grad_weight.sum(1, dtype=A.dtype), grad_bias, grad_A, grad_D]
