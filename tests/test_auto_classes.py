# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Auto classes: with the package, and from a saved folder in a process that does not have it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import (
    MASK_HEADS,
    TEXT_FIELDS,
    make_tokenizer,
    remamber_config,
    run_without_package,
    segmentation_inputs,
    vim_config,
    vision_config,
)
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageSegmentation,
    AutoProcessor,
)

from remamber_hf import (
    ReMamberConfig,
    ReMamberForImageSegmentation,
    ReMamberImageProcessorPil,
    ReMamberModel,
    ReMamberProcessor,
    VimBackbone,
    VimForImageClassification,
    VimModel,
    VimPreTrainedModel,
    VMambaBackbone,
    VMambaConfig,
    VMambaForImageClassification,
    VMambaModel,
)


ROOT = Path(__file__).parents[1]
CODE_OF_SCAN = {
    "oldest_transformers.py",
    "configuration_scan.py",
    "modeling_scan.py",
    "files.py",
    "weight_files.py",
    "selective_scan.py",
    "torch_scan.py",
    "cpu_scan.py",
    "triton_scan.py",
    "triton_kernels.py",
}
CODE_OF_VMAMBA = {"configuration_remamber.py", "modeling_vmamba.py"} | CODE_OF_SCAN
CODE_OF_VIM = CODE_OF_SCAN | {
    "configuration_vim.py",
    "modeling_vim.py",
    "bidirectional_scan.py",
    "causal_conv.py",
    "cpu_conv.py",
}
CODE_OF_PIPELINE = {
    "messages.py",
    "pictures.py",
    "image_processing_remamber.py",
    "post_processing_remamber.py",
    "processing_remamber.py",
    "pipeline_remamber.py",
}
CODE_OF_FUSION = {
    "fusion_remamber.py",
    "mask_heads_remamber.py",
    "presence_head_remamber.py",
    "losses_remamber.py",
}
CODE_OF_REMAMBER = (
    {"oldest_transformers.py"}
    | CODE_OF_VMAMBA
    | CODE_OF_PIPELINE
    | CODE_OF_FUSION
    | {"modeling_remamber.py", "saved_code.py"}
)


def build(model_class, **fields):
    """A model whose scan is the same where the package, and with it the C++ kernel, is missing."""
    torch.manual_seed(0)
    if issubclass(model_class, (ReMamberModel, ReMamberForImageSegmentation)):
        model = model_class(remamber_config(**fields)).eval()
    elif issubclass(model_class, VimPreTrainedModel):
        model = model_class(vim_config(num_labels=5, out_features=["stage1", "stage3"], **fields)).eval()
    else:
        model = model_class(vision_config(num_labels=5, out_features=["stage2", "stage4"], **fields)).eval()
    model.set_scan_backend("torch")
    return model


def make_inputs():
    inputs = segmentation_inputs(2, 50, 70)
    del inputs["labels"]
    return inputs


# ---------------------------------------------------------------------------------------------------- with the package
@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [
        (AutoModel, VMambaModel),
        (AutoModel, ReMamberModel),
        (AutoBackbone, VMambaBackbone),
        (AutoModelForImageClassification, VMambaForImageClassification),
        (AutoModel, VimModel),
        (AutoBackbone, VimBackbone),
        (AutoModelForImageClassification, VimForImageClassification),
        (AutoModelForImageSegmentation, ReMamberForImageSegmentation),
    ],
)
def test_auto_classes_build_and_load_our_classes(auto_class, model_class, tmp_path):
    model = build(model_class)
    assert type(auto_class.from_config(model.config)) is model_class
    model.save_pretrained(tmp_path)
    if auto_class is not AutoBackbone:  # which takes a local folder for a name on the Hub
        assert type(auto_class.from_pretrained(tmp_path)) is model_class
    assert type(AutoConfig.from_pretrained(tmp_path)) is model_class.config_class


def test_auto_processor_loads_ours(tmp_path):
    ReMamberProcessor(ReMamberImageProcessorPil(), make_tokenizer()).save_pretrained(tmp_path)
    build(ReMamberForImageSegmentation).config.save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is ReMamberProcessor


@pytest.mark.parametrize("config", [VMambaConfig, ReMamberConfig])
def test_auto_image_processor_knows_the_config(config, tmp_path):
    ReMamberImageProcessorPil(size={"height": 32, "width": 48}).save_pretrained(tmp_path)
    config().save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path, use_fast=False).size["width"] == 48


# ------------------------------------------------------------------------------------------------------ what is saved
def code_files(folder):
    return {path.name for path in folder.iterdir() if path.suffix == ".py"}


