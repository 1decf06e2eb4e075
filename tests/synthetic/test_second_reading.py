# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`data from-coco` reads sentences as docs/from_coco.md says: compared with tests/second_reading.py."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from second_reading import PHRASES, Crowd, File, Truth

from remamber_hf.synthetic.coco_pictures import CocoPictures, Rules
from remamber_hf.synthetic.from_coco import derive_from_coco
from remamber_hf.synthetic.things import THING_MARGINS


PHOTOS = Path(__file__).parents[3] / "shared" / "real" / "photos"
OTHER_MARGINS = {"position": 0.02, "half": 0.1, "size_ratio": 1.1, "middle": 0.15, "middle_possible": 0.17}
OTHER_MARGINS |= {"relation": 0.03, "slope": 1.1, "nearest": 0.03, "between": 0.2, "next_to": 0.1}
# Nouns that end in others, that several categories share, that are no English plurals or none at all.
NAMES = (
    "dog",
    "cat",
    "glass",
    "wine_glass",
    "Mouse (computer)",
    "skis",
    "left shoe",
    "hot-dog",
    "left",
    "salt and pepper",
)
NAMES += ("person", "rider", "sun glasses", "shoe", "nest with eggs", "egg", "side table", "table", "tram")
SYNONYMS = {
    "person": ["man", "guy"],
    "rider": ["man"],
    "dog": ["guide dog", "hound"],
    "cat": ["hound"],
    "egg": ["cat with eggs"],
}
PARTS = {
    part: [phrase for phrase, (of, _) in PHRASES.items() if of == part]
    for part in ("nothing", "number", "side", "quarter", "middle", "superlative", "k-th", "from", "relation")
}


def draw_phrase(rng: np.random.Generator, singular: list[str], plural: list[str]) -> str:
    """A noun phrase, in most cases one of the grammar."""
    is_plural = bool(plural) and rng.random() < 0.25
    words = [str(rng.choice(plural if is_plural else singular))]
    if rng.random() < (0.5 if is_plural else 0.02):
        words.insert(0, str(rng.choice(PARTS["number"])))
    draws = rng.random()
    if draws < 0.7:
        kinds = ("side", "quarter", "middle", "superlative", "order")
        kind = kinds[rng.integers(3 if is_plural and draws < 0.67 else 5)]
        place = [str(rng.choice(PARTS[part])) for part in (("k-th", "from") if kind == "order" else (kind,))]
        for part in place:
            words.insert(rng.integers(len(words) + 1), part)
    for _ in range(rng.integers(3)):
        words.insert(rng.integers(len(words) + 1), str(rng.choice(PARTS["nothing"])))
    return " ".join(words)


def draw_sentence(rng: np.random.Generator, nouns, here: set[str]) -> str:
    """A sentence; most of its nouns are of categories that are in the picture, `here`."""

    def named(words: set[str]) -> list[str]:
        own = sorted(word for word in words if nouns.meanings[word][1] & here)
        return own if own and rng.random() < 0.85 else sorted(words)

    text = draw_phrase(rng, named(nouns.singular), named(nouns.plural))
    if rng.random() < 0.5:
        meant = rng.choice(sorted({PHRASES[phrase][1] for phrase in PARTS["relation"]}))
        relation = str(rng.choice([phrase for phrase in PARTS["relation"] if PHRASES[phrase][1] == meant]))
        anchors = [draw_phrase(rng, named(nouns.singular), []) for _ in range(1 + (relation == "between"))]
        if rng.random() < 0.6:
            anchors = [f"the {rng.choice(named(nouns.singular))}" for _ in anchors]
        text = f"{text} {relation} {' and '.join(anchors)}"
    if rng.random() < 0.03:
        words = text.split()
        text = " ".join(words[at] for at in rng.permutation(len(words)))
    return text


def find(truth: Truth, text: str) -> tuple[set, set] | None:
    try:
        certain, possible = truth.find(text)
    except ValueError:
        return None
    return {getattr(each, "id", each) for each in certain}, {getattr(each, "id", each) for each in possible}


