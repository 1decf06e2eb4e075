# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import math
import os
import pickle
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from remamber_hf.data.refer import load_refer
from remamber_hf.synthetic import dataset as synthetic
from remamber_hf.synthetic.dataset import sample_picture, split_of, synthesize
from remamber_hf.synthetic.grammar import (
    KINDS,
    evaluate_expression,
    expression_kind,
    is_true_of_none,
    is_true_of_one,
    parse_expression,
    read_expression,
)
from remamber_hf.synthetic.scenes import (
    COLOURS,
    MIN_CONTRAST,
    RADII,
    SHAPES,
    STYLE_SHAPES,
    TEXTURES,
    Background,
    Scene,
    SceneObject,
    Shadow,
    mask_of,
    render,
    sample_scene,
)
from remamber_hf.synthetic.writers import sample_absent_expressions


STYLES = ("plain", "rich")
NUM_PICTURES = 40


def place(shape: str, colour: str, x: float, y: float, size: str = "medium", **more) -> SceneObject:
    radius = {"small": 0.07, "medium": 0.115, "large": 0.18}[size]
    return SceneObject(shape, colour, size, x, y, radius, COLOURS[colour], **more)


def scene_of(*objects: SceneObject) -> Scene:
    return Scene("rich", Background("flat", ((120, 120, 120),)), objects)


def files_of(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module", params=STYLES)
def written(request, tmp_path_factory) -> tuple[str, Path]:
    """A data set of each style, with expressions that have no target."""
    folder = tmp_path_factory.mktemp("synthetic") / request.param
    synthesize(folder, NUM_PICTURES, seed=3, style=request.param, num_workers=1, no_target=True, progress=False)
    return request.param, folder


def read_refs(folder: Path) -> list[dict]:
    return pickle.loads((folder / "shapes/refs(unc).p").read_bytes())


def sentences_of(ref: dict) -> list[str]:
    return [sentence["sent"] for sentence in ref["sentences"]]


# Evaluator. Object 0 is a large red circle at the top left, and so on; the picture is easy to draw on paper.
ROOM = scene_of(
    place("circle", "red", 0.20, 0.20, "large"),  # 0
    place("circle", "blue", 0.80, 0.20, "small", texture="stripes"),  # 1
    place("square", "red", 0.20, 0.80, "small", outline="drawn"),  # 2
    place("star", "green", 0.80, 0.80, texture="dots"),  # 3
    place("ring", "purple", 0.52, 0.20, "small"),  # 4
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("the circle", {0, 1}),
        ("the blue circle", {1}),
        ("the circle that is red", {0}),
        ("red object", {0, 2}),
        ("the yellow circle", set()),
        ("the violet hoop", {4}),
        ("the large circle", {0}),
        ("the small red shape", {2}),
        ("the largest object", {0}),
        ("the smallest object", set()),  # three are equally small
        ("the striped circle", {1}),
        ("the green star with dots", {3}),
        ("the solid red circle", {0}),
        ("the one with a border", {2}),
        ("the left circle", {0}),
        ("circle on the right side", {1}),
        ("the red one at the bottom", {2}),
        ("the red one on the left", set()),  # both are
        ("the object at the top left", {0}),
        ("star in the lower right", {3}),
        ("the star at the top left", set()),
        ("the second object from the left", set()),  # a tie of the first two
        ("the 3rd object from the left", {4}),
        ("the second circle from the left", {1}),
        ("the second circle from the right", {0}),
        ("the third circle from the left", set()),
        ("the square below the red circle", {2}),
        ("the square above the red circle", set()),
        ("the object to the right of the square", {3}),
        ("the circle left of the ring", {0}),
        ("the object closest to the blue circle", {4}),
        ("the ring between the red circle and the blue circle", {4}),
        ("the star between the red circle and the blue circle", set()),
        ("the circle under the yellow square", set()),
        ("the circle that is not red", {1}),
        ("the red shape that is not a circle", {2}),
        ("the circle which is not striped", {0}),
        ("the circle that is not small", {0}),
        ("the ring that is not purple", set()),
    ],
)
def test_evaluator_finds_what_a_reader_finds(expression, expected):
    assert evaluate_expression(expression, ROOM) == expected


