# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The commands `remamber data synthesize | check | preview | export`: thin, the work is in `data/`."""

from pathlib import Path
from typing import Annotated

import datasets
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..data.check import CheckResult, check_data
from ..data.export import export_parquet
from ..data.mixture import load_one
from ..data.published import SplitCount
from ..data.refer_writer import export_refer, name_for
from ..data.rows import TARGET_KINDS, row_mask
from ..files import save_picture
from ..inference.visualization import Sample, draw_sheet
from ..messages import describe, shorten
from ..pictures import to_rgb
from ..synthetic.dataset import synthesize as synthesize_scenes
from .options import DataDir, Dataset, Generalized, Sentences, complete


SplitBy = Annotated[
    str | None,
    typer.Option("--split_by", "--split-by", help="Such as unc, umd or authors; by default what is there."),
]
OnError = Annotated[
    str, typer.Option("--on_error", "--on-error", help='"skip" leaves out what is wrong, "raise" stops there.')
]
OwnDataDir = Annotated[
    Path | None,
    typer.Option(
        "--data_dir",
        "--data-dir",
        help="Folder of the data sets and the pictures, or of your own data; without it --dataset names a data set of "
        "the Hub or a folder of Parquet.",
    ),
]
EXPORT_FORMATS = ("parquet", "refer")
SHEET_COLUMNS = 4
COUNTED = ("refs", "images", "sentences")
UNKNOWN = "-"


def synthesize(
    output_dir: Annotated[Path, typer.Argument(help="Folder to make.")],
    images: Annotated[int, typer.Option(help="Number of pictures.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    image_size: Annotated[
        int, typer.Option("--image_size", "--image-size", help="Side of the pictures, in pixels.")
    ] = 128,
    style: Annotated[
        str, typer.Option(help="rich: textures, overlaps, relations; or plain: flat shapes apart from each other.")
    ] = "rich",
    no_target: Annotated[
        bool, typer.Option("--no_target", "--no-target", help="Also write grefs(unc).json, with untrue expressions.")
    ] = False,
    many: Annotated[
        bool, typer.Option("--many", help="Also write grefs(unc).json, with expressions about several objects.")
    ] = False,
):
    """Render pictures of coloured shapes with expressions, as a REFER data set called "shapes"."""
    summary = synthesize_scenes(
        output_dir, images, seed, image_size=image_size, style=style, no_target=no_target, many=many
    )
    typer.echo(f"written: {output_dir}, {summary['images']} pictures, {summary['sentences']} sentences")


def check(data_dir: DataDir, dataset: Dataset = None, split_by: SplitBy = None):
    """
    Check data sets: counts against the published ones, every picture, every polygon.

    Exits with 1 if something is wrong, and says which archive is missing and where it belongs.
    """
    console = Console(highlight=False, soft_wrap=True)
    results = check_data(data_dir, dataset, split_by)
    for result in results:
        print_result(console, result)
    if not all(result.is_good for result in results):
        raise typer.Exit(1)


def preview(
    data_dir: DataDir,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    split: Annotated[str | None, typer.Option(help="Such as val; by default all of them.")] = None,
    output: Annotated[Path, typer.Option(help="Picture to write.")] = Path("preview.png"),
    num_samples: Annotated[int, typer.Option("--num_samples", "--num-samples", help="Samples to draw.")] = 12,
    seed: Annotated[int, typer.Option(help="The same seed draws the same samples.")] = 0,
    generalized: Generalized = False,
    on_error: OnError = "raise",
    sentences: Sentences = "sent",
):
    """Write a contact sheet of random samples, each with its mask and its expressions."""
    if num_samples < 1:
        raise ValueError(f"--num_samples is {num_samples}; give at least 1.")
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{output} names no picture format; end it in .png or .jpg.")
    source = load_one(dataset, split_by, data_dir, on_error, generalized, sentences)
    data = source.splits
    if split is not None and split not in data:
        raise ValueError(f"There is no split {describe(split)}; the splits are {', '.join(data)}.")
    rows = datasets.concatenate_datasets([data[name] for name in data if split in (None, name)])
    if not len(rows):
        raise ValueError(f"{source} holds no row; there is nothing to draw.")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:num_samples]
    samples = []
    for row in rows.select(chosen):
        mask = row_mask(row)
        title = f"{row['split']}, ref {row['ref_id']}" + ("" if mask.any() else ", means nothing here")
        samples.append(Sample(to_rgb(row["image"]), mask, title, row["sentences"]))
    save_picture(draw_sheet(samples, min(SHEET_COLUMNS, len(samples))), output)
    typer.echo(f"written: {output}, {len(samples)} of {len(rows)} rows")


