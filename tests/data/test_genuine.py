# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What genuine data sets have that nobody would make up: a likeness that is made here, and the genuine."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from refer_fixture import LAYOUTS, SIZES, TinyRefer
from tiny import make_tokenizer

from remamber_hf import ReMamberImageProcessorPil, ReMamberProcessor
from remamber_hf.data.check import check_data
from remamber_hf.data.refer import load_refer, read_refs
from remamber_hf.data.rows import row_mask
from remamber_hf.training.tokenizer import train_tokenizer


REAL = Path(__file__).parents[3] / "shared" / "real"
FRAGMENT = REAL / "refcocog_fragment"
TEXT_LENGTH = 20
needs_fragment = pytest.mark.skipif(not FRAGMENT.is_dir(), reason=f"a part of RefCOCOg is not there: {FRAGMENT}")

# As RefCOCOg's umd split has them: what was written, and what its publishers made of it.
SENTENCES = [
    (
        "A pigeon looking down, to the left of two other pigeons.",
        "a pigeon looking down , to the left of two other pigeons",
    ),
    ("a sofa with a white/off-white pillow", "a sofa with a white / off - white pillow"),
    ("A full hot-dog in front of two others", "a full hot - dog in front of two others"),
    ("weiner on the right", "weiner on the right"),
]


def likeness() -> TinyRefer:
    """G-Ref in small: names of files in refs end in the annotation's id, most annotations serve no ref, no testA."""
    data = TinyRefer()
    for ref, split in zip(data.refs, ["val", "test", "train", "train", "test", "val"], strict=True):
        ref["split"] = split
        (raw, sent), ref["sentences"] = SENTENCES[ref["ref_id"] % len(SENTENCES)], ref["sentences"][:1]
        ref["sentences"][0].update(raw=raw, sent=sent, tokens=sent.split())
        ref["sent_ids"] = ref["sent_ids"][:1]
    for number in range(36):
        height, width = SIZES[number % 6]
        x, y = 1.37 + number % 10, 2.91 + number % 7
        polygon = [x, y, x + 8.13, y, x + 9.07, y + 7.64, x - 0.5, y + 6.02]
        extra = {"id": 900 + number, "image_id": number % 6 + 1, "segmentation": [polygon], "area": 61.2}
        data.annotations.insert(number, {**copy.deepcopy(data.annotations[-1]), **extra})
    return data


def check_reading(root, refs: list[dict], instances: dict, cache):
    """Every row beside what stands in the files, for both texts."""
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    images = {image["id"]: image for image in instances["images"]}
    (result,) = check_data(root, "refcocog", "umd")
    assert not result.problems and not result.notes and not result.missing_archives
    for sentences in ("sent", "raw"):
        data = load_refer("refcocog", "umd", data_dir=root, sentences=sentences, cache_dir=cache)
        assert list(data) == ["train", "val", "test"]
        rows = {row["ref_id"]: row for split in data.values() for row in split}
        assert len(rows) == len(refs)
        for ref in refs:
            row, annotation, image = rows[ref["ref_id"]], annotations[ref["ann_id"]], images[ref["image_id"]]
            assert row["sentences"] == [sentence[sentences] for sentence in ref["sentences"]]
            assert row["image"].size == (image["width"], image["height"])
            assert (row["split"], row["bbox"]) == (ref["split"], annotation["bbox"])
            parts = coco_mask.frPyObjects(annotation["segmentation"], image["height"], image["width"])
            assert np.array_equal(row_mask(row), coco_mask.decode(parts).sum(axis=2) == 1)
            assert ref["file_name"] == image["file_name"].replace(".jpg", f"_{ref['ann_id']}.jpg")
    assert len(annotations) > 5 * len(refs)


def test_a_likeness_of_g_ref_reads_right(tmp_path):
    data = likeness()
    root = data.write(tmp_path / "data", "refcocog", "umd")
    instances = {"images": data.images, "annotations": data.annotations, "categories": data.categories}
    check_reading(root, data.refs, instances, tmp_path / "cache")
    texts = [(sentence["raw"], sentence["sent"]) for ref in data.refs for sentence in ref["sentences"]]
    assert set(texts) == set(SENTENCES)


