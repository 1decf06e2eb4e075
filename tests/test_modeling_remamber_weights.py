# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""ReMamber's weights: initial values, pretrained parts, saving, loading and offloading."""

import pytest
import torch
from tiny import MASK_HEADS, TEXT_FIELDS, build, remamber_config, unlabelled_inputs, vision_config
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from remamber_hf import (
    ReMamberForImageSegmentation,
    ReMamberModel,
    VMambaBackbone,
    VMambaForImageClassification,
    VMambaModel,
)


# ------------------------------------------------------------------------------------------------------ initial values
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_missing_weights_are_initialised_as_in_a_new_model(mask_head):
    config = remamber_config(mask_head, use_conv_bias=True)
    torch.manual_seed(0)
    built = ReMamberForImageSegmentation(config).state_dict()
    torch.manual_seed(1)
    loaded = ReMamberForImageSegmentation.from_pretrained(None, config=config, state_dict={}).state_dict()
    assert built.keys() == loaded.keys()
    for name, value in built.items():
        if torch.equal(value, loaded[name]):
            continue  # constants
        assert value.numel() < 128 or loaded[name].std().item() == pytest.approx(value.std().item(), rel=0.35), name
        assert loaded[name].abs().max() < 3 * value.abs().max(), name


def test_constants_of_a_new_model_are_constant():
    for model in (
        build("mamba"),
        ReMamberForImageSegmentation.from_pretrained(None, config=remamber_config("mamba"), state_dict={}),
    ):
        for name, value in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
            if name.endswith(
                ("norm.weight", "norm2.weight", "running_var", ".D", "fusion.0.1.weight", "neck.1.weight")
            ):
                assert (value == 1).all(), name
            elif name.endswith(("norm.bias", "proj.bias", "running_mean", "num_batches_tracked", "A_log")):
                assert not value.any(), name


def test_the_text_encoder_is_initialised_as_clips():
    fields = {**TEXT_FIELDS, "hidden_size": 64, "intermediate_size": 256}
    torch.manual_seed(0)
    clip = CLIPTextModel(CLIPTextConfig(**fields)).state_dict()
    config = remamber_config(text_config=fields)
    models = (
        ReMamberForImageSegmentation(config),
        ReMamberForImageSegmentation.from_pretrained(None, config=config, state_dict={}),
    )
    for model in models:
        state_dict = model.remamber.text_encoder.state_dict()
        assert state_dict.keys() == clip.keys()
        for name, value in state_dict.items():
            expected = clip[name]
            if expected.std() == 0:
                assert torch.equal(value, expected), name
            else:
                assert value.std().item() == pytest.approx(expected.std().item(), rel=0.1), name


# -------------------------------------------------------------------------------------------------- loading and saving
@pytest.fixture
def text_model():
    torch.manual_seed(1)
    return CLIPTextModel(CLIPTextConfig(**TEXT_FIELDS))


def vision_model(model_class):
    torch.manual_seed(2)
    return model_class(vision_config(num_labels=5, drop_path_rate=0.1))


def same_weights(model, other):
    weights, others = model.state_dict(), other.state_dict()
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("vision_class", [VMambaModel, VMambaBackbone, VMambaForImageClassification])
@pytest.mark.parametrize("as_path", [str, lambda folder: folder], ids=["str", "Path"])
def test_pretrained_text_and_vision_come_from_folders(vision_class, as_path, text_model, tmp_path):
    vision = vision_model(vision_class)
    text_model.save_pretrained(tmp_path / "text")
    vision.save_pretrained(tmp_path / "vision")
    model = ReMamberForImageSegmentation.from_vision_text_pretrained(
        as_path(tmp_path / "vision"), as_path(tmp_path / "text"), mask_head="mamba", text_length=7, correlation_size=16
    )
    assert same_weights(model.remamber.text_encoder, text_model)
    assert same_weights(model.remamber.backbone, getattr(vision, "vmamba", vision))
    assert model.config.mask_head == "mamba" and model.config.correlation_size == 16
    assert model.config.vision_config.drop_path_rate == 0.1
    assert (model.remamber.fusions[0].blocks[0].norm.weight == 1).all()
    with torch.no_grad():
        assert model(**unlabelled_inputs()).logits.isfinite().all()


