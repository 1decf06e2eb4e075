# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`ReferringSegmentationTrainer` with all that users give a Trainer: honoured, or refused in one line."""

import datasets
import numpy as np
import pytest
import torch
from rows import load_model, losses_of, losses_one_by_one, masks_one_by_one, moved, weights_of
from runs import ARGUMENTS, load_rows
from torch import nn
from torch.utils.data import ConcatDataset, IterableDataset, Subset
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments

from remamber_hf import ReMamberForImageSegmentation, ReMamberProcessor
from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import one_row_per_sentence, row_mask
from remamber_hf.training.arguments import PARTS, ReMamberTrainingArguments
from remamber_hf.training.trainer import ReferringSegmentationTrainer


@pytest.fixture(scope="module")
def processor(start):
    return ReMamberProcessor.from_pretrained(start / "conv")


@pytest.fixture(scope="module")
def model_dir(start, processor, tmp_path_factory):
    """A model that finds something in each row, which fresh weights do not."""
    model = load_model(start / "conv")
    rows = load_rows(start, "val")
    with torch.no_grad():
        batch = ReMamberCollator(processor)([rows[index] for index in range(len(rows))])
        model.mask_head.classifier.bias -= model(**batch).logits.median()
    folder = tmp_path_factory.mktemp("found") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def make_trainer(start, model_dir, processor, tmp_path):
    """A trainer of our own arguments; what is named like one of them goes there, None leaves an argument out."""

    def make(**given):
        names = ReMamberTrainingArguments.__dataclass_fields__
        fields = {name: given.pop(name) for name in list(given) if name in names}
        hooks = {
            "args": ReMamberTrainingArguments(output_dir=str(tmp_path / "run"), **{**ARGUMENTS, **fields}),
            "train_dataset": load_rows(start, "train"),
            "eval_dataset": load_rows(start, "val"),
            "processing_class": processor,
        }
        if "model_init" not in given:
            hooks["model"] = load_model(model_dir)
        hooks |= given
        return ReferringSegmentationTrainer(**{name: value for name, value in hooks.items() if value is not None})

    return make


def moved_parts(model, folder) -> set[str]:
    """Names of the parts with weights that are not those of the folder."""
    weights = {name for name, _ in model.named_parameters()}
    names = moved(model, weights_of(load_model(folder))) & weights
    return {next(part for part in PARTS if part in name) for name in names}


def as_rows(refer_rows) -> list[dict]:
    return [{"image": row["image"], "expression": row["sentences"][0], "mask": row_mask(row)} for row in refer_rows]


def mean_iou(found, rows) -> float:
    return np.mean([(mask & row["mask"]).sum() / (mask | row["mask"]).sum() for mask, row in zip(found, rows)])


# ------------------------------------------------------------------------------------------------------------ models


def test_what_is_frozen_stays_so_in_every_model_that_model_init_makes(make_trainer, model_dir):
    made = []

    def model_init():
        made.append(load_model(model_dir))
        return made[-1]

    trainer = make_trainer(model_init=model_init, freeze=["text_encoder", "backbone"])
    for _ in range(2):
        trainer.train()
        assert trainer.model is made[-1]
        assert moved_parts(made[-1], model_dir) == {"fusion", "mask_head"}
    assert not any(weight.requires_grad for model in made for weight in model.remamber.backbone.parameters())


class WithScale(ReMamberForImageSegmentation):
    """A model with a weight besides the four parts."""

    def __init__(self, config):
        super().__init__(config)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixel_values, input_ids=None, labels=None, **kwargs):
        outputs = super().forward(pixel_values, input_ids, **kwargs)
        outputs.logits = outputs.logits * self.scale
        return outputs


def test_a_weight_besides_the_four_parts_is_trained(make_trainer, model_dir):
    model = WithScale.from_pretrained(model_dir)
    with torch.no_grad():
        model.scale.fill_(1.0)
    trainer = make_trainer(model=model, backbone_learning_rate=1e-4)
    trainer.train()
    assert model.scale.item() != 1.0
    rates = {
        group["lr"] for group in trainer.optimizer.param_groups for weight in group["params"] if weight is model.scale
    }
    assert len(rates) == 1


