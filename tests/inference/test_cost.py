# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a model costs: its parts add up, and the count is that of any other way to count."""

import functools
import re
from pathlib import Path

import pytest
import torch
from tiny import MASK_HEADS, build, scan_backends, vim_config, vision_config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from remamber_hf import (
    ReMamberConfig,
    ReMamberForImageSegmentation,
    VimBackbone,
    VMambaBackbone,
    VMambaModel,
    mask_heads_remamber,
)
from remamber_hf.fusion_remamber import FUSIONS
from remamber_hf.inference.cost import (
    META,
    count_parameters,
    count_parts,
    count_training_step,
    make_inputs,
    model_parts,
)
from remamber_hf.inference.loading import BUNDLED_MODEL


PARTS = ["text_encoder", "backbone", "fusion", "mask_head"]
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
    assert expected == count(model, **make_inputs(model.config, 64, model.device))


@pytest.mark.parametrize(("backend", "fusion"), [("reference", "norm_adaptation"), ("mamba_ssm", "in_context")])
def test_a_backend_that_is_not_counted_changes_no_count(backend, fusion):
    model = build_small(fusion=fusion)
    expected = count_parts(model, 32)
    model.set_scan_backend(backend)
    assert count_parts(model, 32) == expected


def test_counting_leaves_no_trace():
    model = build_small().train()
    model.remamber.backbone.eval()
    model.set_scan_backend("reference")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    counted = set()
    model.mask_head.register_forward_pre_hook(lambda module, args: counted.add(module.training))
    count_parts(model, 32)
    count_training_step(model, make_inputs(model.config, 32, model.device))
    assert counted == {False}  # as a user's forward may want labels in training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes and torch.equal(state, torch.get_rng_state())
    scans = [module.scan_backend for module in model.modules() if hasattr(module, "scan_backend")]
    assert set(scans) == {"reference"}


