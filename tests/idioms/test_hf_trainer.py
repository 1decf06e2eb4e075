# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""transformers' own `Trainer` with our model: a dataset of processed rows, or `ReMamberCollator` over `load_refer`."""

import numpy as np
import pytest
import torch
from rows import SIDE, load_model, logits_one_by_one, losses_of, losses_one_by_one, make_rows, moved, weights_of
from runs import load_rows
from torch.utils.data import IterableDataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from remamber_hf import ReMamberProcessor
from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.rows import row_mask
from remamber_hf.modeling_vmamba import ScanLayerNorm
from remamber_hf.training.parameter_groups import parameter_groups


CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def process(processor, rows) -> list[dict]:
    batches = [processor(row["image"], row["expression"], row["mask"], return_tensors="pt") for row in rows]
    return [{name: tensor[0] for name, tensor in batch.items()} for batch in batches]


@pytest.fixture(scope="module")
def dataset(processor):
    return process(processor, make_rows())


@pytest.fixture
def make_trainer(model, dataset, tmp_path):
    def make(
        trained=model, train_dataset=dataset, eval_dataset=dataset, callbacks=(), optimizers=(None, None), **given
    ):
        names = ("compute_metrics", "preprocess_logits_for_metrics", "compute_loss_func", "model_init")
        hooks = {name: given.pop(name) for name in names + ("data_collator", "processing_class") if name in given}
        common = {
            "output_dir": str(tmp_path / "run"),
            "use_cpu": True,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "max_steps": 3,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "seed": 3,
        }
        args = TrainingArguments(**{**common, **given})
        return Trainer(
            trained,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=list(callbacks),
            optimizers=optimizers,
            **hooks,
        )

    return make


def freeze_head(model):
    """Its batch norm mixes the samples of a batch, so that parts of one would differ from the whole."""
    model.mask_head.requires_grad_(False)
    return model


def ious(logits, labels) -> np.ndarray:
    found, truth = np.asarray(logits)[:, 0] > 0, np.asarray(labels) > 0
    return (found & truth).sum((1, 2)) / (found | truth).sum((1, 2))


# -------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_eval_loss_is_the_mean_of_the_single_losses_with_an_uneven_last_batch(
    make_trainer, model, processor, batch_size
):
    metrics = make_trainer(per_device_eval_batch_size=batch_size).evaluate()
    expected = losses_one_by_one(model, processor, make_rows()).mean().item()
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_predict_gives_one_prediction_per_row_in_order(make_trainer, model, processor):
    prediction = make_trainer().predict(process(processor, make_rows()))
    torch.testing.assert_close(
        torch.tensor(prediction.predictions), logits_one_by_one(model, processor, make_rows()), **CLOSE
    )
    assert prediction.label_ids.shape == (5, SIDE, SIDE)


def test_an_iou_in_compute_metrics_equals_the_loop(make_trainer, model, processor, dataset):
    def compute_metrics(prediction):
        return {"miou": ious(prediction.predictions, prediction.label_ids).mean()}

    expected = ious(logits_one_by_one(model, processor, make_rows()), [row["labels"] for row in dataset])
    metrics = make_trainer(compute_metrics=compute_metrics).evaluate()
    assert metrics["eval_miou"] == pytest.approx(expected.mean(), rel=1e-4)


def test_logits_are_the_first_that_preprocess_logits_for_metrics_is_given(make_trainer, model, processor, dataset):
    def preprocess(logits, labels):
        return logits > 0

    def compute_metrics(prediction):
        assert prediction.predictions.shape == (5, 1, SIDE, SIDE)
        return {"miou": ious(prediction.predictions, prediction.label_ids).mean()}

    expected = ious(logits_one_by_one(model, processor, make_rows()), [row["labels"] for row in dataset])
    trainer = make_trainer(compute_metrics=compute_metrics, preprocess_logits_for_metrics=preprocess)
    assert trainer.evaluate()["eval_miou"] == pytest.approx(expected.mean(), rel=1e-4)


def test_batch_eval_metrics_see_every_row_once(make_trainer, model, processor, dataset):
    found = []

    def compute_metrics(prediction, compute_result):
        found.extend(ious(prediction.predictions, prediction.label_ids))
        return {"miou": np.mean(found)} if compute_result else {}

    expected = ious(logits_one_by_one(model, processor, make_rows()), [row["labels"] for row in dataset])
    metrics = make_trainer(compute_metrics=compute_metrics, batch_eval_metrics=True).evaluate()
    assert found == pytest.approx(expected.tolist(), rel=1e-4)
    assert metrics["eval_miou"] == pytest.approx(expected.mean(), rel=1e-4)


def test_inputs_for_metrics_are_the_pictures_of_the_rows(make_trainer, dataset):
    def compute_metrics(prediction):
        pictures = torch.stack([row["pixel_values"] for row in dataset])
        torch.testing.assert_close(torch.tensor(prediction.inputs), pictures)
        return {"rows": len(prediction.inputs)}

    trainer = make_trainer(compute_metrics=compute_metrics, include_for_metrics=["inputs", "loss"])
    assert trainer.evaluate()["eval_rows"] == 5


