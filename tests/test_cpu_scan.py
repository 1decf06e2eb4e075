# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The C++ kernel: every library that runs here against the reference, accuracy, threads, precision, loading."""

import ctypes
import functools
import os

import pytest
import torch
from test_selective_scan import (
    MAP_NAMES,
    SEQUENCE_NAMES,
    assert_equal_to_reference,
    outputs_and_gradients,
    random_map,
    random_sequences,
    reference_of_map,
    reference_of_sequences,
)
from tiny import golden_inputs, golden_model, golden_tensors
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from remamber_hf import cpu_scan
from remamber_hf import selective_scan as scan_module
from remamber_hf.selective_scan import Direction, cross_selective_scan, selective_scan


needs_library = pytest.mark.skipif(cpu_scan.load_library()[0] is None, reason=cpu_scan.load_library()[1])


@pytest.fixture(params=cpu_scan.library_names())
def library(request, monkeypatch):
    """Each library that this processor runs, in place of the fastest."""
    wanted = os.environ.get(cpu_scan.KERNEL_VARIABLE)
    if wanted and request.param != f"_scan_{wanted}":
        pytest.skip(f"{cpu_scan.KERNEL_VARIABLE} is {wanted!r}")
    try:
        opened = cpu_scan.open_library(request.param)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(cpu_scan, "load_library", lambda: (opened, request.param))
    return opened


@pytest.fixture
def no_library(monkeypatch, tmp_path):
    """No library is built; what was found out before is forgotten, and forgotten again afterwards."""
    monkeypatch.setattr(cpu_scan, "FOLDER", tmp_path)
    monkeypatch.delenv(cpu_scan.KERNEL_VARIABLE, raising=False)
    cpu_scan.load_library.cache_clear()
    logging.warning_once.cache_clear()
    yield
    cpu_scan.load_library.cache_clear()


# ------------------------------------------------------------------------------------- every library, by the reference
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state_size", [1, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 197), (197, 1), (7, 9), (8, 8)])
def test_maps_and_their_gradients_equal_the_reference(size, state_size, dtype, library):
    actual = outputs_and_gradients(cross_selective_scan, random_map(*size, state_size, dtype), backend="cpu")
    assert_equal_to_reference(actual, reference_of_map(*size, state_size, dtype), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("state_size", "groups"), [(1, 1), (1, 4), (16, 1), (16, 4)])
@pytest.mark.parametrize("length", [1, 63, 64, 197])
def test_sequences_and_their_gradients_equal_the_reference(length, state_size, groups, dtype, library):
    inputs = random_sequences(length, state_size, groups, dtype)
    actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend="cpu")
    assert_equal_to_reference(actual, reference_of_sequences(length, state_size, groups, dtype), dtype)


@pytest.mark.parametrize("state_size", [2, 15, 16, 17])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 197])  # a tile has 32 steps
def test_many_states_in_two_groups_and_their_gradients_equal_the_reference(length, state_size, library):
    inputs = random_sequences(length, state_size, groups=2, channels=74)
    actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend="cpu")
    expected = reference_of_sequences(length, state_size, 2, torch.float32, channels=74)
    assert_equal_to_reference(actual, expected, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [2, 14, 32, 62, 64, 66, 130])
def test_sequences_of_any_number_of_channels_equal_the_reference(channels, dtype, library):
    inputs = random_sequences(37, state_size=3, groups=2, dtype=dtype, channels=channels)
    actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend="cpu")
    assert_equal_to_reference(actual, reference_of_sequences(37, 3, 2, dtype, channels), dtype)


@pytest.mark.parametrize("size", [(1, 33), (7, 9)])
@pytest.mark.parametrize("state_size", [2, 15, 17])
def test_maps_of_many_states_and_their_gradients_equal_the_reference(state_size, size, library):
    inputs = random_map(*size, state_size, channels=72, rank=5)  # a last panel of 8, a whole one before it
    actual = outputs_and_gradients(cross_selective_scan, inputs, backend="cpu")
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference")
    assert_equal_to_reference(actual, expected, torch.float32)


@needs_library
def test_without_states_the_skip_remains():
    inputs = random_sequences(37, state_size=0)
    torch.testing.assert_close(
        selective_scan(**inputs, backend="cpu"), selective_scan(**inputs, backend="reference"), rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("channels", "rank"), [(1, 1), (5, 4), (8, 8), (16, 5), (32, 16), (33, 17), (67, 9), (160, 33)]
)
def test_any_number_of_channels_and_any_rank_equal_the_reference(channels, rank, dtype, library):
    inputs = random_map(5, 9, dtype=dtype, channels=channels, rank=rank)
    actual = outputs_and_gradients(cross_selective_scan, inputs, backend="cpu")
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference")
    assert_equal_to_reference(actual, expected, dtype)


