# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Expressions derived from COCO files: what is known of a picture, left out, or wrong, and what is written."""

import json
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coco_fixture import HEIGHT, WIDTH, CocoFile, square
from PIL import Image
from pycocotools import mask as coco_mask

from remamber_hf.data.folder import load_referring_folder
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask
from remamber_hf.synthetic.coco_pictures import CocoPictures, Rules
from remamber_hf.synthetic.from_coco import derive_from_coco, write_sentences
from remamber_hf.synthetic.things import THING_MARGINS


PHOTOS = Path(__file__).parents[3] / "shared" / "real" / "photos"
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="shared/real/photos is not beside the checkout")


@pytest.fixture
def file(tmp_path) -> CocoFile:
    return CocoFile(tmp_path / "coco")


def read(file: CocoFile, **options):
    """The words, the one picture, and the source."""
    file.write()
    source = CocoPictures(file.path, file.images, **options)
    pictures = list(source.pictures())
    return source, pictures


def is_true_of_one(source, picture, text: str, index: int = 0) -> bool:
    return source.words.evaluator.is_true_of_one(text, picture.things, index)


def is_true_of_none(source, picture, text: str) -> bool:
    return source.words.evaluator.is_true_of_none(text, picture.things)


def test_boxes_and_areas_are_those_of_the_masks(file):
    file.add_image(1)
    file.add(1, "dog", square(20, 30, 40, 20))
    size = [HEIGHT, WIDTH]
    mask = np.zeros(size, np.uint8, order="F")
    mask[10:30, 100:110] = 1
    rle = coco_mask.encode(mask)
    file.add(1, "cat", {"size": size, "counts": rle["counts"].decode()})
    runs = np.flatnonzero(np.diff(np.concatenate([[0], mask.flatten("F"), [0]])))
    counts = np.diff(np.concatenate([[0], runs, [mask.size]])).tolist()
    file.add(1, "car", {"size": size, "counts": counts}, bbox=[math.nan, 0, 0, 0])
    _, (picture,) = read(file)
    dog, cat, car = picture.things
    assert dog.box == pytest.approx((0.1, 0.15, 0.3, 0.25)) and dog.area == 40 * 20 / WIDTH**2
    assert dog.frame == (1.0, 0.5) and dog.is_target
    assert cat.box == car.box == (0.5, 0.05, 0.55, 0.15) and cat.area == car.area == 200 / WIDTH**2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"segmentation": square(0, 40)}, "cut off by the picture's border"),
        ({"segmentation": square(40, 79.5)}, "cut off by the picture's border"),
        ({"segmentation": square(40, 40, 9, 9)}, "too small"),
        ({"segmentation": [], "bbox": [40, 40, 20, 20]}, "no mask"),
        ({"segmentation": None, "bbox": [40, 40, 20, 20]}, "no mask"),
    ],
)
def test_what_no_sentence_is_about_is_counted_and_stays_a_rival(file, change, reason):
    file.add_image(1)
    file.add(1, "dog", square(100, 40))
    source, (picture,) = read(file)
    assert is_true_of_one(source, picture, "the dog")
    file.add(1, "dog", **{"segmentation": None, **change})
    source, (picture,) = read(file)
    assert source.left_out == Counter({reason: 1})
    first, second = picture.things
    assert first.is_target and not second.is_target
    assert not is_true_of_one(source, picture, "the dog")
    assert is_true_of_one(source, picture, "the dog on the right")
    if reason == "no mask":
        assert not is_true_of_one(source, picture, "the biggest dog")


def test_what_is_cut_off_may_be_kept_and_the_limits_are_options(file):
    file.add_image(1)
    file.add(1, "dog", square(0, 40))
    file.add(1, "cat", square(60, 40, 8, 8))
    _, (picture,) = read(file)
    assert [thing.is_target for thing in picture.things] == [False, False]
    _, (picture,) = read(file, rules=Rules(keep_truncated=True, min_area=0.001))
    assert [thing.is_target for thing in picture.things] == [True, True]
    file.content["annotations"][0]["segmentation"] = square(3, 40)
    assert read(file)[1][0].things[0].is_target
    assert not read(file, rules=Rules(border=0.02))[1][0].things[0].is_target
    for options, message in (
        ({"min_area": math.nan}, "min_area is nan; give a number from 0 up"),
        ({"min_area": 2}, "at most 1 and 0.5"),
        ({"margins": replace(THING_MARGINS, size_ratio=0.5)}, "size_ratio is 0.5; give a number from 1 up"),
    ):
        with pytest.raises(ValueError, match=message):
            read(file, rules=Rules(**options))


