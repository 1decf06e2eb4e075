# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Model folders and checkpoints that nobody should trust: refused in one line, and nothing of them is executed."""

import functools
import io
import json
import os
import pickle
import random
import shutil
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from remamber_hf.cli import main as cli
from remamber_hf.convert_checkpoint import convert_checkpoint
from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES, load_model


sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from machinery import attempt, run_command
from tiny import golden_state_dict


SEED = 11
SENTINEL = "executed"  # a file that the code of a folder makes
CODE = f"open({SENTINEL!r}, 'w').write('x')\nraise SystemExit(0)\n"


@pytest.fixture(autouse=True)
def allocator_as_it_is(monkeypatch):
    """The command sets the allocator of its process through ctypes, which the machinery takes for a program."""
    monkeypatch.setattr(cli, "keep_freed_memory", bool)


def copy_model(folder: Path) -> Path:
    """The bundled model in a new folder, whose weights are a link."""
    folder.mkdir()
    for path in BUNDLED_MODEL.iterdir():
        if path.name == "model.safetensors":
            (folder / path.name).symlink_to(path)
        else:
            shutil.copy(path, folder)
    return folder


def change(folder: Path, file: str, *keys: str, **fields):
    """Set fields in a JSON file of the folder, inside of the objects that `keys` name."""
    path = folder / file
    content = json.loads(path.read_text())
    inner = functools.reduce(lambda value, key: value[key], keys, content)
    inner.update(fields)
    path.write_text(json.dumps(content))


def replace_weights(folder: Path, change_weights) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights = change_weights(weights) or weights
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# ------------------------------------------------------------------------------------------------------- bad fields
NAN, INFINITE = float("nan"), float("inf")
BAD_FIELDS = [
    ((), "state_size", [10**9, -1, 0, "x", None, NAN, [1]]),
    ((), "expand", [10**9, -1, NAN, INFINITE, "2"]),
    ((), "time_step_rank", [10**9, 0, "x"]),
    ((), "conv_kernel_size", [10**9 + 1, 2, -1]),
    ((), "time_step_min", [NAN, -1.0, "x"]),
    ((), "time_step_max", [NAN, INFINITE]),
    ((), "layer_norm_eps", [NAN, 0.0, "x"]),
    ((), "initializer_range", [NAN, -1.0, "x"]),
    ((), "mask_head", ["none", 1]),
    ((), "text_length", [10**9, 0, -1, "20", 19]),
    ((), "channel_scan_size", [10**9, 0, 5]),
    ((), "correlation_size", [10**9, 65]),
    ((), "num_fusion_blocks", [10**9, 0]),
    ((), "conv_head_ratio", [10**9, 2]),
    ((), "decoder_depths", [[10**9] * 4, [1], "abcd", None, [1, 1, 1, "x"], 7]),
    ((), "num_labels", [10**8, -1, "x"]),
    ((), "dtype", ["float7", "nn", 5]),
    ((), "output_hidden_states", [NAN, {"a": 1}, "x", ["x"]]),
    (("vision_config",), "output_hidden_states", ["x"]),
    ((), "quantization_config", [{"quant_method": "nothing"}, {"quant_method": "quanto"}]),
    ((), "text_config", [[], 5, "x", {"hidden_size": 10**9}]),
    ((), "vision_config", [[], 5, "x", {"depths": [10**9] * 4}]),
    ((), "model_type", ["bert", "nothing-that-is", 5, "\x1b[2J\u202e", None]),
    (("vision_config",), "depths", [[10**9] * 4, [1, 1, 2], [1] * 10**5, [1, 1, 2, 2], "1121"]),
    (("vision_config",), "hidden_sizes", [[10**9] * 4, [24, 48, 96, 193], [], [NAN] * 4]),
    (("vision_config",), "num_channels", [10**9, 0, 4]),
    (("vision_config",), "num_labels", [10**8]),
    (("vision_config",), "mlp_ratio", [10**9, NAN]),
    (("vision_config",), "drop_path_rate", [NAN, 2.0]),
    (("text_config",), "hidden_act", ["nothing", 5, "os.system", None]),
    (("text_config",), "vocab_size", [10**9, 10**7, 0, -1, "x", 775]),
    (("text_config",), "hidden_size", [10**9, 130, 0]),
    (("text_config",), "num_hidden_layers", [10**9, -1, "2"]),
    (("text_config",), "num_attention_heads", [10**9, 0, 3]),
    (("text_config",), "max_position_embeddings", [10**9, 19]),
    (("text_config",), "intermediate_size", [10**9, NAN]),
    (("text_config",), "eos_token_id", [776, -1, 10**30, None, "x", 700]),
    (("text_config",), "pad_token_id", [776, -5]),
    (("text_config",), "num_labels", [10**8]),
]
CONFIG_CASES = [(keys, name, value) for keys, name, values in BAD_FIELDS for value in values]


