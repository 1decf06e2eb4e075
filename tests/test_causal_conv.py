# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The causal convolution: every backend against its definition, and which one is chosen."""

import subprocess
import sys

import pytest
import torch

from remamber_hf import causal_conv
from remamber_hf.causal_conv import CONV_BACKENDS, causal_conv1d


def make_inputs(length=9, channels=6, width=4, has_bias=True, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, channels, length), (channels, width), (channels,)]
    x, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes)
    return x, weight, bias if has_bias else None


def by_definition(x, weight, bias):
    width = weight.shape[1]
    y = torch.zeros_like(x)
    for t in range(x.shape[-1]):
        for back in range(min(width, t + 1)):
            y[..., t] += weight[:, width - 1 - back] * x[..., t - back]
    y = y if bias is None else y + bias[:, None]
    return y * torch.sigmoid(y)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("length", "width"), [(9, 4), (1, 4), (3, 4), (9, 1), (9, 2), (4, 7)])
def test_each_step_sees_itself_and_what_was_before(length, width, has_bias):
    inputs = make_inputs(length, width=width, has_bias=has_bias)
    torch.testing.assert_close(causal_conv1d(*inputs), by_definition(*inputs))


def test_gradients_are_those_of_the_definition():
    x, weight, bias = (tensor.requires_grad_() for tensor in make_inputs())
    found = torch.autograd.grad(causal_conv1d(x, weight, bias).square().sum(), (x, weight, bias))
    assert torch.autograd.gradcheck(causal_conv1d, (x, weight, bias))
    # By differences, of the definition: one value of each.
    for gradient, tensor in zip(found, (x, weight, bias), strict=True):
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                tensor.view(-1)[0] += sign * 1e-6
                values.append(by_definition(x, weight, bias).square().sum())
                tensor.view(-1)[0] -= sign * 1e-6
        assert gradient.view(-1)[0].item() == pytest.approx(((values[0] - values[1]) / 2e-6).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_it_comes_back_in_the_type_of_its_input_whatever_the_weights_are(dtype):
    x, weight, bias = make_inputs(dtype=torch.float32)
    y = causal_conv1d(x.to(dtype), weight, bias)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), by_definition(x.to(dtype).float(), weight, bias), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(6, 9)}, r"x has shape \(6, 9\), weight has \(6, 4\); they must be"),
        ({"weight": torch.zeros(5, 4)}, r"weight has \(5, 4\)"),
        ({"weight": torch.zeros(6, 1, 4)}, r"weight has \(6, 1, 4\)"),
        ({"bias": torch.zeros(1)}, r"bias has shape \(1,\); it must be \(channels\) = \(6,\)"),
        (
            {"backend": "cudnn"},
            r"convolution backend 'cudnn' is unknown; use 'auto' or one of \['causal_conv1d', 'torch'\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    x, weight, bias = make_inputs()
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**{"x": x, "weight": weight, "bias": bias, **change})


# ------------------------------------------------------------------------------------------------------------ dispatch
@pytest.fixture(autouse=True)
def forget_what_was_found():
    causal_conv.load_causal_conv1d.cache_clear()
    yield
    causal_conv.load_causal_conv1d.cache_clear()


def test_the_cuda_kernel_named_on_a_cpu_says_why_it_cannot_run():
    with pytest.raises(
        RuntimeError, match="^convolution backend 'causal_conv1d' cannot run: .* these are on cpu; use 'auto'"
    ):
        causal_conv1d(*make_inputs(), backend="causal_conv1d")


def install_stand_in(folder, monkeypatch, extension="", package=""):
    (folder / "causal_conv1d_cuda.py").write_text(extension)
    (folder / "causal_conv1d.py").write_text(package)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("causal_conv1d_cuda", "causal_conv1d"):
        monkeypatch.delitem(sys.modules, name, raising=False)


STAND_IN = """
import torch
def causal_conv1d_fn(x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False,
                     final_states_out=None, activation=None):
    assert activation == "silu" and x.is_contiguous() and weight.dim() == 2 and weight.dtype == x.dtype
    calls.append(x.shape)
    padded = torch.nn.functional.pad(x, (weight.shape[1] - 1, 0))
    y = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=x.shape[1])
    return torch.nn.functional.silu(y)
calls = []
"""


def test_on_cuda_the_kernel_is_chosen_where_it_is_installed_and_called_as_it_wants(tmp_path, monkeypatch):
    install_stand_in(tmp_path, monkeypatch, package=STAND_IN)
    assert causal_conv.choose_conv_backend("cuda", torch.float32, 4) == "causal_conv1d"
    assert causal_conv.choose_conv_backend("cpu", torch.float32, 4) == "torch"
    x, weight, bias = make_inputs(dtype=torch.float32)
    found = CONV_BACKENDS["causal_conv1d"].convolve(x.mT.contiguous().mT, weight, bias)
    torch.testing.assert_close(found, by_definition(x, weight, bias))
    assert sys.modules["causal_conv1d"].calls == [x.shape]


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 4), (torch.float32, 1), (torch.bfloat16, 5)])
def test_what_the_kernel_cannot_do_goes_to_pytorch(dtype, width, tmp_path, monkeypatch):
    install_stand_in(tmp_path, monkeypatch, package=STAND_IN)
    assert causal_conv.choose_conv_backend("cuda", dtype, width) == "torch"
    assert "is for widths (2, 3, 4)" in causal_conv.why_not_conv("causal_conv1d", "cuda", dtype, width)


@pytest.mark.parametrize(
    "broken", ["raise ImportError('undefined symbol')", "raise OSError('no libcudart')", "None.x"]
)
def test_a_broken_installation_counts_as_none_and_is_told_once(broken, tmp_path, monkeypatch, caplog):
    install_stand_in(tmp_path, monkeypatch, extension=broken, package=STAND_IN)
    causal_conv.logger.warning_once.cache_clear()
    for _ in range(2):
        assert causal_conv.choose_conv_backend("cuda", torch.float32, 4) == "torch"
    lines = [record.message for record in caplog.records if "causal convolution" in record.message]
    assert len(lines) == 1 and "pip install" in lines[0] and "\n" not in lines[0]


def test_importing_it_imports_no_kernel():
    code = "import sys, remamber_hf.modeling_vim; print([n for n in sys.modules if n.startswith('causal_conv1d')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_model_runs_the_backend_it_is_told():
    from remamber_hf import VimConfig, VimModel

    model = VimModel(VimConfig(hidden_size=16, num_hidden_layers=2, image_size=32))
    model.set_conv_backend("causal_conv1d")
    with pytest.raises(RuntimeError, match="convolution backend 'causal_conv1d' cannot run"):
        model(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="convolution backend 'fast' is unknown"):
        model.set_conv_backend("fast")
