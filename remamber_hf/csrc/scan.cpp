// SPDX-FileCopyrightText: 2026 The remamber_hf authors
// SPDX-License-Identifier: Apache-2.0

// The selective scan of Mamba (arXiv 2312.00752) and SS2D's cross-selective-scan (VMamba, arXiv 2401.10166) on CPUs.
// The contracts and the letters (u, delta, A, B, C, D, N, R, K) are those of selective_scan.py; cpu_scan.py calls this.
//
// A vector holds neighbouring channels, the recurrence runs along time. Work is cut into tiles of STEPS time steps by
// one panel of channels. One of the N states after the other runs through the tile, in registers, so that the buffers of
// a tile fit the first-level cache whatever N is. Of each tile only the state that enters it is kept; the backward pass
// computes the rest again. A map is read and written through pixel offsets, never copied.
//
// The file is compiled once per instruction set, into one library each: the width of a vector follows from the
// compiler's flags. It needs GCC or Clang, for their vector types, and must not be compiled with -ffast-math.

#include "threads.h"
#include "vectors.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>

// -------------------------------------------------------------------------------------------------------- arguments

// All tensors are contiguous. `parts` are the K directions of a map, or the groups of sequences; `channels` are those
// of one part. Weights have one row per part and channel. Keep in step with `_Arguments` in cpu_scan.py.
struct ScanArguments {
    // Map: x (batch, height, width, channels), which all directions read, or with x_has_parts (batch, height, width,
    // parts, channels), one for each. Sequences: u (batch, parts, channels, length).
    const void* x;
    const void* delta;             // sequences: (batch, parts, channels, length); null for maps
    const void* projections;       // maps: (batch, height, width, parts, rank + 2 * states): time step, B, C
    const float *B, *C;            // sequences: (batch, parts, states, length)
    const float* dt_proj_weight;   // (parts, channels, rank)
    const float* bias;             // (parts, channels)
    const float* A;                // (parts, channels, states)
    const float* D;                // (parts, channels)
    const int32_t* directions;     // (parts): 0 row, 1 column, 2 row reversed, 3 column reversed
    float* y;                      // as x
    float* carries;                // (parts, batch, tiles, states, channels): the states that enter each tile
    const float* grad_y;           // as x, and all below only in the backward pass
    float* grad_x;                 // as x
    float* grad_delta;             // as delta
    float* grad_projections;       // (panel_groups, …as projections), to be summed over these
    float *grad_B, *grad_C;        // (panel_groups, …as B), to be summed over these
    float* grad_dt_proj_weight;    // (batch_groups, …as dt_proj_weight), to be summed over these, and so the rest
    float* grad_bias;
    float* grad_A;
    float* grad_D;
    Parallel parallel;             // or null: threads of its own
    int64_t batch, height, width, parts, channels, rank, states;
    // Each group of panels with each group of the batch is the work of one thread.
    int64_t panel_groups, batch_groups;  // at most the panels of a part, at most `batch`
    int32_t x_is_bfloat16, delta_is_bfloat16, projections_is_bfloat16;
    int32_t delta_softplus, x_has_parts;
};

namespace {

constexpr int VECTORS = 2;              // of a panel
constexpr int PANEL = VECTORS * LANES;  // channels
constexpr int STEPS = 32;               // time steps of a tile; BLOCK_STEPS in cpu_scan.py
constexpr int SUMS = 8;                 // vectors that a matrix product holds in registers

enum Direction { ROW, COLUMN, ROW_REVERSED, COLUMN_REVERSED };

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t pixel_of_step(int32_t direction, int64_t height, int64_t width, int64_t step) {
    const bool is_reversed = direction == ROW_REVERSED || direction == COLUMN_REVERSED;
    const bool is_column = direction == COLUMN || direction == COLUMN_REVERSED;
    const int64_t position = is_reversed ? height * width - 1 - step : step;
    return is_column ? position % height * width + position / height : position;
}

// Floats of a workspace, aligned to cache lines and zeroed.
class Buffer {
    struct Free {
        void operator()(float* floats) const { ::operator delete[](floats, std::align_val_t(64)); }
    };
    int64_t size_;
    std::unique_ptr<float[], Free> floats_;

public:
    explicit Buffer(int64_t size) : size_(size), floats_(new (std::align_val_t(64)) float[size]()) {}
    operator float*() const { return floats_.get(); }
    void zero() { std::fill_n(floats_.get(), size_, 0.0f); }
};

// Sizes that follow from the arguments, and where things are in the tensors, in elements.
struct Shape {
    const ScanArguments& args;
    bool is_sequence = args.delta != nullptr;
    int64_t length = args.height * args.width;
    int64_t tiles = divide_up(length, STEPS);
    int64_t panels = divide_up(args.channels, PANEL);
    bool has_parts = is_sequence || args.x_has_parts;
    int64_t all_channels = has_parts ? args.parts * args.channels : args.channels;
    int64_t pixel_stride = is_sequence ? 1 : all_channels;
    int64_t channel_stride = is_sequence ? length : 1;
    int64_t projection_size = args.rank + 2 * args.states;
    int64_t rank_padded = divide_up(args.rank, LANES) * LANES;
    // Buffers have one state at least: where there is none, one of zeros carries D through the passes below.
    int64_t states_padded = args.states > 0 ? args.states : 1;

