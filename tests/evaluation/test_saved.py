# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What is written is read again: samples, masks, settings; and what is damaged is refused in one line."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_runs import MODEL, run, true_masks
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.numpy import load_file

from remamber_hf.data.refer import load_refer
from remamber_hf.evaluation.masks import read_masks
from remamber_hf.evaluation.samples import category_of, size_of
from remamber_hf.evaluation.saved import read_results
from remamber_hf.inference.loading import hash_weights, load_model
from remamber_hf.inference.visualization import draw_overlay


@pytest.fixture(scope="module")
def saved(tmp_path_factory, data_dir):
    """Two folders with the masks of one model, as run lengths and as pictures."""
    folders = {}
    for name in ("rle", "png"):
        folders[name] = tmp_path_factory.mktemp("saved") / name
        run(folders[name], data_dir=data_dir, splits="val,testB", save_masks=name, by="length,size,category")
    return folders


def test_samples_say_what_each_sentence_is_about(saved, data_dir):
    samples = pq.read_table(saved["rle"] / "samples.parquet").to_pylist()
    rows = {name: load_refer("shapes", "unc", name, data_dir=data_dir) for name in ("val", "testB")}
    expected = [
        (split, row["ref_id"], row["ann_id"], row["image_id"], sentence_id, sentence, row["category"])
        for split, data in rows.items()
        for row in data.remove_columns("image")
        for sentence_id, sentence in zip(row["sentence_ids"], row["sentences"])
    ]
    names = ("split", "ref_id", "ann_id", "image_id", "sentence_id", "sentence", "category")
    assert [tuple(sample[name] for name in names) for sample in samples] == expected
    masks = true_masks(data_dir)
    _, processor = load_model(MODEL, "cpu", "float32")
    for sample in samples:
        area = masks[sample["ref_id"]].sum()
        assert (sample["object_area"], sample["true_area"]) == (area, area)
        assert sample["size"] == ("small" if area < 1024 else "medium" if area < 9216 else "large")
        words = len(sample["sentence"].split())
        assert sample["num_words"] == words
        assert sample["length"] == ("1" if words == 1 else "2-5" if words < 6 else "6-10" if words < 11 else ">10")
        assert sample["num_tokens"] == len(processor.tokenizer(sample["sentence"]).input_ids)
    pictures = {(sample["split"], sample["picture"]): sample["image_file"] for sample in samples}
    assert len(set(pictures.values())) == len(pictures) == len({(s["split"], s["image_id"]) for s in samples})


def test_a_size_is_the_first_that_an_object_is_smaller_than_and_nothing_has_none():
    areas = (0, 32**2 - 1, 32**2, 96**2 - 1, 96**2)
    assert [size_of(area, "one") for area in areas] == ["small", "small", "medium", "medium", "large"]
    assert [size_of(area, "none") for area in areas] == [None] * 5


@pytest.mark.parametrize(
    "category, expected",
    [
        ("cat", "cat"),
        (["cat", "cat"], "cat"),
        (["cat", "dog"], "several"),
        (["cat", ""], "several"),
        *((unknown, None) for unknown in ("", None, [], [""], ["", ""], [None])),
    ],
)
def test_a_category_is_that_of_all_that_is_meant(category, expected):
    assert category_of(category) == expected


def test_parts_add_up_to_their_split(saved):
    results = json.loads((saved["rle"] / "results.json").read_text())
    report = (saved["rle"] / "results.md").read_text()
    for split in results["splits"].values():
        for parts in ("kinds", "lengths", "sizes", "categories"):
            assert sum(part["num_sentences"] for part in split[parts].values()) == split["num_sentences"], parts
            mean = sum(part["num_sentences"] * part["scores"]["miou"] for part in split[parts].values())
            assert mean / split["num_sentences"] == pytest.approx(split["scores"]["miou"], abs=1e-12)
        assert split["target_kinds"] == {}
    for title in ("## By length", "## By size", "## By category"):
        assert title in report


