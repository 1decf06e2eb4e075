# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber profile`: what a model costs, from all that a model can be named by, in every format."""

import csv
import json
import os
import re
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
import yaml
from tiny import TEXT_FIELDS, VISION_FIELDS, build, remamber_config, vim_config, vision_config
from transformers import BertConfig

from remamber_hf import (
    BUNDLED_MODEL,
    ReMamberForImageSegmentation,
    VimBackbone,
    VMambaForImageClassification,
)
from remamber_hf.cli import main as cli
from remamber_hf.cli import profile as command
from remamber_hf.cli.options import check_output
from remamber_hf.inference.cost import count_parameters, count_parts, model_parts


FIELDS = {"text_config": TEXT_FIELDS, "vision_config": VISION_FIELDS, "correlation_size": 16, "channel_scan_size": 4}
RECIPE = {"model_config": {**FIELDS, "text_length": 7, "fusion": "in_context"}, "vocabulary_size": 99, "fp16": True}
PARTS = ["text encoder", "backbone", "fusion", "mask head"]


@pytest.fixture
def profile(tmp_path, monkeypatch, capfd):
    """Calls `remamber profile` in `tmp_path`: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["remamber", "profile", *map(str, arguments)])
        capfd.readouterr()  # of what saved the models
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capfd.readouterr()

    return call


@pytest.fixture
def counts(profile):
    """Calls it for JSON without time, which must go well; returns the object."""

    def call(*arguments) -> dict:
        status, output, error = profile(*arguments, "--no-time", "--format", "json")
        assert (status, error) == (0, "")
        return json.loads(output)

    return call


def cells_of(lines: list[str]) -> list[list[str]]:
    """The rows of a table that was drawn."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]


# ------------------------------------------------------------------------------------------------------------ figures


def test_a_paper_can_be_written_from_what_is_measured(profile, tmp_path):
    sizes = ["--image_size", 32, "--image-size", "64x96", "--image_size", "32x32"]
    options = ["--device", "cpu", "--num_runs", 4, "--batch_size", 2, "--num_threads", 1, "--dtype", "bfloat16"]
    status, output, error = profile("bundled", *sizes, *options, "--format", "json")
    assert (status, error) == (0, "")
    results = json.loads(output)
    model = ReMamberForImageSegmentation.from_pretrained(BUNDLED_MODEL)
    assert {name: results[name] for name in ("model", "class", "fusion", "mask_head", "text_length")} == {
        "model": "bundled",
        "class": "ReMamberForImageSegmentation",
        "fusion": "twister",
        "mask_head": "conv",
        "text_length": 20,
    }
    assert results["num_expressions"] == 1 and results["versions"]["torch"] == torch.__version__
    measured = results["measured"]
    assert measured.pop("device_name") and measured.pop("scan_backend")
    assert measured == {
        "device": "cpu",
        "threads": 1,
        "dtype": "bfloat16",
        "batch_size": 2,
        "num_runs": 4,
        "num_warmup": 3,
    }
    assert [size["image_size"] for size in results["sizes"]] == [[32, 32], [64, 96]]  # the third is the first
    for size in results["sizes"]:
        assert size["parts"] == count_parts(model, tuple(size["image_size"]))
        times = size["milliseconds"]
        assert 0 < times["q1"] <= times["median"] <= times["q3"]
        assert size["pictures_per_second"] == pytest.approx(2000 / times["median"])
    peaks = [size["peak_mib"] for size in results["sizes"]]
    assert peaks[0] is None or min(peaks) > 4 * model.num_parameters() / 2**20  # the weights are in it