def test_middle_is_the_middle_of_the_picture():
    scene = scene_of(place("star", "red", 0.46, 0.55), place("star", "blue", 0.1, 0.1), place("ring", "red", 0.9, 0.5))
    assert evaluate_expression("the star in the middle", scene) == {0}
    assert evaluate_expression("the ring in the center", scene) == set()


@pytest.mark.parametrize(
    ("expression", "objects"),
    [
        ("the left star", (place("star", "red", 0.40, 0.2), place("star", "blue", 0.47, 0.8))),
        ("the star on the left", (place("star", "red", 0.48, 0.2),)),
        ("the star on the left", (place("star", "red", 0.72, 0.2), place("star", "red", 0.9, 0.2))),
        ("the small star", (place("star", "red", 0.2, 0.2), place("star", "blue", 0.8, 0.8, "large"))),
        ("the largest star", (place("star", "red", 0.2, 0.2, "large"),)),
        ("the star above the ring", (place("star", "red", 0.2, 0.4), place("ring", "red", 0.8, 0.6))),
        (
            "the star above the ring",
            (place("star", "red", 0.5, 0.1), place("ring", "red", 0.2, 0.6), place("ring", "blue", 0.8, 0.6)),
        ),
        (
            "the second star from the top",
            (place("star", "red", 0.2, 0.2), place("star", "red", 0.5, 0.5), place("star", "red", 0.8, 0.55)),
        ),
    ],
)
def test_close_calls_are_possible_but_never_certain(expression, objects):
    reading = read_expression(expression, scene_of(*objects))
    assert reading.certain == frozenset()
    assert reading.possible


def test_doubt_about_one_word_carries_over_to_the_next():
    small, nearly_small = place("star", "red", 0.3, 0.2, "small"), place("star", "red", 0.1, 0.2)
    assert evaluate_expression("the left small star", scene_of(small)) == {0}
    scene = scene_of(small, replace(nearly_small, radius=0.08))
    assert read_expression("the left small star", scene) == (set(), {0, 1})


def test_a_tie_of_what_a_relation_refers_to_leaves_both_answers_possible():
    scene = scene_of(
        place("star", "red", 0.2, 0.2),
        place("ring", "red", 0.2, 0.6),
        place("star", "blue", 0.8, 0.2),
        place("ring", "blue", 0.8, 0.6),
    )
    assert read_expression("the star above the ring", scene).possible == {0, 2}
    # The blue star is higher than the red ring too, but nobody would call it the one above.
    assert read_expression("the star above the red ring", scene) == ({0}, {0, 2})
    assert not is_true_of_one("the star above the red ring", scene, 0)
    assert is_true_of_one("the star closest to the red ring", scene, 0)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("the red elephant", "'elephant' in 'the red elephant' is not in the grammar"),
        ("the red", "needs one noun"),
        ("the circle square", "needs one noun"),
        ("the left circle at the top", "2 words of place or degree"),
        ("the second circle", "needs both an ordinal and the side"),
        ("the circle between the star", "needs 'between' one thing 'and' another"),
        ("the circle that is not left", "denies something other than a property"),
        ("the circle and the star", "'and' words where none can be read"),
        ("the circle above the star below the ring", "'relation' words where none can be read"),
        ("", "needs one noun"),
    ],
)
def test_sentences_outside_the_grammar_are_refused(expression, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        evaluate_expression(expression, ROOM)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("the circle", "shape"),
        ("the object", "shape"),
        ("the red one", "colour"),
        ("the striped red circle", "texture"),
        ("the circle with a border", "texture"),
        ("the small striped circle", "size"),
        ("the biggest red circle", "size"),
        ("the small circle on the left", "position"),
        ("the circle in the upper right", "position"),
        ("the star in the middle", "position"),
        ("the second small circle from the left", "order"),
        ("the small circle that is not red", "negation"),
        ("the small circle above the star on the left", "relation"),
        ("the circle between the star and the ring", "relation"),
    ],
)
def test_kind_is_the_hardest_part_of_a_sentence(expression, kind):
    assert expression_kind(expression) == kind
    assert kind in KINDS


# Written sentences


