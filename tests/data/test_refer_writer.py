# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A REFER folder that is written of any rows: read by readers of another make, and back into the same rows."""

import io
import json
import os
import pickle
import pickletools
from pathlib import Path

import datasets
import numpy as np
import pytest
from generalized_fixture import TinyPhraseCut, robust
from PIL import ExifTags, Image
from refer_fixture import TinyRefer, picture, rectangle
from refer_readers import GRefer, Refer, rela_mask
from test_folder import LINES, MASK, write
from test_genuine import FRAGMENT, likeness, needs_fragment

from remamber_hf.data import refer_writer
from remamber_hf.data.check import check_data
from remamber_hf.data.export import export_parquet
from remamber_hf.data.folder import rows_from_columns
from remamber_hf.data.mixture import load_one, load_sources, mix_training_rows
from remamber_hf.data.refer import load_refer
from remamber_hf.data.refer_writer import (
    choose_split_by,
    export_refer,
    name_for,
    number_things,
    words_of,
)
from remamber_hf.data.rle import encode_mask
from remamber_hf.data.rows import is_generalized, row_mask
from remamber_hf.synthetic.dataset import synthesize


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def drawn(folder: Path, generalized: bool = False, **options):
    synthesize(folder, 12, 3, image_size=64, num_workers=1, progress=False, **options)
    return load_one("shapes", "unc", folder, generalized=generalized).splits


def own_folder(folder: Path, lines=LINES):
    (folder / "masks").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        picture(30, 40).save(folder / name)
    Image.fromarray(MASK).save(folder / "masks" / "a.png")
    return load_one(None, None, write(folder, lines)).splits


def nothing_too(folder: Path):
    lines = [*LINES, {"file_name": "b.jpg", "no_target": True, "expression": ["a horse", "A horse."]}]
    return own_folder(folder, lines)


def parquet(folder: Path):
    export_parquet(drawn(folder / "drawn", style="rich"), folder / "parquet", "Shapes")
    return load_one(str(folder / "parquet"), None, None).splits


def g_ref(folder: Path):
    return load_one("refcocog", "umd", likeness().write(folder, "refcocog", "umd")).splits


def mixture(folder: Path):
    """Of sets whose refs and sentences have the same ids, with pictures and objects in common."""
    for dataset in ("refcoco", "refcoco+"):
        TinyRefer().write(folder, dataset)
    rows, _ = mix_training_rows(load_sources("refcoco,refcoco+", None, folder), "train")
    return datasets.DatasetDict({"train": rows})


def generalized_mixture(folder: Path):
    TinyRefer().write(folder, "refcoco")
    tiny = TinyRefer()
    tiny.add_generalized()
    tiny.grefs[1]["split"] = "train"
    tiny.write(folder, "grefcoco")
    rows, _ = mix_training_rows(load_sources("refcoco,grefcoco", None, folder), "train")
    return datasets.DatasetDict({"train": rows})


def phrases(folder: Path):
    return load_one("phrasecut", None, TinyPhraseCut().write(folder)).splits


def holes_and_overlaps(folder: Path):
    """Objects of polygons that overlap, of RLEs that do, and of both."""
    tiny = TinyRefer()
    overlapping = [rectangle(2, 2, 20, 20), rectangle(10, 10, 30.5, 30.2)]
    ring = np.zeros((60, 40), dtype=bool)
    ring[3:30, 3:30] = True
    ring[8:20, 8:20] = False
    shifted = np.roll(ring, 9, axis=0)
    tiny.annotations[0]["segmentation"] = overlapping
    tiny.annotations[1]["segmentation"] = [encode_mask(ring), encode_mask(shifted)]
    both = np.zeros((32, 32), dtype=bool)
    both[3:20, 3:20] = True
    tiny.annotations[2]["segmentation"] = [rectangle(10, 10, 30, 30), encode_mask(both)]
    return load_one("refcoco", None, tiny.write(folder)).splits


PLAIN = {
    "drawn, plain": lambda folder: drawn(folder, style="plain"),
    "drawn, rich": lambda folder: drawn(folder, style="rich"),
    "a folder of one's own": own_folder,
    "Parquet": parquet,
    "a likeness of G-Ref": g_ref,
    "holes and overlaps": holes_and_overlaps,
}
GENERALIZED = {
    "drawn, generalised": lambda folder: drawn(folder, True, style="rich", many=True, no_target=True),
    "a folder of one's own, nothing too": nothing_too,
    "PhraseCut": phrases,
}
NUMBERED_ANEW = {"a mixture": mixture}
GENERALIZED_ANEW = {"a generalised mixture": generalized_mixture}
ALL = {**PLAIN, **GENERALIZED, **NUMBERED_ANEW, **GENERALIZED_ANEW}


