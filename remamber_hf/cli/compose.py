# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber data compose`."""

from pathlib import Path
from typing import Annotated

import typer

from ..messages import describe
from ..synthetic import compose as compositions
from .from_coco import read_synonyms


def compose(
    output_dir: Annotated[Path, typer.Argument(help="Folder to make.")],
    cutouts: Annotated[
        list[Path],
        typer.Option(
            help="Folder of cut-outs: PNG or WebP with an alpha channel, called as what they show, or named in "
            "nouns.tsv. May be given several times."
        ),
    ],
    images: Annotated[int, typer.Option(help="Number of pictures.")],
    backgrounds: Annotated[
        Path | None, typer.Option(help="Folder of pictures to paste on; without it backgrounds are drawn.")
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="YAML file of further words for nouns, as in `dog: [puppy, hound]`.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    image_size: Annotated[
        int, typer.Option("--image_size", "--image-size", help="Side of the pictures, in pixels.")
    ] = 128,
    max_things: Annotated[
        int, typer.Option("--max_things", "--max-things", help="Most things in a picture, 2 to 8.")
    ] = 4,
    no_target: Annotated[
        bool, typer.Option("--no_target", "--no-target", help="Also write grefs(unc).json, with untrue expressions.")
    ] = False,
    many: Annotated[
        bool, typer.Option("--many", help="Also write grefs(unc).json, with expressions about several things.")
    ] = False,
    dataset_name: Annotated[
        str, typer.Option("--dataset_name", "--dataset-name", help="Name of the written set.")
    ] = "things",
):
    """Paste named cut-outs on backgrounds, with expressions, as a REFER data set."""
    counts = compositions.compose(
        output_dir,
        images,
        seed,
        cutouts,
        backgrounds,
        synonyms=None if synonyms is None else read_synonyms(synonyms),
        image_size=image_size,
        max_things=max_things,
        no_target=no_target,
        many=many,
        dataset_name=dataset_name,
    )
    for noun, reason in counts["left_out"].items():
        typer.echo(f"left out: {describe(noun)} {reason}")
    typer.echo(
        f"written: {output_dir}, {counts['images']} pictures, {counts['nouns']} nouns, {counts['sentences']} sentences"
    )