@pytest.mark.parametrize("are_ours", [False, True])
@pytest.mark.parametrize(("panel_groups", "batch_groups"), [(2, 1), (3, 1), (1, 2), (1, 5), (2, 3)])
def test_threads_share_channels_and_batch_and_change_nothing(
    panel_groups, batch_groups, are_ours, library, monkeypatch
):
    if are_ours:
        monkeypatch.setattr(cpu_scan, "_parallel", lambda: None)
    maps = random_map(7, 9, state_size=2, channels=150, batch=5)
    sequences = random_sequences(63, state_size=2, groups=2, channels=140, batch=5)
    scans = {cross_selective_scan: (maps, {}), selective_scan: (sequences, {"delta_softplus": True})}
    expected = [
        outputs_and_gradients(scan, inputs, backend="reference", **options)
        for scan, (inputs, options) in scans.items()
    ]
    groups = {"panel_groups": panel_groups, "batch_groups": batch_groups}
    monkeypatch.setattr(cpu_scan, "_groups", lambda *_: groups)
    for (scan, (inputs, options)), reference in zip(scans.items(), expected):
        actual = outputs_and_gradients(scan, inputs, backend="cpu", **options)
        assert_equal_to_reference(actual, reference, torch.float32)


@pytest.mark.skipif(cpu_scan._parallel() is None, reason="this PyTorch runs on no OpenMP with GOMP_parallel")
def test_the_threads_are_those_of_pytorch_and_a_smaller_team_does_all_the_work(library, monkeypatch):
    teams = []

    @ctypes.CFUNCTYPE(None, ctypes.CFUNCTYPE(None, ctypes.c_void_p), ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    def team_of_one(function, argument, num_threads, flags):
        teams.append(num_threads)
        function(argument)

    monkeypatch.setattr(cpu_scan, "_groups", lambda *_: {"panel_groups": 3, "batch_groups": 2})
    inputs = random_map(7, 9, channels=67)
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="cpu")
    monkeypatch.setattr(cpu_scan, "_parallel", lambda: ctypes.cast(team_of_one, ctypes.c_void_p).value)
    actual = outputs_and_gradients(cross_selective_scan, inputs, backend="cpu")
    assert teams == [6, 6]
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@needs_library
@pytest.mark.parametrize(
    ("threads", "enough_for", "panels", "batch", "expected"),
    [
        (4, 100, 8, 1, (4, 1)),
        (4, 100, 3, 1, (3, 1)),
        (4, 2, 8, 1, (2, 1)),
        (4, 0, 8, 1, (1, 1)),
        (2, 100, 8, 16, (2, 1)),  # equal shares either way: fewer gradients to sum
        (2, 100, 3, 16, (1, 2)),  # 24 of the 48, where two panels would be 32
        (32, 100, 8, 16, (8, 4)),
        (12, 100, 8, 16, (4, 3)),
        (64, 100, 6, 4, (6, 4)),
    ],
)
def test_work_is_cut_over_panels_and_batch_for_as_many_threads_as_it_is_worth(
    threads, enough_for, panels, batch, expected, monkeypatch
):
    library, _ = cpu_scan.load_library()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    channels = panels * library.remamber_scan_panel() - 1
    groups = cpu_scan._groups(library, enough_for * cpu_scan.THREAD_STATES, channels, batch)
    assert (groups["panel_groups"], groups["batch_groups"]) == expected


@needs_library
@pytest.mark.parametrize("name", ["none", "sse9", "avx512_scan", "../csrc/scan"])
def test_the_environment_may_name_the_library_and_a_name_that_cannot_run_is_said(name, monkeypatch):
    monkeypatch.setenv(cpu_scan.KERNEL_VARIABLE, name)
    library, reason = cpu_scan.load_library.__wrapped__()
    assert library is None
    assert reason.startswith(f"REMAMBER_CPU_KERNEL is {name!r}; this processor runs ")
    monkeypatch.setenv(cpu_scan.KERNEL_VARIABLE, "baseline")
    assert cpu_scan.load_library.__wrapped__()[1] == "_scan_baseline"


# ------------------------------------------------------------------------------------------------------------ accuracy
def scan_of_two_steps(delta, u, **options):
    """Outputs (2, channels) of a scan of two steps with A = −1, B = C = 1, all (2, channels)."""
    channels = delta.shape[1]
    ones = torch.ones(1, 1, 1, 2)
    y = selective_scan(u.T[None], delta.T[None], -torch.ones(channels, 1), ones, ones, backend="cpu", **options)
    return y[0].T


