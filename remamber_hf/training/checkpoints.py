# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Checkpoints that are whole or not there: written aside, listed in a manifest, and only then given their name."""

import json
import os
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging


logger = logging.get_logger(__name__)

STAGING = "_unfinished"  # the leading underscore keeps it out of what the Trainer pushes to the Hub
MANIFEST = "complete.json"


def publish(staged: Path, final: Path):
    """
    Give the folder `staged` its name `final`, with a manifest of its files and after all is on the disk.

    A process that is killed on the way leaves `final` as it was, or absent.
    """
    sizes = {str(path.relative_to(staged)): path.stat().st_size for path in files_in(staged)}
    (staged / MANIFEST).write_text(json.dumps({"bytes": sizes}, indent=1) + "\n")
    for path in files_in(staged):
        flush(path)
    if final.exists():  # a run that was resumed from further back comes by again
        final.rename(staged.with_name("replaced"))  # and goes with the folder of what is unfinished
    staged.rename(final)
    flush(final.parent)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flush(path: Path):
    """Have the file or folder written to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def what_is_missing(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used, or None if it is whole."""
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return f"it has no {MANIFEST}, which is written last"
    try:
        sizes = json.loads(manifest.read_text())["bytes"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return f"its {MANIFEST} is cut off"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes of {size}"
    return None


def require_whole(checkpoint: str | os.PathLike):
    """
    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if files of the checkpoint are missing or cut off.
    """
    if not Path(checkpoint).is_dir():
        raise FileNotFoundError(f"{checkpoint} is no folder; give a checkpoint, or true for the newest one.")
    reason = what_is_missing(Path(checkpoint))
    if reason is not None:
        raise ValueError(f"{checkpoint} is not a whole checkpoint: {reason}. Resume from one before it.")


def checkpoints_in(folder: str | os.PathLike) -> dict[int, Path]:
    """The checkpoints of a folder by their step, whole or not."""
    steps = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if path.is_dir() and step.isdecimal():
            steps[int(step)] = path
    return steps


def require_no_checkpoint(folder: str | os.PathLike):
    """ValueError if a folder has checkpoints: a later resume would take those of the other run for this one's."""
    steps = checkpoints_in(folder)
    if steps:
        raise ValueError(
            f"{folder} holds {steps[max(steps)].name} of another run; give --resume_from_checkpoint true to go on "
            "with that, or another --output_dir."
        )


def newest_whole_checkpoint(folder: str | os.PathLike) -> str | None:
    """
    The checkpoint of most steps that is whole; None if the folder has no checkpoint at all.

    Raises:
        ValueError: if there are checkpoints, and none of them is whole.
    """
    steps = checkpoints_in(folder)
    for step in sorted(steps, reverse=True):
        reason = what_is_missing(steps[step])
        if reason is None:
            return str(steps[step])
        logger.warning(f"{steps[step]} is passed over: {reason}.")
    if steps:
        raise ValueError(f"None of the {len(steps)} checkpoints in {folder} is whole; start anew, in another folder.")
    return None
