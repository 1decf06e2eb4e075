# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have, and where they print tables."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..inference.devices import DEVICES, DTYPES
from .main import ARGUMENTS


DEVICE_NAMES = ("auto", *DEVICES)
DTYPE_NAMES = ("auto", *DTYPES)
MIN_WIDTH = 100  # columns of a table that goes to a file


def make_console() -> Console:
    """Where tables are printed: as wide as the terminal."""
    console = Console()
    console.width = console.width if console.is_terminal else max(console.width, MIN_WIDTH)
    return console


def complete(*values: str):
    """A shell completion of these values."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def command_line(context: typer.Context | None) -> str | None:
    """What was typed, where a command runs with this context; None where it is called from Python."""
    arguments = None if context is None else context.meta.get(ARGUMENTS)
    return None if arguments is None else shlex.join(["remamber", *arguments])


DataDir = Annotated[
    Path,
    typer.Option("--data_dir", "--data-dir", help="Folder of the data sets and the pictures, or of your own data."),
]
Dataset = Annotated[str | None, typer.Option(help="Such as refcoco; by default what is there.")]
Generalized = Annotated[
    bool, typer.Option("--generalized", help="Read grefs(...).json, as is always done for grefcoco.")
]
Sentences = Annotated[
    str, typer.Option(help='Text of a REFER set: "sent", as it was cleaned, or "raw", as it was written.')
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=complete(*DEVICE_NAMES),
        help=f"Where to compute: {', '.join(DEVICE_NAMES)}; cuda:1 is the second of several.",
    ),
]
