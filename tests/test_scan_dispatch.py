# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which backend a scan takes, and mamba-ssm's kernel, installed or from the Hub, by stand-ins."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

# Largest difference from the reference, as a share of the largest value of the tensor. Half precision is scanned in
# float32, but the gradients of its inputs are rounded to 8 bits.
from test_selective_scan import random_map, random_sequences
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from remamber_hf import selective_scan as scan_module
from remamber_hf import triton_scan
from remamber_hf.selective_scan import (
    BACKENDS,
    Direction,
    cross_selective_scan,
    selective_scan,
    selective_scan_reference,
)


# ------------------------------------------------------------------------------------------------------------ dispatch
@pytest.fixture
def no_gpu_kernel(monkeypatch):
    """Neither mamba-ssm nor Triton is there; what was found out before is forgotten, and again afterwards."""
    monkeypatch.setitem(sys.modules, "remamber_hf.triton_kernels", None)
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", None)
    scan_module._load_mamba_ssm.cache_clear()
    triton_scan._why_not_imported.cache_clear()
    logging.warning_once.cache_clear()
    yield
    scan_module._load_mamba_ssm.cache_clear()
    triton_scan._why_not_imported.cache_clear()


@pytest.fixture
def stand_in_kernel(no_gpu_kernel, monkeypatch):
    """mamba-ssm whose kernel is our reference, and which records how it was called."""
    calls = []

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        calls.append({"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias})
        assert z is None
        return selective_scan_reference(u, delta, A, B, C, D, delta_bias, delta_softplus)

    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = selective_scan_fn
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", ModuleType("selective_scan_cuda"))
    monkeypatch.setitem(sys.modules, "mamba_ssm", ModuleType("mamba_ssm"))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops", ModuleType("mamba_ssm.ops"))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", interface)
    return calls


def test_auto_is_blocked_pytorch_on_other_devices(no_gpu_kernel):
    with CaptureLogger(scan_module.logger) as log:
        assert scan_module._choose_backend("mps") == "torch"
    assert log.out == ""


def test_auto_is_mamba_ssm_on_a_gpu_that_has_it_and_no_triton(stand_in_kernel):
    assert scan_module._choose_backend("cuda") == "mamba_ssm"
    assert scan_module._choose_backend("cuda", operation="selective_scan") == "mamba_ssm"


def test_a_gpu_without_the_kernel_is_warned_of_once_with_the_install_line(no_gpu_kernel):
    with CaptureLogger(scan_module.logger) as log:
        assert scan_module._choose_backend("cuda") == "torch"
        assert scan_module._choose_backend("cuda") == "torch"
    assert log.out.count("the fast CUDA kernel is missing") == 1
    assert log.out.count(scan_module.MAMBA_SSM_INSTALL) == 1


def test_the_search_for_a_kernel_is_no_graph_break(no_gpu_kernel, monkeypatch):
    def as_if_on_a_gpu(device):
        return scan_module._why_not_mamba_ssm(torch.device("cuda"))

    monkeypatch.setitem(BACKENDS, "cpu", replace(BACKENDS["cpu"], why_not=as_if_on_a_gpu))
    compiled = torch.compile(cross_selective_scan, backend="eager", fullgraph=True)
    inputs = random_map(3, 4)
    torch.testing.assert_close(compiled(**inputs), cross_selective_scan(**inputs, backend="torch"))
    assert scan_module._load_mamba_ssm.cache_info().currsize == 1  # it was looked for


def test_mamba_ssm_by_name_is_refused_on_a_cpu(stand_in_kernel):
    with pytest.raises(RuntimeError, match="'mamba_ssm' cannot run: mamba-ssm's kernel needs CUDA tensors, .* on cpu"):
        selective_scan(**random_sequences(3), backend="mamba_ssm")
    with pytest.raises(RuntimeError, match="use 'auto'"):
        cross_selective_scan(**random_map(2, 3), backend="mamba_ssm")


def test_mamba_ssm_by_name_is_refused_where_it_is_not_installed(no_gpu_kernel):
    with pytest.raises(
        RuntimeError, match="'mamba_ssm' cannot run: .*install it with: MAMBA_KEEP_CUDA_BUILD=TRUE pip"
    ):
        scan_module.find_backend_name("mamba_ssm", torch.device("cuda"), torch.float32, "cross_selective_scan")


def test_mamba_ssm_that_is_called_past_the_table_says_that_it_is_missing(no_gpu_kernel):
    with pytest.raises(RuntimeError, match="mamba-ssm's kernel cannot run: .*install it with: MAMBA_KEEP_CUDA_BUILD"):
        scan_module.selective_scan_mamba_ssm(**random_sequences(3))


def test_mamba_ssm_without_its_extension_is_as_good_as_none(stand_in_kernel, monkeypatch):
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    kernel, reason = scan_module._load_mamba_ssm()
    assert kernel is None
    assert "selective_scan_cuda" in reason and scan_module.MAMBA_SSM_INSTALL in reason
    assert scan_module._choose_backend("cuda") == "torch"


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match="'numba' is unknown; use 'auto' or one of .*'mamba_ssm', 'reference'"):
        selective_scan(**random_sequences(3), backend="numba")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mamba_ssm_is_called_as_its_kernel_needs_it(stand_in_kernel, dtype):
    inputs = random_map(5, 7, state_size=3, dtype=dtype)
    backend = BACKENDS["mamba_ssm"]
    projections = F.linear(inputs["x"], inputs["x_proj_weight"].flatten(0, 1)).unflatten(-1, (4, 9))
    weights = [inputs[name].float() for name in ("dt_proj_weight", "dt_proj_bias", "A_log", "D")]
    weights[2] = -torch.exp(weights[2])
    y = backend.cross_selective_scan(inputs["x"], projections, *weights, tuple(Direction))
    (call,) = stand_in_kernel
    assert {name: tuple(tensor.shape) for name, tensor in call.items()} == {
        "u": (2, 32, 35),
        "delta": (2, 32, 35),
        "A": (32, 3),
        "B": (2, 4, 3, 35),  # one group per direction
        "C": (2, 4, 3, 35),
        "D": (32,),
        "delta_bias": (32,),
    }
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in call.values())
    torch.testing.assert_close(y, cross_selective_scan(**inputs, backend="reference"))


