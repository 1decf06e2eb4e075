# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
import json

import datasets
import numpy as np
import pytest
import runs
import torch
from PIL import Image

from remamber_hf import VMambaModel
from remamber_hf.configuration_remamber import VMambaConfig
from remamber_hf.image_processing_remamber import ReMamberImageProcessorPil
from remamber_hf.run_training import main, parse_arguments
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.backbone import BackbonePretraining, ObjectCrops, pretrain_backbone


RAW = ReMamberImageProcessorPil(
    size={"height": 64, "width": 64}, do_rescale=False, do_normalize=False
)  # pixels stay pixels


def make_rows(categories: list) -> datasets.Dataset:
    """Grey pictures (40, 80) with a block at the right: white in a "square", black in a "hole"."""
    rows = []
    for category in categories:
        pixels = np.full((40, 80, 3), 100, dtype=np.uint8)
        pixels[10:20, 60:76] = 255 if category == "square" else 0
        box = {"bbox": [60.0, 10.0, 16.0, 10.0], "height": 40, "width": 80}
        rows.append({"image": Image.fromarray(pixels), "category": category, **box})
    features = datasets.Dataset.from_list([{**row, "image": None} for row in rows]).features
    features["image"] = datasets.Image()
    return datasets.Dataset.from_list(rows, features=features)


def test_a_crop_shows_its_object_in_the_middle_at_the_models_scale(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda low, high, size: torch.zeros(size, dtype=torch.long))
    crops = ObjectCrops(make_rows(["square", "hole"]), RAW, 32)
    assert crops.categories == ["hole", "square"] and [crops[0]["labels"], crops[1]["labels"]] == [1, 0]
    pixels = crops[0]["pixel_values"]
    assert pixels.shape == (3, 32, 32)
    # The box (60, 10, 16, 10) of an (40, 80) picture is (48, 16)–(60.8, 32) at 64×64: 13 wide, 16 high.
    rows, columns = np.nonzero(pixels[0].numpy() > 200)
    assert abs(rows.mean() - 15.5) < 1 and abs(columns.mean() - 15.5) < 1
    assert 14 <= np.ptp(rows) + 1 <= 18 and 11 <= np.ptp(columns) + 1 <= 15
    assert (pixels[:, :4] == 100).all()  # beyond the picture its last pixels go on


def test_the_backbone_learns_the_categories_and_nothing_else_changes_it(tmp_path):
    rows = make_rows(["square", "hole"] * 8)
    torch.manual_seed(0)
    backbone = VMambaModel(VMambaConfig(**runs.FIELDS["vision_config"]))
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    arguments = ReMamberTrainingArguments(output_dir=str(tmp_path), **{**runs.ARGUMENTS, "logging_steps": 100})
    processor = ReMamberImageProcessorPil(size={"height": 64, "width": 64})
    pretrain_backbone(backbone, rows, processor, BackbonePretraining(30, 32, 8, 2e-3), arguments)
    moved = [name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])]
    assert set(before) - set(moved) == {"stages.3.blocks.0.ss2d.A_log"}  # on a single pixel a scan has no use for A
    # Crops of one kind lie closer to each other than to those of the other kind.
    crops = [ObjectCrops(rows, processor, 32)[index]["pixel_values"] for index in (0, 2, 1)]
    with torch.no_grad():
        first, alike, other = backbone.eval()(torch.stack(crops)).last_hidden_state.mean(dim=(2, 3))
    assert torch.dist(first, alike) < torch.dist(first, other) / 5


@pytest.mark.parametrize("category", ["", None, ["square"]])
def test_objects_without_one_category_are_refused(category):
    with pytest.raises(ValueError, match="needs a category for each object, one has"):
        ObjectCrops(make_rows([category]), RAW, 32)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model", "m"], "--backbone_pretraining is for a model from nothing"),
        (["--model_config", "{}", "--backbone_pretraining", '{"steps": 3}'], "unexpected keyword argument 'steps'"),
        (["--model_config", "{}", "--backbone_pretraining", "{}"], "missing .* 'max_steps'"),
        (["--model_config", "{}", "--backbone_pretraining", '{"max_steps": 0}'], "max_steps is 0; give at least 1"),
    ],
)
def test_a_bad_pretraining_is_refused_before_anything_is_loaded(flags, message, tmp_path):
    start = ["--backbone_pretraining", '{"max_steps": 2}', "--output_dir", str(tmp_path / "out"), "--do_train"]
    with pytest.raises(ValueError, match=message):
        parse_arguments([*start, *flags])


def test_a_resumed_run_does_not_pretrain_again(start, tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(runs.FIELDS | {"text_config": runs.TEXT_FIELDS}))
    flags = ["--model_config", config, "--backbone_pretraining", '{"max_steps": 1, "per_device_train_batch_size": 2}']
    flags += ["--data_dir", start / "data" / "shapes", "--image_size", 64, "--vocabulary_size", 560, "--do_train"]
    flags += ["--use_cpu", "--disable_tqdm", "true", "--report_to", "none", "--save_steps", 1]
    flags += ["--per_device_train_batch_size", 2, "--output_dir", tmp_path / "out"]
    main([*map(str, flags), "--max_steps", "1"])
    assert "first the backbone alone" in capsys.readouterr().out
    main([*map(str, flags), "--max_steps", "2", "--resume_from_checkpoint", "true"])
    assert "first the backbone alone" not in capsys.readouterr().out