def test_every_written_sentence_is_certainly_true_of_its_object_and_no_other(written):
    style, folder = written
    first_ids, num_sentences = {}, 0
    for annotation in json.loads((folder / "shapes/instances.json").read_text())["annotations"]:
        first_ids.setdefault(annotation["image_id"], annotation["id"])
    for ref in read_refs(folder):
        scene, _ = sample_picture(ref["image_id"] - 1, seed=3, style=style)
        index = ref["ann_id"] - first_ids[ref["image_id"]]
        for sentence in sentences_of(ref):
            reading = read_expression(sentence, scene)
            assert reading.certain == reading.possible == {index}, sentence
            num_sentences += 1
    assert num_sentences > 2 * NUM_PICTURES


def test_an_object_has_up_to_three_sentences_of_different_kinds(written):
    _, folder = written
    for ref in read_refs(folder):
        kinds = [expression_kind(sentence) for sentence in sentences_of(ref)]
        assert 1 <= len(kinds) <= 3
        # A size or colour can slip into a sentence of another kind.
        assert len(set(sentences_of(ref))) == len(kinds)


def test_rich_sentences_come_in_every_kind_and_plain_ones_in_four():
    found = {style: set() for style in STYLES}
    for style in STYLES:
        for index in range(30):
            _, expressions = sample_picture(index, seed=0, style=style)
            found[style] |= {expression_kind(text) for texts in expressions.values() for text in texts}
    assert found["rich"] == set(KINDS)
    assert found["plain"] == {"shape", "colour", "size", "position"}


def test_a_negation_denies_what_a_distractor_has():
    num_negations = 0
    for index in range(30):
        scene, expressions = sample_picture(index, seed=1, style="rich")
        for text in (text for texts in expressions.values() for text in texts):
            if expression_kind(text) == "negation":
                affirmed = re.sub(" (that|which) is not .*", "", text)
                assert len(read_expression(affirmed, scene).possible) >= 2, text
                num_negations += 1
    assert num_negations > 10


def test_plain_seeds_keep_their_meaning():
    _, expressions = sample_picture(0, seed=0, style="plain")
    assert expressions == {0: ["small triangle", "the leftmost shape"], 1: ["large orange object"]}


# Pictures and masks


def published_reading(annotation: dict, image: dict) -> np.ndarray:
    """The mask as REFER's readers take it: of a list of lists polygons, of any other list RLEs; added up."""
    parts = annotation["segmentation"]
    rles = coco_mask.frPyObjects(parts, image["height"], image["width"]) if isinstance(parts[0], list) else parts
    return sum(coco_mask.decode(rle) for rle in rles) == 1


def test_written_segmentations_are_the_visible_masks(written):
    style, folder = written
    coco = COCO(str(folder / "shapes/instances.json"))
    kinds = set()
    for image_id in coco.getImgIds():
        scene, _ = sample_picture(image_id - 1, seed=3, style=style)
        _, masks = render(scene)
        for annotation, mask, drawn in zip(coco.loadAnns(coco.getAnnIds(image_id)), masks, scene.objects):
            assert np.array_equal(published_reading(annotation, coco.imgs[image_id]), mask)
            assert annotation["area"] == mask.sum()
            assert annotation["iscrowd"] == 0
            assert coco.loadCats(annotation["category_id"])[0]["name"] == drawn.shape
            left, top, width, height = annotation["bbox"]
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            assert mask[top].any() and mask[:, left].any()
            assert mask[top + height - 1].any() and mask[:, left + width - 1].any()
            is_covered = not np.array_equal(mask_of(drawn, 128), mask)
            (part,) = annotation["segmentation"]
            is_polygon = isinstance(part, list)
            assert is_polygon == (drawn.shape != "ring" and not is_covered)
            assert is_polygon or isinstance(part["counts"], str)
            kinds.add("polygon" if is_polygon else "covered" if is_covered else "hole")
    assert kinds == ({"polygon"} if style == "plain" else {"polygon", "covered", "hole"})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_masks_follow_the_paint_to_a_pixel(shape, size):
    drawn = place(shape, "white", 0.503, 0.491, size, rotation=7.0)
    scene = Scene("rich", Background("flat", ((0, 0, 0),)), (drawn,))
    image, masks = render(scene, 128)
    paint = np.asarray(image.convert("L")) > 122
    mask = Image.fromarray(masks[0])
    assert not (paint & ~np.asarray(mask.convert("L").filter(ImageFilter.MaxFilter(3)), bool)).any()
    assert not (np.asarray(mask.convert("L").filter(ImageFilter.MinFilter(3)), bool) & ~paint).any()
    if size == "large":
        assert (paint & masks[0]).sum() / (paint | masks[0]).sum() >= 0.97