    explicit Shape(const ScanArguments& arguments) : args(arguments) {}

    int64_t channels_of(int64_t panel) const {
        const int64_t rest = args.channels - panel * PANEL;
        return rest < PANEL ? rest : PANEL;
    }
    int64_t x_start(int64_t batch, int64_t part, int64_t panel) const {
        const int64_t channel = (has_parts ? part * args.channels : 0) + panel * PANEL;
        return batch * length * all_channels + channel * channel_stride;
    }
    int64_t carry_start(int64_t part, int64_t batch, int64_t tile) const {
        return ((part * args.batch + batch) * tiles + tile) * args.states * args.channels;
    }
    int64_t state_start(int64_t batch, int64_t part) const { return (batch * args.parts + part) * args.states * length; }
    int64_t projection_start(int64_t batch, int64_t pixel, int64_t part) const {
        return ((batch * length + pixel) * args.parts + part) * projection_size;
    }
};

// ------------------------------------------------------------------------------------------------------ one tile
//
// Tile buffers are (STEPS, PANEL). Channels that a last panel lacks are zeros.

// The time steps of a tile, common to all panels: where its pixels are and what x_proj made of them.
struct Tile {
    const Shape& shape;
    const int ahead;  // steps to the tile that comes next; less than none in the backward pass
    int steps = 0;
    int64_t pixels[STEPS];
    int64_t offsets[STEPS];                                                 // of the pixels in x, in elements
    Buffer dt{STEPS * shape.rank_padded};                                   // (STEPS, rank padded with zeros)
    Buffer B{shape.states_padded * STEPS}, C{shape.states_padded * STEPS};  // (N, STEPS)

    Tile(const Shape& shape_of_all, int steps_ahead) : shape(shape_of_all), ahead(steps_ahead) {}

    template <typename Element>
    void read_projections(const Element* projections, int64_t batch, int64_t part) {
        const int64_t rank = shape.args.rank, states = shape.args.states;
        for (int t = 0; t < steps; ++t) {
            const Element* row = projections + shape.projection_start(batch, pixels[t], part);
            for (int64_t r = 0; r < rank; ++r) dt[t * shape.rank_padded + r] = to_float(row[r]);
            for (int64_t n = 0; n < states; ++n) {
                B[n * STEPS + t] = to_float(row[rank + n]);
                C[n * STEPS + t] = to_float(row[rank + states + n]);
            }
        }
    }

