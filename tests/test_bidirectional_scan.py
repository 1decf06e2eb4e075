# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Vim's core: every way to compute it against the definition, one direction and one step at a time."""

import copy
import functools
import warnings

import pytest
import torch
from test_causal_conv import by_definition
from tiny import scan_backends
from vim_reference import scan_one_way

from remamber_hf import VimConfig, VimModel, bidirectional_scan, cpu_conv, cpu_scan
from remamber_hf.bidirectional_scan import bidirectional_scan as scan_both_ways


NAMES = ("x", "conv_weight", "conv_bias", "x_proj_weight", "dt_proj_weight", "dt_proj_bias", "A_log", "D")
needs_kernel = pytest.mark.skipif(cpu_scan.load_library()[0] is None, reason=cpu_scan.load_library()[1])


def make_inputs(batch=2, length=7, channels=6, rank=2, states=3, width=4):
    generator = torch.Generator().manual_seed(0)
    normal = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    return {
        "x": normal(batch, length, channels),
        "conv_weight": normal(2 * channels, width),
        "conv_bias": normal(2 * channels),
        "x_proj_weight": normal(2, rank + 2 * states, channels) / channels**0.5,
        "dt_proj_weight": normal(2, channels, rank) / rank**0.5,
        "dt_proj_bias": normal(2, channels) - 2,
        "A_log": normal(2 * channels, states) / 3,
        "D": normal(2 * channels),
    }


def definition(x, conv_weight, conv_bias, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D):
    """Sum of both directions, by the formulas."""
    channels, sums = x.shape[-1], []
    for way, turn in enumerate((lambda tensor: tensor, lambda tensor: tensor.flip(1))):
        own = slice(way * channels, (way + 1) * channels)
        tensors = {
            "conv1d.weight": conv_weight[own, None],
            "conv1d.bias": conv_bias[own],
            "x_proj.weight": x_proj_weight[way],
            "dt_proj.weight": dt_proj_weight[way],
            "dt_proj.bias": dt_proj_bias[way],
            "A_log": A_log[own],
            "D": D[own],
        }
        sums.append(turn(scan_one_way(turn(x), tensors, "", "A_log")))
    return sums[0] + sums[1]


def run(function, inputs, grad=None):
    inputs = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    y = function(**inputs)
    grad = torch.ones_like(y) if grad is None else grad.to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, list(inputs.values()), grad)]


