# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A model that also says whether an expression means anything, in the hands of people's own code."""

import copy

import numpy as np
import peft
import pytest
import rows
import torch
from accelerate import Accelerator
from rows import EXPRESSIONS, losses_one_by_one, make_rows
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModelForImageSegmentation, Trainer, TrainingArguments, default_data_collator, pipeline

from remamber_hf import ReMamberForImageSegmentation


NUM_ROWS = 5  # so that the last batch of two or four is not full


@pytest.fixture(scope="module")
def presence_folder(folder, tmp_path_factory):
    """The tiny model with a head whose answers differ from row to row."""
    path = tmp_path_factory.mktemp("presence") / "model"
    torch.manual_seed(2)
    model = AutoModelForImageSegmentation.from_pretrained(folder, predicts_presence=True)
    nn.init.normal_(model.presence_head.out_proj.weight, std=0.1)
    model.save_pretrained(path)
    rows.load_processor(folder).save_pretrained(path)
    return path


@pytest.fixture
def presence_model(presence_folder):
    return rows.load_model(presence_folder)


@pytest.fixture(scope="module")
def made_rows():
    """Rows of which some mean nothing."""
    made = make_rows(NUM_ROWS)
    for row in made[1::2]:
        row["mask"] = np.zeros_like(row["mask"])
    return made


def process(processor, row: dict) -> dict:
    return {
        name: value[0]
        for name, value in processor(
            images=row["image"], text=row["expression"], segmentation_maps=row["mask"], return_tensors="pt"
        ).items()
    }


@torch.no_grad()
def presence_one_by_one(model, processor, made) -> torch.Tensor:
    answers = [model(**processor(images=row["image"], text=row["expression"], return_tensors="pt")) for row in made]
    presence = torch.cat([outputs.presence_logits for outputs in answers])
    assert presence.std() > 0.01  # whatever pairs them wrongly shows
    return presence


@torch.no_grad()
def whole_losses(model, processor, made) -> torch.Tensor:
    """The loss of each row by itself, by the formula: that of the mask and a fifth of the presence's."""
    presence = presence_one_by_one(model, processor, made)
    is_there = torch.tensor([bool(row["mask"].any()) for row in made])
    signed = torch.where(is_there, presence, -presence)
    return losses_one_by_one(model, processor, made) + 0.2 * nn.functional.softplus(-signed)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_processor_per_row_and_any_collator_give_the_presence_of_the_loop(
    presence_model, processor, made_rows, batch_size
):
    loader = DataLoader([process(processor, row) for row in made_rows], batch_size, collate_fn=default_data_collator)
    with torch.no_grad():
        outputs = [presence_model(**batch) for batch in loader]
    expected = presence_one_by_one(presence_model, processor, made_rows)
    torch.testing.assert_close(torch.cat([one.presence_logits for one in outputs]), expected, rtol=1e-4, atol=1e-5)
    counts = torch.tensor([len(one.logits) for one in outputs])
    mean = (torch.stack([one.loss for one in outputs]) * counts).sum() / counts.sum()
    torch.testing.assert_close(mean, whole_losses(presence_model, processor, made_rows).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8])
def test_transformers_trainer_evaluates_and_predicts_both(presence_model, processor, made_rows, tmp_path, batch_size):
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_eval_batch_size=batch_size,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    dataset = [process(processor, row) for row in made_rows]
    trainer = Trainer(presence_model, arguments, eval_dataset=dataset)
    expected = whole_losses(presence_model, processor, made_rows).mean().item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-4)
    logits, presence = trainer.predict(dataset).predictions
    assert logits.shape == (NUM_ROWS, 1, rows.SIDE, rows.SIDE)
    one_by_one = presence_one_by_one(presence_model, processor, made_rows)
    np.testing.assert_allclose(presence, one_by_one.numpy(), rtol=1e-4, atol=1e-5)
    found = processor.post_process_presence(trainer.predict(dataset).predictions)
    np.testing.assert_allclose(found, one_by_one.sigmoid(), rtol=1e-4, atol=1e-5)


