# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A synthetic data set in the REFER layout: scene → picture, masks, expressions → files.

A segmentation is a polygon where pycocotools makes the visible mask of it, pixel for pixel, and an RLE otherwise: an
object with a hole, or partly covered. `drawn_set` writes the files.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from .drawn_set import annotate, check_numbers, save_drawn, write_drawn_set
from .scenes import SCENE_SAMPLERS, STYLE_SHAPES, Scene, SceneObject, contours_of, mask_of, render, sample_scene
from .writers import (
    sample_absent_expressions,
    sample_absent_many_expressions,
    sample_expressions,
    sample_many_expressions,
)


GENERATOR_VERSION = "1.1.0"


def polygon_of(scene_object: SceneObject, mask: np.ndarray) -> list[list[float]] | None:
    """Return the outline of an object if pycocotools makes its visible mask, bool (height, width), of it."""
    width = mask.shape[1]
    contours = contours_of(scene_object, width)
    if len(contours) == 1 and np.array_equal(mask_of(scene_object, width), mask):
        return [contours[0].flatten().tolist()]
    return None


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
    file_name = save_drawn(image, image_folder, dataset_name, image_index)
    objects = [
        annotate(scene_object.shape, mask, expressions.get(index, []), polygon_of(scene_object, mask))
        for index, (scene_object, mask) in enumerate(zip(scene.objects, masks))
    ]
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
    check_numbers(output_dir, num_images, seed, image_size, num_workers)
    if style not in SCENE_SAMPLERS:
        raise ValueError(f"style is {style!r}; choose one of {', '.join(SCENE_SAMPLERS)}.")
    make = partial(
        make_picture,
        seed=seed,
        style=style,
        image_size=image_size,
        no_target=no_target,
        many=many,
        dataset_name=dataset_name,
    )
    return write_drawn_set(
        output_dir,
        make,
        num_images,
        info={"description": "synthetic scenes", "version": GENERATOR_VERSION, "seed": seed, "style": style},
        categories=dict.fromkeys(STYLE_SHAPES[style], "shape"),
        image_size=image_size,
        num_workers=num_workers,
        is_generalized=no_target or many,
        progress=progress,
        dataset_name=dataset_name,
    )
