# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The scan: the reference by second routes, every backend against the reference, memory, compilation, dispatch."""

import functools

import pytest
import torch
import torch.nn.functional as F
from tiny import scan_backends

from remamber_hf import torch_scan
from remamber_hf.selective_scan import (
    BACKENDS,
    Direction,
    ScanBackend,
    cross_merge,
    cross_scan,
    cross_selective_scan,
    selective_scan,
    selective_scan_reference,
)


# Largest difference from the reference, as a share of the largest value of the tensor. Half precision is scanned in
# float32, but the gradients of its inputs are rounded to 8 bits.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1e-2}

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
# (backend, device) for all that can run here.
RUNNABLE = [
    (name, device)
    for name, backend in BACKENDS.items()
    for device in DEVICES
    if name != "reference" and not (backend.why_not(torch.device(device)) or backend.fetch())
]
# Backends that keep the inputs for the backward pass and nothing of the size of the states.
FRUGAL = [(name, device) for name, device in RUNNABLE if name not in ("mamba_ssm", "kernels")]

SEQUENCE_NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
MAP_NAMES = ("x", "x_proj_weight", "dt_proj_weight", "dt_proj_bias", "A_log", "D")


def random_sequences(length, state_size=1, groups=1, dtype=torch.float32, batch=2, channels=8, seed=0):
    """Arguments of `selective_scan`; A, D and the bias are in float32 at least, as models keep them."""
    generator = torch.Generator().manual_seed(seed)
    normal = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    inputs = {
        "u": normal(batch, channels, length),
        "delta": normal(batch, channels, length),
        "A": -torch.exp(normal(channels, state_size)),
        "B": normal(batch, groups, state_size, length),
        "C": normal(batch, groups, state_size, length),
        "D": normal(channels),
        "delta_bias": normal(channels) - 1,
    }
    weight_dtype = torch.promote_types(dtype, torch.float32)
    return {
        name: tensor.to(weight_dtype if name in ("A", "D", "delta_bias") else dtype) for name, tensor in inputs.items()
    }


def random_map(
    height, width, state_size=1, dtype=torch.float32, num_directions=4, batch=2, channels=8, rank=3, seed=0
):
    """Arguments of `cross_selective_scan`; bias, A_log and D are in float32 at least, as models keep them."""
    generator = torch.Generator().manual_seed(seed)
    normal = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    inputs = {
        "x": normal(batch, height, width, channels),
        "x_proj_weight": normal(num_directions, rank + 2 * state_size, channels) / channels**0.5,
        "dt_proj_weight": normal(num_directions, channels, rank) / rank**0.5,
        "dt_proj_bias": normal(num_directions, channels) - 1,
        "A_log": 0.5 * normal(num_directions * channels, state_size),
        "D": normal(num_directions * channels),
    }
    weight_dtype = torch.promote_types(dtype, torch.float32)
    float32_names = ("dt_proj_bias", "A_log", "D")
    return {name: tensor.to(weight_dtype if name in float32_names else dtype) for name, tensor in inputs.items()}


def outputs_and_gradients(operation, inputs, device="cpu", **options):
    """Output, and the gradient of every input for a random gradient of the output, all on the CPU."""
    inputs = {name: tensor.detach().to(device).requires_grad_() for name, tensor in inputs.items()}
    y = operation(**inputs, **options)
    grad_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    gradients = torch.autograd.grad(y, list(inputs.values()), grad_y)
    results = {"output": y, **{f"gradient of {name}": gradient for name, gradient in zip(inputs, gradients)}}
    return {name: tensor.detach().cpu() for name, tensor in results.items()}


def assert_equal_to_reference(actual, expected, dtype):
    assert actual.keys() == expected.keys()
    for name in expected:
        assert actual[name].dtype == expected[name].dtype, name
        scale = expected[name].abs().max().item()
        difference = (actual[name] - expected[name]).abs().max().item()
        assert difference <= TOLERANCES[dtype] * scale, f"{name}: off by {difference:.2e}, largest value {scale:.2e}"


