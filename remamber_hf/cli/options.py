# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have, and where they print tables."""

import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..files import STANDARD, make_whole_file
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


def read_size(text: str) -> int | list[int]:
    """SIDE or HEIGHTxWIDTH as numbers."""
    if not re.fullmatch(r"\d{1,6}(x\d{1,6})?", text, re.ASCII):
        raise ValueError(f"--image_size is {text!r}; give a side or a height and width in pixels, as 224 or 480x640.")
    sides = [int(side) for side in text.split("x")]
    return sides[0] if len(sides) == 1 else sides


def check_output(output: Path | None) -> None:
    """ValueError or PermissionError where no file can be written: before hours of work, not after."""
    if output is None or output == STANDARD:
        return
    if output.is_dir():
        raise ValueError(f"{output} is a folder; give the name of a file.")
    if output.exists() and not output.is_file():  # a file would take the place of a device
        raise ValueError(f"{output} is no regular file; give the name of one, or leave the option out to print.")
    above = next(folder for folder in output.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{above} is a file where a folder is needed; give another.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"{above} is a folder that this user may not write to; give another.")


def write_text(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file that is there whole or not at all."""
    if output is None or output == STANDARD:
        typer.echo(text, nl=False)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    with make_whole_file(output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    typer.echo(f"written: {output}")


Output = Annotated[Path | None, typer.Option(help="File to write.", show_default="to the terminal")]
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