def test_where_there_is_a_crowd_nothing_is_said_that_rests_on_how_many_there_are(file):
    file.add_image(1)
    file.add(1, "dog", square(20, 40))
    file.add(1, "dog", square(60, 40))
    file.add(1, "cat", square(150, 40))
    source, (picture,) = read(file)
    assert is_true_of_one(source, picture, "the dog on the left")
    file.add(1, "dog", square(100, 20, 40, 60), iscrowd=1)
    file.add(1, "car", square(100, 20, 40, 60), iscrowd=1)
    source, (picture,) = read(file)
    assert source.left_out == Counter({"crowd": 2})
    for seed in range(30):
        entry = write_sentences(source.words, picture, seed, 3, True, True)
        texts = [text for drawn in entry["objects"] for text in drawn["expressions"]]
        texts += entry["absent"] + [text for _, many in entry["groups"] for text in many]
        assert not any("dog" in text or "car" in text for text in texts), texts
    assert is_true_of_one(source, picture, "the cat", 2)


def test_lvis_says_what_was_looked_for(file):
    file.add_image(1, not_exhaustive_category_ids=[1], neg_category_ids=[2])
    file.add_image(2)
    file.add(1, "dog", square(20, 40))
    for category in ("dog", "cat", "car"):
        file.add(2, category, square(60, 40))
    del file.content["images"][0]["file_name"]
    file.content["images"][0]["coco_url"] = "http://host/train2017/1.png"
    source, (first, second) = read(file)
    assert first.known == ["cat", "dog"] and second.known == ["car", "cat", "dog"]
    assert not is_true_of_one(source, first, "the dog")  # there may be others
    assert is_true_of_none(source, first, "the cat")
    said = set()
    for seed in range(40):
        said |= set(write_sentences(source.words, first, seed, 3, True, True)["absent"])
    assert said and not any("car" in text for text in said)
    # A name that ends so could be one that nobody looked for.
    file.content["categories"][2]["name"] = "police dog"
    file.content["images"][0]["not_exhaustive_category_ids"] = []
    source, (first, second) = read(file)
    assert not is_true_of_one(source, first, "the dog")
    assert not is_true_of_one(source, second, "the dog") and is_true_of_one(source, second, "the police dog", 2)


def test_only_categories_that_something_is_annotated_of_are_said_to_be_absent(file):
    file.add_image(1)
    file.add_image(2)
    file.add(1, "dog", square(20, 40))
    source, pictures = read(file)
    assert list(source.words.nouns) == ["dog"]
    assert [picture.known for picture in pictures] == [["dog"], ["dog"]]
    entry = write_sentences(source.words, pictures[1], 0, 3, True, True)
    assert entry["objects"] == [] and entry["absent"] and all("dog" in text for text in entry["absent"])


def test_the_same_thing_twice_is_one_and_a_part_leaves_its_category_unclear(file):
    file.add_image(1)
    file.add(1, "dog", square(20, 40))
    file.add(1, "dog", square(20, 40, 20, 19.9))
    source, (picture,) = read(file)
    assert source.left_out == Counter({"the same thing twice": 1}) and is_true_of_one(source, picture, "the only dog")
    file.content["annotations"][1]["segmentation"] = square(22, 42, 10, 12)
    source, (picture,) = read(file)
    assert source.left_out == Counter({"almost within another of its category": 1})
    assert not is_true_of_one(source, picture, "the biggest dog")
    # Of two names for one thing neither says where the other is.
    file.content["annotations"][1] |= {"segmentation": square(20, 40), "category_id": 2}
    source, (picture,) = read(file)
    assert [(thing.is_target, thing.is_anchor) for thing in picture.things] == [(True, False)] * 2