def stored(rows: datasets.Dataset) -> datasets.Dataset:
    return rows.cast_column("image", datasets.Image(decode=False))


def content(image: dict) -> bytes:
    return Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]


def read_with(reader: type[Refer], out: Path, data, keeps_ids: bool, takes=lambda reader, ref: reader.mask(ref)):
    """Every row beside what a reader of another make finds."""
    (name,) = (each.name for each in out.iterdir() if each.name != "images")
    (file,) = (out / name).glob("*refs(*")
    other = reader(out, name, file.name.split("(")[1].split(")")[0])
    pairs = [(row, ref) for split in data for row, ref in zip(stored(data[split]), other.of_split(split), strict=True)]
    assert len(pairs) == len(other.refs)
    for row, ref in pairs:
        image = other.images[ref["image_id"]]
        assert ref["split"] == row["split"] and (image["height"], image["width"]) == (row["height"], row["width"])
        assert other.picture(ref).read_bytes() == content(row["image"])
        assert [other.sentences[number] for number in ref["sent_ids"]] == [
            (ref["ref_id"], text, tuple(words_of(text))) for text in row["sentences"]
        ]
        assert [sentence["sent"] for sentence in ref["sentences"]] == row["sentences"]
        objects, is_list = other.objects(ref), isinstance(row["ann_id"], list)
        assert [each["bbox"] for each in objects] == (row["bbox"] if is_list else [row["bbox"]])
        named = [other.categories[each["category_id"]] for each in objects]
        assert named == (row["category"] if is_list else [row["category"]])
        assert {each["image_id"] for each in objects} <= {ref["image_id"]}
        assert {each["iscrowd"] for each in objects} <= {0}
        assert [each["area"] for each in objects] == [(other.layers(each) > 0).sum() for each in objects]
        assert np.array_equal(takes(other, ref), row_mask(row))
        if keeps_ids:
            assert (ref["ref_id"], ref["image_id"]) == (row["ref_id"], row["image_id"])
            assert ref["sent_ids"] == row["sentence_ids"]
            assert [each["id"] for each in objects] == (row["ann_id"] if is_list else [row["ann_id"]])


@pytest.mark.parametrize("source", ALL)
def test_readers_of_another_make_find_the_same_data(tmp_path, source):
    data = ALL[source](tmp_path / "source")
    takes_lists = is_generalized(next(iter(data.values())))
    assert takes_lists == (source in (*GENERALIZED, *GENERALIZED_ANEW))
    export_refer(data, tmp_path / "out", "grefcoco" if takes_lists else "refcoco")
    keeps_ids = source in (*PLAIN, *GENERALIZED)
    read_with(GRefer if takes_lists else Refer, tmp_path / "out", data, keeps_ids)


@pytest.mark.parametrize("source", [*PLAIN, *GENERALIZED])
def test_the_same_rows_are_read_back_and_the_check_finds_all_right(tmp_path, source):
    data = ALL[source](tmp_path / "source")
    takes_lists = is_generalized(next(iter(data.values())))
    counts = export_refer(data, tmp_path / "out", "mine", "me")
    assert counts == {split: len(rows) for split, rows in data.items()}
    back = load_refer("mine", "me", data_dir=tmp_path / "out", generalized=takes_lists)
    assert list(back) == list(data)
    for split, rows in data.items():
        assert back[split].features == rows.features
        for name in (
            set(rows.column_names) - {"image"} - ({"segmentation"} if source == "holes and overlaps" else set())
        ):
            assert back[split][name][:] == rows[name][:], name
        for row, original in zip(stored(back[split]), stored(rows), strict=True):
            assert content(row["image"]) == content(original["image"])
            assert np.array_equal(row_mask(row), row_mask(original))
            if original["image"]["path"] is not None:
                assert os.path.basename(row["image"]["path"]) == os.path.basename(original["image"]["path"])
    (result,) = check_data(tmp_path / "out")
    assert result.is_good and not result.notes and result.name.startswith("mine (me")