@pytest.mark.parametrize(
    ("keys", "name", "value"),
    CONFIG_CASES,
    ids=[f"{'.'.join([*keys, name])}-{index}" for index, (keys, name, value) in enumerate(CONFIG_CASES)],
)
def test_a_bad_field_of_the_configuration_is_refused_in_one_line(tmp_path, keys, name, value):
    folder = copy_model(tmp_path / "model")
    change(folder, "config.json", *keys, **{name: value})
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused(str(folder))


PROCESSOR_CASES = [
    ((), "text_length", 10**9),
    ((), "text_length", 19),
    ((), "text_length", -1),
    ((), "text_length", "20"),
    ((), "text_length", None),
    (("image_processor",), "size", {"height": 10**6, "width": 10**6}),
    (("image_processor",), "size", {"height": -1, "width": 4}),
    (("image_processor",), "size", {"height": "96", "width": 96}),
    (("image_processor",), "size", {"shortest_edge": 10**9}),
    (("image_processor",), "size", [1, 2, 3]),
    (("image_processor",), "crop_size", 10**6),
    (("image_processor",), "crop_size", {"height": NAN, "width": 4}),
    (("image_processor",), "pad_size", {"height": 10**6, "width": 10**6}),
    (("image_processor",), "image_processor_type", "Nothing"),
    (("image_processor",), "image_processor_type", "../../x"),
    ((), "image_processor", []),
    *[(("image_processor",), "rescale_factor", value) for value in ("x", {"a": 1}, NAN, INFINITE, [])],
    *[(("image_processor",), "image_mean", value) for value in ("x", NAN, [0.5, "x", 0.5])],
    *[(("image_processor",), "image_std", value) for value in (0, -1, INFINITE, [1, 1, 0])],
    *[(("image_processor",), name, 5) for name in ("preprocess", "resize", "_preprocess", "fetch_images")],
]


@pytest.mark.parametrize(("keys", "name", "value"), PROCESSOR_CASES)
def test_a_bad_field_of_the_processor_is_refused_in_one_line(tmp_path, keys, name, value):
    folder = copy_model(tmp_path / "model")
    change(folder, "processor_config.json", *keys, **{name: value})
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused(str(folder))


# ------------------------------------------------------------------------------------------------------ broken files
def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def damage(content: bytes) -> bytes:
    generator = random.Random(SEED)
    return bytes(generator.randrange(256) for _ in range(300)) + content[300:]


BREAKAGES = {
    "cut": cut,
    "empty": lambda content: b"",
    "damaged": damage,
    "a list": lambda content: b"[]",
    "null": lambda content: b"null",
    "deep": lambda content: b'{"a":' * 100_000,
    "no text": lambda content: b"\xff\xfe\x00",
}


