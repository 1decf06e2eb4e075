# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which data a run reads, and that a mixture trains on nothing that it tests on."""

import datasets
import pytest
from generalized_fixture import TinyPhraseCut, ref_zom
from PIL import Image
from refer_fixture import TinyRefer, picture, rectangle
from test_folder import LINES, MASK, write

from remamber_hf.data.export import export_parquet
from remamber_hf.data.folder import load_referring_folder
from remamber_hf.data.mixture import load_one, load_sources, mix_training_rows
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import is_generalized, refer_features, row_mask, target_kind


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    """RefCOCO, RefCOCO+ and G-Ref on the same pictures 1 to 6, each with splits of its own."""
    write_sets(
        tmp_path / "data",
        ("refcoco", "unc", ["train", "train", "train", "val", "testA", "testB"]),
        ("refcoco+", "unc", ["train", "val", "train", "train", "train", "testB"]),
        ("refcocog", "umd", ["train", "train", "train", "train", "test", "val"]),
    )
    return tmp_path / "data"


def write_sets(root, *sets):
    for dataset, split_by, splits in sets:
        tiny = TinyRefer()
        for ref, split in zip(tiny.refs, splits, strict=True):
            ref["split"] = split
        tiny.write(root, dataset, split_by)


def own_folder(folder):
    (folder / "masks").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        picture(30, 40).save(folder / name)
    Image.fromarray(MASK).save(folder / "masks" / "a.png")
    return write(folder, LINES)


def mix(root, names, split_by=None):
    return mix_training_rows(load_sources(names, split_by, root), "train")


# A mixture


def test_pictures_that_another_set_tests_on_are_removed_and_counted(root):
    rows, num_removed = mix(root, "refcoco,refcoco+,refcocog")
    assert num_removed == {"refcoco": 1, "refcoco+": 2, "refcocog": 2}
    assert sorted(rows["image_id"]) == [1, 1, 1, 3, 3, 3]  # 2 is in val, 4 to 6 are in val or test of one of them


def test_one_data_set_is_left_as_it_is_published(root):
    rows, num_removed = mix(root, "refcoco")
    assert num_removed == {"refcoco": 0}
    assert rows.to_dict() == load_refer("refcoco", "unc", "train", data_dir=root).to_dict()


def test_pictures_of_refclef_have_ids_of_their_own(root):
    tiny = TinyRefer()
    for ref in tiny.refs:
        ref["split"] = "train"
    tiny.write(root, "refclef", "unc", layout="refclef")
    rows, num_removed = mix(root, "refcoco,refclef")
    assert num_removed == {"refcoco": 0, "refclef": 0}
    assert len(rows) == 3 + 6


def test_a_set_of_which_nothing_is_left_is_named(root):
    write_sets(root, ("refcocog", "google", ["train"] * 4 + ["val"] * 2))
    write_sets(root, ("refcoco", "google", ["val"] * 5 + ["train"]))
    with pytest.raises(ValueError, match=r"every picture of refcoco \(google\) is in val or test of the other"):
        mix(root, "refcoco,refcocog", "google,google")


# A mixture with sets in which a sentence may mean nothing or several objects


def write_grefcoco(root, splits=("train", "val")):
    tiny = TinyRefer()
    tiny.add_generalized()
    for ref, split in zip(tiny.grefs, splits, strict=True):
        ref["split"] = split
    tiny.write(root, "grefcoco")


def test_rows_of_a_plain_set_become_lists_beside_grefcoco(root):
    write_grefcoco(root)
    for names in ("refcoco,grefcoco", "grefcoco,refcoco"):
        rows, num_removed = mix(root, names)
        assert rows.features == refer_features(generalized=True)
        assert num_removed == {"refcoco": 1, "grefcoco": 0}  # picture 2 is in val of gRefCOCO
        by_ids = {tuple(row["ann_id"]): row for row in rows}
        assert by_ids.keys() == {(101,), (103,), (101, 201)}
        assert (by_ids[103,]["category"], by_ids[103,]["bbox"]) == (["person"], [[2.5, 3.0, 10.0, 12.0]])
        original = load_refer("refcoco", "unc", "train", data_dir=root)[2]
        assert original["ann_id"] == 103 and by_ids[103,]["image"].size == original["image"].size
        assert (row_mask(by_ids[103,]) == row_mask(original)).all() and row_mask(original).any()