@functools.cache
def reference_of_sequences(length, state_size, groups, dtype, channels=8):
    inputs = random_sequences(length, state_size, groups, dtype, channels=channels)
    return outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend="reference")


@functools.cache
def reference_of_map(height, width, state_size, dtype):
    return outputs_and_gradients(
        cross_selective_scan, random_map(height, width, state_size, dtype), backend="reference"
    )


# ------------------------------------------------------------------------------------- the reference, by second routes
def test_the_gradients_of_the_reference_are_those_of_finite_differences():
    inputs = random_sequences(length=5, state_size=2, groups=2, dtype=torch.float64, batch=1, channels=4)
    tensors = [inputs[name].requires_grad_() for name in SEQUENCE_NAMES]
    assert torch.autograd.gradcheck(functools.partial(selective_scan_reference, delta_softplus=True), tensors)
    assert torch.autograd.gradcheck(selective_scan_reference, tensors[:5])


def test_the_gradients_of_the_cross_scan_reference_are_those_of_finite_differences():
    inputs = random_map(2, 3, state_size=2, dtype=torch.float64, batch=1, channels=2, rank=1)
    tensors = [inputs[name].requires_grad_() for name in MAP_NAMES]
    assert torch.autograd.gradcheck(functools.partial(cross_selective_scan, backend="reference"), tensors)


@pytest.mark.parametrize(("backend", "device"), [("reference", "cpu"), *RUNNABLE])
def test_constant_decay_gives_the_geometric_series(backend, device):
    length, step, skip = 197, 0.05, 0.25
    ones = torch.ones(1, 3, length, device=device)
    A = -torch.tensor([[0.5, 1.0], [2.0, 4.0], [0.01, 30.0]], device=device)
    projection = torch.ones(1, 1, 2, length, device=device)
    D = torch.full((3,), skip, device=device)
    y = selective_scan(ones, step * ones, A, projection, projection, D, backend=backend)
    decay = torch.exp(step * A.double().cpu())[..., None]
    steps = torch.arange(1, length + 1, dtype=torch.float64)
    expected = (step * (1 - decay**steps) / (1 - decay)).sum(1) + skip
    torch.testing.assert_close(y[0].double().cpu(), expected, rtol=1e-5, atol=1e-5)


def test_skip_bias_and_softplus_are_what_the_docstring_says():
    inputs = random_sequences(length=6)
    plain = selective_scan(
        inputs["u"],
        F.softplus(inputs["delta"] + inputs["delta_bias"][:, None]),
        inputs["A"],
        inputs["B"],
        inputs["C"],
        backend="reference",
    )
    whole = selective_scan(**inputs, delta_softplus=True, backend="reference")
    torch.testing.assert_close(whole, plain + inputs["D"][:, None] * inputs["u"])


def test_cross_scan_reads_along_the_directions():
    pixels = torch.arange(6.0).view(1, 2, 3, 1, 1)  # 0 1 2 over 3 4 5
    sequences = cross_scan(pixels, tuple(Direction))
    assert sequences[0, :, 0].tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 3, 1, 4, 2, 5],
        [5, 4, 3, 2, 1, 0],
        [5, 2, 4, 1, 3, 0],
    ]


def test_cross_scan_gives_each_direction_its_own_plane():
    planes = torch.stack([torch.arange(6.0), 10 + torch.arange(6.0)], dim=-1).view(1, 2, 3, 2, 1)
    sequences = cross_scan(planes, (Direction.ROW_REVERSED, Direction.COLUMN))
    assert sequences[0, :, 0].tolist() == [[5, 4, 3, 2, 1, 0], [10, 13, 11, 14, 12, 15]]


def test_cross_merge_sums_in_pixel_order():
    sequences = torch.tensor([[1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60]]).view(1, 2, 1, 6)
    merged = cross_merge(sequences, (2, 3), (Direction.ROW, Direction.COLUMN))
    assert merged[0, ..., 0].tolist() == [[11, 32, 53], [24, 45, 66]]
    merged = cross_merge(sequences, (2, 3), (Direction.ROW_REVERSED, Direction.COLUMN_REVERSED))
    assert merged[0, ..., 0].tolist() == [[66, 45, 24], [53, 32, 11]]


