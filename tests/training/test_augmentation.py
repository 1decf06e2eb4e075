# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Varied rows: picture, mask and sentence still belong together."""

import numpy as np
import pytest
import torch
from PIL import Image

from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.rows import row_mask, target_kind
from remamber_hf.inference.loading import BUNDLED_MODEL
from remamber_hf.processing_remamber import ReMamberProcessor
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.augmentation import VARIATIONS, mirror_words, read_variations, vary
from remamber_hf.training.drawn_sentences import DrawnSentences


RED, BLUE = (220, 20, 20), (20, 20, 220)


def make_row(meant: str = "red", image_id: int | None = 5) -> dict:
    """A red box on the left of a blue one, both apart from the edges, on white; lists of objects but for "one"."""
    pixels = np.full((60, 100, 3), 255, np.uint8)
    boxes = {"red": (10, 15, 30, 45), "blue": (60, 20, 90, 40)}
    for name, colour in {"red": RED, "blue": BLUE}.items():
        left, top, right, bottom = boxes[name]
        pixels[top:bottom, left:right] = colour
    chosen = {"red": ["red"], "both": ["red", "blue"], "nothing": []}[meant]
    segmentation = []
    for name in chosen:
        left, top, right, bottom = boxes[name]
        segmentation.append({"polygons": [[left, top, right, top, right, bottom, left, bottom]], "rles": []})
    return {
        "image": Image.fromarray(pixels),
        "image_id": image_id,
        "height": 60,
        "width": 100,
        "sentences": ["the left box"],
        "segmentation": segmentation,
        "ann_id": list(range(len(chosen))),
        "bbox": [[0, 0, 1, 1]],
        "ref_id": 3,
    }


@pytest.mark.parametrize("names", [*((name,) for name in VARIATIONS), tuple(VARIATIONS)])
@pytest.mark.parametrize("meant", ["red", "both", "nothing"])
def test_the_mask_stays_on_its_object_and_left_is_where_the_sentence_says(names, meant):
    """The colours in the picture tell where the objects went."""
    looks = set()
    for seed in range(40):
        row = make_row(meant)
        varied = vary(row, names, (seed,))
        mask, pixels = row_mask(varied), np.asarray(varied["image"]).astype(int)
        assert pixels.shape == (varied["height"], varied["width"], 3) and mask.shape == pixels.shape[:2]
        is_red = pixels[..., 0] > pixels[..., 2] + 30
        is_blue = pixels[..., 2] > pixels[..., 0] + 30
        expected = {"red": is_red, "both": is_red | is_blue, "nothing": np.zeros_like(is_red)}[meant]
        np.testing.assert_array_equal(mask, expected)
        if meant == "both":
            red_is_left = np.nonzero(is_red)[1].mean() < np.nonzero(is_blue)[1].mean()
            assert varied["sentences"] == ["the left box" if red_is_left else "the right box"]
        assert target_kind(varied) == target_kind(row) and "bbox" not in varied and varied["ref_id"] == 3
        assert row == make_row(meant) | {"image": row["image"]}, "the row itself is left alone"
        looks.add(pixels.tobytes())
    assert len(looks) > (1 if names == ("flip",) else 10)


def test_left_and_right_change_places_and_all_other_words_stay():
    pairs = {
        "the left dog": "the right dog",
        "Leftmost LEFT one, to the right of it": "Rightmost RIGHT one, to the left of it",
        "left-hand side; righthand": "right-hand side; lefthand",
        "bright cleft leftovers upright Wright": "bright cleft leftovers upright Wright",
        "": "",
    }
    for sentence, mirrored in pairs.items():
        assert mirror_words(sentence) == mirrored and mirror_words(mirrored) == sentence


def test_rows_of_one_picture_are_varied_alike_and_every_epoch_otherwise():
    rows = [make_row("red"), make_row("both"), make_row("red", image_id=6), make_row("red", image_id=None)]
    drawn = DrawnSentences(rows, 0, ("flip", "colour"))
    pictures = []
    for epoch in (0, 1):
        drawn.set_epoch(epoch)
        pictures += [np.asarray(drawn[index]["image"]).tobytes() for index in range(4)]
    first, second, third, fourth = pictures[:4]
    assert first == second and len({first, third, fourth, *pictures[4:6]}) == 4
    again = DrawnSentences(rows, 0, ("flip", "colour"))
    assert np.asarray(again[0]["image"]).tobytes() == first
    batch = ReMamberCollator(ReMamberProcessor.from_pretrained(BUNDLED_MODEL), share_pictures=True)(
        [drawn[0], drawn[1]]
    )
    assert len(batch["pixel_values"]) == 1 and batch["image_index"].tolist() == [0, 0]
    plain = DrawnSentences(rows, 0)[1]
    assert plain["image"] is rows[1]["image"] and plain["bbox"] == rows[1]["bbox"]


def test_names_of_variations_are_read_and_others_are_refused(tmp_path):
    assert read_variations("flip, zoom") == ("flip", "zoom")
    with pytest.raises(ValueError, match="augment names 'flipp'; give one or more of flip,colour,zoom"):
        ReMamberTrainingArguments(output_dir=str(tmp_path), augment="colour,flipp", use_cpu=True)


def test_a_row_of_another_size_than_its_picture_is_left_for_the_collator_to_refuse():
    row = make_row() | {"height": 30}
    row["segmentation"] = []
    assert vary(row, ("flip",), (0,)) is row


def test_varied_rows_are_what_a_processor_takes():
    row = vary(make_row(), tuple(VARIATIONS), (1,))
    batch = ReMamberCollator(ReMamberProcessor.from_pretrained(BUNDLED_MODEL))([row])
    assert batch["labels"].sum() > 0 and torch.isfinite(batch["pixel_values"]).all()