    void read(int64_t batch, int64_t part, int64_t tile) {
        const ScanArguments& args = shape.args;
        const int64_t start = tile * STEPS, rest = shape.length - start;
        steps = rest < STEPS ? (int)rest : STEPS;
        for (int t = 0; t < steps; ++t) {
            pixels[t] = pixel_of_step(args.directions[part], args.height, args.width, start + t);
            offsets[t] = pixels[t] * shape.pixel_stride;
        }
        if (shape.is_sequence)
            for (int64_t n = 0; n < args.states; ++n) {
                const int64_t row = shape.state_start(batch, part) + n * shape.length + start;
                std::copy_n(args.B + row, steps, B + n * STEPS);
                std::copy_n(args.C + row, steps, C + n * STEPS);
            }
        else if (args.projections_is_bfloat16)
            read_projections(static_cast<const BFloat16*>(args.projections), batch, part);
        else
            read_projections(static_cast<const float*>(args.projections), batch, part);
    }
};

// A tile of a tensor whose rows are no vectors: of sequences, which lie along time, or of a map's last panel. Every
// sequence is elsewhere in memory, so that its next tile has to be fetched while this one is computed.
template <typename Element>
void gather(float* tile, const Element* source, const Tile& steps, int64_t channels, int64_t channel_stride) {
    for (int64_t c = 0; c < PANEL; c += LANES) {
        if (channel_stride == 1) {
            for (int t = 0; t < steps.steps; ++t)
                store(tile + t * PANEL + c, load_some(source + steps.offsets[t] + c, channels - c));
            continue;
        }
        for (int t = 0; t < steps.steps; t += LANES) {
            Floats rows[LANES];
            for (int i = 0; i < LANES; ++i) {
                const Element* row = source + steps.offsets[t] + (c + i) * channel_stride;
                __builtin_prefetch(row + steps.ahead);
                rows[i] = c + i < channels ? load_some(row, steps.steps - t) : Floats{};
            }
            transpose(rows);
            for (int i = 0; i < LANES; ++i) store(tile + (t + i) * PANEL + c, rows[i]);
        }
    }
}

void gather(float* tile, const void* source, bool is_bfloat16, int64_t start, const Tile& steps, int64_t channels,
            int64_t channel_stride) {
    if (is_bfloat16)
        gather(tile, static_cast<const BFloat16*>(source) + start, steps, channels, channel_stride);
    else
        gather(tile, static_cast<const float*>(source) + start, steps, channels, channel_stride);
}

// The other way round. Only maps accumulate.
void scatter(float* target, const float* tile, const Tile& steps, int64_t channels, int64_t channel_stride,
             bool accumulate) {
    for (int64_t c = 0; c < channels; c += LANES) {
        if (channel_stride == 1) {
            for (int t = 0; t < steps.steps; ++t) {
                float* row = target + steps.offsets[t] + c;
                const Floats sum = load(tile + t * PANEL + c) + (accumulate ? load_some(row, channels - c) : Floats{});
                store_some(row, sum, channels - c);
            }
            continue;
        }
        for (int t = 0; t < steps.steps; t += LANES) {
            Floats rows[LANES];
            for (int i = 0; i < LANES; ++i) rows[i] = load(tile + (t + i) * PANEL + c);
            transpose(rows);
            for (int i = 0; i < LANES && c + i < channels; ++i) {
                float* row = target + steps.offsets[t] + (c + i) * channel_stride;
                __builtin_prefetch(row + steps.ahead, 1);
                store_some(row, rows[i], steps.steps - t);
            }
        }
    }
}

// The weights of one panel.
struct PanelWeights {
    const float* dt_proj;  // (rank, PANEL)
    const float* bias;     // (PANEL)
    const float* A;        // (N, PANEL)
    const float* D;        // (PANEL)
};

// z = dt_proj(dt) + bias of a tile: (STEPS, rank) times (rank, PANEL). Rows after the last step are garbage.
void project_time_steps(float* z, const Tile& tile, const PanelWeights& weights, int64_t rank, int64_t rank_padded) {
    constexpr int ROWS = SUMS / VECTORS;
    for (int t = 0; t < tile.steps; t += ROWS) {
        const float* dt = tile.dt + t * rank_padded;
        Floats sums[ROWS][VECTORS];
        for (int i = 0; i < ROWS; ++i)
            for (int v = 0; v < VECTORS; ++v) sums[i][v] = load(weights.bias + v * LANES);
        for (int64_t r = 0; r < rank; ++r)
            for (int v = 0; v < VECTORS; ++v) {
                const Floats column = load(weights.dt_proj + r * PANEL + v * LANES);
                for (int i = 0; i < ROWS; ++i) sums[i][v] += column * dt[i * rank_padded + r];
            }
        for (int i = 0; i < ROWS; ++i)
            for (int v = 0; v < VECTORS; ++v) store(z + (t + i) * PANEL + v * LANES, sums[i][v]);
    }
}

template <typename Element>
void prefetch_next_panel(const Element* row) {
    __builtin_prefetch(row + PANEL);
}

// Time steps of a tile, before softplus or as they are, to time steps; where asked, the derivative as well.
template <bool WithSlope>
void activate(const Tile& tile, bool use_softplus, float* delta, float* slope) {
    for (int i = 0; i < tile.steps * PANEL; i += CHAINS * LANES) {
        Pack pack = load_pack(delta + i), derivative = for_each_chain([](int) { return Floats{} + 1.0f; });
        if (use_softplus) pack = softplus<WithSlope>(pack, &derivative);
        store(delta + i, pack);
        if (WithSlope) store(slope + i, derivative);
    }
}

// The recurrences of a tile take one state after the other. The first reads the rows of x, the last writes those of y,
// and buffers bring what they share from one to the next. Calls pass(state, is it the first?, is it the last?).
template <typename Pass>
INLINE void for_each_state(int64_t states, Pass pass) {
    using Yes = std::true_type;
    using No = std::false_type;
    if (states == 1) return pass(0, Yes(), Yes());
    pass(0, Yes(), No());
    for (int64_t n = 1; n < states - 1; ++n) pass(n, No(), No());
    pass(states - 1, No(), Yes());
}

// Time steps whose decays are computed side by side. While the recurrence waits for itself, the processor goes on with
// the decays of the next ones.
constexpr int AT_ONCE = CHAINS / VECTORS;

INLINE Pack decays_of(const float* delta, const float* A) {
    return exp(load_pack(delta) * for_each_chain([&](int i) { return load(A + i % VECTORS * LANES); }));
}

// Scans one tile of one state; `state` (PANEL) goes in as it enters and comes out as it leaves. The states share
// delta_u_tile and y_so_far, which may be y itself.
template <bool IS_FIRST, bool IS_LAST, typename Row>
void forward_state(const Tile& tile, int64_t n, const PanelWeights& weights, const float* delta, Row x, float* y,
                   const int64_t* offsets, bool accumulate, float* delta_u_tile, float* y_so_far, float* state) {
    const float *A = weights.A + n * PANEL, *B = tile.B + n * STEPS, *C = tile.C + n * STEPS;
    Floats D[VECTORS], h[VECTORS];
    for (int v = 0; v < VECTORS; ++v) {
        D[v] = load(weights.D + v * LANES);
        h[v] = load(state + v * LANES);
    }
    for (int start = 0; start < tile.steps; start += AT_ONCE) {
        const Pack decays = decays_of(delta + start * PANEL, A);
        for (int i = 0; i < AT_ONCE && start + i < tile.steps; ++i) {
            const int t = start + i;
            const Floats B_t = Floats{} + B[t], C_t = Floats{} + C[t];
            if (IS_FIRST) prefetch_next_panel(x + offsets[t]);
            if (IS_FIRST) prefetch_next_panel(y + offsets[t]);
            for (int v = 0; v < VECTORS; ++v) {
                const int place = t * PANEL + v * LANES;
                const Floats u = IS_FIRST ? load(x + offsets[t] + v * LANES) : Floats{};
                const Floats delta_u = IS_FIRST ? load(delta + place) * u : load(delta_u_tile + place);
                if (IS_FIRST && !IS_LAST) store(delta_u_tile + place, delta_u);
                h[v] = decays.of[i * VECTORS + v] * h[v] + delta_u * B_t;
                const Floats output = (IS_FIRST ? D[v] * u : load(y_so_far + place)) + h[v] * C_t;
                float* target = IS_LAST ? y + offsets[t] + v * LANES : y_so_far + place;
                store(target, IS_LAST && accumulate ? output + load(target) : output);
            }
        }
    }
    for (int v = 0; v < VECTORS; ++v) store(state + v * LANES, h[v]);
}

// What the backward pass computes again for one tile, what its states share, and what it hands to the projection.
struct Recomputed {
    Buffer slope{STEPS * PANEL};                                    // derivative of softplus
    Buffer delta_u{STEPS * PANEL}, dy{STEPS * PANEL};               // of all states
    Buffer decays{STEPS * PANEL}, states{(STEPS + 1) * PANEL};      // of one; row t of states enters step t
    Buffer grad_delta_u{STEPS * PANEL}, grad_delta{STEPS * PANEL};  // sums over the states so far
    Buffer grad_z{STEPS * PANEL};                                   // gradient of what goes into softplus
};

// Decays and states of one tile and one state; row 0 of `kept.states` is there already.
template <bool IS_FIRST, typename Row>
void recompute_state(const Tile& tile, int64_t n, const PanelWeights& weights, const float* delta, Row x,
                     const int64_t* offsets, const Recomputed& kept) {
    const float *A = weights.A + n * PANEL, *B = tile.B + n * STEPS;
    float *kept_delta_u = kept.delta_u, *kept_decays = kept.decays, *kept_states = kept.states;
    Floats h[VECTORS];
    for (int v = 0; v < VECTORS; ++v) h[v] = load(kept_states + v * LANES);
    for (int start = 0; start < tile.steps; start += AT_ONCE) {
        const Pack decays = decays_of(delta + start * PANEL, A);
        store(kept_decays + start * PANEL, decays);
        for (int i = 0; i < AT_ONCE && start + i < tile.steps; ++i) {
            const int t = start + i;
            const Floats B_t = Floats{} + B[t];
            if (IS_FIRST) prefetch_next_panel(x + offsets[t]);
            for (int v = 0; v < VECTORS; ++v) {
                const int place = t * PANEL + v * LANES;
                if (IS_FIRST) store(kept_delta_u + place, load(delta + place) * load(x + offsets[t] + v * LANES));
                h[v] = decays.of[i * VECTORS + v] * h[v] + load(kept_delta_u + place) * B_t;
                store(kept_states + place + PANEL, h[v]);
            }
        }
    }
}

// Sums over time of one panel's gradients, and over channels of one tile's B and C.
struct PanelGradients {
    float* state;  // (N, PANEL): of the state between two tiles, not a sum
    float* bias;   // (PANEL)
    float* A;      // (N, PANEL)
    float* D;      // (PANEL)
    float *B, *C;  // (N, STEPS, LANES), lanes to be summed
};

template <bool IS_FIRST, bool IS_LAST, typename Row>
void backward_state(const Tile& tile, int64_t n, const PanelWeights& weights, Row x, const int64_t* offsets,
                    const float* delta_tile, const Recomputed& kept, const float* grad_y, float* grad_x,
                    bool accumulate, const PanelGradients& grad) {
    const float *B = tile.B + n * STEPS, *C = tile.C + n * STEPS;
    const float *decays = kept.decays, *states = kept.states, *delta_u_tile = kept.delta_u, *slope = kept.slope;
    float *dy_tile = kept.dy, *grad_delta_u_tile = kept.grad_delta_u, *grad_delta_tile = kept.grad_delta;
    float *grad_z_tile = kept.grad_z, *grad_B = grad.B + n * STEPS * LANES, *grad_C = grad.C + n * STEPS * LANES;
    Floats A[VECTORS], D[VECTORS], state[VECTORS], grad_state[VECTORS], grad_A[VECTORS], grad_D[VECTORS], grad_bias[VECTORS];
    for (int v = 0; v < VECTORS; ++v) {
        A[v] = load(weights.A + n * PANEL + v * LANES);
        D[v] = load(weights.D + v * LANES);
        state[v] = load(states + tile.steps * PANEL + v * LANES);
        grad_state[v] = load(grad.state + n * PANEL + v * LANES);
        grad_A[v] = load(grad.A + n * PANEL + v * LANES);
        grad_D[v] = load(grad.D + v * LANES);
        grad_bias[v] = load(grad.bias + v * LANES);
    }
    for (int t = tile.steps - 1; t >= 0; --t) {
        if (IS_FIRST) prefetch_next_panel(grad_y + offsets[t]);
        if (IS_FIRST) prefetch_next_panel(grad_x + offsets[t]);
        const Floats B_t = Floats{} + B[t], C_t = Floats{} + C[t];
        Floats grad_B_t = load(grad_B + t * LANES), grad_C_t = load(grad_C + t * LANES);
        for (int v = 0; v < VECTORS; ++v) {
            const int place = t * PANEL + v * LANES;
            const Floats delta = load(delta_tile + place), delta_u = load(delta_u_tile + place);
            const Floats dy = IS_FIRST ? load(grad_y + offsets[t] + v * LANES) : load(dy_tile + place);
            grad_state[v] += dy * C_t;
            grad_B_t += grad_state[v] * delta_u;
            grad_C_t += dy * state[v];
            Floats grad_delta_u = grad_state[v] * B_t;
            state[v] = load(states + place);  // that enters, as in the next line
            grad_state[v] *= load(decays + place);
            const Floats grad_exponent = grad_state[v] * state[v];  // of delta · A
            grad_A[v] += grad_exponent * delta;
            Floats grad_delta = grad_exponent * A[v];
            if (!IS_FIRST) grad_delta_u += load(grad_delta_u_tile + place);
            if (!IS_FIRST) grad_delta += load(grad_delta_tile + place);
            if (!IS_LAST) {
                if (IS_FIRST) store(dy_tile + place, dy);
                store(grad_delta_u_tile + place, grad_delta_u);
                store(grad_delta_tile + place, grad_delta);
                continue;
            }
            const Floats u = load(x + offsets[t] + v * LANES);
            const Floats grad_z = (grad_delta_u * u + grad_delta) * load(slope + place);
            store(grad_z_tile + place, grad_z);
            grad_bias[v] += grad_z;
            grad_D[v] += dy * u;
            float* grad_x_row = grad_x + offsets[t] + v * LANES;
            const Floats grad_u = grad_delta_u * delta + D[v] * dy;
            store(grad_x_row, accumulate ? grad_u + load(grad_x_row) : grad_u);
        }
        store(grad_B + t * LANES, grad_B_t);
        store(grad_C + t * LANES, grad_C_t);
    }
    for (int v = 0; v < VECTORS; ++v) {
        store(grad.state + n * PANEL + v * LANES, grad_state[v]);
        store(grad.A + n * PANEL + v * LANES, grad_A[v]);
        if (!IS_LAST) continue;
        store(grad.D + v * LANES, grad_D[v]);
        store(grad.bias + v * LANES, grad_bias[v]);
    }
}

// Sums over the lanes of (STEPS, LANES): (STEPS).
void sum_lanes(const float* lanes, float* sums) {
    for (int t = 0; t < STEPS; t += LANES) {
        Floats rows[LANES], total = {};
        for (int i = 0; i < LANES; ++i) rows[i] = load(lanes + (t + i) * LANES);
        transpose(rows);
        for (int i = 0; i < LANES; ++i) total += rows[i];
        store(sums + t, total);
    }
}

// Gradients of dt, grad_z (STEPS, PANEL) times the weight, and of the weight, grad_z transposed times dt.
void project_backward(const Tile& tile, const float* grad_z, const float* weight_transposed, int64_t rank_padded,
                            float* grad_dt, float* grad_weight) {
    for (int64_t r = 0; r < rank_padded; r += LANES) {
        for (int t = 0; t < tile.steps; t += SUMS) {  // rows after the last step go to rows that are not read
            Floats sums[SUMS];
            for (int i = 0; i < SUMS; ++i) sums[i] = load(grad_dt + (t + i) * rank_padded + r);
            for (int c = 0; c < PANEL; ++c) {
                const Floats row = load(weight_transposed + c * rank_padded + r);
                for (int i = 0; i < SUMS; ++i) sums[i] += row * grad_z[(t + i) * PANEL + c];
            }
            for (int i = 0; i < SUMS; ++i) store(grad_dt + (t + i) * rank_padded + r, sums[i]);
        }
        for (int c = 0; c < PANEL; c += SUMS) {
            Floats sums[SUMS];
            for (int i = 0; i < SUMS; ++i) sums[i] = load(grad_weight + (c + i) * rank_padded + r);
            for (int t = 0; t < tile.steps; ++t) {
                const Floats row = load(tile.dt + t * rank_padded + r);
                for (int i = 0; i < SUMS; ++i) sums[i] += row * grad_z[t * PANEL + c + i];
            }
            for (int i = 0; i < SUMS; ++i) store(grad_weight + (c + i) * rank_padded + r, sums[i]);
        }
    }
}

// ------------------------------------------------------------------------------------------------------- one thread

// What forward and backward share: a range of panels and of the batch, the weights, and the tile at hand.
struct Worker {
    const ScanArguments& args;
    const Shape shape;
    const int64_t panel_group, batch_group;
    const int64_t first_panel = shape.panels * panel_group / args.panel_groups;
    const int64_t last_panel = shape.panels * (panel_group + 1) / args.panel_groups;
    const int64_t first_batch = args.batch * batch_group / args.batch_groups;
    const int64_t last_batch = args.batch * (batch_group + 1) / args.batch_groups;
    const int64_t num_states = shape.states_padded;
    Tile tile;
    // Of all panels: (rank, PANEL), (PANEL), (N, PANEL), (PANEL) each.
    Buffer dt_proj{per_panel(args.rank * PANEL)}, bias{per_panel(PANEL)};
    Buffer A{per_panel(num_states * PANEL)}, D{per_panel(PANEL)};
    Buffer delta{STEPS * PANEL};
    Buffer x_tile{STEPS * PANEL}, y_tile{STEPS * PANEL};  // rows that are no vectors in the tensors
    int64_t offsets_in_tile[STEPS];

