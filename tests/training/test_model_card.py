# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The model card says what happened, keeps to itself what is private, and is sent with the right files."""

import shlex
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled

from remamber_hf import ReMamberConfig
from remamber_hf.data.mixture import DataSource
from remamber_hf.inference import environment
from remamber_hf.training import model_card
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.model_card import TrainingRun, make_card, push_folder, write_model_card


METRICS = {
    "miou": 0.71,
    "oiou": 0.72,
    **{f"precision@{threshold}": threshold for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)},
}
PROCESSOR = SimpleNamespace(image_processor=SimpleNamespace(size={"height": 480, "width": 320}))


def prefixed(prefix: str, factor: float = 1.0) -> dict[str, float]:
    return {f"eval_{prefix}{name}": factor * value for name, value in METRICS.items()}


@pytest.fixture
def run():
    refcoco = DataSource("refcoco", datasets.DatasetDict(), "unc")
    return TrainingRun(
        sources=[refcoco],
        num_rows=1234,
        num_removed={"refcoco": 0},
        train_split="train",
        eval_split="val",
        given={
            "learning_rate": 0.001,
            "data_dir": "/home/me/data",
            "output_dir": "/home/me/out",
            "hub_token": "hf_abc",
        },
        license="apache-2.0",
        metrics={**prefixed(""), "eval_runtime": 3.0},
        runtime=120.0,
        is_resumed=False,
        steps=500,
        epochs=2.5,
    )


@pytest.fixture
def arguments(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    return ReMamberTrainingArguments(
        output_dir=str(folder), use_cpu=True, hub_model_id="me/my-model", seed=7, ema_decay=0.9, do_eval=True
    )


def card_of(run, arguments) -> ModelCard:
    write_model_card(ReMamberConfig(), PROCESSOR, run, arguments)
    return ModelCard.load(f"{arguments.output_dir}/README.md")


def test_metrics_are_in_the_model_index_and_in_a_table(run, arguments):
    card = card_of(run, arguments)
    results = {result.metric_type: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == METRICS
    assert {(result.dataset_type, result.dataset_name, result.dataset_split) for result in results.values()} == {
        ("refcoco", "refcoco (unc)", "val")
    }
    assert card.data.model_name == "my-model" and card.data.license == "apache-2.0"
    assert "| refcoco (unc) | val | 0.7100 | 0.7200 | 0.5000 |" in card.text


def test_every_set_of_a_mixture_and_what_was_removed_is_told(run, arguments):
    sources = [*run.sources, DataSource("refcoco+", datasets.DatasetDict(), "unc")]
    metrics = {**prefixed("refcoco_"), **prefixed("refcoco+_", 0.5)}
    mixed = replace(run, sources=sources, metrics=metrics, num_removed={"refcoco": 12, "refcoco+": 34})
    card = card_of(mixed, arguments)
    assert {result.dataset_name for result in card.data.eval_results} == {"refcoco (unc)", "refcoco+ (unc)"}
    assert "| refcoco+ (unc) | val | 0.3550 |" in card.text
    assert "12 of refcoco, 34 of refcoco+" in card.text


def test_a_set_whose_sentences_may_mean_nothing_has_its_own_table_and_legend(run, arguments):
    grefs = {"giou": 0.61, "ciou": 0.62, "n_acc": 0.63, "giou_none": 0.63, "giou_many": 0.64}  # no single target
    sources = [*run.sources, DataSource("grefcoco", datasets.DatasetDict(), "unc")]
    metrics = {**prefixed("refcoco_"), **{f"eval_grefcoco_{name}": value for name, value in grefs.items()}}
    metrics["eval_grefcoco_ema_giou"] = 0.5
    card = card_of(replace(run, sources=sources, metrics=metrics), arguments)
    assert (
        "| data set | split | mIoU | oIoU | P@0.5 |" in card.text and "share of expressions with an\nIoU" in card.text
    )
    assert "| data set | split | gIoU | cIoU | N-acc | gIoU, none | gIoU, many |" in card.text
    assert "| grefcoco (unc) | val | 0.6100 | 0.6200 | 0.6300 | 0.6300 | 0.6400 |" in card.text
    assert "| grefcoco (unc), averaged weights (`ema/`) | val | 0.5000 | – | – | – | – |" in card.text
    assert "N-acc the share of expressions that mean" in card.text
    found = {(result.dataset_type, result.metric_name) for result in card.data.eval_results}
    assert {("grefcoco", "N-acc"), ("grefcoco", "gIoU, many"), ("refcoco", "mIoU")} <= found
    assert ("grefcoco", "mIoU") not in found
    assert "N-acc" not in card_of(run, arguments).text


def test_the_card_says_whether_the_model_says_that_nothing_is_meant(run, arguments):
    for predicts_presence, words in (
        (False, "It may answer with a mask also where nothing"),
        (True, "(`presence_logits`)"),
    ):
        write_model_card(ReMamberConfig(predicts_presence=predicts_presence), PROCESSOR, run, arguments)
        assert words in ModelCard.load(f"{arguments.output_dir}/README.md").text


def test_averaged_weights_are_in_the_table_but_not_in_the_index(run, arguments):
    card = card_of(replace(run, metrics={**prefixed(""), **prefixed("ema_", 0.5)}), arguments)
    assert "| refcoco (unc), averaged weights (`ema/`) | val | 0.3550 |" in card.text
    assert len(card.data.eval_results) == len(METRICS)


def test_the_recipe_is_there_without_folders_and_secrets(run, arguments):
    given = {**run.given, "model": str(arguments.output_dir), "model_config": {"mask_head": "mamba"}}
    text = card_of(replace(run, given=given), arguments).text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    found = {"dataset": "refcoco", "split_by": "unc"}
    assert recipe == {"learning_rate": 0.001, "model": "my-model", "model_config": {"mask_head": "mamba"}, **found}
    assert "model_config:\n  mask_head: mamba\n" in text
    assert "/home/me" not in text and "hf_abc" not in text and str(arguments.output_dir) not in text


def test_the_recipe_of_a_run_on_sentences_that_may_mean_nothing_is_told(run, arguments):
    told = {"generalized": True, "predicts_presence": True, "no_target_share": 0.3}
    text = card_of(replace(run, given={**run.given, **told}), arguments).text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]).items() >= told.items()