def test_an_object_has_its_size_at_the_picture_whatever_the_protocol(saved, data_dir, tmp_path):
    _, squashed, _ = run(tmp_path / "lavt", data_dir=data_dir, splits="val,testB", protocol="lavt")
    samples = pq.read_table(saved["rle"] / "samples.parquet").to_pylist()
    assert [s["object_area"] for s in squashed] == [s["object_area"] for s in samples]
    assert all(s["true_area"] > 10 * s["object_area"] for s in squashed)


@pytest.mark.parametrize("format", ["rle", "png"])
def test_masks_come_back_as_they_were_counted(saved, data_dir, format):
    truths = true_masks(data_dir)
    found = list(read_masks(saved[format]))
    samples = pq.read_table(saved[format] / "samples.parquet").to_pylist()
    assert [each.sample for each in found] == samples
    for sample, mask in found:
        truth = truths[sample["ref_id"]]
        counts = (mask & truth).sum(), (mask | truth).sum()
        assert mask.dtype == bool and counts == (sample["intersection"], sample["union"])
    assert [each.sample["split"] for each in read_masks(saved[format], "testB")] == ["testB"] * sum(
        sample["split"] == "testB" for sample in samples
    )


def test_both_formats_hold_the_same_masks_and_draw_as_the_pipeline_draws(saved, data_dir):
    for one, other in zip(read_masks(saved["rle"]), read_masks(saved["png"]), strict=True):
        assert np.array_equal(one.mask, other.mask)
    picture = Image.new("RGB", one.mask.shape[::-1], "white")
    overlay = draw_overlay(picture, [one.mask], [(one.sample["sentence"], "")])
    assert np.asarray(overlay)[:128].min() < 255


def test_a_mask_is_empty_where_nothing_is_found_unless_it_is_asked_for_as_it_came(tmp_path, data_dir, monkeypatch):
    options = {"data_dir": data_dir, "generalized": True, "splits": "val", "save_masks": "png", "min_pixels": 10**6}
    _, samples, _ = run(tmp_path / "out", **options)
    assert all(sample["nothing_found"] for sample in samples)
    assert not any(each.mask.any() for each in read_masks(tmp_path / "out"))
    came = [each.mask.sum() for each in read_masks(tmp_path / "out", as_found=False)]
    assert came == [s["intersection"] + s["union"] - s["true_area"] for s in samples] and any(came)


def test_results_are_read_as_they_were_counted(saved):
    results = read_results(saved["rle"])
    assert list(results.splits) == ["val", "testB"] and results.data == "shapes (unc)"
    for name, split in results.splits.items():
        assert split.tally.scores(results.protocol) == results.about["splits"][name]["scores"]


def test_a_folder_without_masks_says_how_to_get_them(tmp_path, saved):
    folder = shutil.copytree(saved["rle"], tmp_path / "copy")
    (folder / "masks.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="holds no masks; evaluate with --save_masks rle or png"):
        next(read_masks(folder))


def damage_results(folder, **fields):
    path = folder / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_json(folder, change):
    path = folder / "results.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def retype(path, name: str, kind: pa.DataType):
    """Write a column of a table in another type."""
    change_table(path, lambda table: table.set_column(table.column_names.index(name), name, table[name].cast(kind)))


def change_table(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def null_first(table: pa.Table, name: str) -> pa.Table:
    values = [None, *table[name].to_pylist()[1:]]
    return table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))