def export(
    output_dir: Annotated[Path, typer.Option("--output_dir", "--output-dir", help="Folder to make.")],
    data_dir: OwnDataDir = None,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    generalized: Generalized = False,
    on_error: OnError = "raise",
    sentences: Sentences = "sent",
    written_format: Annotated[
        str, typer.Option("--format", autocompletion=complete(*EXPORT_FORMATS), help=f"{' or '.join(EXPORT_FORMATS)}.")
    ] = "parquet",
    dataset_name: Annotated[
        str | None,
        typer.Option(
            "--dataset_name",
            "--dataset-name",
            help="Only with --format refer: name of the written set, by default the source's. LAVT, CRIS and ReLA "
            "read refcoco, refcoco+ and refcocog, and ReLA grefcoco where a sentence may mean nothing or several.",
        ),
    ] = None,
    polygons: Annotated[
        bool,
        typer.Option(
            "--polygons",
            help="Only with --format refer: write all masks as polygons, pixel for pixel the same, for readers that "
            "know no RLE, as ReLA's training.",
        ),
    ] = False,
):
    """
    Write a data set anew: as Parquet or as a REFER folder.

    parquet: pictures and masks inside, for `push_to_hub` and for `load_dataset` without this package.

    refer: instances.json, refs(...).p or grefs(...).json and pictures, for refer.py and all that read by it.
    """
    if written_format not in EXPORT_FORMATS:
        raise ValueError(f"--format is {describe(written_format)}; choose one of {', '.join(EXPORT_FORMATS)}.")
    if written_format == "parquet" and (dataset_name is not None or polygons):
        option = "--polygons" if dataset_name is None else "--dataset_name"
        raise ValueError(f"{option} is for --format refer; give that, or leave {option} out.")
    source = load_one(dataset, split_by, data_dir, on_error, generalized, sentences)
    if written_format == "refer":
        name = name_for(source.name, source.splits) if dataset_name is None else dataset_name
        counts = export_refer(source.splits, output_dir, name, source.split_by, polygons_only=polygons)
    else:
        counts = export_parquet(source.splits, output_dir, title=str(source))
    for split, num_rows in counts.items():
        typer.echo(f"{split}: {num_rows} rows")
    typer.echo(f"written: {output_dir}")


def print_result(console: Console, result: CheckResult) -> None:
    """Print a table of the splits, then a line for each thing that was mended, is wrong or is missing."""
    console.print(Text(shorten(result.name), "bold"))
    if result.counts:
        console.print(make_table(result))
    if result.mended_polygons:
        console.print(Text(f"mended: {result.mended_polygons} × polygon under 3 points, covers nothing, left out"))
    for note in result.notes:
        console.print(Text(f"noted: {note}"))
    for problem in result.problems.values():
        pictures = f"{problem.pictures} pictures, refs: " if problem.pictures else ""
        line = f": {problem.kind}: {pictures}{problem.count}; first: {problem.first}"
        console.print(Text.assemble(("wrong", "red"), line))
    if result.counts:
        for split in result.splits:
            if result.agrees(split) is False:
                console.print(Text.assemble(("wrong", "red"), f": {split} has other counts than published"))
    for archive in result.missing_archives:
        console.print(Text.assemble(("missing", "red"), f": {archive}"))
    if result.is_good:
        console.print(Text("all right", "green"))
    console.print()


def make_table(result: CheckResult) -> Table:
    """Lay out the counts of the splits, each beside the published one where there is any in its column."""
    table = Table("split")
    counts = [*result.counts.values(), *result.published.values()]
    kinds = [*COUNTED, *(kind for kind in TARGET_KINDS if any(hasattr(count, kind) for count in counts))]
    compared = {kind for kind in kinds for count in result.published.values() if _number(count, kind) != UNKNOWN}
    for kind in kinds:
        table.add_column(f"{kind} / published" if kind in compared else kind, justify="right", overflow="fold")
    for split in result.splits:
        found, published = result.counts.get(split), result.published.get(split)
        style = "red" if result.agrees(split) is False else None
        cells = [
            _number(found, kind) + (f" / {_number(published, kind)}" if kind in compared else "") for kind in kinds
        ]
        table.add_row(Text(split), *cells, style=style)
    return table


def _number(count: SplitCount | None, kind: str) -> str:
    number = None if count is None else getattr(count, kind, None)
    return UNKNOWN if number is None else str(number)