def compare(source: CocoPictures, second: File, count: int, seed: int) -> tuple[int, list, list]:
    """Of `count` sentences for each picture: how many both read, what they read otherwise, and what both found."""
    rng = np.random.default_rng(seed)
    read, differences, found = 0, [], []
    for picture in source.pictures():
        truth = second.read(picture.image_id)
        here = {thing.category for thing in truth.picture.things}
        names = [seen.ann_id for seen in picture.seen]
        names += [Crowd(thing.category) for thing in picture.things[len(names) :]]
        targets = {
            name for name, thing in zip(names, picture.things, strict=True) if thing.is_target and not thing.is_crowd
        }
        same = targets == {thing.id for thing in truth.picture.things if thing.is_target}
        same &= set(picture.known) == {name for name in truth.picture.known if second.nouns.has_noun(name)}
        if not same:
            differences.append((picture.image_id, "targets or known", targets, picture.known))
        for _ in range(count):
            text = draw_sentence(rng, second.nouns, here)
            try:
                reading = source.words.evaluator.read(text, picture.things)
                ours = tuple({names[index] for index in part} for part in reading)
            except ValueError:
                ours = None
            theirs = find(truth, text)
            read += ours is not None
            crowds = [part and {name for name in part[1] if isinstance(name, Crowd)} for part in (ours, theirs)]
            if ours and theirs and ours[0] == theirs[0] == set() and crowds[0] and crowds[0] == crowds[1]:
                continue  # nothing is true of it, whatever else is possible
            if ours != theirs and not (ours and truth.is_on_limit):
                differences.append((picture.image_id, text, ours, theirs))
            elif ours and ours == theirs:
                found.append((text, *ours))
    return read, differences, found


def draw_segmentation(rng: np.random.Generator, x: float, y: float, across: float, down: float, size):
    """A box, an ellipse as a polygon, two boxes, or run lengths of a box with a hole."""
    height, width = size
    boxes = [[x, y, x + across, y, x + across, y + down, x, y + down]]
    kind = rng.integers(4)
    if kind == 1:
        angles = np.arange(12) * np.pi / 6
        points = np.stack([x + across * (1 + np.cos(angles)) / 2, y + down * (1 + np.sin(angles)) / 2], 1)
        return [points.round(2).ravel().tolist()]
    if kind == 2:
        return [*boxes, [x, y, x + across / 2, y, x + across / 2, y + 2 * down, x, y + 2 * down]]
    if kind == 3:
        mask = np.zeros((height, width), np.uint8, order="F")
        left, top, right, bottom = (int(value) for value in (x, y, x + across, y + down))
        mask[top : bottom + 1, left : right + 1] = 1
        mask[top + 2 : bottom - 1, left + 2 : right - 1] = 0
        rle = coco_mask.encode(mask)
        return {"size": [height, width], "counts": rle["counts"].decode()}
    return boxes


