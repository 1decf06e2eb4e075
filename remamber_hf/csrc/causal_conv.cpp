// SPDX-FileCopyrightText: 2026 The remamber_hf authors
// SPDX-License-Identifier: Apache-2.0

// The causal convolutions of Vim's block (arXiv 2401.09417) with their SiLU, of both directions, on CPUs. A vector holds
// neighbouring channels. What the backward direction sees lies after it: sequences are read as they lie, never turned.
// cpu_conv.py calls this.

#include "threads.h"
#include "vectors.h"

#include <algorithm>
#include <vector>

// Keep in step with `_Arguments` in cpu_conv.py.
struct ConvArguments {
    const float* x;       // (batch, length, channels); rows lie x_stride apart
    const float* weight;  // (2, width, channels), forward and backward; the last of `width` is for the step itself
    const float* bias;    // (2, channels)
    float* y;             // (batch, length, 2, channels), contiguous
    const float* grad_y;  // as y, and all below only in the backward pass
    float* grad_x;        // (batch, length, channels), contiguous, zeros
    float* grad_weight;   // as weight
    float* grad_bias;     // as bias
    Parallel parallel;    // or null: threads of its own
    int64_t batch, length, channels, width, x_stride;
    int64_t workers;  // each has a range of channels
};

namespace {

constexpr int BLOCK = CHAINS * LANES;  // channels that are computed side by side

// The channels that a block has of them; the others are zeros. Whether it has all is known when this is compiled.
template <bool IS_FULL>
INLINE Pack load_block(const float* source, int64_t count) {
    if (IS_FULL) return load_pack(source);
    return for_each_chain([&](int i) {
        const int64_t rest = count - i * LANES;
        return rest > 0 ? load_some(source + i * LANES, rest) : Floats{};
    });
}

template <bool IS_FULL>
INLINE void store_block(float* target, Pack pack, int64_t count) {
    if (IS_FULL) return store(target, pack);
    for (int i = 0; i < CHAINS && count > i * LANES; ++i) store_some(target + i * LANES, pack.of[i], count - i * LANES);
}

INLINE Pack sigmoid(Pack z) {
    const Pack one = for_each_chain([](int) { return Floats{} + 1.0f; });
    return one / (exp(z * -1.0f) + 1.0f);
}

// One block of channels of one direction.
template <bool IS_FULL>
struct Block {
    const ConvArguments& args;
    const int64_t first, count, direction;
    const int64_t width = args.width, length = args.length;
    std::vector<Pack> weights, grad_weights;
    Pack bias;

    Block(const ConvArguments& arguments, int64_t first_channel, int64_t which)
        : args(arguments),
          first(first_channel),
          count(std::min<int64_t>(BLOCK, arguments.channels - first_channel)),
          direction(which) {
        for (int64_t j = 0; j < width; ++j)
            weights.push_back(load_block<IS_FULL>(args.weight + (direction * width + j) * args.channels + first, count));
        grad_weights.resize(width);  // here and not on a thread, where nobody could be told of too little memory
        bias = load_block<IS_FULL>(args.bias + direction * args.channels + first, count);
    }

    // The columns of the weight that see a step inside of the sequence from t, and the step that column j sees.
    int64_t distance(int64_t t) const { return direction == 0 ? t : length - 1 - t; }
    int64_t first_column(int64_t t) const { return std::max<int64_t>(0, width - 1 - distance(t)); }
    int64_t seen(int64_t t, int64_t j) const { return direction == 0 ? t - (width - 1 - j) : t + (width - 1 - j); }

    const float* x_row(int64_t batch, int64_t t) const { return args.x + (batch * length + t) * args.x_stride + first; }
    int64_t y_place(int64_t batch, int64_t t) const {
        return ((batch * length + t) * 2 + direction) * args.channels + first;
    }

    INLINE Pack convolve(const Pack* weight, int64_t batch, int64_t t) const {
        Pack sum = bias;
        for (int64_t j = first_column(t); j < width; ++j)
            sum = sum + weight[j] * load_block<IS_FULL>(x_row(batch, seen(t, j)), count);
        return sum;
    }

    void run_forward() const {
        const Pack* weight = weights.data();
        for (int64_t batch = 0; batch < args.batch; ++batch)
            for (int64_t t = 0; t < length; ++t) {
                const Pack z = convolve(weight, batch, t);
                store_block<IS_FULL>(args.y + y_place(batch, t), z * sigmoid(z), count);
            }
    }

    void run_backward() {
        const Pack* weight = weights.data();
        Pack* grad_weight = grad_weights.data();
        Pack grad_bias = {};
        for (int64_t batch = 0; batch < args.batch; ++batch)
            for (int64_t t = 0; t < length; ++t) {
                const Pack z = convolve(weight, batch, t), s = sigmoid(z);
                const Pack grad_y = load_block<IS_FULL>(args.grad_y + y_place(batch, t), count);
                const Pack grad_z = grad_y * (s + z * s * (s * -1.0f + 1.0f));  // nothing cancels where z is large
                grad_bias = grad_bias + grad_z;
                for (int64_t j = first_column(t); j < width; ++j) {
                    const int64_t step = seen(t, j);
                    grad_weight[j] = grad_weight[j] + grad_z * load_block<IS_FULL>(x_row(batch, step), count);
                    float* grad_x = args.grad_x + (batch * length + step) * args.channels + first;
                    store_block<IS_FULL>(grad_x, load_block<IS_FULL>(grad_x, count) + grad_z * weight[j], count);
                }
            }
        for (int64_t j = 0; j < width; ++j)
            store_block<IS_FULL>(args.grad_weight + (direction * width + j) * args.channels + first, grad_weight[j],
                                 count);
        store_block<IS_FULL>(args.grad_bias + direction * args.channels + first, grad_bias, count);
    }
};

template <bool IS_BACKWARD>
class ConvWorker {
    std::vector<Block<true>> full_;
    std::vector<Block<false>> rest_;  // what is left of the channels at the end

public:
    ConvWorker(const ConvArguments& args, int64_t index) {
        const int64_t blocks = (args.channels + BLOCK - 1) / BLOCK;
        for (int64_t block = blocks * index / args.workers; block < blocks * (index + 1) / args.workers; ++block)
            for (int64_t direction = 0; direction < 2; ++direction) {
                const int64_t first = block * BLOCK;
                if (first + BLOCK <= args.channels)
                    full_.emplace_back(args, first, direction);
                else
                    rest_.emplace_back(args, first, direction);
            }
    }

    void run() {
        const FlushDenormals guard;
        run_all(full_);
        run_all(rest_);
    }

private:
    template <typename Blocks>
    void run_all(Blocks& blocks) {
        for (auto& block : blocks) {
            if (IS_BACKWARD)
                block.run_backward();
            else
                block.run_forward();
        }
    }
};

}  // namespace

EXPORT int64_t remamber_conv_argument_bytes() { return sizeof(ConvArguments); }
EXPORT int64_t remamber_conv_block() { return BLOCK; }

// Fill `y`, or all `grad_…`. They return 0, or 1 if there is not enough memory.
EXPORT int32_t remamber_conv_forward(const ConvArguments* args) {
    return run_workers<ConvWorker<false>>(*args, args->workers);
}
EXPORT int32_t remamber_conv_backward(const ConvArguments* args) {
    return run_workers<ConvWorker<true>>(*args, args->workers);
}