def test_transformers_trainer_trains_the_head(presence_folder, processor, made_rows, tmp_path):
    model = rows.load_model(presence_folder)
    before = copy.deepcopy(model.state_dict())
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        save_strategy="no",
    )
    Trainer(model, arguments, train_dataset=[process(processor, row) for row in made_rows]).train()
    assert all(not torch.equal(before[name], w) for name, w in model.state_dict().items() if "presence_head" in name)


def test_a_loop_of_accelerates_takes_the_steps_of_a_plain_one(presence_folder, processor, made_rows):
    trained = []
    for accelerator in (None, Accelerator(cpu=True)):
        model = rows.load_model(presence_folder)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loader = DataLoader([process(processor, row) for row in made_rows], 2)
        if accelerator is not None:
            model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        for batch in loader:
            loss = model(**batch).loss
            loss.backward() if accelerator is None else accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        trained.append(model.state_dict())
    torch.testing.assert_close(trained[1], trained[0])


def test_a_pipeline_of_the_folder_says_what_the_loop_says(presence_folder, presence_model, processor, made_rows):
    pipe = pipeline("referring-image-segmentation", model=str(presence_folder), device="cpu")
    items = [{"image": row["image"], "expression": row["expression"]} for row in made_rows]
    expected = presence_one_by_one(presence_model, processor, made_rows).sigmoid()
    for batch_size in (1, 2, 4):
        found = [one["presence"] for one in pipe(items, batch_size=batch_size)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_adapters_of_peft_leave_the_head_as_it_is_or_train_it_whole(presence_folder, processor, made_rows, tmp_path):
    inputs = default_data_collator([process(processor, row) for row in made_rows])
    for to_save, is_moved in ((None, False), (["presence_head"], True)):
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=to_save)
        model = peft.get_peft_model(rows.load_model(presence_folder), config)
        before = presence_one_by_one(model, processor, made_rows)
        optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            model(**inputs).loss.backward()
            optimizer.step()
        merged = model.merge_and_unload()
        merged.save_pretrained(tmp_path / str(is_moved))
        again = ReMamberForImageSegmentation.from_pretrained(tmp_path / str(is_moved)).eval()
        plain = rows.load_model(presence_folder).presence_head.state_dict()
        moved = [
            name for name, weight in again.presence_head.state_dict().items() if not torch.equal(weight, plain[name])
        ]
        assert bool(moved) == is_moved
        assert not torch.equal(presence_one_by_one(again.eval(), processor, made_rows), before)


class WithOwnLoss(ReMamberForImageSegmentation):
    """A subclass that weighs the two itself."""

    def forward(self, *args, labels=None, **kwargs):
        outputs = super().forward(*args, **kwargs)
        if labels is not None:
            outputs.loss = outputs.presence_logits.pow(2).mean()
        return outputs


def test_a_subclass_with_a_loss_of_its_own_gets_both(presence_folder, processor, made_rows):
    model = WithOwnLoss.from_pretrained(presence_folder).eval()
    inputs = default_data_collator([process(processor, row) for row in made_rows])
    expected = presence_one_by_one(model, processor, made_rows).pow(2).mean()
    torch.testing.assert_close(model(**inputs).loss, expected, rtol=1e-4, atol=1e-5)


def test_expressions_that_share_pictures_keep_their_own_presence(presence_model, processor, made_rows):
    pictures = [row["image"] for row in made_rows[:2]]
    texts = [list(EXPRESSIONS[:3]), list(EXPRESSIONS[1:])]
    inputs = processor(images=pictures, text=texts, return_tensors="pt")
    with torch.no_grad():
        together = presence_model(**inputs)
    flat = [{"image": picture, "expression": text} for picture, group in zip(pictures, texts) for text in group]
    expected = presence_one_by_one(presence_model, processor, flat)
    torch.testing.assert_close(together.presence_logits, expected, rtol=1e-4, atol=1e-5)
    sizes = [(picture.height, picture.width) for picture in pictures]
    objects = processor.post_process_instance_segmentation(
        together, sizes, 0.0, inputs["image_index"], presence_threshold=expected.sigmoid().median().item() + 1e-6
    )
    is_there = expected.sigmoid() > expected.sigmoid().median() + 1e-6
    assert [label for one in objects for label in one["labels"].tolist()] == is_there.nonzero()[:, 0].tolist()
