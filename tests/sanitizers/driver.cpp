// SPDX-FileCopyrightText: 2026 The remamber_hf authors
// SPDX-License-Identifier: Apache-2.0
// Runs the kernels of scan and convolution over the shapes of the tests, on buffers of exactly the size that each tensor has, so that a
// sanitizer sees every access beyond one. `driver short` gives D one entry less than it needs: that must be reported.

#include "../../remamber_hf/csrc/causal_conv.cpp"
#include "../../remamber_hf/csrc/scan.cpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

uint32_t random_bits = 1;

float random_float() {
    random_bits = random_bits * 1664525u + 1013904223u;
    return static_cast<float>(random_bits >> 8) / (1 << 23) - 1.0f;
}

// A tensor on the heap: float32, or the upper halves of them.
class Tensor {
    std::unique_ptr<float[]> floats_;
    std::unique_ptr<BFloat16[]> halves_;

public:
    Tensor(int64_t size, bool is_bfloat16, float scale = 1, float shift = 0) {
        if (is_bfloat16)
            halves_.reset(new BFloat16[size]);
        else
            floats_.reset(new float[size]);
        for (int64_t i = 0; i < size; ++i) {
            const float value = scale * random_float() + shift;
            uint32_t word;
            std::memcpy(&word, &value, sizeof word);
            if (is_bfloat16)
                halves_[i] = static_cast<BFloat16>(word >> 16);
            else
                floats_[i] = value;
        }
    }
    void* any() const { return halves_ ? static_cast<void*>(halves_.get()) : floats_.get(); }
    float* floats() const { return floats_.get(); }
};

struct Case {
    int64_t batch, height, width, parts, channels, rank, states, panel_groups, batch_groups;
    bool is_sequence, is_bfloat16, x_has_parts;
};

int64_t missing = 0;  // entries of D
int64_t num_cases = 0;

void run(Case c) {
    const int64_t panels = divide_up(c.channels, PANEL);
    c.panel_groups = std::min(c.panel_groups, panels);
    c.batch_groups = std::min(c.batch_groups, c.batch);
    const int64_t length = c.height * c.width, tiles = divide_up(length, STEPS), rows = c.parts * c.channels;
    const int64_t map = c.batch * length * (c.is_sequence || c.x_has_parts ? rows : c.channels);
    const int64_t projection = c.is_sequence ? 0 : c.batch * length * c.parts * (c.rank + 2 * c.states);
    const int64_t states = c.is_sequence ? c.batch * c.parts * c.states * length : 0;
    Tensor x(map, c.is_bfloat16), delta(c.is_sequence ? map : 0, c.is_bfloat16), projections(projection, c.is_bfloat16);
    Tensor dt_proj_weight(rows * c.rank, false), bias(rows, false), A(rows * c.states, false, 0.5f, -1.0f);
    Tensor D(rows - missing, false), y(map, false), carries(c.parts * c.batch * tiles * c.states * c.channels, false);
    Tensor grad_y(map, false), grad_x(map, false), grad_delta(c.is_sequence ? map : 0, false);
    Tensor grad_projections(c.panel_groups * projection, false);
    Tensor B(states, false), C(states, false);
    Tensor grad_B(c.panel_groups * states, false), grad_C(c.panel_groups * states, false);
    Tensor grad_weight(c.batch_groups * rows * c.rank, false), grad_bias(c.batch_groups * rows, false);
    Tensor grad_A(c.batch_groups * rows * c.states, false), grad_D(c.batch_groups * rows, false);
    std::unique_ptr<int32_t[]> directions(new int32_t[c.parts]);
    for (int64_t k = 0; k < c.parts; ++k) directions[k] = c.is_sequence ? 0 : static_cast<int32_t>(k % 4);
    ScanArguments args{};
    args.x = x.any();
    args.delta = c.is_sequence ? delta.any() : nullptr;
    args.projections = c.is_sequence ? nullptr : projections.any();
    args.B = c.is_sequence ? B.floats() : nullptr;
    args.C = c.is_sequence ? C.floats() : nullptr;
    args.dt_proj_weight = c.is_sequence ? nullptr : dt_proj_weight.floats();
    args.bias = bias.floats();
    args.A = A.floats();
    args.D = D.floats();
    args.directions = directions.get();
    args.y = y.floats();
    args.carries = carries.floats();
    args.grad_y = grad_y.floats();
    args.grad_x = grad_x.floats();
    args.grad_delta = c.is_sequence ? grad_delta.floats() : nullptr;
    args.grad_projections = c.is_sequence ? nullptr : grad_projections.floats();
    args.grad_B = c.is_sequence ? grad_B.floats() : nullptr;
    args.grad_C = c.is_sequence ? grad_C.floats() : nullptr;
    args.grad_dt_proj_weight = c.is_sequence ? nullptr : grad_weight.floats();
    args.grad_bias = grad_bias.floats();
    args.grad_A = grad_A.floats();
    args.grad_D = grad_D.floats();
    args.batch = c.batch, args.height = c.height, args.width = c.width, args.parts = c.parts;
    args.channels = c.channels, args.rank = c.rank, args.states = c.states;
    args.panel_groups = c.panel_groups, args.batch_groups = c.batch_groups;
    args.x_is_bfloat16 = args.delta_is_bfloat16 = args.projections_is_bfloat16 = c.is_bfloat16;
    args.delta_softplus = c.rank % 2 == 0;
    args.x_has_parts = c.x_has_parts;
    if (remamber_scan_forward(&args) || remamber_scan_backward(&args)) std::abort();
    for (const Tensor* tensor : {&y, &grad_x})
        for (int64_t i = 0; i < map; ++i)
            if (!std::isfinite(tensor->floats()[i])) std::abort();
    ++num_cases;
}

