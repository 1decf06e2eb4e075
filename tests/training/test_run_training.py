# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber train`: from nothing, from parts, from a model, with adapters; what it reads, writes and refuses."""

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import runs
import torch
import yaml
from accelerate import PartialState
from huggingface_hub import ModelCard
from PIL import Image
from refer_fixture import TinyRefer
from safetensors.torch import load_file
from tiny import run_without_package
from tiny_recipe import RECIPE, save_parts
from transformers import AutoModelForImageSegmentation, AutoProcessor

from remamber_hf import ReMamberForImageSegmentation, run_training
from remamber_hf.cli.main import main as remamber
from remamber_hf.data.export import export_parquet
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask
from remamber_hf.inference.loading import BUNDLED_MODEL, load_model
from remamber_hf.run_training import main
from remamber_hf.synthetic.dataset import synthesize
from remamber_hf.training import model_card
from remamber_hf.training.nonfinite import NotFiniteError
from remamber_hf.training.recipe import RECIPES as PACKAGED


ROOT = Path(__file__).parents[2]
QUIET = ["--use_cpu", "--disable_tqdm", "true", "--save_strategy", "no", "--max_steps", "1"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    synthesize(folder, 16, 0, num_workers=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """Folder of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    main([str(recipe), "--data_dir", str(data_dir), "--output_dir", str(folder / "out")])
    return folder / "out"


@pytest.mark.parametrize("name", ["run", "adapted"])
def test_whoever_the_umask_lets_read_files_reads_what_training_writes(name, request, tmp_path):
    (tmp_path / "probe").touch()
    files = [file for file in request.getfixturevalue(name).rglob("*") if file.is_file()]
    assert sum(file.suffix == ".safetensors" for file in files) >= 1
    assert [str(file) for file in files if file.stat().st_mode != (tmp_path / "probe").stat().st_mode] == []


def losses_of(run) -> list[float]:
    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def test_the_loss_falls(run):
    losses = losses_of(run)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05


def test_expressions_that_are_cut_are_counted_in_one_line_also_with_workers(data_dir, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    model_config = {**RECIPE["model_config"], "text_length": 4}  # the start, two words, the end
    steps = {"max_steps": 2, "eval_strategy": "no", "dataloader_num_workers": 2}
    recipe.write_text(yaml.safe_dump({**RECIPE, **steps, "model_config": model_config}))
    # A process of its own, whose log can be read.
    command = [sys.executable, "-m", "remamber_hf", "train", recipe, "--data_dir", data_dir]
    run = subprocess.run([*command, "--output_dir", tmp_path / "out"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said = [line for line in f"{run.stdout}{run.stderr}".splitlines() if " cut" in line or " are read" in line]
    data = load_refer("shapes", "unc", data_dir=data_dir)
    texts = [text for split in ("train", "val") for row in data[split] for text in row["sentences"]]
    (line,) = said
    assert re.match(rf"\d+ of {len(texts)} expressions are cut, of which the model reads 4 tokens; the longest", line)


def test_every_parameter_has_moved(run, data_dir, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "max_steps": 1, "learning_rate": 1.0e-12, "do_eval": False}))
    main([str(recipe), "--data_dir", str(data_dir), "--output_dir", str(tmp_path / "start")])
    start = AutoModelForImageSegmentation.from_pretrained(tmp_path / "start").state_dict()
    trained = AutoModelForImageSegmentation.from_pretrained(run)
    unmoved = [name for name, parameter in trained.named_parameters() if torch.equal(parameter, start[name])]
    # Softmax takes out again what all keys share.
    assert [name for name in unmoved if not name.endswith("k_proj.bias")] == []


def test_the_folder_loads_with_the_auto_classes_and_evaluates_to_what_was_reported(run, data_dir):
    model, processor = AutoModelForImageSegmentation.from_pretrained(run).eval(), AutoProcessor.from_pretrained(run)
    assert model.config.mask_head == "mamba"
    assert processor.text_length == 10
    intersections, unions = [], []
    for row in load_refer("shapes", "unc", "val", data_dir=data_dir, expand_sentences=True):
        inputs = processor(images=row["image"], text=row["sentences"], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        (mask,) = processor.post_process_referring_segmentation(outputs, target_sizes=[(row["height"], row["width"])])
        found, truth = mask.numpy(), row_mask(row)
        intersections.append((found & truth).sum())
        unions.append((found | truth).sum())
    metrics = json.loads((run / "eval_results.json").read_text())
    assert metrics["eval_miou"] == pytest.approx(np.mean(np.array(intersections) / np.array(unions)), abs=1e-9)
    assert metrics["eval_oiou"] == pytest.approx(sum(intersections) / sum(unions), abs=1e-9)


def test_training_can_go_on_from_a_folder(run, data_dir, tmp_path):
    flags = ["--model", run, "--data_dir", data_dir, "--output_dir", tmp_path / "more", "--dataset", "shapes"]
    flags += ["--do_train", "--max_steps", 2, "--use_cpu", "--logging_steps", 1, "--learning_rate", 1e-5]
    main([str(flag) for flag in [*flags, "--report_to", "none", "--disable_tqdm", "true", "--save_strategy", "no"]])
    assert np.mean(losses_of(tmp_path / "more")) < losses_of(run)[0]


# What a run leaves


def test_curves_and_samples_of_every_evaluation_are_drawn(run):
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step-0000006.png", "step-0000012.png"]
    assert Image.open(run / "curves.png").width > 1000


def test_tensorboard_has_loss_and_metrics(run):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = {}
    for path in (run / "runs").glob("*/events*"):
        accumulator = accumulators.EventAccumulator(str(path)).Reload()
        for tag in accumulator.Tags()["scalars"]:
            found.setdefault(tag, {}).update({event.step: event.value for event in accumulator.Scalars(tag)})
    assert list(found["train/loss"].values()) == pytest.approx(losses_of(run), abs=1e-3)
    assert set(found["eval/miou"]) == {6, 12}


def test_the_card_has_the_metrics_and_the_arguments_of_the_run(run):
    card = ModelCard.load(run / "README.md")
    metrics = json.loads((run / "eval_results.json").read_text())
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values["miou"] == pytest.approx(metrics["eval_miou"], abs=1e-4) and len(values) == 7
    recipe = yaml.safe_load(card.text.split("```yaml\n")[1].split("```")[0])
    assert recipe.pop("split_by") == "unc"  # as was found in the folder
    assert recipe == {name: value for name, value in RECIPE.items() if name in recipe}
    assert {"model_config", "dataset", "learning_rate", "max_steps", "seed"} <= recipe.keys()
    assert str(run.parent) not in card.content


def test_the_snippet_of_the_card_runs_where_the_package_is_not_installed(run, tmp_path):
    (snippet,) = re.findall(r"```python\n(.*?)```", (run / "README.md").read_text(), flags=re.DOTALL)
    Image.new("RGB", (90, 70), "red").save(tmp_path / "picture.jpg")
    shutil.copytree(run, tmp_path / "FOLDER")
    assert run_without_package(snippet + "print(tuple(mask.shape), mask.dtype)", tmp_path) == "(70, 90) torch.bool\n"


def test_a_push_comes_last_and_its_failure_costs_nothing(start, tmp_path, monkeypatch, capsys):
    calls = []

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **kwargs):
            calls.append(repo_id)
            if len(calls) > 1:
                raise ConnectionError("no network")
            return "https://huggingface.co/me/model"

        def upload_folder(self, allow_patterns, **kwargs):
            calls.append(sorted(allow_patterns))

    monkeypatch.setattr(model_card, "HfApi", Hub)
    flags = ["--model", start / "conv", "--data_dir", start / "data" / "shapes", "--do_train", *QUIET]
    flags = [str(flag) for flag in [*flags, "--push_to_hub", "--hub_model_id", "me/model"]]
    main([*flags, "--output_dir", str(tmp_path / "a")])
    assert f"written: {tmp_path / 'a'}\npushed: https://huggingface.co/me/model" in capsys.readouterr().out
    assert {"README.md", "model.safetensors", "modeling_remamber.py", "tokenizer.json"} <= set(calls[1])
    with pytest.raises(ValueError, match="the model is whole in .* `hf upload me/model"):
        main([*flags, "--output_dir", str(tmp_path / "b")])
    assert {path.name for path in (tmp_path / "b").iterdir()} >= set(calls[1])
    assert ModelCard.load(tmp_path / "b" / "README.md").data.model_name == "model"


# Adapters


@pytest.fixture(scope="module")
def adapted(start, tmp_path_factory):
    """A run of the recipe lora, and its checkpoint resumed for as many steps again."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("lora")
    flags = ["--model", start / "conv", "--data_dir", start / "data" / "shapes", "--use_cpu", "--disable_tqdm", "true"]
    flags += ["--dataloader_num_workers", 0, "--report_to", "none", "--max_eval_samples", 4, "--sample_predictions", 0]
    flags += ["--eval_strategy", "steps", "--eval_steps", 2, "--save_strategy", "steps", "--save_steps", 2]
    flags += ["--load_best_model_at_end", "false", "--warmup_steps", 0, "--learning_rate", 0.01]
    for steps, resume in ((2, "false"), (4, "true")):
        last = ["--max_steps", steps, "--resume_from_checkpoint", resume, "--output_dir", folder]
        main([str(PACKAGED / "lora.yaml"), *map(str, [*flags, *last])])
    return folder


def test_adapters_are_merged_into_a_model_of_the_same_weights(adapted, start):
    before, after = load_file(start / "conv" / "model.safetensors"), load_file(adapted / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("mask_head.") for name in changed)
    others = {name for name in changed if not name.startswith("mask_head.")}
    adapted_layers = ("q_proj", "k_proj", "v_proj", "in_proj", "out_proj", "fc1", "fc2")
    assert others and all(name.split(".")[-2] in adapted_layers and name.endswith(".weight") for name in others)
    assert type(AutoModelForImageSegmentation.from_pretrained(adapted)) is ReMamberForImageSegmentation


def test_the_merged_model_is_the_one_that_was_trained(adapted):
    log = json.loads((adapted / "trainer_state.json").read_text())["log_history"]
    (trained,) = [entry["eval_loss"] for entry in log if entry["step"] == 4 and "eval_loss" in entry]
    merged = json.loads((adapted / "eval_results.json").read_text())["eval_loss"]
    assert merged == pytest.approx(trained, rel=1e-4)


def test_the_adapters_are_there_alone_and_small(adapted):
    adapters = load_file(adapted / "adapter" / "adapter_model.safetensors")
    assert {"lora_A", "lora_B"} <= {part for name in adapters for part in name.split(".")}
    assert not any("backbone" in name and "lora" not in name for name in adapters)
    assert not (adapted / "checkpoint-4" / "model.safetensors").exists()


def test_frozen_batch_norms_keep_their_statistics_beside_adapters(start, tmp_path):
    pytest.importorskip("peft")
    flags = ["--model", str(start / "conv"), "--data_dir", str(start / "data" / "shapes"), "--do_train", *QUIET]
    main([*flags, "--output_dir", str(tmp_path), "--max_steps", "1", "--lora", '{"target_modules": ["q_proj"]}'])
    before, after = load_file(start / "conv" / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".q_proj." in name for name in changed)


def test_adapters_that_peft_refuses_are_one_line(start, tmp_path):
    pytest.importorskip("peft")
    flags = ["--model", str(start / "conv"), "--data_dir", str(start / "data" / "shapes"), "--do_train", *QUIET]
    flags += ["--output_dir", str(tmp_path)]
    for fields, message in (({"rank": 3}, "unexpected keyword"), ({"target_modules": ["no_layer"]}, "not found")):
        with pytest.raises(ValueError, match=f"--lora is refused by peft: .*{message}"):
            main([*flags, "--lora", json.dumps(fields)])


# What is read


def test_a_mixture_is_evaluated_set_by_set_and_trained_without_leaks(start, tmp_path, capsys):
    data_dir = tmp_path / "data"
    shutil.copytree(start / "data" / "shapes", data_dir)
    shutil.copytree(data_dir / "shapes", data_dir / "others")
    refs_path = data_dir / "others" / "refs(unc).p"
    refs = pickle.loads(refs_path.read_bytes())
    moved = next(ref["image_id"] for ref in refs if ref["split"] == "train")
    for ref in refs:
        ref["split"] = "val" if ref["image_id"] == moved else "train" if ref["split"] == "val" else ref["split"]
    refs_path.write_bytes(pickle.dumps(refs))
    flags = [
        "--model",
        start / "conv",
        "--data_dir",
        data_dir,
        "--dataset",
        "shapes,others",
        "--do_train",
        "--do_eval",
    ]
    main([str(flag) for flag in [*flags, *QUIET, "--output_dir", tmp_path / "out", "--max_eval_samples", 2]])
    before = runs.load_rows(start, "train")["image_id"]
    leaked_from_val = len({*runs.load_rows(start, "val")["ref_id"]})
    removed = f"{before.count(moved)} of shapes, {leaked_from_val} of others"
    printed = capsys.readouterr().out
    assert f"left out, their pictures being in another split of one of these: {removed}" in printed
    metrics = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert {"eval_shapes_miou", "eval_others_miou"} <= metrics.keys()
    card = (tmp_path / "out" / "README.md").read_text()
    assert removed in card and "On the first 2 expressions of the split at most." in card


def test_a_split_is_evaluated_without_any_to_train_on(start, tmp_path):
    rows = runs.load_rows(start, "val").select(range(2))
    export_parquet(datasets.DatasetDict(val=rows), tmp_path / "val_only", "one split")
    flags = ["--model", start / "conv", "--dataset", tmp_path / "val_only", "--do_eval", *QUIET]
    main([str(flag) for flag in [*flags, "--output_dir", tmp_path / "out"]])
    assert "eval_miou" in json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert not (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("name", ["refcoco", "mixed"])
def test_the_published_recipe_runs_with_small_parts(name, tmp_path):
    save_parts(tmp_path)
    for dataset, split_by in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        TinyRefer().write(tmp_path / "data", dataset, split_by)
    small = {
        "data_dir": tmp_path / "data",
        "output_dir": tmp_path / "out",
        "text_model": tmp_path / "clip",
        "vision_model": tmp_path / "vmamba",
        "model_config": json.dumps({"mask_head": "conv", "correlation_size": 8, "text_length": 9}),
        "image_size": 64,
        "num_train_epochs": 2,
        "use_cpu": True,
        "fp16": False,
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }
    flags = [part for field, value in small.items() for part in (f"--{field}", str(value))]
    main([str(PACKAGED / f"{name}.yaml"), *flags])
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    metric = yaml.safe_load((PACKAGED / f"{name}.yaml").read_text())["metric_for_best_model"]
    scores = [entry[f"eval_{metric}"] for entry in state["log_history"] if f"eval_{metric}" in entry]
    assert len(scores) == 2 and state["best_metric"] == max(scores)
    assert load_model(tmp_path / "out", "cpu")[0].config.mask_head == "conv"


@pytest.mark.parametrize(
    "failure, message",
    [
        (
            RuntimeError("WandbCallback requires wandb; run `pip install wandb`."),
            "--report_to tensorboard: WandbCallback",
        ),
        (NotFiniteError("The loss of 10 steps in a row was not finite."), "The loss of 10 steps in a row"),
    ],
)
def test_what_stops_training_is_said_in_one_line(start, tmp_path, monkeypatch, failure, message):
    class Stopped:
        def __init__(self, **kwargs):
            self.is_fsdp_enabled = False
            if not isinstance(failure, NotFiniteError):
                raise failure

        def train(self, **kwargs):
            raise failure

    monkeypatch.setattr(run_training, "ReferringSegmentationTrainer", Stopped)
    flags = ["--data_dir", str(start / "data" / "shapes"), "--model", str(BUNDLED_MODEL), "--report_to", "tensorboard"]
    with pytest.raises(ValueError, match=message):
        run_training.main([*flags, "--do_train", "--use_cpu", "--output_dir", str(tmp_path / "out")])


@pytest.mark.parametrize("module", [["remamber_hf", "train"], ["remamber_hf.run_training"]], ids=" ".join)
def test_the_module_says_an_error_in_one_line(module):
    command = [sys.executable, "-m", *module, "--output_dir", "out"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("remamber: error: no model is named")
    assert "Traceback" not in result.stderr


LAUNCHERS = {  # accelerate starts several processes on CPUs through MPI only
    "torchrun": (["torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29671"], "2 processes"),
    "accelerate": (["accelerate.commands.launch", "--cpu", "--num_processes", "1"], "1 process"),
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_torchrun_and_accelerate_start_the_same_command(launcher, start, tmp_path):
    program, processes = LAUNCHERS[launcher]
    flags = ["--model", start / "conv", "--data_dir", start / "data" / "shapes", "--do_train", "--do_eval", *QUIET]
    command = [sys.executable, "-m", *program, "-m", "remamber_hf", "train", *flags, "--output_dir", tmp_path]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert "UserWarning" not in result.stderr, result.stderr
    assert f"with {processes} on" in (tmp_path / "README.md").read_text()
    assert result.stdout.count("training: ") == 1


def test_a_process_leaves_its_group_before_it_ends(start, tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(PartialState, "destroy_process_group", lambda state: left.append(state.num_processes))
    flags = ["--model", start / "conv", "--data_dir", start / "data" / "shapes", "--do_eval", *QUIET]
    run_training.main([*map(str, flags), "--output_dir", str(tmp_path)])
    assert left == [1]


# docs/training.md


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```(python|bash)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 4
    shutil.copytree(PACKAGED, tmp_path / "recipes")
    for language, code in snippets:
        if language == "python":
            exec(compile(code, "docs/training.md", "exec"), {})
            continue
        for line in code.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line)
            assert program == "remamber"
            monkeypatch.setattr(sys, "argv", ["remamber", *arguments])
            with pytest.raises(SystemExit) as ended:
                remamber()
            assert not ended.value.code, line
    assert all((tmp_path / name).is_file() for name in ("runs/own/README.md", "runs/own/curves.png"))
