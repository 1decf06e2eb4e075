# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Conversion of published checkpoints: numbers, any size, what is beside the weights, files that are none."""

import argparse
import json
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from published_checkpoint import remamber_shapes, vmamba_shapes
from tiny import (
    SEGMENTATION_CASES,
    golden_fill,
    golden_inputs,
    golden_state_dict,
    golden_tensors,
    make_tokenizer,
)
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForImageSegmentation,
    AutoProcessor,
)

from remamber_hf import VMambaModel
from remamber_hf import convert_checkpoint as convert_checkpoint_module
from remamber_hf.convert_checkpoint import convert_checkpoint, convert_name, convert_state_dict, load_checkpoint


TINY_CASES = (*SEGMENTATION_CASES, "vmamba_tiny")
# Small enough that a whole conversion takes a moment.
SMALL_SIZES = {
    "hidden_sizes": (4, 8, 16, 32),
    "depths": (1, 1, 1, 1),
    "text": {"size": 64, "vocabulary": 520, "positions": 24, "intermediate": 64},
    "text_length": 8,
    "correlation_size": 16,
    "fusion": {"channel_scan_size": 4, "num_blocks": 1},
}


def filled(shapes):
    return {name: torch.from_numpy(np.asarray(golden_fill.fill(name, shape))) for name, shape in shapes.items()}


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def small_state_dict():
    return filled(remamber_shapes(**SMALL_SIZES))


def write(checkpoint, folder, **options):
    path = folder / "model.pth"
    torch.save(checkpoint, path, **options)
    return path


