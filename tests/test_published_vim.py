# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Conversion of published Vim checkpoints: the five sizes, what is beside the weights, what is refused."""

import argparse
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CLASS_TOKENS, golden_fill, golden_state_dict, golden_tensors, vim_config
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
from typer.testing import CliRunner
from vim_reference import published_state_dict

from remamber_hf import VimBackbone, VimConfig, VimForImageClassification
from remamber_hf.cli.main import app
from remamber_hf.convert_checkpoint import convert_checkpoint, convert_state_dict
from remamber_hf.published_vim import find_grid


# Of the five published models: channels, rank of the time step, positions.
PUBLISHED = {
    "tiny": (192, 12, 197),
    "tiny+": (192, 12, 730),
    "small": (384, 24, 197),
    "small+": (384, 24, 730),
    "base": (768, 48, 197),
}


def published_shapes(size, rank, positions):
    """Names and shapes of a published checkpoint, from the table of its description."""
    inner = 2 * size
    shapes = {
        "cls_token": (1, 1, size),
        "pos_embed": (1, positions, size),
        "patch_embed.proj.weight": (size, 3, 16, 16),
        "patch_embed.proj.bias": (size,),
        "head.weight": (1000, size),
        "head.bias": (1000,),
        "norm_f.weight": (size,),
    }
    mixer = {
        "A_log": (inner, 16),
        "D": (inner,),
        "A_b_log": (inner, 16),
        "D_b": (inner,),
        "in_proj.weight": (2 * inner, size),
        "out_proj.weight": (size, inner),
    }
    for way in ("", "_b"):
        mixer |= {
            f"conv1d{way}.weight": (inner, 1, 4),
            f"conv1d{way}.bias": (inner,),
            f"x_proj{way}.weight": (rank + 32, inner),
            f"dt_proj{way}.weight": (inner, rank),
            f"dt_proj{way}.bias": (inner,),
        }
    for layer in range(24):
        shapes |= {f"layers.{layer}.mixer.{name}": shape for name, shape in mixer.items()}
        shapes[f"layers.{layer}.norm.weight"] = (size,)
    return shapes


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_five_published_models_are_recognised_from_their_tensors(name):
    size, rank, positions = PUBLISHED[name]
    shapes = published_shapes(size, rank, positions)
    assert len(shapes) == 415
    tensors = {tensor: torch.empty(shape, device="meta") for tensor, shape in shapes.items()}
    config, converted = convert_state_dict(tensors)
    expected = VimConfig(hidden_size=size, stride=8 if name.endswith("+") else None, num_labels=1000)
    differing = {key for key, value in expected.to_dict().items() if config.to_dict()[key] != value}
    assert differing == {"architectures"} and config.architectures == ["VimForImageClassification"]
    assert sum(map(torch.numel, converted.values())) == sum(map(torch.numel, tensors.values()))


@pytest.mark.parametrize("case", ["vim_tiny_like", "vim_stride8"])
@pytest.mark.parametrize("layout", ["model", "plain", "module"])
def test_a_converted_folder_gives_the_published_logits(case, layout, tmp_path):
    tensors = golden_state_dict(case)
    checkpoint = {"model": {"model": tensors}, "plain": tensors}.get(layout)
    if layout == "module":
        checkpoint = {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}}
    torch.save(checkpoint, tmp_path / "vim.pth")
    size = golden_fill.manifest(case)["image_size"]
    convert_checkpoint(tmp_path / "vim.pth", tmp_path / "vim", image_size=size)
    loaded, info = AutoModelForImageClassification.from_pretrained(tmp_path / "vim", output_loading_info=True)
    assert type(loaded) is VimForImageClassification and not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        logits = loaded(golden_tensors(case)["pixel_values"]).logits
    torch.testing.assert_close(logits, golden_tensors(case)["logits"], rtol=1e-5, atol=1e-5)


def test_what_a_published_file_has_beside_the_weights_is_left_out(tmp_path):
    tensors = golden_state_dict("vim_tiny_like")
    averaged = {name: tensor + 1 for name, tensor in tensors.items()}
    beside = {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "lr_scheduler": {"t": 3}, "scaler": {}}
    checkpoint = {"model": tensors, "model_ema": averaged, **beside, "epoch": 299, "args": argparse.Namespace(lr=5e-4)}
    torch.save(checkpoint, tmp_path / "vim.pth")
    model = convert_checkpoint(tmp_path / "vim.pth", tmp_path / "vim")
    torch.testing.assert_close(model.classifier.bias, tensors["head.bias"])
    model = convert_checkpoint(tmp_path / "vim.pth", tmp_path / "ema", use_ema=True)
    torch.testing.assert_close(model.classifier.bias, averaged["head.bias"])