@needs_fragment
def test_the_genuine_fragment_of_g_ref_goes_through(tmp_path):
    root, pictures = tmp_path / "data", tmp_path / "data" / Refer.coco
    (root / "refcocog").mkdir(parents=True)
    pictures.mkdir(parents=True)
    for path in FRAGMENT.iterdir():
        (root / "refcocog" / path.name).write_bytes(path.read_bytes())
    for image in json.loads((root / "refcocog" / "instances.json").read_text())["images"]:
        Image.new("L", (image["width"], image["height"])).save(pictures / image["file_name"])
    data = load_one(None, None, root).splits
    export_refer(data, tmp_path / "out", "refcocog", "umd")
    read_with(Refer, tmp_path / "out", data, keeps_ids=True)
    genuine, other = (Refer(each, "refcocog", "umd") for each in (root, tmp_path / "out"))
    for ref_id, ref in genuine.refs.items():
        assert np.array_equal(other.mask(other.refs[ref_id]), genuine.mask(ref))
        assert other.picture(other.refs[ref_id]).name == genuine.picture(ref).name
        ann_id = ref["ann_id"]
        assert other.annotations[ann_id]["segmentation"] == genuine.annotations[ann_id]["segmentation"]
        assert other.annotations[ann_id]["area"] == pytest.approx(genuine.annotations[ann_id]["area"], rel=0.05)


@pytest.mark.parametrize("generalized", [False, True])
def test_a_written_set_is_written_again_byte_for_byte(tmp_path, generalized):
    data = drawn(tmp_path / "source", generalized, style="rich", many=True, no_target=True)
    export_refer(data, tmp_path / "out", "mine")
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))
    export_refer(data, tmp_path / "again", "mine")
    back = load_refer("mine", "unc", data_dir=tmp_path / "out", generalized=generalized)
    export_refer(back, tmp_path / "back", "mine")
    files = [files_of(tmp_path / name) for name in ("out", "again", "back")]
    assert files[0] == files[1] == files[2]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_pickle_is_of_protocol_2_and_holds_nothing_but_containers_texts_and_integers(tmp_path):
    export_refer(own_folder(tmp_path / "own"), tmp_path / "out", "refcoco")
    written = (tmp_path / "out" / "refcoco" / "refs(unc).p").read_bytes()
    assert written[:2] == b"\x80\x02"
    names = {opcode.name for opcode, _, _ in pickletools.genops(written)}
    assert not {name for name in names if "GLOBAL" in name or "REDUCE" in name or "INST" in name or "OBJ" in name}

    def kinds(value):
        parts = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else []
        return {type(value)}.union(*map(kinds, parts))

    assert kinds(pickle.loads(written)) == {list, dict, str, int}


def test_splits_keep_their_names(tmp_path):
    lines = [{**LINES[0], "split": name} for name in ("train", "val", "testA", "validation", "test", "日")]
    data = own_folder(tmp_path / "own", lines)
    export_refer(data, tmp_path / "out", "refcoco")
    other = Refer(tmp_path / "out", "refcoco", "unc")
    assert [ref["split"] for ref in other.refs.values()] == list(data)
    assert len(other.of_split("test")) == 2  # as `refer.py` has it


# Polygons alone


@pytest.mark.parametrize("source", ALL)
def test_polygons_alone_make_the_same_masks_and_rela_trains_on_each(tmp_path, source):
    data = ALL[source](tmp_path / "source")
    takes_lists = is_generalized(next(iter(data.values())))
    export_refer(data, tmp_path / "out", "grefcoco" if takes_lists else "refcoco", polygons_only=True)
    reader = GRefer if takes_lists else Refer
    read_with(reader, tmp_path / "out", data, keeps_ids=source in (*PLAIN, *GENERALIZED))
    if source != "holes and overlaps":  # where ReLA takes the union
        read_with(reader, tmp_path / "out", data, keeps_ids=False, takes=rela_mask)


def test_rela_leaves_out_what_is_no_polygon(tmp_path):
    """Which is why there is a choice."""
    data = own_folder(tmp_path / "own")
    export_refer(data, tmp_path / "out", "refcoco")
    other = Refer(tmp_path / "out", "refcoco", "unc")
    assert [rela_mask(other, ref) is None for ref in other.refs.values()] == [True, False, True]