def test_names_on_the_hub_are_linked(run, arguments):
    given = {"text_model": "openai/clip-vit-large-patch14", "vision_model": str(arguments.output_dir)}
    card = card_of(replace(run, given=given), arguments)
    assert card.data.base_model == ["openai/clip-vit-large-patch14"] and card.data.datasets is None
    card = card_of(replace(run, given={"dataset": "me/pictures"}), arguments)
    assert card.data.datasets == ["me/pictures"]


def test_the_bundled_model_is_no_name_on_the_hub(run, arguments):
    card = card_of(replace(run, given={"model": "bundled", "data_dir": "data", "output_dir": "out"}), arguments)
    assert card.data.base_model is None and "bundled" in card.text


def test_what_was_not_said_or_done_is_said_to_be_missing(run, arguments):
    card = card_of(replace(run, license=None, metrics={}), arguments)
    assert card.data.license == "other" and card.data.eval_results is None
    assert "No licence was given for the weights." in card.text and "Not evaluated in this run." in card.text


def test_the_environment_is_that_of_the_run(run, arguments):
    text = card_of(run, arguments).text
    assert "500 steps of 8 objects (2.5 epochs), seed 7, float32" in text
    assert "2 minutes with 1 process on" in text and "torch 2." in text
    assert "2 minutes since it was resumed with 1" in card_of(replace(run, is_resumed=True), arguments).text


def test_what_training_began_with_is_told_without_folders(run, arguments):
    folder = str(arguments.output_dir)
    starts = {
        "Trained on from `my-model`.": {"model": folder},
        "text encoder of `a/clip` and the backbone `my-model`.": {"text_model": "a/clip", "vision_model": folder},
        "from nothing, with the tokenizer of `my-model`.": {"tokenizer": folder},
        "from nothing, with a tokenizer trained on the sentences.": {},
    }
    for text, given in starts.items():
        card = card_of(replace(run, given=given), arguments).text
        assert text in card and folder not in card


def test_a_clone_that_is_not_installed_gets_its_card_too(run, arguments, monkeypatch):
    def version(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(environment, "version", version)
    assert "remamber_hf not installed" in card_of(run, arguments).text


# The push


class Hub:
    """Takes what HfApi would send; `calls` is what was asked of it."""

    def __init__(self, error=None):
        self.calls, self.error = [], error

    def __call__(self, token=None):
        return self

    def create_repo(self, repo_id, **kwargs):
        if self.error:
            raise self.error
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, **kwargs):
        self.calls.append(kwargs)


@pytest.fixture
def sent(arguments):
    """The files that are to be sent of a folder with more than these."""
    folder = Path(arguments.output_dir)
    sent = {"README.md", "config.json", "model.safetensors", "modeling_remamber.py", "curves.png", "tokenizer.json"}
    sent |= {"ema/model.safetensors", "ema/config.json", "eval_results.json"}
    kept = {
        "training_args.bin",
        "trainer_state.json",
        "checkpoint-5/model.safetensors",
        "runs/events",
        "samples/a.png",
        "ema/training_args.bin",
        "nonfinite_batches.json",
        "adapter/adapter_model.safetensors",
    }
    for name in sent | kept:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    return sent


