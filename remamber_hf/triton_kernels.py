# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels of `cross_selective_scan` and what launches them; `triton_scan.py` makes operators of it.

`selective_scan.py` has the contract and the letters. The sequence of a direction is cut into chunks. A pass is three
kernels, each a grid of programs over chunks × channels × pictures:

    summarise chunks: the state that leaves each chunk if zeros enter it, and the sum of its time steps
    → chain chunks: the states that leave each chunk in truth
    → scan chunks: the output of each direction, which the caller sums.

The backward pass does the same with gradients of states, from the last chunk to the first. Of the states the forward
pass keeps one of KEPT, and those between are computed again. Every program writes its own part of every tensor: no
addition is atomic, and the same inputs give the same bits.

A program is one warp and has one number of the state (N is 1 in the published models). It walks along its chunk in
blocks of time steps. A block's time-step projections are one matrix product, on tensor cores; its rows are then taken
apart, for the recurrence goes row after row, each a vector over the program's channels. A map is read where it lies,
all rows of a block before the first is used: a GPU does not move a load before a store. Time steps after the last read
what the last one reads, with gradients of zero; what they compute reaches nothing.

A direction's output and gradients are computed in float32 and written in the type of the map, or of the projections,
as autocast writes what a layer computes; sums over directions are taken in float32.
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
KEPT = 8  # time steps from one kept state to the next
CHANNELS = 64  # channels of a program
CHAINED_CHUNKS, CHAINED_CHANNELS = 64, 32  # of a program that chains
# Arguments: Triton would compile a kernel again where one is 1 or a multiple of 16, as it does for num_channels.
SIZES = ["orders", "n", "parts", "height", "width", "rank", "N", "num_chunks"]
LOG2_E = tl.constexpr(1.4426950408889634)


# ------------------------------------------------------------------------------------------------ parts of the kernels


@triton.jit
def _combine(decay, state, next_decay, next_state):
    """Two stretches of the recurrence as one: its decay, and the state that leaves it if zeros enter."""
    return decay * next_decay, state * next_decay + next_state


@triton.jit
def _softplus(z):
    """
    log(1 + exp(z)) to the last digits but for what the rounding of z·log2(e) costs, and exp(−|z|).

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

    Then, for `_pixels`, the length of a line and how far the next pixel is inside of a line and at its end. `order` is
    a `Direction`.
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
    """The pixels of a block's time steps, one after the other. The last one stands for those after it."""
    pixel, place, line, inside, at_end = _place(first, order, height, width)
    remaining = height * width - 1 - first
    pixels = ()
    for t in tl.static_range(BLOCK):
        pixels = pixels + (pixel,)
        place += 1
        is_end = place == line
        pixel += tl.where(t < remaining, tl.where(is_end, at_end, inside), 0)
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
def _zeros_like(loaded):
    """
    Zeros that the compiler lays out over the threads as `loaded`.

    It lays out tl.zeros in its own way, and then computes what is added to them a second time.
    """
    return tl.minimum(tl.maximum(loaded, 0.0), 0.0)