def test_the_table_has_whole_and_parts_and_says_what_was_counted_and_where(profile):
    status, output, error = profile("bundled", "--image_size", 64, "--device", "cpu", "--num_runs", 2)
    assert (status, error) == (0, "")
    words = " ".join(output.partition("┏")[0].split())
    assert words.startswith("bundled: ReMamberForImageSegmentation, fusion twister, conv head; FLOPs of one picture ")
    assert (
        "with 1 expression of 20 tokens. Time: median [quartiles] of 2 passes after 3, batches of 1 picture" in words
    )
    assert re.search(r"float32, on CPU \(.+, \d+ threads?\), scan backend \w+, random weights\.", words)
    assert "FLOPs: a multiplication and an addition are two. MACs: they are one" in words
    whole, *parts = cells_of(output.splitlines())
    counted = count_parts(ReMamberForImageSegmentation.from_pretrained(BUNDLED_MODEL), 64)
    assert whole[:4] == ["64×64", "2.11", "0.0899", "0.0465"]
    assert float(whole[2]) == pytest.approx(counted["whole"]["flops"] / 1e9, rel=1e-2)
    assert re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", whole[4]) and len(whole) == 7
    assert [row[1] for row in parts] == [*PARTS, "whole"]
    assert [len(row) for row in parts] == [5] * 5


def test_without_time_there_are_no_figures_of_the_machine(profile, counts):
    results = counts("bundled", "--image_size", 64)
    assert results["measured"] is None
    (size,) = results["sizes"]
    assert [size[name] for name in ("milliseconds", "pictures_per_second", "peak_mib")] == [None] * 3
    output = profile("bundled", "--no-time")[1]
    assert "Time:" not in output and "Memory:" not in output
    assert [len(row) for row in cells_of(output.splitlines())] == [4] + [5] * 5


def test_expressions_about_a_picture_cost_more_than_one(counts):
    one, three = counts("bundled"), counts("bundled", "--num_expressions", 3)
    flops = [results["sizes"][0]["parts"]["text_encoder"]["flops"] for results in (one, three)]
    assert flops[1] == 3 * flops[0] and three["num_expressions"] == 3


# ------------------------------------------------------------------------------------------------------------ formats