def test_the_push_sends_model_code_card_and_no_run_files(arguments, sent, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(model_card, "HfApi", hub)
    assert push_folder(arguments) == "https://huggingface.co/me/my-model"
    (call,) = hub.calls
    assert set(call["allow_patterns"]) == sent and call["repo_id"] == "me/my-model"


def test_what_an_earlier_run_left_in_the_folder_is_not_pushed(arguments, sent, monkeypatch):
    monkeypatch.setattr(model_card, "HfApi", hub := Hub())
    arguments.ema_decay, arguments.do_eval = None, False
    push_folder(arguments)
    left = {"ema/model.safetensors", "ema/config.json", "eval_results.json"}
    assert set(hub.calls[0]["allow_patterns"]) == sent - left


@pytest.mark.parametrize(
    "error", [OfflineModeIsEnabled("Cannot reach the Hub."), model_card.HTTP_ERROR("no route"), ValueError("bad name")]
)
def test_a_push_that_fails_says_how_to_send_the_folder_later(arguments, sent, monkeypatch, error):
    monkeypatch.setattr(model_card, "HfApi", Hub(error))
    arguments.hub_private_repo = True
    with pytest.raises(ValueError, match="the model is whole in .*my-model, but the push .*; .*`hf upload") as failure:
        push_folder(arguments)
    command = shlex.split(str(failure.value).split("`")[3])
    assert command[:5] == ["hf", "upload", "me/my-model", arguments.output_dir, "--private"]
    assert command[5::2] == ["--include"] * len(sent) and set(command[6::2]) == sent


# What is told


@pytest.mark.parametrize("kind", ["xpu", "npu", "hpu", "mps", "cuda", "neuron", "privateuseone", "meta"])
def test_a_card_is_written_on_any_device(run, arguments, monkeypatch, kind):
    device = SimpleNamespace(type=kind)
    monkeypatch.setattr(ReMamberTrainingArguments, "device", device)
    assert f"2 minutes with 1 process on {kind}" in card_of(run, arguments).text


def test_no_argument_tells_a_path_or_a_secret(run, arguments):
    secret = "/home/me/secret/file.json"
    fields = {**vars(arguments), "model_config": 0, "lora": 0, "data_dir": 0, "dataset": 0, "unheard_of": 0}
    for value in (secret, {"key": secret, secret: 1, "deep": [{"key": secret}, secret]}, [secret], "hf_secret"):
        given = dict.fromkeys(fields, value)
        arguments.hub_model_id = None
        card = make_card(ReMamberConfig(), PROCESSOR, replace(run, given=given, license=None), arguments)
        assert (
            "/home/me" not in card
            and "secret/" not in card
            and "hf_secret" not in card.replace("dataset: hf_secret", "")
        )


def find_told(card: str, value: str) -> list[str]:
    """The arguments of a card's recipe with this value; a name of a model or data set may be anything."""
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    return [name for name, told in recipe.items() if told == value]


def test_whole_numbers_are_written_whole(run, arguments):
    given = {"num_train_epochs": 10.0, "weight_decay": 0.0, "lr_scheduler_kwargs": {"min_lr": 1.0}}
    metrics = dict.fromkeys(run.metrics, 1.0)
    card = card_of(replace(run, given=given, epochs=10.0, runtime=1.4, metrics=metrics), arguments)
    assert "num_train_epochs: 10\n" in card.text and "weight_decay: 0\n" in card.text and "min_lr: 1\n" in card.text
    assert "(10 epochs)" in card.text and "- 1 second with" in card.text and ".0 " not in card.content.split("Data")[0]
    assert "value: 1\n" in card.content


def test_the_number_of_parameters_is_told(run, arguments):
    assert "It has 1,234,567 parameters." in card_of(replace(run, num_parameters=1234567), arguments).text


def test_the_averaged_weights_have_a_card_of_their_own(run, arguments):
    folder = Path(arguments.output_dir) / "ema"
    folder.mkdir()
    card_of(replace(run, metrics={**prefixed(""), **prefixed("ema_", 0.5)}), arguments)
    card = ModelCard.load(folder / "README.md")
    assert {result.metric_type: result.metric_value for result in card.data.eval_results}["miou"] == 0.355
    assert 'from_pretrained(name, subfolder="ema", trust_remote_code=True)' in card.text
    assert "the moving average of the trained ones, with decay 0.9" in card.text


def test_a_folder_that_is_written_as_a_dot_has_its_name(run, arguments, tmp_path, monkeypatch):
    (tmp_path / "lions").mkdir()
    monkeypatch.chdir(tmp_path / "lions")
    arguments.output_dir, arguments.hub_model_id = ".", None
    run = replace(run, given={**run.given, "model": "."})
    card = make_card(ReMamberConfig(), PROCESSOR, run, arguments)
    assert "\n# lions\n" in card and "Trained on from `lions`." in card