def test_softplus_is_accurate_to_the_last_digits(library):
    z = torch.linspace(-80, 40, 24001)
    u = torch.tensor([[1.0], [0.0]]).expand(2, z.numel())
    softplus, _ = scan_of_two_steps(z.expand(2, -1), u, delta_softplus=True)
    exact = torch.log1p(torch.exp(z.double()))
    assert ((softplus - exact) / exact).abs().max() < 5e-7


def test_decays_are_accurate_to_the_last_digits(library):
    delta = torch.cat([torch.linspace(0, 87, 17401), torch.logspace(-7, 0, 1001)])
    u = torch.tensor([[1.0], [0.0]]).expand(2, delta.numel())
    _, decay = scan_of_two_steps(torch.stack([torch.ones_like(delta), delta]), u)
    exact = torch.exp(-delta.double())
    assert ((decay - exact) / exact).abs().max() < 3e-7


def test_infinite_steps_forget_and_nan_stays_nan(library):
    delta = torch.tensor([[1.0, 1.0, 1.0], [1e30, torch.inf, torch.nan]])
    _, decay = scan_of_two_steps(delta, torch.tensor([[1.0], [0.0]]).expand(2, 3))
    assert decay[0] == 0
    assert decay[1:].isnan().all()  # an infinite step times an input of 0, as in the reference


# ------------------------------------------------------------------------------------------------ floating-point mode
def decaying_state(backend):
    """A state that falls by 1/e a step, from 1 into the denormals (below 1.2e-38, here after 87 steps)."""
    u = torch.zeros(1, 1, 100)
    u[..., 0] = 1
    ones = torch.ones(1, 1, 100)
    return selective_scan(u, ones, -torch.ones(1, 1), ones, ones, backend=backend)[0, 0]


def test_denormals_are_zero_inside_the_kernel_and_kept_outside(library):
    assert 0 < decaying_state("reference")[95] < 1e-38
    assert decaying_state("cpu")[80] > 0
    assert decaying_state("cpu")[95] == 0
    assert 0 < decaying_state("reference")[95] < 1e-38  # the caller's mode was restored


# ----------------------------------------------------------------------------------------------------------- precision
@needs_library
def test_float64_goes_to_blocked_pytorch_unless_the_kernel_is_named():
    maps, sequences = random_map(3, 4, dtype=torch.float64), random_sequences(9, dtype=torch.float64)
    assert cross_selective_scan(**maps).dtype == selective_scan(**sequences).dtype == torch.float64
    with pytest.raises(RuntimeError, match="'cpu' computes in float32, these tensors are float64; use 'auto'"):
        cross_selective_scan(**maps, backend="cpu")
    with pytest.raises(RuntimeError, match="'cpu' computes in float32, these tensors are float64; use 'auto'"):
        selective_scan(**sequences, backend="cpu")


@needs_library
def test_autocast_mixes_a_float32_map_with_bfloat16_projections():
    inputs = random_map(7, 9, channels=40)
    with torch.autocast("cpu", torch.bfloat16):
        actual = outputs_and_gradients(cross_selective_scan, inputs, backend="cpu")
        expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference")
    assert_equal_to_reference(actual, expected, torch.bfloat16)


# ----------------------------------------------------------------------------------------------------- reference cases
@needs_library
@pytest.mark.parametrize("case", ["vmamba_tiny", "conv_tiny", "mamba_tiny"])
def test_logits_equal_the_published_code(case):
    with torch.no_grad():
        logits = golden_model(case, "cpu")(**golden_inputs(case)).logits
    torch.testing.assert_close(logits, golden_tensors(case)["logits"], rtol=1e-5, atol=2e-5)


# -------------------------------------------------------------------------------------------------------- registration
@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operators_of_maps_are_registered_correctly(dtype):
    inputs = random_map(3, 4, state_size=2, dtype=dtype)
    weights = [inputs[name].float() for name in MAP_NAMES[2:]]
    weights[2] = -torch.exp(weights[2])
    tensors = [inputs["x"], torch.randn(2, 3, 4, 4, 7, dtype=dtype), *weights]
    directions = [int(direction) for direction in Direction]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    torch.library.opcheck(cpu_scan._cross_selective_scan_op, (*tensors, directions))
    tensors = [tensor.detach() for tensor in tensors]
    y, carries = cpu_scan._cross_selective_scan_op(*tensors, directions)
    arguments = (torch.ones_like(y), *tensors, carries, directions)
    torch.library.opcheck(cpu_scan._cross_selective_scan_backward_op, arguments)


