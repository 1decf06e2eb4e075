# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber`: finds the subcommand and turns bad input into one line and exit status 2."""

import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import typer
from safetensors import SafetensorError

from .convert_checkpoint import convert
from .data.commands import COMMANDS as DATA_COMMANDS
from .environment import env
from .memory import keep_freed_memory
from .pictures import printable, set_max_pixels
from .run_evaluation import evaluate
from .run_training import main as run_training
from .segment import segment


# Of safetensors (too large, full, over the quota) and of torch.save.
FAILED_WRITE = ("(os error 27)", "(os error 28)", "(os error 122)", "PytorchStreamWriter failed", "unexpected pos")

app = typer.Typer(help="ReMamber: referring image segmentation.", no_args_is_help=True, pretty_exceptions_enable=False)
data_app = typer.Typer(help="REFER data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.command()(segment)
app.command()(convert)
app.command()(evaluate)
app.command()(env)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Train on a REFER data set: [RECIPE.yaml] [--name value …]; `remamber train --help` lists all.",
)
def train(context: typer.Context):
    run_training(context.args)


for name, command in DATA_COMMANDS.items():
    data_app.command(name)(command)


def main():
    """Entry point: a ValueError or OSError is bad input, said in one line; anything else is a bug and shows where."""
    keep_freed_memory()
    show_all_letters()
    warnings.filterwarnings("ignore", module="PIL")  # about a damaged picture there is one line of ours
    try:
        if bound := os.environ.get("REMAMBER_MAX_PIXELS"):
            set_max_pixels(bound)
        app()
    except BrokenPipeError:  # who reads the output has enough, as `head` has
        leave_pipe()
    except (FileExistsError, NotADirectoryError) as error:
        message = str(error)
        if error.filename:
            path = Path(error.filename)
            path = next((folder for folder in (path, *path.parents) if folder.exists()), path)
            message = f"{path} is a file where a folder is needed; give another."
    except (ValueError, OSError) as error:
        message = str(error)
    except (RuntimeError, SafetensorError) as error:
        if not is_failed_write(error):
            raise
        message = f"a file could not be written, is the disk full? ({str(error)[:300]})"
    else:
        return
    print(f"remamber: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


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


if __name__ == "__main__":
    main()