def test_mamba_ssm_gets_half_precision_sequences_in_float32(stand_in_kernel):
    inputs = random_sequences(9, state_size=2, groups=4, dtype=torch.bfloat16)
    y = BACKENDS["mamba_ssm"].selective_scan(**inputs, delta_softplus=True)
    (call,) = stand_in_kernel
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in call.values())
    assert torch.equal(y, selective_scan(**inputs, delta_softplus=True, backend="reference"))


# ------------------------------------------------------------------------------------------------- a kernel of the Hub
HUB_KERNEL = """
from remamber_hf.selective_scan import selective_scan_reference

calls = []


def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    assert z is None
    calls.append([tensor for tensor in (u, delta, A, B, C, D, delta_bias) if tensor is not None])
    return selective_scan_reference(u, delta, A, B, C, D, delta_bias, delta_softplus)
"""
KERNELS = """
import importlib

from huggingface_hub.errors import HTTPError

asked_for = []


def get_kernel(repo_id, *, version):
    asked_for.append((repo_id, version))
    {what_it_does}
"""
SERVES = "return importlib.import_module('hub_kernel')"


@pytest.fixture
def install_kernels(no_gpu_kernel, monkeypatch, tmp_path):
    """Install a package `kernels` that serves our reference, or does what is given; it lists what it was asked for."""
    monkeypatch.delenv("USE_HUB_KERNELS", raising=False)
    for name in ("kernels", "hub_kernel"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    scan_module._fetch_mamba_ssm.cache_clear()

    def install(what_it_does=SERVES):
        (tmp_path / "kernels-0.17.2.dist-info").mkdir()
        (tmp_path / "kernels-0.17.2.dist-info" / "METADATA").write_text("Name: kernels\nVersion: 0.17.2\n")
        (tmp_path / "kernels.py").write_text(KERNELS.format(what_it_does=what_it_does))
        (tmp_path / "hub_kernel.py").write_text(HUB_KERNEL)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    scan_module._fetch_mamba_ssm.cache_clear()
    for name in ("kernels", "hub_kernel"):
        sys.modules.pop(name, None)


def test_a_kernel_of_the_hub_is_fetched_once_it_is_chosen_and_not_before(install_kernels):
    install_kernels()
    assert BACKENDS["kernels"].why_not(torch.device("cuda")) == ""
    assert scan_module.fastest_backend("cuda") == scan_module.fastest_backend("xpu") == ("kernels", "")
    assert "kernels" not in sys.modules
    for device_type in ("cuda", "xpu"):
        for operation in ("selective_scan", "cross_selective_scan"):
            assert scan_module._choose_backend(device_type, operation=operation) == "kernels"
    assert scan_module._choose_backend("cuda", torch.float64) == "torch"
    assert sys.modules["kernels"].asked_for == [("kernels-community/mamba-ssm", 4)]


def test_an_installed_mamba_ssm_comes_before_that_of_the_hub(install_kernels, stand_in_kernel):
    install_kernels()
    assert scan_module._choose_backend("cuda") == "mamba_ssm"
    assert "kernels" not in sys.modules


def test_nothing_is_fetched_without_the_package_that_does_or_against_transformers_switch(install_kernels, monkeypatch):
    def version(name):
        raise scan_module.importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(scan_module.importlib.metadata, "version", version)
        with pytest.raises(
            RuntimeError, match="'kernels' cannot run: .* is missing; install it with: pip install kern"
        ):
            scan_module.find_backend_name("kernels", torch.device("cuda"), torch.float32, "cross_selective_scan")
        assert scan_module._choose_backend("cuda") == scan_module._choose_backend("xpu") == "torch"
    install_kernels()
    monkeypatch.setenv("USE_HUB_KERNELS", "no")
    assert scan_module.fastest_backend("cuda")[0] == scan_module._choose_backend("cuda") == "torch"
    with pytest.raises(RuntimeError, match="'kernels' cannot run: USE_HUB_KERNELS=no forbids kernels from the Hub"):
        scan_module.find_backend_name("kernels", torch.device("xpu"), torch.float32, "cross_selective_scan")
    assert "kernels" not in sys.modules


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("FileNotFoundError('no build variant:\\ntorch213')", "FileNotFoundError: no build variant: torch213"),
        ("ValueError('offline')", "ValueError: offline"),
        ("HTTPError('no route to host')", "no route to host"),
    ],
)
def test_a_kernel_that_is_not_to_be_had_is_one_line_and_the_next_backend(error, words, install_kernels):
    install_kernels(f"raise {error}")
    with CaptureLogger(scan_module.logger) as log:
        assert scan_module._choose_backend("cuda") == scan_module._choose_backend("cuda") == "torch"
    assert log.out.count("\n") == 1 and words in log.out and "without HF_HUB_OFFLINE" in log.out
    assert len(sys.modules["kernels"].asked_for) == 1
    scan_module._fetch_mamba_ssm.cache_clear()
    with pytest.raises(RuntimeError, match=f"'kernels' cannot run: .*{words}; start once with a network"):
        scan_module.find_backend_name("kernels", torch.device("cuda"), torch.float32, "cross_selective_scan")


