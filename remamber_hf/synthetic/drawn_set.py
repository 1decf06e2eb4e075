# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures that were made, with their masks and expressions, as a data set in the REFER layout.

<output_dir>/<dataset_name>/instances.json
<output_dir>/<dataset_name>/refs(unc).p
<output_dir>/<dataset_name>/grefs(unc).json          only with sentences that mean nothing or several objects
<output_dir>/images/mscoco/images/train2014/<dataset_name>_<image_id>.jpg
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..data.published import COCO_FOLDERS
from ..data.refer_writer import SPLIT_BY, make_sentences, write_annotations
from ..data.rle import encode_mask
from ..files import check_new_folder, make_whole_folder


IMAGE_FOLDER = Path(COCO_FOLDERS[0])
JPEG_QUALITY = 95
# The split of picture i is that of i modulo 100, so it does not change when a data set grows.
SPLIT_REMAINDERS = {"val": {1, 26, 51, 76}, "testA": {2, 35, 68}, "testB": {3, 36, 69}}
SPLITS = ("train", *SPLIT_REMAINDERS)
MIN_IMAGES = 8


def split_of(image_index: int) -> str:
    """Return the split of a picture: 90 % train, 4 % val, 3 % testA, 3 % testB."""
    return next((name for name, at in SPLIT_REMAINDERS.items() if image_index % 100 in at), "train")


def write_drawn_set(
    output_dir: str | Path,
    make: Callable[..., dict],
    num_images: int,
    *,
    info: dict,
    categories: Mapping[str, str],
    image_size: int,
    num_workers: int,
    is_generalized: bool,
    progress: bool,
    dataset_name: str,
    first_image_id: int = 1,
) -> dict:
    """Make pictures and write them with what is known of them; a folder that is not finished is removed again.

    Args:
        output_dir: folder to create; an empty one is filled, any other raises FileExistsError.
        make: draws and saves a picture, given its index and `image_folder`, in a process of its own: {"file_name",
            "objects": what `annotate` returns, "absent": sentences that mean none of them, "groups": pairs of indices
            and sentences that mean these together}. The result depends on the index only, so any number of workers
            writes the same data set.
        num_images: how many.
        info: entries of instances.json about the set.
        categories: names → their supercategories.
        image_size: side of the square pictures in pixels.
        num_workers: processes that draw pictures; 1 draws in this process.
        is_generalized: also write grefs(unc).json.
        progress: show a progress bar.
        dataset_name: name of the folder of annotations, and the start of the pictures' names.
        first_image_id: id of the first picture. Sets that are trained on together should have pictures of other ids.

    Returns the folder and the counts: images, objects, refs and sentences, refs per split, refs without a target and
    with several.
    """
    with make_whole_folder(output_dir) as unfinished:
        annotation_folder, image_folder = unfinished / dataset_name, unfinished / IMAGE_FOLDER
        annotation_folder.mkdir()
        image_folder.mkdir(parents=True)
        pictures = _make_pictures(partial(make, image_folder=image_folder), num_images, num_workers, progress)
        for index, picture in enumerate(pictures):
            size = {"height": image_size, "width": image_size}
            picture["image"] = {"id": first_image_id + index, "file_name": picture.pop("file_name"), **size}
            picture["split"] = split_of(index)
        instances, refs = build_annotations(pictures, info, categories)
        grefs = build_grefs(pictures, instances, refs) if is_generalized else None
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


def check_numbers(output_dir: str | Path, num_images: int, seed: int, image_size: int, num_workers: int) -> None:
    """FileExistsError or ValueError for what no set can be written with."""
    check_new_folder(output_dir)
    if num_images < MIN_IMAGES:
        raise ValueError(f"num_images is {num_images}; at least {MIN_IMAGES} are needed to fill every split.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give a number from 0 up.")
    if image_size < 64:
        raise ValueError(f"image_size is {image_size}; small objects need pictures of at least 64 pixels.")
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}; give 1 to draw in this process, more for a pool.")


def save_drawn(image: Image.Image, image_folder: Path, dataset_name: str, image_index: int) -> str:
    """Save picture `image_index`; return the file's name."""
    file_name = f"{dataset_name}_{image_index + 1:012d}.jpg"
    # Without chroma subsampling: it would smear the colours of small objects.
    image.save(image_folder / file_name, quality=JPEG_QUALITY, subsampling=0)
    return file_name


def annotate(
    category: str, mask: np.ndarray, expressions: list[str], polygon: list[list[float]] | None = None
) -> dict:
    """Describe an object by its visible mask, bool (height, width), without ids; `polygon` if it gives that mask.

    A segmentation is a list, of a polygon or of a compressed RLE (`counts` as text), so that every reader of REFER's
    takes it: they take a dict that is in no list for a crowd, or for nothing.
    """
    left, top, right, bottom = bounds_of(mask)
    return {
        "category": category,
        "segmentation": [encode_mask(mask)] if polygon is None else polygon,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(mask.sum()),
        "expressions": expressions,
    }


def bounds_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a mask, in pixels; right and bottom are the first that it does not reach."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


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


def build_annotations(pictures: list[dict], info: dict, categories: Mapping[str, str]) -> tuple[dict, list[dict]]:
    """Number what pictures hold, from 1 up in order, but for objects with an "id": the COCO dict and the list of refs.

    A picture has "image", its entry in the COCO dict, "split", and what `write_drawn_set` says of "objects".
    """
    category_ids = {name: index for index, name in enumerate(categories, start=1)}
    images: list[dict] = []
    annotations: list[dict] = []
    refs: list[dict] = []
    num_sentences = 0
    for picture in pictures:
        image = picture["image"]
        images.append(image)
        for drawn in picture["objects"]:
            annotation = {
                "id": drawn.get("id", len(annotations) + 1),
                "image_id": image["id"],
                "category_id": category_ids[drawn["category"]],
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
                    "image_id": image["id"],
                    "category_id": annotation["category_id"],
                    "split": picture["split"],
                    **sentences,
                    "file_name": image["file_name"],
                }
            )
    entries = [{"id": index, "name": name, "supercategory": categories[name]} for name, index in category_ids.items()]
    return {"info": info, "images": images, "annotations": annotations, "categories": entries}, refs


def build_grefs(pictures: list[dict], instances: dict, refs: list[dict]) -> list[dict]:
    """
    Put refs as gRefCOCO does, with lists of ids; add one for each group of objects that is meant together, and one
    without a target for each picture that has any. "absent" and "groups" are as `write_drawn_set` says.
    """
    grefs = [
        ref | {"ann_id": [ref["ann_id"]], "category_id": [ref["category_id"]], "no_target": False} for ref in refs
    ]
    num_sentences = sum(len(ref["sentences"]) for ref in refs)
    num_annotations = 0
    for picture in pictures:
        drawn = instances["annotations"][num_annotations : num_annotations + len(picture["objects"])]
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
                    "image_id": picture["image"]["id"],
                    "category_id": [target["category_id"] for target in targets] or [-1],
                    "split": picture["split"],
                    **sentences,
                    "file_name": picture["image"]["file_name"],
                    "no_target": not targets,
                }
            )
    return grefs