def test_all_segments_of_stuff_are_one_thing(file):
    file.add_image(1)
    file.add_image(2)
    file.add(1, "sky", square(0, 0, 60, 30))
    file.add(1, "sky", square(120, 0, 80, 30))
    file.add(2, "dog", square(20, 40))
    file.add(1, "car", square(60, 40))
    file.content["categories"][3]["isthing"] = 0
    source, (first, second) = read(file)
    car, sky = first.things[:2]
    assert sky.is_stuff and sky.is_target and sky.box == (0.0, 0.0, 1.0, 0.15)
    assert sky.area == (60 + 80) * 30 / WIDTH**2
    assert is_true_of_one(source, first, "the sky", 1)
    texts = [write_sentences(source.words, first, seed, 3, True, True) for seed in range(20)]
    assert {text for entry in texts for text in entry["objects"][1]["expressions"]} == {"the sky", "sky"}
    assert not any("sky" in text for entry in texts for text in entry["objects"][0]["expressions"])
    # Nobody looked for stuff in a picture without any.
    assert "sky" in first.known and "sky" not in second.known
    # By name it is the same.
    del file.content["categories"][3]["isthing"]
    _, pictures = read(file, stuff=["Sky"])
    assert pictures[0].things == first.things
    with pytest.raises(ValueError, match=r"--stuff names 'road', which is no category; the categories are 'car', "):
        read(file, stuff=["road"])


def test_stuff_may_come_from_a_file_of_its_own_with_cocos_names(file, tmp_path):
    file.add_image(1)
    file.add(1, "dog", square(20, 40))
    names = {5: "sky-other-merged", 6: "wall-brick", 7: "wall-other-merged", 8: "curtain", 9: "playingfield"}
    more = {
        "categories": [{"id": number, "name": name, "isthing": 0} for number, name in names.items()],
        "stuff": [
            {"id": number, "image_id": 1, "category_id": number, "segmentation": square(10 * number, 2, 9, 20)}
            for number in names
        ],
    }
    path = tmp_path / "stuff.json"
    path.write_text(json.dumps(more))
    source, (picture,) = read(file, stuff_file=path)
    assert list(source.words.nouns) == ["dog", "sky", "wall"] and source.words.uncounted == {"sky", "wall"}
    assert [thing.category for thing in picture.things if thing.is_target] == ["dog", "sky", "wall"]
    assert source.left_out == Counter({"of a category that is not named": 2})
    assert picture.seen[2].area == 2 * 9 * 20
    source, (picture,) = read(file, stuff_file=path, stuff=["curtain"])
    assert "curtain" in source.words.nouns
    # Where there is a playing field, nobody knows whether there is grass.
    file.add_image(2)
    names[10] = "grass-merged"
    more["categories"].append({"id": 10, "name": "grass-merged", "isthing": 0})
    more["stuff"].append({"id": 10, "image_id": 2, "category_id": 10, "segmentation": square(40, 40)})
    path.write_text(json.dumps(more))
    source, (first, second) = read(file, stuff_file=path)
    assert "grass" in first.known and not is_true_of_none(source, first, "the grass")
    assert is_true_of_one(source, second, "the grass") and is_true_of_none(source, second, "the sky")
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"It needs the lists annotations and categories"):
        read(file, stuff_file=path)


def test_a_category_that_is_stuff_and_is_not_is_refused(file, tmp_path):
    file.add_image(1)
    file.add(1, "sky", square(20, 40))
    path = tmp_path / "stuff.json"
    path.write_text(json.dumps({"categories": [{"id": 4, "name": "sky"}], "annotations": file.content["annotations"]}))
    with pytest.raises(ValueError, match="'sky' is stuff by one entry and not by another; name it by --stuff"):
        read(file, stuff_file=path)
    read(file, stuff_file=path, stuff=["sky"])


def test_categories_that_are_called_alike_are_one(file):
    file.content["categories"][1]["name"] = "Dog"
    file.content["categories"][2]["name"] = "left"
    file.add_image(1)
    file.add(1, "dog", square(20, 40))
    file.add(1, "cat", square(60, 40))
    file.add(1, "car", square(120, 40))
    source, (picture,) = read(file, synonyms={"DOG": ["hound"]})
    assert source.words.nouns == {"dog": ("dog", "hound")} and "words of place" in source.words.left_out["left"]
    assert is_true_of_one(source, picture, "the hound on the left") and not is_true_of_one(source, picture, "the dog")
    assert source.left_out == Counter({"of a category that is not named": 1})
    with pytest.raises(ValueError, match="synonyms for 'ox', which is no category"):
        read(file, synonyms={"ox": ["bull"]})