def test_tensors_of_a_cpu_never_go_to_a_kernel_of_the_hub(install_kernels):
    install_kernels()
    selective_scan(**random_sequences(3))
    for scan, inputs in ((selective_scan, random_sequences(3)), (cross_selective_scan, random_map(2, 3))):
        with pytest.raises(RuntimeError, match="'kernels' cannot run: .* needs CUDA or XPU tensors, these are on cpu"):
            scan(**inputs, backend="kernels")
    assert "kernels" not in sys.modules


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kernel_of_the_hub_is_called_in_float32_and_equals_the_reference(dtype, install_kernels, monkeypatch):
    install_kernels()
    monkeypatch.setitem(BACKENDS, "kernels", replace(BACKENDS["kernels"], why_not=lambda device: ""))
    sequences = random_sequences(9, state_size=2, groups=4, dtype=dtype)
    y = selective_scan(**sequences, delta_softplus=True, backend="kernels")
    assert torch.equal(y, selective_scan(**sequences, delta_softplus=True, backend="reference"))
    map_ = random_map(5, 7, state_size=3, dtype=dtype)
    y = cross_selective_scan(**map_, backend="kernels")
    torch.testing.assert_close(y, cross_selective_scan(**map_, backend="reference"))
    calls = sys.modules["hub_kernel"].calls
    assert len(calls) == 2
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for call in calls for tensor in call)


LOADS_A_LOCAL_REPOSITORY = """
import torch
from remamber_hf import selective_scan as scan

sequences = {"u": torch.randn(1, 4, 5), "delta": torch.rand(1, 4, 5), "A": -torch.rand(4, 2)}
sequences |= {"B": torch.randn(1, 1, 2, 5), "C": torch.randn(1, 1, 2, 5)}
assert scan._choose_backend("cuda") == "kernels", scan.fastest_backend("cuda")
y = scan.BACKENDS["kernels"].selective_scan(**sequences)
torch.testing.assert_close(y, scan.selective_scan(**sequences, backend="reference"))
kernel, _ = scan._fetch_mamba_ssm()
print(kernel.__globals__["__file__"], len(kernel.__globals__["calls"]))
"""


def test_the_package_kernels_serves_a_repository_of_this_machine_to_the_scan(tmp_path):
    pytest.importorskip("kernels", reason="kernels is not installed (pip install kernels)")
    variant = tmp_path / "build" / "torch-cpu"
    variant.mkdir(parents=True)
    (variant / "__init__.py").write_text(HUB_KERNEL)
    metadata = {"id": "_mamba_ssm_of_a_test", "name": "mamba-ssm", "version": 4, "license": "Apache-2.0"}
    metadata |= {"python-depends": [], "backend": {"type": "cpu"}}
    (variant / "metadata.json").write_text(json.dumps(metadata))
    environment = {**os.environ, "LOCAL_KERNELS": f"kernels-community/mamba-ssm={tmp_path}"}
    command = [sys.executable, "-c", LOADS_A_LOCAL_REPOSITORY]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(variant / "__init__.py"), "1"]


@pytest.mark.parametrize("error", [OSError, RuntimeError, AttributeError, ImportError])
def test_a_broken_mamba_ssm_is_a_reason_to_take_another(error, monkeypatch):
    def import_module(name):
        raise error("libcudart.so.11: cannot open shared object file")

    monkeypatch.setattr(scan_module.importlib, "import_module", import_module)
    scan_module._load_mamba_ssm.cache_clear()
    name, reason = scan_module.fastest_backend("cuda")
    scan_module._load_mamba_ssm.cache_clear()
    assert name == "torch" and f"{error.__name__}: libcudart.so.11" in reason
