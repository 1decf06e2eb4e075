// SPDX-FileCopyrightText: 2026 The remamber_hf authors
// SPDX-License-Identifier: Apache-2.0

// The selective scan of Mamba (arXiv 2312.00752) and SS2D's cross-selective-scan (VMamba, arXiv 2401.10166) on CPUs.
// The contracts and the letters (u, delta, A, B, C, D, N, R, K) are those of selective_scan.py; cpu_scan.py calls this.
//
// A vector holds neighbouring channels, the recurrence runs along time. Work is cut into tiles of STEPS time steps by
// one panel of channels, whose buffers fit the first-level cache. Of each tile only the state that enters it is kept;
// the backward pass computes the rest again. A map is read and written through pixel offsets, never copied.
//
// The file is compiled once per instruction set, into one library each: the width of a vector follows from the
// compiler's flags. It needs GCC or Clang, for their vector types, and must not be compiled with -ffast-math.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

// ------------------------------------------------------------------------------------------------------- vectors

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int VECTORS = 2;              // of a panel
constexpr int PANEL = VECTORS * LANES;  // channels
constexpr int STEPS = 32;               // time steps of a tile; BLOCK_STEPS in cpu_scan.py
constexpr int SUMS = 8;                 // vectors that a matrix product holds in registers

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t HalfWords __attribute__((vector_size(2 * LANES)));
typedef uint16_t BFloat16;

INLINE Floats load(const float* source) {
    Floats vector;
    std::memcpy(&vector, source, sizeof vector);
    return vector;
}