def test_label_names_that_name_the_labels_change_nothing(make_trainer):
    assert make_trainer(label_names=["labels"]).evaluate()["eval_loss"] == make_trainer().evaluate()["eval_loss"]


# ------------------------------------------------------------------------------------------------ rows of load_refer


@pytest.fixture(scope="module")
def refer(start):
    """Model, processor, and the rows of a small data set, of which several have one picture."""
    processor = ReMamberProcessor.from_pretrained(start / "conv")
    return load_model(start / "conv"), processor, load_rows(start, "val")


def refer_as_rows(rows) -> list[dict]:
    return [{"image": row["image"], "expression": row["sentences"][0], "mask": row_mask(row)} for row in rows]


@pytest.mark.parametrize("share_pictures", [False, True])
def test_the_collator_over_rows_of_load_refer_gives_losses_and_predictions_of_the_loop(
    make_trainer, refer, share_pictures
):
    model, processor, rows = refer
    collator = ReMamberCollator(processor, share_pictures=share_pictures)
    trainer = make_trainer(
        model,
        eval_dataset=rows,
        data_collator=collator,
        remove_unused_columns=False,
        per_device_eval_batch_size=4,
    )
    expected = losses_one_by_one(model, processor, refer_as_rows(rows)).mean().item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-4)
    logits = torch.tensor(trainer.predict(rows).predictions)
    torch.testing.assert_close(logits, logits_one_by_one(model, processor, refer_as_rows(rows)), **CLOSE)


def test_the_collator_trains_on_rows_of_load_refer(make_trainer, refer, start):
    _, processor, _ = refer
    model = load_model(start / "conv")
    before = weights_of(model)
    trainer = make_trainer(
        model,
        train_dataset=load_rows(start, "train"),
        data_collator=ReMamberCollator(processor),
        remove_unused_columns=False,
        processing_class=processor,
        logging_steps=1,
    )
    trainer.train()
    assert len(losses_of(trainer)) == 3
    assert not torch.equal(before["mask_head.classifier.weight"], model.mask_head.classifier.weight)


def test_columns_that_were_removed_are_named(make_trainer, refer):
    model, processor, rows = refer
    trainer = make_trainer(model, eval_dataset=rows, data_collator=ReMamberCollator(processor))
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        trainer.evaluate()


# ---------------------------------------------------------------------------------------------------------- training


def sgd(model):
    return torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1), None


def test_accumulated_steps_equal_those_of_the_large_batch(make_trainer, folder, processor):
    rows = process(processor, make_rows(4))
    ends = []
    for accumulated in (1, 2, 4):
        model = freeze_head(load_model(folder))
        trainer = make_trainer(
            model,
            train_dataset=rows,
            optimizers=sgd(model),
            per_device_train_batch_size=4 // accumulated,
            gradient_accumulation_steps=accumulated,
            max_steps=2,
            logging_steps=1,
        )
        trainer.train()
        ends.append((losses_of(trainer), weights_of(model)))
    for losses, weights in ends[1:]:
        assert losses == pytest.approx(ends[0][0], rel=1e-4)
        torch.testing.assert_close(weights, ends[0][1], **CLOSE)


class Gradients(TrainerCallback):
    """Keeps the gradients of each step: optimizers may hide a constant factor, and so may clipping."""

    def __init__(self):
        self.found = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.found.append(
            {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}
        )


def test_accumulated_gradients_are_those_of_the_large_batch(make_trainer, folder, processor):
    rows = process(processor, make_rows(4))
    steps = []
    for accumulated in (1, 4):
        model, gradients = freeze_head(load_model(folder)), Gradients()
        trainer = make_trainer(
            model,
            train_dataset=rows,
            callbacks=[gradients],
            per_device_train_batch_size=4 // accumulated,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
            max_grad_norm=0.0,
        )
        assert not trainer.model_accepts_loss_kwargs
        trainer.train()
        (step,) = gradients.found
        steps.append(step)
    assert any(gradient.abs().max() > 1e-2 for gradient in steps[0].values())
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-3, atol=1e-6)


def test_a_step_is_that_of_the_mean_of_the_single_losses(make_trainer, folder, processor):
    rows = process(processor, make_rows(4))
    trained, expected = freeze_head(load_model(folder)), freeze_head(load_model(folder)).train()
    make_trainer(
        trained,
        train_dataset=rows,
        optimizers=sgd(trained),
        per_device_train_batch_size=4,
        max_steps=1,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
    ).train()
    optimizer, _ = sgd(expected)
    for row in rows:
        loss = expected(**{name: tensor[None] for name, tensor in row.items()}).loss
        (loss / len(rows)).backward()
    optimizer.step()
    torch.testing.assert_close(weights_of(trained), weights_of(expected), **CLOSE)