SHAPES = [
    {},
    {"length": 1, "batch": 1},
    {"length": 33, "channels": 70, "rank": 5, "states": 16},
    {"length": 65, "channels": 64, "rank": 4, "states": 1, "batch": 1},
    {"length": 40, "channels": 33, "width": 2},
    {"length": 5, "channels": 16, "width": 9},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_float64_it_is_the_definition(shape):
    inputs = make_inputs(**shape)
    grad = torch.randn(inputs["x"].shape, dtype=torch.float64)
    for found, expected in zip(run(scan_both_ways, inputs, grad), run(definition, inputs, grad), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scan_backend", scan_backends("cpu", "torch", "reference"))
@pytest.mark.parametrize("conv_backend", ["auto", "torch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_float32_outputs_and_gradients_are_those_of_the_definition(shape, conv_backend, scan_backend):
    inputs = make_inputs(**shape)
    grad = torch.randn(inputs["x"].shape, dtype=torch.float64)
    function = functools.partial(scan_both_ways, scan_backend=scan_backend, conv_backend=conv_backend)
    found = run(function, {name: tensor.float() for name, tensor in inputs.items()}, grad)
    for name, actual, expected in zip(("y", *NAMES), found, run(definition, inputs, grad), strict=True):
        difference = (actual.double() - expected).abs().max()
        assert difference <= 1e-5 * expected.abs().max(), (name, difference)


@pytest.mark.parametrize("scan_backend", scan_backends("cpu", "torch"))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_scanned_in_float32(dtype, scan_backend):
    inputs = make_inputs(length=33, channels=70, states=16)
    half = {**{name: tensor.float() for name, tensor in inputs.items()}, "x": inputs["x"].to(dtype)}
    found = run(functools.partial(scan_both_ways, scan_backend=scan_backend), half)
    expected = run(definition, {**inputs, "x": half["x"].double()})
    assert found[0].dtype == torch.float32 and found[1].dtype == dtype
    for actual, exact in zip(found, expected, strict=True):
        assert (actual.double() - exact).norm() / exact.norm() < (0.02 if dtype == torch.bfloat16 else 0.003)


def test_no_bias_is_a_bias_of_zeros():
    inputs = {name: tensor.float() for name, tensor in make_inputs().items()}
    expected = scan_both_ways(**{**inputs, "conv_bias": torch.zeros_like(inputs["conv_bias"])})
    torch.testing.assert_close(scan_both_ways(**{**inputs, "conv_bias": None}), expected)


@pytest.mark.parametrize("scan_backend", scan_backends("cpu", "torch"))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(7, 6)}, r"x has shape \(7, 6\); it must be \(batch, length, channels\)"),
        ({"x": torch.zeros(2, 7, 0)}, r"x has shape \(2, 7, 0\)"),
        ({"x": torch.zeros(2, 7, 6, dtype=torch.int64)}, "x is of torch.int64"),
        ({"conv_weight": torch.zeros(6, 4)}, r"conv_weight has shape \(6, 4\); it must be .* = \(12, 4\)"),
        ({"conv_weight": torch.zeros(12, 0)}, r"conv_weight has shape \(12, 0\)"),
        ({"conv_bias": torch.zeros(1)}, r"conv_bias has shape \(1,\); it must be .* = \(12,\)"),
        ({"x_proj_weight": torch.zeros(2, 9, 6)}, r"x_proj_weight has shape \(2, 9, 6\); it must be .* = \(2, 8, 6\)"),
        ({"dt_proj_weight": torch.zeros(2, 3, 2)}, r"dt_proj_weight has shape \(2, 3, 2\)"),
        ({"dt_proj_bias": torch.zeros(2, 3)}, r"dt_proj_bias has shape \(2, 3\)"),
        ({"A_log": torch.zeros(6, 3)}, r"A_log has shape \(6, 3\)"),
        ({"D": torch.ones(6)}, r"D has shape \(6,\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_kernel_reads_it(change, message, scan_backend):
    inputs = {name: tensor.float() for name, tensor in make_inputs().items()}
    with pytest.raises(ValueError, match=message):
        scan_both_ways(**{**inputs, **change}, scan_backend=scan_backend)


@pytest.mark.parametrize("scan_backend", scan_backends("cpu", "torch"))
def test_a_forward_derivative_is_refused_where_it_would_be_0(scan_backend):
    inputs = {name: tensor.float() for name, tensor in make_inputs().items()}
    x = inputs.pop("x")

    def derivative(backend):
        function = functools.partial(scan_both_ways, scan_backend=backend)
        with warnings.catch_warnings(action="ignore"):  # of PyTorch's own, the first time
            return torch.func.jvp(lambda x: function(x, **inputs), (x,), (torch.ones_like(x),))[1]

    with pytest.raises(
        RuntimeError, match=rf"scan backend '{scan_backend}' has no forward-mode derivative .*'reference'"
    ):
        derivative(scan_backend)
    step = 1e-3 * torch.ones_like(x)
    by_differences = (scan_both_ways(x + step, **inputs) - scan_both_ways(x - step, **inputs)) / 2e-3
    torch.testing.assert_close(derivative("reference"), by_differences, rtol=1e-2, atol=1e-2)


def test_an_empty_batch_comes_back_empty():
    inputs = {name: tensor.float() for name, tensor in make_inputs().items()}
    assert scan_both_ways(**{**inputs, "x": inputs["x"][:0]}).shape == (0, 7, 6)


@needs_kernel
def test_on_a_cpu_the_sequence_is_scanned_where_it_lies(monkeypatch):
    def refuse(*args):
        raise AssertionError("a sequence was turned round")

    inputs = {name: tensor.float() for name, tensor in make_inputs().items()}
    monkeypatch.setattr(bidirectional_scan, "both_ways", refuse)
    scan_both_ways(**inputs)
    with pytest.raises(AssertionError, match="was turned round"):
        scan_both_ways(**inputs, conv_backend="torch")


# -------------------------------------------------------------------------------------------- the convolution's kernel
@needs_kernel
@pytest.mark.parametrize(
    ("batch", "length", "channels", "width"), [(2, 9, 6, 4), (1, 1, 3, 4), (3, 20, 130, 3), (1, 3, 64, 8)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_both_convolutions_are_their_definition(batch, length, channels, width, threads):
    inputs = make_inputs(batch, length, channels, width=width)
    x, weight, bias = (inputs[name].float() for name in NAMES[:3])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = cpu_conv.causal_conv_both_ways(x, weight, bias)
    finally:
        torch.set_num_threads(before)
    forward = by_definition(x.mT, weight[:channels], bias[:channels]).mT
    backward = by_definition(x.mT.flip(-1), weight[channels:], bias[channels:]).flip(-1).mT
    torch.testing.assert_close(y, torch.stack([forward, backward], dim=2), rtol=1e-5, atol=1e-5)


@needs_kernel
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_and_the_batch_change_no_bit_of_the_convolution(threads):
    x, weight, bias = (make_inputs(8, 300, 200)[name].float() for name in NAMES[:3])
    expected = torch.cat([cpu_conv.causal_conv_both_ways(row[None], weight, bias) for row in x])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(cpu_conv.causal_conv_both_ways(x, weight, bias), expected)
    finally:
        torch.set_num_threads(before)


@needs_kernel
def test_a_part_of_a_tensor_is_read_where_it_lies():
    whole = torch.randn(3, 9, 12)
    inputs = make_inputs()
    weight, bias = inputs["conv_weight"].float(), inputs["conv_bias"].float()
    one_step = torch.randn(1, 3, 6).transpose(0, 1)  # an axis of one may have any stride
    parts = (whole[..., :6], whole[..., 6:], whole[:, 2:, 3:9], whole.mT[..., :6], whole[::2, :, :6])
    for part in (*parts, one_step, whole[:1, :1, :6], torch.randn(1, 9, 6).expand(4, 9, 6)):
        expected = cpu_conv.causal_conv_both_ways(part.clone(memory_format=torch.contiguous_format), weight, bias)
        assert torch.equal(cpu_conv.causal_conv_both_ways(part, weight, bias), expected)


@needs_kernel
def test_extreme_values_stay_what_they_are():
    x = torch.tensor([[[1e30, -1e30, -200.0, float("nan"), 1e-40, 0.0]]])
    weight = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).repeat(12, 1)
    y = cpu_conv.causal_conv_both_ways(x, weight, torch.zeros(12))
    expected = torch.nn.functional.silu(x).unsqueeze(2).expand(1, 1, 2, 6)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-30, equal_nan=True)
    large = torch.tensor([[[1e8, -1e8, 1e30, -1e30, 90.0, -90.0]]], requires_grad=True)
    found = torch.autograd.grad(cpu_conv.causal_conv_both_ways(large, weight, torch.zeros(12)).sum(), large)[0]
    assert found.tolist() == [[[2, 0, 2, 0, 2, 0]]]


@needs_kernel
def test_the_operators_keep_what_pytorch_asks_of_operators():
    x, weight, bias = (make_inputs()[name].float().requires_grad_() for name in NAMES[:3])
    torch.library.opcheck(cpu_conv._conv_op, (x, weight, bias))


@needs_kernel
def test_the_model_gives_the_same_gradients_compiled_and_with_either_way():
    torch.manual_seed(0)
    model = VimModel(VimConfig(hidden_size=32, num_hidden_layers=2, image_size=48, state_size=4))
    pixel_values, gradients = torch.randn(2, 3, 48, 48), []
    for conv_backend in ("auto", "torch"):
        other = copy.deepcopy(model)
        other.set_conv_backend(conv_backend)
        run_model = torch.compile(other, backend="aot_eager", fullgraph=True) if conv_backend == "auto" else other
        run_model(pixel_values).pooler_output.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in other.named_parameters()})
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).abs().max() <= 1e-3 * gradient.abs().max(), name