@needs_fragment
def test_the_genuine_fragment_of_g_ref_reads_right(tmp_path):
    root, pictures = tmp_path / "data", tmp_path / "data" / LAYOUTS["lavt"]
    (root / "refcocog").mkdir(parents=True)
    pictures.mkdir(parents=True)
    for path in FRAGMENT.iterdir():
        (root / "refcocog" / path.name).write_bytes(path.read_bytes())
    instances = json.loads((root / "refcocog" / "instances.json").read_text())
    for image in instances["images"]:
        Image.new("L", (image["width"], image["height"])).save(pictures / image["file_name"])
    refs = pickle.loads((root / "refcocog" / "refs(umd).p").read_bytes())
    assert refs == read_refs(root / "refcocog" / "refs(umd).p")
    assert (len(refs), len(instances["annotations"])) == (15, 108)
    sentences = [sentence for ref in refs for sentence in ref["sentences"]]
    assert sum(sentence["raw"].lower() != sentence["sent"] for sentence in sentences) == 16
    check_reading(root, refs, instances, tmp_path / "cache")


# Written as RefCLEF's were: capitals, outer blanks, "™" of broken apostrophes, slashes, no letter at all.
WRITTEN = [
    "The BIG rock",
    " ruins ",
    "tree line\t",
    "boy™",
    "the womanâ€™s hat",
    "guy™s head (good job on the plate)",
    "man/woman on the left",
    "person w/ hat and/or bag",
    "#1 of 3",
    "655",
    "...",
    "?",
    "<3 the dog",
    "sky - upper right, above \"mountain\" & trees!!!",
    "naïve café Ñandú",
    "左边的人",
    "building\u00a0on\u200bthe left",
    "a" * 300,
    "the third person from the left in the second row from the top who wears a blue hat and looks away from us " * 2,
]  # fmt: skip


def processor_with(tokenizer) -> ReMamberProcessor:
    return ReMamberProcessor(ReMamberImageProcessorPil(), tokenizer)


def tokenize(processor, expressions: list[str]) -> int:
    """Check the tokens of every expression, and return how many of them were cut."""
    batch = processor(text=expressions, return_tensors="np")
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(expressions), TEXT_LENGTH)
    start, end = processor.tokenizer.bos_token_id, processor.tokenizer.eos_token_id
    lengths = batch["attention_mask"].sum(axis=1)
    assert (batch["input_ids"][:, 0] == start).all() and (lengths > 2).all()
    assert (batch["input_ids"][np.arange(len(expressions)), lengths - 1] == end).all()
    whole = processor.tokenizer(expressions, verbose=False)["input_ids"]
    assert [min(len(ids), TEXT_LENGTH) for ids in whole] == lengths.tolist()
    return sum(len(ids) > TEXT_LENGTH for ids in whole)


@pytest.mark.parametrize("kind", ["bytes", "trained"])
def test_expressions_as_people_write_them_are_tokenized_and_the_cut_ones_counted(kind):
    if kind == "bytes":  # every letter is a token
        processor = processor_with(make_tokenizer())
        processor.text_length = TEXT_LENGTH
        assert tokenize(processor, WRITTEN) > 2
    else:
        processor = processor_with(train_tokenizer(WRITTEN, 600, text_length=TEXT_LENGTH))
        assert tokenize(processor, WRITTEN) >= 1
    for text in WRITTEN:
        tokenize(processor, [text])


def test_outer_blanks_and_capitals_change_no_token():
    processor = processor_with(train_tokenizer(WRITTEN, 600, text_length=TEXT_LENGTH))
    for text in WRITTEN:
        ids = [
            processor(text=[form], return_tensors="np")["input_ids"].tolist() for form in (text, f" {text.upper()} ")
        ]
        if text.upper().lower() == text.lower():
            assert ids[0] == ids[1]


def test_expressions_as_people_write_them_go_from_the_file_to_the_row(tmp_path):
    data = TinyRefer()
    data.refs[0]["sentences"] = [
        {"sent_id": 500 + index, "sent": text, "raw": text, "tokens": text.split()}
        for index, text in enumerate(WRITTEN)
    ]
    rows = load_refer(
        "refclef", "unc", "train", data_dir=data.write(tmp_path, "refclef", "unc", "refclef"), cache_dir=tmp_path
    )
    assert rows[0]["sentences"] == WRITTEN