@pytest.mark.parametrize("model_class", [VMambaModel, VMambaBackbone, VMambaForImageClassification])
def test_vmamba_is_saved_with_its_code_and_every_auto_class(model_class, tmp_path):
    build(model_class).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert code_files(tmp_path) == CODE_OF_VMAMBA
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_remamber.VMambaConfig",
        "AutoModel": "modeling_vmamba.VMambaModel",
        "AutoBackbone": "modeling_vmamba.VMambaBackbone",
        "AutoModelForImageClassification": "modeling_vmamba.VMambaForImageClassification",
    }


@pytest.mark.parametrize("model_class", [VimModel, VimBackbone, VimForImageClassification])
def test_vim_is_saved_with_its_code_and_every_auto_class(model_class, tmp_path):
    build(model_class).save_pretrained(tmp_path)
    assert code_files(tmp_path) == CODE_OF_VIM
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_vim.VimConfig",
        "AutoModel": "modeling_vim.VimModel",
        "AutoBackbone": "modeling_vim.VimBackbone",
        "AutoModelForImageClassification": "modeling_vim.VimForImageClassification",
    }


@pytest.mark.parametrize("model_class", [ReMamberModel, ReMamberForImageSegmentation])
def test_remamber_is_saved_with_its_code_and_every_auto_class(model_class, tmp_path):
    build(model_class).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert code_files(tmp_path) == CODE_OF_REMAMBER
    has_pipeline = model_class is ReMamberForImageSegmentation
    assert ("custom_pipelines" in json.loads((tmp_path / "config.json").read_text())) == has_pipeline
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_remamber.ReMamberConfig",
        "AutoModel": "modeling_remamber.ReMamberModel",
        "AutoModelForImageSegmentation": "modeling_remamber.ReMamberForImageSegmentation",
    }


# ------------------------------------------------------------------------------------------------- without the package
LOAD_REMAMBER = """
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageSegmentation

for folder in ("conv", "mamba", "conv_again", "mamba_again"):
    data = torch.load(folder.split("_")[0] + ".pt")
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert type(config).__module__.startswith("transformers_modules."), type(config)
    model, info = AutoModelForImageSegmentation.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True
    )
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    with torch.no_grad():
        assert torch.equal(model(**data["inputs"]).logits, data["logits"])

    base = AutoModel.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        outputs = base(**data["inputs"])
    assert all(torch.equal(*maps) for maps in zip(outputs.feature_maps, data["feature_maps"], strict=True))

    half = AutoModelForImageSegmentation.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
    kept = {name.rsplit(".", 1)[-1] for name, value in half.named_parameters() if value.dtype == torch.float32}
    assert kept == {"A_log", "D", "dt_proj_bias"}, kept
    with torch.no_grad():
        logits = half(**data["inputs"]).logits.float()
    assert (logits - data["logits"]).norm() < 0.05 * data["logits"].norm()
    if not folder.endswith("_again"):
        model.save_pretrained(folder + "_again")
"""


def test_remamber_loads_and_is_saved_again_where_the_package_is_not_installed(tmp_path):
    inputs, logits = make_inputs(), {}
    for mask_head in MASK_HEADS:
        model = build(ReMamberForImageSegmentation, mask_head=mask_head)
        model.save_pretrained(tmp_path / mask_head)
        with torch.no_grad():
            logits[mask_head] = model(**inputs).logits
            feature_maps = model.remamber(**inputs).feature_maps
        data = {"inputs": inputs, "logits": logits[mask_head], "feature_maps": feature_maps}
        torch.save(data, tmp_path / f"{mask_head}.pt")
    run_without_package(LOAD_REMAMBER, tmp_path)
    for mask_head in MASK_HEADS:
        folder = tmp_path / f"{mask_head}_again"
        assert code_files(folder) == CODE_OF_REMAMBER
        loaded = AutoModelForImageSegmentation.from_pretrained(folder, trust_remote_code=False)
        assert type(loaded) is ReMamberForImageSegmentation
        with torch.no_grad():
            assert torch.equal(loaded(**inputs).logits, logits[mask_head])


LOAD_CLASSIFIER = """
import torch
from transformers import AutoBackbone, AutoConfig, AutoModel, AutoModelForImageClassification

data = torch.load("data.pt")
for folder in ("saved", "saved_again"):
    classifier = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    backbone = AutoBackbone.from_config(config, trust_remote_code=True)
    backbone.load_state_dict(model.state_dict())
    assert all(type(m).__module__.startswith("transformers_modules.") for m in (classifier, model, backbone))
    with torch.no_grad():
        assert torch.equal(classifier(data["pixel_values"]).logits, data["logits"])
        feature_maps = backbone.eval()(data["pixel_values"]).feature_maps
    assert all(torch.equal(*maps) for maps in zip(feature_maps, data["feature_maps"], strict=True))
    if folder == "saved":
        classifier.save_pretrained("saved_again")
"""