@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize(
    "name", ["config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, name, breakage):
    folder = copy_model(tmp_path / "model")
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    (folder / name).write_bytes(BREAKAGES[breakage](content))
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused(str(folder))


def huge_header(weights: dict) -> bytes:
    """A safetensors file that names a tensor of 4 TB."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize("length", [0, 2**63, 10**9, 2])
def test_a_header_of_safetensors_that_lies_about_its_length_is_refused(tmp_path, length):
    folder = copy_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}" * 50)
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused()
    (folder / "model.safetensors").write_bytes(huge_header({}))
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused()


@pytest.mark.parametrize(
    ("map_of_files", "words"),
    [
        ({"x": "../../../etc/passwd"}, ()),
        ({"x": "nothing.safetensors"}, ()),
        ({}, ()),
        ([], ()),
        ({"x": 5}, ()),
    ],
)
def test_a_bad_index_of_shards_is_refused(tmp_path, map_of_files, words):
    folder = copy_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 10**15}, "weight_map": map_of_files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused(*words)


WEIGHT_CHANGES = {
    "a tensor of another shape": lambda weights: weights.update(
        {"mask_head.classifier.weight": torch.zeros(1, 7, 1, 1)}
    ),
    "a tensor without dimension": lambda weights: weights.update({"mask_head.classifier.bias": torch.tensor(1.0)}),
    "an empty tensor": lambda weights: weights.update({"mask_head.classifier.bias": torch.zeros(0)}),
    "whole numbers": lambda weights: {name: tensor.to(torch.int32) for name, tensor in weights.items()},
    "complex numbers": lambda weights: {name: tensor.to(torch.complex64) for name, tensor in weights.items()},
    "a missing tensor": lambda weights: weights.pop("mask_head.classifier.bias") and None,
    "another name": lambda weights: {"\x1b[2J\u202e": weights.pop("mask_head.classifier.bias"), **weights},
    "none at all": lambda weights: {"x": torch.zeros(1)},
}


@pytest.mark.parametrize("what", WEIGHT_CHANGES)
def test_weights_that_are_not_the_configurations_are_refused(tmp_path, what):
    folder = copy_model(tmp_path / "model")
    replace_weights(folder, WEIGHT_CHANGES[what])
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused(str(folder))


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tmp_path):
    folder = copy_model(tmp_path / "model")
    change(folder, "config.json", correlation_size=65)
    outcome = attempt(load_model, folder, "cpu")
    outcome.check_refused("has shape", "in model.safetensors, and the configuration needs")


class Executed:
    def __reduce__(self):
        return os.system, (f"touch {SENTINEL}",)


def bomb(compressed: bool) -> bytes:
    """A file of torch.save whose structure is 400 MB of one letter."""
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr(
            "archive/data.pkl", pickle.dumps("x" * (400 * 2**20 if compressed else 70 * 2**20), protocol=2)
        )
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def save_bytes(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


PICKLES = {
    "code": lambda: save_bytes(Executed()),
    "code, plainly pickled": lambda: pickle.dumps(Executed()),
    "a bomb": lambda: bomb(compressed=True),
    "a structure of 70 MB": lambda: bomb(compressed=False),
    "cut": lambda: cut(save_bytes({"x": torch.zeros(100)})),
    "empty": lambda: b"",
    "a list": lambda: save_bytes([1, 2]),
    "text": lambda: b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("what", PICKLES)
def test_a_bad_file_of_torch_save_in_a_folder_is_refused(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    folder = copy_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(PICKLES[what]())
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused(str(folder))
    assert not (tmp_path / SENTINEL).exists()


# -------------------------------------------------------------------------------------------------- code in the folder
OURS = "code.Model"
CODE_CASES = {
    "the configuration": ("config.json", (), {"auto_map": {"AutoConfig": OURS}, "model_type": "mine"}),
    "the model": ("config.json", (), {"auto_map": {"AutoModelForImageSegmentation": OURS, "AutoConfig": OURS}}),
    "the processor": ("processor_config.json", (), {"auto_map": {"AutoProcessor": OURS}, "processor_class": "Mine"}),
    "the image processor": (
        "processor_config.json",
        ("image_processor",),
        {"auto_map": {"AutoImageProcessor": OURS}, "image_processor_type": "Mine"},
    ),
    "the tokenizer": (
        "tokenizer_config.json",
        (),
        {"auto_map": {"AutoTokenizer": [OURS, OURS]}, "tokenizer_class": "Mine"},
    ),
    "the text encoder": ("config.json", ("text_config",), {"auto_map": {"AutoConfig": OURS}, "model_type": "mine"}),
    "the backbone": ("config.json", ("vision_config",), {"auto_map": {"AutoConfig": OURS}, "model_type": "mine"}),
    "another repository": ("config.json", (), {"auto_map": {"AutoConfig": f"a/b--{OURS}"}, "model_type": "mine"}),
    "a pipeline": ("config.json", (), {"custom_pipelines": {"referring-segmentation": {"impl": OURS}}}),
    "generation": ("config.json", (), {"custom_generate": "code.generate"}),
}


def make_folder_with_code(folder: Path, what: str) -> Path:
    copy_model(folder)
    file, keys, fields = CODE_CASES[what]
    change(folder, file, *keys, **fields)
    (folder / "code.py").write_text(CODE)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE)
    (folder / "generation_config.json").write_text('{"custom_generate": "code.generate"}')
    return folder


@pytest.mark.parametrize("what", CODE_CASES)
def test_the_code_of_a_folder_is_never_run_nor_asked_for(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    folder = make_folder_with_code(tmp_path / "model", what)
    outcome = attempt(load_model, folder, "cpu", folder=tmp_path)
    outcome.check_harmless()
    if outcome.status != 0:  # what has a class of this package's to take is loaded by that
        outcome.check_refused(str(folder))
        assert "trust_remote_code" not in outcome.message
    assert not (tmp_path / SENTINEL).exists()
    assert "[y/N]" not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", BUNDLED_PICTURES / "shapes_1.png", "the star", "--model", "{folder}", "--output", "out.png"),
        ("evaluate", "--model", "{folder}", "--data", "{folder}"),
        ("train", "--model", "{folder}", "--data", "{folder}", "--output_dir", "out"),
    ],
    ids=["segment", "evaluate", "train"],
)
def test_no_command_runs_the_code_of_a_folder(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    folder = make_folder_with_code(tmp_path / "model", "the configuration")
    outcome = attempt(run_command, *[str(argument).format(folder=folder) for argument in arguments])
    outcome.check_harmless()
    assert outcome.status == 2
    assert not (tmp_path / SENTINEL).exists() and not (tmp_path / "out").exists()


def test_adapters_in_a_folder_lead_to_no_other_model(tmp_path):
    folder = copy_model(tmp_path / "model")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc", "peft_type": "LORA"}')
    attempt(load_model, folder, "cpu", folder=tmp_path).check_refused("holds adapters")


# ---------------------------------------------------------------------------------------------------------- convert
def change_first(weights: dict, name: str, tensor) -> dict:
    return {**weights, name: tensor}


def quantized(tensor: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch leaves them, and files have them
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


NORM = "backbone.layers.0.blocks.0.norm.weight"
EMBEDDING = "text_encoder.text_model.embeddings.token_embedding.weight"
CHECKPOINTS = {
    "a number as key": lambda weights: {**weights, 5: torch.zeros(1)},
    "a tuple as key": lambda weights: {**weights, ("x",): torch.zeros(1)},
    "no bytes": lambda weights: {},
    "control codes": lambda weights: {"\x1b[2J\u202e": torch.zeros(1)},
    "a long name": lambda weights: {"x" * 10**6: torch.zeros(1)},
    "a nested dict": lambda weights: {"model": {"model": weights}},
    "a list": lambda weights: {"model": [1, 2]},
    "meta": lambda weights: {name: tensor.to("meta") for name, tensor in weights.items()},
    "complex": lambda weights: {name: tensor.to(torch.complex64) for name, tensor in weights.items()},
    "integers": lambda weights: {name: tensor.to(torch.int8) for name, tensor in weights.items()},
    "one complex": lambda weights: {**weights, NORM: weights[NORM].to(torch.complex64)},
    "one of int8": lambda weights: {**weights, NORM: weights[NORM].to(torch.int8)},
    "float8": lambda weights: {name: tensor.to(torch.float8_e4m3fn) for name, tensor in weights.items()},
    "one of float8": lambda weights: {**weights, NORM: weights[NORM].to(torch.float8_e5m2)},
    "names with and without module.": lambda weights: {**weights, f"module.{NORM}": weights[NORM] * 0},
    "one of bool": lambda weights: {**weights, NORM: weights[NORM].bool()},
    "one sparse": lambda weights: {**weights, EMBEDDING: weights[EMBEDDING].to_sparse()},
    "one quantized": lambda weights: {**weights, EMBEDDING: quantized(weights[EMBEDDING])},
    "one NaN": lambda weights: {**weights, NORM: weights[NORM] * NAN},
    "one infinite": lambda weights: {**weights, NORM: weights[NORM] + INFINITE},
    "one wide view": lambda weights: {**weights, EMBEDDING: torch.zeros(1).expand(10**6, 10**6)},
    **{
        f"{name}, {shape}": functools.partial(
            lambda weights, name, shape: {**weights, name: torch.ones(shape)}, name=name, shape=shape
        )
        for name in (
            NORM,
            EMBEDDING,
            "backbone.patch_embed.0.weight",
            "backbone.layers.0.blocks.0.op.A_logs",
            "backbone.layers.0.blocks.0.op.dt_projs_weight",
            "backbone.layers.0.blocks.0.op.conv2d.weight",
            "backbone.layers.0.blocks.0.mlp.fc1.weight",
            "backbone.local_text_fusion.0.unsqueeze.0.weight",
            "backbone.multimodal_blocks.0.blocks.0.self_attention.ss1d.out_proj.weight",
            "decoder.neck.0.weight",
            "text_encoder.text_model.embeddings.position_embedding.weight",
            "text_encoder.text_model.encoder.layers.0.mlp.fc1.weight",
        )
        for shape in ((), (0,), (3,), (1, 1))
    },
    "no first block": lambda weights: {name: tensor for name, tensor in weights.items() if "blocks.0" not in name},
}


@pytest.fixture(scope="module")
def published():
    return golden_state_dict("conv_tiny")


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_convert_refuses_a_bad_checkpoint_in_one_line(tmp_path, published, what):
    torch.save(CHECKPOINTS[what](OrderedDict(published)), tmp_path / "c.pth")
    attempt(convert_checkpoint, tmp_path / "c.pth", tmp_path / "out", folder=tmp_path).check_refused("c.pth")


@pytest.mark.parametrize("what", PICKLES)
def test_convert_refuses_a_bad_file_in_one_line(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pth").write_bytes(PICKLES[what]())
    attempt(run_command, "convert", "c.pth", "out", folder=tmp_path).check_refused("c.pth")
    assert not (tmp_path / SENTINEL).exists()


def test_what_is_not_hostile_loads_and_converts(tmp_path, published):
    assert attempt(load_model, copy_model(tmp_path / "model"), "cpu").status == 0
    torch.save(published, tmp_path / "c.pth")
    assert attempt(convert_checkpoint, tmp_path / "c.pth", tmp_path / "out").status == 0