@triton.jit
def _upper(value):
    """Float32 cut to the 11 significant bits of TF32."""
    return (value.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def _time_step_weight(weight, channels, is_channel, rank, RANKS: tl.constexpr):
    """(rank, channels), padded with zeros to RANKS, in two parts to be summed, each good in TF32."""
    ranks = tl.arange(0, RANKS)[:, None]
    whole = tl.load(weight + channels[None, :] * rank + ranks, is_channel[None, :] & (ranks < rank), 0.0)
    upper = _upper(whole)
    return upper, whole - upper


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
    loaded = tl.load(rows + pixels[:, None] * row_stride + ranks, is_inside, 0.0)
    dt = loaded.to(tl.float32)
    if loaded.dtype == tl.float32:  # half precision is TF32 as it is
        upper = _upper(dt)
        z = tl.dot(upper, weight[1], tl.dot(dt - upper, weight[0]))
        dt = upper
    else:
        z = tl.dot(dt, weight[1])
    return _rows(tl.dot(dt, weight[0], z) + bias[None, :], CHANNELS)


@triton.jit
def _load_vectors(map, pixels, num_steps, channels, num_channels, FIRST: tl.constexpr, SIZE: tl.constexpr):
    """SIZE of a block's rows of a map, from the FIRST on; 0 from step `num_steps` of the block on."""
    vectors = ()
    for t in tl.static_range(FIRST, FIRST + SIZE):
        is_inside = _channels_if(t < num_steps, channels, num_channels)
        vectors = vectors + (tl.load(map + pixels[t] * num_channels + channels, is_inside, 0.0),)
    return vectors


@triton.jit
def _load_scalars(pointer, stride, pixels, FIRST: tl.constexpr, SIZE: tl.constexpr):
    """A number of each of SIZE of a block's time steps, from the FIRST on."""
    scalars = ()
    for t in tl.static_range(FIRST, FIRST + SIZE):
        scalars = scalars + (tl.load(pointer + pixels[t] * stride).to(tl.float32),)
    return scalars


# --------------------------------------------------------------------------------------------------------- the kernels


@triton.jit(do_not_specialize=SIZES)
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
    total, h = _zeros_like(rate), _zeros_like(rate)
    for first in range(chunk * STEPS, tl.minimum(chunk * STEPS + STEPS, length), BLOCK):
        z = _project(
            rows, dt_weight, dt_bias, first, order, height, width, row_stride, rank, BLOCK, CHANNELS, RANKS
        )  # fmt: skip
        pixels = _pixels(first, order, height, width, BLOCK)
        u = _load_vectors(x, pixels, BLOCK, channels, num_channels, 0, BLOCK)
        B = _load_scalars(rows + rank + n, row_stride, pixels, 0, BLOCK)
        for t in tl.static_range(BLOCK):
            delta, _ = _softplus(z[t])
            total += delta
            h = tl.exp2(delta * rate) * h + delta * u[t].to(tl.float32) * B[t]
    place = plane.to(tl.int64) * tl.num_programs(0) + chunk
    tl.store(totals + place * num_channels + channels, total, _channels_if(n == 0, channels, num_channels))
    tl.store(summaries + (place * N + n) * num_channels + channels, h, is_channel)


@triton.jit(do_not_specialize=SIZES)
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


@triton.jit(do_not_specialize=SIZES)
def _scan_chunks(
    x, projections, weight, bias, A, D, states, kept_states, y,
    n, orders, parts, height, width, num_channels, rank, N,
    KEEPS_STATES: tl.constexpr, KEPT: tl.constexpr,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """
    Output y (K, pixels, channels) by way of the n-th number of the state; one program for each direction.

    kept_states (batch, K, ⌈time steps / KEPT⌉, N, channels) takes the state before one of KEPT time steps.
    """
    chunk, picture, part = tl.program_id(0), (tl.program_id(2) // parts).to(tl.int64), tl.program_id(2) % parts
    order = (orders >> (2 * part)) & 3
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    weight_channels = part * num_channels + channels
    length = height * width
    row_stride = parts * (rank + 2 * N)
    rows = projections + (picture * length * parts + part) * (rank + 2 * N)
    x += picture * length * num_channels
    y += (part.to(tl.int64) * (tl.num_programs(2) // parts) + picture) * length * num_channels
    plane = picture * parts + part

    dt_weight = _time_step_weight(weight, weight_channels, is_channel, rank, RANKS)
    dt_bias = tl.load(bias + weight_channels, is_channel, 0.0)
    rate = tl.load(A + weight_channels * N + n, is_channel, 0.0) * LOG2_E
    skip = tl.load(D + weight_channels, _channels_if(n == 0, channels, num_channels), 0.0)
    place = (plane * tl.num_programs(0) + chunk - 1) * N + n
    h = tl.load(states + place * num_channels + channels, _channels_if(chunk > 0, channels, num_channels), 0.0)
    for first in range(chunk * STEPS, tl.minimum(chunk * STEPS + STEPS, length), BLOCK):
        z = _project(
            rows, dt_weight, dt_bias, first, order, height, width, row_stride, rank, BLOCK, CHANNELS, RANKS
        )  # fmt: skip
        pixels = _pixels(first, order, height, width, BLOCK)
        u = _load_vectors(x, pixels, BLOCK, channels, num_channels, 0, BLOCK)
        B = _load_scalars(rows + rank + n, row_stride, pixels, 0, BLOCK)
        C = _load_scalars(rows + rank + N + n, row_stride, pixels, 0, BLOCK)
        for t in tl.static_range(BLOCK):
            delta, _ = _softplus(z[t])
            value = u[t].to(tl.float32)
            is_inside = _channels_if(first + t < length, channels, num_channels)
            if KEEPS_STATES and t % KEPT == 0:
                place = (plane * tl.cdiv(length, KEPT) + (first + t) // KEPT) * N + n
                tl.store(kept_states + place * num_channels + channels, h, is_inside)
            h = tl.exp2(delta * rate) * h + delta * value * B[t]
            output = value * skip + C[t] * h
            tl.store(y + pixels[t] * num_channels + channels, output.to(y.dtype.element_ty), is_inside)


@triton.jit(do_not_specialize=SIZES)
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
    total, grad_h = _zeros_like(rate), _zeros_like(rate)
    for first in range(chunk * STEPS, tl.minimum(chunk * STEPS + STEPS, length), BLOCK):
        z = _project(
            rows, dt_weight, dt_bias, first, order, height, width, row_stride, rank, BLOCK, CHANNELS, RANKS
        )  # fmt: skip
        pixels = _pixels(first, order, height, width, BLOCK)
        grad = _load_vectors(grad_y, pixels, length - first, channels, num_channels, 0, BLOCK)
        C = _load_scalars(rows + rank + N + n, row_stride, pixels, 0, BLOCK)
        for t in tl.static_range(BLOCK):
            delta, _ = _softplus(z[t])
            total += delta
            grad_h += tl.exp2(total * rate) * (grad[t] * C[t])
    place = plane.to(tl.int64) * tl.num_programs(0) + chunk
    tl.store(totals + place * num_channels + channels, total, _channels_if(n == 0, channels, num_channels))
    tl.store(summaries + (place * N + n) * num_channels + channels, grad_h, is_channel)


@triton.jit(do_not_specialize=SIZES)
def _scan_chunks_backward(
    grad_y, x, projections, weight, bias, A, D, kept_states, grad_states, grad_x, grad_z, grad_rows, grad_weights,
    n, orders, parts, height, width, num_channels, rank, N, KEPT: tl.constexpr,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """
    Gradients by way of the n-th number of the state; one program for each direction.

    grad_x and grad_z (K, pixels, channels) have those of x and of the time steps before softplus, grad_rows
    (K, 2, blocks of channels, pixels) those of B and C, grad_weights (K, 3, batch, chunks, channels) those of A, D and
    dt_proj_bias: parts that the caller sums.
    """
    chunk, picture, part = tl.program_id(0), (tl.program_id(2) // parts).to(tl.int64), tl.program_id(2) % parts
    order = (orders >> (2 * part)) & 3
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    weight_channels = part * num_channels + channels
    length = height * width
    pictures = tl.num_programs(2) // parts
    row_stride = parts * (rank + 2 * N)
    rows = projections + (picture * length * parts + part) * (rank + 2 * N)
    x += picture * length * num_channels
    grad_y += picture * length * num_channels
    first_pixel = (part.to(tl.int64) * pictures + picture) * length
    grad_x += first_pixel * num_channels
    grad_z += first_pixel * num_channels
    num_pixels = pictures.to(tl.int64) * length
    grad_B = grad_rows + (2 * part * tl.num_programs(1) + tl.program_id(1)) * num_pixels + picture * length
    grad_C = grad_B + tl.num_programs(1) * num_pixels
    plane = picture * parts + part

    dt_weight = _time_step_weight(weight, weight_channels, is_channel, rank, RANKS)
    dt_bias = tl.load(bias + weight_channels, is_channel, 0.0)
    rate = tl.load(A + weight_channels * N + n, is_channel, 0.0)
    skip = tl.load(D + weight_channels, _channels_if(n == 0, channels, num_channels), 0.0)
    has_next = _channels_if(chunk + 1 < tl.num_programs(0), channels, num_channels)
    place = (plane * tl.num_programs(0) + chunk + 1) * N + n
    # Of the state that leaves the time step at hand, from the time steps after it.
    grad_leaving = tl.load(grad_states + place * num_channels + channels, has_next, 0.0)
    grad_A, grad_D, grad_bias = _zeros_like(rate), _zeros_like(rate), _zeros_like(rate)
    num_blocks = tl.cdiv(tl.minimum(STEPS, length - chunk * STEPS), BLOCK)
    for index in range(num_blocks):
        first = chunk * STEPS + (num_blocks - 1 - index) * BLOCK
        z = _project(
            rows, dt_weight, dt_bias, first, order, height, width, row_stride, rank, BLOCK, CHANNELS, RANKS
        )  # fmt: skip
        pixels = _pixels(first, order, height, width, BLOCK)
        for start in tl.static_range(BLOCK - KEPT, -1, -KEPT):
            u = _load_vectors(x, pixels, BLOCK, channels, num_channels, start, KEPT)
            grad = _load_vectors(grad_y, pixels, length - first, channels, num_channels, start, KEPT)
            B = _load_scalars(rows + rank + n, row_stride, pixels, start, KEPT)
            C = _load_scalars(rows + rank + N + n, row_stride, pixels, start, KEPT)
            place = (plane * tl.cdiv(length, KEPT) + (first + start) // KEPT) * N + n
            is_kept = _channels_if(first + start < length, channels, num_channels)
            h = (tl.load(kept_states + place * num_channels + channels, is_kept, 0.0),)  # before each time step
            delta, slope = (), ()
            for t in tl.static_range(KEPT):
                delta_t, e = _softplus(z[start + t])
                delta = delta + (delta_t,)
                slope = slope + (_sigmoid(z[start + t], e),)
                h = h + (tl.exp2(delta_t * (rate * LOG2_E)) * h[t] + delta_t * u[t].to(tl.float32) * B[t],)
            for t in tl.static_range(KEPT - 1, -1, -1):
                is_step = first + start + t < length
                is_inside = _channels_if(is_step, channels, num_channels)
                pixel = pixels[start + t]
                value = u[t].to(tl.float32)
                grad_h = grad[t] * C[t] + grad_leaving
                grad_leaving = tl.exp2(delta[t] * (rate * LOG2_E)) * grad_h
                grad_exponent = grad_leaving * h[t]  # of delta · A
                grad_input = grad_h * B[t]  # of delta · u
                grad_z_t = (grad_exponent * rate + grad_input * value) * slope[t]
                grad_u = grad[t] * skip + grad_input * delta[t]
                grad_A += grad_exponent * delta[t]
                grad_D += grad[t] * value
                grad_bias += grad_z_t
                offsets = pixel * num_channels + channels
                tl.store(grad_z + offsets, grad_z_t.to(grad_z.dtype.element_ty), is_inside)
                tl.store(grad_x + offsets, grad_u.to(grad_x.dtype.element_ty), is_inside)
                tl.store(grad_B + pixel, tl.sum(grad_h * (delta[t] * value), 0), is_step)
                tl.store(grad_C + pixel, tl.sum(grad[t] * h[t + 1], 0), is_step)
    stride = pictures.to(tl.int64) * tl.num_programs(0) * num_channels
    grad_weights += 3 * part * stride + (picture * tl.num_programs(0) + chunk) * num_channels + channels
    tl.store(grad_weights, grad_A, is_channel)
    tl.store(grad_weights + stride, grad_D, is_channel)
    tl.store(grad_weights + 2 * stride, grad_bias, is_channel)


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


def num_kept(x: torch.Tensor) -> int:
    return -(-x.shape[1] * x.shape[2] // KEPT)


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
    Output (batch, height, width, channels), and the states for the backward pass, none unless they are kept.

    All tensors are contiguous.
    """
    launch = _Launch(x, dt_proj_weight, A, directions)
    kept = num_kept(x) if keeps_states else 0
    kept_states = A.new_empty(launch.batch, launch.parts, kept, launch.N, launch.channels)
    with torch.cuda.device_of(x):
        states = launch.summarise(_summarise_chunks, x, projections, dt_proj_weight, dt_proj_bias, A, False)
        outputs = []
        for n in range(launch.N):
            y = x.new_empty(launch.parts, *x.shape)
            _scan_chunks[(launch.chunks, launch.blocks, launch.batch * launch.parts)](
                x, projections, dt_proj_weight, dt_proj_bias, A, D, states, kept_states, y,
                n, launch.orders, *launch.sizes, KEEPS_STATES=keeps_states, KEPT=KEPT, **launch.constants,
            )  # fmt: skip
            outputs.append(y.sum(0, dtype=A.dtype))
    return _sum(outputs), kept_states


def _sum(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Without a launch for the one tensor that there mostly is."""
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).sum(0)


def scan_map_backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    projections: torch.Tensor,
    dt_proj_weight: torch.Tensor,
    dt_proj_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    kept_states: torch.Tensor,
    *,
    directions: list[int],
) -> list[torch.Tensor]:
    """
    Gradients of x, projections, dt_proj_weight, dt_proj_bias, A, D.

    The products with dt_proj_weight and with the projections are taken in the projections' type, as autocast would.
    """
    launch = _Launch(x, dt_proj_weight, A, directions)
    batch, height, width, channels = x.shape
    parts, rank, N = launch.parts, launch.rank, launch.N
    weights = (dt_proj_weight, dt_proj_bias, A)
    grads_x, grads_z, grads_rows, grads_weights = [], [], [], []
    with torch.cuda.device_of(x):
        grad_states = launch.summarise(_summarise_gradients, grad_y, projections, *weights, True)
        for n in range(N):
            grad_x = x.new_empty(parts, *x.shape)
            grad_z = projections.new_empty(parts, batch * height * width, channels)
            grad_rows = A.new_empty(parts, 2, launch.blocks, batch, height, width)
            grad_weights = A.new_empty(parts, 3, batch, launch.chunks, channels)
            _scan_chunks_backward[(launch.chunks, launch.blocks, batch * parts)](
                grad_y, x, projections, *weights, D, kept_states, grad_states, grad_x, grad_z, grad_rows, grad_weights,
                n, launch.orders, *launch.sizes, KEPT=KEPT, **launch.constants,
            )  # fmt: skip
            grads_x.append(grad_x.sum(0))
            grads_z.append(grad_z)
            grads_rows.append(grad_rows.sum(2))
            grads_weights.append(grad_weights.sum((2, 3)))
    grad_z, grad_weights = _sum(grads_z), torch.stack(grads_weights, dim=-1)  # (K, 3, channels, N)
    grad_projections = torch.empty_like(projections)
    grad_dt = torch.bmm(grad_z, dt_proj_weight.to(grad_z.dtype)).view(parts, batch, height, width, rank)
    grad_projections[..., :rank] = grad_dt.permute(1, 2, 3, 0, 4)
    for n, grad_rows in enumerate(grads_rows):
        grad_projections[..., rank + n :: N] = grad_rows.permute(2, 3, 4, 0, 1)  # of B and of C
    # Line by line: one product over all pixels would leave most of a GPU idle, and lose digits in half precision.
    dt = projections[..., :rank].permute(3, 0, 1, 2, 4).reshape(-1, width, rank)
    grad_weight = torch.bmm(grad_z.view(-1, width, channels).mT, dt).view(parts, -1, channels, rank)
    return [
        _sum(grads_x), grad_projections, grad_weight.sum(1, dtype=A.dtype), grad_weights[:, 2].sum(-1),
        grad_weights[:, 0].flatten(0, 1).clone(), grad_weights[:, 1, :, 0].flatten().clone(),
    ]  # fmt: skip