def entries(folder):
    """What is in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------- numbers of the conversion
@pytest.mark.parametrize("case", TINY_CASES)
def test_a_converted_folder_gives_the_published_logits(case, tmp_path):
    path = write({"model": golden_state_dict(case), "epoch": 49}, tmp_path)
    model = convert_checkpoint(path, tmp_path / "converted")
    auto_class = AutoModelForImageClassification if case == "vmamba_tiny" else AutoModelForImageSegmentation
    loaded, info = auto_class.from_pretrained(tmp_path / "converted", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for converted in (loaded, model.eval()):
        with torch.no_grad():
            logits = converted(**golden_inputs(case)).logits
        torch.testing.assert_close(logits, golden_tensors(case)["logits"], rtol=1e-5, atol=1e-5)
    assert entries(tmp_path) == ["converted", "model.pth"]
    written = entries(tmp_path / "converted")
    assert "model.safetensors" in written and not any(name.endswith((".bin", ".pth")) for name in written)


def test_a_converted_classifier_loads_as_a_backbone(tmp_path):
    path = write({"model": golden_state_dict("vmamba_tiny")}, tmp_path)
    convert_checkpoint(path, tmp_path / "converted")
    model, info = VMambaModel.from_pretrained(tmp_path / "converted", output_loading_info=True)
    assert not info["missing_keys"]
    with torch.no_grad():
        outputs = model(**golden_inputs("vmamba_tiny"))
    expected = golden_tensors("vmamba_tiny")["stage4"]
    torch.testing.assert_close(outputs.last_hidden_state, expected, rtol=1e-5, atol=2e-5)


def test_no_two_tensors_get_the_same_name():
    for case in ("conv_base", "mamba_base", "vmamba_tiny"):
        names = golden_fill.manifest(case)["tensors"]
        assert len({convert_name(name) for name in names}) == len(names)


# ----------------------------------------------------------------------------------------------------------- any size
@pytest.mark.parametrize("case", ["conv_tiny", "mamba_tiny", "vmamba_tiny", "conv_base", "mamba_base"])
def test_the_shapes_that_these_tests_make_are_the_published_ones(case):
    if case == "vmamba_tiny":
        shapes = vmamba_shapes(expand=1.0)
    elif case.endswith("base"):
        shapes = remamber_shapes(
            case.removesuffix("_base"),
            hidden_sizes=(128, 256, 512, 1024),
            depths=(2, 2, 15, 2),
            text={"vocabulary": 49408, "layers": 12, "intermediate": 3072},
        )
    else:
        shapes = remamber_shapes(case.removesuffix("_tiny"))
    assert shapes == golden_fill.manifest(case)["tensors"]


@pytest.mark.parametrize(
    ("sizes", "fields"),
    [
        ({}, {"mask_head": "conv", "conv_head_ratio": 4, "state_size": 1, "expand": 2.0, "time_step_rank": None}),
        ({"mask_head": "mamba"}, {"mask_head": "mamba", "decoder_depths": [2, 4, 2, 2]}),
        (
            {"mask_head": "mamba", "head": {"depths": (1, 2, 3, 1)}},
            {"mask_head": "mamba", "decoder_depths": [1, 2, 3, 1]},
        ),
        ({"head": {"ratio": 2}}, {"conv_head_ratio": 2}),
        (
            {"hidden_sizes": (24, 40, 64, 96), "depths": (2, 1, 11, 3)},
            {"vision_config.hidden_sizes": [24, 40, 64, 96], "vision_config.depths": [2, 1, 11, 3]},
        ),
        ({"text": {"layers": 3, "size": 512}}, {"text_config.num_hidden_layers": 3, "text_config.hidden_size": 512}),
        ({"text": {"size": 512}}, {"text_config.num_attention_heads": 8, "text_config.projection_dim": 512}),
        (
            {"text": {"vocabulary": 600, "intermediate": 99, "positions": 33}},
            {
                "text_config.vocab_size": 600,
                "text_config.eos_token_id": 599,
                "text_config.pad_token_id": 599,
                "text_config.intermediate_size": 99,
                "text_config.max_position_embeddings": 33,
            },
        ),
        ({"correlation_size": 64, "text_length": 17}, {"correlation_size": 64, "text_length": 17}),
        ({"fusion": {"num_blocks": 1}}, {"num_fusion_blocks": 1}),
        ({"fusion": {"channel_scan_size": 8}}, {"channel_scan_size": 8}),
        ({"state_size": 2}, {"state_size": 2, "vision_config.state_size": 2}),
        ({"vision_state_size": 2}, {"state_size": 1, "vision_config.state_size": 2}),
        ({"vision_expand": 1.0}, {"expand": 2.0, "vision_config.expand": 1.0}),
        ({"conv_bias": True}, {"use_conv_bias": True, "vision_config.use_conv_bias": True}),
        ({"mlp_ratio": 2}, {"vision_config.mlp_ratio": 2.0}),
        ({"num_channels": 4}, {"vision_config.num_channels": 4}),
    ],
    ids=str,
)
def test_sizes_of_remamber_are_read_from_the_shapes(sizes, fields):
    config, _ = convert_state_dict(on_meta(remamber_shapes(**sizes)))
    for field, value in fields.items():
        found = config
        for name in field.split("."):
            found = getattr(found, name)
        assert found == value, field


@pytest.mark.parametrize(
    ("sizes", "fields"),
    [
        ({"expand": 1.0, "num_classes": 21}, {"expand": 1.0, "num_labels": 21, "state_size": 1}),
        (
            {"hidden_sizes": (96, 192, 384, 768), "depths": (2, 2, 8, 2), "num_classes": 1000},
            {"hidden_sizes": [96, 192, 384, 768], "depths": [2, 2, 8, 2], "expand": 2.0, "num_labels": 1000},
        ),
        ({"state_size": 16, "conv_bias": True}, {"state_size": 16, "use_conv_bias": True, "time_step_rank": None}),
        ({"hidden_sizes": (8, 16), "depths": (1, 2)}, {"hidden_sizes": [8, 16], "depths": [1, 2]}),
    ],
    ids=str,
)
def test_sizes_of_vmamba_are_read_from_the_shapes(sizes, fields):
    config, _ = convert_state_dict(on_meta(vmamba_shapes(**sizes)))
    assert {name: getattr(config, name) for name in fields} == fields


# ---------------------------------------------------------------------------------------------- beside the weights
@pytest.fixture
def forgotten_config():
    """An object of a dict subclass whose module is gone when the file is read, as a config of yacs would be."""
    module = ModuleType("forgotten_module")
    module.Node = type("Node", (dict,), {"__module__": "forgotten_module"})
    sys.modules["forgotten_module"] = module
    node = module.Node(MODEL=module.Node(NAME="vssm", DEPTHS=[2, 2, 15, 2]), TAG=None)
    node.is_frozen = True
    yield node
    sys.modules.pop("forgotten_module", None)


def test_objects_beside_the_weights_are_read_as_inert_data(forgotten_config, small_state_dict, tmp_path):
    checkpoint = {
        "model": small_state_dict,
        "args": argparse.Namespace(lr=5e-5, output_dir=Path("runs"), betas=(0.9, 0.999), resume=None, tags={"a", "b"}),
        "config": forgotten_config,
        "best": np.float64(0.74),
        "history": np.arange(3),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]},
        "scaler": {"scale": 65536.0},
        "epoch": 49,
    }
    path = write(checkpoint, tmp_path)
    del sys.modules["forgotten_module"]
    state_dict = load_checkpoint(path)
    assert "forgotten_module" not in sys.modules
    assert state_dict.keys() == small_state_dict.keys()
    assert all(torch.equal(tensor, small_state_dict[name]) for name, tensor in state_dict.items())


class Malicious:
    """When unpickled in the usual way, runs a function that leaves a file."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("function", [os.system, eval])