def test_pretrained_text_may_be_a_whole_clip(tmp_path):
    torch.manual_seed(1)
    vision_fields = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = CLIPModel(CLIPConfig(text_config=TEXT_FIELDS, vision_config=vision_fields))
    clip.save_pretrained(tmp_path)
    model = ReMamberForImageSegmentation.from_vision_text_pretrained(
        text_model_name_or_path=str(tmp_path), vision_model=vision_model(VMambaModel), text_length=7
    )
    assert same_weights(model.remamber.text_encoder, clip.text_model)


def test_a_base_model_comes_from_folders_and_keywords_go_to_the_part_that_they_name(text_model, tmp_path):
    vision = vision_model(VMambaModel)
    text_model.save_pretrained(tmp_path / "text")
    vision.save_pretrained(tmp_path / "vision")
    model = ReMamberModel.from_vision_text_pretrained(
        tmp_path / "vision",
        tmp_path / "text",
        vision_drop_path_rate=0.3,
        text_attention_dropout=0.2,
        text_length=7,
        state_size=2,
    )
    assert same_weights(model.text_encoder, text_model) and same_weights(model.backbone, vision)
    assert model.config.vision_config.drop_path_rate == model.backbone.stages[-1].blocks[-1].drop_path.rate == 0.3
    assert model.config.text_config.attention_dropout == 0.2
    assert model.config.text_length == 7 and model.config.state_size == 2 and vision.config.state_size == 1


def test_parts_that_are_missing_or_given_twice_or_with_keywords_for_another_are_refused(text_model, tmp_path):
    vision = vision_model(VMambaModel)
    build_from = ReMamberForImageSegmentation.from_vision_text_pretrained
    with pytest.raises(ValueError, match="Give one model of type vmamba, by its name or folder or itself"):
        build_from(text_model=text_model)
    with pytest.raises(ValueError, match="Give one model of type vmamba"):
        build_from(tmp_path, vision_model=vision, text_model=text_model)
    with pytest.raises(ValueError, match="Give one model of type clip_text_model or clip"):
        build_from(vision_model=vision)
    with pytest.raises(ValueError, match="'drop_path_rate' is for a VMambaModel that is loaded by its name"):
        build_from(vision_model=vision, text_model=text_model, vision_drop_path_rate=0.3)


def test_pretrained_models_are_copied_and_left_as_they_were(text_model):
    vision = vision_model(VMambaModel)
    fields = vision.config.to_dict()
    model = ReMamberForImageSegmentation.from_vision_text_pretrained(
        vision_model=vision, text_model=text_model, text_length=7
    )
    assert vision.config.to_dict() == fields
    model.remamber.backbone.stem.conv1.weight.data.zero_()
    assert vision.stem.conv1.weight.any()


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_saved_model_loads_with_the_same_weights_and_outputs(mask_head, tmp_path):
    model, inputs = build(mask_head), unlabelled_inputs()
    model.save_pretrained(tmp_path)
    loaded, info = ReMamberForImageSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert same_weights(loaded, model)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    base = ReMamberModel.from_pretrained(tmp_path)
    assert same_weights(base, model.remamber)


@pytest.mark.parametrize("mask_head", MASK_HEADS)
@pytest.mark.parametrize(
    "device_map",
    ["auto", {"": "cpu"}, {"remamber": "disk", "mask_head": "cpu"}, {"remamber": "cpu", "mask_head": "disk"}],
    ids=["auto", "cpu", "body on disk", "head on disk"],
)
def test_weights_may_be_spread_and_offloaded(mask_head, device_map, tmp_path):
    model, inputs = build(mask_head), unlabelled_inputs()
    model.save_pretrained(tmp_path)
    loaded = ReMamberForImageSegmentation.from_pretrained(
        tmp_path, device_map=device_map, offload_folder=tmp_path / "offload"
    )
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(("name", "value"), [("mask_haed", "mamba"), ("dtype", torch.float16)])
def test_a_field_that_a_new_model_cannot_have_is_refused(name, value):
    with pytest.raises(ValueError, match=f"'{name}' is no field of ReMamberConfig"):
        ReMamberForImageSegmentation.from_vision_text_pretrained("nowhere", "nowhere", **{name: value})