# ------------------------------------------------------------------------------------ every backend, by the reference
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "reference"])
def test_every_backend_is_tested_on_some_device(backend):
    if backend not in dict(RUNNABLE):
        pytest.skip(f"{backend}: {BACKENDS[backend].why_not(torch.device(DEVICES[-1]))}")


@pytest.mark.parametrize(("backend", "device"), RUNNABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("state_size", [1, 16])
@pytest.mark.parametrize("length", [1, 63, 64, 197])  # the scan cuts 64 without a rest
def test_sequences_and_their_gradients_equal_the_reference(length, state_size, groups, dtype, backend, device):
    inputs = random_sequences(length, state_size, groups, dtype)
    actual = outputs_and_gradients(selective_scan, inputs, device, delta_softplus=True, backend=backend)
    assert_equal_to_reference(actual, reference_of_sequences(length, state_size, groups, dtype), dtype)


# As in Vision Mamba: two groups and several states, and channels that fill no whole vectors. Lengths are around the
# steps that the scans cut at, state sizes around the usual one.
@pytest.mark.parametrize(("backend", "device"), RUNNABLE)
@pytest.mark.parametrize("state_size", [2, 15, 16, 17])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 197])
def test_many_states_in_two_groups_and_their_gradients_equal_the_reference(length, state_size, backend, device):
    inputs = random_sequences(length, state_size, groups=2, channels=74)
    actual = outputs_and_gradients(selective_scan, inputs, device, delta_softplus=True, backend=backend)
    expected = reference_of_sequences(length, state_size, 2, torch.float32, channels=74)
    assert_equal_to_reference(actual, expected, torch.float32)


@pytest.mark.parametrize(("backend", "device"), RUNNABLE)
@pytest.mark.parametrize("groups", [1, 4])
def test_a_single_sequence_and_its_gradients_equal_the_reference(groups, backend, device):
    inputs = random_sequences(64, state_size=16, groups=groups, batch=1)
    actual = outputs_and_gradients(selective_scan, inputs, device, delta_softplus=True, backend=backend)
    expected = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend="reference")
    assert_equal_to_reference(actual, expected, torch.float32)


@pytest.mark.parametrize(("backend", "device"), RUNNABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state_size", [1, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 63), (63, 1), (1, 197), (197, 1), (7, 9), (8, 8)])
def test_maps_and_their_gradients_equal_the_reference(size, state_size, dtype, backend, device):
    inputs = random_map(*size, state_size, dtype)
    actual = outputs_and_gradients(cross_selective_scan, inputs, device, backend=backend)
    assert_equal_to_reference(actual, reference_of_map(*size, state_size, dtype), dtype)


@pytest.mark.parametrize(("backend", "device"), RUNNABLE)
@pytest.mark.parametrize("omitted", [("D",), ("delta_bias",), ("D", "delta_bias")])
@pytest.mark.parametrize("delta_softplus", [False, True])
def test_optional_arguments_may_be_left_out(omitted, delta_softplus, backend, device):
    inputs = random_sequences(length=63, state_size=2)
    inputs["delta"], inputs["delta_bias"] = (
        inputs["delta"].abs(),
        inputs["delta_bias"].abs(),
    )  # time steps are positive
    for name in omitted:
        del inputs[name]
    for tensor in (inputs["B"], inputs["C"]):
        tensor.squeeze_(1)  # one group needs no dimension
    options = {"delta_softplus": delta_softplus}
    actual = outputs_and_gradients(selective_scan, inputs, device, backend=backend, **options)
    expected = outputs_and_gradients(selective_scan, inputs, backend="reference", **options)
    assert_equal_to_reference(actual, expected, torch.float32)


@pytest.mark.parametrize(("backend", "device"), RUNNABLE)
@pytest.mark.parametrize(
    "directions",
    [
        (Direction.COLUMN_REVERSED,),
        (Direction.ROW, Direction.ROW_REVERSED),
        (Direction.ROW, Direction.ROW, Direction.ROW_REVERSED, Direction.ROW_REVERSED),
    ],
)
def test_any_choice_of_directions_equals_the_reference(directions, backend, device):
    inputs = random_map(5, 7, num_directions=len(directions))
    actual = outputs_and_gradients(cross_selective_scan, inputs, device, directions=directions, backend=backend)
    expected = outputs_and_gradients(cross_selective_scan, inputs, directions=directions, backend="reference")
    assert_equal_to_reference(actual, expected, torch.float32)


@pytest.mark.parametrize(("backend", "device"), RUNNABLE)
def test_inputs_need_not_be_contiguous(backend, device):
    inputs = random_sequences(length=63, state_size=2, groups=4)
    strided = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items() if tensor.dim() > 1}
    actual = outputs_and_gradients(selective_scan, {**inputs, **strided}, device, backend=backend, delta_softplus=True)
    expected = outputs_and_gradients(selective_scan, inputs, backend="reference", delta_softplus=True)
    assert_equal_to_reference(actual, expected, torch.float32)

    inputs = random_map(5, 7)
    strided = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items() if tensor.dim() > 1}
    actual = outputs_and_gradients(cross_selective_scan, {**inputs, **strided}, device, backend=backend)
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference")
    assert_equal_to_reference(actual, expected, torch.float32)


