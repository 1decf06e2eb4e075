# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A synthetic data set in the REFER layout: scene → picture, masks, expressions → files.

    <output_dir>/<dataset_name>/instances.json
    <output_dir>/<dataset_name>/refs(unc).p
    <output_dir>/<dataset_name>/grefs(unc).json          only with no_target or many
    <output_dir>/images/mscoco/images/train2014/<dataset_name>_<image_id>.jpg

A segmentation is a list: of a polygon where pycocotools makes the visible mask of it, pixel for pixel, and of a
compressed RLE (`counts` as text) otherwise: an object with a hole, or partly covered. So every reader of REFER's takes
it; they take a dict that is in no list for a crowd, or for nothing. `iscrowd` is 0 in both cases.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.published import COCO_FOLDERS
from ..data.refer_writer import SPLIT_BY, make_sentences, write_annotations
from ..data.rle import encode_mask
from ..files import check_new_folder, make_whole_folder
from .scenes import SCENE_SAMPLERS, STYLE_SHAPES, Scene, SceneObject, contours_of, mask_of, render, sample_scene
from .writers import (
    sample_absent_expressions,
    sample_absent_many_expressions,
    sample_expressions,
    sample_many_expressions,
)


GENERATOR_VERSION = "1.1.0"
IMAGE_FOLDER = Path(COCO_FOLDERS[0])
JPEG_QUALITY = 95
# The split of picture i is that of i modulo 100, so it does not change when a data set grows.
SPLIT_REMAINDERS = {"val": {1, 26, 51, 76}, "testA": {2, 35, 68}, "testB": {3, 36, 69}}
SPLITS = ("train", *SPLIT_REMAINDERS)
MIN_IMAGES = 8


def split_of(image_index: int) -> str:
    """Return the split of a picture: 90 % train, 4 % val, 3 % testA, 3 % testB."""
    return next((name for name, at in SPLIT_REMAINDERS.items() if image_index % 100 in at), "train")


def annotate_mask(scene_object: SceneObject, mask: np.ndarray) -> list[list[float] | dict]:
    """Encode a visible mask, bool (height, width), as a COCO polygon if that gives it back, as an RLE if not."""
    width = mask.shape[1]
    contours = contours_of(scene_object, width)
    if len(contours) == 1 and np.array_equal(mask_of(scene_object, width), mask):
        return [contours[0].flatten().tolist()]
    return [encode_mask(mask)]


def sample_picture(image_index: int, *, seed: int, style: str) -> tuple[Scene, dict[int, list[str]]]:
    """Draw the scene of picture `image_index` and its expressions (object index → texts); at least one has some.

    The result depends on the arguments only, so any number of workers writes the same data set.
    """
    rng = np.random.default_rng((seed, image_index))
    expressions: dict[int, list[str]] = {}
    while not expressions:
        scene = sample_scene(rng, style)
        expressions = sample_expressions(scene, rng)
    return scene, expressions


def make_picture(
    image_index: int,
    *,
    seed: int,
    style: str,
    image_size: int,
    no_target: bool,
    many: bool,
    image_folder: Path,
    dataset_name: str,
) -> dict:
    """Sample, draw and save picture `image_index`; return its annotations and expressions, without ids."""
    scene, expressions = sample_picture(image_index, seed=seed, style=style)
    image, masks = render(scene, image_size)
    file_name = f"{dataset_name}_{image_index + 1:012d}.jpg"
    # Without chroma subsampling: it would smear the colours of small objects.
    image.save(image_folder / file_name, quality=JPEG_QUALITY, subsampling=0)
    objects = []
    for index, (scene_object, mask) in enumerate(zip(scene.objects, masks)):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top, right, bottom = (int(value) for value in (columns[0], rows[0], columns[-1], rows[-1]))
        objects.append(
            {
                "shape": scene_object.shape,
                "segmentation": annotate_mask(scene_object, mask),
                "bbox": [left, top, right - left + 1, bottom - top + 1],
                "area": int(mask.sum()),
                "expressions": expressions.get(index, []),
            }
        )
    # Streams of their own, so that pictures and expressions are the same with and without these.
    absent, meant = [], {}
    if no_target:
        absent = sample_absent_expressions(scene, np.random.default_rng((seed, image_index, 1)))
    if many:
        meant = sample_many_expressions(scene, np.random.default_rng((seed, image_index, 2)))
    if many and no_target:
        absent += sample_absent_many_expressions(scene, np.random.default_rng((seed, image_index, 3)))
    groups = [(sorted(indices), texts) for indices, texts in meant.items()]
    return {"file_name": file_name, "objects": objects, "absent": absent, "groups": groups}