// The rows of x are `apart` numbers longer than its channels, but for the last one.
void run_convolution(int64_t batch, int64_t length, int64_t channels, int64_t width, int64_t apart, int64_t workers) {
    const int64_t stride = channels + apart, size = batch * length * channels;
    Tensor x(batch * length * stride - apart, false), weight(2 * width * channels, false), bias(2 * channels, false);
    Tensor y(2 * size, false), grad_y(2 * size, false), grad_x(size, false, 0);
    Tensor grad_weight(2 * width * channels, false), grad_bias(2 * channels, false);
    ConvArguments args{};
    args.x = x.floats(), args.weight = weight.floats(), args.bias = bias.floats(), args.y = y.floats();
    args.grad_y = grad_y.floats(), args.grad_x = grad_x.floats();
    args.grad_weight = grad_weight.floats(), args.grad_bias = grad_bias.floats();
    args.batch = batch, args.length = length, args.channels = channels, args.width = width, args.x_stride = stride;
    args.workers = std::min(workers, (channels + BLOCK - 1) / BLOCK);
    if (remamber_conv_forward(&args) || remamber_conv_backward(&args)) std::abort();
    for (int64_t i = 0; i < size; ++i)
        if (!std::isfinite(y.floats()[2 * i]) || !std::isfinite(grad_x.floats()[i])) std::abort();
    ++num_cases;
}

}  // namespace

int main(int count, char** words) {
    missing = count > 1 && std::string(words[1]) == "short";
    const int64_t sizes[][2] = {{1, 1}, {1, 197}, {197, 1}, {7, 9}, {8, 8}, {1, 63}, {1, 64}, {5, 33}};
    const int64_t widths[][2] = {{1, 1}, {5, 4}, {8, 8}, {16, 5}, {32, 16}, {33, 17}, {67, 9}, {160, 33}};
    const int64_t groups[][2] = {{1, 1}, {2, 1}, {1, 2}, {3, 2}};
    for (const auto& size : sizes)
        for (const auto& width : widths)
            for (const auto& group : groups)
                for (const int64_t states : {1, 3, 16})
                    for (const bool is_bfloat16 : {false, true}) {
                        run({3, size[0], size[1], 4, width[0], width[1], states, group[0], group[1], false, is_bfloat16, false});
                        const int64_t length = size[0] * size[1];
                        run({3, 1, length, 2, width[0], 0, states, group[0], group[1], true, is_bfloat16, false});
                        run({3, 1, length, 2, width[0], width[1], states, group[0], group[1], false, is_bfloat16, true});
                    }
    for (const int64_t length : {1, 3, 40})
        for (const int64_t channels : {1, 33, 64, 130})
            for (const int64_t width : {1, 4, 7})
                for (const int64_t apart : {0, 5})
                    for (const int64_t workers : {1, 3}) run_convolution(2, length, channels, width, apart, workers);
    std::printf("%lld cases\n", static_cast<long long>(num_cases));
}
