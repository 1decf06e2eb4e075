# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels in Triton's interpreter against the reference; that they compile for GPUs; dispatch.

The interpreter does not show what a GPU does with them: tests/gpu does.
"""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_selective_scan import (
    MAP_NAMES,
    assert_equal_to_reference,
    outputs_and_gradients,
    random_map,
    random_sequences,
)

from remamber_hf import selective_scan as scan_module
from remamber_hf import triton_scan
from remamber_hf.selective_scan import Direction, cross_selective_scan, selective_scan


HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed; `make test-triton` installs it")
needs_interpreter = pytest.mark.skipif(
    not HAS_TRITON or os.environ.get("TRITON_INTERPRET") != "1",
    reason="Triton's interpreter is off; `make test-triton` installs Triton and sets TRITON_INTERPRET=1",
)


@pytest.fixture
def kernels(monkeypatch):
    """
    The module of the kernels, run by the interpreter.

    It calls the operator of a scan for each number, which takes minutes: here NumPy computes the same recurrence.
    """
    from triton.runtime.interpreter import ScanOps

    from remamber_hf import triton_kernels

    def scan_rows(self, inputs):
        assert self.combine_fn is triton_kernels._combine
        decays, states = (np.moveaxis(tensor.handle.data, self.axis, 0).copy() for tensor in inputs)
        for index in range(1, len(states)):
            states[index] += decays[index] * states[index - 1]
            decays[index] *= decays[index - 1]
        outputs = (np.ascontiguousarray(np.moveaxis(values, 0, self.axis)) for values in (decays, states))
        return [self.to_tensor(values, tensor.dtype) for values, tensor in zip(outputs, inputs)]

    monkeypatch.setattr(ScanOps, "generic_scan", scan_rows)
    return triton_kernels


def assert_maps_equal_the_reference(inputs, dtype=torch.float32, **options):
    actual = outputs_and_gradients(cross_selective_scan, inputs, backend="triton", **options)
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference", **options)
    assert_equal_to_reference(actual, expected, dtype)


# -------------------------------------------------------------------------------------------- against the reference
@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "state_size"), [((1, 1), 3), ((5, 7), 2), ((7, 9), 1), ((67, 1), 1)])
def test_maps_and_their_gradients_equal_the_reference(size, state_size, dtype, kernels):
    inputs = random_map(*size, state_size, dtype, num_directions=2, batch=1, channels=5)
    assert_maps_equal_the_reference(inputs, dtype, directions=(Direction.ROW, Direction.COLUMN_REVERSED))


@needs_interpreter
@pytest.mark.parametrize("size", [(8, 8), (1, 67)])
def test_several_maps_and_all_directions_equal_the_reference(size, kernels):
    assert_maps_equal_the_reference(random_map(*size, batch=2))


@needs_interpreter
def test_the_operator_of_the_scans_is_the_recurrence(kernels, monkeypatch):
    monkeypatch.undo()  # back to the interpreter's own scan
    monkeypatch.setattr(kernels, "STEPS", 16)
    inputs = random_map(2, 3, batch=1, num_directions=1)
    assert_maps_equal_the_reference(inputs, directions=(Direction.COLUMN,))


@needs_interpreter
@pytest.mark.parametrize(
    "directions",
    [
        (Direction.COLUMN_REVERSED,),
        (Direction.ROW, Direction.ROW, Direction.ROW_REVERSED, Direction.ROW_REVERSED),
    ],
)
def test_any_choice_of_directions_equals_the_reference(directions, kernels):
    inputs = random_map(5, 7, num_directions=len(directions), batch=1)
    assert_maps_equal_the_reference(inputs, directions=directions)


@needs_interpreter
@pytest.mark.parametrize(("channels", "rank"), [(1, 1), (37, 19), (65, 33)])
def test_any_number_of_channels_and_any_rank_equal_the_reference(channels, rank, kernels):
    directions = (Direction.COLUMN, Direction.ROW_REVERSED)
    inputs = random_map(9, 8, num_directions=2, batch=1, channels=channels, rank=rank)
    assert_maps_equal_the_reference(inputs, directions=directions)


@needs_interpreter
@pytest.mark.parametrize("chained_chunks", [1, 4])
def test_more_chunks_than_are_chained_at_once_equal_the_reference(chained_chunks, kernels, monkeypatch):
    monkeypatch.setattr(kernels, "CHAINED_CHUNKS", chained_chunks)
    monkeypatch.setattr(kernels, "STEPS", 16)
    directions = (Direction.ROW, Direction.COLUMN_REVERSED)
    assert_maps_equal_the_reference(random_map(9, 9, num_directions=2, state_size=2, batch=1), directions=directions)


@needs_interpreter
@pytest.mark.parametrize("factor", [1e2, 1e4])
def test_large_time_steps_give_no_nan(factor, kernels):
    inputs = random_map(10, 10, num_directions=1, batch=1)
    inputs["dt_proj_weight"] *= factor
    inputs["A_log"] += 2
    actual = outputs_and_gradients(cross_selective_scan, inputs, backend="triton", directions=(Direction.ROW,))
    assert all(tensor.isfinite().all() for tensor in actual.values())
    if factor == 1e2:  # at 1e4 the float32 reference itself is 1e-3 off the one in float64
        assert_maps_equal_the_reference(inputs, directions=(Direction.ROW,))


@needs_interpreter
def test_inputs_need_not_be_contiguous(kernels):
    inputs = random_map(5, 7, num_directions=1, batch=1)
    strided = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items() if tensor.dim() > 1}
    assert_maps_equal_the_reference({**inputs, **strided}, directions=(Direction.COLUMN,))


@needs_interpreter
def test_autocast_mixes_a_float32_map_with_bfloat16_projections(kernels):
    inputs = random_map(7, 9, num_directions=1, batch=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert_maps_equal_the_reference(inputs, torch.bfloat16, directions=(Direction.COLUMN,))


@needs_interpreter
def test_the_same_inputs_give_the_same_bits(kernels):
    inputs = random_map(9, 8, num_directions=2, batch=1, channels=37)
    directions = (Direction.COLUMN, Direction.ROW)
    first, second = (
        outputs_and_gradients(cross_selective_scan, inputs, backend="triton", directions=directions) for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_interpreter
def test_softplus_and_its_derivative_are_accurate_to_the_last_digits(kernels):
    import triton
    import triton.language as tl

    @triton.jit
    def evaluate(z, softplus, sigmoid, softplus_function, sigmoid_function, SIZE: tl.constexpr):
        offsets = tl.arange(0, SIZE)
        values = tl.load(z + offsets)
        softplus_values, e = softplus_function(values)
        tl.store(softplus + offsets, softplus_values)
        tl.store(sigmoid + offsets, sigmoid_function(values, e))

    z = torch.linspace(-80, 40, 2**14)
    softplus, sigmoid = torch.empty_like(z), torch.empty_like(z)
    evaluate[(1,)](z, softplus, sigmoid, kernels._softplus, kernels._sigmoid, SIZE=z.numel())
    for actual, exact in ((softplus, torch.log1p(z.double().exp())), (sigmoid, z.double().sigmoid())):
        rounding = 1 + z.abs() / 8  # of z·log2(e)
        assert ((actual - exact) / exact / rounding).abs().max() < 5e-7


# -------------------------------------------------------------------------------------------------------- registration
@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operators_are_registered_correctly(dtype, kernels):
    inputs = random_map(3, 4, state_size=2, dtype=dtype, num_directions=1, batch=1)
    weights = [inputs[name].float() for name in MAP_NAMES[2:]]
    weights[2] = -torch.exp(weights[2])
    tensors = [inputs["x"], torch.randn(1, 3, 4, 1, 7, dtype=dtype), *weights]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    torch.library.opcheck(triton_scan._cross_selective_scan_op, (*tensors, [Direction.COLUMN], True))
    tensors = [tensor.detach() for tensor in tensors]
    y, states = triton_scan._cross_selective_scan_op(*tensors, [Direction.COLUMN], True)
    arguments = (torch.ones_like(y), *tensors, states, [Direction.COLUMN])
    torch.library.opcheck(triton_scan._cross_selective_scan_backward_op, arguments)


# --------------------------------------------------------------------------------------------------------- compilation
COMPILE = """
import sys
from dataclasses import replace
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from remamber_hf import triton_kernels as kernels