    Worker(const ScanArguments& arguments, int64_t index, int steps_ahead)
        : args(arguments),
          shape(arguments),
          panel_group(index % args.panel_groups),
          batch_group(index / args.panel_groups),
          tile(shape, steps_ahead) {
        for (int t = 0; t < STEPS; ++t) offsets_in_tile[t] = t * PANEL;
    }

    int64_t per_panel(int64_t size) const { return (last_panel - first_panel) * size; }

    // Calls visit(channel in the buffers, row of the weights) for the channels of all panels.
    template <typename Visit>
    void for_each_channel(int64_t part, Visit visit) const {
        for (int64_t panel = first_panel; panel < last_panel; ++panel)
            for (int64_t c = 0; c < shape.channels_of(panel); ++c)
                visit((panel - first_panel) * PANEL + c, part * args.channels + panel * PANEL + c);
    }

    void pack_weights(int64_t part) {
        for_each_channel(part, [&](int64_t channel, int64_t row) {
            const int64_t place = channel / PANEL, lane = channel % PANEL;
            for (int64_t r = 0; r < args.rank; ++r)
                dt_proj[(place * args.rank + r) * PANEL + lane] = args.dt_proj_weight[row * args.rank + r];
            for (int64_t n = 0; n < args.states; ++n)
                A[(place * num_states + n) * PANEL + lane] = args.A[row * num_states + n];
            bias[channel] = args.bias[row];
            D[channel] = args.D[row];
        });
    }