DAMAGES = {
    "no results.json": lambda folder: (folder / "results.json").unlink(),
    "no samples": lambda folder: (folder / "samples.parquet").unlink(),
    "samples that are none": lambda folder: (folder / "samples.parquet").write_bytes(b"PAR1 no"),
    "JSON that is none": lambda folder: (folder / "results.json").write_text("{"),
    "deep JSON": lambda folder: (folder / "results.json").write_text("[" * 100_000),
    "a list": lambda folder: (folder / "results.json").write_text("[]"),
    "another metric": lambda folder: damage_results(folder, metric="accuracy"),
    "no splits": lambda folder: damage_results(folder, splits={}),
    "splits of another shape": lambda folder: damage_results(folder, splits={"val": 3}),
    "a split that has no rows": lambda folder: damage_results(folder, splits={"train": {"published": []}}),
    "no protocol": lambda folder: damage_results(folder, protocol=None),
    "a column is missing": lambda folder: change_table(
        folder / "samples.parquet", lambda table: table.drop_columns(["nothing_found"])
    ),
    "an empty cell": lambda folder: change_table(folder / "samples.parquet", lambda table: null_first(table, "union")),
    "numbers as text": lambda folder: retype(folder / "samples.parquet", "intersection", pa.string()),
    "fractions of pixels": lambda folder: retype(folder / "samples.parquet", "union", pa.float64()),
    "a flag as text": lambda folder: retype(folder / "samples.parquet", "nothing_found", pa.string()),
    "numbers where parts are named": lambda folder: change_table(
        folder / "samples.parquet",
        lambda table: table.set_column(
            table.column_names.index("category"), "category", pa.array([[1]] * len(table), pa.list_(pa.int64()))
        ),
    ),
    "no category": lambda folder: change_table(
        folder / "samples.parquet", lambda table: table.drop_columns(["category"])
    ),
    "two columns of one name": lambda folder: change_table(
        folder / "samples.parquet", lambda table: table.append_column("union", table["union"])
    ),
    "no id of a ref": lambda folder: change_table(
        folder / "samples.parquet", lambda table: null_first(table, "ref_id")
    ),
    "counts that are swapped": lambda folder: change_table(
        folder / "samples.parquet",
        lambda table: table.rename_columns(
            [{"union": "intersection", "intersection": "union"}.get(name, name) for name in table.column_names]
        ),
    ),
    "counts below 0": lambda folder: change_table(
        folder / "samples.parquet",
        lambda table: table.set_column(
            table.column_names.index("intersection"), "intersection", pa.array([-1] * len(table))
        ),
    ),
    "a score that is NaN": lambda folder: change_json(
        folder, lambda about: about["splits"]["val"]["scores"].update(miou=float("nan"))
    ),
    "a score as text": lambda folder: change_json(
        folder, lambda about: about["splits"]["val"]["scores"].update(miou="0.5")
    ),
    "no threshold": lambda folder: change_json(folder, lambda about: about["protocol"].pop("threshold")),
    "no size": lambda folder: change_json(folder, lambda about: about["protocol"].pop("size")),
    "no text that was read": lambda folder: change_json(folder, lambda about: about.pop("sentences")),
    "a protocol without a name of text": lambda folder: change_json(
        folder, lambda about: about["protocol"].update(name=["full"])
    ),
    "an epsilon of text": lambda folder: change_json(folder, lambda about: about["protocol"].update(epsilon="1")),
    "a published figure of text": lambda folder: change_json(
        folder,
        lambda about: about["splits"]["val"]["published"].append(
            {"model": "x", "protocol": "full", "source": "y", "scores": {"miou": "99"}}
        ),
    ),
    "a published model that is a list": lambda folder: change_json(
        folder,
        lambda about: about["splits"]["val"]["published"].append(
            {"model": ["x"], "protocol": "full", "source": "y", "scores": {"miou": 0.9}}
        ),
    ),
    "who split it is a list": lambda folder: damage_results(folder, split_by=["unc"]),
    "rows are missing": lambda folder: change_table(folder / "samples.parquet", lambda table: table.slice(1)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_results_that_are_damaged_are_refused_in_a_line(saved, tmp_path, damage):
    folder = shutil.copytree(saved["rle"], tmp_path / "copy")
    DAMAGES[damage](folder)
    with pytest.raises((ValueError, FileNotFoundError), match="evaluate again|Evaluate again|evaluate --output_dir"):
        read_results(folder)


MASK_DAMAGES = {
    "no table": lambda folder: (folder / "masks.parquet").write_bytes(b"no"),
    "of other samples": lambda folder: change_table(folder / "masks.parquet", lambda table: table.slice(1)),
    "of samples in another order": lambda folder: change_table(
        folder / "masks.parquet",
        lambda table: pa.concat_tables([table.slice(1, 1), table.slice(0, 1), table.slice(2)]),
    ),
    "of another size": lambda folder: change_table(
        folder / "masks.parquet",
        lambda table: table.set_column(
            table.column_names.index("height"), "height", pa.array([7] * len(table), pa.int32())
        ),
    ),
    "no run lengths": lambda folder: change_table(
        folder / "masks.parquet",
        lambda table: table.set_column(table.column_names.index("counts"), "counts", pa.array(["é"] * len(table))),
    ),
    "no counts": lambda folder: change_table(folder / "masks.parquet", lambda table: table.drop_columns(["counts"])),
    "an empty cell": lambda folder: change_table(folder / "masks.parquet", lambda table: null_first(table, "counts")),
}


@pytest.mark.parametrize("damage", MASK_DAMAGES)
def test_masks_that_are_damaged_are_refused_in_a_line(saved, tmp_path, damage):
    folder = shutil.copytree(saved["rle"], tmp_path / "copy")
    MASK_DAMAGES[damage](folder)
    with pytest.raises(ValueError, match="[Ee]valuate again"):
        list(read_masks(folder))


def test_masks_larger_than_any_picture_are_refused_before_they_are_unfolded(saved, tmp_path, monkeypatch):
    folder = shutil.copytree(saved["rle"], tmp_path / "rle")
    side = 2**15
    counts = coco_mask.frPyObjects({"size": [side, side], "counts": [side * side]}, side, side)["counts"].decode()
    change_table(
        folder / "masks.parquet",
        lambda table: pa.table(
            {
                **{name: table[name] for name in table.column_names[:-3]},
                **{name: pa.array([side] * len(table), pa.int32()) for name in ("height", "width")},
                "counts": [counts] * len(table),
            }
        ),
    )
    with pytest.raises(ValueError, match="row 0 of .* is no mask of"):
        next(read_masks(folder))
    for bound in (100, 10_000):  # Pillow raises for more than twice as many pixels, and warns for more than as many
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bound)
        with pytest.raises(ValueError, match=r"000000\.png is no mask"):
            next(read_masks(saved["png"]))


def test_results_that_pandas_wrote_again_are_read(saved, tmp_path):
    folder = shutil.copytree(saved["rle"], tmp_path / "copy")
    samples = pq.read_table(folder / "samples.parquet").to_pandas()
    samples.to_parquet(folder / "samples.parquet")
    assert read_results(folder).splits.keys() == read_results(saved["rle"]).splits.keys()


def test_a_picture_of_a_mask_that_is_missing_or_none_is_named(saved, tmp_path):
    folder = shutil.copytree(saved["png"], tmp_path / "copy")
    (folder / "masks" / "000001.png").write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match=r"000001\.png is no mask"):
        list(read_masks(folder))
    (folder / "masks" / "000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"000001\.png is missing"):
        list(read_masks(folder))


def test_the_hash_is_of_what_the_weights_are_and_not_of_their_file(tmp_path, saved, model_and_processor):
    model, _ = model_and_processor
    said = json.loads((saved["rle"] / "results.json").read_text())["weights_sha256"]
    assert said == hash_weights(model)
    model.save_pretrained(tmp_path / "shards", max_shard_size="2MB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    again, _ = load_model(copy_processor(tmp_path / "shards"), "cpu", "float32")
    assert hash_weights(again) == said
    digest = hashlib.sha256()
    weights = load_file(f"{MODEL}/model.safetensors")
    for name, values in sorted({name: weights.get(name) for name in model.state_dict()}.items()):
        values = model.state_dict()[name].numpy() if values is None else values
        digest.update(f"{name} {values.dtype} {list(values.shape)}\n".encode() + values.tobytes())
    assert digest.hexdigest() == said
    with np.errstate(all="ignore"):
        next(again.parameters()).data.view(-1)[0] += 1e-3
    assert hash_weights(again) != said


def copy_processor(folder):
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        source = f"{MODEL}/{name}"
        try:
            shutil.copy(source, folder)
        except FileNotFoundError:
            continue
    return str(folder)
