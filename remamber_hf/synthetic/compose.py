# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A data set of compositions in the REFER layout: cut-outs and backgrounds → pictures, masks, expressions → files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.refer_writer import check_name
from ..messages import describe, shorten
from .compositions import MIN_THINGS, Composition, render, sample_composition, things_of
from .cutouts import Backdrop, Cutout, find_backdrops, find_cutouts
from .drawn_set import annotate, check_numbers, save_drawn, write_drawn_set
from .thing_words import ThingWords, clean_noun, make_thing_words
from .thing_writers import (
    sample_absent_thing_expressions,
    sample_many_thing_expressions,
    sample_thing_expressions,
)
from .things import Thing


GENERATOR_VERSION = "1.0.0"
MAX_THINGS = 8
MAX_TRIES = 1000
FIRST_IMAGE_ID = 10_000_001  # past those of COCO and of drawn shapes, with which these pictures may be mixed


@dataclass(frozen=True)
class Library:
    """What compositions are made of: cut-outs, backgrounds and (noun, its synonyms)."""

    cutouts: tuple[Cutout, ...]
    backdrops: tuple[Backdrop, ...] = ()
    synonyms: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def words(self) -> ThingWords:
        """The words for all nouns, those of the backgrounds too."""
        shown = (noun for backdrop in self.backdrops for noun in backdrop.nouns)
        return make_thing_words((*(cutout.noun for cutout in self.cutouts), *shown), dict(self.synonyms))


@lru_cache(maxsize=4)
def _sort_out(library: Library) -> tuple[dict[str, list[Cutout]], ThingWords]:
    """The cut-outs by noun, and their words; made once in a process, since it takes longer than a picture."""
    words = library.words()
    by_noun: dict[str, list[Cutout]] = {}
    for cutout in library.cutouts:
        if cutout.noun in words.nouns:
            by_noun.setdefault(cutout.noun, []).append(cutout)
    return by_noun, words


def sample_picture(
    image_index: int, library: Library, *, seed: int, image_size: int, max_things: int
) -> tuple[Composition, Image.Image, np.ndarray, list[Thing], dict[int, list[str]]]:
    """Draw composition `image_index`: it, its picture, masks and things, and the expressions (index of thing → texts).

    At least one thing has some. The result depends on the arguments only.
    """
    cutouts, words = _sort_out(library)
    rng = np.random.default_rng((seed, image_index))
    for _ in range(MAX_TRIES):
        composition = sample_composition(rng, cutouts, words, library.backdrops, max_things)
        image, masks = render(composition, image_size)
        is_seen = [mask.any() for mask in masks]
        if all(is_seen):
            things = things_of(composition, masks)
            expressions = sample_thing_expressions(words, things, rng)
            if expressions:
                return composition, image, masks, things, expressions
    unseen = [pasted.cutout.path for pasted, seen in zip(composition.pasted, is_seen) if not seen]
    if unseen:
        raise ValueError(
            f"{shorten(unseen[0])} cannot be seen in pictures of image_size {image_size}: hardly anything of it is "
            "opaque; leave it out, or give a larger image_size."
        )
    raise ValueError(f"in {MAX_TRIES} tries nothing could be said of things on a picture; give more cut-outs.")


def make_picture(
    image_index: int,
    *,
    library: Library,
    seed: int,
    image_size: int,
    max_things: int,
    no_target: bool,
    many: bool,
    image_folder: Path,
    dataset_name: str,
) -> dict:
    """Sample, draw and save picture `image_index`; return its annotations and expressions, without ids."""
    composition, image, masks, things, expressions = sample_picture(
        image_index, library, seed=seed, image_size=image_size, max_things=max_things
    )
    file_name = save_drawn(image, image_folder, dataset_name, image_index)
    objects = [
        annotate(pasted.cutout.noun, mask, expressions.get(index, []))
        for index, (pasted, mask) in enumerate(zip(composition.pasted, masks))
    ]
    # Streams of their own, so that pictures and expressions are the same with and without these.
    _, words = _sort_out(library)
    absent, meant = [], {}
    if no_target:
        absent = sample_absent_thing_expressions(words, things, np.random.default_rng((seed, image_index, 1)))
    if many:
        meant = sample_many_thing_expressions(words, things, np.random.default_rng((seed, image_index, 2)))
    groups = [(sorted(indices), texts) for indices, texts in meant.items()]
    return {"file_name": file_name, "objects": objects, "absent": absent, "groups": groups}