    PanelWeights weights(int64_t panel) const {
        const int64_t place = panel - first_panel;
        return {dt_proj + place * args.rank * PANEL, bias + place * PANEL, A + place * num_states * PANEL,
                D + place * PANEL};
    }

    // Time steps of the tile, and the derivative of softplus if `slope` is given.
    void compute_time_steps(int64_t start, int64_t panel, float* slope) {
        const PanelWeights panel_weights = weights(panel);
        if (shape.is_sequence) {
            gather(delta, args.delta, args.delta_is_bfloat16, start, tile, shape.channels_of(panel),
                   shape.channel_stride);
            for (int t = 0; t < tile.steps; ++t)
                for (int c = 0; c < PANEL; c += LANES) add_to(delta + t * PANEL + c, load(panel_weights.bias + c));
        } else {
            project_time_steps(delta, tile, panel_weights, args.rank, shape.rank_padded);
        }
        const bool use_softplus = !shape.is_sequence || args.delta_softplus;
        if (slope)
            activate<true>(tile, use_softplus, delta, slope);
        else
            activate<false>(tile, use_softplus, delta, nullptr);
    }

    bool is_in_place(int64_t panel) const { return !shape.is_sequence && shape.channels_of(panel) == PANEL; }

    // Directions that read one map add to what the first one wrote.
    bool is_accumulated(int64_t part) const { return !shape.has_parts && part > 0; }

