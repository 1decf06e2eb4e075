# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A set of compositions as written: what its sentences say by its masks alone, its files, and what is refused."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from cutout_fixture import NOUNS, write_backgrounds, write_cutouts
from PIL import Image

from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask
from remamber_hf.synthetic import compose as composing
from remamber_hf.synthetic.compose import compose
from remamber_hf.synthetic.thing_words import KINDS, make_thing_words


NUM_PICTURES = 120


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("compose")
    write_cutouts(root / "cutouts")
    shown = {"street.png": ("cat",), "field.png": ()}
    write_backgrounds(root / "backgrounds", shown)
    options = {"image_size": 64, "max_things": 5, "num_workers": 1, "no_target": True, "many": True, "progress": False}
    compose(root / "set", NUM_PICTURES, 7, root / "cutouts", root / "backgrounds", **options)
    return root, root / "set"


@pytest.fixture(scope="module")
def rows(folders, tmp_path_factory):
    """All rows, sentences that mean nothing and several among them, and what stands in each picture."""
    _, folder = folders
    data = load_refer("things", "unc", data_dir=folder, generalized=True, cache_dir=tmp_path_factory.mktemp("cache"))
    instances = json.loads((folder / "things/instances.json").read_text())
    names = {category["id"]: category["name"] for category in instances["categories"]}
    there = {}
    for annotation in instances["annotations"]:
        left, top, width, height = annotation["bbox"]
        centre = (left + width / 2, top + height / 2)
        there.setdefault(annotation["image_id"], {})[annotation["id"]] = (
            names[annotation["category_id"]],
            centre,
            annotation["area"],
        )
    return [(row, there[row["image_id"]]) for split in data.values() for row in split]


