# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Training with sentences that mean nothing: the presence head as a part, its loss, the share of such sentences."""

import json

import pytest
import torch
from runs import ARGUMENTS, losses_of, weights_of

from remamber_hf import ReMamberForImageSegmentation, ReMamberProcessor, load_model, load_refer, run_training
from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.rows import target_kind
from remamber_hf.losses_remamber import presence_loss
from remamber_hf.synthetic.dataset import synthesize
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.trainer import ReferringSegmentationTrainer


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generalized") / "data"
    synthesize(folder, 12, 0, num_workers=1, no_target=True, many=True, progress=False)
    return folder


@pytest.fixture(scope="module")
def rows(data_dir):
    return load_refer("shapes", "unc", "train", data_dir=data_dir, generalized=True)


def make(start, output_dir, rows, predicts_presence=True, **arguments):
    model = ReMamberForImageSegmentation.from_pretrained(start / "conv", predicts_presence=predicts_presence)
    return ReferringSegmentationTrainer(
        model=model,
        args=ReMamberTrainingArguments(output_dir=str(output_dir), **{**ARGUMENTS, **arguments}),
        train_dataset=rows,
        processing_class=ReMamberProcessor.from_pretrained(start / "conv"),
    )


def test_the_head_is_trained_with_the_rest_by_its_weighted_loss(start, tmp_path, rows):
    trainer = make(start, tmp_path, rows, max_steps=3)
    before = weights_of(trainer)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    outputs = trainer.model(**{name: value for name, value in batch.items() if name not in ("labels", "ref_ids")})
    expected = trainer.weighted_loss(outputs.logits, batch["labels"])
    expected = expected + 0.2 * presence_loss(outputs.presence_logits, batch["labels"], batch["is_present"])
    trainer.model.load_state_dict(before)  # the batch norms saw the batch
    batch.pop("ref_ids")
    torch.testing.assert_close(trainer.compute_loss(trainer.model, dict(batch)), expected)
    torch.testing.assert_close(trainer.model.eval()(**batch).loss, trainer.compute_loss(trainer.model, dict(batch)))
    trainer.train()
    after = weights_of(trainer)
    unmoved = [name for name in before if torch.equal(before[name], after[name]) and "num_batches" not in name]
    assert [name for name in unmoved if not name.endswith("k_proj.bias")] == []


def test_the_head_alone_can_be_trained_and_masks_stay_as_they_were(start, tmp_path, rows):
    frozen = ["text_encoder", "backbone", "fusion", "mask_head"]
    trainer = make(start, tmp_path, rows, freeze=frozen, max_steps=8, learning_rate=1e-2)
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "ref_ids")}
    with torch.no_grad():
        before = trainer.model.eval()(**inputs)
    trainer.train()
    with torch.no_grad():
        after = trainer.model.eval()(**inputs)
    assert torch.equal(before.logits, after.logits)
    assert not torch.allclose(before.presence_logits, after.presence_logits, atol=0.01)


def test_a_tiny_set_is_learned_by_heart(start, tmp_path, rows):
    few = [rows[index] for index in range(len(rows)) if target_kind(rows[index]) != "many"]
    few = [row for row in few if target_kind(row) == "none"][:4] + [row for row in few if target_kind(row) == "one"][
        :4
    ]
    few = [{**row, "sentences": row["sentences"][:1]} for row in few]
    trainer = make(start, tmp_path, few, max_steps=120, per_device_train_batch_size=8, learning_rate=5e-3)
    trainer.train()
    with torch.no_grad():
        batch = ReMamberCollator(trainer.processing_class)(few)
        del batch["labels"]
        presence = trainer.model.eval()(**batch).presence_logits.sigmoid()
    assert batch["is_present"].tolist() == [False] * 4 + [True] * 4
    assert ((presence > 0.5) == batch["is_present"]).all()


def test_without_the_head_such_sentences_train_too(start, tmp_path, rows):
    trainer = make(start, tmp_path, rows, predicts_presence=False, max_steps=3)
    trainer.train()
    assert len(losses_of(trainer)) == 3 and all(loss < 10 for loss in losses_of(trainer))