def test_a_mask_that_is_too_ragged_for_polygons_is_refused(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).random((30, 40)) < 0.5
    data = own_folder(tmp_path / "own", [{**LINES[2], "rle": encode_mask(noise)}])
    export_refer(data, tmp_path / "whole", "mine", polygons_only=True)
    monkeypatch.setattr("remamber_hf.data.coco.MAX_OUTLINE", 1000)
    with pytest.raises(ValueError, match="ref 1 of split val: mask too ragged: .* without --polygons"):
        export_refer(data, tmp_path / "out", "mine", polygons_only=True)
    assert not (tmp_path / "out").exists()


# Ids


@pytest.mark.parametrize(
    ("ids", "things", "numbers"),
    [
        ([7, 9, 7], "aba", [7, 9, 7]),
        ([7, 9], "aa", [7, 9]),
        ([0], "a", [0]),
        ([7, 7, 9], "aba", [1, 2, 1]),
        ([-1, 5], "ab", [1, 2]),
        ([2**62, 1], "ab", [2**62, 1]),
        ([], "", []),
    ],
)
def test_ids_stay_where_each_is_of_one_thing(ids, things, numbers):
    assert number_things(ids, things) == numbers


def test_rows_of_columns_which_are_numbered_by_split_get_ids_of_their_own(tmp_path):
    features = {"image": datasets.Image(), "mask": datasets.Image(), "expression": datasets.Value("string")}
    pictures = [picture(30, 40), picture(30, 40).transpose(Image.Transpose.ROTATE_180)]
    columns = {"image": [*pictures, pictures[0]], "mask": [Image.fromarray(MASK)] * 3, "expression": ["a", "b", "c"]}
    rows = datasets.Dataset.from_dict(columns, datasets.Features(features))
    data = rows_from_columns(datasets.DatasetDict({"train": rows, "val": rows.select([1])}))
    assert data["val"]["ref_id"][:] == data["val"]["image_id"][:] == data["val"]["ann_id"][:] == [1]
    export_refer(data, tmp_path / "out", "refcoco")
    other = Refer(tmp_path / "out", "refcoco", "unc")
    assert [ref["ref_id"] for ref in other.refs.values()] == [1, 2, 3, 4]
    assert [ref["image_id"] for ref in other.refs.values()] == [1, 2, 1, 2]  # of one picture, one id
    assert [ref["ann_id"] for ref in other.refs.values()] == [1, 2, 1, 2]  # and of one object in it
    assert [ref["sent_ids"] for ref in other.refs.values()] == [[1], [2], [3], [4]]
    assert len(other.images) == len(other.annotations) == len(list(other.pictures.iterdir())) == 2
    read_with(Refer, tmp_path / "out", data, keeps_ids=False)


def test_rows_that_share_a_ref_id_get_their_own_and_keep_all_other_ids(tmp_path):
    data = load_one("rrefcoco", None, robust().write(tmp_path / "data", "rrefcoco")).splits
    assert data["train"]["ref_id"][:2] == [1001, 1001]
    export_refer(data, tmp_path / "out", "grefcoco")
    other = GRefer(tmp_path / "out", "grefcoco", "unc")
    assert list(other.refs) == [1, 2, 3, 4, 5, 6, 7]
    assert [ref["sent_ids"] for ref in other.refs.values()] == [
        number for rows in data.values() for number in rows["sentence_ids"]
    ]
    assert [ref["ann_id"] for ref in other.refs.values()] == [[101], [-1], [102], [103], [104], [105], [106]]
    read_with(GRefer, tmp_path / "out", data, keeps_ids=False)


def test_an_object_whose_id_would_mean_nothing_is_numbered_anew(tmp_path):
    tiny = TinyRefer()
    tiny.add_generalized()
    tiny.annotations[0]["id"] = tiny.grefs[0]["ann_id"][0] = -7
    data = load_one("grefcoco", None, tiny.write(tmp_path / "data", "grefcoco")).splits
    assert data["train"]["ann_id"][:] == [[-7, 201]]
    export_refer(data, tmp_path / "out", "grefcoco")
    refs = GRefer(tmp_path / "out", "grefcoco", "unc").refs
    assert [ref["ann_id"] for ref in refs.values()] == [[1, 2], [-1]]


def test_an_object_of_several_refs_is_written_once(tmp_path):
    tiny = TinyRefer()
    tiny.refs[1].update(ann_id=101, image_id=1)
    data = load_one("refcoco", None, tiny.write(tmp_path / "data")).splits
    export_refer(data, tmp_path / "out", "refcoco")
    instances = json.loads((tmp_path / "out" / "refcoco" / "instances.json").read_text())
    assert [each["id"] for each in instances["annotations"]] == [101, 103, 104, 105, 106]
    assert [each["id"] for each in instances["images"]] == [1, 3, 4, 5, 6]


