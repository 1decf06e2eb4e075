# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from refer_fixture import SIZES, TinyRefer, rectangle
from torch.utils.data import DataLoader
from transformers import CLIPTokenizer

from remamber_hf.data import collator
from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rle import decode_mask, encode_mask
from remamber_hf.data.rows import row_mask
from remamber_hf.image_processing_remamber import ReMamberImageProcessorPil
from remamber_hf.processing_remamber import ReMamberProcessor


SIDE = 32
NUM_SENTENCES = 8


class StandInProcessor:
    """Its input_ids are the number that the sentence ends with."""

    def __call__(self, text, return_tensors):
        numbers = torch.tensor([[int(sentence.split()[-1])] for sentence in text])
        return {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}

    def image_processor(self, images, segmentation_maps):
        return {"pixel_values": [torch.zeros(3, 4, 4)], "labels": [torch.zeros(4, 4, dtype=torch.uint8)]}


@pytest.fixture(scope="module")
def processor():
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    words = letters + [letter + "</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[])
    return ReMamberProcessor(ReMamberImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer)


@pytest.fixture
def data(tmp_path):
    tiny = TinyRefer()
    for number, ref in enumerate(tiny.refs, start=1):
        ref["sentences"] = [
            {"sent_id": 10 * number + index, "sent": f"sentence {10 * number + index}"}
            for index in range(NUM_SENTENCES)
        ]
    tiny.annotations[0]["segmentation"] = [rectangle(2, 2, 20, 20), rectangle(10, 10, 30, 30)]
    tiny.write(tmp_path / "data")
    return load_refer("refcoco", "unc", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")


def epochs(data, num_epochs: int, num_workers: int) -> list[list[int]]:
    """The sentences that a run with seed 0 sees, epoch by epoch."""
    torch.manual_seed(0)
    loader = DataLoader(data, batch_size=2, collate_fn=ReMamberCollator(StandInProcessor()), num_workers=num_workers)
    return [
        [number for batch in loader for number in batch["input_ids"].flatten().tolist()] for _ in range(num_epochs)
    ]


def test_a_batch_has_one_entry_per_row_at_model_size(processor, data):
    rows = [data["train"][index] for index in range(3)]
    batch = ReMamberCollator(processor, keep_ids=True)(rows)
    assert batch.pop("ref_ids") == [row["ref_id"] for row in rows]
    assert ReMamberCollator(processor)(rows).keys() == batch.keys()  # what goes into the model
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()} == {
        "pixel_values": ((3, 3, SIDE, SIDE), torch.float32),
        "input_ids": ((3, 20), torch.int64),
        "attention_mask": ((3, 20), torch.int64),
        "labels": ((3, SIDE, SIDE), torch.uint8),
        "is_present": ((3,), torch.bool),
    }
    for row, pixel_values, labels in zip(rows, batch["pixel_values"], batch["labels"]):
        alone = processor(images=row["image"], return_tensors="pt")["pixel_values"][0]
        assert torch.equal(pixel_values, alone)
        nearest = Image.fromarray(row_mask(row)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        assert np.array_equal(labels.numpy().astype(bool), np.asarray(nearest))


def test_rows_of_one_picture_share_it(processor, data):
    first, second = data["train"][0], data["train"][1]
    rows = [first, {**second, "image_id": first["image_id"]}, second, first, second]
    batch = ReMamberCollator(processor, share_pictures=True)(rows)
    # The second row has the id of the first picture and is another: data sets can clash.
    assert batch["image_index"].tolist() == [0, 1, 2, 0, 2]
    for row, place in zip(rows, batch["image_index"]):
        alone = processor(images=row["image"], return_tensors="pt")["pixel_values"][0]
        assert torch.equal(batch["pixel_values"][place], alone)
    repeated = ReMamberCollator(processor)(rows)
    assert "image_index" not in repeated
    assert torch.equal(repeated["pixel_values"], batch["pixel_values"][batch["image_index"]])


def test_the_tokens_are_those_of_the_drawn_sentence(processor, data):
    row = {**data["train"][0], "sentences": ["b"]}
    assert torch.equal(
        ReMamberCollator(processor)([row])["input_ids"], processor(text="b", return_tensors="pt").input_ids
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_sentences_repeat_with_the_seed_and_differ_between_epochs(data, num_workers):
    first_run = epochs(data["train"], 3, num_workers)
    assert first_run == epochs(data["train"], 3, num_workers)
    assert first_run[0] != first_run[1] != first_run[2]


def test_every_sentence_of_an_object_is_drawn(data):
    drawn = Counter(number for epoch in epochs(data["val"], 200, 0) for number in epoch)
    assert set(drawn) == set(range(40, 40 + NUM_SENTENCES))
    assert min(drawn.values()) > 8  # 25 on average


def test_one_sentence_leaves_the_generator_alone(processor, data):
    row = {**data["train"][0], "sentences": ["the only one"]}
    state = torch.get_rng_state()
    ReMamberCollator(processor)([row])
    assert torch.equal(torch.get_rng_state(), state)


def test_original_masks_come_back_at_the_size_of_the_picture(processor, data):
    rows = [data["train"][index] for index in range(3)]
    with pytest.raises(ValueError, match="a row has 8 sentences, and evaluation counts each; give a row for each"):
        ReMamberCollator(processor, keep_masks=True)(rows)
    rows = [{**row, "sentences": row["sentences"][:1]} for row in rows]
    batch = ReMamberCollator(processor, keep_masks=True)(rows)
    for row, rle, size in zip(rows, batch["original_masks"], SIZES):
        mask = decode_mask(rle)
        assert mask.dtype == bool and mask.shape == size
        assert np.array_equal(mask, row_mask(row))
    assert row_mask(rows[0], "union")[15, 15]
    assert not decode_mask(batch["original_masks"][0])[15, 15]


def test_a_kept_mask_is_compact():
    mask = np.zeros((480, 640), dtype=bool)
    mask[100:300, 50:400] = True
    assert len(encode_mask(mask)["counts"]) < mask.size / 200


@pytest.mark.parametrize("keep_masks", [False, True])
def test_a_single_full_size_mask_is_held(data, monkeypatch, keep_masks):
    masks, num_held = [], []

    def watched_row_mask(row):
        num_held.append(sum(mask() is not None for mask in masks))
        mask = row_mask(row)
        masks.append(weakref.ref(mask))
        return mask

    monkeypatch.setattr(collator, "row_mask", watched_row_mask)
    rows = [{**data["train"][index % 3], "sentences": ["sentence 1"]} for index in range(6)]
    ReMamberCollator(StandInProcessor(), keep_masks=keep_masks)(rows)
    assert num_held == [0] * 6
    assert all(mask() is None for mask in masks)