@pytest.mark.parametrize("block_length", [1, 7, 64])
@pytest.mark.parametrize("state_size", [1, 3])
def test_blocks_of_any_length_equal_the_reference(block_length, state_size, monkeypatch):
    monkeypatch.setattr(torch_scan, "BLOCK_STATES", 1)
    monkeypatch.setattr(torch_scan, "MIN_BLOCK_LENGTH", block_length)
    inputs = random_sequences(197, state_size, groups=4)
    actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend="torch")
    expected = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend="reference")
    assert_equal_to_reference(actual, expected, torch.float32)
    for size in ((13, 5), (1, 67)):
        actual = outputs_and_gradients(cross_selective_scan, random_map(*size, state_size), backend="torch")
        expected = outputs_and_gradients(cross_selective_scan, random_map(*size, state_size), backend="reference")
        assert_equal_to_reference(actual, expected, torch.float32)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_float64_stays_float64(backend):
    inputs = random_map(5, 7, state_size=2, dtype=torch.float64)
    actual = outputs_and_gradients(cross_selective_scan, inputs, backend=backend)
    assert actual["output"].dtype == torch.float64
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference")
    assert_equal_to_reference(actual, expected, torch.float64)


@pytest.mark.parametrize(("backend", "device"), [("reference", "cpu"), *RUNNABLE])
@pytest.mark.parametrize("delta_softplus", [False, True])
def test_large_time_steps_give_no_nan(delta_softplus, backend, device):
    inputs = random_sequences(length=197, state_size=16, groups=4)
    inputs["delta"] = 1e4 * inputs["delta"].abs()
    inputs["A"] = 10 * inputs["A"]
    actual = outputs_and_gradients(selective_scan, inputs, device, delta_softplus=delta_softplus, backend=backend)
    assert all(tensor.isfinite().all() for tensor in actual.values())
    expected = outputs_and_gradients(selective_scan, inputs, delta_softplus=delta_softplus, backend="reference")
    assert_equal_to_reference(actual, expected, torch.float32)