capability, dtype = int(sys.argv[1]), sys.argv[2]
constants = {"STEPS": kernels.STEPS, "BLOCK": kernels.BLOCK, "CHANNELS": kernels.CHANNELS, "RANKS": 16,
             "CHUNKS": kernels.CHAINED_CHUNKS, "KEEPS_STATES": True, "KEPT": kernels.KEPT, "IS_REVERSED": True}
numbers = {"part", "n", "N", "orders", "parts", "height", "width", "num_channels", "num_chunks", "rank"}
for kernel in (kernels._summarise_chunks, kernels._chain_chunks, kernels._scan_chunks, kernels._summarise_gradients,
               kernels._scan_chunks_backward):
    types = {name: "constexpr" if name in constants else "i32" if name in numbers else
             "*" + dtype if name in ("x", "projections", "grad_x", "grad_z") else "*fp32" for name in kernel.arg_names}
    source = ASTSource(kernel, types, {name: constants[name] for name in types if name in constants})
    compiled = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
    print(kernel.fn.__name__, compiled.metadata.shared, flush=True)
"""
SHARED_MEMORY = 48 * 1024  # bytes that a program has on every GPU


@needs_triton
@pytest.mark.parametrize(("capability", "dtype"), [(80, "fp32"), (90, "bf16")])
def test_the_kernels_compile_for_gpus(capability, dtype, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE, str(capability), dtype]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    shared = {line.split()[0]: int(line.split()[1]) for line in result.stdout.splitlines()}
    assert len(shared) == 5
    assert max(shared.values()) <= SHARED_MEMORY, shared


# ------------------------------------------------------------------------------------------------------------ dispatch
@pytest.fixture
def no_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "remamber_hf.triton_kernels", None)
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    scan_module._load_mamba_ssm.cache_clear()
    triton_scan._why_not_imported.cache_clear()
    yield
    scan_module._load_mamba_ssm.cache_clear()
    triton_scan._why_not_imported.cache_clear()


@pytest.mark.skipif(HAS_TRITON, reason="Triton is installed")
def test_without_triton_the_reason_has_the_install_line():
    reason = triton_scan.why_not(torch.device("cuda"))
    assert reason == "No module named 'triton'; install it with: pip install triton"


def test_the_kernels_are_refused_on_other_devices(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="'triton' cannot run: the Triton kernels need CUDA tensors, .* on cpu"):
        cross_selective_scan(**random_map(2, 3), backend="triton")


def test_auto_on_a_gpu_is_triton_then_mamba_ssm_then_torch(no_triton, monkeypatch):
    assert scan_module.fastest_backend("cuda")[0] == "torch"
    reasons = scan_module.fastest_backend("cuda")[1]
    assert scan_module.MAMBA_SSM_INSTALL in reasons and "triton" in reasons
    monkeypatch.setattr(scan_module, "BACKENDS", {**scan_module.BACKENDS})

    def make_runnable(name):
        backend = replace(scan_module.BACKENDS[name], why_not=lambda device: "")
        monkeypatch.setitem(scan_module.BACKENDS, name, backend)

    make_runnable("mamba_ssm")
    assert scan_module._choose_backend("cuda") == "mamba_ssm"
    make_runnable("triton")
    assert scan_module._choose_backend("cuda") == "triton"
    assert scan_module._choose_backend("cuda", operation="selective_scan") == "mamba_ssm"  # Triton has none
    assert scan_module._choose_backend("cuda", torch.float64) == "torch"


@pytest.mark.parametrize(("capability", "hip", "words"), [((7, 5), None, "this GPU has 7.5"), ((9, 4), "6.4", "AMD")])
def test_gpus_that_the_kernels_are_not_for_are_named(capability, hip, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert words in triton_scan.why_not(torch.device("cuda"))


@pytest.mark.parametrize("name", ["cpu", "mamba_ssm", "kernels", "triton"])
def test_float64_is_refused_by_what_computes_in_float32(name, monkeypatch):
    backend = replace(scan_module.BACKENDS[name], why_not=lambda device: "", fetch=lambda: "")
    monkeypatch.setattr(scan_module, "BACKENDS", {**scan_module.BACKENDS, name: backend})
    for scan, inputs in ((selective_scan, random_sequences), (cross_selective_scan, random_map)):
        sizes = (3,) if scan is selective_scan else (2, 3)
        with pytest.raises(RuntimeError, match=f"{name!r} computes in float32, these tensors are float64; use 'auto'"):
            scan(**inputs(*sizes, dtype=torch.float64), backend=name)


def test_missing_triton_is_looked_up_once(monkeypatch):
    triton_scan._why_not_imported.cache_clear()
    monkeypatch.setitem(sys.modules, "remamber_hf.triton_kernels", None)
    reason = triton_scan.why_not(torch.device("cuda"))
    assert "triton_kernels" in reason
    monkeypatch.delitem(sys.modules, "remamber_hf.triton_kernels")
    assert triton_scan.why_not(torch.device("cuda")) == reason
    triton_scan._why_not_imported.cache_clear()


@needs_interpreter
def test_sequences_run_in_blocks_of_pytorch():
    inputs = random_sequences(9, state_size=2, groups=4)
    expected = selective_scan(**inputs, delta_softplus=True, backend="torch")
    assert torch.equal(selective_scan(**inputs, delta_softplus=True, backend="triton"), expected)