def test_one_row_per_sentence_is_written_as_one_ref_per_sentence(tmp_path):
    data = load_refer("refcoco", "unc", data_dir=TinyRefer().write(tmp_path / "data"), expand_sentences=True)
    export_refer(data, tmp_path / "out", "refcoco")
    other = Refer(tmp_path / "out", "refcoco", "unc")
    assert list(other.refs) == list(range(1, 13)) and sorted(other.sentences) == list(range(12))
    assert len(other.annotations) == 6
    read_with(Refer, tmp_path / "out", data, keeps_ids=False)


# Pictures


def test_pictures_of_one_name_in_two_folders_are_two(tmp_path):
    folder = tmp_path / "own"
    lines = [{**LINES[1], "file_name": f"{name}/1.png"} for name in ("a", "b")]
    for number, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(folder / name / "1.png")
    data = load_one(None, None, write(folder, lines)).splits
    export_refer(data, tmp_path / "out", "refcoco")
    other = Refer(tmp_path / "out", "refcoco", "unc")
    assert [image["file_name"] for image in other.images.values()] == ["1.png", "1_2.png"]
    read_with(Refer, tmp_path / "out", data, keeps_ids=True)


def test_a_photograph_that_is_turned_by_exif_is_written_upright(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    values = Image.Exif()
    values[ExifTags.Base.Orientation] = 6
    sideways = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(sideways).save(folder / "a.jpg", exif=values)
    data = load_one(None, None, write(folder, [LINES[1]])).splits
    export_refer(data, tmp_path / "out", "refcoco")
    other = Refer(tmp_path / "out", "refcoco", "unc")
    ((_, ref),) = other.refs.items()
    assert other.picture(ref).name == "a.png"
    with Image.open(other.picture(ref)) as written:
        assert np.array_equal(np.asarray(written), np.asarray(data["train"][0]["image"].convert("RGB")))
        assert written.size == (40, 30)
    assert np.array_equal(other.mask(ref), row_mask(data["train"][0]))


HOSTILE = ("../../stolen.png", "{outside}/stolen.png", "..\\stolen.png", "..", "images/../../stolen.png", None)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_of_a_picture_writes_nothing_outside(tmp_path, name):
    name = name and name.format(outside=tmp_path)
    (tmp_path / "in").mkdir()
    data = own_folder(tmp_path / "in" / "own")
    buffer = io.BytesIO()
    picture(30, 40).save(buffer, "PNG")
    rows = [{**row, "image": {"path": name, "bytes": buffer.getvalue()}} for row in stored(data["train"])]
    data = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows, data["train"].features)})
    before = files_of(tmp_path)
    export_refer(data, tmp_path / "in" / "out", "refcoco")
    (written,) = (tmp_path / "in" / "out" / Refer.coco).iterdir()
    assert written.name in ("stolen.png", "refcoco_000000000001.png")
    new = set(files_of(tmp_path)) - set(before)
    assert all(name.startswith("in/out/") for name in new) and len(new) == 3
    read_with(Refer, tmp_path / "in" / "out", data, keeps_ids=True)


def test_rows_of_another_size_than_their_picture_are_refused(tmp_path):
    data = own_folder(tmp_path / "own")
    wrong = data["train"].map(lambda row: {"height": 31})
    with pytest.raises(ValueError, match="ref 1 of split train is of 31×40 pixels, its picture of 30×40; mend"):
        export_refer(datasets.DatasetDict({"train": wrong}), tmp_path / "out", "refcoco")
    assert not (tmp_path / "out").exists()


# Names


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a b", ".git", "images", "Images", "x" * 51, "a\n"]
)
def test_a_name_that_is_no_plain_folders_is_refused(tmp_path, name):
    data = own_folder(tmp_path / "own")
    with pytest.raises(ValueError, match="the data set's name is .*; give at most 50 letters"):
        export_refer(data, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["ref-zom", "refzom", "arefcoco", "phrasecut", "VGPhraseCut_v0", "rrefcoco", "grefcoco"]
)
def test_a_name_that_stands_for_other_files_is_refused(tmp_path, name):
    data = own_folder(tmp_path / "own")
    with pytest.raises(ValueError, match=f"a folder called {name} holds other files .* one object; give refcoco or"):
        export_refer(data, tmp_path / "out", name)