def test_sets_without_a_grefs_file_mix_with_those_whose_grefs_are_asked_for(root):
    tiny = TinyRefer()
    tiny.add_generalized()
    tiny.write(root, "scenes")
    mixed = load_sources("refcoco,scenes", None, root, generalized=True)
    assert [is_generalized(source.splits["train"]) for source in mixed] == [False, True]
    with pytest.raises(ValueError, match="refcoco is not in"):
        load_sources("refcoco", None, root, generalized=True)


def test_plain_sets_alone_stay_plain(root):
    assert mix(root, "refcoco,refcoco+")[0].features == refer_features()


def test_overlapping_parts_of_a_plain_row_are_its_object_in_such_a_mixture(root, tmp_path):
    tiny = TinyRefer()
    tiny.annotations[0]["segmentation"] = [rectangle(2, 2, 20, 20), rectangle(10, 10, 30, 30)]
    tiny.write(root, "refcoco")
    write_grefcoco(root)
    rows, _ = mix(root, "refcoco,grefcoco")
    alone = load_refer("refcoco", "unc", "train", data_dir=root)[0]
    assert rows[0]["ann_id"] == [101] and alone["ann_id"] == 101
    assert not row_mask(alone)[15, 15] and row_mask(rows[0])[15, 15]
    assert (row_mask(rows[0]) == row_mask(alone, "union")).all()


def test_ref_zom_has_the_pictures_of_coco(root):
    ref_zom().write(root, "ref-zom", "final")
    rows, num_removed = mix(root, "refcoco,ref-zom")
    assert num_removed == {"refcoco": 0, "ref-zom": 0}  # 4 is in test of Ref-ZOM, and in val of RefCOCO
    rows, num_removed = mix(root, "refcoco+,refzom")
    assert num_removed == {"refcoco+": 1, "ref-zom": 1}  # 4 of RefCOCO+, 2 of Ref-ZOM
    assert sorted(map(target_kind, rows)) == ["many", "none", "one", "one", "one"]


def test_pictures_of_phrasecut_are_cocos_where_it_says_so(tmp_path):
    root = tmp_path / "data"
    phrases = TinyPhraseCut()
    phrases.tasks["train"] += [
        phrases.task(2_300_000 + number, "more", phrases.tasks["train"][0]["Polygons"]) for number in (2, 3, 4)
    ]
    phrases.tasks = {"train": phrases.tasks["train"], "val": phrases.tasks["val"], "test": phrases.tasks["test"]}
    phrases.pictures[3]["coco_id"] = 6
    phrases.pictures[1]["coco_id"] = None
    phrases.write(root)
    write_sets(root, ("refcoco", "unc", ["train", "train", "train", "val", "testA", "testB"]))
    rows, num_removed = mix(root, "refcoco,phrasecut")
    # Held out: 4 to 6 of COCO, 3 of COCO by PhraseCut's test, and the second of Visual Genome by its val.
    assert num_removed == {"refcoco": 1, "phrasecut": 3}
    assert rows["image_id"][:] == [1, 2, 2_300_001]


def test_a_picture_of_visual_genome_alone_is_none_of_coco_with_the_same_id(tmp_path):
    phrases = TinyPhraseCut()
    phrases.pictures[0]["coco_id"] = None
    phrases.write(tmp_path)
    tiny = TinyRefer()
    for entry, key in ((tiny.images[3], "id"), (tiny.annotations[3], "image_id"), (tiny.refs[3], "image_id")):
        entry[key] = 2_300_001  # in val
    tiny.write(tmp_path, "refcoco", "unc")
    rows, num_removed = mix(tmp_path, "refcoco,phrasecut")
    assert num_removed == {"refcoco": 2, "phrasecut": 0}  # 2 and 3 of COCO are in val and test of PhraseCut
    assert rows["image_id"][:] == [1, 2_300_001]