def test_sentences_are_true_as_far_as_words_and_centres_say(rows):
    """Read once more, without the grammar: the outermost, the k-th, the largest, the only one, and all of a noun."""
    sides = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1), "upper": (1, 1), "lower": (1, -1)}
    ranks = {"first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4}
    read = dict.fromkeys(("side", "order", "size", "name", "relation", "many", "none"), 0)
    plurals = {"dogs": "dog", "cats": "cat", "left shoes": "left shoe", "hot dogs": "hot dog"}
    for row, there in rows:
        meant = set(row["ann_id"]) - {-1}
        for text in row["sentences"]:
            plain = re.sub(r"^(the only|the|all the|all|both|the two|the three) ", "", text)
            plain = re.sub(r"^(two|three|four|five) ", "", plain)
            many = re.search(r"\b(dogs|cats|hot dogs|left shoes)$", plain)
            if not meant:
                read["none"] += 1
                if plain in NOUNS:
                    assert plain not in {noun for noun, _, _ in there.values()}, text
                continue
            if plain in NOUNS or plain in plurals:
                noun = plurals.get(plain, plain)
                assert {id_ for id_, (other, _, _) in there.items() if other == noun} == meant, text
                assert (len(meant) > 1) == (plain in plurals)
                read["many" if plain in plurals else "name"] += 1
                continue
            if many or len(meant) > 1:
                continue
            (target,) = meant
            noun, centre, area = there[target]
            rivals = {id_: each for id_, each in there.items() if each[0] == noun}
            shorter = plain.replace(noun, "N", 1)
            found = re.fullmatch(
                r"(left|right|top|bottom|upper|lower|leftmost|rightmost|topmost|bottommost) N|"
                r"N (?:on|at|farthest to) the (left|right|top|bottom)(?: side)?",
                shorter,
            )
            if found and len(rivals) > 1:
                axis, sign = sides[(found[1] or found[2]).removesuffix("most")]
                assert all(sign * centre[axis] <= sign * each[1][axis] for each in rivals.values()), text
                read["side"] += 1
            elif found := re.fullmatch(r"(\w+) N from the (\w+)", shorter):
                axis, sign = sides[found[2]]
                in_order = sorted(rivals, key=lambda id_: sign * rivals[id_][1][axis])
                assert in_order[ranks[found[1]] - 1] == target, text
                read["order"] += 1
            elif found := re.fullmatch(r"(largest|biggest|smallest) N", shorter):
                best = (min if found[1] == "smallest" else max)(each[2] for each in rivals.values())
                assert area == best and len(rivals) > 1, text
                read["size"] += 1
            elif found := re.fullmatch(
                r"N (?:to the )?(left of|right of|above|below|under|beneath) the (.+)", shorter
            ):
                anchors = [each[1] for each in there.values() if each[0] == found[2]]
                word = found[1].split()[0]
                axis, sign = sides[
                    {"above": "top", "below": "bottom", "under": "bottom", "beneath": "bottom"}.get(word, word)
                ]
                assert len(anchors) == 1 and sign * centre[axis] < sign * anchors[0][axis], text
                read["relation"] += 1
    assert min(read.values()) >= 3, read


def test_every_kind_is_written_and_most_sentences_tell_two_of_a_noun_apart(rows):
    grammar = make_thing_words(NOUNS).evaluator.grammar
    kinds, num_apart, num_one = set(), 0, 0
    for row, there in rows:
        if len(row["ann_id"]) == 1 and row["ann_id"][0] in there:
            noun = there[row["ann_id"][0]][0]
            for text in row["sentences"]:
                kinds.add(grammar.kind_of(text))
                num_one += 1
                num_apart += sum(other == noun for other, _, _ in there.values()) > 1
    assert kinds == set(KINDS)
    assert num_apart > 0.5 * num_one


def test_masks_are_of_the_nouns_colour_in_the_picture(rows):
    """Brightness and blur change a colour, not which of its channels is the largest."""
    for row, there in rows[::7]:
        if len(row["ann_id"]) == 1 and row["ann_id"][0] in there:
            noun = there[row["ann_id"][0]][0]
            pixels = np.asarray(row["image"])[row_mask(row)].astype(float).mean(axis=0)
            assert pixels.argmax() == np.argmax(NOUNS[noun]), noun


def files_of(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_a_seed_gives_the_same_files_for_any_number_of_workers_and_the_same_pictures_with_more_sentences(
    folders, tmp_path
):
    root, _ = folders
    options = {"image_size": 64, "progress": False}
    sources = (root / "cutouts", root / "backgrounds")
    compose(tmp_path / "one", 20, 5, *sources, num_workers=1, **options)
    compose(tmp_path / "two", 20, 5, *sources, num_workers=2, **options)
    compose(tmp_path / "more", 20, 5, *sources, num_workers=1, no_target=True, many=True, **options)
    compose(tmp_path / "other", 20, 6, *sources, num_workers=1, **options)
    one = files_of(tmp_path / "one")
    assert files_of(tmp_path / "two") == one
    more = files_of(tmp_path / "more")
    assert {name: more[name] for name in one} == one and set(more) - set(one) == {"things/grefs(unc).json"}
    assert not set(files_of(tmp_path / "other").values()) & set(one.values())


def test_pictures_have_ids_that_no_picture_of_coco_or_of_shapes_has(rows):
    assert all(row["image_id"] > 10_000_000 for row, _ in rows)


def test_cutouts_of_several_folders_share_their_nouns(tmp_path):
    write_cutouts(tmp_path / "some", ("dog", "cat"))
    write_cutouts(tmp_path / "more", ("cat", "hot dog"))
    counts = compose(tmp_path / "set", 8, 0, [tmp_path / "some", tmp_path / "more"], image_size=64, progress=False)
    assert counts["nouns"] == 3 and counts["images"] == 8


def test_a_noun_that_no_sentence_can_name_is_left_out_and_said(tmp_path):
    write_cutouts(tmp_path / "cutouts", ("dog", "cat"))
    (tmp_path / "cutouts/dog.png").rename(tmp_path / "cutouts/left.png")
    counts = compose(tmp_path / "set", 8, 0, tmp_path / "cutouts", image_size=64, progress=False)
    assert counts["nouns"] == 1 and counts["left_out"] == {"left": "consists of words of place, degree or number"}
    (tmp_path / "cutouts/cat.png").unlink()
    with pytest.raises(ValueError, match="none of the 1 cut-outs can be named: consists of words"):
        compose(tmp_path / "other", 8, 0, tmp_path / "cutouts", image_size=64, progress=False)
    assert not (tmp_path / "other").exists()


def test_a_background_that_shows_every_noun_is_refused(tmp_path):
    """Nothing could be pasted on it: "the dog" could be a hot dog, and a hot dog the dog."""
    write_cutouts(tmp_path / "cutouts", ("dog", "hot dog"))
    write_backgrounds(tmp_path / "backgrounds", {"a.png": (), "b.png": ("dog",)})
    with pytest.raises(ValueError, match=r"b\.png shows things of every noun, so that none can be pasted on it"):
        compose(tmp_path / "set", 8, 0, tmp_path / "cutouts", tmp_path / "backgrounds", progress=False)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 7}, "num_images is 7; at least 8 are needed"),
        ({"max_things": 1}, "max_things is 1; give 2 to 8"),
        ({"max_things": 9}, "max_things is 9; give 2 to 8"),
        ({"dataset_name": "../up"}, "the data set's name is '../up'"),
        ({"dataset_name": "refcoco", "many": True}, "a folder called refcoco holds other files"),
        ({"backgrounds": "gone"}, "gone is no folder"),
        ({"cutouts": []}, "there is no folder of cut-outs; give one or more"),
        ({"synonyms": {"dog": "hound"}}, "the synonyms of 'dog' are a text; give a list, such as ['hound']"),
        ({"synonyms": {"wolf": ["dog"]}}, "there are synonyms for 'wolf', which is no category"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message, folders, tmp_path):
    root, _ = folders
    options = {"num_images": 8, "seed": 0, "cutouts": root / "cutouts", "progress": False} | arguments
    with pytest.raises(ValueError, match=re.escape(message)):
        compose(tmp_path / "set", **options)
    assert not any(tmp_path.iterdir())