def link_out(file):
    outside = file.images.parent / "outside.png"
    (file.images / "1.png").rename(outside)
    (file.images / "1.png").symlink_to(outside)


def turn(file, orientation, sides=None):
    """Give the picture an EXIF orientation; `sides`: the height and width in the file."""
    picture = Image.open(file.images / "1.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(file.images / "1.png", exif=exif)
    if sides is not None:
        file.content["images"][0] |= {"height": sides[0], "width": sides[1]}


def image_is(**fields):
    return lambda file: file.content["images"][0].update(fields)


def dog_is(**fields):
    return lambda file: file.content["annotations"][0].update(fields)


def twice(key):
    return lambda file: file.content[key].append(dict(file.content[key][0]))


# What is wrong → the kind that is counted, and whether the picture is still read.
WRONG = {
    "missing": (lambda file: (file.images / "1.png").unlink(), "missing picture", False),
    "traversal": (image_is(file_name="../pictures/1.png"), "picture outside the folder", False),
    "absolute": (image_is(file_name="/etc/passwd"), "picture outside the folder", False),
    "backslash": (image_is(file_name="a\\1.png"), "picture outside the folder", False),
    "nul": (image_is(file_name="a\0b"), "picture outside the folder", False),
    "link": (link_out, "picture outside the folder", False),
    "no name": (image_is(file_name=7), "malformed entry", False),
    "size": (image_is(height=HEIGHT + 1), "picture of another size", False),
    "no size": (image_is(height=None), "malformed entry", False),
    "bool size": (image_is(height=True), "malformed entry", False),
    "zero size": (image_is(height=0), "malformed entry", False),
    "no picture": (lambda file: (file.images / "1.png").write_text("text"), "unreadable picture", False),
    "turned over": (lambda file: turn(file, 3), "picture turned by EXIF data", False),
    "image twice": (twice("images"), "id that stands twice", False),
    "image id": (dog_is(image_id="1"), "malformed entry", True),
    "no image": (dog_is(image_id=77), "annotation of no picture", True),
    "no category": (dog_is(category_id=77), "annotation of no category", True),
    "annotation twice": (twice("annotations"), "id that stands twice", True),
    "category twice": (twice("categories"), "id that stands twice", True),
    "category name": (lambda file: file.content["categories"][0].update(name=["dog"]), "malformed entry", True),
    "crowd": (dog_is(iscrowd="yes"), "malformed entry", True),
    "nan": (dog_is(segmentation=[[math.nan] * 6]), "annotation off the picture", True),
    "far": (dog_is(segmentation=square(1e300, 0)), "annotation off the picture", True),
    "outside": (dog_is(segmentation=square(-50, -50)), "annotation off the picture", True),
    "odd": (dog_is(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "malformed entry", True),
    "line": (dog_is(segmentation=[[1, 2, 3, 4]]), "no polygon of 3 points", True),
    "text": (dog_is(segmentation="text"), "malformed entry", True),
    "rle": (dog_is(segmentation={"size": [1, 1], "counts": [1]}), "RLE that does not fill the picture", True),
    "empty rle": (
        dog_is(segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}),
        "annotation off the picture",
        True,
    ),
    "nested": (dog_is(segmentation=[[[1, 2], [3, 4], [5, 6]]]), "no polygon of 3 points", True),
    "no box": (dog_is(segmentation=[], bbox=None), "no mask and no box", True),
    "nan box": (dog_is(segmentation=[], bbox=[math.nan] * 4), "no mask and no box", True),
    "box outside": (dog_is(segmentation=[], bbox=[-50, 0, 10, 10]), "annotation off the picture", True),
    "lvis ids": (image_is(not_exhaustive_category_ids="1"), "malformed entry", True),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_stops_in_one_line_or_is_counted(file, name):
    make_wrong, kind, is_read = WRONG[name]
    file.add_image(1)
    file.add_image(2)
    file.add(1, "dog", square(20, 40))
    file.add(1, "dog", square(60, 40))
    file.add(1, "cat", square(120, 40))
    file.add(2, "cat", square(60, 40))
    make_wrong(file)
    with pytest.raises(ValueError, match=f"{kind}: .*--on_error skip") as error:
        read(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    source, pictures = read(file, on_error="skip")
    followed = {"annotation of no picture", "annotation of no category"}  # where these are what is wrong
    assert kind in source.problems.counts and set(source.problems.counts) <= {kind} | followed
    assert [picture.image_id for picture in pictures] == ([1, 2] if is_read else [2])
    if is_read and name not in ("image id", "no image", "no category", "category twice", "category name"):
        # Of a dog that is there, and nobody knows where, nothing is said, nor of dogs.
        assert not is_true_of_one(source, pictures[0], "the dog")
        assert not is_true_of_one(source, pictures[0], "the dog on the left")


@pytest.mark.parametrize(
    "content",
    ["[]", "7", '{"images": []}', "{" * 100_000, '{"images": [1], "annotations": [], "categories": []}', "\xff", ""],
)
def test_what_is_no_file_in_coco_format_is_refused(file, content):
    file.path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError) as error:
        CocoPictures(file.path, file.images)
    assert "instances.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_picture_that_exif_data_turns_is_annotated_as_its_size_says(file, tmp_path, orientation):
    file.add_image(1)
    file.add(1, "dog", square(20, 40))
    turn(file, orientation)
    stored = np.asarray(Image.open(file.images / "1.png").convert("RGB"))
    file.write()
    derive_from_coco(file.path, file.images, tmp_path / "stored")
    turn(file, orientation, (WIDTH, HEIGHT))
    file.write()
    derive_from_coco(file.path, file.images, tmp_path / "shown")
    quarters = {6: -1, 8: 1}[orientation]
    for name, expected in (("stored", stored), ("shown", np.rot90(stored, quarters))):
        (path,) = (tmp_path / name).rglob("*.png")
        written = Image.open(path)
        assert written.getexif().get(0x0112, 1) == 1 and (np.asarray(written) == expected).all()
        (row,) = load_refer("derived", "unc", data_dir=tmp_path / name, cache_dir=tmp_path / "cache")["train"]
        left, top, width, height = 20, 40, 20, 20
        assert row_mask(row)[top : top + height, left : left + width].all() and row_mask(row).sum() == 400


def fill(file, num=30):
    for image_id in range(1, num + 1):
        file.add_image(image_id)
        rng = np.random.default_rng(image_id)
        for category in rng.choice(["dog", "dog", "cat", "car"], size=4):
            file.add(
                image_id, str(category), square(*rng.uniform(5, 75, 2).tolist(), *rng.uniform(10, 20, 2).tolist())
            )
    return file.write()


def read_all(folder, cache, generalized=True):
    data = load_refer("derived", "unc", data_dir=folder, generalized=generalized, cache_dir=cache)
    return {split: list(rows) for split, rows in data.items()}


def test_a_refer_folder_has_the_masks_and_ids_of_the_file(file, tmp_path):
    fill(file)
    summary = derive_from_coco(
        file.path, file.images, tmp_path / "out", many=True, no_target=True, val=0.4, on_error="raise"
    )
    splits = read_all(tmp_path / "out", tmp_path / "cache")
    assert set(splits) == {"train", "val"}
    rows = [row for rows in splits.values() for row in rows]
    annotations = {entry["id"]: entry for entry in file.content["annotations"]}
    assert {row["image_id"] for row in splits["train"]}.isdisjoint(row["image_id"] for row in splits["val"])
    counts = Counter()
    for row in rows:
        kind = ("none", "one", "many")[min(2, len(row["ann_id"]))]
        counts[kind] += len(row["sentences"])
        expected = np.zeros((HEIGHT, WIDTH), bool)
        for ann_id in row["ann_id"]:
            assert annotations[ann_id]["image_id"] == row["image_id"]
            polygons = annotations[ann_id]["segmentation"]
            expected |= coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))).astype(bool)
        assert (row_mask(row) == expected).all()
        original = Image.open(file.images / f"{row['image_id']}.png")
        assert (np.asarray(row["image"]) == np.asarray(original)).all()
    assert counts == summary.sentences and min(counts.values()) > 0
    assert sum(summary.kinds.values()) == sum(counts.values())
    assert sum(summary.pictures.values()) == len({row["image_id"] for row in rows})
    only_one = read_all(tmp_path / "out", tmp_path / "cache", generalized=False)
    assert sum(len(row["sentences"]) for rows in only_one.values() for row in rows) == counts["one"]