def test_the_name_of_a_plain_set_is_refused_for_a_generalised_one(tmp_path):
    data = nothing_too(tmp_path / "own")
    with pytest.raises(ValueError, match="a folder called refcoco holds .* any number of objects; give grefcoco, or"):
        export_refer(data, tmp_path / "out", "refcoco")


@pytest.mark.parametrize("takes_lists", [False, True])
@pytest.mark.parametrize(
    ("source", "plain", "generalized"),
    [
        ("shapes", "shapes", "shapes"),
        ("refcoco", "refcoco", "refcoco_refer"),
        ("grefcoco", "grefcoco_refer", "grefcoco"),
        ("phrasecut", "phrasecut_refer", "phrasecut_refer"),
        ("YOU/shapes", "shapes", "shapes"),
        ("My data (2)", "My_data_2_", "My_data_2_"),
        ("街の写真", "街の写真", "街の写真"),
        (".hidden", "hidden", "hidden"),
        ("...", "data", "data"),
        ("images", "images_refer", "images_refer"),
        ("x" * 300, "x" * 44, "x" * 44),
    ],
)
def test_a_source_gives_a_name_that_can_be_written(monkeypatch, takes_lists, source, plain, generalized):
    monkeypatch.setattr(refer_writer, "is_generalized_set", lambda data: takes_lists)
    name = name_for(source, datasets.DatasetDict())
    assert name == (generalized if takes_lists else plain)
    refer_writer.check_name(name, takes_lists)


def test_a_refs_file_is_called_as_its_set_allows():
    given = {
        ("refcoco", "google"): "google", ("refcoco", None): "unc", ("refcoco", "umd"): "unc",
        ("refcocog", None): "umd", ("refcocog", "google"): "google", ("grefcoco", "authors"): "unc",
        ("mine", "authors"): "authors",
        ("mine", None): "unc", ("mine", "a/b"): "unc", ("mine", "../b"): "unc",
    }  # fmt: skip
    assert {pair: choose_split_by(*pair) for pair in given} == given


def test_a_split_whose_name_is_no_word_is_refused(tmp_path):
    data = datasets.DatasetDict({"../train": own_folder(tmp_path / "own")["train"]})
    with pytest.raises(ValueError, match="a split is called '../train', a word of at most 50 letters is needed"):
        export_refer(data, tmp_path / "out", "mine")


def test_what_is_unicode_stays_so(tmp_path):
    lines = [{**LINES[0], "expression": "das Größte ‚左‘", "category": "马"}]
    data = own_folder(tmp_path / "own", lines)
    export_refer(data, tmp_path / "out", "街")
    (row,) = load_refer("街", "unc", "train", data_dir=tmp_path / "out")
    assert (row["sentences"], row["category"]) == (["das Größte ‚左‘"], "马")
    (ref,) = pickle.loads((tmp_path / "out" / "街" / "refs(unc).p").read_bytes())
    assert ref["sentences"][0]["tokens"] == ["das", "größte", "左"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The left one.", ["the", "left", "one"]),
        ("a man's hat, medium-sized (red)!", ["a", "man's", "hat", "medium-sized", "red"]),
        ("white / off - white", ["white", "off", "white"]),
        ("#1 of 3", ["1", "of", "3"]),
        ("?", []),
    ],
)
def test_tokens_are_words_in_small_letters(text, words):
    assert words_of(text) == words


# Whole or not at all


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    data = own_folder(tmp_path / "own")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        export_refer(data, tmp_path / "out", "refcoco")
    assert files_of(tmp_path / "out") == {"mine": b"mine"}


def test_an_export_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    data = own_folder(tmp_path / "own")
    before = set(files_of(tmp_path))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(refer_writer.json, "dumps", fail)
    with pytest.raises(OSError, match="disk full"):
        export_refer(data, tmp_path / "out", "refcoco")
    assert set(files_of(tmp_path)) == before and not (tmp_path / "out").exists()


def test_nothing_is_refused(tmp_path):
    data = own_folder(tmp_path / "own")
    with pytest.raises(ValueError, match="mine holds no row; there is nothing to write"):
        export_refer(datasets.DatasetDict({"train": data["train"].select([])}), tmp_path / "out", "mine")
    emptied = datasets.DatasetDict({"train": data["train"], "val": data["val"].select([])})
    assert export_refer(emptied, tmp_path / "out", "mine") == {"train": 2, "val": 0}
    assert list(load_refer("mine", "unc", data_dir=tmp_path / "out")) == ["train"]