@pytest.mark.parametrize(
    ("model_class", "backbone_class", "code"),
    [
        (VMambaForImageClassification, VMambaBackbone, CODE_OF_VMAMBA),
        (VimForImageClassification, VimBackbone, CODE_OF_VIM),
    ],
    ids=["vmamba", "vim"],
)
def test_a_classifier_loads_and_is_saved_again_where_the_package_is_not_installed(
    model_class, backbone_class, code, tmp_path
):
    model = build(model_class)
    model.save_pretrained(tmp_path / "saved")
    backbone = backbone_class.from_pretrained(tmp_path / "saved").eval()
    backbone.set_scan_backend("torch")
    pixel_values = make_inputs()["pixel_values"]
    with torch.no_grad():
        data = {"logits": model(pixel_values).logits, "feature_maps": backbone(pixel_values).feature_maps}
    torch.save({"pixel_values": pixel_values, **data}, tmp_path / "data.pt")
    run_without_package(LOAD_CLASSIFIER, tmp_path)
    assert code_files(tmp_path / "saved_again") == code


RUN_ALL = """
import numpy as np
import torch
from transformers import AutoModelForImageSegmentation, AutoProcessor

processor = AutoProcessor.from_pretrained("saved", trust_remote_code=True)
model = AutoModelForImageSegmentation.from_pretrained("saved", trust_remote_code=True)
picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
inputs = processor(picture, ["cat", "the dog"], return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
masks = processor.post_process_referring_segmentation(outputs, target_sizes=[(40, 60)] * 2)
np.save("masks.npy", np.stack([mask.numpy() for mask in masks]))
"""


def test_processor_and_model_work_together_where_the_package_is_not_installed(tmp_path):
    tokenizer = make_tokenizer()
    text_fields = {
        **TEXT_FIELDS,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = build(ReMamberForImageSegmentation, text_config=text_fields)
    image_processor = ReMamberImageProcessorPil(size={"height": 32, "width": 32})
    processor = ReMamberProcessor(image_processor, tokenizer, text_length=model.config.text_length)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    run_without_package(RUN_ALL, tmp_path)

    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    with torch.no_grad():
        outputs = model(**processor(picture, ["cat", "the dog"], return_tensors="pt"))
    masks = processor.post_process_referring_segmentation(outputs, target_sizes=[(40, 60)] * 2)
    np.testing.assert_array_equal(np.load(tmp_path / "masks.npy"), torch.stack(masks).numpy())


# Folders whose code differs are modules of their own, and the package is one more. All scan with the same operators,
# which once had one name in all of them: then the last one took the others' away, and memory was lost.
SEVERAL_COPIES = """
import sys
import torch
from transformers import AutoModelForImageSegmentation

inputs = torch.load("inputs.pt")
models = [AutoModelForImageSegmentation.from_pretrained(name, trust_remote_code=True) for name in ("first", "second")]
import remamber_hf
models.append(remamber_hf.ReMamberForImageSegmentation.from_pretrained("first"))
modules = {type(model).__module__ for model in models}
assert len(modules) == 3 and sum(name.startswith("transformers_modules.") for name in modules) == 2, modules
found = []
for turn in range(3):
    for model in models:
        outputs = model.eval()(**inputs)
        outputs.loss.backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        found.append((outputs.logits.detach(), gradient))
        model.zero_grad()
for logits, gradient in found[1:]:
    torch.testing.assert_close(logits, found[0][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, found[0][1], rtol=1e-3, atol=1e-5)
# Compiled code looks for the operator by its name. One layer has it, and is compiled in seconds; the whole model, in a
# minute or two, is in test_modeling_remamber.py.
first, *_, last = [next(m for m in model.modules() if type(m).__name__ == "SS2D") for model in models]
hidden_states = torch.randn(2, 8, 8, first.in_proj.in_features)
with torch.no_grad():
    compiled = torch.compile(first, options={"cpp_cache_precompile_headers": False})(hidden_states)
    torch.testing.assert_close(compiled, last(hidden_states), rtol=1e-4, atol=1e-5)
"""


def test_several_copies_of_the_code_work_in_turns_in_one_process(tmp_path):
    torch.manual_seed(0)
    model = ReMamberForImageSegmentation(remamber_config()).eval()
    for name in ("first", "second"):
        model.save_pretrained(tmp_path / name)
    with (tmp_path / "second" / "selective_scan.py").open("a") as file:
        file.write("\n# another version\n")
    torch.save(segmentation_inputs(), tmp_path / "inputs.pt")
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": str(ROOT)}
    environment["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"  # freed memory is missed sooner
    result = subprocess.run(
        [sys.executable, "-c", SEVERAL_COPIES],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