# What a machine said once.
RESULTS = {
    "model": "a_b|c,\n%d",
    "class": "ReMamberForImageSegmentation",
    "fusion": "twister",
    "mask_head": "conv",
    "text_length": 20,
    "num_expressions": 2,
    "versions": {"remamber_hf": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
    "measured": {
        "device": "cuda",
        "device_name": "GPU & Sons",
        "threads": 8,
        "dtype": "float16",
        "scan_backend": "triton and torch",
        "batch_size": 1,
        "num_runs": 1,
        "num_warmup": 3,
    },
    "sizes": [
        {
            "image_size": [side, side],
            "parts": {
                "mask_head": {"parameters": 10**6, "trained": 0, "flops": 10**9, "macs": 5 * 10**8},
                "whole": {"parameters": 3 * 10**9, "trained": 10**4, "flops": 2 * 10**12, "macs": 10**12},
            },
            "milliseconds": {"q1": 9.0, "median": median, "q3": 19999.126},
            "pictures_per_second": 1000 / median,
            "peak_mib": peak,
        }
        for side, median, peak in ((480, 9.126, None), (1440, 19.126, 81234.4))
    ],
}


def test_csv_has_every_number_in_a_row_for_each_size():
    header, *rows = csv.reader(command.FORMATS["csv"](RESULTS).splitlines(keepends=True))
    assert len(rows) == 2 and len(set(header)) == len(header)
    records = [dict(zip(header, row, strict=True)) for row in rows]
    for record, size in zip(records, RESULTS["sizes"]):
        assert record["model"] == "a_b|c, %d" and record["device_name"] == "GPU & Sons"
        assert [int(record["image_height"]), int(record["image_width"])] == size["image_size"]
        assert float(record["ms_median"]) == size["milliseconds"]["median"]
        assert float(record["pictures_per_second"]) == size["pictures_per_second"]
        assert int(record["whole_macs"]) == 10**12 and int(record["mask_head_parameters"]) == 10**6
    assert [record["peak_mib"] for record in records] == ["", "81234.4"]


def test_csv_has_no_column_for_what_was_not_measured():
    (size,) = RESULTS["sizes"][:1]
    unmeasured = {**size, "milliseconds": None, "pictures_per_second": None}
    text = command.FORMATS["csv"]({**RESULTS, "measured": None, "sizes": [unmeasured]})
    header, row = csv.reader(text.splitlines(keepends=True))
    record = dict(zip(header, row, strict=True))
    assert record["ms_q1"] == record["peak_mib"] == "" and "device" not in record


def test_latex_has_two_tables_of_booktabs_with_as_many_cells_as_columns():
    text = command.FORMATS["latex"](RESULTS)
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert [columns for columns, _ in tables] == ["lrrrrrr", "llrrrr"]
    for columns, body in tables:
        lines = body.splitlines()
        assert lines[0] == r"\toprule" and lines[2] == r"\midrule" and lines[-1] == r"\bottomrule"
        rows = [line for line in lines if not line.startswith("\\")]
        assert all(row.endswith(r" \\") and row.count(" & ") == len(columns) - 1 for row in rows)
    assert r"480$\times$480 & 3,000.00 & 2,000.00 & 1,000.00 & 9.13 [9.00, 19999.13] & 109.58 & -- \\" in text
    assert r"1440$\times$1440 & 3,000.00 & 2,000.00 & 1,000.00 & 19.1 [9.0, 19999.1] & 52.28 & 81234 \\" in text
    outside = re.sub(r"\\begin.*?\\end\{tabular\}", "", text, flags=re.DOTALL)
    assert all(line.startswith("% ") for line in outside.splitlines() if line)  # a name may hold anything
    assert r"a_b|c,\n%d" in outside.splitlines()[0]


def test_markdown_has_two_tables_with_as_many_cells_in_every_row():
    lines = command.FORMATS["markdown"](RESULTS).splitlines()
    assert lines[0] == r"# a_b|c,\n%d"
    tables = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    tables = [table.strip().splitlines() for table in tables if table.strip()]
    assert [len(table) for table in tables] == [4, 6]
    for table in tables:
        assert len({row.count("|") for row in table}) == 1 == len({len(row) for row in table})
    assert "2 expressions of 20 tokens" in lines[2] and "on CUDA (GPU & Sons)" in lines[4]
    assert "1 pass after 3" in lines[4] and "PyTorch's allocator" in lines[6]


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_the_table_fits_a_terminal_and_no_word_is_cut(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("remamber_hf.cli.options.MIN_WIDTH", 0)
    lines = command.FORMATS["table"](RESULTS).splitlines()
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert "…" not in text
    for number in ("3,000.00", "2,000.00", "1,000.00", "9.13", "19999.13", "109.58", "81234", "trained, M", "0.0100"):
        assert number in text
    assert "1440×1440" in text and "GPU & Sons" in " ".join(text.split())


def test_json_is_what_is_known():
    assert json.loads(command.FORMATS["json"](RESULTS)) == RESULTS


def test_a_file_is_written_whole_and_replaces_what_was_there(profile, tmp_path):
    target = tmp_path / "new" / "Tabelle é.tex"
    for size in (64, 32):
        arguments = ("bundled", "--no-time", "--image_size", size, "--format", "latex", "--output", target)
        assert profile(*arguments) == (0, f"written: {target}\n", "")
    assert rf"{size}$\times${size}" in target.read_text(encoding="utf-8") and "64$" not in target.read_text("utf-8")
    assert os.listdir(target.parent) == [target.name]


# ------------------------------------------------------------------------------------------------------------- models


def test_a_model_is_named_by_a_folder_a_file_a_recipe_or_the_name_of_one(counts, tmp_path):
    remamber_config(fusion="in_context").save_pretrained(tmp_path / "folder")
    (tmp_path / "variant.json").write_text(json.dumps({"model_type": "remamber", **RECIPE["model_config"]}))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    file = tmp_path / "folder" / "config.json"
    names = ("folder", tmp_path / "folder", file, "variant.json", "recipe.yaml")
    found = [counts(name, "--image_size", 32)["sizes"] for name in names]
    assert found[0] == found[1] == found[2] == found[3] == found[4]
    (tmp_path / "shapes_plain").mkdir()  # a folder of data may have the name of a recipe
    recipe, bundled = counts("shapes_plain"), counts("bundled")
    assert recipe["sizes"] == bundled["sizes"]  # which was trained by it, on pictures of that size
    assert recipe["sizes"][0]["image_size"] == [96, 96]


def test_a_folder_whose_name_is_odd_is_a_model(counts, tmp_path):
    for name in ("modèle 文", "100%_a&b", "a.yaml.d"):
        remamber_config().save_pretrained(tmp_path / name)
        assert counts(name, "--image_size", 32)["model"] == name


def test_the_size_is_that_of_the_processor_or_as_published(counts, tmp_path):
    remamber_config().save_pretrained(tmp_path / "bare")
    remamber_config().save_pretrained(tmp_path / "wide")
    (tmp_path / "wide" / "preprocessor_config.json").write_text('{"size": {"height": 64, "width": 96}}')
    odd = ['{"size": {"height": "x", "width": null}}', '{"size": {"height": 8, "width": 99999}}', '{"size": 224}']
    odd += ['{"size": {"shortest_edge": 224}}', "[1, 2]", '"size"', "{", "{}"]
    for number, text in enumerate(odd):
        remamber_config().save_pretrained(tmp_path / f"odd{number}")
        (tmp_path / f"odd{number}" / "preprocessor_config.json").write_text(text)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "image_size": 160}))
    vim_config().save_pretrained(tmp_path / "vim")
    vision_config().save_pretrained(tmp_path / "vmamba")
    sizes = {"bare": [480, 480], "wide": [64, 96], "recipe.yaml": [160, 160], "vim": [48, 64], "vmamba": [224, 224]}
    sizes |= {f"odd{number}": [480, 480] for number in range(len(odd))}
    assert {name: counts(name)["sizes"][0]["image_size"] for name in sizes} == sizes