def test_what_shows_through_a_ring_is_not_the_ring():
    scene = scene_of(place("star", "white", 0.5, 0.5, "small"), place("ring", "black", 0.5, 0.5, "large"))
    image, masks = render(scene)
    assert image.getpixel((64, 64)) == COLOURS["white"]
    assert masks[:, 64, 64].tolist() == [True, False]


def test_every_rich_object_stays_at_least_half_visible():
    shares = []
    for index in range(60):
        scene = sample_scene(np.random.default_rng(index), "rich")
        _, masks = render(scene)
        shares += [mask.sum() / mask_of(drawn, 128).sum() for drawn, mask in zip(scene.objects, masks)]
    assert min(shares) >= 0.5
    assert 0.1 < np.mean(np.array(shares) < 1) < 0.5


def test_plain_objects_never_touch():
    for index in range(60):
        scene = sample_scene(np.random.default_rng(index), "plain")
        assert 2 <= len(scene.objects) <= 5
        masks = np.stack([mask_of(drawn, 128) for drawn in scene.objects])
        assert masks.sum(axis=0).max() == 1


def test_rich_scenes_use_the_whole_vocabulary():
    scenes = [sample_scene(np.random.default_rng(index), "rich") for index in range(60)]
    objects = [drawn for scene in scenes for drawn in scene.objects]
    assert {drawn.shape for drawn in objects} == set(STYLE_SHAPES["rich"]) and len(STYLE_SHAPES["rich"]) >= 8
    assert {drawn.colour for drawn in objects} == set(COLOURS) and len(COLOURS) == 10
    assert {drawn.size for drawn in objects} == set(RADII) and len(RADII) == 3
    assert {drawn.texture for drawn in objects} == set(TEXTURES)
    assert {drawn.outline for drawn in objects} == {"none", "drawn"}
    assert {scene.background.kind for scene in scenes} == {"gradient", "noise", "photo"}
    assert {scene.shadow is None for scene in scenes} == {True, False}
    assert {len(scene.objects) for scene in scenes} == {3, 4, 5, 6, 7}


def test_rich_objects_and_outlines_stand_out_from_the_background():
    for index in range(60):
        scene = sample_scene(np.random.default_rng(index), "rich")
        for drawn in scene.objects:
            # Where no background suits all objects of a scene, the best one comes near.
            assert min(math.dist(drawn.rgb, colour) for colour in scene.background.colours) >= 0.8 * MIN_CONTRAST
            if drawn.outline == "drawn":
                assert min(math.dist(drawn.accent, colour) for colour in scene.background.colours) >= MIN_CONTRAST


def test_a_shadow_darkens_the_picture_and_leaves_the_masks():
    scene = sample_scene(np.random.default_rng(0), "rich")
    image, masks = render(replace(scene, shadow=None))
    darker, same_masks = render(replace(scene, shadow=Shadow(0.02, 0.02, strength=0.5)))
    assert np.array_equal(masks, same_masks)
    assert np.asarray(darker, int).sum() < np.asarray(image, int).sum()


@pytest.mark.parametrize("style", STYLES)
def test_a_scene_can_be_drawn_at_any_size(style):
    scene = sample_scene(np.random.default_rng(5), style)
    small, large = render(scene, 96), render(scene, 192)
    assert large[0].size == (192, 192)
    np.testing.assert_allclose(large[1].mean(axis=(1, 2)), small[1].mean(axis=(1, 2)), rtol=0.12)


# Files


@pytest.mark.parametrize(("style", "num_images"), [("plain", 100), ("rich", 24)])
def test_one_worker_and_two_write_the_same_bytes(style, num_images, tmp_path):
    for num_workers in (1, 2):
        synthesize(
            tmp_path / str(num_workers),
            num_images,
            seed=7,
            style=style,
            num_workers=num_workers,
            no_target=True,
            progress=False,
        )
    one, two = files_of(tmp_path / "1"), files_of(tmp_path / "2")
    assert one == two
    assert len(one) == num_images + 3