def test_every_trial_of_a_hyperparameter_search_trains_a_model_that_was_prepared(make_trainer, model_dir):
    pytest.importorskip("optuna")
    made, rates = [], []

    def model_init(trial=None):
        made.append(load_model(model_dir))
        return made[-1]

    def objective(metrics):
        rates.append((trainer.args.learning_rate, trainer.model, metrics["eval_miou"]))
        return metrics["eval_miou"]

    trainer = make_trainer(
        model_init=model_init, freeze=["text_encoder"], eval_strategy="steps", eval_steps=2, max_steps=2
    )
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)},
        compute_objective=objective,
        n_trials=2,
        direction="maximize",
        backend="optuna",
    )
    tried = {rate: model for rate, model, _ in rates}
    assert len(tried) == 2 and best.hyperparameters["learning_rate"] in tried
    assert len(set(tried.values())) == 2
    for model in tried.values():
        assert moved_parts(model, model_dir) == {"backbone", "fusion", "mask_head"}


# ---------------------------------------------------------------------------------------------- losses and optimizers


def square_error(outputs, labels, num_items_in_batch=None):
    """As transformers has it: the sum over what is at hand, by the number of samples in the whole step."""
    errors = (outputs.logits[:, 0].sigmoid() - labels.float()).square().mean((1, 2))
    return errors.sum() / (num_items_in_batch or len(errors))


def test_compute_loss_func_is_what_is_trained_and_what_evaluation_reports(make_trainer, start, processor, model_dir):
    trainer = make_trainer(compute_loss_func=square_error)
    model, rows = load_model(model_dir), as_rows(load_rows(start, "val"))
    with torch.no_grad():
        errors = []
        for row in rows:
            batch = processor(row["image"], row["expression"], row["mask"], return_tensors="pt")
            labels = batch.pop("labels")
            errors.append(square_error(model(**batch), labels).item())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert trainer.predict(load_rows(start, "val")).metrics["test_loss"] == pytest.approx(np.mean(errors), rel=1e-4)
    trainer.train()
    assert all(0 < loss < 1 for loss in losses_of(trainer))  # Dice and cross-entropy begin above 1
    assert moved_parts(trainer.model, model_dir) == set(PARTS) - {"presence_head"}  # which this model does not have


@pytest.mark.parametrize("loss_func", [None, square_error])
def test_accumulated_steps_equal_those_of_the_large_batch(make_trainer, model_dir, loss_func):
    ends = []
    for accumulated in (1, 4):
        trainer = make_trainer(
            compute_loss_func=loss_func,
            optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1}),
            freeze=["mask_head"],  # its batch norm mixes the samples of a batch
            per_device_train_batch_size=4 // accumulated,
            gradient_accumulation_steps=accumulated,
            max_steps=2,
        )
        trainer.train()
        ends.append((losses_of(trainer), weights_of(trainer.model)))
    (losses, weights), (expected_losses, expected_weights) = ends
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-4, atol=1e-4)


def test_the_optimizer_that_is_given_is_the_one_that_steps(make_trainer, model_dir):
    model = load_model(model_dir)
    optimizer = torch.optim.SGD(model.mask_head.classifier.parameters(), lr=0.5)
    trainer = make_trainer(model=model, optimizers=(optimizer, None))
    trainer.train()
    names = moved(model, weights_of(load_model(model_dir))) & {name for name, _ in model.named_parameters()}
    assert names == {"mask_head.classifier.weight", "mask_head.classifier.bias"}


def test_optimizer_cls_and_kwargs_give_the_optimizer_and_its_learning_rate(make_trainer):
    trainer = make_trainer(
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.125, "momentum": 0.5}), backbone_learning_rate=0.25
    )
    optimizer = trainer.create_optimizer()
    assert type(optimizer) is torch.optim.SGD
    groups = {(group["lr"], group["momentum"]) for group in optimizer.param_groups}
    assert groups == {(0.125, 0.5), (0.25, 0.5)}


# -------------------------------------------------------------------------------------------------- rows and collators