def test_backbones_and_classifiers_have_their_own_parts(profile, counts, tmp_path):
    classifier = VMambaForImageClassification(vision_config(num_labels=5))
    classifier.save_pretrained(tmp_path / "classifier")
    backbone = VimBackbone(vim_config(out_features=["stage2"]))
    backbone.save_pretrained(tmp_path / "backbone")
    for name, model in (("classifier", classifier), ("backbone", backbone)):
        results = counts(name, "--image_size", 64)
        assert results["class"] == type(model).__name__ and "fusion" not in results
        assert results["sizes"][0]["parts"] == count_parts(model, 64)
    (tmp_path / "vim.json").write_text('{"model_type": "vim", "hidden_size": 24, "num_hidden_layers": 1}')
    (tmp_path / "vmamba.json").write_text('{"model_type": "vmamba", "num_labels": 3, "depths": [1, 1, 1, 1]}')
    assert counts("vmamba.json", "--image_size", 32)["class"] == "VMambaModel"
    status, output, error = profile("vim.json", "--image_size", 32, "--num_runs", 1)
    assert (status, error) == (0, "")
    assert output.startswith("vim.json: VimModel; FLOPs of one picture.\n")


def test_code_that_lies_in_a_folder_is_not_run(counts, tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "folder")
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["auto_map"]
    config |= {"architectures": ["TheirModel"]}
    (tmp_path / "folder" / "config.json").write_text(json.dumps(config))
    for file in (tmp_path / "folder").glob("*.py"):
        file.write_text("from pathlib import Path\nPath('was_run').touch()\n")
    assert counts("folder", "--image_size", 32)["sizes"][0]["parts"] == count_parts(model, 32)
    assert not (tmp_path / "was_run").exists()