def test_a_folder_has_a_line_for_each_thing(file, tmp_path):
    fill(file)
    derive_from_coco(file.path, file.images, tmp_path / "refer", no_target=True)
    derive_from_coco(file.path, file.images, tmp_path / "folder", no_target=True, output_format="folder")
    rows = [row for split in load_referring_folder(tmp_path / "folder").values() for row in split]
    same = [row for rows in read_all(tmp_path / "refer", tmp_path / "cache").values() for row in rows]

    def content(rows):
        return sorted((row["split"], row["category"], row["sentences"], int(row_mask(row).sum())) for row in rows)

    assert content(rows) == content(same)
    with pytest.raises(ValueError, match="a line of a folder means one thing or none"):
        derive_from_coco(file.path, file.images, tmp_path / "x", many=True, output_format="folder")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def texts_by_image(folder: Path) -> dict[int, list]:
    texts: dict[int, list] = {}
    for ref in json.loads((folder / "derived/grefs(unc).json").read_text()):
        words = [sentence["sent"] for sentence in ref["sentences"]]
        texts.setdefault(ref["image_id"], []).append((ref["split"], ref["ann_id"], words))
    return texts


def test_the_same_seed_gives_the_same_files_whatever_the_order_in_the_file(file, tmp_path, monkeypatch):
    fill(file)
    options = {"many": True, "no_target": True, "seed": 3}
    derive_from_coco(file.path, file.images, tmp_path / "a", **options)
    for key in file.content:
        file.content[key].reverse()
    file.write()
    monkeypatch.chdir(file.images.parent)
    derive_from_coco("instances.json", "pictures", tmp_path / "b", **options)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    derive_from_coco(file.path, file.images, tmp_path / "c", **{**options, "seed": 4})
    assert bytes_of(tmp_path / "a") != bytes_of(tmp_path / "c")