# What is meant


def test_what_is_there_is_taken_and_the_published_split_first(root):
    write_sets(root, ("refcoco", "google", ["train"] * 4 + ["val"] * 2))
    sources = load_sources("refcocog,refcoco", None, root)
    assert [str(source) for source in sources] == ["refcocog (umd)", "refcoco (unc)"]
    (source,) = load_sources("refcoco", "google", root)
    assert list(source.splits) == ["train", "val"]


def test_a_single_data_set_needs_no_name(tmp_path):
    write_sets(tmp_path / "one", ("shapes", "me", ["train"] * 5 + ["val"]))
    assert [str(source) for source in load_sources(None, None, tmp_path / "one")] == ["shapes (me)"]


def test_of_two_splits_the_published_one_comes_first_without_a_name_too(tmp_path):
    for split_by in ("google", "umd"):
        write_sets(tmp_path, ("refcocog", split_by, ["train"] * 5 + ["val"]))
    assert str(load_one(None, None, tmp_path)) == "refcocog (umd)"


def test_a_folder_of_ones_own_is_read_with_its_splits(tmp_path):
    folder = own_folder(tmp_path / "own")
    (source,) = load_sources(None, None, folder)
    assert str(source) == "own"
    assert {name: len(rows) for name, rows in source.splits.items()} == {"train": 2, "val": 1}


def test_a_data_set_in_parquet_is_read_like_one_of_the_hub(root, tmp_path):
    export_parquet(load_refer("refcoco", "unc", data_dir=root), tmp_path / "exported", "RefCOCO")
    (source,) = load_sources(str(tmp_path / "exported"), None, None)
    assert {name: len(rows) for name, rows in source.splits.items()} == {"train": 3, "val": 1, "testA": 1, "testB": 1}
    assert source.splits["train"].features == refer_features()
    original = load_refer("refcoco", "unc", "val", data_dir=root)[0]
    assert (row_mask(source.splits["val"][0]) == row_mask(original)).all()


def test_columns_of_another_data_set_are_read(tmp_path):
    folder = own_folder(tmp_path / "own")
    features = datasets.Features(
        {"image": datasets.Image(), "mask": datasets.Image(), "expression": datasets.Value("string")}
    )
    image, mask = ({"path": None, "bytes": (folder / name).read_bytes()} for name in ("a.jpg", "masks/a.png"))
    columns = {"image": [image], "mask": [mask], "expression": ["it"]}
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "hub" / "train.parquet")
    (source,) = load_sources(str(tmp_path / "hub"), None, None)
    assert (row_mask(source.rows("train", "--train_split")[0]) == MASK).all()
    assert load_referring_folder(folder, "train")[0]["bbox"] == source.splits["train"][0]["bbox"]


# One clear line


@pytest.mark.parametrize(
    "dataset, split_by, message",
    [
        ("refcocoo", None, r"--dataset refcocoo is not in .*, which holds refcoco, refcoco\+, refcocog\."),
        (
            "refclef",
            None,
            r"--dataset refclef is not in .* `remamber data check --data_dir .* --dataset refclef` says",
        ),
        ("refcoco", "umd", r"--split_by umd is not there: refcoco in .* is split by unc; choose one of these"),
        (None, None, r"holds refcoco, refcoco\+, refcocog; choose with --dataset"),
        ("refcoco,refcoco", None, "names a data set twice"),
        ("refcoco,refcocog", "unc", "--split_by unc has 1 names for 2 data sets; give one for each"),
        ("refzom,ref-zom", None, "names a data set twice"),
    ],
)
def test_a_data_set_that_is_not_there_is_answered_with_those_that_are(root, dataset, split_by, message):
    with pytest.raises(ValueError, match=message):
        load_sources(dataset, split_by, root)