ROWS = {
    "without ref_id": lambda rows: rows.remove_columns("ref_id"),
    "without any id": lambda rows: rows.remove_columns(["ref_id", "image_id", "category", "bbox", "split"]),
    "with_format numpy": lambda rows: rows.with_format("numpy"),
    "with_format torch": lambda rows: rows.with_format("torch"),
    "with_transform": lambda rows: rows.with_transform(lambda batch: batch),
    "list": list,
    "Subset": lambda rows: Subset(rows, range(len(rows))),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_every_kind_train_and_evaluate_alike(make_trainer, start, name):
    runs = []
    for change in (ROWS[name], lambda rows: rows):
        rows, eval_rows = (change(load_rows(start, split)) for split in ("train", "val"))
        trainer = make_trainer(train_dataset=rows, eval_dataset=eval_rows, max_steps=3)
        trainer.train()
        runs.append([*losses_of(trainer), trainer.evaluate()["eval_loss"]])
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)


@pytest.mark.parametrize("kind", [list, lambda rows: rows])
def test_pictures_without_an_id_cannot_be_grouped_which_is_said_in_one_line(make_trainer, start, kind):
    rows = kind(load_rows(start, "train").remove_columns("image_id"))
    with pytest.raises(ValueError, match="^[^\n]*image_id[^\n]*$"):
        make_trainer(train_dataset=rows, expressions_per_picture=2).train()


def test_a_collator_of_the_users_own_trains_as_the_default_one(make_trainer, processor):
    def collate(rows):
        pictures, texts = [row["image"] for row in rows], [row["sentences"][0] for row in rows]
        return processor(pictures, texts, [row_mask(row) for row in rows], return_tensors="pt")

    runs = []
    for collator in (None, collate, ReMamberCollator(processor)):
        trainer = make_trainer(data_collator=collator)
        trainer.train()
        runs.append([*losses_of(trainer), trainer.evaluate()["eval_loss"]])
    for run in runs[1:]:
        assert run == pytest.approx(runs[0], rel=1e-4)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


REFUSED = {
    "compute_metrics": "compute_metrics is given, and evaluation gathers no masks",
    "preprocess_logits_for_metrics": "preprocess_logits_for_metrics is given, and evaluation gathers no masks",
    "no processor": "processing_class is missing; give ReMamberProcessor",
    "a tokenizer": "processing_class is a CLIPTokenizer.*; give ReMamberProcessor",
    "plain TrainingArguments": "args are a TrainingArguments; give ReMamberTrainingArguments",
    "no arguments": "args are missing; give ReMamberTrainingArguments",
    "a stream of torch": "train_dataset is a Stream, whose rows come without number; give a data set with a length",
    "a stream of datasets": "train_dataset is a IterableDataset, whose rows come without number",
    "a stream to evaluate": "eval_dataset is a IterableDataset, whose rows come without number",
    "a DatasetDict": "train_dataset has train, val; give one split of it",
    "include_for_metrics": "include_for_metrics is .*; evaluation gathers counts only, leave it out",
    "dispatch_batches": "dispatch_batches is true, which cuts shared pictures apart",
    "an optimizer and a learning rate": "an optimizer is given .*; leave out backbone_learning_rate",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_in_one_line(make_trainer, start, processor, tmp_path, name):
    rows = load_rows(start, "val")
    stream = rows.to_iterable_dataset()
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)])
    given = {
        "compute_metrics": {"compute_metrics": dict},
        "preprocess_logits_for_metrics": {"preprocess_logits_for_metrics": dict},
        "no processor": {"processing_class": None},
        "a tokenizer": {"processing_class": processor.tokenizer},
        "plain TrainingArguments": {"args": TrainingArguments(output_dir=str(tmp_path), use_cpu=True)},
        "no arguments": {"args": None},
        "a stream of torch": {"train_dataset": Stream()},
        "a stream of datasets": {"train_dataset": stream},
        "a stream to evaluate": {"eval_dataset": stream},
        "a DatasetDict": {"train_dataset": datasets.DatasetDict(train=rows, val=rows)},
        "include_for_metrics": {"include_for_metrics": ["inputs"]},
        "dispatch_batches": {"accelerator_config": {"dispatch_batches": True}},
        "an optimizer and a learning rate": {"optimizers": (optimizer, None), "backbone_learning_rate": 1e-4},
    }
    with pytest.raises(ValueError, match=REFUSED[name]) as error:
        make_trainer(**given[name])
    assert "\n" not in str(error.value)