def synthesize(
    output_dir: str | Path,
    num_images: int,
    seed: int,
    *,
    image_size: int = 128,
    style: str = "plain",
    num_workers: int = 2,
    no_target: bool = False,
    many: bool = False,
    progress: bool = True,
    dataset_name: str = "shapes",
) -> dict:
    """Write a synthetic data set in the REFER layout.

    Args:
        output_dir: folder to create; an empty one is filled, any other raises FileExistsError.
        num_images: at least 8, so that no split is empty.
        seed: the same seed gives the same files, whatever the number of workers.
        image_size: side of the square pictures in pixels, at least 64.
        style: "plain" (flat shapes apart from each other) or "rich".
        num_workers: processes that draw pictures; 1 draws in this process.
        no_target: also write grefs(unc).json, with expressions that are true of nothing.
        many: also write grefs(unc).json, with expressions that are true of several objects.
        progress: show a progress bar.
        dataset_name: name of the folder of annotations.

    Returns the folder and the counts: images, objects, refs and sentences, refs per split, refs without a target and
    with several.
    """
    _check_arguments(output_dir, num_images, seed, image_size, style, num_workers)
    with make_whole_folder(output_dir) as unfinished:
        annotation_folder, image_folder = unfinished / dataset_name, unfinished / IMAGE_FOLDER
        annotation_folder.mkdir()
        image_folder.mkdir(parents=True)
        make = partial(
            make_picture,
            seed=seed,
            style=style,
            image_size=image_size,
            no_target=no_target,
            many=many,
            image_folder=image_folder,
            dataset_name=dataset_name,
        )
        pictures = _make_pictures(make, num_images, num_workers, progress)
        info = {"description": "synthetic scenes", "version": GENERATOR_VERSION, "seed": seed, "style": style}
        instances, refs = _build_annotations(pictures, info, STYLE_SHAPES[style], image_size)
        grefs = _build_grefs(pictures, instances["annotations"], refs) if no_target or many else None
        write_annotations(annotation_folder, SPLIT_BY, instances, refs, grefs)
    return {
        "output_dir": str(Path(output_dir).absolute()),
        "images": num_images,
        "objects": len(instances["annotations"]),
        "refs": len(refs),
        "sentences": sum(len(ref["sentences"]) for ref in refs),
        "refs_per_split": {name: sum(ref["split"] == name for ref in refs) for name in SPLITS},
        "no_target_refs": sum(bool(picture["absent"]) for picture in pictures),
        "many_refs": sum(len(picture["groups"]) for picture in pictures),
    }


def _check_arguments(
    output_dir: str | Path, num_images: int, seed: int, image_size: int, style: str, num_workers: int
) -> None:
    check_new_folder(output_dir)
    if num_images < MIN_IMAGES:
        raise ValueError(f"num_images is {num_images}; at least {MIN_IMAGES} are needed to fill every split.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give a number from 0 up.")
    if image_size < 64:
        raise ValueError(f"image_size is {image_size}; small objects need pictures of at least 64 pixels.")
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}; give 1 to draw in this process, more for a pool.")
    if style not in SCENE_SAMPLERS:
        raise ValueError(f"style is {style!r}; choose one of {', '.join(SCENE_SAMPLERS)}.")


def _make_pictures(make, num_images: int, num_workers: int, progress: bool) -> list[dict]:
    """Call `make` for every index, in order of the indices."""
    bar = partial(tqdm, total=num_images, desc="pictures", disable=not progress)
    if num_workers == 1:
        return list(bar(map(make, range(num_images))))
    with ProcessPoolExecutor(num_workers, initializer=end_with_parent) as pool:
        return list(bar(pool.map(make, range(num_images), chunksize=16)))


def end_with_parent():
    """Let this worker end when its parent is gone, however that was ended; it would wait for work for ever."""

    parent = multiprocessing.parent_process()

    def watch():
        if parent is not None:  # as it is for no worker
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _build_annotations(pictures: list[dict], info: dict, shapes: tuple[str, ...], image_size: int):
    """Number what the pictures hold, from 1 up in order: the COCO dict and the list of refs."""
    category_ids = {shape: index for index, shape in enumerate(shapes, start=1)}
    images: list[dict] = []
    annotations: list[dict] = []
    refs: list[dict] = []
    num_sentences = 0
    for image_index, picture in enumerate(pictures):
        image_id = image_index + 1
        images.append({"id": image_id, "file_name": picture["file_name"], "height": image_size, "width": image_size})
        for drawn in picture["objects"]:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": category_ids[drawn["shape"]],
                "segmentation": drawn["segmentation"],
                "bbox": drawn["bbox"],
                "area": drawn["area"],
                "iscrowd": 0,
            }
            annotations.append(annotation)
            if not drawn["expressions"]:
                continue
            texts = drawn["expressions"]
            sentences = make_sentences(texts, range(num_sentences + 1, num_sentences + 1 + len(texts)))
            num_sentences += len(texts)
            refs.append(
                {
                    "ref_id": len(refs) + 1,
                    "ann_id": annotation["id"],
                    "image_id": image_id,
                    "category_id": annotation["category_id"],
                    "split": split_of(image_index),
                    **sentences,
                    "file_name": picture["file_name"],
                }
            )
    categories = [{"id": index, "name": shape, "supercategory": "shape"} for shape, index in category_ids.items()]
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}, refs


def _build_grefs(pictures: list[dict], annotations: list[dict], refs: list[dict]) -> list[dict]:
    """
    Put refs as gRefCOCO does, with lists of ids; add one for each group of objects that is meant together, and one
    without a target for each picture that has any.
    """
    grefs = [
        ref | {"ann_id": [ref["ann_id"]], "category_id": [ref["category_id"]], "no_target": False} for ref in refs
    ]
    num_sentences = sum(len(ref["sentences"]) for ref in refs)
    num_annotations = 0
    for image_index, picture in enumerate(pictures):
        drawn = annotations[num_annotations : num_annotations + len(picture["objects"])]
        num_annotations += len(drawn)
        meant = [([drawn[index] for index in indices], texts) for indices, texts in picture["groups"]]
        if picture["absent"]:
            meant.append(([], picture["absent"]))
        for targets, texts in meant:
            sentences = make_sentences(texts, range(num_sentences + 1, num_sentences + 1 + len(texts)))
            num_sentences += len(texts)
            grefs.append(
                {
                    "ref_id": len(grefs) + 1,
                    "ann_id": [target["id"] for target in targets] or [-1],
                    "image_id": image_index + 1,
                    "category_id": [target["category_id"] for target in targets] or [-1],
                    "split": split_of(image_index),
                    **sentences,
                    "file_name": picture["file_name"],
                    "no_target": not targets,
                }
            )
    return grefs