def test_a_picture_keeps_its_sentences_and_its_split_when_the_file_grows(file, tmp_path):
    fill(file)
    options = {"many": True, "no_target": True}
    derive_from_coco(file.path, file.images, tmp_path / "a", **options)
    image_ids = {image["id"] for image in file.content["images"]}
    for image_id in (-5, 0, 1000):
        file.add_image(image_id)
        file.add(image_id, "dog", square(40, 40))
    file.write()
    derive_from_coco(file.path, file.images, tmp_path / "b", **options)
    before, after = texts_by_image(tmp_path / "a"), texts_by_image(tmp_path / "b")
    assert before == {image_id: texts for image_id, texts in after.items() if image_id in image_ids}
    # Without the others, sentences about one thing are the same.
    derive_from_coco(file.path, file.images, tmp_path / "c")
    assert (tmp_path / "b/derived/refs(unc).p").read_bytes() == (tmp_path / "c/derived/refs(unc).p").read_bytes()


def test_pictures_that_are_alike_have_sentences_of_their_own(file):
    for image_id in range(1, 9):
        file.add_image(image_id)
        file.add(image_id, "dog", square(20, 40))
        file.add(image_id, "dog", square(120, 20))
    source, pictures = read(file)
    entries = [write_sentences(source.words, picture, 0, 3, True, True) for picture in pictures]
    assert len({str([drawn["expressions"] for drawn in entry["objects"]]) for entry in entries}) > 4


def test_splits_are_those_of_the_file_where_it_has_any(file):
    for image_id, split in enumerate(("train", "test", "val"), start=1):
        file.add_image(image_id, subset=split)
    _, pictures = read(file)
    assert [picture.split for picture in pictures] == ["train", "test", "val"]
    assert {picture.split for picture in read(file, val=0)[1]} == {"train"}
    assert {picture.split for picture in read(file, val=1)[1]} == {"val"}
    file.content["images"][1]["subset"] = "a/b"
    with pytest.raises(
        ValueError, match=r"subset of some images says no split, such as 'a/b'; mend it, or give --val"
    ):
        read(file)
    with pytest.raises(ValueError, match=r"val is 1.5; give a share"):
        read(file, val=1.5)


def test_a_picture_that_comes_twice_is_in_one_split(file):
    for image_id in range(1, 21):
        file.add_image(image_id)
        file.add(image_id, "dog", square(40, 40))
        content = (file.images / "1.png").read_bytes()
        (file.images / f"{image_id}.png").write_bytes(content)
    source, pictures = read(file, val=0.5)
    assert [picture.image_id for picture in pictures] == [1]
    assert source.left_out["picture with the content of another"] == 19