INLINE Floats load(const BFloat16* source) {
    HalfWords halves;
    std::memcpy(&halves, source, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

INLINE void store(float* target, Floats vector) { std::memcpy(target, &vector, sizeof vector); }

INLINE void add_to(float* target, Floats vector) { store(target, load(target) + vector); }

INLINE float to_float(float value) { return value; }

INLINE float to_float(BFloat16 value) {
    const uint32_t word = (uint32_t)value << 16;
    float result;
    std::memcpy(&result, &word, sizeof result);
    return result;
}

INLINE float sum(Floats vector) {
    float total = 0;
    for (int lane = 0; lane < LANES; ++lane) total += vector[lane];
    return total;
}

// The larger or the smaller of two; a NaN in b stays. Compilers do not find these instructions by themselves.
INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#elif defined(__SSE__)
    return _mm_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}

INLINE Floats smaller(Floats a, Floats b) {
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_min_ps(a, b);
#elif defined(__SSE__)
    return _mm_min_ps(a, b);
#else
    return a < b ? a : b;
#endif
}

// Vectors that go through one long formula side by side: a single one would wait for the result of every operation.
constexpr int CHAINS = 4;
struct Pack {
    Floats of[CHAINS];
};

template <typename Operation>
INLINE Pack for_each_chain(Operation operation) {
    Pack result;
    for (int i = 0; i < CHAINS; ++i) result.of[i] = operation(i);
    return result;
}

INLINE Pack operator+(Pack a, Pack b) { return for_each_chain([&](int i) { return a.of[i] + b.of[i]; }); }
INLINE Pack operator+(Pack a, float b) { return for_each_chain([&](int i) { return a.of[i] + b; }); }
INLINE Pack operator-(Pack a, Pack b) { return for_each_chain([&](int i) { return a.of[i] - b.of[i]; }); }
INLINE Pack operator-(Pack a, float b) { return for_each_chain([&](int i) { return a.of[i] - b; }); }
INLINE Pack operator*(Pack a, Pack b) { return for_each_chain([&](int i) { return a.of[i] * b.of[i]; }); }
INLINE Pack operator*(Pack a, float b) { return for_each_chain([&](int i) { return a.of[i] * b; }); }
INLINE Pack operator/(Pack a, Pack b) { return for_each_chain([&](int i) { return a.of[i] / b.of[i]; }); }
INLINE Pack larger(float a, Pack b) { return for_each_chain([&](int i) { return larger(Floats{} + a, b.of[i]); }); }
INLINE Pack smaller(float a, Pack b) { return for_each_chain([&](int i) { return smaller(Floats{} + a, b.of[i]); }); }

INLINE Pack load_pack(const float* source) {
    return for_each_chain([&](int i) { return load(source + i * LANES); });
}

INLINE void store(float* target, Pack pack) {
    for (int i = 0; i < CHAINS; ++i) store(target + i * LANES, pack.of[i]);
}

// e^x to about 2 units in the last place; 0 below -87.7, infinity above 88.4. With x = n ln 2 + r and |r| <= ln 2 / 2,
// e^r is 1 + r + r^2 times a minimax polynomial of degree 4: exact where e^x nears 1, so that slow decays stay so.
INLINE Pack exp(Pack x) {
    constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;  // n times the first is exact
    constexpr float ROUND = 12582912.0f;                                 // 1.5 * 2^23: adding it rounds to an integer
    x = smaller(89.0f, larger(-88.0f, x));
    const Pack shifted = x * 1.44269504f + ROUND;
    const Pack n = shifted - ROUND;
    const Pack r = (x - n * LN2_HIGH) - n * LN2_LOW;
    Pack poly = r * 1.381459857e-3f + 8.368716984e-3f;
    poly = poly * r + 4.166838805e-2f;
    poly = poly * r + 1.666652063e-1f;
    poly = poly * r + 4.999999345e-1f;
    poly = poly * (r * r) + r + 1.0f;
    return for_each_chain([&](int i) {
        const Ints exponent = (Ints)shifted.of[i] - 0x4B400000 + 127;  // the bits of ROUND; n is in [-127, 128]
        return poly.of[i] * (Floats)(exponent << 23);
    });
}

// softplus(z) = max(z, 0) + log(1 + e^-|z|), and where asked its derivative. With t = e^-|z| and s = t / (2 + t),
// log(1 + t) is 2 artanh(s): small values keep all their digits. Above 20 it is z itself, as in PyTorch.
template <bool WithSlope>
INLINE Pack softplus(Pack z, Pack* slope) {
    const Pack t = exp(for_each_chain([&](int i) { return (Floats)((Ints)z.of[i] | INT32_MIN); }));
    const Pack s = t / (t + 2.0f);
    const Pack s2 = s * s;
    Pack poly = s2 * 1.400633571e-1f + 1.400083867e-1f;
    poly = poly * s2 + 2.001076715e-1f;
    poly = poly * s2 + 3.333320809e-1f;
    if (WithSlope)
        *slope = for_each_chain([&](int i) { return z.of[i] < 0.0f ? t.of[i] : Floats{} + 1.0f; }) / (t + 1.0f);
    return larger(0.0f, z) + (s + s) * (s2 * poly + 1.0f);
}

// ---------------------------------------------------------------------------------------------- floating-point mode

// Flushes denormals to zero in the current thread, and restores the caller's mode: a decaying state passes through
// denormals, which cost some twenty times an ordinary operation.
class FlushDenormals {
#if defined(__x86_64__) || defined(__i386__)
    unsigned saved_ = _mm_getcsr();

public:
    FlushDenormals() { _mm_setcsr(saved_ | 0x8040); }  // flush to zero, denormals are zero
    ~FlushDenormals() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
    uint64_t saved_;

public:
    FlushDenormals() {
        __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
        __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_ | (uint64_t)1 << 24));
    }
    ~FlushDenormals() { __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_)); }
#else
public:
    FlushDenormals() {}
    ~FlushDenormals() {}
#endif
};

// -------------------------------------------------------------------------------------------------------- arguments

}  // namespace