def test_a_picture_depends_on_the_seed_and_its_index_only(tmp_path):
    for name, num_images, seed in (("short", 8, 0), ("long", 12, 0), ("other", 8, 1)):
        synthesize(tmp_path / name, num_images, seed, num_workers=1, progress=False)
    short, long, other = (
        {name: digest for name, digest in files_of(tmp_path / folder).items() if name.endswith(".jpg")}
        for folder in ("short", "long", "other")
    )
    assert short.items() <= long.items()
    assert not set(short.values()) & set(other.values())


def test_expressions_without_a_target_change_nothing_else(written, tmp_path):
    style, folder = written
    synthesize(tmp_path / "without", NUM_PICTURES, seed=3, style=style, num_workers=1, progress=False)
    files = files_of(folder)
    del files["shapes/grefs(unc).json"]
    assert files_of(tmp_path / "without") == files


def test_sentences_without_a_target_could_mean_no_object(written):
    style, folder = written
    grefs = json.loads((folder / "shapes/grefs(unc).json").read_text())
    absent = [ref for ref in grefs if ref["no_target"]]
    assert len(absent) > NUM_PICTURES / 2
    for ref in absent:
        assert ref["ann_id"] == ref["category_id"] == [-1]
        scene, _ = sample_picture(ref["image_id"] - 1, seed=3, style=style)
        assert all(is_true_of_none(sentence, scene) for sentence in sentences_of(ref))
        assert 1 <= len(ref["sentences"]) <= 2


def test_grefs_hold_the_refs_with_lists_of_ids(written):
    _, folder = written
    refs = read_refs(folder)
    grefs = json.loads((folder / "shapes/grefs(unc).json").read_text())
    for ref, gref in zip(refs, grefs):
        lists = {"ann_id": [ref["ann_id"]], "category_id": [ref["category_id"]]}
        assert gref == ref | lists | {"no_target": False}
    assert [ref["ref_id"] for ref in grefs] == list(range(1, len(grefs) + 1))
    sent_ids = [sent_id for ref in grefs for sent_id in ref["sent_ids"]]
    assert sent_ids == list(range(1, len(sent_ids) + 1))


def test_sentences_without_a_target_are_not_all_of_one_kind():
    kinds = set()
    for index in range(60):
        scene, _ = sample_picture(index, seed=0, style="rich")
        texts = sample_absent_expressions(scene, np.random.default_rng(index))
        assert all(is_true_of_none(text, scene) for text in texts)
        kinds |= {expression_kind(text) for text in texts}
    assert {"colour", "shape", "texture", "size", "position", "relation"} <= kinds


def test_refs_have_the_fields_of_the_published_files(written):
    style, folder = written
    data = (folder / "shapes/refs(unc).p").read_bytes()
    assert data[:2] == b"\x80\x02"  # pickle protocol 2
    instances = json.loads((folder / "shapes/instances.json").read_text())
    assert instances["info"]["seed"] == 3 and instances["info"]["style"] == style
    assert [category["name"] for category in instances["categories"]] == list(STYLE_SHAPES[style])
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    images = {image["id"]: image for image in instances["images"]}
    for ref in read_refs(folder):
        assert set(ref) == {
            "ref_id",
            "ann_id",
            "image_id",
            "category_id",
            "split",
            "sent_ids",
            "sentences",
            "file_name",
        }
        assert [sentence["sent_id"] for sentence in ref["sentences"]] == ref["sent_ids"]
        assert all(set(sentence) == {"raw", "sent", "sent_id", "tokens"} for sentence in ref["sentences"])
        assert all(sentence["tokens"] == sentence["sent"].split() for sentence in ref["sentences"])
        annotation = annotations[ref["ann_id"]]
        assert (annotation["image_id"], annotation["category_id"]) == (ref["image_id"], ref["category_id"])
        assert images[ref["image_id"]]["file_name"] == ref["file_name"]
        with Image.open(folder / "images/mscoco/images/train2014" / ref["file_name"]) as image:
            assert image.size == (128, 128)