def test_a_malicious_file_runs_nothing(function, is_zip, is_alone, small_state_dict, tmp_path):
    marker = tmp_path / "was_run"
    code = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w').close()"
    payload = Malicious(function, code)
    checkpoint = payload if is_alone else {"model": small_state_dict, "args": payload}
    path = write(checkpoint, tmp_path, _use_new_zipfile_serialization=is_zip)
    if function is eval and is_zip and not is_alone:
        load_checkpoint(path)  # the call is data like any other
    else:
        with pytest.raises(ValueError, match=r"model\.pth") as error:
            convert_checkpoint(path, tmp_path / "converted")
        assert "\n" not in str(error.value) and "weights_only" not in str(error.value)
        assert entries(tmp_path) == ["model.pth"]
    assert not marker.exists()


def test_what_a_file_was_refused_for_is_named(tmp_path):
    path = write({"args": Malicious(os.system, "true")}, tmp_path)
    with pytest.raises(ValueError, match=r"holds unsafe objects \(it names (posix|nt)\.system\)\.$"):
        load_checkpoint(path)


def test_a_bare_state_dict_and_one_under_model_are_the_same(small_state_dict, tmp_path):
    for checkpoint in (small_state_dict, OrderedDict(small_state_dict), {"model": small_state_dict}):
        assert load_checkpoint(write(checkpoint, tmp_path)).keys() == small_state_dict.keys()


def test_averaged_weights_are_taken_when_asked_for(small_state_dict, tmp_path):
    name = "decoder.neck.8.bias"
    averaged = {**small_state_dict, name: small_state_dict[name] + 1}
    path = write({"model": small_state_dict, "model_ema": averaged}, tmp_path)
    model = convert_checkpoint(path, tmp_path / "model")
    ema = convert_checkpoint(path, tmp_path / "ema", use_ema=True)
    torch.testing.assert_close(ema.mask_head.classifier.bias, model.mask_head.classifier.bias + 1)


def test_averaged_weights_that_are_not_there_are_not_replaced(small_state_dict, tmp_path):
    for checkpoint in ({"model": small_state_dict}, [small_state_dict]):
        path = write(checkpoint, tmp_path)
        with pytest.raises(ValueError, match=r"model\.pth holds no averaged weights \(model_ema\); .* without --ema"):
            load_checkpoint(path, use_ema=True)