// All tensors are contiguous. `parts` are the K directions of a map, or the groups of sequences; `channels` are those
// of one part. Weights have one row per part and channel. Keep in step with `_Arguments` in cpu_scan.py.
struct ScanArguments {
    // Map: x (batch, height, width, channels), all directions read it. Sequences: u (batch, parts, channels, length).
    const void* x;
    const void* delta;             // sequences: (batch, parts, channels, length); null for maps
    const void* projections;       // (batch, height, width, parts, rank + 2 * states): time step, B, C
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
    float* grad_dt_proj_weight;    // (batch_groups, …as dt_proj_weight), to be summed over these, and so the rest
    float* grad_bias;
    float* grad_A;
    float* grad_D;
    // GOMP_parallel of the OpenMP that PyTorch runs on, or null: (function, its argument, threads, flags).
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
    int64_t batch, height, width, parts, channels, rank, states;
    // Each group of panels with each group of the batch is the work of one thread.
    int64_t panel_groups, batch_groups;  // at most the panels of a part, at most `batch`
    int32_t x_is_bfloat16, delta_is_bfloat16, projections_is_bfloat16;
    int32_t delta_softplus;
};

namespace {

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
    int64_t all_channels = is_sequence ? args.parts * args.channels : args.channels;
    int64_t pixel_stride = is_sequence ? 1 : all_channels;
    int64_t channel_stride = is_sequence ? length : 1;
    int64_t projection_size = args.rank + 2 * args.states;
    int64_t rank_padded = divide_up(args.rank, LANES) * LANES;

    explicit Shape(const ScanArguments& arguments) : args(arguments) {}

    int64_t channels_of(int64_t panel) const {
        const int64_t rest = args.channels - panel * PANEL;
        return rest < PANEL ? rest : PANEL;
    }
    int64_t x_start(int64_t batch, int64_t part, int64_t panel) const {
        const int64_t channel = (is_sequence ? part * args.channels : 0) + panel * PANEL;
        return batch * length * all_channels + channel * channel_stride;
    }
    int64_t carry_start(int64_t part, int64_t batch, int64_t tile) const {
        return ((part * args.batch + batch) * tiles + tile) * args.states * args.channels;
    }
    int64_t projection_start(int64_t batch, int64_t pixel, int64_t part) const {
        return ((batch * length + pixel) * args.parts + part) * projection_size;
    }
};

// ------------------------------------------------------------------------------------------------------ one tile
//
// Tile buffers are (STEPS, PANEL), with (STEPS, N, PANEL) for states. Channels that a last panel lacks are zeros.

// The time steps of a tile, common to all panels: where its pixels are and what x_proj made of them.
struct Tile {
    int steps;
    int64_t pixels[STEPS];
    int64_t offsets[STEPS];  // of the pixels in x, in elements
    Buffer dt;               // (STEPS, rank padded with zeros)
    Buffer B, C;             // (STEPS, N)

    explicit Tile(const Shape& shape)
        : dt(STEPS * shape.rank_padded), B(STEPS * shape.args.states), C(STEPS * shape.args.states) {}

    template <typename Element>
    void read_projections(const Shape& shape, const Element* projections, int64_t batch, int64_t part) {
        const int64_t rank = shape.args.rank, states = shape.args.states;
        for (int t = 0; t < steps; ++t) {
            const Element* row = projections + shape.projection_start(batch, pixels[t], part);
            for (int64_t r = 0; r < rank; ++r) dt[t * shape.rank_padded + r] = to_float(row[r]);
            for (int64_t n = 0; n < states; ++n) {
                B[t * states + n] = to_float(row[rank + n]);
                C[t * states + n] = to_float(row[rank + states + n]);
            }
        }
    }

    void read(const Shape& shape, int64_t batch, int64_t part, int64_t tile) {
        const ScanArguments& args = shape.args;
        const int64_t start = tile * STEPS, rest = shape.length - start;
        steps = rest < STEPS ? (int)rest : STEPS;
        for (int t = 0; t < steps; ++t) {
            pixels[t] = pixel_of_step(args.directions[part], args.height, args.width, start + t);
            offsets[t] = pixels[t] * shape.pixel_stride;
        }
        if (args.projections_is_bfloat16)
            read_projections(shape, static_cast<const BFloat16*>(args.projections), batch, part);
        else
            read_projections(shape, static_cast<const float*>(args.projections), batch, part);
    }
};