def test_rows_of_another_kind_are_refused_in_one_line(make_trainer):
    rows = [{"pixel_values": torch.zeros(3, 64, 64), "labels": torch.zeros(64, 64)}] * 4
    with pytest.raises(ValueError, match="a row has no 'image', but"):
        make_trainer(train_dataset=rows).train()


def test_a_batch_without_labels_is_refused_in_one_line(make_trainer, processor):
    def collate(rows):
        return processor([row["image"] for row in rows], ["cat" for row in rows], return_tensors="pt")

    with pytest.raises(ValueError, match="a batch has no labels, but .*; have the data collator make them"):
        make_trainer(data_collator=collate).train()


# -------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_gives_the_figures_of_the_loop(make_trainer, start, processor, model_dir):
    rows = as_rows(load_rows(start, "val"))
    model = load_model(model_dir)
    metrics = make_trainer(per_device_eval_batch_size=4).evaluate()
    assert metrics["eval_loss"] == pytest.approx(losses_one_by_one(model, processor, rows).mean().item(), rel=1e-4)
    expected = mean_iou(masks_one_by_one(model, processor, rows), rows)
    assert 0.01 < metrics["eval_miou"] == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def whole(start):
    """Rows with all of their sentences, and a row for each sentence."""
    rows = load_refer("shapes", "unc", "val", data_dir=start / "data" / "shapes", expand_sentences=False)
    assert any(len(row["sentences"]) > 1 for row in rows)
    return rows, one_row_per_sentence(rows)


def figures(metrics) -> dict:
    """What was measured, whatever it was called: no times."""
    return {name.split("_")[-1]: value for name, value in metrics.items() if name.endswith(("iou", "loss", "0.5"))}


def test_rows_with_several_sentences_give_the_figures_of_a_row_for_each_every_time(make_trainer, whole):
    rows, expanded = whole
    expected = figures(make_trainer(eval_dataset=expanded).evaluate())
    trainer = make_trainer(eval_dataset=rows)
    assert [figures(trainer.evaluate()) for _ in range(2)] == [expected, expected]
    assert figures(trainer.evaluate(rows)) == expected
    assert figures(trainer.predict(rows).metrics) == expected


@pytest.mark.parametrize("kind", [list, lambda rows: Subset(rows, range(3)), lambda rows: ConcatDataset([rows])])
def test_rows_with_several_sentences_that_cannot_be_expanded_are_refused(make_trainer, whole, kind):
    with pytest.raises(ValueError, match="a row has . sentences, and evaluation counts each; give a row for each"):
        make_trainer(eval_dataset=kind(whole[0])).evaluate()


@pytest.mark.parametrize("kind", [dict, datasets.DatasetDict])
def test_every_data_set_of_a_mapping_has_its_figures(make_trainer, start, whole, kind):
    rows, expanded = whole
    test_rows = load_rows(start, "testA")
    metrics = make_trainer(eval_dataset=kind(val=rows, testA=test_rows)).evaluate()
    for name, single in (("val", expanded), ("testA", test_rows)):
        expected = make_trainer(eval_dataset=single).evaluate()
        for figure in ("miou", "oiou", "loss"):
            assert metrics[f"eval_{name}_{figure}"] == pytest.approx(expected[f"eval_{figure}"], rel=1e-6)


class Seen(TrainerCallback):
    def __init__(self):
        self.metrics, self.steps = [], 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.metrics.append(metrics)

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1


def test_callbacks_see_steps_and_metrics_and_may_stop_early_with_the_best_model(make_trainer):
    seen = Seen()
    trainer = make_trainer(
        callbacks=[seen, EarlyStoppingCallback(early_stopping_patience=2)],
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        max_steps=8,
        learning_rate=0.5,  # so that it soon gets worse
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
    )
    trainer.train()
    losses = [metrics["eval_loss"] for metrics in seen.metrics]
    assert seen.steps == len(losses) < 8
    assert trainer.state.best_metric == min(losses)
    best = load_model(trainer.state.best_model_checkpoint)
    torch.testing.assert_close(weights_of(trainer.model), weights_of(best), rtol=0, atol=0)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)
