# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Lines and columns of one's own that say that their expressions mean nothing."""

import datasets
import numpy as np
import pytest
from PIL import Image
from refer_fixture import picture
from test_folder import HEIGHT, LINES, MASK, MASKS, WIDTH, write

from remamber_hf.data.check import check_folder
from remamber_hf.data.export import export_parquet
from remamber_hf.data.folder import load_referring_folder, rows_from_columns
from remamber_hf.data.published import SplitCount
from remamber_hf.data.rows import refer_features, row_mask, target_kind


NOTHING = {"file_name": "b.jpg", "no_target": True, "expression": ["a horse", "two horses"], "category": "animal"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "own"
    (root / "masks").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        picture(HEIGHT, WIDTH).save(root / name)
    Image.fromarray(MASK).save(root / "masks" / "a.png")
    return root


def test_a_line_may_say_that_its_expression_means_nothing(folder):
    data = load_referring_folder(write(folder, [*LINES, NOTHING, {**NOTHING, "split": "val"}]))
    assert {rows.features == refer_features(generalized=True) for rows in data.values()} == {True}
    assert [target_kind(row) for row in data["train"]] == ["one", "one", "none"]
    assert [target_kind(row) for row in data["val"]] == ["one", "none"]
    for row, mask in zip([*data["train"].select([0, 1]), data["val"][0]], MASKS, strict=True):
        assert np.array_equal(row_mask(row), mask) and len(row["bbox"]) == len(row["ann_id"]) == 1
    nothing = data["train"][2]
    assert nothing["ann_id"] == nothing["category"] == nothing["bbox"] == nothing["segmentation"] == []
    assert (nothing["sentences"], nothing["ref_id"]) == (["a horse", "two horses"], 4)
    assert not row_mask(nothing).any()


def test_a_split_without_such_a_line_has_the_same_columns(folder):
    write(folder, [*LINES, NOTHING])
    assert load_referring_folder(folder, "val").features == refer_features(generalized=True)


def test_no_target_that_is_false_changes_nothing(folder):
    expected = load_referring_folder(write(folder, LINES))
    data = load_referring_folder(write(folder, [{**line, "no_target": False} for line in LINES]))
    assert data["train"].features == refer_features()
    assert data["train"]["ann_id"][:] == expected["train"]["ann_id"][:]


def test_a_csv_file_says_that_an_expression_means_nothing(folder):
    lines = ["file_name,mask_file_name,expression,no_target", "a.jpg,masks/a.png,it,", "a.jpg,,a horse,true"]
    (folder / "metadata.csv").write_text("\n".join([*lines, "b.jpg,masks/a.png,it,false"]) + "\n")
    rows = load_referring_folder(folder, "train")
    assert [target_kind(row) for row in rows] == ["one", "none", "one"]
    (folder / "metadata.csv").write_text("file_name,expression,no_target\na.jpg,a horse,True\n")  # by pandas
    assert [target_kind(row) for row in load_referring_folder(folder, "train")] == ["none"]


@pytest.mark.parametrize(
    "line, message",
    [
        ({**LINES[0], "no_target": True}, "contradiction: no_target is true, and mask_file_name is given; keep one"),
        ({**LINES[1], "no_target": True}, "contradiction: no_target is true, and polygon is given"),
        ({**NOTHING, "no_target": False}, "no mask: give one of mask_file_name, polygon, rle, or no_target: true"),
        ({**NOTHING, "no_target": None}, "no mask: give one of"),
        ({**NOTHING, "no_target": "yes"}, "malformed entry: no_target is 'yes', true or false is needed"),
        ({**NOTHING, "no_target": 1}, "malformed entry: no_target is 1"),
        ({**LINES[0], "no_target": [True]}, "malformed entry: no_target is "),
        ({**NOTHING, "expression": ""}, "empty expression"),
        ({**NOTHING, "file_name": "../a.jpg"}, "file outside the folder"),
        ({**NOTHING, "file_name": "c.jpg"}, "missing file"),
        ({**NOTHING, "split": "../val"}, "malformed entry: split is "),
    ],
)
def test_what_is_wrong_in_a_line_of_no_target_is_said(folder, line, message):
    with pytest.raises(ValueError, match=f"line 4: {message}"):
        load_referring_folder(write(folder, [*LINES, line]))


def test_a_csv_cell_of_another_word_is_no_flag(folder):
    (folder / "metadata.csv").write_text("file_name,expression,no_target\na.jpg,a horse,yes\n")
    with pytest.raises(ValueError, match="line 2: malformed entry: no_target is 'yes'"):
        load_referring_folder(folder)


def test_columns_may_say_that_an_expression_means_nothing():
    image = picture(HEIGHT, WIDTH)
    features = {"image": datasets.Image(), "mask": datasets.Image(), "expression": datasets.Value("string")}
    columns = {"image": [image, image], "mask": [Image.fromarray(MASK), None], "expression": ["it", "a horse"]}
    data = datasets.Dataset.from_dict(
        {**columns, "no_target": [False, True]},
        datasets.Features({**features, "no_target": datasets.Value("bool")}),
    )
    rows = rows_from_columns(data)
    assert rows.features == refer_features(generalized=True)
    assert [target_kind(row) for row in rows] == ["one", "none"]
    assert np.array_equal(row_mask(rows[0]), MASK) and not row_mask(rows[1]).any()
    with pytest.raises(
        ValueError, match="Row 1 of split train: no mask: give one of mask, polygon, rle, or no_target"
    ):
        rows_from_columns(data.remove_columns("no_target"))
    both = data.select([0]).remove_columns("no_target").add_column("no_target", [True])
    with pytest.raises(ValueError, match="Row 0 of split train: contradiction: no_target is true, and mask is given"):
        rows_from_columns(both)


def test_none_and_many_come_back_from_an_export(folder, tmp_path):
    several = rows_from_columns(load_referring_folder(write(folder, [*LINES, NOTHING]), "train"))
    row = several[0]
    many = {**row, **{name: row[name] * 2 for name in ("ann_id", "category", "bbox", "segmentation")}}
    many["segmentation"] = [row["segmentation"][0], several[1]["segmentation"][0]]
    data = datasets.Dataset.from_list([many, *several], refer_features(generalized=True))
    export_parquet(datasets.DatasetDict(train=data), tmp_path / "exported", "own")
    loaded = datasets.load_dataset(str(tmp_path / "exported"), cache_dir=str(tmp_path / "cache"))["train"]
    back = rows_from_columns(loaded)
    assert back.features == refer_features(generalized=True)
    assert [target_kind(row) for row in back] == ["many", "one", "one", "none"]
    for row, stored, mask in zip(back, loaded, [MASK | MASKS[1], MASK, MASKS[1], np.zeros_like(MASK)], strict=True):
        assert np.array_equal(row_mask(row), mask) and np.array_equal(np.asarray(stored["mask"]).astype(bool), mask)


def test_a_check_counts_what_the_lines_mean(folder):
    result = check_folder(write(folder, [*LINES, NOTHING]))
    count = result.counts["train"]
    assert result.is_good and (count.sentences, count.none, count.one, count.many) == (5, 2, 3, 0)
    assert check_folder(write(folder, LINES)).counts["train"] == SplitCount(2, 1, 3)