def test_a_small_object_whose_label_is_empty_is_there_all_the_same(start, rows):
    processor = ReMamberProcessor.from_pretrained(start / "conv")
    row = next(row for row in rows if target_kind(row) == "one")
    (left, top), side = row["bbox"][0][:2], 0.4
    dot = [left, top, left + side, top, left + side, top + side, left, top + side]
    tiny = {**row, "segmentation": [{"polygons": [dot], "rles": []}], "sentences": row["sentences"][:1]}
    nothing = {**tiny, "segmentation": [], "ann_id": [], "bbox": [], "category": []}
    batch = ReMamberCollator(processor)([tiny, nothing])
    assert not batch["labels"].any() and batch["is_present"].tolist() == [True, False]


# --------------------------------------------------------------------------------------------------------------- share
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8])
def test_an_epoch_has_the_share_that_was_asked_for(start, tmp_path, rows, size, share):
    trainer = make(start, tmp_path, rows, no_target_share=share, expressions_per_picture=size)
    sampler = trainer._get_train_sampler()
    kinds = [target_kind(row) for row in rows]
    wanted = {index for index, kind in enumerate(kinds) if kind != "none"}
    epochs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        chosen = list(sampler)
        assert len(chosen) == len(sampler)
        assert sorted(index for index in chosen if index in wanted) == sorted(wanted)
        spare = [index for index in chosen if index not in wanted]
        assert len(spare) / len(chosen) == pytest.approx(share, abs=0.51 / len(chosen))
        times = [spare.count(index) for index in set(spare)]
        assert max(times, default=0) - min(times, default=0) <= 1
        assert list(sampler) == chosen  # of seed and epoch alone
        epochs.append(chosen)
    assert epochs[0] != epochs[1]
    drawn = [set(chosen) - wanted for chosen in epochs]
    is_part = 0 < len(drawn[0]) < len(rows) - len(wanted)
    assert (drawn[0] != drawn[1] or drawn[1] != drawn[2]) == is_part  # others in every epoch
    assert is_part or share != 0.1
    batches = sum(len(batch["labels"]) for batch in trainer.get_train_dataloader())
    assert batches == len(sampler)


