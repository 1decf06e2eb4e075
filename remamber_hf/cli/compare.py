# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber compare`."""

from pathlib import Path
from typing import Annotated

import typer

from ..evaluation.bootstrap import NUM_DRAWS, SEED
from ..evaluation.comparison import compare as compare_entries
from ..evaluation.comparison import find_left_out, read_entries
from ..evaluation.contrast import draw_contrast, find_pair
from ..evaluation.samples import PARTS
from ..files import save_picture
from .options import Output, check_output
from .table import Format, Models, Scores, check_format, names_of, write


MOST_DRAWS = 1_000_000  # more are drawn for hours, and change no digit that is printed
By = Annotated[str, typer.Option(help=f"Parts of a split, names with commas between: {', '.join(PARTS)}; or none.")]
NumDraws = Annotated[int, typer.Option("--num_draws", "--num-draws", help="Of the bootstrap.")]
Seed = Annotated[int, typer.Option(help="Of the bootstrap; the same seed gives the same interval.")]
Sheet = Annotated[
    Path | None,
    typer.Option(help="Picture to write: where the first two models differ most, with the masks of --save_masks."),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data_dir", "--data-dir", help="For --sheet: the folder of the data that was evaluated on."),
]
NumSamples = Annotated[
    int, typer.Option("--num_samples", "--num-samples", help="For --sheet: as many losses, and as many gains.")
]


def compare(
    models: Models,
    scores: Scores = None,
    by: By = "target_kind,kind",
    num_draws: NumDraws = NUM_DRAWS,
    seed: Seed = SEED,
    format: Format = "markdown",
    output: Output = None,
    sheet: Sheet = None,
    data_dir: DataDir = None,
    num_samples: NumSamples = 4,
) -> None:
    """
    Compare saved results: differences of scores with their intervals, by a paired bootstrap over pictures.

    Each model is compared with the first. Folders with commas between them are seeds of one model.

    Example: remamber compare baseline=results/a,results/b ours=results/c,results/d
    """
    check_format(format)
    columns = [] if by == "none" else names_of(by)
    for column in columns:
        if column not in PARTS:
            raise ValueError(f"--by is {column!r}; choose from {', '.join(PARTS)}, or none.")
    for name, value, least in (("num_draws", num_draws, 100), ("num_samples", num_samples, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"--{name} is {value}; give at least {least}.")
    if num_draws > MOST_DRAWS:
        raise ValueError(f"--num_draws is {num_draws}; give at most {MOST_DRAWS}.")
    check_output(output)
    check_output(sheet)
    entries = read_entries(models)
    for line in find_left_out(entries):
        typer.echo(line, err=True)
    table = compare_entries(entries, None if scores is None else names_of(scores), columns, num_draws, seed)
    picture = None
    if sheet is not None:
        first, second = entries[:2]
        names = (first.name, second.name)
        picture = draw_contrast(*find_pair(first, second), names, data_dir, num_samples)
    write(table, format, output)
    if picture is not None and sheet is not None:
        save_picture(picture, sheet)
        typer.echo(f"written: {sheet}", err=output is None)
