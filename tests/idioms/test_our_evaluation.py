# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation by `ReferringSegmentationTrainer` in the ways that users of Trainer know."""

import pytest
import torch
from rows import losses_of
from runs import ARGUMENTS, load_rows

from remamber_hf import ReMamberForImageSegmentation, ReMamberProcessor
from remamber_hf.data.rows import one_row_per_sentence
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.trainer import ReferringSegmentationTrainer


@pytest.fixture
def make_trainer(start, tmp_path):
    def make(trainer_class=ReferringSegmentationTrainer, **given):
        names = ReMamberTrainingArguments.__dataclass_fields__
        fields = {name: given.pop(name) for name in list(given) if name in names}
        hooks = {
            "model": ReMamberForImageSegmentation.from_pretrained(start / "conv"),
            "args": ReMamberTrainingArguments(output_dir=str(tmp_path / "run"), **{**ARGUMENTS, **fields}),
            "train_dataset": load_rows(start, "train"),
            "eval_dataset": load_rows(start, "val"),
            "processing_class": ReMamberProcessor.from_pretrained(start / "conv"),
        }
        return trainer_class(**{**hooks, **given})

    return make


@pytest.mark.parametrize("is_kept", [False, True])
def test_each_of_several_evaluation_sets_has_its_own_scores(make_trainer, start, is_kept):
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True} if is_kept else {}
    sets = {"train": load_rows(start, "train").select(range(3)), "val": load_rows(start, "val")}
    metrics = make_trainer(eval_dataset=dict(sets), **workers).evaluate()
    for name, rows in sets.items():
        alone = make_trainer(eval_dataset=one_row_per_sentence(rows)).evaluate()
        assert metrics[f"eval_{name}_loss"] == pytest.approx(alone["eval_loss"], rel=1e-5)
    assert metrics["eval_train_loss"] != metrics["eval_val_loss"]


class OtherLoss(ReferringSegmentationTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**{name: value for name, value in inputs.items() if name != "ref_ids"})
        loss = outputs.loss * 0 + 7.0
        return (loss, outputs) if return_outputs else loss


def test_the_loss_of_a_subclass_is_the_one_that_evaluation_reports(make_trainer):
    trainer = make_trainer(OtherLoss, max_steps=1)
    trainer.train()
    assert losses_of(trainer) == [7.0]
    assert trainer.evaluate()["eval_loss"] == 7.0


def test_a_transform_of_rows_with_several_sentences_is_applied_once(make_trainer, start):
    def mark(rows):
        assert all(hasattr(picture, "size") for picture in rows["image"])
        return {**rows, "sentences": [[f"{sentence} x" for sentence in row] for row in rows["sentences"]]}

    rows = load_rows(start, "train").select(range(2))
    trainer = make_trainer(eval_dataset=rows.with_transform(mark))
    expected = [f"{sentence} x" for row in rows for sentence in row["sentences"]]
    tokens = torch.cat([batch["input_ids"] for batch in trainer.get_eval_dataloader()])
    assert torch.equal(tokens, trainer.processing_class(text=expected, return_tensors="pt")["input_ids"])


def test_rows_that_are_given_later_are_trained_on(make_trainer, start):
    rows = load_rows(start, "train")
    expected = make_trainer(train_dataset=rows.select(range(5)), max_steps=2)
    expected.train()
    trainer = make_trainer(max_steps=2)
    trainer.train_dataset = rows.select(range(5))
    trainer.train()
    assert losses_of(trainer) == losses_of(expected)


def test_a_loop_over_the_trainers_own_loader_gives_its_loss(make_trainer):
    trainer = make_trainer()
    batch = next(iter(trainer.get_train_dataloader()))
    assert "ref_ids" in batch
    loss = trainer.compute_loss(trainer.model.eval(), batch)
    del batch["ref_ids"]
    torch.testing.assert_close(loss, trainer.model(**batch).loss)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"freeze": ["text_encoder"], "gradient_checkpointing_kwargs": {"use_reentrant": True}},
            "use_reentrant is true",
        ),
        ({"backbone_learning_rate": "1e-3"}, "backbone_learning_rate is '1e-3'; give a number"),
        ({"train_dataset": []}, "train_dataset has no rows; give some"),
    ],
)
def test_what_would_train_nothing_or_something_else_is_refused(make_trainer, given, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**given).train()


@pytest.mark.parametrize(("freeze", "expected"), [("backbone", ["backbone"]), (None, []), (("fusion",), ["fusion"])])
def test_what_is_frozen_may_be_named_in_any_form(make_trainer, freeze, expected):
    assert make_trainer(freeze=freeze).args.freeze == expected