def test_a_checkpoint_without_classifier_becomes_a_backbone(tmp_path, caplog):
    torch.save({"model": golden_state_dict("vim_seg")}, tmp_path / "vim.pth")
    model = convert_checkpoint(tmp_path / "vim.pth", tmp_path / "vim")
    assert type(model) is VimBackbone and model.config.class_token == "none"
    assert any("The tensors fpn* are left out" in record.message for record in caplog.records)
    indices = [block + 1 for block in golden_fill.manifest("vim_seg")["out_indices"]]
    loaded = VimBackbone.from_pretrained(tmp_path / "vim", out_indices=indices)
    tensors = golden_tensors("vim_seg")
    with torch.no_grad():
        maps = loaded(tensors["pixel_values"]).feature_maps
    torch.testing.assert_close(maps[1], tensors["features.residual.1"], rtol=1e-5, atol=1e-5)


def test_buffers_of_rope_are_dropped_with_a_word(caplog):
    tensors = golden_state_dict("vim_tiny_like")
    expected = convert_state_dict(tensors)[1]
    caplog.clear()
    rope = {"rope.freqs_cos": torch.ones(16, 48), "rope.freqs_sin": torch.ones(16, 48)}
    converted = convert_state_dict(tensors | rope)[1]
    assert converted.keys() == expected.keys()
    assert [record.message for record in caplog.records if "rope" in record.message] == [
        "The tensors rope.* are left out: no published model uses them, and one that was trained with if_rope=True "
        "computes something else."
    ]


def test_that_the_mean_is_classified_without_a_class_token_is_told(caplog):
    for class_token in ("none", "middle"):
        caplog.clear()
        config = vim_config(class_token=class_token, num_labels=5)
        convert_state_dict(published_state_dict(config), config.image_size)
        assert any("the mean of all patches is classified" in line for line in caplog.messages) == (
            class_token == "none"
        )


@pytest.mark.parametrize("class_token", CLASS_TOKENS)
def test_the_class_token_is_read_from_the_tensors_or_given(class_token):
    config = vim_config(class_token=class_token, num_labels=5)
    tensors = published_state_dict(config)
    converted, _ = convert_state_dict(tensors, config.image_size)
    assert converted.class_token == ("middle" if class_token == "first" else class_token)
    converted, _ = convert_state_dict(tensors, config.image_size, class_token=class_token)
    assert converted.class_token == class_token
    wrong = "none" if class_token != "none" else "both"
    with pytest.raises(ValueError, match=rf"class_token is '{wrong}'; the tensors are of a Vim with "):
        convert_state_dict(tensors, config.image_size, class_token=wrong)


# ------------------------------------------------------------------------------------------------------------ the grid
@pytest.mark.parametrize(
    ("positions", "patch_size", "image_size", "expected"),
    [
        (196, 16, None, (224, 16)),
        (729, 16, None, (224, 8)),
        (1024, 16, None, (512, 16)),
        (16, 16, None, (64, 16)),
        (196, 4, None, (56, 4)),
        (196, 16, 224, (224, 16)),
        (729, 16, 224, (224, 8)),
        (77, 16, (64, 96), ([64, 96], 8)),
        (24, 16, [64, 96], ([64, 96], 16)),
        (196, 16, (224, 224), (224, 16)),
        (49, 16, 64, (64, 8)),
        (169, 16, 64, (64, 4)),
    ],
)
def test_size_and_stride_follow_from_the_positions(positions, patch_size, image_size, expected):
    assert find_grid(positions, patch_size, image_size) == expected


@pytest.mark.parametrize(
    ("positions", "image_size", "message"),
    [
        (77, None, "pos_embed has 77 positions, which are no square; give image_size"),
        (77, (64, 64), "pos_embed has 77 positions, and pictures of 64×64 pixels make as many patches of 16 with no"),
        (196, 8, "image_size is 8; give a side, or height and width, in pixels, of at least a patch, 16"),
        (196, (224, 224, 3), r"image_size is \(224, 224, 3\)"),
        (196, "224", "image_size is '224'"),
    ],
)
def test_positions_that_fit_no_grid_are_refused(positions, image_size, message):
    with pytest.raises(ValueError, match=message):
        find_grid(positions, 16, image_size)


def test_a_size_that_was_guessed_is_told(caplog):
    find_grid(196, 16)
    assert not caplog.records
    find_grid(1024, 16)
    assert "taken for pictures of 512 pixels" in caplog.records[0].message


