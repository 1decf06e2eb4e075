# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The data set as it is written: its sentences and masks, its files, and what is refused."""

import hashlib
import json
import os
import pickle
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scene_fixture import STYLES

from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask
from remamber_hf.synthetic import dataset as synthetic
from remamber_hf.synthetic.dataset import sample_picture, synthesize
from remamber_hf.synthetic.drawn_set import split_of
from remamber_hf.synthetic.scenes import STYLE_SHAPES, mask_of, render
from remamber_hf.synthetic.shape_sentences import GRAMMAR, SHAPES


NUM_PICTURES = 40


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
            reading = SHAPES.read(sentence, scene.objects)
            assert reading.certain == reading.possible == {index}, sentence
            num_sentences += 1
    assert num_sentences > 2 * NUM_PICTURES


def test_an_object_has_up_to_three_sentences_of_different_kinds(written):
    _, folder = written
    for ref in read_refs(folder):
        kinds = [GRAMMAR.kind_of(sentence) for sentence in sentences_of(ref)]
        assert 1 <= len(kinds) <= 3
        # A size or colour can slip into a sentence of another kind.
        assert len(set(sentences_of(ref))) == len(kinds)


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
        assert all(SHAPES.is_true_of_none(sentence, scene.objects) for sentence in sentences_of(ref))
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


@pytest.mark.parametrize("style", STYLES)
def test_grefs_hold_what_is_said_of_several_and_the_mask_is_all_of_them(style, tmp_path):
    options = {"seed": 3, "style": style, "num_workers": 1, "progress": False}
    summary = synthesize(tmp_path / "both", NUM_PICTURES, no_target=True, many=True, **options)
    synthesize(tmp_path / "none", NUM_PICTURES, no_target=True, **options)
    files, without = files_of(tmp_path / "both"), files_of(tmp_path / "none")
    name = "shapes/grefs(unc).json"
    assert {**files, name: None} == {**without, name: None}  # the rest is as it was
    grefs = json.loads((tmp_path / "both" / name).read_text())
    several = [ref for ref in grefs if len(ref["ann_id"]) > 1]
    assert summary["many_refs"] == len(several) > NUM_PICTURES / 2
    assert summary["no_target_refs"] == sum(ref["no_target"] for ref in grefs)
    annotations = json.loads((tmp_path / "both/shapes/instances.json").read_text())["annotations"]
    by_picture: dict[int, list[dict]] = {}
    for annotation in annotations:
        by_picture.setdefault(annotation["image_id"], []).append(annotation)
    loaded = load_refer("shapes", "unc", data_dir=tmp_path / "both", generalized=True)
    rows = {row["ref_id"]: row for split in loaded.values() for row in split}
    for ref in several:
        scene, _ = sample_picture(ref["image_id"] - 1, seed=3, style=style)
        own = by_picture[ref["image_id"]]
        indices = {index for index, annotation in enumerate(own) if annotation["id"] in ref["ann_id"]}
        assert len(indices) == len(ref["ann_id"])
        assert ref["category_id"] == [own[index]["category_id"] for index in sorted(indices)]
        for sentence in sentences_of(ref):
            assert SHAPES.read(sentence, scene.objects).certain == indices
        _, masks = render(scene, 128)
        np.testing.assert_array_equal(row_mask(rows[ref["ref_id"]]), masks[sorted(indices)].any(axis=0))
    ids = [sentence["sent_id"] for ref in grefs for sentence in ref["sentences"]]
    assert ids == list(range(1, len(ids) + 1)) and [ref["ref_id"] for ref in grefs] == list(range(1, len(grefs) + 1))
    absent = [ref for ref in grefs if ref["no_target"]]
    assert any(re.search(r"s$|^both|^all|^everything", text) for ref in absent for text in sentences_of(ref))


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
