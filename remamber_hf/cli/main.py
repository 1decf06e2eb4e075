# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
The command `remamber`: a table of commands, each imported when it is called, and bad input as one line and status 2.

The page that lists the commands comes from the table alone, before PyTorch or transformers are imported.
"""

import os
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from safetensors import SafetensorError
from typer.core import TyperGroup

import remamber_hf

from ..inference.memory import keep_freed_memory
from ..messages import printable


@dataclass(frozen=True)
class Command:
    """
    A command: `module` of this folder and `function` in it, and what the page that lists it says.

    A command that `reads_all` gets its arguments as they are, --help too.
    """

    module: str
    function: str
    help: str
    reads_all: bool = False


COMMANDS = {
    "segment": Command("segment", "segment", "Segment what expressions mean, in one picture or in many."),
    "convert": Command(
        "convert",
        "convert",
        "Convert a published checkpoint (ReMamber_Conv, ReMamber_Mamba, VMamba, Vim) to a Hugging Face folder.",
    ),
    "evaluate": Command(
        "evaluate",
        "evaluate",
        "Score a model on every split of a data set: the papers' table, beside the published figures.",
    ),
    "compare": Command(
        "compare",
        "compare",
        "Compare saved results: differences of scores with their intervals, by a paired bootstrap over pictures.",
    ),
    "table": Command(
        "table",
        "table",
        "Make a paper's table of saved results and published ones: Markdown, LaTeX or CSV.",
    ),
    "profile": Command(
        "profile",
        "profile",
        "Show a model's parameters, FLOPs, latency and memory, at one size of the picture or several.",
    ),
    "env": Command(
        "env",
        "env",
        "Show versions, the scan backends that can run here, how to get the others, and what `auto` takes.",
    ),
    "train": Command(
        "train",
        "train",
        "Train on a REFER data set: [RECIPE.yaml] [--name value …]; `remamber train --help` lists all.",
        reads_all=True,
    ),
}
DATA_COMMANDS = {
    "synthesize": Command(
        "data",
        "synthesize",
        'Render pictures of coloured shapes with expressions, as a REFER data set called "shapes".',
    ),
    "compose": Command(
        "compose", "compose", "Paste named cut-outs on backgrounds, with expressions, as a REFER data set."
    ),
    "from-coco": Command(
        "from_coco",
        "from_coco",
        "Derive expressions for pictures with boxes and masks in COCO format, true by geometry.",
    ),
    "check": Command(
        "data", "check", "Check data sets: counts against the published ones, every picture, every polygon."
    ),
    "preview": Command(
        "data", "preview", "Write a contact sheet of random samples, each with its mask and its expressions."
    ),
    "stats": Command(
        "data_stats", "stats", "Count sentences, their words and tokens, words of place, and where the masks lie."
    ),
    "export": Command("data", "export", "Write a data set anew: as Parquet or as a REFER folder."),
}
ARGUMENTS = "remamber_hf.arguments"  # what was typed behind `remamber`, among the facts that a context holds
READS_ALL = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
# Of safetensors (too large, full, over the quota) and of torch.save.
FAILED_WRITE = ("(os error 27)", "(os error 28)", "(os error 122)", "PytorchStreamWriter failed", "unexpected pos")
# Between two operations the threads of PyTorch's OpenMP wait by spinning. Where other programs want the cores too, the
# one that all wait for then has none to run on. OpenMP reads this when it is loaded, which is when PyTorch is.
WAIT_POLICY = "OMP_WAIT_POLICY"
SETS_WAITING = (WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")


class LazyGroup(TyperGroup):
    """Lists commands by what their table says, and imports the one that is called."""

    table: dict[str, Command]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        ctx.meta.setdefault(ARGUMENTS, list(args))  # the group above a group comes first
        name, command, rest = super().resolve_command(ctx, args)
        known = self.table.get(name or "")
        return name, command if known is None else load(known), rest


class FrontPage(LazyGroup):
    table = COMMANDS


class DataPage(LazyGroup):
    table = DATA_COMMANDS


def make_page(group: type[LazyGroup], help: str) -> typer.Typer:
    """The page that lists the commands of a group."""
    page = typer.Typer(help=help, cls=group, no_args_is_help=True, pretty_exceptions_enable=False)
    for name, command in group.table.items():
        page.command(name, help=command.help)(lambda: None)
    return page


def load(command: Command) -> Any:
    """Import a command, and make of its function what reads its arguments."""
    wait_without_spinning()
    if bound := os.environ.get("REMAMBER_MAX_PIXELS"):
        import_module("..pictures", __package__).set_max_pixels(bound)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    function = getattr(import_module(f".{command.module}", __package__), command.function)
    app.command(
        help=command.help if command.reads_all else None, context_settings=READS_ALL if command.reads_all else None
    )(function)
    return typer.main.get_command(app)


app = make_page(FrontPage, "ReMamber: referring image segmentation.")
app.add_typer(make_page(DataPage, "REFER data sets."), name="data")


def print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"remamber_hf {remamber_hf.__version__}")
        raise typer.Exit


@app.callback(cls=FrontPage, no_args_is_help=True)
def answer_version(
    is_asked: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: a ValueError or OSError is bad input, said in one line; anything else is a bug and shows where."""
    keep_freed_memory()
    show_all_letters()
    warnings.filterwarnings("ignore", module="PIL")  # about a damaged picture there is one line of ours
    try:
        app(prog_name="remamber")
    except BrokenPipeError:  # who reads the output has enough, as `head` has
        leave_pipe()
    except (FileExistsError, NotADirectoryError) as error:
        message = str(error)
        if error.filename:
            path = Path(error.filename)
            path = next((folder for folder in (path, *path.parents) if folder.exists()), path)
            message = f"{path} is a file where a folder is needed; give another."
    except bad_input() as error:
        message = str(error)
    except (RuntimeError, SafetensorError) as error:
        if not is_failed_write(error):
            raise
        message = f"a file could not be written, is the disk full? ({str(error)[:300]})"
    else:
        return
    print(f"remamber: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


def bad_input() -> tuple[type[Exception], ...]:
    """What bad input raises: of Pillow, if it was imported, what it has for a picture of more pixels than are read."""
    pillow = sys.modules.get("PIL.Image")
    bombs = () if pillow is None else (pillow.DecompressionBombError, pillow.DecompressionBombWarning)
    return (ValueError, OSError, *bombs)


def wait_without_spinning() -> None:
    """Have the threads of OpenMP sleep while they wait, unless the user says how they are to."""
    if not any(name in os.environ for name in SETS_WAITING):
        os.environ[WAIT_POLICY] = "PASSIVE"


def is_failed_write(error: Exception) -> bool:
    """Whether a library says in an error of its own that the system took no more of a file."""
    return any(words in str(error) for words in FAILED_WRITE)


def show_all_letters() -> None:
    """Have letters that the terminal's encoding lacks printed as escapes: no report fails because of one."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def leave_pipe() -> None:
    """End without a word, also when Python flushes what is left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    sys.exit(1)
