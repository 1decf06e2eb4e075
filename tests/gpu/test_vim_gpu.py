# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Vim on a GPU: the reference cases, gradients, half precision and the kernels of scan and convolution."""

import sys
from pathlib import Path

import pytest
import torch


sys.path.append(str(Path(__file__).parents[1]))
from test_causal_conv import by_definition, make_inputs
from test_modeling_vim import CLASSIFIERS, golden_vim
from tiny import golden_tensors

from remamber_hf import VimConfig, VimForImageClassification
from remamber_hf.causal_conv import causal_conv1d, why_not_conv
from remamber_hf.selective_scan import BACKENDS


pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")


@pytest.fixture(params=["mamba_ssm", "kernels", "torch"])
def scan_backend(request):
    why_not = BACKENDS[request.param].why_not(torch.device("cuda")) or BACKENDS[request.param].fetch()
    if why_not:
        pytest.skip(f"{request.param}: {why_not}")
    return request.param


@pytest.fixture(params=["causal_conv1d", "torch"])
def conv_backend(request):
    why_not = why_not_conv(request.param, "cuda", torch.float32, 4)
    if why_not:
        pytest.skip(f"{request.param}: {why_not}")
    return request.param


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("length", [1, 3, 197, 730])
@pytest.mark.parametrize("width", [2, 4])
def test_the_convolution_equals_its_definition(length, width, conv_backend):
    inputs = make_inputs(length, channels=64, width=width, dtype=torch.float32)
    found = causal_conv1d(*(tensor.cuda() for tensor in inputs), backend=conv_backend)
    torch.testing.assert_close(found.cpu(), by_definition(*inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_logits_and_gradients_equal_the_published_code(case, scan_backend, conv_backend):
    tensors = golden_tensors(case)
    expected = golden_vim(case, "reference").train()
    expected(tensors["pixel_values"], labels=tensors["labels"]).loss.backward()
    model = golden_vim(case, scan_backend).train().cuda()
    model.set_conv_backend(conv_backend)
    outputs = model(tensors["pixel_values"].cuda(), labels=tensors["labels"].cuda())
    torch.testing.assert_close(outputs.logits.cpu(), tensors["train.logits"], rtol=1e-4, atol=1e-4)
    outputs.loss.backward()
    for (name, parameter), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        difference = (parameter.grad.cpu() - other.grad).norm() / other.grad.norm()
        assert difference < 1e-3, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_steps_in_half_precision_stay_finite(dtype, scan_backend, conv_backend):
    torch.manual_seed(0)
    model = VimForImageClassification(VimConfig(num_hidden_layers=6, num_labels=10)).cuda().train()
    model.set_scan_backend(scan_backend)
    model.set_conv_backend(conv_backend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    pixel_values, labels = torch.randn(16, 3, 224, 224, device="cuda"), torch.arange(16, device="cuda") % 10
    losses = []
    for _ in range(12):
        with torch.autocast("cuda", dtype):
            loss = model(pixel_values, labels=labels).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