def test_the_prefix_of_distributed_training_and_old_position_ids_are_dropped(small_state_dict):
    wrapped = {f"module.{name}": tensor for name, tensor in small_state_dict.items()}
    wrapped["module.text_encoder.text_model.embeddings.position_ids"] = torch.arange(24)[None]
    config, converted = convert_state_dict(wrapped)
    expected_config, expected = convert_state_dict(small_state_dict)
    assert config.to_dict() == expected_config.to_dict()
    assert converted.keys() == expected.keys()


# ------------------------------------------------------------------------------------------------- files that are none
def assert_refused(path, message, folder):
    """One line that names the file, and nothing left in the folder but what was there."""
    before = entries(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        convert_checkpoint(path, folder / "deeper" / "converted")
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert entries(folder) == before


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files_are_refused(share, is_zip, small_state_dict, tmp_path):
    path = write({"model": small_state_dict}, tmp_path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path, "is no readable checkpoint: it is of another kind, truncated or", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"These are not the weights.\n" * 50,
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<html>",
        b"\x80\x02",
        b"PK",
    ],
    ids=["text", "LFS pointer", "HTML", "start of a pickle", "start of a zip"],
)
def test_files_of_another_kind_are_refused(content, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    assert_refused(path, "is no readable checkpoint: it is of another kind, truncated or", tmp_path)


def test_plain_pickles_with_objects_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(argparse.Namespace(lr=1), protocol=protocol))
        assert_refused(path, "is no readable checkpoint", tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    assert_refused(tmp_path / "nothing.pth", "is no file; give the .pth file of a published checkpoint", tmp_path)
    (tmp_path / "folder.pth").mkdir()
    assert_refused(tmp_path / "folder.pth", "is no file", tmp_path)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"model": {"fc.weight": torch.ones(2, 2)}}, r"no tensors of ReMamber_Conv, .*\(the first are: fc.weight\)"),
        ({"model": {}}, r"no tensors of ReMamber_Conv, .*\(the first are: none\)"),
        ({"model": [1, 2]}, "holds no state dict, neither at its top nor under 'model'"),
        ({"epoch": 3}, "holds no state dict"),
        ([torch.ones(2)], "holds no state dict"),
        (torch.ones(2), "holds no state dict"),
    ],
)
def test_checkpoints_of_another_model_are_refused(checkpoint, message, tmp_path):
    assert_refused(write(checkpoint, tmp_path), message, tmp_path)


def test_missing_unknown_and_misshapen_tensors_are_named(small_state_dict, tmp_path):
    name = "decoder.neck.0.weight"
    changes = {
        "the tensor 'backbone.layers.0.blocks.0.norm.weight' is missing": {
            "backbone.layers.0.blocks.0.norm.weight": None
        },
        "tensors are missing: mask_head.neck.0.0.bias; unknown: none": {"decoder.neck.0.bias": None},
        "missing: none; unknown: decoder.extra.weight": {"decoder.extra.weight": torch.ones(2)},
        r"unknown: \S+, \S+, \S+, \S+ and 2 more": {f"extra{i}": torch.ones(1) for i in range(6)},
        r"mask_head.neck.0.0.weight has shape \(16, 21, 3, 3\), the model .* needs \(16, 20, 3, 3\)": {
            name: torch.ones(16, 21, 3, 3)
        },
        r"remamber.backbone.stem.norm1.weight has shape \(3\,\), .* needs \(2,\)": {
            "backbone.patch_embed.2.weight": torch.ones(3)
        },
    }
    for message, change in changes.items():
        changed = {key: tensor for key, tensor in {**small_state_dict, **change}.items() if tensor is not None}
        assert_refused(write({"model": changed}, tmp_path), message, tmp_path)


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (-1.0, "negative values")]
)
def test_values_that_no_training_leaves_are_refused(value, message):
    with pytest.raises(ValueError, match=f"norm.running_var has .*{message}"):
        convert_checkpoint_module.check_tensors({"norm.running_var": torch.tensor([1.0, value])})