def compose(
    output_dir: str | Path,
    num_images: int,
    seed: int,
    cutouts: str | os.PathLike | Sequence[str | os.PathLike],
    backgrounds: str | os.PathLike | None = None,
    *,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    image_size: int = 128,
    max_things: int = 4,
    num_workers: int = 2,
    no_target: bool = False,
    many: bool = False,
    progress: bool = True,
    dataset_name: str = "things",
) -> dict:
    """Write a data set of named cut-outs pasted on backgrounds, in the REFER layout.

    Args:
        output_dir: folder to create; an empty one is filled, any other raises FileExistsError.
        num_images: at least 8, so that no split is empty.
        seed: the same seed gives the same files, whatever the number of workers.
        cutouts: folder of cut-outs, or several; see `cutouts`.
        backgrounds: folder of pictures to paste on; without it backgrounds are drawn.
        synonyms: noun → other words for it.
        image_size: side of the square pictures in pixels, at least 64.
        max_things: most things in a picture, from 2 to 8.
        num_workers: processes that draw pictures; 1 draws in this process.
        no_target: also write grefs(unc).json, with expressions that are true of nothing.
        many: also write grefs(unc).json, with expressions that are true of several things.
        progress: show a progress bar.
        dataset_name: name of the folder of annotations.

    Returns the folder and the counts of `write_drawn_set`, the number of different nouns, and as left_out the nouns
    that no sentence can name → why.
    """
    check_numbers(output_dir, num_images, seed, image_size, num_workers)
    check_name(dataset_name, no_target or many)
    if not MIN_THINGS <= max_things <= MAX_THINGS:
        raise ValueError(f"max_things is {max_things}; give {MIN_THINGS} to {MAX_THINGS}.")
    folders = [cutouts] if isinstance(cutouts, (str, os.PathLike)) else list(cutouts)
    if not folders:
        raise ValueError("there is no folder of cut-outs; give one or more.")
    for noun, others in (synonyms or {}).items():
        if isinstance(others, str):
            raise ValueError(
                f"the synonyms of {describe(noun)} are a text; give a list, such as [{describe(others)}]."
            )
    found = [cutout for folder in folders for cutout in find_cutouts(folder)]
    library = Library(
        tuple(found),
        () if backgrounds is None else tuple(find_backdrops(backgrounds)),
        tuple((clean_noun(noun), tuple(words)) for noun, words in (synonyms or {}).items()),
    )
    by_noun, words = _sort_out(library)
    if not by_noun:
        raise ValueError(f"none of the {len(found)} cut-outs can be named: {next(iter(words.left_out.values()))}.")
    for backdrop in library.backdrops:
        if all(noun in backdrop.nouns or words.is_confused(noun, backdrop.nouns) for noun in by_noun):
            raise ValueError(
                f"{shorten(backdrop.path)} shows things of every noun, so that none can be pasted on it; leave it out."
            )
    make = partial(
        make_picture,
        library=library,
        seed=seed,
        image_size=image_size,
        max_things=max_things,
        no_target=no_target,
        many=many,
        dataset_name=dataset_name,
    )
    counts = write_drawn_set(
        output_dir,
        make,
        num_images,
        info={"description": "compositions of cut-outs", "version": GENERATOR_VERSION, "seed": seed},
        categories={noun: of_noun[0].group or "thing" for noun, of_noun in by_noun.items()},
        image_size=image_size,
        num_workers=num_workers,
        is_generalized=no_target or many,
        progress=progress,
        dataset_name=dataset_name,
        first_image_id=FIRST_IMAGE_ID,
    )
    return counts | {"nouns": len(by_noun), "left_out": words.left_out}