def test_a_data_set_that_is_split_twice_in_unknown_ways_has_to_be_chosen(root):
    write_sets(root, ("shapes", "me", ["train"] * 6), ("shapes", "you", ["train"] * 6))
    with pytest.raises(ValueError, match="shapes in .* is split by me, you; choose with --split_by"):
        load_sources("shapes", None, root)


def test_a_split_that_is_not_there_is_answered_with_those_that_are(root):
    (source,) = load_sources("refcoco", None, root)
    with pytest.raises(
        ValueError, match=r"refcoco \(unc\) has no split 'dev'; .* train, val, testA, testB with --eval"
    ):
        source.rows("dev", "--eval_split")


def test_folders_and_names_without_data_are_refused(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="--data_dir .*nowhere is no folder"):
        load_sources("refcoco", None, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds neither metadata.jsonl nor a REFER data set; `remamber data check"):
        load_sources(None, None, tmp_path)
    with pytest.raises(ValueError, match="--dataset refcoco is read from its files; give --data_dir"):
        load_sources("refcoco", None, None)
    with pytest.raises(ValueError, match="--dataset ref-zom is read from its files; .* holds ref-zom/"):
        load_sources("refzom", None, None)
    with pytest.raises(ValueError, match="no data is named; give --data_dir, --dataset"):
        load_sources(None, None, None)
    with pytest.raises(
        ValueError, match="--dataset some/where cannot be loaded, neither from the Hub nor as a folder"
    ):
        load_sources("some/where", None, None)
    folder = own_folder(tmp_path / "own")
    with pytest.raises(ValueError, match="holds a metadata file; give it as --data_dir"):
        load_sources(str(folder), None, None)


def test_options_of_refer_sets_are_refused_for_other_data(tmp_path):
    folder = own_folder(tmp_path / "own")
    for dataset, data_dir in ((None, folder), ("some/where", None)):
        with pytest.raises(ValueError, match="--on_error skip is for REFER sets, which need --data_dir and --dataset"):
            load_sources(dataset, None, data_dir, "skip")
        with pytest.raises(ValueError, match="--split_by unc is for REFER sets"):
            load_sources(dataset, "unc", data_dir)
    with pytest.raises(ValueError, match="--split_by unc is for REFER sets"):
        load_one(None, "unc", folder)
    with pytest.raises(ValueError, match="--generalized is for REFER sets"):
        load_one(None, None, folder, generalized=True)


def test_raw_or_cleaned_sentences_are_named_by_their_source(root, tmp_path):
    (source,) = load_sources("refcoco", None, root, sentences="raw")
    assert source.sentences == "raw"
    assert source.splits["val"][0]["sentences"][0].isupper()
    assert load_one("refcoco", None, root).sentences == "sent"
    folder = own_folder(tmp_path / "own")
    assert load_one(None, None, folder).sentences is None
    with pytest.raises(ValueError, match="--sentences raw is for REFER sets"):
        load_sources(None, None, folder, sentences="raw")


def test_a_folder_whose_name_steers_a_terminal_is_no_data_set(root):
    (root / "refcoco").rename(root / "ref\x1b[2Jcoco")
    with pytest.raises(ValueError, match=r"is not in .* which holds refcoco\+, refcocog\. ") as raised:
        load_sources("refcoco", None, root)
    assert str(raised.value).isprintable()


def test_a_cache_that_cannot_be_written_names_the_variable_for_a_data_set_in_parquet_too(root, tmp_path, monkeypatch):
    export_parquet(load_refer("refcoco", "unc", data_dir=root), tmp_path / "exported", "RefCOCO")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
    with pytest.raises(ValueError, match=r"cannot be written .* Set HF_HOME \(or HF_DATASETS_CACHE\) to a folder"):
        load_sources(str(tmp_path / "exported"), None, None)
