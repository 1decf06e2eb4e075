# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a model costs: its parts add up, and the count is that of any other way to count."""

import functools
import re
import time
from pathlib import Path

import pytest
import torch
from tiny import MASK_HEADS, build, scan_backends, vision_config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from remamber_hf import ReMamberConfig, ReMamberForImageSegmentation, VMambaModel, mask_heads_remamber
from remamber_hf.fusion_remamber import FUSIONS
from remamber_hf.inference.cost import count_forward, count_parts, make_inputs, model_parts, time_picture
from remamber_hf.inference.loading import BUNDLED_MODEL


PARTS = ["text_encoder", "backbone", "fusion", "mask_head"]
META = torch.device("meta")
build_small = functools.partial(build, num_fusion_blocks=1)


def count(function, *args, **kwargs) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*args, **kwargs)
    return counter.get_total_flops()


@pytest.mark.parametrize(("fusion", "mask_head"), [("twister", "conv"), *((fusion, "mamba") for fusion in FUSIONS)])
def test_the_parts_add_up_to_the_whole_and_each_costs_something(fusion, mask_head):
    with META:
        model = build_small(mask_head, fusion=fusion)
    parts = count_parts(model, 64)
    assert list(parts) == [*PARTS, "whole"]
    for what in ("parameters", "flops"):
        numbers = [parts[part][what] for part in PARTS]
        assert min(numbers) > 0 and sum(numbers) == parts["whole"][what]
    assert parts["whole"]["parameters"] == model.num_parameters()


def test_a_part_costs_what_it_costs_alone():
    with META:
        model = build_small("mamba", fusion="norm_adaptation")
    inputs, parts = make_inputs(model.config, 64, META), count_parts(model, 64)
    tokens = torch.empty(1, model.config.text_length, model.config.text_config.hidden_size, device=META)
    maps = tuple(torch.empty(1, 16 // 2**i, 16 // 2**i, 8 * 2**i, device=META) for i in range(4))
    assert parts["backbone"]["flops"] == count(model.remamber.backbone, inputs["pixel_values"])
    assert parts["mask_head"]["flops"] == count(model.mask_head, maps, tokens)
    fusions = [
        count(fusion, each, tokens, tokens[:, 0], inputs["attention_mask"])
        for fusion, each in zip(model.remamber.fusions, maps)
    ]
    assert parts["fusion"]["flops"] == sum(fusions)


@pytest.mark.parametrize("backend", scan_backends("cpu", "torch"))
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_the_count_is_that_of_a_pass_with_arithmetic(mask_head, backend, monkeypatch):
    # On a CPU the Conv head takes a cheaper way, and PyTorch has no formula for its attention but the plain one.
    monkeypatch.setattr(mask_heads_remamber, "is_cheaper_before_resize", lambda *args: False)
    model = build_small(mask_head, fusion="in_context")
    model.set_attn_implementation("eager")
    expected = count_parts(model, 64)["whole"]["flops"]
    model.set_scan_backend(backend)
    inputs = make_inputs(model.config, 64, model.device)
    assert expected == count(model, **inputs) == count_forward(model, inputs)


@pytest.mark.parametrize(("backend", "fusion"), [("reference", "norm_adaptation"), ("mamba_ssm", "in_context")])
def test_a_backend_that_is_not_counted_changes_no_count(backend, fusion):
    model = build_small(fusion=fusion)
    inputs = make_inputs(model.config, 32, model.device)
    expected = count_parts(model, 32), count_forward(model, inputs)
    model.set_scan_backend(backend)
    assert (count_parts(model, 32), count_forward(model, inputs)) == expected


def test_counting_leaves_no_trace():
    model = build_small().train()
    model.remamber.backbone.eval()
    model.set_scan_backend("reference")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    count_parts(model, 32)
    count_forward(model, make_inputs(model.config, 32, model.device))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes and torch.equal(state, torch.get_rng_state())
    scans = [module.scan_backend for module in model.modules() if hasattr(module, "scan_backend")]
    assert set(scans) == {"reference"}


def test_a_wrapped_model_has_the_same_parts_and_another_model_is_refused():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, **inputs):
            return self.inner(**inputs)

    model = build_small()
    assert count_parts(Wrapper(model), 32) == count_parts(model, 32)
    assert model_parts(Wrapper(model)) == model_parts(model)
    with pytest.raises(ValueError, match="The model is a VMambaModel; give a ReMamberForImageSegmentation."):
        count_parts(VMambaModel(vision_config()))


def test_four_times_the_pixels_take_four_times_the_arithmetic_of_the_picture_and_none_more_of_the_text():
    with META:
        model = ReMamberForImageSegmentation(ReMamberConfig.from_pretrained(BUNDLED_MODEL))
    small, large = count_parts(model, 96), count_parts(model, 192)
    for part in ("backbone", "mask_head"):
        assert large[part]["flops"] == 4 * small[part]["flops"]
    assert large["text_encoder"] == small["text_encoder"]


def test_the_page_has_the_figures_of_the_base_model():
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    figures = {name: (float(parameters), float(flops)) for name, parameters, flops in rows}
    for fusion, mask_head in (("twister", "conv"), ("in_context", "mamba")):
        with META:
            parts = count_parts(ReMamberForImageSegmentation(ReMamberConfig(fusion=fusion, mask_head=mask_head)))
        measured = {part: (round(c["parameters"] / 1e6, 2), round(c["flops"] / 1e9, 2)) for part, c in parts.items()}
        assert measured["text_encoder"] == figures["text encoder"] and measured["backbone"] == figures["backbone"]
        assert measured["fusion"] == figures["fusion: " + {"twister": "Twister", "in_context": "in-context"}[fusion]]
        assert measured["mask_head"] == figures[f"{mask_head.title()} head"]


def test_the_time_is_the_median_of_the_passes_after_the_first(monkeypatch):
    ticks = iter([0, 100, 100, 103, 200, 204, 300, 305])  # seconds
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    assert time_picture(build_small(), 32, num_runs=3) == 4000


def test_a_model_of_the_code_in_a_saved_folder_has_the_same_cost(tmp_path):
    model = build_small()
    model.save_pretrained(tmp_path)
    copy_class = get_class_from_dynamic_module("modeling_remamber.ReMamberForImageSegmentation", tmp_path)
    copy = copy_class.from_pretrained(tmp_path)
    assert not isinstance(copy, ReMamberForImageSegmentation)
    assert count_parts(copy, 64) == count_parts(model, 64)


@pytest.mark.parametrize("image_size", [0, -1, 1.5, None])
def test_a_picture_that_there_cannot_be_is_refused(image_size):
    with META, pytest.raises(ValueError, match="image_size is .*; give a number of pixels, at least 1"):
        count_parts(build_small(), image_size)