def test_merged_adapters_cost_nothing_and_a_recipe_says_how_many_weights_they_are(profile, counts, tmp_path):
    from peft import LoraConfig, get_peft_model

    fields = {"r": 2, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["mask_head"]}
    adapted = get_peft_model(build(fusion="in_context"), LoraConfig(**fields))
    trained = {part: count_parameters([module])[1] for part, module in model_parts(adapted).items()}
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "lora": fields}))
    (merged,), (recipe,) = (counts(name, "--image_size", 32)["sizes"] for name in ("merged", "recipe.yaml"))
    found = {part: costs.pop("trained") for part, costs in recipe["parts"].items()}
    assert found == {**trained, "whole": sum(trained.values())} and 0 < trained["text_encoder"] < 1000
    for costs in merged["parts"].values():
        assert costs.pop("trained") == costs["parameters"]
    assert recipe == merged
    assert (
        "trained, M" in profile("recipe.yaml", "--no-time")[1] and "trained" not in profile("merged", "--no-time")[1]
    )


@pytest.mark.parametrize("freeze", ["text_encoder", ["text_encoder", "backbone"]])
def test_a_recipe_that_freezes_parts_says_what_is_left_to_train(counts, tmp_path, freeze):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "freeze": freeze}))
    parts = counts("recipe.yaml", "--image_size", 32)["sizes"][0]["parts"]
    for part, costs in parts.items():
        if part != "whole":
            assert costs["trained"] == (0 if part in freeze else costs["parameters"]), part
    assert parts["whole"]["trained"] == sum(costs["trained"] for costs in parts.values()) - parts["whole"]["trained"]


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nothing"], "nothing is no model that can be loaded"),
        (["nothing/here"], "nothing/here is no model that can be loaded"),
        (["empty"], "empty is no model that can be loaded: it has no config.json, or an empty one"),
        (["bert"], "bert is a model of type 'bert'; give one of type 'remamber' or 'vmamba' or 'vim'"),
        (["recipe.yml"], "recipe.yml is no file"),
        (["wrong.yaml"], "wrong.yaml names modell, which is no argument"),
        (["fields.yaml"], "model_config names fusionn, which is no field; did you mean fusion?"),
        (["value.yaml"], "model_config is refused"),
        (["frozen.yaml"], "freeze names presence_head, which this model does not have; leave it out"),
        (["lora.yaml"], "--lora is refused by peft"),
        (["list.json"], "list.json is no model that can be loaded: list.json holds no JSON object"),
        (["nofile.json"], "nofile.json is no file"),
        ([""], "is no model that can be loaded: the name is empty"),
        (["/no/folder"], "/no/folder is no model that can be loaded: there is no such folder"),
        (["slip.json"], "slip.json names fusoin, which is no field; did you mean fusion?"),
        (["vim.json"], "vim.json names patchsize, which is no field; did you mean patch_size?"),
        (["window.json"], "window.json is no model that can be loaded: ValueError: in_context_window is 4, which"),
        (["adapter"], "adapter holds adapters, which name another model; give the folder of the merged model"),
        (["bundled", "--image_size", "0"], "--image_size is 0; give 32 to 8192 pixels a side"),
        (["bundled", "--image_size", "480x9000"], "--image_size is 480x9000; give 32 to 8192 pixels a side"),
        (["bundled", "--image_size", "480", "--image_size", "480,640"], "--image_size is '480,640'; give a side or a"),
        (["bundled", "--image_size", "٤٨٠"], "give a side or a height and width in pixels, as 224 or 480x640"),
        (["bundled", "--device", "tpu"], "'tpu' is unknown"),
        (["bundled", "--dtype", "int8"], "--dtype is 'int8'; choose one of float32, bfloat16, float16"),
        (["bundled", "--format", "excel"], "--format is 'excel'; choose one of table, markdown, latex, csv, json"),
        (["bundled", "--batch_size", "0"], "--batch_size is 0; give 1 to 65536"),
        (["bundled", "--num_runs", "-1"], "--num_runs is -1; give 1 to 1000000"),
        (["bundled", "--num_threads", "99999"], "--num_threads is 99999; give 1 to 1024"),
        (["bundled", "--num_expressions", "0"], "--num_expressions is 0; give 1 to 1024"),
        (
            ["vmamba", "--num_expressions", "2"],
            "--num_expressions is 2, and vmamba reads no expressions; leave it out",
        ),
        (["bundled", "--output", "empty"], "empty is a folder; give the name of a file"),
        (["bundled", "--output", "list.json/a.tex"], "list.json is a file where a folder is needed"),
    ],
)
def test_bad_input_is_one_line_and_status_2_before_anything_is_measured(
    profile, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr(command, "in_fresh_process", None)
    (tmp_path / "empty").mkdir()
    BertConfig().save_pretrained(tmp_path / "bert")
    vision_config().save_pretrained(tmp_path / "vmamba")
    remamber_config().save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "slip.json").write_text('{"model_type": "remamber", "fusoin": "in_context"}')
    (tmp_path / "vim.json").write_text('{"model_type": "vim", "patchsize": 8}')
    (tmp_path / "window.json").write_text('{"model_type": "remamber", "in_context_window": 4}')
    (tmp_path / "wrong.yaml").write_text("modell: m\n")
    (tmp_path / "fields.yaml").write_text("model_config: {fusionn: twister}\n")
    (tmp_path / "value.yaml").write_text("model_config: {fusion: twist}\n")
    (tmp_path / "frozen.yaml").write_text(yaml.safe_dump({**RECIPE, "freeze": ["presence_head"]}))
    (tmp_path / "lora.yaml").write_text(yaml.safe_dump({**RECIPE, "lora": {"target_modules": ["nothing"]}}))
    before = sorted(tmp_path.rglob("*"))
    status, output, error = profile(*arguments)
    assert (status, output) == (2, "")
    (line,) = error.splitlines()
    assert line.startswith("remamber: error: ") and message in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB."), "in batches of 4: memory is short"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"), "memory is short"),
        (BrokenProcessPool("terminated abruptly"), "the process that measures was killed, as where memory is short"),
    ],
)
def test_too_little_memory_is_one_line_and_no_file(profile, tmp_path, monkeypatch, raised, said):
    def fail(*arguments):
        raise raised

    monkeypatch.setattr(command, "in_fresh_process", fail)
    status, output, error = profile("bundled", "--batch_size", 4, "--output", "table.txt")
    assert (status, output) == (2, "")
    (line,) = error.splitlines()
    assert said in line and "96×96 pixels" in line and "smaller --image_size or --batch_size" in line
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_machine_has_no_memory_for_are_not_made(profile, monkeypatch):
    monkeypatch.setattr(command, "in_fresh_process", None)
    monkeypatch.setattr(command, "machine_memory", lambda: 2**20)
    status, output, error = profile("bundled")
    assert (status, output) == (2, "")
    assert error == "remamber: error: the weights take 0.0 GiB, and this machine has 0.0; give --no-time.\n"
    assert profile("bundled", "--no-time")[0] == 0


def test_another_error_of_the_measurement_is_shown_as_the_bug_that_it_is(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("expected scalar type Half")

    monkeypatch.setattr(command, "in_fresh_process", fail)
    with pytest.raises(RuntimeError, match="Half"):
        command.profile("bundled")


def test_a_folder_that_may_not_be_written_to_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match="is a folder that this user may not write to; give another"):
        check_output(tmp_path / "new" / "table.tex")


def test_env_is_of_the_machine_only(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["remamber", "env", "--model", "bundled"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2 and "--model" in capsys.readouterr().err
