# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's FlopCounterMode counts the scans' arithmetic: the same on every device, by every backend that says so."""

import importlib.util

import pytest
import torch
from test_selective_scan import random_map, random_sequences
from tiny import scan_backends
from torch.library import CustomOpDef
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from remamber_hf import VimConfig, VMambaConfig, cpu_scan, torch_scan, triton_scan
from remamber_hf.modeling_vim import VimMixer
from remamber_hf.modeling_vmamba import SS2D
from remamber_hf.selective_scan import BACKENDS, cross_selective_scan, selective_scan


RUNS_HERE = [name for name, backend in BACKENDS.items() if not backend.why_not(torch.device("cpu"))]
COUNTED = ("auto", "cpu", "triton", "torch")  # which run an operator of ours
PLACES = [("cpu", name) for name in RUNS_HERE] + [("meta", "auto")]

# Of the sequences and the map below. A step of a channel takes 9 for each state and 2 for the skip; in a map also 2·R.
SEQUENCES = {"length": 5, "state_size": 3, "batch": 2, "channels": 8}
SEQUENCES_FLOPS = 2 * 8 * 5 * (9 * 3 + 2)  # 2,320
MAP = {"height": 2, "width": 3, "state_size": 2, "num_directions": 4, "batch": 2, "channels": 8, "rank": 3}
MAP_FLOPS = 2 * 2 * 3 * 4 * 8 * (2 * 3 + 9 * 2 + 2)  # 9,984
PROJECTIONS_FLOPS = 2 * 2 * 2 * 3 * 4 * (3 + 2 * 2) * 8  # 5,376, a matrix product before the scan


def count(function, *args, **kwargs) -> int:
    with FlopCounterMode(display=False) as counter:
        function(*args, **kwargs)
    return counter.get_total_flops()


def on(device: str, inputs: dict) -> dict:
    return {name: tensor.to(device).requires_grad_() for name, tensor in inputs.items()}


@pytest.mark.parametrize(("device", "backend"), PLACES)
def test_a_scan_of_sequences_is_counted_and_its_backward_pass_is_twice_as_much(device, backend):
    inputs = on(device, random_sequences(**SEQUENCES))
    is_counted = backend in COUNTED
    assert count(selective_scan, **inputs, backend=backend) == is_counted * SEQUENCES_FLOPS
    loss = selective_scan(**inputs, backend=backend).sum()
    if is_counted:
        assert count(loss.backward) == 2 * SEQUENCES_FLOPS


@pytest.mark.parametrize(("device", "backend"), PLACES)
def test_a_scan_of_a_map_is_counted_and_its_backward_pass_is_twice_as_much(device, backend):
    inputs = on(device, random_map(**MAP))
    if backend in COUNTED:
        assert count(cross_selective_scan, **inputs, backend=backend) == MAP_FLOPS + PROJECTIONS_FLOPS
        loss = cross_selective_scan(**inputs, backend=backend).sum()
        assert count(loss.backward) == 2 * (MAP_FLOPS + PROJECTIONS_FLOPS)
    else:
        time_steps = 2 * 2 * 2 * 3 * 4 * 8 * 3  # a matrix product too
        assert count(cross_selective_scan, **inputs, backend=backend) == time_steps + PROJECTIONS_FLOPS


@pytest.mark.parametrize("module", [torch_scan, cpu_scan, triton_scan], ids=lambda module: module.__name__)
def test_every_operator_has_its_formula_also_where_it_cannot_run(module):
    sequences = on("meta", random_sequences(**SEQUENCES))
    x, x_proj_weight, dt_proj_weight, bias, A, D = on("meta", random_map(**MAP)).values()
    projections = torch.empty(2, 2, 3, 4, x_proj_weight.shape[1], device="meta")
    states = torch.empty(7, 7, device="meta")
    operators = {name: value for name, value in vars(module).items() if isinstance(value, CustomOpDef)}
    assert len(operators) == (2 if module is triton_scan else 4)
    for name, operator in operators.items():
        if "cross" in name:
            tensors, expected = [x, projections, dt_proj_weight, bias, A, D], MAP_FLOPS
            options = [[0, 1, 2, 3]]
        else:
            tensors, expected, options = list(sequences.values()), SEQUENCES_FLOPS, [True]
        if "backward" in name:
            tensors, expected = [tensors[0], *tensors, states], 2 * expected
        elif module is triton_scan:
            options.append(True)
        formula = flop_registry[operator._opoverload.overloadpacket]
        assert formula(*tensors, *options, out_val=None) == expected, name


def test_a_second_copy_of_the_code_is_counted_like_the_first():
    spec = importlib.util.spec_from_file_location("remamber_hf.torch_scan", torch_scan.__file__)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    assert copy._selective_scan_op._qualname != torch_scan._selective_scan_op._qualname
    assert count(copy.selective_scan_torch, **random_sequences(**SEQUENCES)) == SEQUENCES_FLOPS


@pytest.mark.parametrize(("device", "backend"), [place for place in PLACES if place[1] != "reference"])
def test_an_ss2d_counts_what_is_written_in_the_paper(device, backend):
    torch.manual_seed(0)
    module = SS2D(VMambaConfig(expand=2, state_size=1), hidden_size=8).to(device)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    module.scan_backend = backend
    layers = {
        "in_proj": 2 * 6 * 8 * 16,
        "conv": 2 * 6 * 16 * 9,
        "x_proj": 2 * 6 * 4 * 3 * 16,
        "scan": 6 * 4 * 16 * (2 * 1 + 9 * 1 + 2),
        "out_proj": 2 * 6 * 16 * 8,
    }
    assert sum(layers.values()) == 12_096
    assert count(module, torch.zeros(1, 2, 3, 8, device=device)) == 12_096


@pytest.mark.parametrize("backend", scan_backends("cpu", "torch"))
def test_a_mixer_of_vim_counts_what_is_written_in_the_paper(backend):
    torch.manual_seed(0)
    module = VimMixer(VimConfig(hidden_size=8, state_size=3, conv_kernel_size=4))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    module.scan_backend = backend
    steps = 6 + 3 * (backend == "torch")  # PyTorch's convolution computes steps that are cut off
    layers = {
        "in_proj": 2 * 6 * 8 * 32,
        "conv": 2 * steps * 2 * 16 * 4,
        "x_proj": 2 * 6 * 2 * 16 * (1 + 2 * 3),
        "scan": 6 * 2 * 16 * (2 * 1 + 9 * 3 + 2),
        "out_proj": 2 * 6 * 16 * 8,
    }
    assert count(module, torch.zeros(1, 6, 8)) == sum(layers.values())