@needs_library
def test_the_operators_of_sequences_are_registered_correctly():
    inputs = random_sequences(9, state_size=2, groups=2)
    tensors = [inputs[name].requires_grad_() for name in SEQUENCE_NAMES]
    torch.library.opcheck(cpu_scan._selective_scan_op, (*tensors, True))
    tensors = [tensor.detach() for tensor in tensors]
    y, carries = cpu_scan._selective_scan_op(*tensors, True)
    arguments = (torch.ones_like(y), *tensors, carries, True)
    torch.library.opcheck(cpu_scan._selective_scan_backward_op, arguments)


class Scan(torch.nn.Module):
    def forward(self, x, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D):
        return cross_selective_scan(x, x_proj_weight, dt_proj_weight, dt_proj_bias, A_log, D)


@needs_library
def test_the_kernel_is_exported_as_one_operator():
    inputs = random_map(5, 7)
    program = torch.export.export(Scan(), (), inputs)
    graphs = [module.graph for module in program.graph_module.modules() if hasattr(module, "graph")]
    targets = [str(node.target) for graph in graphs for node in graph.nodes]
    assert targets.count("remamber_hf.cross_selective_scan_cpu.default") == 1
    torch.testing.assert_close(program.module()(**inputs), cross_selective_scan(**inputs, backend="reference"))


@needs_library
def test_an_exported_program_says_so_where_the_kernel_is_missing(monkeypatch):
    inputs = random_map(5, 7)
    program = torch.export.export(Scan(), (), inputs)
    monkeypatch.setattr(cpu_scan, "load_library", lambda: (None, "it was not built"))
    with pytest.raises(RuntimeError, match=r"^The scan's C\+\+ kernel cannot run: it was not built\.$"):
        program.module()(**inputs)


@needs_library
def test_sequences_say_so_too_where_the_kernel_is_missing(monkeypatch):
    monkeypatch.setattr(cpu_scan, "load_library", lambda: (None, "it was not built"))
    inputs = random_sequences(5)
    with pytest.raises(RuntimeError, match=r"^The scan's C\+\+ kernel cannot run: it was not built\.$"):
        cpu_scan.selective_scan_cpu(**inputs)


@needs_library
def test_checkpointing_gives_the_same_gradients():
    inputs = random_map(5, 7)
    scan = functools.partial(cross_selective_scan, backend="cpu")

    def checkpointed(**tensors):
        return torch.utils.checkpoint.checkpoint(scan, *tensors.values(), use_reentrant=False)

    actual, expected = outputs_and_gradients(checkpointed, inputs), outputs_and_gradients(scan, inputs)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


# ------------------------------------------------------------------------------------------------------------- loading
@needs_library
def test_auto_is_the_kernel_on_a_cpu_that_has_it():
    with CaptureLogger(scan_module.logger) as log:
        assert scan_module._choose_backend("cpu") == "cpu"
    assert log.out == ""


def test_a_cpu_without_the_kernel_is_warned_of_once_with_the_install_line(no_library):
    with CaptureLogger(scan_module.logger) as log:
        assert scan_module._choose_backend("cpu") == "torch"
        assert scan_module._choose_backend("cpu") == "torch"
    assert log.out.count("the fast C++ kernel is missing") == 1
    assert "`remamber env`" in log.out
    assert log.out.count(cpu_scan.INSTALL) == 1


def test_the_kernel_by_name_is_refused_where_it_was_not_built(no_library):
    with pytest.raises(RuntimeError, match="'cpu' cannot run: _scan_baseline was not built; build it with: pip"):
        cross_selective_scan(**random_map(2, 3), backend="cpu")


def test_the_kernel_is_refused_on_other_devices():
    assert "needs CPU tensors, these are on cuda" in cpu_scan.why_not(torch.device("cuda"))


@needs_library
def test_a_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(cpu_scan, "BLOCK_STEPS", 1)
    with pytest.raises(RuntimeError, match="was built from another version of the source; build it again with: pip"):
        cpu_scan.open_library("_scan_baseline")


@pytest.mark.parametrize(
    ("machine", "capability", "expected"),
    [
        ("x86_64", "AVX512", ["_scan_avx512", "_scan_avx2", "_scan_baseline"]),
        ("AMD64", "AVX2", ["_scan_avx2", "_scan_baseline"]),
        ("x86_64", "DEFAULT", ["_scan_baseline"]),
        ("aarch64", "DEFAULT", ["_scan_baseline"]),
        ("arm64", "SVE256", ["_scan_baseline"]),
    ],
)
def test_the_processor_decides_on_the_libraries(machine, capability, expected, monkeypatch):
    monkeypatch.setattr(cpu_scan.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert cpu_scan.library_names() == expected


def test_memory_that_runs_out_is_an_error_and_no_crash():
    with pytest.raises(RuntimeError, match="ran out of memory for its buffers; use a smaller batch or fewer threads"):
        cpu_scan._run(lambda arguments: 1, {}, {"batch": 1})