class Wrapper(nn.Module):
    """A model inside another, which has a layer of its own behind it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.layer = nn.Linear(3, 5)

    def forward(self, **inputs):
        self.layer(torch.zeros(2, 3, device=inputs["pixel_values"].device))
        return self.inner(**inputs)


def test_a_wrapped_model_has_the_same_parts_and_what_is_around_them_is_in_the_whole():
    model = build_small()
    expected, wrapped = count_parts(model, 32), count_parts(Wrapper(model), 32)
    layer = {"parameters": 3 * 5 + 5, "trained": 3 * 5 + 5, "flops": 2 * 2 * 3 * 5, "macs": 2 * 3 * 5}
    whole = expected.pop("whole")
    assert wrapped.pop("whole") == {what: number + layer[what] for what, number in whole.items()}
    assert wrapped == expected
    assert model_parts(Wrapper(model)) == model_parts(model)


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="The model is a VMambaModel; give a ReMamberForImageSegmentation."):
        model_parts(VMambaModel(vision_config()))
    with pytest.raises(ValueError, match="The model is a Linear; give a ReMamber, a VMamba or a Vim."):
        count_parts(nn.Linear(2, 2))


def test_a_backbone_costs_what_it_computes_and_says_what_is_trained():
    with META:
        vmamba = VMambaBackbone(vision_config(out_features=["stage1"]))
        vim = VimBackbone(vim_config(out_features=["stage1"]))
    assert list(count_parts(vmamba, 64)) == ["stem", "stage1", "stage2", "stage3", "stage4", "whole"]
    parts = count_parts(vim, 64)
    assert list(parts) == ["embeddings", "layers", "norm", "whole"]
    layers = parts["layers"]  # of three, the others lead to no map
    assert layers["parameters"] == 3 * layers["trained"] > 0 == parts["norm"]["trained"]
    vim.config.out_features = ["stage3"]
    assert count_parts(vim, 64)["layers"]["flops"] == 3 * layers["flops"] > 0


def test_four_times_the_pixels_take_four_times_the_arithmetic_of_the_picture_and_none_more_of_the_text():
    with META:
        model = ReMamberForImageSegmentation(ReMamberConfig.from_pretrained(BUNDLED_MODEL))
    small, large = count_parts(model, 96), count_parts(model, 192)
    for part in ("backbone", "mask_head"):
        assert large[part]["flops"] == 4 * small[part]["flops"]
    assert large["text_encoder"] == small["text_encoder"]


FUSION_TITLES = {
    "twister": "Twister",
    "in_context": "in-context",
    "cross_attention": "cross-attention",
    "norm_adaptation": "norm adaptation",
}


def test_the_page_has_the_figures_of_the_base_model():
    page = (Path(__file__).parents[2] / "docs" / "profile.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    counted = {}
    for fusion, title in FUSION_TITLES.items():
        mask_head = "conv" if fusion == "twister" else "mamba"
        with META:
            parts = count_parts(ReMamberForImageSegmentation(ReMamberConfig(fusion=fusion, mask_head=mask_head)))
        titles = {"text encoder": "text_encoder", "backbone": "backbone", f"fusion: {title}": "fusion"}
        for name, part in {**titles, f"{mask_head.title()} head": "mask_head"}.items():
            counts = (parts[part][what] / unit for what, unit in (("parameters", 1e6), ("flops", 1e9), ("macs", 1e9)))
            counted[name] = [f"{count:.2f}" for count in counts]
    assert {name: figures for name, *figures in rows} == counted


def test_the_pages_first_table_has_the_figures_of_the_bundled_model():
    page = (Path(__file__).parents[2] / "docs" / "profile.md").read_text(encoding="utf-8")
    with META:
        model = ReMamberForImageSegmentation(ReMamberConfig.from_pretrained(BUNDLED_MODEL))
    for size in ((96, 96), (128, 160)):
        (printed,) = re.findall(rf"│ {size[0]}×{size[1]} +│ +2.11 │ +([\d.]+) │ +([\d.]+) │", page)
        whole = count_parts(model, size)["whole"]
        assert printed == (f"{whole['flops'] / 1e9:#.3g}", f"{whole['macs'] / 1e9:#.3g}")


def test_a_model_of_the_code_in_a_saved_folder_has_the_same_cost(tmp_path):
    model = build_small()
    model.save_pretrained(tmp_path)
    copy_class = get_class_from_dynamic_module("modeling_remamber.ReMamberForImageSegmentation", tmp_path)
    copy = copy_class.from_pretrained(tmp_path)
    assert not isinstance(copy, ReMamberForImageSegmentation)
    assert count_parts(copy, 64) == count_parts(model, 64)


@pytest.mark.parametrize("image_size", [0, -1, 1.5, None, "64", (64,), (64, 0), (64, 64, 3)])
def test_a_picture_that_there_cannot_be_is_refused(image_size):
    with META, pytest.raises(ValueError, match="image_size is .*; give a number of pixels, at least 1, or two"):
        count_parts(build_small(), image_size)


# ----------------------------------------------------------------------------------------------------------- training


PICTURE = ["backbone.stem", "backbone.stages.0.blocks"]  # no text has come in yet


def step(model, size: int = 64) -> int:
    return count_training_step(model, make_inputs(model.config, size, model.device))


def freeze(model, *parts: str) -> None:
    for part in parts:
        model_parts(model)[part].requires_grad_(False)


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_step_that_trains_all_is_three_forward_passes(mask_head):
    model = build_small(mask_head, predicts_presence=True)
    forward = count_parts(model, 64)["whole"]["flops"]
    assert step(model) == 3 * forward
    inputs = make_inputs(model.config, 64, model.device, batch_size=2, num_expressions=3)
    assert count_training_step(model, inputs) == 2 * 3 * count_parts(model, 64, num_expressions=3)["whole"]["flops"]


def test_a_frozen_part_has_no_gradients_of_weights_and_none_at_all_where_nothing_before_it_is_trained():
    model = build_small(predicts_presence=True)
    parts = {part: costs["flops"] for part, costs in count_parts(model, 64).items()}
    with META:  # the first two boxes of the backbone, alone
        backbone = model.remamber.backbone.to(META)
        stem = count(backbone.stem, torch.empty(1, 3, 64, 64))
        start = stem + count(backbone.stages[0].blocks, torch.empty(1, 16, 16, 8))
    whole = parts["whole"]
    freeze(model, "text_encoder")
    assert step(model) == 3 * whole - 2 * parts["text_encoder"]
    freeze(model, "backbone")
    frozen = 3 * whole - 2 * parts["text_encoder"] - parts["backbone"] - start
    assert step(model) == frozen
    freeze(model, "mask_head")
    assert step(model) == frozen - parts["mask_head"]
    freeze(model, "fusion")  # what is left is the presence head
    assert step(model) == whole + 2 * parts["presence_head"]
    model_parts(model)["text_encoder"].requires_grad_(True)
    others = sum(parts[part] for part in ("fusion", "mask_head", "presence_head", "backbone")) - start
    assert step(model) == whole + 2 * parts["text_encoder"] + others + parts["presence_head"]


def test_gradient_checkpointing_changes_no_count():
    model = build_small().train()
    expected = step(model)
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing and step(model) == expected


def test_a_part_with_adapters_has_gradients_of_weights_by_their_share():
    from peft import LoraConfig, get_peft_model

    model = build_small()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    parameters, trained = count_parameters([model_parts(adapted)["text_encoder"]])
    assert 0 < trained < 0.05 * parameters
    parts = {part: costs["flops"] for part, costs in count_parts(adapted, 64).items()}
    start = [adapted.get_submodule(f"base_model.model.remamber.{name}") for name in PICTURE]
    assert count_parameters(start)[1] == 0
    forward_and_inputs = 2 * parts["whole"] + parts["text_encoder"] * trained // parameters
    with META:
        backbone = build_small().remamber.backbone
        first = count(backbone.stem, torch.empty(1, 3, 64, 64))
        first += count(backbone.stages[0].blocks, torch.empty(1, 16, 16, 8))
    assert step(adapted) == forward_and_inputs - first


def test_what_a_user_put_around_the_model_is_trained():
    model = build_small()
    freeze(model, *PARTS)
    inputs = make_inputs(model.config, 64, model.device)
    assert count_training_step(Wrapper(model), inputs) == count_parts(model, 64)["whole"]["flops"] + 3 * 2 * 2 * 3 * 5


def test_quantities_of_a_step_do_not_depend_on_where_the_model_is():
    model = build_small()
    expected = step(model)
    assert step(model.to(META)) == expected
