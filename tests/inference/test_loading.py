# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A model is loaded ready for inference, or refused with a reason."""

import shutil

import pytest
import torch
from PIL import Image

from remamber_hf.inference import loading
from remamber_hf.inference.devices import find_device
from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES, load_model, load_tokenizer


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_model_comes_ready_for_inference_and_in_the_dtype_asked_for(dtype, expected):
    model, _ = load_model(BUNDLED_MODEL, "cpu", dtype)
    assert model.dtype == expected
    assert model.device.type == "cpu" and not model.training


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_bundled_model_marks_nearly_the_same_in_half_precision(dtype):
    pictures = [Image.open(path).convert("RGB") for path in sorted(BUNDLED_PICTURES.glob("*.png"))]
    masks = []
    for name in ("float32", dtype):
        model, processor = load_model(BUNDLED_MODEL, "cpu", name)
        expressions = [["the star", "the purple star"]] * len(pictures)
        inputs = processor(pictures, expressions, return_tensors="pt").to(dtype=model.dtype)
        with torch.inference_mode():
            masks.append(torch.stack(processor.post_process_referring_segmentation(model(**inputs))))
    exact, half = masks
    assert (exact & half).sum() / (exact | half).sum() > 0.9


def test_a_device_or_dtype_that_is_unknown_or_missing_is_refused():
    with pytest.raises(ValueError, match="'tpu' is unknown; use one of auto, cpu, cuda, mps"):
        find_device("tpu")
    with pytest.raises(ValueError, match="the dtype 'int8' is unknown; use one of auto, float32, bfloat16, float16"):
        load_model(BUNDLED_MODEL, "cpu", "int8")
    for device in ("cpu:0:0", "", "tpu:1", 3.5, torch.device("meta")):
        with pytest.raises(ValueError, match="is unknown; use one of auto, cpu, cuda, mps"):
            find_device(device)
    device = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=f"'{device}' is not available on this machine"):
        find_device(device)


def test_devices_and_types_come_as_names_or_as_pytorchs_own(monkeypatch):
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    assert find_device("auto") == find_device("cuda") == torch.device("cuda")
    model, _ = load_model(BUNDLED_MODEL, torch.device("cpu"), torch.bfloat16)
    assert model.dtype == torch.bfloat16


def test_the_bundled_model_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, _ = load_model("bundled", "cpu")
    assert model.name_or_path == str(BUNDLED_MODEL)
    assert load_tokenizer("bundled").get_vocab() == load_tokenizer(BUNDLED_MODEL).get_vocab()
    (tmp_path / "bundled").mkdir()  # a folder of that name is what the user means
    with pytest.raises(ValueError, match="bundled is no model that can be loaded"):
        load_model("bundled", "cpu")


def test_the_text_encoders_attention_is_the_one_asked_for():
    for name in ("eager", "sdpa"):
        model, _ = load_model(BUNDLED_MODEL, "cpu", attn_implementation=name)
        assert model.remamber.text_encoder.config._attn_implementation == name
    with pytest.raises(ValueError, match="cannot be loaded: .*no_such"):
        load_model(BUNDLED_MODEL, "cpu", attn_implementation="no_such")


def test_everything_is_asked_of_the_revision_and_with_the_token_that_are_given(monkeypatch):
    asked = []

    def watch(owner, name):
        original = getattr(owner, name)

        def call(*arguments, **options):
            asked.append((name, options.get("revision"), options.get("token")))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    watch(loading.PreTrainedConfig, "get_config_dict")
    watch(loading.ReMamberConfig, "from_pretrained")
    watch(loading.ReMamberProcessor, "from_pretrained")
    watch(loading, "load_whole")
    watch(loading, "find_adapter_config_file")
    load_model(BUNDLED_MODEL, "cpu", revision="v1", token="secret")
    assert {name for name, *_ in asked} == {
        "get_config_dict", "from_pretrained", "load_whole", "find_adapter_config_file"
    }  # fmt: skip
    assert all(options == ("v1", "secret") for _, *options in map(tuple, asked) for options in [tuple(options)]), asked


def test_a_folder_that_is_no_remamber_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no model that can be loaded"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a model of type 'bert'; give one of type 'remamber'"):
        load_model(tmp_path)


def test_a_model_that_lacks_weights_is_refused(tmp_path):
    model, processor = load_model(BUNDLED_MODEL, "cpu")
    processor.save_pretrained(tmp_path)
    weights = {name: tensor for name, tensor in model.state_dict().items() if "classifier.bias" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match="cannot be loaded: it lacks the weights of mask_head.classifier.bias"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["openai/clip-vit-large-patch14", "{tmp_path}", "{tmp_path}/nowhere"])
def test_a_tokenizer_whose_files_are_not_there_is_refused(tmp_path, name):
    name = name.format(tmp_path=tmp_path)
    with pytest.raises(ValueError, match=f"the tokenizer '{name}' cannot be loaded: "):
        load_tokenizer(name)
    assert len(load_tokenizer(BUNDLED_MODEL)) > 600


def test_a_model_without_its_tokenizer_is_refused(tmp_path):
    shutil.copytree(BUNDLED_MODEL, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="the tokenizer '.*model' cannot be loaded: its files are neither here"):
        load_model(tmp_path / "model", "cpu")