    // Calls operation(x, offsets of its rows), with x as the tensor has it or gathered.
    template <typename Operation>
    void with_x(int64_t start, int64_t panel, Operation operation) {
        if (!is_in_place(panel)) {
            gather(x_tile, args.x, args.x_is_bfloat16, start, tile, shape.channels_of(panel), shape.channel_stride);
            operation((const float*)x_tile, offsets_in_tile);
        } else if (args.x_is_bfloat16) {
            operation(static_cast<const BFloat16*>(args.x) + start, tile.offsets);
        } else {
            operation(static_cast<const float*>(args.x) + start, tile.offsets);
        }
    }
};

class ForwardWorker : Worker {
    Buffer state_{per_panel(num_states * PANEL)};
    Buffer delta_u_{STEPS * PANEL};

    void run_panel(int64_t batch, int64_t part, int64_t panel, float* carries) {
        const int64_t start = shape.x_start(batch, part, panel), channels = shape.channels_of(panel);
        const bool in_place = is_in_place(panel), accumulate = is_accumulated(part);
        float* y = in_place ? args.y + start : y_tile;
        float* state = state_ + (panel - first_panel) * num_states * PANEL;
        for (int64_t n = 0; n < args.states; ++n)
            std::copy_n(state + n * PANEL, channels, carries + n * args.channels + panel * PANEL);
        compute_time_steps(start, panel, nullptr);
        with_x(start, panel, [&](auto* x, const int64_t* offsets) {
            for_each_state(num_states, [&](int64_t n, auto is_first, auto is_last) {
                forward_state<is_first, is_last>(tile, n, weights(panel), delta, x, y, offsets,
                                                 in_place && accumulate, delta_u_, y_tile, state + n * PANEL);
            });
        });
        if (!in_place) scatter(args.y + start, y_tile, tile, channels, shape.channel_stride, accumulate);
    }

public:
    ForwardWorker(const ScanArguments& arguments, int64_t index) : Worker(arguments, index, STEPS) {}

