# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
The command `remamber` as it is installed: its front page, and the way to the commands in `remamber_hf/cli.py`.

It stands beside the package, for importing the package imports PyTorch and transformers, which takes seconds.
"""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer


# What each command of remamber_hf/cli.py says of itself; a test keeps the two equal.
COMMANDS = {
    "segment": "Segment what expressions mean, in one picture or in many.",
    "convert": (
        "Convert a published checkpoint (ReMamber_Conv, ReMamber_Mamba, VMamba ImageNet) to a Hugging Face folder."
    ),
    "evaluate": "Score a model on every split of a data set: the papers' table, beside the published figures.",
    "env": "Show versions, the scan backends that can run here, how to get the others, and what `auto` takes.",
    "train": "Train on a REFER data set: [RECIPE.yaml] [--name value …]; `remamber train --help` lists all.",
    "data": "REFER data sets.",
}

front_page = typer.Typer(help="ReMamber: referring image segmentation.", no_args_is_help=True)


def print_version(is_asked: bool):
    if is_asked:
        print(f"remamber_hf {version('remamber_hf')}")
        raise typer.Exit


@front_page.callback()
def answer_version(
    is_asked: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=print_version)
    ] = False,
):
    pass


for name, text in COMMANDS.items():
    front_page.command(name, help=text)(lambda: None)


# Between two operations the threads of PyTorch's OpenMP wait by spinning. Where other programs want the cores too, the
# one that all wait for then has none to run on. OpenMP reads this when it is loaded, which is when PyTorch is.
WAIT_POLICY = "OMP_WAIT_POLICY"
SETS_WAITING = (WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


def wait_without_spinning():
    """Have the threads of OpenMP sleep while they wait, unless the user says how they are to."""
    if not any(name in os.environ for name in SETS_WAITING):
        os.environ[WAIT_POLICY] = "PASSIVE"


def main():
    """Entry point: answers --help and --version itself, and leaves the rest to `remamber_hf.cli`."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # the page has lines that a terminal's encoding may lack
    if set(sys.argv[1:]) <= {"--help", "--version"}:
        return front_page(prog_name="remamber")
    wait_without_spinning()
    from remamber_hf.cli import main as run_command

    return run_command()


if __name__ == "__main__":
    main()