# ------------------------------------------------------------------------------------------------------ half precision
@pytest.mark.parametrize(("backend", "device"), [("reference", "cpu"), *RUNNABLE])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_scanned_in_float32(dtype, backend, device):
    inputs = {name: tensor.to(device) for name, tensor in random_sequences(63, 2, 4, dtype).items()}
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    assert y.dtype == torch.float32
    upcast = {name: tensor.float() for name, tensor in inputs.items()}
    torch.testing.assert_close(y, selective_scan(**upcast, delta_softplus=True, backend=backend), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_stops_before_the_scan_and_its_weights_are_float32(dtype, monkeypatch):
    calls = []

    def record(x, projections, *weights):
        calls.append((torch.is_autocast_enabled("cpu"), projections.dtype, {tensor.dtype for tensor in weights[:4]}))
        return torch.zeros_like(x)

    stand_in = ScanBackend(record, record, why_not=lambda device: "")
    monkeypatch.setitem(BACKENDS, "torch", stand_in)
    with torch.autocast("cpu", dtype):
        cross_selective_scan(**random_map(5, 7), backend="torch")
        selective_scan(**random_sequences(3), backend="torch")
    assert calls == [(False, dtype, {torch.float32}), (False, torch.float32, {torch.float32})]


# -------------------------------------------------------------------------------------------- memory and compilation
def saved_elements(operation, inputs, device, **options):
    """Elements kept for the backward pass, every storage once."""
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    inputs = {name: tensor.to(device).requires_grad_() for name, tensor in inputs.items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = operation(**inputs, **options)
    y.sum().backward()
    return sum(saved.values())


@pytest.mark.parametrize(("backend", "device"), FRUGAL)
@pytest.mark.parametrize("state_size", [1, 16])
def test_sequences_keep_no_states_for_the_backward_pass(state_size, backend, device):
    inputs = random_sequences(2048, state_size, batch=2, channels=64)
    kept = saved_elements(selective_scan, inputs, device, delta_softplus=True, backend=backend)
    beside_inputs = kept - sum(tensor.numel() for tensor in inputs.values())
    assert beside_inputs < 0.05 * inputs["u"].numel() * state_size


@pytest.mark.parametrize(("backend", "device"), FRUGAL)
@pytest.mark.parametrize("state_size", [1, 16])
def test_maps_keep_neither_states_nor_sequences_for_the_backward_pass(state_size, backend, device):
    inputs = random_map(48, 40, state_size, batch=2, channels=64)
    kept = saved_elements(cross_selective_scan, inputs, device, backend=backend)
    num_projections = inputs["x_proj_weight"][..., 0].numel()
    projections = inputs["x"][..., 0].numel() * num_projections
    beside_inputs = kept - projections - sum(tensor.numel() for tensor in inputs.values())
    assert beside_inputs < 0.2 * inputs["x"].numel() * state_size


def test_the_measure_of_kept_memory_sees_the_states_of_the_reference():
    inputs = random_sequences(63, channels=64)
    kept = saved_elements(selective_scan, inputs, "cpu", delta_softplus=True, backend="reference")
    assert kept - sum(tensor.numel() for tensor in inputs.values()) > inputs["u"].numel()


def test_the_operators_of_sequences_are_registered_correctly():
    inputs = random_sequences(9, state_size=2, groups=2)
    tensors = [inputs[name].requires_grad_() for name in SEQUENCE_NAMES]
    torch.library.opcheck(torch_scan._selective_scan_op, (*tensors, True))
    tensors = [tensor.detach() for tensor in tensors]
    y, carries = torch_scan._selective_scan_op(*tensors, True)
    arguments = (torch.ones_like(y), *tensors, carries, True)
    torch.library.opcheck(torch_scan._selective_scan_backward_op, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operators_of_maps_are_registered_correctly(dtype):
    inputs = random_map(3, 4, state_size=2, dtype=dtype)
    projections = torch.randn(2, 3, 4, 4, 7, dtype=dtype)
    weights = [inputs[name].float() for name in ("dt_proj_weight", "dt_proj_bias", "A_log", "D")]
    weights[2] = -torch.exp(weights[2])
    tensors = [tensor.requires_grad_() for tensor in (inputs["x"], projections, *weights)]
    directions = [int(direction) for direction in Direction]
    torch.library.opcheck(torch_scan._cross_selective_scan_op, (*tensors, directions))
    tensors = [tensor.detach() for tensor in tensors]
    y, carries = torch_scan._cross_selective_scan_op(*tensors, directions)
    arguments = (torch.ones_like(y), *tensors, carries, directions)
    torch.library.opcheck(torch_scan._cross_selective_scan_backward_op, arguments)


def test_the_scan_compiles_without_a_graph_break():
    compiled = torch.compile(cross_selective_scan, backend="aot_eager", fullgraph=True)
    inputs = random_map(5, 7)
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference")
    assert_equal_to_reference(outputs_and_gradients(compiled, inputs), expected, torch.float32)


# -------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("delta", (2, 8, 4), r"delta has shape \(2, 8, 4\), u has \(2, 8, 3\); give them the same shape"),
        ("A", (7, 1), r"A has shape \(7, 1\); it must be \(channels, state_size\) with 8 channels"),
        ("B", (2, 3, 1, 3), r"B has shape \(2, 3, 1, 3\); .* groups dividing the 8 channels"),
        ("B", (2, 1, 2, 3), r"B has shape \(2, 1, 2, 3\); it must be .* = \(2, groups, 1, 3\)"),
        ("C", (2, 2, 1, 3), r"C has shape \(2, 2, 1, 3\)"),
        ("C", (2, 1, 1, 4), r"C has shape \(2, 1, 1, 4\)"),
        ("u", (8, 3), r"u has shape \(8, 3\); it must have 3 axes"),
        ("A", (8,), r"A has shape \(8,\); it must have 2 axes"),
        ("B", (2, 3), r"B has shape \(2, 3\); it must be \(batch, groups"),
        ("B", (2, 0, 1, 3), r"B has shape \(2, 0, 1, 3\); it must be"),
        ("D", (1,), r"D has shape \(1,\); it must be \(channels\) = \(8,\)"),
        ("D", (16,), r"D has shape \(16,\); it must be"),
        ("D", (8, 1), r"D has shape \(8, 1\); it must be"),
        ("delta_bias", (1,), r"delta_bias has shape \(1,\); it must be \(channels\) = \(8,\)"),
        ("delta_bias", (9,), r"delta_bias has shape \(9,\); it must be"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", *scan_backends("cpu", "torch", "reference")])
def test_sequences_that_do_not_fit_are_refused(name, shape, message, backend):
    inputs = random_sequences(3)
    inputs[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs, backend=backend)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 8, 3, 4), r"x has shape \(2, 8, 3, 4\); it must be \(batch, height, width, channels = 8\)"),
        ("x", (2, 12, 8), r"x has shape \(2, 12, 8\)"),
        ("x_proj_weight", (4, 6, 8), r"x_proj_weight has shape \(4, 6, 8\); it must be .* = \(4, 5, 8\)"),
        ("dt_proj_weight", (3, 8, 3), "4 directions came with weights for 3; give one per scan"),
        ("dt_proj_weight", (8, 3), r"dt_proj_weight has shape \(8, 3\); it must have 3 axes"),
        ("dt_proj_bias", (32,), r"dt_proj_bias has shape \(32,\); it must be \(K, channels\) = \(4, 8\)"),
        ("dt_proj_bias", (1, 8), r"dt_proj_bias has shape \(1, 8\); it must be"),
        ("A_log", (8, 1), r"A_log has shape \(8, 1\); it must be \(K·channels, N\) = \(32, 1\)"),
        ("A_log", (33, 1), r"A_log has shape \(33, 1\); it must be"),
        ("A_log", (32,), r"A_log has shape \(32,\); it must have 2 axes"),
        ("D", (8,), r"D has shape \(8,\); it must be \(K·channels\) = \(32,\)"),
        ("D", (4, 8), r"D has shape \(4, 8\); it must be"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", *scan_backends("cpu", "torch", "reference")])
def test_maps_that_do_not_fit_are_refused(name, shape, message, backend):
    inputs = random_map(3, 4)
    inputs[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=message):
        cross_selective_scan(**inputs, backend=backend)


NO_TENSORS = {
    "nothing": (lambda tensor: "x", "is a str; it must be a tensor"),
    "a list": (lambda tensor: tensor.tolist(), "is a list; it must be a tensor"),
    "an array": (lambda tensor: tensor.numpy(), "is a ndarray; it must be a tensor"),
    "integers": (lambda tensor: tensor.long(), "is of torch.int64, .*floating point and dense"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "is of torch.complex64"),
    "sparse": (lambda tensor: tensor.to_sparse(), "is of .*, torch.sparse_coo; it must be .* dense"),
}


@pytest.mark.parametrize("what", NO_TENSORS)
@pytest.mark.parametrize("backend", ["auto", *scan_backends("cpu", "torch", "reference")])
def test_what_is_no_dense_tensor_of_floats_is_refused(what, backend):
    change, message = NO_TENSORS[what]
    for scan, inputs in ((selective_scan, random_sequences(3)), (cross_selective_scan, random_map(3, 4))):
        for name, tensor in inputs.items():
            with pytest.raises(ValueError, match=f"{name} {message}"):
                scan(**{**inputs, name: change(tensor)}, backend=backend)


@pytest.mark.parametrize("backend", ["auto", *scan_backends("cpu", "torch", "reference")])
def test_tensors_on_several_devices_are_refused(backend):
    for scan, inputs in ((selective_scan, random_sequences(3)), (cross_selective_scan, random_map(3, 4))):
        for name, tensor in list(inputs.items())[1:]:
            with pytest.raises(ValueError, match=f"{name} is on meta, [ux] is on cpu; give them on one device"):
                scan(**{**inputs, name: tensor.to("meta")}, backend=backend)


@pytest.mark.parametrize("backend", ["auto", *scan_backends("cpu", "torch", "reference")])
def test_weights_of_another_precision_than_the_map_are_taken(backend):
    inputs = random_map(3, 4)
    expected = cross_selective_scan(**inputs, backend="reference")
    y = cross_selective_scan(
        inputs.pop("x"), **{name: value.double() for name, value in inputs.items()}, backend=backend
    )
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["auto", *scan_backends("cpu", "torch", "reference")])
@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ((*tuple(Direction)[:3], 9), "directions has 9; give members of Direction"),
        ((0, 1, 2, 3), "directions has 0; give members of Direction"),
        (None, "directions is a NoneType; give a tuple of members of Direction"),
        (iter(Direction), "give a tuple of members of Direction"),
    ],
)
def test_unknown_directions_are_refused(directions, message, backend):
    with pytest.raises(ValueError, match=message):
        cross_selective_scan(**random_map(3, 4), directions=directions, backend=backend)