    void run() {
        const FlushDenormals guard;
        for (int64_t part = 0; part < args.parts; ++part) {
            pack_weights(part);
            for (int64_t batch = first_batch; batch < last_batch; ++batch) {
                state_.zero();
                for (int64_t index = 0; index < shape.tiles; ++index) {
                    tile.read(batch, part, index);
                    float* carries = args.carries + shape.carry_start(part, batch, index);
                    for (int64_t panel = first_panel; panel < last_panel; ++panel)
                        run_panel(batch, part, panel, carries);
                }
            }
        }
    }
};

class BackwardWorker : Worker {
    Recomputed kept_;
    Buffer grad_x_tile_{STEPS * PANEL};
    Buffer dt_proj_transposed_{per_panel(PANEL * shape.rank_padded)};
    // Of all panels, and of one tile; the shapes are those of PanelGradients.
    Buffer grad_state_{per_panel(num_states * PANEL)}, grad_dt_proj_{per_panel(PANEL * shape.rank_padded)};
    Buffer grad_bias_{per_panel(PANEL)}, grad_A_{per_panel(num_states * PANEL)}, grad_D_{per_panel(PANEL)};
    Buffer grad_dt_{STEPS * shape.rank_padded};
    Buffer grad_B_{num_states * STEPS * LANES}, grad_C_{num_states * STEPS * LANES};

    void pack_transposed(int64_t part) {
        for_each_channel(part, [&](int64_t channel, int64_t row) {
            std::copy_n(args.dt_proj_weight + row * args.rank, args.rank,
                        dt_proj_transposed_ + channel * shape.rank_padded);
        });
    }

    void run_panel(int64_t batch, int64_t part, int64_t panel, const float* carries) {
        const int64_t start = shape.x_start(batch, part, panel), channels = shape.channels_of(panel);
        const bool in_place = is_in_place(panel), accumulate = is_accumulated(part);
        const float* grad_y = args.grad_y + start;
        float* grad_x = args.grad_x + start;
        if (!in_place) {
            gather(y_tile, args.grad_y, false, start, tile, channels, shape.channel_stride);
            grad_y = y_tile;
            grad_x = grad_x_tile_;
        }
        const int64_t place = panel - first_panel;
        const PanelWeights panel_weights = weights(panel);
        const PanelGradients grad = {grad_state_ + place * num_states * PANEL,
                                     grad_bias_ + place * PANEL,
                                     grad_A_ + place * num_states * PANEL,
                                     grad_D_ + place * PANEL,
                                     grad_B_,
                                     grad_C_};
        compute_time_steps(start, panel, kept_.slope);
        with_x(start, panel, [&](auto* x, const int64_t* offsets) {
            for_each_state(num_states, [&](int64_t n, auto is_first, auto is_last) {
                float* entering = kept_.states;
                std::fill_n(entering, PANEL, 0.0f);
                if (n < args.states) std::copy_n(carries + n * args.channels + panel * PANEL, channels, entering);
                recompute_state<is_first>(tile, n, panel_weights, delta, x, offsets, kept_);
                backward_state<is_first, is_last>(tile, n, panel_weights, x, offsets, delta, kept_, grad_y, grad_x,
                                                  in_place && accumulate, grad);
            });
        });
        if (!in_place) scatter(args.grad_x + start, grad_x_tile_, tile, channels, shape.channel_stride, accumulate);
        if (shape.is_sequence)
            scatter(args.grad_delta + start, kept_.grad_z, tile, channels, shape.channel_stride, false);
        else
            project_backward(tile, kept_.grad_z, dt_proj_transposed_ + place * PANEL * shape.rank_padded,
                             shape.rank_padded, grad_dt_, grad_dt_proj_ + place * PANEL * shape.rank_padded);
    }