template <typename Element>
void gather(float* tile, const Element* source, const Tile& steps, int64_t channels, int64_t channel_stride) {
    for (int64_t c = 0; c < PANEL; ++c)
        for (int t = 0; t < steps.steps; ++t)
            tile[t * PANEL + c] = c < channels ? to_float(source[steps.offsets[t] + c * channel_stride]) : 0.0f;
}

void gather(float* tile, const void* source, bool is_bfloat16, int64_t start, const Tile& steps, int64_t channels,
            int64_t channel_stride) {
    if (is_bfloat16)
        gather(tile, static_cast<const BFloat16*>(source) + start, steps, channels, channel_stride);
    else
        gather(tile, static_cast<const float*>(source) + start, steps, channels, channel_stride);
}

void scatter(float* target, const float* tile, const Tile& steps, int64_t channels, int64_t channel_stride,
             bool accumulate) {
    for (int64_t c = 0; c < channels; ++c)
        for (int t = 0; t < steps.steps; ++t) {
            float& element = target[steps.offsets[t] + c * channel_stride];
            element = tile[t * PANEL + c] + (accumulate ? element : 0.0f);
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

// exp(delta A) of a tile.
void compute_decays(const Tile& tile, const float* delta, const PanelWeights& weights, int64_t states, float* decays) {
    constexpr int AT_ONCE = CHAINS / VECTORS;  // time steps
    for (int64_t n = 0; n < states; ++n) {
        const Pack A = for_each_chain([&](int i) { return load(weights.A + n * PANEL + i % VECTORS * LANES); });
        for (int t = 0; t < tile.steps; t += AT_ONCE) {
            const Pack decay = exp(load_pack(delta + t * PANEL) * A);
            for (int i = 0; i < CHAINS; ++i)
                store(decays + ((t + i / VECTORS) * states + n) * PANEL + i % VECTORS * LANES, decay.of[i]);
        }
    }
}

// Scans one tile; `state` (N, PANEL) goes in as it enters and comes out as it leaves.
template <bool HasOneState, typename Row>
void forward_tile(const Tile& tile, const float* delta, const float* decays, const PanelWeights& weights,
                  int64_t num_states, Row x, float* y, const int64_t* offsets, bool accumulate, float* state) {
    const int64_t states = HasOneState ? 1 : num_states;
    Floats D[VECTORS], h[VECTORS];  // h in registers where there is one state
    for (int v = 0; v < VECTORS; ++v) {
        D[v] = load(weights.D + v * LANES);
        h[v] = load(state + v * LANES);
    }
    for (int t = 0; t < tile.steps; ++t) {
        const Row x_row = x + offsets[t];
        float* y_row = y + offsets[t];
        const float *B = tile.B + t * states, *C = tile.C + t * states;
        prefetch_next_panel(x_row);
        prefetch_next_panel(y_row);
        for (int v = 0; v < VECTORS; ++v) {
            const Floats u = load(x_row + v * LANES), delta_u = load(delta + t * PANEL + v * LANES) * u;
            const float* decay = decays + t * states * PANEL + v * LANES;
            Floats output = D[v] * u;
            if (HasOneState) {
                h[v] = load(decay) * h[v] + delta_u * B[0];
                output += h[v] * C[0];
            } else {
                for (int64_t n = 0; n < states; ++n) {
                    float* h_n = state + n * PANEL + v * LANES;
                    store(h_n, load(decay + n * PANEL) * load(h_n) + delta_u * B[n]);
                    output += load(h_n) * C[n];
                }
            }
            if (accumulate) output += load(y_row + v * LANES);
            store(y_row + v * LANES, output);
        }
    }
    if (HasOneState)
        for (int v = 0; v < VECTORS; ++v) store(state + v * LANES, h[v]);
}

// What the backward pass computes again for one tile, and what it hands to the projection.
struct Recomputed {
    Buffer slope;   // (STEPS, PANEL): derivative of softplus
    Buffer states;  // (STEPS + 1, N, PANEL): row t enters step t
    Buffer grad_z;  // (STEPS, PANEL): gradient of what goes into softplus

    explicit Recomputed(int64_t num_states)
        : slope(STEPS * PANEL), states((STEPS + 1) * num_states * PANEL), grad_z(STEPS * PANEL) {}
};

template <bool HasOneState, typename Row>
void recompute_states(const Tile& tile, const float* delta, const float* decays, int64_t num_states, Row x,
                      const int64_t* offsets, float* entering) {
    const int64_t states = HasOneState ? 1 : num_states;
    for (int t = 0; t < tile.steps; ++t) {
        const Row x_row = x + offsets[t];
        const float* B = tile.B + t * states;
        prefetch_next_panel(x_row);
        for (int v = 0; v < VECTORS; ++v) {
            const Floats delta_u = load(delta + t * PANEL + v * LANES) * load(x_row + v * LANES);
            for (int64_t n = 0; n < states; ++n) {
                const int64_t row = (t * states + n) * PANEL + v * LANES;
                store(entering + row + states * PANEL, load(decays + row) * load(entering + row) + delta_u * B[n]);
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
    float *B, *C;  // (STEPS, N, LANES), lanes to be summed
};

template <bool HasOneState, typename Row>
void backward_tile(const Tile& tile, const PanelWeights& weights, int64_t num_states, Row x,
                   const int64_t* offsets, const float* delta_tile, const float* decays, const Recomputed& kept,
                   const float* grad_y, float* grad_x, bool accumulate, const PanelGradients& grad) {
    const int64_t states = HasOneState ? 1 : num_states;
    Floats grad_D[VECTORS], grad_bias[VECTORS], D[VECTORS];
    for (int v = 0; v < VECTORS; ++v) {
        D[v] = load(weights.D + v * LANES);
        grad_D[v] = load(grad.D + v * LANES);
        grad_bias[v] = load(grad.bias + v * LANES);
    }
    for (int t = tile.steps - 1; t >= 0; --t) {
        const Row x_row = x + offsets[t];
        const float* grad_y_row = grad_y + offsets[t];
        float* grad_x_row = grad_x + offsets[t];
        const float *B = tile.B + t * states, *C = tile.C + t * states;
        prefetch_next_panel(grad_y_row);
        prefetch_next_panel(grad_x_row);
        for (int v = 0; v < VECTORS; ++v) {
            const int64_t place = t * PANEL + v * LANES;
            const Floats u = load(x_row + v * LANES), delta = load(delta_tile + place), dy = load(grad_y_row + v * LANES);
            const Floats delta_u = delta * u;
            Floats grad_delta_u = {}, grad_delta = {};
            for (int64_t n = 0; n < states; ++n) {
                const int64_t lane = n * PANEL + v * LANES, row = t * states * PANEL + lane;
                const Floats decay = load(decays + row);
                const Floats grad_state = dy * C[n] + load(grad.state + lane);
                const Floats grad_decayed = grad_state * decay;                      // of the state that enters
                const Floats grad_exponent = grad_decayed * load(kept.states + row);  // of delta · A
                store(grad.state + lane, grad_decayed);
                add_to(grad.A + lane, grad_exponent * delta);
                add_to(grad.B + (t * states + n) * LANES, grad_state * delta_u);
                add_to(grad.C + (t * states + n) * LANES, dy * load(kept.states + row + states * PANEL));
                grad_delta_u += grad_state * B[n];
                grad_delta += grad_exponent * load(weights.A + lane);
            }
            const Floats grad_z = (grad_delta_u * u + grad_delta) * load(kept.slope + place);
            store(kept.grad_z + place, grad_z);
            grad_bias[v] += grad_z;
            grad_D[v] += dy * u;
            Floats grad_u = grad_delta_u * delta + D[v] * dy;
            if (accumulate) grad_u += load(grad_x_row + v * LANES);
            store(grad_x_row + v * LANES, grad_u);
        }
    }
    for (int v = 0; v < VECTORS; ++v) {
        store(grad.D + v * LANES, grad_D[v]);
        store(grad.bias + v * LANES, grad_bias[v]);
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
    const int64_t panel_group, batch_group, first_panel, last_panel, first_batch, last_batch, num_states;
    Tile tile;
    Buffer dt_proj, bias, A, D;  // of all panels
    Buffer delta, decays;        // (STEPS, PANEL), (STEPS, N, PANEL)
    Buffer x_tile, y_tile;       // rows that are no vectors in the tensors
    int64_t offsets_in_tile[STEPS];

    Worker(const ScanArguments& arguments, int64_t index)
        : args(arguments),
          shape(arguments),
          panel_group(index % args.panel_groups),
          batch_group(index / args.panel_groups),
          first_panel(shape.panels * panel_group / args.panel_groups),
          last_panel(shape.panels * (panel_group + 1) / args.panel_groups),
          first_batch(args.batch * batch_group / args.batch_groups),
          last_batch(args.batch * (batch_group + 1) / args.batch_groups),
          num_states(args.states),
          tile(shape),
          dt_proj(per_panel(args.rank * PANEL)),
          bias(per_panel(PANEL)),
          A(per_panel(args.states * PANEL)),
          D(per_panel(PANEL)),
          delta(STEPS * PANEL),
          decays(STEPS * num_states * PANEL),
          x_tile(STEPS * PANEL),
          y_tile(STEPS * PANEL) {
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
            for (int64_t n = 0; n < num_states; ++n)
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

    // Time steps and decays of the tile, and the derivative of softplus if `slope` is given.
    void compute_decays(int64_t start, int64_t panel, float* slope) {
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
        ::compute_decays(tile, delta, panel_weights, num_states, decays);
    }

    bool is_in_place(int64_t panel) const { return !shape.is_sequence && shape.channels_of(panel) == PANEL; }

    // Directions of a map add to what the first one wrote.
    bool is_accumulated(int64_t part) const { return !shape.is_sequence && part > 0; }

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
    Buffer state_;  // (panels, N, PANEL)

    void run_panel(int64_t batch, int64_t part, int64_t panel, float* carries) {
        const int64_t start = shape.x_start(batch, part, panel), channels = shape.channels_of(panel);
        const bool in_place = is_in_place(panel), accumulate = is_accumulated(part);
        float* y = in_place ? args.y + start : y_tile;
        float* state = state_ + (panel - first_panel) * num_states * PANEL;
        for (int64_t n = 0; n < num_states; ++n)
            std::copy_n(state + n * PANEL, channels, carries + n * args.channels + panel * PANEL);
        compute_decays(start, panel, nullptr);
        with_x(start, panel, [&](auto* x, const int64_t* offsets) {
            const auto forward = num_states == 1 ? forward_tile<true, decltype(x)> : forward_tile<false, decltype(x)>;
            forward(tile, delta, decays, weights(panel), num_states, x, y, offsets, in_place && accumulate, state);
        });
        if (!in_place) scatter(args.y + start, y_tile, tile, channels, shape.channel_stride, accumulate);
    }

public:
    ForwardWorker(const ScanArguments& arguments, int64_t index)
        : Worker(arguments, index), state_(per_panel(num_states * PANEL)) {}

    void run() {
        const FlushDenormals guard;
        for (int64_t part = 0; part < args.parts; ++part) {
            pack_weights(part);
            for (int64_t batch = first_batch; batch < last_batch; ++batch) {
                state_.zero();
                for (int64_t index = 0; index < shape.tiles; ++index) {
                    tile.read(shape, batch, part, index);
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
    Buffer grad_x_tile_;
    Buffer dt_proj_transposed_;                      // (panels, PANEL, rank padded)
    Buffer grad_state_;                              // (panels, N, PANEL)
    Buffer grad_dt_proj_, grad_bias_, grad_A_, grad_D_;  // of all panels, as PanelGradients says
    Buffer grad_dt_, grad_B_, grad_C_;               // of one tile

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
        for (int64_t n = 0; n < num_states; ++n) {
            float* entering = kept_.states + n * PANEL;
            std::fill_n(entering, PANEL, 0.0f);
            std::copy_n(carries + n * args.channels + panel * PANEL, channels, entering);
        }
        const int64_t place = panel - first_panel;
        const PanelWeights panel_weights = weights(panel);
        const PanelGradients grad = {grad_state_ + place * num_states * PANEL,
                                     grad_bias_ + place * PANEL,
                                     grad_A_ + place * num_states * PANEL,
                                     grad_D_ + place * PANEL,
                                     grad_B_,
                                     grad_C_};
        compute_decays(start, panel, kept_.slope);
        with_x(start, panel, [&](auto* x, const int64_t* offsets) {
            using Row = decltype(x);
            const auto recompute = num_states == 1 ? recompute_states<true, Row> : recompute_states<false, Row>;
            recompute(tile, delta, decays, num_states, x, offsets, kept_.states);
            const auto backward = num_states == 1 ? backward_tile<true, Row> : backward_tile<false, Row>;
            backward(tile, panel_weights, num_states, x, offsets, delta, decays, kept_, grad_y, grad_x,
                     in_place && accumulate, grad);
        });
        if (!in_place) scatter(args.grad_x + start, grad_x_tile_, tile, channels, shape.channel_stride, accumulate);
        if (shape.is_sequence)
            scatter(args.grad_delta + start, kept_.grad_z, tile, channels, shape.channel_stride, false);
        else
            project_backward(tile, kept_.grad_z, dt_proj_transposed_ + place * PANEL * shape.rank_padded,
                             shape.rank_padded, grad_dt_, grad_dt_proj_ + place * PANEL * shape.rank_padded);
    }

    void write_projections(int64_t batch, int64_t part) {
        const int64_t size = args.batch * shape.length * args.parts * shape.projection_size;
        float* all = args.grad_projections + panel_group * size;
        for (int t = 0; t < tile.steps; ++t) {
            float* row = all + shape.projection_start(batch, tile.pixels[t], part);
            std::copy_n(grad_dt_ + t * shape.rank_padded, args.rank, row);
            for (int64_t n = 0; n < num_states; ++n) {
                row[args.rank + n] = sum(load(grad_B_ + (t * num_states + n) * LANES));
                row[args.rank + num_states + n] = sum(load(grad_C_ + (t * num_states + n) * LANES));
            }
        }
    }

    void write_weights(int64_t part) {
        for_each_channel(part, [&](int64_t channel, int64_t weight_row) {
            const int64_t place = channel / PANEL, lane = channel % PANEL;
            const int64_t row = batch_group * args.parts * args.channels + weight_row;
            std::copy_n(grad_dt_proj_ + channel * shape.rank_padded, args.rank,
                        args.grad_dt_proj_weight + row * args.rank);
            for (int64_t n = 0; n < num_states; ++n)
                args.grad_A[row * num_states + n] = grad_A_[(place * num_states + n) * PANEL + lane];
            args.grad_bias[row] = grad_bias_[channel];
            args.grad_D[row] = grad_D_[channel];
        });
    }

public:
    BackwardWorker(const ScanArguments& arguments, int64_t index)
        : Worker(arguments, index),
          kept_(num_states),
          grad_x_tile_(STEPS * PANEL),
          dt_proj_transposed_(per_panel(PANEL * shape.rank_padded)),
          grad_state_(per_panel(num_states * PANEL)),
          grad_dt_proj_(per_panel(PANEL * shape.rank_padded)),
          grad_bias_(per_panel(PANEL)),
          grad_A_(per_panel(num_states * PANEL)),
          grad_D_(per_panel(PANEL)),
          grad_dt_(STEPS * shape.rank_padded),
          grad_B_(STEPS * num_states * LANES),
          grad_C_(STEPS * num_states * LANES) {}

    void run() {
        const FlushDenormals guard;
        for (int64_t part = 0; part < args.parts; ++part) {
            pack_weights(part);
            pack_transposed(part);
            for (Buffer* sums : {&grad_dt_proj_, &grad_bias_, &grad_A_, &grad_D_}) sums->zero();
            for (int64_t batch = first_batch; batch < last_batch; ++batch) {
                grad_state_.zero();
                for (int64_t index = shape.tiles - 1; index >= 0; --index) {
                    tile.read(shape, batch, part, index);
                    for (Buffer* sums : {&grad_dt_, &grad_B_, &grad_C_}) sums->zero();
                    const float* carries = args.carries + shape.carry_start(part, batch, index);
                    for (int64_t panel = first_panel; panel < last_panel; ++panel)
                        run_panel(batch, part, panel, carries);
                    write_projections(batch, part);
                }
            }
            write_weights(part);
        }
    }
};

// Workers that the threads of a team take one after the other.
template <typename AnyWorker>
struct Team {
    std::vector<std::unique_ptr<AnyWorker>> workers;
    std::atomic<size_t> next{0};

    static void run(void* team) {
        Team& self = *static_cast<Team*>(team);
        for (size_t i; (i = self.next++) < self.workers.size();) self.workers[i]->run();
    }
};

// Runs one worker per thread; 1 if memory ran out before anything was computed. PyTorch's own threads are best: between
// two of its operations they wait by spinning, and a thread of ours would share a core with them.
template <typename AnyWorker>
int32_t run_workers(const ScanArguments& args) {
    Team<AnyWorker> team;
    auto& workers = team.workers;
    std::vector<std::thread> threads;
    try {
        const int64_t count = args.panel_groups * args.batch_groups;
        for (int64_t i = 0; i < count; ++i) workers.emplace_back(new AnyWorker(args, i));
        threads.reserve(workers.size());
    } catch (const std::bad_alloc&) {
        return 1;
    }
    if (args.parallel && workers.size() > 1) {
        args.parallel(Team<AnyWorker>::run, &team, static_cast<unsigned>(workers.size()), 0);
        return 0;
    }
    size_t started = 1;
    try {
        for (; started < workers.size(); ++started)
            threads.emplace_back([worker = workers[started].get()] { worker->run(); });
    } catch (const std::system_error&) {  // the system gives no more threads: the rest is done here
    }
    workers[0]->run();
    for (size_t i = started; i < workers.size(); ++i) workers[i]->run();
    for (std::thread& thread : threads) thread.join();
    return 0;
}

}  // namespace

// ------------------------------------------------------------------------------------------------------- C interface

#define EXPORT extern "C" __attribute__((visibility("default")))

// Size of ScanArguments, time steps of a tile and channels of a panel, for the caller to check and to plan with.
EXPORT int64_t remamber_scan_argument_bytes() { return sizeof(ScanArguments); }
EXPORT int64_t remamber_scan_steps() { return STEPS; }
EXPORT int64_t remamber_scan_panel() { return PANEL; }

// Fill `y` and `carries`, or all `grad_…`. They return 0, or 1 if there is not enough memory.
EXPORT int32_t remamber_scan_forward(const ScanArguments* args) { return run_workers<ForwardWorker>(*args); }
EXPORT int32_t remamber_scan_backward(const ScanArguments* args) { return run_workers<BackwardWorker>(*args); }
