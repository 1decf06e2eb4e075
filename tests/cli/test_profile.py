# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber env --model`: what a model costs, from all that a model can be named by."""

import json
import re
import sys

import pytest
import yaml
from tiny import TEXT_FIELDS, VISION_FIELDS, remamber_config, vision_config
from transformers import BertConfig

from remamber_hf import ReMamberForImageSegmentation
from remamber_hf.cli import main as cli
from remamber_hf.inference.cost import count_parts
from remamber_hf.inference.loading import BUNDLED_MODEL


FIELDS = {"text_config": TEXT_FIELDS, "vision_config": VISION_FIELDS, "correlation_size": 16, "channel_scan_size": 4}
RECIPE = {"model_config": {**FIELDS, "text_length": 7, "fusion": "in_context"}, "vocabulary_size": 99, "fp16": True}


@pytest.fixture
def cost(tmp_path, monkeypatch, capfd):
    """Calls `remamber env --model` in `tmp_path`: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["remamber", "env", "--model", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capfd.readouterr()

    return call


def test_the_table_has_the_parts_in_the_units_of_papers_and_says_what_was_counted_and_where(cost):
    status, output, error = cost("bundled", "--image_size", 64, "--device", "cpu")
    assert (status, error) == (0, "")
    title, *lines, counted = output.splitlines()
    assert title.startswith("bundled: fusion twister, conv head; one picture of 64×64 pixels and an expression of 20 ")
    assert re.search(r"ms on CPU \(.+, \d+ threads\) in float32, scan backend \w+", title)
    assert counted.startswith("FLOPs: a multiplication and an addition are two")
    rows = {cells[0].strip(): cells[1:] for cells in (line.split("│")[1:-1] for line in lines if "│" in line)}
    assert list(rows) == ["text encoder", "backbone", "fusion", "mask head", "whole"]
    model = ReMamberForImageSegmentation.from_pretrained(BUNDLED_MODEL)
    parameters, flops, milliseconds = (float(cell) for cell in rows["whole"])
    assert parameters == round(model.num_parameters() / 1e6, 2)
    assert flops == round(count_parts(model, 64)["whole"]["flops"] / 1e9, 2)
    assert milliseconds > 0


def test_json_has_all_numbers_and_no_time_if_none_is_asked_for(cost):
    status, output, error = cost("bundled", "--image_size", 64, "--no-time", "--json")
    assert (status, error) == (0, "")
    parts = count_parts(ReMamberForImageSegmentation.from_pretrained(BUNDLED_MODEL), 64)
    assert json.loads(output) == {
        "model": "bundled",
        "fusion": "twister",
        "mask_head": "conv",
        "image_size": 64,
        "text_length": 20,
        "parts": parts,
        "time": None,
    }
    timed = json.loads(cost("bundled", "--image_size", 32, "--json", "--device", "cpu")[1])["time"]
    assert timed["milliseconds"] > 0 and timed["device"] == "cpu" and timed["threads"] > 0


def test_a_model_is_named_by_a_folder_a_file_a_recipe_or_the_name_of_one(cost, tmp_path):
    remamber_config(fusion="in_context").save_pretrained(tmp_path / "folder")
    (tmp_path / "variant.json").write_text(json.dumps({"model_type": "remamber", **RECIPE["model_config"]}))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    file = tmp_path / "folder" / "config.json"
    names = ("folder", tmp_path / "folder", file, "variant.json", "recipe.yaml")
    parts = []
    for name in names:
        status, output, error = cost(name, "--no-time", "--json", "--image_size", 32)
        assert (status, error) == (0, ""), name
        parts.append(json.loads(output)["parts"])
    assert parts[0] == parts[1] == parts[2] == parts[3] == parts[4]
    (tmp_path / "shapes_plain").mkdir()  # a folder of data may have the name of a recipe
    recipe, bundled = (
        cost(name, "--no-time", "--json", "--image_size", 32)[1] for name in ("shapes_plain", "bundled")
    )
    assert json.loads(recipe)["parts"] == json.loads(bundled)["parts"]  # which was trained by it


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing"], "nothing is no model that can be loaded"),
        (["nothing/here"], "nothing/here is no model that can be loaded"),
        (["empty"], "empty is no model that can be loaded: it has no config.json, or an empty one"),
        (["bert"], "bert is a model of type 'bert'; give one of type 'remamber'"),
        (["vmamba"], "vmamba is a model of type 'vmamba'; give one of type 'remamber'"),
        (["recipe.yml"], "recipe.yml is no file"),
        (["wrong.yaml"], "wrong.yaml names modell, which is no argument"),
        (["fields.yaml"], "model_config names fusionn, which is no field; did you mean fusion?"),
        (["value.yaml"], "model_config is refused"),
        (["list.json"], "list.json is no model that can be loaded: list.json holds no JSON object"),
        (["nofile.json"], "nofile.json is no file"),
        ([""], "is no model that can be loaded: the name is empty"),
        (["/no/folder"], "/no/folder is no model that can be loaded: there is no such folder"),
        (["slip.json"], "slip.json names fusoin, which is no field; did you mean fusion?"),
        (["window.json"], "window.json is no model that can be loaded: ValueError: in_context_window is 4, which"),
        (["bundled", "--image_size", "0"], "--image_size is 0; give 32 to 8192"),
        (["bundled", "--device", "tpu"], "'tpu' is unknown"),
    ],
)
def test_bad_input_is_one_line_and_status_2(cost, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    BertConfig().save_pretrained(tmp_path / "bert")
    vision_config().save_pretrained(tmp_path / "vmamba")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "slip.json").write_text('{"model_type": "remamber", "fusoin": "in_context"}')
    (tmp_path / "window.json").write_text('{"model_type": "remamber", "in_context_window": 4}')
    (tmp_path / "wrong.yaml").write_text("modell: m\n")
    (tmp_path / "fields.yaml").write_text("model_config: {fusionn: twister}\n")
    (tmp_path / "value.yaml").write_text("model_config: {fusion: twist}\n")
    status, output, error = cost(*arguments)
    assert (status, output) == (2, "")
    (line,) = error.splitlines()
    assert line.startswith("remamber: error: ") and message in line