def test_splits_are_by_picture_and_never_empty(written):
    _, folder = written
    assert all(ref["split"] == split_of(ref["image_id"] - 1) for ref in read_refs(folder))
    assert {split_of(index) for index in range(8)} == {"train", "val", "testA", "testB"}
    splits = [split_of(index) for index in range(1000)]
    assert {name: splits.count(name) for name in set(splits)} == {"train": 900, "val": 40, "testA": 30, "testB": 30}


def test_summary_counts_what_was_written(tmp_path):
    summary = synthesize(
        tmp_path / "set", 8, seed=0, num_workers=1, no_target=True, progress=False, dataset_name="toy"
    )
    refs = pickle.loads((tmp_path / "set/toy/refs(unc).p").read_bytes())
    grefs = json.loads((tmp_path / "set/toy/grefs(unc).json").read_text())
    instances = json.loads((tmp_path / "set/toy/instances.json").read_text())
    assert summary["output_dir"] == str(tmp_path / "set")
    assert summary["images"] == len(instances["images"]) == 8
    assert summary["objects"] == len(instances["annotations"])
    assert summary["refs"] == len(refs) == sum(summary["refs_per_split"].values())
    assert min(summary["refs_per_split"].values()) > 0
    assert summary["sentences"] == sum(len(ref["sentences"]) for ref in refs)
    assert summary["no_target_refs"] == len(grefs) - len(refs) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 7}, "num_images is 7; at least 8 are needed"),
        ({"seed": -1}, "seed is -1"),
        ({"image_size": 32}, "image_size is 32"),
        ({"num_workers": 0}, "num_workers is 0"),
        ({"style": "baroque"}, "style is 'baroque'; choose one of plain, rich"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        synthesize(tmp_path / "set", **({"num_images": 8, "seed": 0} | arguments))
    assert not any(tmp_path.iterdir())


def test_an_unknown_style_of_scene_is_refused():
    with pytest.raises(ValueError, match="style is 'baroque'"):
        sample_scene(np.random.default_rng(0), "baroque")


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        synthesize(tmp_path / "set", 8, seed=0)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "mine.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    synthesize(tmp_path / "set", 8, seed=0, num_workers=1, progress=False)
    assert (tmp_path / "set/shapes/instances.json").exists()


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail_late(image_index, **_):
        if image_index == 5:
            raise OSError("disk full")
        return {"file_name": "x.jpg", "objects": [], "absent": []}

    monkeypatch.setattr(synthetic, "make_picture", fail_late)
    with pytest.raises(OSError, match="disk full"):
        synthesize(tmp_path / "set", 8, seed=0, num_workers=1, progress=False)
    assert not any(tmp_path.iterdir())


def test_parsing_keeps_what_a_relation_refers_to_apart():
    description = parse_expression("the small red ring above the blue star")
    assert set(description.properties) == {("size", "small"), ("colour", "red"), ("shape", "ring")}
    assert description.relation == "top"
    assert set(description.anchors[0].properties) == {("colour", "blue"), ("shape", "star")}


def test_a_folder_of_the_first_version_is_read_like_a_new_one(tmp_path):
    """It held an RLE that is in no list."""
    synthesize(tmp_path / "data", 8, 0, image_size=64, style="rich", num_workers=1, progress=False)
    path = tmp_path / "data" / "shapes" / "instances.json"
    new = load_refer("shapes", "unc", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    instances = json.loads(path.read_text())
    rles = [each for each in instances["annotations"] if isinstance(each["segmentation"][0], dict)]
    assert rles
    for annotation in rles:
        (annotation["segmentation"],) = annotation["segmentation"]
    path.write_text(json.dumps(instances))
    old = load_refer("shapes", "unc", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    for split in new:
        assert old[split].to_dict() == new[split].to_dict()


def processes_below(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc, as Linux has it")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    child = os.fork()
    if child == 0:
        try:
            synthesize(tmp_path / "data", 100_000, 0, image_size=64, num_workers=2, progress=False)
        finally:
            os._exit(1)
    workers, tries = [], 0
    while len(workers) < 2 and tries < 600:
        workers, tries = processes_below(child), tries + 1
        time.sleep(0.05)
    assert len(workers) == 2
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while any(map(is_running, workers)) and tries < 1200:
        tries += 1
        time.sleep(0.05)
    alive = [worker for worker in workers if is_running(worker)]
    for worker in alive:
        os.kill(worker, signal.SIGKILL)
    assert not alive