# ------------------------------------------------------------------------------------------------------------ refusals
def without(pattern):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not re.search(pattern, name)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without(r"(conv1d|x_proj|dt_proj|\.D)_b"),
            "this is a Vim of bimamba_type 'v1'; only 'v2', which all published models are",
        ),
        (
            without(r"_b(_log|\.|$)"),
            r"this is a Vim of bimamba_type 'none' \(one direction, or layers in pairs\); only",
        ),
        (lambda tensors: tensors | {"layers.0.mixer.gamma": torch.ones(48)}, "this is a Vim with init_layer_scale"),
        (lambda tensors: tensors | {"layers.0.norm.bias": torch.ones(48)}, "this is a Vim with rms_norm=False"),
        (
            lambda tensors: tensors | {"vim.norm.weight": torch.ones(48)},
            "the tensor 'vim.norm.weight' has no pub",
        ),
        (
            lambda tensors: tensors | {"layers.1.mixer.D_b": torch.ones(5)},
            r"layers.1.mixer.D has shape \(96,\), mixer",
        ),
        (lambda tensors: tensors | {"layers.1.mixer.dt_proj_b.bias": torch.ones(())}, "they must have the same"),
        (lambda tensors: tensors | {"patch_embed.proj.weight": torch.ones(48, 3, 16)}, "it must have 4 axes"),
        (lambda tensors: tensors | {"layers.0.mixer.A_log": torch.ones(96)}, "it must have 2 axes"),
        (
            lambda tensors: tensors | {"cls_token": torch.ones(2)},
            "the shapes of the tensors are of no model that there is",
        ),
        (without("pos_embed"), r"this is a Vim without pos_embed \(if_abs_pos_embed=False\)"),
        (without("layers.2.mixer.D_b"), "the tensor 'layers.2.mixer.D_b' is missing"),
        (without("norm_f"), "the tensor 'norm_f.weight' is missing"),
        (without("head.bias"), "tensors are missing: classifier.bias"),
        (lambda tensors: tensors | {"layers.0.mixer.extra": torch.ones(2)}, "unknown: layers.0.mixer.extra"),
        (lambda tensors: tensors | {"layers.1.mixer.D": torch.ones(5)}, "layers.1.mixer.D has shape"),
        (lambda tensors: tensors | {"head.weight": torch.ones(10, 7)}, "classifier.weight has shape"),
    ],
)
def test_another_variant_is_refused_in_one_line(change, message, tmp_path):
    torch.save({"model": change(golden_state_dict("vim_tiny_like"))}, tmp_path / "vim.pth")
    with pytest.raises(ValueError, match=message) as caught:
        convert_checkpoint(tmp_path / "vim.pth", tmp_path / "vim")
    assert "\n" not in str(caught.value) and not (tmp_path / "vim").exists()


def test_size_and_place_are_for_a_vim_alone():
    for given in ({"image_size": 224}, {"class_token": "first"}):
        with pytest.raises(ValueError, match="image_size and class_token are for a Vim"):
            convert_state_dict(golden_state_dict("vmamba_tiny"), **given)


# ------------------------------------------------------------------------------------------- the folder and its use
def test_the_command_converts_what_the_function_does(tmp_path):
    torch.save({"model": golden_state_dict("vim_stride8")}, tmp_path / "vim.pth")
    arguments = ["convert", str(tmp_path / "vim.pth"), str(tmp_path / "vim")]
    result = CliRunner().invoke(app, [*arguments, "--image_size", "64x96"])
    assert result.exit_code == 0 and "VimForImageClassification, 0.1 M parameters" in result.output
    assert AutoConfig.from_pretrained(tmp_path / "vim").image_size == [64, 96]
    assert AutoModel.from_pretrained(tmp_path / "vim").config.stride == 8


def test_pictures_are_prepared_as_vim_was_evaluated(tmp_path):
    torch.save({"model": golden_state_dict("vim_tiny_like")}, tmp_path / "vim.pth")
    convert_checkpoint(tmp_path / "vim.pth", tmp_path / "vim")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "vim", use_fast=False)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 161, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    found = processor(picture, return_tensors="pt")["pixel_values"][0]
    resized = picture.resize((int(73 * 161 / 100), 73), Image.Resampling.BICUBIC)  # 64 / 0.875
    left, top = (resized.width - 64) // 2, (73 - 64) // 2
    cut = np.asarray(resized.crop((left, top, left + 64, top + 64)), dtype=np.float32) / 255
    expected = (cut - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    torch.testing.assert_close(found, torch.from_numpy(expected).permute(2, 0, 1).float(), rtol=1e-4, atol=1e-4)


def test_pictures_of_another_shape_than_a_square_are_resized_whole(tmp_path):
    torch.save({"model": golden_state_dict("vim_stride8")}, tmp_path / "vim.pth")
    convert_checkpoint(tmp_path / "vim.pth", tmp_path / "vim", image_size=(64, 96))
    processor = AutoImageProcessor.from_pretrained(tmp_path / "vim", use_fast=False)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 161, 3), dtype=np.uint8))
    found = processor(picture, return_tensors="pt")["pixel_values"][0]
    resized = np.asarray(picture.resize((96, 64), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    expected = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    torch.testing.assert_close(found, torch.from_numpy(expected).permute(2, 0, 1).float(), rtol=1e-4, atol=1e-4)


def test_the_folder_serves_a_pipeline(tmp_path):
    torch.save({"model": golden_state_dict("vim_tiny_like")}, tmp_path / "vim.pth")
    convert_checkpoint(tmp_path / "vim.pth", tmp_path / "vim")
    classify = pipeline("image-classification", model=str(tmp_path / "vim"))
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8))
    assert len(classify(grey, top_k=3)) == 3