def test_model_init_makes_the_model_that_is_trained(make_trainer, folder):
    made = []

    def model_init():
        made.append(load_model(folder))
        return made[-1]

    trainer = make_trainer(None, model_init=model_init)
    trainer.train()
    start = weights_of(load_model(folder))
    assert trainer.model is made[-1]
    assert not torch.equal(
        weights_of(trainer.model)["mask_head.classifier.weight"], start["mask_head.classifier.weight"]
    )


def test_after_early_stopping_the_best_model_is_loaded_key_by_key(make_trainer, model, tmp_path):
    trainer = make_trainer(
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        max_steps=8,
        learning_rate=1.0,  # so that it soon gets worse
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    trainer.train()
    assert trainer.state.global_step < 8
    best = load_model(trainer.state.best_model_checkpoint)
    torch.testing.assert_close(weights_of(model), weights_of(best), rtol=0, atol=0)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-4)


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_broken_key_by_key(make_trainer, folder, tmp_path):
    whole = load_model(folder)
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1}
    unbroken = make_trainer(whole, **saving)
    unbroken.train()
    resumed = load_model(folder)
    with torch.no_grad():
        for weight in resumed.parameters():
            weight.zero_()
    trainer = make_trainer(resumed, **saving)
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)
    assert losses_of(trainer) == losses_of(unbroken)


def test_weight_decay_by_parameter_groups_leaves_recurrence_norms_and_biases(make_trainer, folder):
    model = load_model(folder)
    before = weights_of(model)
    zero = torch.optim.AdamW(parameter_groups(model, 0.1), lr=0.5)

    def no_loss(outputs, labels, num_items_in_batch=None):
        return outputs.logits.sum() * 0.0  # what moves is decayed

    make_trainer(
        model, optimizers=(zero, None), compute_loss_func=no_loss, max_steps=1, lr_scheduler_type="constant"
    ).train()
    kept = before.keys() - moved(model, before)
    assert not any(name.endswith("x_proj_weight") for name in kept)
    assert {name for name in before if name.endswith(("A_log", ".D", ".bias", "_bias"))} <= kept
    norms = [
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.LayerNorm, torch.nn.BatchNorm2d, ScanLayerNorm))
    ]
    assert norms and set(norms) <= kept


def test_compute_loss_func_is_the_loss_that_is_trained_and_evaluated(make_trainer, model, processor, dataset):
    def loss_func(outputs, labels, num_items_in_batch=None):
        return (outputs.logits[:, 0].sigmoid() - labels.float()).square().mean()

    metrics = make_trainer(compute_loss_func=loss_func).evaluate()
    logits = logits_one_by_one(model, processor, make_rows())
    labels = torch.stack([row["labels"] for row in dataset])
    expected = (logits[:, 0].sigmoid() - labels.float()).square().mean().item()
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_gradient_checkpointing_gives_the_losses_of_a_run_without(make_trainer, folder):
    runs = []
    for checkpointing in (False, True):
        trainer = make_trainer(load_model(folder), gradient_checkpointing=checkpointing, logging_steps=1)
        trainer.train()
        runs.append(losses_of(trainer))
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)


def test_bfloat16_on_a_cpu_is_close_to_float32(make_trainer, folder):
    runs = []
    for bf16 in (False, True):
        trainer = make_trainer(load_model(folder), bf16=bf16, logging_steps=1)
        trainer.train()
        runs.append([*losses_of(trainer), trainer.evaluate()["eval_loss"]])
    assert runs[1] == pytest.approx(runs[0], rel=0.05)


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_a_stream_with_max_steps_trains_and_evaluates_as_the_rows_do(make_trainer, folder, dataset):
    model, expected = freeze_head(load_model(folder)), freeze_head(load_model(folder)).train()
    trainer = make_trainer(
        model,
        train_dataset=Stream(dataset),
        eval_dataset=Stream(dataset),
        optimizers=sgd(model),
        max_steps=1,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
    )
    trainer.train()
    optimizer, _ = sgd(expected)
    for row in dataset[:2]:
        (expected(**{name: tensor[None] for name, tensor in row.items()}).loss / 2).backward()
    optimizer.step()
    torch.testing.assert_close(weights_of(model), weights_of(expected), **CLOSE)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(make_trainer(model).evaluate()["eval_loss"], rel=1e-5)


def test_hyperparameter_search_tries_what_it_is_given(make_trainer, folder):
    pytest.importorskip("optuna")
    rates = []

    def space(trial):
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)}

    def model_init(trial=None):
        return load_model(folder)

    trainer = make_trainer(None, model_init=model_init, eval_strategy="steps", eval_steps=3)
    best = trainer.hyperparameter_search(
        hp_space=space,
        compute_objective=lambda metrics: rates.append(trainer.args.learning_rate) or metrics["eval_loss"],
        n_trials=2,
        direction="minimize",
        backend="optuna",
    )
    assert len(set(rates)) == 2 and best.hyperparameters["learning_rate"] in rates