def test_parts_that_overlap_are_written_as_their_union(file, tmp_path):
    file.add_image(1)
    file.add(1, "dog", square(20, 40) + square(30, 40))
    file.write()
    derive_from_coco(file.path, file.images, tmp_path / "out")
    (row,) = load_refer("derived", "unc", data_dir=tmp_path / "out", cache_dir=tmp_path / "cache")["train"]
    assert row_mask(row).sum() == 30 * 20


def test_polygons_beside_run_lengths_are_all_written(file, tmp_path):
    file.add_image(1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[60:70, 60:75] = 1
    rle = coco_mask.encode(mask)
    file.add(1, "dog", [*square(20, 40), {"size": rle["size"], "counts": rle["counts"].decode()}])
    file.write()
    derive_from_coco(file.path, file.images, tmp_path / "out")
    (row,) = load_refer("derived", "unc", data_dir=tmp_path / "out", cache_dir=tmp_path / "cache")["train"]
    assert row_mask(row).sum() == 20 * 20 + 10 * 15


def test_nothing_is_left_of_what_fails(file, tmp_path):
    fill(file, 3)
    (file.images / "3.png").write_bytes((file.images / "3.png").read_bytes()[:500])
    with pytest.raises(ValueError, match="unreadable picture"):
        derive_from_coco(file.path, file.images, tmp_path / "new" / "out")
    assert not os.listdir(tmp_path / "new")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError):
        derive_from_coco(file.path, file.images, tmp_path / "full")
    file.content["annotations"] = []
    file.write()
    with pytest.raises(ValueError, match="gives not one sentence"):
        derive_from_coco(file.path, file.images, tmp_path / "none", on_error="skip")
    for options, message in (
        ({"seed": -1}, "seed is -1"),
        ({"max_sentences": 0}, "at least 1"),
        ({"output_format": "x"}, "choose one of refer, folder"),
        ({"on_error": "x"}, "choose one of raise, skip"),
        ({"dataset_name": "a/b"}, "name is 'a/b'"),
        ({"dataset_name": "refcoco", "many": True}, "holds other files"),
    ):
        with pytest.raises(ValueError, match=message):
            derive_from_coco(file.path, file.images, tmp_path / "none", **options)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        derive_from_coco(file.path, tmp_path / "nowhere", tmp_path / "none")


@needs_photos
def test_all_sentences_about_photographs_are_read_as_true_and_agree_with_another_program(tmp_path):
    source = CocoPictures(
        PHOTOS / "annotations.json",
        PHOTOS / "images",
        stuff_file=PHOTOS / "stuff.json",
        rules=Rules(keep_truncated=True),
    )
    derived: dict[int, list[dict]] = {}
    for line in (PHOTOS / "expressions.jsonl").read_text(encoding="utf-8").splitlines():
        expression = json.loads(line)
        derived.setdefault(expression["image_id"], []).append(expression)
    evaluator = source.words.evaluator
    counts, agreement = Counter(), Counter()
    for picture in source.pictures():
        entry = write_sentences(source.words, picture, 0, 3, True, True)
        for index, drawn in enumerate(entry["objects"]):
            assert all(evaluator.is_true_of_one(text, picture.things, index) for text in drawn["expressions"])
            counts["one"] += len(drawn["expressions"])
        for indices, texts in entry["groups"]:
            assert all(evaluator.is_true_of_many(text, picture.things) == set(indices) for text in texts)
            counts["many"] += len(texts)
        assert all(evaluator.is_true_of_none(text, picture.things) for text in entry["absent"])
        counts["none"] += len(entry["absent"])
        places = {seen.ann_id: index for index, seen in enumerate(picture.seen)}
        for expression in derived.get(picture.image_id, []):
            # The other program has "the middle bowl", of three; here the middle is that of the picture.
            if expression["expression"].startswith("the middle "):
                continue
            reading = evaluator.read(expression["expression"], picture.things)
            index = places[expression["ann_id"]]
            is_true = reading.certain == reading.possible == {index}
            agreement["true" if is_true else "possible" if index in reading.possible else "false"] += 1
    assert counts["one"] > 1500 and counts["many"] > 150 and counts["none"] > 500
    assert agreement["false"] == 0
    assert agreement["true"] > 0.95 * agreement.total()