def write_scenes(folder: Path, seed: int, num_pictures: int) -> Path:
    """Pictures of noise, and a file that has much of what is seldom: crowds, doubles, what is cut off, few labels."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    categories += [{"id": 50, "name": "sky", "isthing": 0}, {"id": 51, "name": "road", "isthing": 0}]
    images, annotations = [], []
    ids = iter(rng.permutation(np.arange(1, 40 * num_pictures)).tolist())
    for image_id in range(1, num_pictures + 1):
        height, width = (int(side) for side in rng.choice([60, 80, 100, 128], size=2))
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{image_id}.png")
        image = {"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width}
        if rng.random() < 0.2:
            image["neg_category_ids"] = rng.choice(np.arange(1, 9), 4, replace=False).tolist()
            image["not_exhaustive_category_ids"] = rng.choice(np.arange(1, 9), 1).tolist()
        images.append(image)
        usual = rng.choice(np.arange(1, len(NAMES)), 3, replace=False)  # nothing is annotated of the last name
        made = []
        start = rng.choice([0, 0, 0.6])  # all at the right and the bottom
        for _ in range(rng.integers(1, 9)):
            category = int(rng.choice([*usual, *usual, rng.integers(1, len(NAMES)), 50 + rng.integers(2)]))
            across, down = rng.uniform(3, 0.5 * width), rng.uniform(3, 0.5 * height)
            x, y = rng.uniform(start, 1, 2) * (width - across, height - down)
            if made and rng.random() < 0.3:  # in a row, a column, or over another
                like = made[rng.integers(len(made))]
                x, y, across, down = (like[0], y, across, down) if rng.random() < 0.5 else (x, like[1], across, down)
                if rng.random() < 0.4:
                    x, y, across, down = np.array(like) + rng.uniform(-0.6, 0.6, 4)
            if len(made) > 1 and rng.random() < 0.15:  # between two others
                pair = np.array(made)[rng.choice(len(made), 2, replace=False)]
                x, y = (pair[:, :2] + pair[:, 2:] / 2).mean(0) - np.array([across, down]) / 2 + rng.uniform(-9, 9, 2)
            x, y = (float(np.clip(value, 0, limit - 2)) for value, limit in ((x, width), (y, height)))
            across, down = float(np.clip(across, 2, width - x)), float(np.clip(down, 2, height - y))
            made.append((x, y, across, down))
            entry = {"id": next(ids), "image_id": image_id, "category_id": category, "bbox": [x, y, across, down]}
            if category in (50, 51) or rng.random() < 0.93:
                entry["segmentation"] = draw_segmentation(rng, x, y, across, down, (height, width))
            annotations.append(entry | {"iscrowd": int(category < 50 and rng.random() < 0.03), "area": 1})
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.mark.parametrize("margins", [{}, OTHER_MARGINS], ids=["margins", "other_margins"])
def test_sentences_about_generated_scenes_are_read_as_the_page_says(tmp_path, margins):
    path = write_scenes(tmp_path, 1 + len(margins), 100)
    source = CocoPictures(path, tmp_path / "images", synonyms=SYNONYMS, rules=Rules(replace(THING_MARGINS, **margins)))
    second = File(path, synonyms=SYNONYMS, margins=margins)
    read, differences, found = compare(source, second, 120, seed=3)
    assert not differences, (len(differences), differences[:5])
    assert read > 9000
    # Not all are of the easy kind.
    assert sum(bool(certain) and certain == possible for _, certain, possible in found) > 400
    assert sum(bool(certain) and certain < possible for _, certain, possible in found) > 5
    assert sum(len(certain) > 1 for _, certain, _ in found) > 20


def read_written(folder: Path) -> list[tuple[int, str, list[int]]]:
    """Image, sentence and the ids of annotations, of all that was written."""
    folder /= "derived"
    refs = pickle.loads((folder / "refs(unc).p").read_bytes())
    written = [(ref["image_id"], sentence["sent"], [ref["ann_id"]]) for ref in refs for sentence in ref["sentences"]]
    for ref in json.loads((folder / "grefs(unc).json").read_text()):
        ids = [] if ref["no_target"] else sorted(ref["ann_id"])
        written += [(ref["image_id"], sentence["sent"], ids) for sentence in ref["sentences"]]
    return written


def list_untrue(folder: Path, second: File) -> list:
    """Written sentences that are not true of just what they are written of; exactly on a limit they may be."""
    untrue, truths = [], {image_id: second.read(image_id) for image_id in second.images}
    for image_id, text, ids in read_written(folder):
        truth = truths[image_id]
        told = truth.tell(text)
        kind = ("nothing", "one")[len(ids)] if len(ids) < 2 else "several"
        targets = {thing.id for thing in truth.picture.things if thing.is_target}
        if ((kind, ids) != told and not truth.is_on_limit) or not targets.issuperset(ids):
            untrue.append((image_id, text, ids, told))
    return untrue


def test_what_is_written_of_generated_scenes_is_true(tmp_path):
    path = write_scenes(tmp_path, 5, 60)
    derive_from_coco(path, tmp_path / "images", tmp_path / "out", many=True, no_target=True, synonyms=SYNONYMS)
    written = read_written(tmp_path / "out")
    assert {min(len(ids), 2) for _, _, ids in written} == {0, 1, 2}
    assert len(written) > 200
    assert not list_untrue(tmp_path / "out", File(path, synonyms=SYNONYMS))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"the photographs are not there: {PHOTOS}")
def test_sentences_about_photographs_are_read_and_written_as_the_page_says(tmp_path):
    files = PHOTOS / "annotations.json", PHOTOS / "images"
    synonyms = {"person": ["man"], "bicycle": ["bike"], "motorcycle": ["bike"], "tv": ["screen"], "laptop": ["screen"]}
    given = {"stuff_file": PHOTOS / "stuff.json", "synonyms": synonyms}
    second = File(files[0], **given)
    read, differences, _ = compare(CocoPictures(*files, **given), second, 10, seed=1)
    assert not differences, (len(differences), differences[:5])
    assert read > 3500
    derive_from_coco(*files, tmp_path / "out", many=True, no_target=True, **given)
    assert not list_untrue(tmp_path / "out", second)