def test_a_thing_that_no_picture_would_show_ends_the_search_for_one(tmp_path, monkeypatch):
    pixels = np.zeros((256, 256, 4), np.uint8)
    pixels[:, [*range(0, 256, 8), 255]] = 255  # thin: half as large, half as opaque
    (tmp_path / "cutouts").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cutouts/comb.png")
    monkeypatch.setattr(composing, "MAX_TRIES", 20)
    with pytest.raises(ValueError, match=r"comb.png cannot be seen in pictures of image_size 64: hardly anything"):
        compose(tmp_path / "set", 8, 0, tmp_path / "cutouts", image_size=64, num_workers=1, progress=False)
    assert not (tmp_path / "set").exists()


def test_a_failure_leaves_nothing_behind(folders, tmp_path, monkeypatch):
    root, _ = folders

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(composing, "save_drawn", fail)
    with pytest.raises(OSError, match="disk full"):
        compose(tmp_path / "set", 8, 0, root / "cutouts", image_size=64, num_workers=1, progress=False)
    assert not any(tmp_path.iterdir())


def test_synonyms_are_written_and_read(folders, tmp_path):
    root, _ = folders
    options = {"image_size": 64, "num_workers": 1, "progress": False}
    compose(tmp_path / "set", 20, 0, root / "cutouts", synonyms={"dog": ["hound", "puppy"]}, **options)
    data = load_refer("things", "unc", data_dir=tmp_path / "set", cache_dir=tmp_path / "cache")
    texts = [text for rows in data.values() for row in rows for text in row["sentences"] if row["category"] == "dog"]
    assert {word for text in texts for word in ("dog", "hound", "puppy") if word in text} == {"dog", "hound", "puppy"}