def test_a_run_with_a_share_is_resumed_as_if_nothing_had_happened(start, tmp_path, rows):
    options = {"no_target_share": 0.5, "expressions_per_picture": 2, "max_steps": 6, "save_strategy": "steps"}
    whole = make(start, tmp_path / "whole", rows, **options, save_steps=3)
    whole.train()
    again = make(start, tmp_path / "again", rows, **options, save_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for name, weight in weights_of(whole).items():
        assert torch.equal(weight, weights_of(again)[name]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"no_target_share": 1.0}, r"no_target_share is 1.0; it must be in \[0, 1\)"),
        ({"no_target_share": -0.1}, r"no_target_share is -0.1; it must be in \[0, 1\)"),
        ({"no_target_share": "half"}, "no_target_share is 'half'; give a number"),
        ({"freeze": ["presence_head"], "predicts_presence": False}, "freeze names presence_head, which this model"),
        (
            {"freeze": ["text_encoder", "backbone", "fusion", "mask_head"], "predicts_presence": False},
            "freeze names every part; leave out what is to be trained",
        ),
        (
            {"freeze": ["text_encoder", "backbone", "fusion", "mask_head", "presence_head"]},
            "freeze names every part; leave out what is to be trained",
        ),
    ],
)
def test_what_cannot_be_is_refused(start, tmp_path, rows, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(start, tmp_path, rows, **arguments)


def test_a_share_without_such_rows_is_refused(start, tmp_path, rows):
    for kind, lacking in (("none", "something"), ("one", "nothing")):
        some = [row for row in rows if target_kind(row) == kind]
        with pytest.raises(ValueError, match=f"no training row means {lacking} in its picture"):
            make(start, tmp_path, some, no_target_share=0.5).train()


def test_an_epoch_that_the_share_leaves_without_a_batch_is_refused(start, tmp_path, rows):
    one = next(index for index, row in enumerate(rows) if target_kind(row) == "one")
    few = [rows[one], *(row for row in rows if target_kind(row) == "none")]
    assert len(few) >= 4
    trainer = make(start, tmp_path, few, no_target_share=0.0, dataloader_drop_last=True)
    with pytest.raises(ValueError, match="dataloader_drop_last leaves nothing: there are 1 objects for batches of 4"):
        trainer.train()


def test_a_loss_function_of_ones_own_leaves_the_heads_in_place(start, tmp_path, rows):
    def square_error(outputs, labels, num_items_in_batch=None):
        errors = (outputs.logits[:, 0].sigmoid() - labels).pow(2).flatten(1).mean(1)
        return errors.sum() / (num_items_in_batch or len(errors))

    trained = []
    for accumulated in (1, 2):
        torch.manual_seed(0)
        model = ReMamberForImageSegmentation.from_pretrained(start / "conv", predicts_presence=True)
        options = {"max_steps": 2, "freeze": ["mask_head"], "per_device_train_batch_size": 4 // accumulated}
        trainer = ReferringSegmentationTrainer(
            model=model,
            args=ReMamberTrainingArguments(
                output_dir=str(tmp_path / str(accumulated)),
                **{**ARGUMENTS, **options, "gradient_accumulation_steps": accumulated},
            ),
            train_dataset=rows.select(range(8)),
            processing_class=ReMamberProcessor.from_pretrained(start / "conv"),
            compute_loss_func=square_error,
            optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.1}),
        )
        batch = next(iter(trainer.get_train_dataloader()))
        batch.pop("ref_ids")
        outputs = trainer.model.eval()(**batch)
        expected = square_error(outputs, batch["labels"])
        expected = expected + 0.2 * presence_loss(outputs.presence_logits, batch["labels"], batch["is_present"])
        torch.testing.assert_close(trainer.compute_loss(trainer.model, dict(batch)), expected)
        trainer.train()
        assert trainer.model.presence_head.out_proj.weight.any()
        trained.append(weights_of(trainer))
    torch.testing.assert_close(trained[0], trained[1], rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- the command
def train_by_command(start, data_dir, output_dir, *options):
    arguments = ["--data_dir", data_dir, "--dataset", "shapes", "--generalized", "--do_train", "--use_cpu"]
    arguments += ["--max_steps", 2, "--per_device_train_batch_size", 2, "--report_to", "none", "--save_strategy", "no"]
    arguments += ["--model", start / "conv", "--output_dir", output_dir, *options]
    run_training.main([str(argument) for argument in arguments])


def test_the_command_gives_a_model_a_head(start, tmp_path, data_dir):
    train_by_command(start, data_dir, tmp_path / "run", "--predicts_presence", "--no_target_share", 0.5)
    model, _ = load_model(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["predicts_presence"]
    assert model.presence_head.out_proj.weight.any()
    train_by_command(tmp_path, data_dir, tmp_path / "more", "--model", tmp_path / "run", "--predicts_presence")
    more, _ = load_model(tmp_path / "more")  # one that has a head keeps it
    assert (
        torch.nn.functional.cosine_similarity(
            more.presence_head.text_proj.weight.flatten(), model.presence_head.text_proj.weight.flatten(), dim=0
        )
        > 0.99
    )


def test_adapters_are_trained_beside_a_whole_new_head(start, tmp_path, data_dir):
    lora = '{"r": 2, "target_modules": ["q_proj", "v_proj"]}'
    train_by_command(start, data_dir, tmp_path / "run", "--predicts_presence", "--lora", lora)
    model, _ = load_model(tmp_path / "run")
    assert model.presence_head.out_proj.weight.any()
    before, _ = load_model(start / "conv")
    assert torch.equal(model.mask_head.classifier.weight, before.mask_head.classifier.weight)