# ---------------------------------------------------------------------------------------------------------- the folder
def test_a_folder_with_something_in_it_is_left_alone(small_state_dict, tmp_path):
    path = write({"model": small_state_dict}, tmp_path)
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    for output_dir in (full, full / "notes.txt"):
        with pytest.raises(FileExistsError, match="exists and is not an empty folder"):
            convert_checkpoint(path, output_dir)
    assert entries(full) == ["notes.txt"] and (full / "notes.txt").read_text() == "mine"


def test_folders_are_made_and_empty_ones_taken(small_state_dict, tmp_path):
    path = write({"model": small_state_dict}, tmp_path)
    (tmp_path / "empty").mkdir()
    for output_dir in (tmp_path / "empty", tmp_path / "new" / "deeper"):
        convert_checkpoint(path, output_dir)
        assert json.loads((output_dir / "config.json").read_text())["model_type"] == "remamber"
    assert entries(tmp_path) == ["empty", "model.pth", "new"] and entries(tmp_path / "new") == ["deeper"]


def test_nothing_is_left_when_saving_fails(small_state_dict, tmp_path, monkeypatch):
    path = write({"model": small_state_dict}, tmp_path)

    def fail(self, folder):
        (folder / "half").write_text("")
        raise OSError("the disk is full")

    monkeypatch.setattr("remamber_hf.convert_checkpoint.ReMamberImageProcessorPil.save_pretrained", fail)
    with pytest.raises(OSError, match="the disk is full"):
        convert_checkpoint(path, tmp_path / "converted")
    assert entries(tmp_path) == ["model.pth"]


def test_the_processor_is_in_the_folder_where_there_is_a_tokenizer(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    sizes = {**SMALL_SIZES, "text": {**SMALL_SIZES["text"], "vocabulary": len(tokenizer)}}
    path = write({"model": filled(remamber_shapes("mamba", **sizes))}, tmp_path)
    convert_checkpoint(path, tmp_path / "converted", tokenizer=str(tmp_path / "tokenizer"))
    processor = AutoProcessor.from_pretrained(tmp_path / "converted")
    model = AutoModelForImageSegmentation.from_pretrained(tmp_path / "converted")
    inputs = processor(np.zeros((20, 30, 3), dtype=np.uint8), "the cat", return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 8)
    with torch.no_grad():
        assert model(**inputs).logits.shape == (1, 1, 480, 480)


@pytest.mark.parametrize("clip_vocabulary", [convert_checkpoint_module.CLIP_VOCABULARY, 520])
def test_the_image_processor_is_in_the_folder_without_a_tokenizer(
    small_state_dict, tmp_path, monkeypatch, clip_vocabulary
):
    # With CLIP's own vocabulary its tokenizer is asked for, and cannot be had without the Hub.
    monkeypatch.setattr(convert_checkpoint_module, "CLIP_VOCABULARY", clip_vocabulary)
    convert_checkpoint(write({"model": small_state_dict}, tmp_path), tmp_path / "converted")
    assert not (tmp_path / "converted" / "tokenizer.json").exists()
    image_processor = AutoImageProcessor.from_pretrained(tmp_path / "converted")
    assert image_processor.size["height"] == 480


def test_a_tokenizer_that_does_not_fit_or_load_is_refused(small_state_dict, tmp_path):
    path = write({"model": small_state_dict}, tmp_path)
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer' has 518 tokens, the checkpoint 520"):
        convert_checkpoint(path, tmp_path / "converted", tokenizer=str(tmp_path / "tokenizer"))
    with pytest.raises(ValueError, match="the tokenizer '.*nowhere' cannot be loaded: "):
        convert_checkpoint(path, tmp_path / "converted", tokenizer=str(tmp_path / "nowhere"))
    assert entries(tmp_path) == ["model.pth", "tokenizer"]


def test_weights_of_8_bits_and_broken_safetensors_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(3).to(torch.float8_e4m3fn)}, path)
    assert_refused(path, "a is of torch.float8_e4m3fn, torch.strided; weights are dense", tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes((10**9).to_bytes(8, "little") + b"{}")
    assert_refused(path, "is no readable checkpoint", tmp_path)