    void write_projections(int64_t batch, int64_t part, int64_t index) {
        for (int64_t n = 0; n < num_states; ++n) {
            sum_lanes(grad_B_ + n * STEPS * LANES, tile.B + n * STEPS);
            sum_lanes(grad_C_ + n * STEPS * LANES, tile.C + n * STEPS);
        }
        if (shape.is_sequence) {
            const int64_t first = panel_group * args.batch * args.parts * args.states * shape.length;
            for (int64_t n = 0; n < args.states; ++n) {
                const int64_t row = first + shape.state_start(batch, part) + n * shape.length + index * STEPS;
                std::copy_n(tile.B + n * STEPS, tile.steps, args.grad_B + row);
                std::copy_n(tile.C + n * STEPS, tile.steps, args.grad_C + row);
            }
            return;
        }
        const int64_t size = args.batch * shape.length * args.parts * shape.projection_size;
        float* all = args.grad_projections + panel_group * size;
        for (int t = 0; t < tile.steps; ++t) {
            float* row = all + shape.projection_start(batch, tile.pixels[t], part);
            std::copy_n(grad_dt_ + t * shape.rank_padded, args.rank, row);
            for (int64_t n = 0; n < args.states; ++n) {
                row[args.rank + n] = tile.B[n * STEPS + t];
                row[args.rank + args.states + n] = tile.C[n * STEPS + t];
            }
        }
    }

    void write_weights(int64_t part) {
        for_each_channel(part, [&](int64_t channel, int64_t weight_row) {
            const int64_t place = channel / PANEL, lane = channel % PANEL;
            const int64_t row = batch_group * args.parts * args.channels + weight_row;
            std::copy_n(grad_dt_proj_ + channel * shape.rank_padded, args.rank,
                        args.grad_dt_proj_weight + row * args.rank);
            for (int64_t n = 0; n < args.states; ++n)
                args.grad_A[row * num_states + n] = grad_A_[(place * num_states + n) * PANEL + lane];
            args.grad_bias[row] = grad_bias_[channel];
            args.grad_D[row] = grad_D_[channel];
        });
    }

public:
    BackwardWorker(const ScanArguments& arguments, int64_t index) : Worker(arguments, index, -STEPS) {}

    void run() {
        const FlushDenormals guard;
        for (int64_t part = 0; part < args.parts; ++part) {
            pack_weights(part);
            pack_transposed(part);
            for (Buffer* sums : {&grad_dt_proj_, &grad_bias_, &grad_A_, &grad_D_}) sums->zero();
            for (int64_t batch = first_batch; batch < last_batch; ++batch) {
                grad_state_.zero();
                for (int64_t index = shape.tiles - 1; index >= 0; --index) {
                    tile.read(batch, part, index);
                    for (Buffer* sums : {&grad_dt_, &grad_B_, &grad_C_}) sums->zero();
                    const float* carries = args.carries + shape.carry_start(part, batch, index);
                    for (int64_t panel = first_panel; panel < last_panel; ++panel)
                        run_panel(batch, part, panel, carries);
                    write_projections(batch, part, index);
                }
            }
            write_weights(part);
        }
    }
};

}  // namespace

// ------------------------------------------------------------------------------------------------------- C interface

// Size of ScanArguments, time steps of a tile and channels of a panel, for the caller to check and to plan with.
EXPORT int64_t remamber_scan_argument_bytes() { return sizeof(ScanArguments); }
EXPORT int64_t remamber_scan_steps() { return STEPS; }
EXPORT int64_t remamber_scan_panel() { return PANEL; }

// Fill `y` and `carries`, or all `grad_…`. They return 0, or 1 if there is not enough memory.
EXPORT int32_t remamber_scan_forward(const ScanArguments* args) {
    return run_workers<ForwardWorker>(*args, args->panel_groups * args->batch_groups);
}
EXPORT int32_t remamber_scan_backward(const ScanArguments* args) {
    return run_workers<BackwardWorker>(*args, args->panel_groups * args->batch_groups);
}