# ------------------------------------------------------------------------------------------------ nothing, and no data
@pytest.mark.parametrize("backend", scan_backends("cpu", "torch", "reference"))
@pytest.mark.parametrize("shape", [(0, 3, 4, 8), (2, 0, 4, 8), (2, 3, 0, 8)])
def test_an_empty_map_gives_an_empty_one(shape, backend):
    inputs = random_map(3, 4)
    inputs["x"] = torch.zeros(shape, dtype=torch.bfloat16, requires_grad=True)
    y = cross_selective_scan(**inputs, backend=backend)
    assert y.shape == shape and y.dtype == torch.float32
    y.sum().backward()


@pytest.mark.parametrize("backend", scan_backends("cpu", "torch", "reference"))
@pytest.mark.parametrize(("batch", "length"), [(0, 3), (2, 0)])
def test_empty_sequences_give_empty_ones(batch, length, backend):
    inputs = random_sequences(3)
    for name in ("u", "delta", "B", "C"):
        inputs[name] = torch.zeros(batch, *inputs[name].shape[1:-1], length, requires_grad=True)
    y = selective_scan(**inputs, backend=backend)
    assert y.shape == (batch, 8, length) and y.dtype == torch.float32
    y.sum().backward()


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_shapes_without_data_are_scanned(backend):
    with torch.device("meta"):
        sequences = {name: torch.empty_like(tensor, device="meta") for name, tensor in random_sequences(3).items()}
        map_ = {name: torch.empty_like(tensor, device="meta") for name, tensor in random_map(3, 4).items()}
        assert selective_scan(**sequences, backend=backend).shape == (2, 8, 3)
        y = cross_selective_scan(**map_, backend=backend)
    assert y.is_meta and y.shape == (2, 3, 4, 8) and y.dtype == torch.float32
