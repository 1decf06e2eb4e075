# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Parquet of strangers: whatever is in it, one line says no, and nothing else happens.

Every case is a function that spoils a row or a folder; the names say how. What is random comes from the case's name.
"""

import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_data import ADDRESS, EPS, ESCAPES, HEIGHT, SQUARE, WIDTH, picture_bytes, png_bomb, zigzag
from machinery import attempt
from PIL import Image
from pycocotools import mask as coco_mask

from remamber_hf.data import mixture
from remamber_hf.data.folder import rows_from_columns
from remamber_hf.data.mixture import load_one
from remamber_hf.data.rows import one_row_per_sentence, refer_features


def parquet_row() -> dict:
    return {
        "image": {"bytes": picture_bytes(), "path": "a.png"},
        "sentences": ["the thing"],
        "sentence_ids": [1],
        "ref_id": 1,
        "ann_id": 1,
        "image_id": 1,
        "category": "thing",
        "bbox": [2.0, 3.0, 10.0, 12.0],
        "height": HEIGHT,
        "width": WIDTH,
        "split": "train",
        "segmentation": [{"polygons": [[float(number) for number in SQUARE]], "rles": []}],
    }


def column(**values):
    return lambda row: row.update(values)


def object_of(polygons=(), rles=()):
    return column(segmentation=[{"polygons": list(polygons), "rles": list(rles)}])


RLE = coco_mask.encode(np.ones((HEIGHT, WIDTH), dtype=np.uint8, order="F"))["counts"].decode()
NAN = float("nan")
PARQUET_CASES = {
    "Parquet: a polygon at a billion": object_of([[0.0, 0.0, 1e9, 0.0, 1e9, 1e9]]),
    "Parquet: an endless polygon": object_of([[float(number) for number in zigzag(200_000)]]),
    "Parquet: a polygon of NaN": object_of([[NAN, 0.0, 9.0, 0.0, 5.0, 5.0]]),
    "Parquet: a polygon of infinity": object_of([[float("inf"), 0.0, 9.0, 0.0, 5.0, 5.0]]),
    "Parquet: an odd polygon": object_of([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]),
    "Parquet: a polygon of two points": object_of([[1.0, 2.0, 3.0, 4.0]]),
    "Parquet: a polygon of nothing": object_of([[None] * 6]),
    "Parquet: a polygon outside": object_of([[-9.0, -9.0, -2.0, -9.0, -2.0, -2.0]]),
    "Parquet: no polygon": object_of(),
    "Parquet: no object": column(segmentation=[]),
    "Parquet: two objects": column(segmentation=[{"polygons": [], "rles": [RLE]}] * 2),
    "Parquet: an RLE that is too short": object_of(rles=["56"]),
    "Parquet: an RLE of a long text": object_of(rles=["o" * 2_000_000]),
    "Parquet: an RLE of escapes": object_of(rles=[ESCAPES]),
    "Parquet: an RLE of other letters": object_of(rles=["é¹"]),
    "Parquet: an RLE that is none": object_of(rles=[None]),
    "Parquet: a height of two billion": column(height=2**31 - 1),
    "Parquet: a negative height": column(height=-1),
    "Parquet: sides exchanged": column(height=WIDTH, width=HEIGHT),
    "Parquet: no height": column(height=None),
    "Parquet: no sentence": column(sentences=[]),
    "Parquet: sentences that are none": column(sentences=None),
    "Parquet: an empty sentence": column(sentences=["the thing", " "], sentence_ids=[1, 2]),
    "Parquet: a sentence that is none": column(sentences=[None]),
    "Parquet: a sentence of a million letters": column(sentences=["x" * 1_000_000]),
    "Parquet: more ids than sentences": column(sentence_ids=[1, 2]),
    "Parquet: no ids of sentences": column(sentence_ids=None),
    "Parquet: an id of a sentence that is none": column(sentence_ids=[None]),
    "Parquet: a box of three numbers": column(bbox=[1.0, 2.0, 3.0]),
    "Parquet: a box of NaN": column(bbox=[NAN] * 4),
    "Parquet: no box": column(bbox=None),
    "Parquet: no id": column(ref_id=None),
    "Parquet: no category": column(category=None),
    "Parquet: a split of escapes": column(split=ESCAPES),
    "Parquet: a split of 5,000 letters": column(split="s" * 5000),
    "Parquet: no picture": column(image=None),
    "Parquet: a picture without content": column(image={"bytes": None, "path": None}),
    "Parquet: an empty picture": column(image={"bytes": b"", "path": None}),
    "Parquet: a picture cut off": column(image={"bytes": picture_bytes()[:60], "path": None}),
    "Parquet: PostScript": column(image={"bytes": EPS, "path": "a.png"}),
    "Parquet: 400 megapixels": column(image={"bytes": png_bomb(20_000, 20_000), "path": None}),
    "Parquet: a file of the machine": column(image={"bytes": None, "path": "OUTSIDE"}),
    "Parquet: a file above the folder": column(image={"bytes": None, "path": "../outside.png"}),
    "Parquet: a link out of the folder": column(image={"bytes": None, "path": "link.png"}),
    "Parquet: a pipe": column(image={"bytes": None, "path": "pipe.png"}),
    "Parquet: the web": column(image={"bytes": None, "path": ADDRESS}),
    "Parquet: an archive of the web": column(image={"bytes": None, "path": f"zip://a.png::{ADDRESS}"}),
    "Parquet: a path with NUL": column(image={"bytes": None, "path": "a\0.png"}),
    "Parquet: a path with escapes": column(image={"bytes": None, "path": ESCAPES}),
}


def write_parquet(folder: Path, spoil) -> Path:
    """A folder with one row in Parquet, and files that a path in it may try."""
    folder.mkdir()
    outside = folder.parent / "outside.png"
    outside.write_bytes(picture_bytes())
    (folder / "link.png").symlink_to(outside)
    os.mkfifo(folder / "pipe.png")
    row = parquet_row()
    spoil(row)
    if row["image"] and row["image"]["path"] == "OUTSIDE":
        row["image"]["path"] = str(outside)
    pq.write_table(pa.Table.from_pylist([row], refer_features().arrow_schema), folder / "train.parquet")
    return folder


@pytest.mark.parametrize("case", PARQUET_CASES)
def test_a_hostile_row_of_parquet_is_refused_with_its_number(tmp_path, cache, case):
    folder = write_parquet(tmp_path / "hub", PARQUET_CASES[case])
    outcome = attempt(load_one, str(folder), None, None, folder=folder.parent)
    outcome.after = {name: size for name, size in outcome.after.items() if not name.startswith("cache")}
    outcome.check_refused("Row 0 of split train")
    assert str(tmp_path / "outside.png") not in outcome.opened


@pytest.mark.parametrize("path", ["OUTSIDE", "/etc/hostname", ADDRESS, "train.parquet"])
def test_a_data_set_that_was_read_from_files_names_no_file_outside_its_rows(tmp_path, cache, path):
    folder = write_parquet(tmp_path / "hub", column(image={"bytes": None, "path": path}))
    data = datasets.load_dataset("parquet", data_files=str(folder / "train.parquet"))
    for rows in (data, data["train"], datasets.Dataset.from_parquet(str(folder / "train.parquet"))):
        attempt(rows_from_columns, rows, folder=folder).check_refused("Row 0 of split train")


def test_the_parquet_that_is_spoilt_is_whole_before(tmp_path, cache):
    assert attempt(load_one, str(write_parquet(tmp_path / "hub", column())), None, None).status == 0
    (tmp_path / "hub" / "a.png").write_bytes(picture_bytes())
    data = datasets.Dataset.from_parquet(
        str(write_parquet(tmp_path / "other", column(image={"bytes": None, "path": "a.png"})) / "train.parquet")
    )
    rows = rows_from_columns(data, tmp_path / "hub")
    assert rows[0]["image"].size == (WIDTH, HEIGHT)


def test_bytes_in_a_row_go_before_a_path_that_leads_elsewhere(tmp_path, cache):
    image = {"bytes": picture_bytes(), "path": "OUTSIDE"}
    folder = write_parquet(tmp_path / "hub", column(image=image))
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(tmp_path / "outside.png")
    rows = load_one(str(folder), None, None).splits["train"]
    for each in (rows, one_row_per_sentence(rows)):
        assert each[0]["image"].getpixel((0, 0)) == (128, 128, 128)


def half_text(folder):
    """Text that is no UTF-8, which Parquet can hold."""
    path = folder / "train.parquet"
    table = pq.read_table(path)
    texts = pa.array([b"half \xff"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("category"), "category", texts), path)


FOLDER_CASES = {
    "text that is no UTF-8": half_text,
    "Parquet that is none": lambda folder: (folder / "train.parquet").write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1"),
    "Parquet cut off": lambda folder: (folder / "train.parquet").write_bytes(
        (folder / "train.parquet").read_bytes()[:-200]
    ),
    "Parquet that unfolds to many times its size": lambda folder: pq.write_table(
        pa.Table.from_pylist(
            [{**parquet_row(), "image": {"bytes": bytes(2**25), "path": None}}], refer_features().arrow_schema
        ),
        folder / "train.parquet",
        compression="zstd",
        use_dictionary=False,
    ),
    "a billion rows": lambda folder: pq.write_table(
        pa.table({"image": pa.nulls(2**27)}), folder / "train.parquet", compression="zstd"
    ),
    "a pipe as Parquet": lambda folder: ((folder / "train.parquet").unlink(), os.mkfifo(folder / "train.parquet")),
    "no rows at all": lambda folder: pq.write_table(
        pa.Table.from_pylist([], refer_features().arrow_schema), folder / "train.parquet"
    ),
    "no data": lambda folder: (folder / "train.parquet").unlink(),
    "a card that names the web": lambda folder: write_card(folder, f"configs: [{{data_files: '{ADDRESS}'}}]"),
    "a card that names a file of the machine": lambda folder: write_card(
        folder, "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: /etc/hostname"
    ),
    "a card that names a file above": lambda folder: write_card(folder, "configs: [{data_dir: ../..}]"),
    "a card of nested aliases": lambda folder: write_card(
        folder, "a0: &a0 [x, x]\n" + "\n".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}, *a{i}]" for i in range(40))
    ),
    "a card of deep lists": lambda folder: write_card(folder, "a: " + "[" * 5000),
    "a card that runs": lambda folder: write_card(folder, "a: !!python/object/apply:os.mkdir [outside]"),
    "a card in UTF-16": lambda folder: (folder / "README.md").write_bytes("---\na: 1\n---".encode("utf-16")),
    "a card that is a pipe": lambda folder: os.mkfifo(folder / "README.md"),
    "a script of its name": lambda folder: (
        (folder / "train.parquet").unlink(),
        (folder / "hub.py").write_text("import os; os.mkdir('outside')"),
    ),
}


def write_card(folder: Path, header: str):
    (folder / "README.md").write_text(f"---\n{header}\n---\n")


@pytest.mark.parametrize("case", FOLDER_CASES)
def test_a_hostile_folder_of_parquet_is_refused_in_one_line(tmp_path, cache, monkeypatch, case):
    monkeypatch.setattr(mixture, "LEAST_UNFOLDED", 2**24)
    folder = write_parquet(tmp_path / "hub", column())
    (folder / "link.png").unlink()
    (folder / "pipe.png").unlink()
    FOLDER_CASES[case](folder)
    outcome = attempt(load_one, str(folder), None, None, folder=folder)
    outcome.check_refused()
