# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber table`, and the options of those that print tables of saved results."""

from pathlib import Path
from typing import Annotated

import typer

from ..evaluation.comparison import ALL, make_paper_table, read_entries
from ..evaluation.tables import TABLE_FORMATS, Table
from .options import Output, check_output, write_text


Models = Annotated[
    list[str],
    typer.Argument(
        help="Folders of `remamber evaluate --output_dir`: FOLDER, NAME=FOLDER, or NAME=FOLDER,FOLDER for seeds."
    ),
]
Scores = Annotated[
    str | None,
    typer.Option(help=f"Such as oiou,miou; names of results.json, or {ALL}.", show_default="those that papers print"),
]
Format = Annotated[str, typer.Option(help=f"One of {', '.join(TABLE_FORMATS)}; LaTeX needs the package booktabs.")]


def table(
    models: Models,
    scores: Scores = None,
    format: Format = "markdown",
    output: Output = None,
    has_published: Annotated[
        bool, typer.Option("--published/--no-published", help="Whether published figures stand beside.")
    ] = True,
) -> None:
    """
    Make a paper's table of saved results and published ones: Markdown, LaTeX or CSV.

    A row per model and a column per split. Folders with commas between them are seeds or data sets of one model.

    Example: remamber table ours=results/refcoco,results/refcocog --scores oiou --format latex
    """
    check_format(format)
    check_output(output)
    names = None if scores is None else names_of(scores)
    write(make_paper_table(read_entries(models), names, has_published), format, output)


def check_format(format: str) -> None:
    if format not in TABLE_FORMATS:
        raise ValueError(f"--format is {format!r}; choose one of {', '.join(TABLE_FORMATS)}.")


def names_of(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def write(table: Table, format: str, output: Path | None) -> None:
    """Print a table, or write it to a file that is there whole or not at all."""
    write_text(TABLE_FORMATS[format](table), output)
