# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The model as users of torch and transformers take it: compiled, exported, copied, subclassed, put together."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rows import load_model, logits_one_by_one, make_rows, weights_of
from tiny import REMAMBER_FIELDS, TEXT_FIELDS, make_tokenizer, vim_config, vision_config
from torch.export import Dim
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    DetrConfig,
    DetrForObjectDetection,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from remamber_hf import (
    ReMamberForImageSegmentation,
    VimBackbone,
    VMambaBackbone,
    VMambaForImageClassification,
    configuration_remamber,
)


CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def plain(processor):
    """A batch of a picture to each expression."""
    rows = make_rows()
    return processor([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt")


def shared_batch(processor, counts) -> dict[str, torch.Tensor]:
    """A batch of pictures with so many expressions each."""
    texts = ["cat", "dog", "cat dog", "dog cat"]
    pictures = [row["image"] for row in make_rows(len(counts))]
    expressions = [texts[start : start + count] for start, count in enumerate(counts)]
    return dict(processor(pictures, expressions, return_tensors="pt"))


def shared_rows(counts) -> list[dict]:
    texts = ["cat", "dog", "cat dog", "dog cat"]
    rows = make_rows(len(counts))
    return [
        {**rows[picture], "expression": text}
        for picture, count in enumerate(counts)
        for text in texts[picture : picture + count]
    ]


# -------------------------------------------------------------------------------------------------------- one by one


@torch.no_grad()
def test_pictures_that_are_shared_give_the_logits_of_the_loop(model, processor):
    logits = model(**shared_batch(processor, (2, 1, 2))).logits
    torch.testing.assert_close(logits, logits_one_by_one(model, processor, shared_rows((2, 1, 2))), **CLOSE)


@torch.no_grad()
def test_a_tuple_is_loss_and_logits(model, processor, plain):
    expected = logits_one_by_one(model, processor, make_rows())
    torch.testing.assert_close(model(**plain, return_dict=False)[0], expected, **CLOSE)
    labels = torch.zeros(5, 32, 32)
    loss, logits = model(**plain, labels=labels, return_dict=False)[:2]
    torch.testing.assert_close(loss, model(**plain, labels=labels).loss)
    torch.testing.assert_close(logits, expected, **CLOSE)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_gives_the_same_logits_and_is_trained_apart(model, processor, copied):
    twin = copied(model)
    expected = logits_one_by_one(model, processor, make_rows())
    torch.testing.assert_close(logits_one_by_one(twin, processor, make_rows()), expected, **CLOSE)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    torch.testing.assert_close(logits_one_by_one(model, processor, make_rows()), expected, **CLOSE)


WAYS = {
    "half": lambda folder: load_model(folder).half(),
    "bfloat16": lambda folder: load_model(folder).bfloat16(),
    "to": lambda folder: load_model(folder).to(torch.float16),
    "dtype": lambda folder: ReMamberForImageSegmentation.from_pretrained(folder, dtype=torch.bfloat16).eval(),
    "double": lambda folder: load_model(folder).double(),
}


@pytest.mark.parametrize("way", WAYS)
def test_in_other_precision_the_logits_are_close(folder, processor, way):
    expected = logits_one_by_one(load_model(folder), processor, make_rows())
    logits = logits_one_by_one(WAYS[way](folder), processor, make_rows()).float()
    assert (logits - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_missing_expressions_are_refused_in_one_line(model, plain):
    with pytest.raises(ValueError, match="^input_ids are missing, the tokens of an expression; [^\n]*$"):
        model(pixel_values=plain["pixel_values"])


# ---------------------------------------------------------------------------------------------- compiled and exported


@torch.no_grad()
def test_a_compiled_model_gives_the_logits_of_the_loop_and_refuses_a_wrong_index(model, processor, plain):
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**plain).logits, logits_one_by_one(model, processor, make_rows()), **CLOSE)
    for counts in ((2, 1, 2), (1, 2, 1, 1)):
        expected = logits_one_by_one(model, processor, shared_rows(counts))
        torch.testing.assert_close(compiled(**shared_batch(processor, counts)).logits, expected, **CLOSE)
    for wrong in ([0, 1, 2, 3, 2], [0, 0, 1, 1, -1], [0, 0, 0, 1, 1]):
        batch = {**shared_batch(processor, (2, 1, 2)), "image_index": torch.tensor(wrong)}
        with pytest.raises((RuntimeError, ValueError), match="image_index does not fit the pictures: give the pictu"):
            compiled(**batch)


@torch.no_grad()
def test_an_exported_model_takes_other_batches_than_it_was_exported_with(model, processor, plain):
    batch = Dim("batch", min=2, max=64)
    three = {name: tensor[:3] for name, tensor in plain.items()}
    exported = torch.export.export(
        model, (), kwargs=three, dynamic_shapes={name: {0: batch} for name in three}
    ).module()
    expected = logits_one_by_one(model, processor, make_rows())
    torch.testing.assert_close(exported(**plain).logits, expected, **CLOSE)
    two = {name: tensor[:2] for name, tensor in plain.items()}
    torch.testing.assert_close(exported(**two).logits, expected[:2], **CLOSE)


@torch.no_grad()
def test_an_exported_model_takes_other_numbers_of_expressions_and_pictures(model, processor):
    pictures, expressions = Dim("pictures", min=2, max=64), Dim("expressions", min=2, max=64)
    batch = shared_batch(processor, (2, 1, 2))
    shapes = {name: {0: pictures if name == "pixel_values" else expressions} for name in batch}
    exported = torch.export.export(model, (), kwargs=batch, dynamic_shapes=shapes).module()
    for counts in ((2, 1, 2), (2, 2), (1, 2, 2, 1)):
        expected = logits_one_by_one(model, processor, shared_rows(counts))
        torch.testing.assert_close(exported(**shared_batch(processor, counts)).logits, expected, **CLOSE)
    with pytest.raises(RuntimeError, match="image_index does not fit the pictures"):
        exported(**{**batch, "image_index": torch.tensor([0, 0, 1, 1, 1])})


# --------------------------------------------------------------------------------------------------------- subclasses


NOTEBOOK = """
import sys
import torch
from transformers import AutoModelForImageSegmentation, AutoProcessor
from remamber_hf import ReMamberForImageSegmentation, ReMamberProcessor

class Mine(ReMamberForImageSegmentation):
    pass

class MyProcessor(ReMamberProcessor):
    pass

source, target = sys.argv[1:]
model, processor = Mine.from_pretrained(source).eval(), MyProcessor.from_pretrained(source)
model.save_pretrained(target)
processor.save_pretrained(target)
for cls in (Mine, ReMamberForImageSegmentation, AutoModelForImageSegmentation):
    loaded = cls.from_pretrained(target)
    assert isinstance(loaded, ReMamberForImageSegmentation)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
for cls in (MyProcessor, ReMamberProcessor):
    assert cls.from_pretrained(target).text_length == processor.text_length
"""
AUTO_PROCESSOR = """
import sys
from transformers import AutoProcessor
from remamber_hf import ReMamberProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1])
assert isinstance(processor, ReMamberProcessor), type(processor)
"""
MODULE = """
from remamber_hf import ReMamberForImageSegmentation

class Louder(ReMamberForImageSegmentation):
    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = 2 * outputs.logits
        return outputs
"""
REGISTER = """
import sys
from louder import Louder
Louder.register_for_auto_class("AutoModelForImageSegmentation")
source, target = sys.argv[1:]
Louder.from_pretrained(source).save_pretrained(target)
"""
LOAD = """
import sys
import torch
from transformers import AutoModelForImageSegmentation
source, target = sys.argv[1:]
model = AutoModelForImageSegmentation.from_pretrained(target, trust_remote_code=True)
assert type(model).__name__ == "Louder", type(model)
"""


def run_script(code: str, cwd: Path, *arguments):
    script = cwd / "script.py"
    script.write_text(code)
    environment = {**os.environ, "HF_MODULES_CACHE": str(cwd / "modules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def names_of_code(value):
    """What a config names in its auto_map and custom pipelines, also in a config that is nested in it."""
    for key, inner in value.items():
        if key == "auto_map":
            for entry in inner.values():
                yield from [entry] if isinstance(entry, str) else filter(None, entry)
        elif key == "impl":
            yield inner
        elif isinstance(inner, dict):
            yield from names_of_code(inner)


def code_files(folder: Path) -> tuple[set[str], set[str]]:
    """The files of code that the configs of a folder name, and those of them that are not there."""
    names = {name for path in folder.glob("*.json") for name in names_of_code(json.loads(path.read_text()))}
    files = {name.split("--")[-1].split(".")[0] + ".py" for name in names}
    return files, {file for file in files if not (folder / file).is_file()}


@pytest.fixture(scope="module")
def from_notebook(folder, tmp_path_factory):
    """Folder of a model and a processor of classes that were defined where no file is."""
    cwd = tmp_path_factory.mktemp("notebook")
    run_script(NOTEBOOK, cwd, folder, cwd / "saved")
    return cwd / "saved"


def test_subclasses_of_a_notebook_are_loaded_and_name_no_file_that_is_not_there(from_notebook):
    assert code_files(from_notebook)[1] == set()


def test_auto_processor_loads_what_a_subclass_of_a_notebook_saved(from_notebook, tmp_path):
    run_script(AUTO_PROCESSOR, tmp_path, from_notebook)


def test_a_subclass_of_a_module_that_is_registered_is_saved_with_its_code(folder, tmp_path):
    (tmp_path / "louder.py").write_text(MODULE)
    run_script(REGISTER, tmp_path, folder, tmp_path / "saved")
    named, missing = code_files(tmp_path / "saved")
    assert "louder.py" in named and not missing
    (tmp_path / "elsewhere").mkdir()
    run_script(LOAD, tmp_path / "elsewhere", folder, tmp_path / "saved")


def test_what_our_classes_name_is_there(folder):
    named, missing = code_files(folder)
    assert {"modeling_remamber.py", "processing_remamber.py"} <= named and not missing


# ------------------------------------------------------------------------------------------------------- put together


FIELDS = {**REMAMBER_FIELDS, "num_fusion_blocks": 1}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Text encoders and backbones, each as an object and as a folder; and what is neither."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    text_config = {**TEXT_FIELDS, "vocab_size": len(tokenizer)}
    text_config |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 32, "patch_size": 16}
    models = {
        "CLIPModel": CLIPModel(CLIPConfig(text_config=text_config, vision_config=vision, projection_dim=16)),
        "CLIPTextModel": CLIPTextModel(CLIPTextConfig(**text_config)),
        "VMambaForImageClassification": VMambaForImageClassification(vision_config(num_labels=3)),
        "VMambaBackbone": VMambaBackbone(vision_config(out_features=["stage4"])),
    }
    folders = {}
    for name, made in models.items():
        folders[f"{name} folder"] = tmp_path_factory.mktemp(name)
        made.save_pretrained(folders[f"{name} folder"])
        if name.startswith("CLIP"):
            tokenizer.save_pretrained(folders[f"{name} folder"])
    return models | folders


@pytest.mark.parametrize("vision", ["VMambaForImageClassification", "VMambaBackbone"])
@pytest.mark.parametrize("text", ["CLIPModel", "CLIPTextModel"])
@pytest.mark.parametrize("kind", ["", " folder"])
def test_text_and_vision_come_from_whatever_holds_them(sources, text, vision, kind):
    suffix = "_name_or_path" if kind else ""
    given = {f"vision_model{suffix}": sources[vision + kind], f"text_model{suffix}": sources[text + kind]}
    model = ReMamberForImageSegmentation.from_vision_text_pretrained(**given, **FIELDS)
    encoder, backbone = weights_of(model.remamber.text_encoder), weights_of(model.remamber.backbone)
    texts = sources[text].state_dict()
    for name, tensor in encoder.items():
        expected = next(value for key, value in texts.items() if key.removeprefix("text_model.") == name)
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    maps = {key.removeprefix("vmamba."): value for key, value in sources[vision].state_dict().items()}
    for name, tensor in backbone.items():
        torch.testing.assert_close(tensor, maps[name], rtol=0, atol=0)


@pytest.mark.parametrize("place", ["text", "vision"])
def test_a_remamber_is_no_text_encoder_and_no_backbone(sources, folder, place):
    given = {"vision": sources["VMambaBackbone folder"], "text": sources["CLIPTextModel folder"], place: folder}
    with pytest.raises(ValueError, match="is a model of type 'remamber'; give one of type [^\n]*$"):
        ReMamberForImageSegmentation.from_vision_text_pretrained(given["vision"], given["text"], **FIELDS)


@torch.no_grad()
@pytest.mark.parametrize("is_folder", [True, False])
@pytest.mark.parametrize("words", [[], ["zebra", "okapi"]])
def test_with_the_end_token_of_clips_published_config_the_pooled_text_is_the_end_tokens(
    tmp_path, monkeypatch, words, is_folder
):
    tokenizer = make_tokenizer()
    end = tokenizer.eos_token_id
    monkeypatch.setattr(configuration_remamber, "CLIP_VOCABULARY", len(tokenizer))
    clip = CLIPTextModel(CLIPTextConfig(**{**TEXT_FIELDS, "vocab_size": len(tokenizer), "eos_token_id": 2}))
    if words:
        tokenizer.add_tokens(words)
        clip.resize_token_embeddings(len(tokenizer))
    clip.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = {"text_model_name_or_path": tmp_path} if is_folder else {"text_model": clip}
    model = ReMamberForImageSegmentation.from_vision_text_pretrained(
        vision_model=VMambaBackbone(vision_config()), **text, **FIELDS
    )
    ids = tokenizer(["cat zebra dog", "dog"], padding="max_length", max_length=7, truncation=True, return_tensors="pt")
    text = model.remamber.text_encoder.eval()(ids["input_ids"])
    ends = (ids["input_ids"] == end).int().argmax(-1)
    torch.testing.assert_close(text.pooler_output, text.last_hidden_state[torch.arange(2), ends])


def vmamba(num_maps):
    return vision_config(out_features=["stage1", "stage2", "stage3", "stage4"][-num_maps:])


def vim(num_maps):
    return vim_config(num_hidden_layers=4, out_features=["stage1", "stage2", "stage3", "stage4"][-num_maps:])


def upernet(backbone):
    backbone = backbone(4)
    return UperNetForSemanticSegmentation(
        UperNetConfig(backbone_config=backbone, hidden_size=8, pool_scales=[1], use_auxiliary_head=False, num_labels=3)
    )


def detr(backbone):
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 4, "num_labels": 3}
    backbone = backbone(1)
    return DetrForObjectDetection(DetrConfig(backbone_config=backbone, use_timm_backbone=False, **sizes, **heads))


@torch.no_grad()
@pytest.mark.parametrize("make", [upernet, detr])
@pytest.mark.parametrize(("backbone", "kind"), [(vmamba, VMambaBackbone), (vim, VimBackbone)], ids=["vmamba", "vim"])
def test_our_backbone_serves_under_other_heads_which_load_as_they_were_saved(tmp_path, make, backbone, kind):
    torch.manual_seed(0)
    model = make(backbone).eval()
    assert any(isinstance(module, kind) for module in model.modules())
    pictures = torch.randn(3, 3, 64, 64)
    logits = model(pixel_values=pictures).logits
    alone = torch.cat([model(pixel_values=picture[None]).logits for picture in pictures])
    torch.testing.assert_close(logits, alone, **CLOSE)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(weights_of(loaded), weights_of(model), rtol=0, atol=0)
    torch.testing.assert_close(loaded(pixel_values=pictures).logits, logits, **CLOSE)
