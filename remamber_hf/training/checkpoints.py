# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole or not there: written aside, listed in a manifest, and only then given their name."""

import dataclasses
import hashlib
import json
import os
import reprlib
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints
from transformers.utils import logging


logger = logging.get_logger(__name__)

STAGING = "_unfinished"  # the leading underscore keeps it out of what the Trainer pushes to the Hub
MANIFEST = "complete.json"
PROGRESS = "progress.json"
PROGRESS_TYPES = {"loss_since_log": float, "last_logged_step": int, "nonfinite_steps": int, "nonfinite_in_a_row": list}
# Endings of the files that are read from a checkpoint.
READ_ENDINGS = (".bin", ".json", ".pt", ".pth", ".safetensors")
WEIGHT_ENDINGS = (".bin", ".safetensors")


def publish(staged: Path, final: Path):
    """
    Give the folder `staged` its name `final`, with a manifest of its files and after all is on the disk.

    A process that is killed on the way leaves `final` as it was, or absent.
    """
    write_manifest(staged)
    for path in files_in(staged):
        flush(path)
    if final.exists():  # a run that was resumed from further back comes by again
        final.rename(staged.with_name("replaced"))  # and goes with the folder of what is unfinished
    staged.rename(final)
    flush(final.parent)


def rotate(run_dir: Path, limit: int | None, best: str | None):
    """
    Remove the oldest checkpoints of a folder but for `limit` of them, for the newest and for `best`.

    As transformers' `rotate_checkpoints` does it, but each loses its name before its files: half of one that a killed
    process left would be the one that was changed last, and outlive those that are whole.
    """
    if limit is None or limit <= 0:
        return
    oldest_first = sort_checkpoints(str(run_dir), use_mtime=True)
    kept = {*oldest_first[-1:], *([] if best is None else [str(Path(best))])}
    others = [checkpoint for checkpoint in oldest_first if checkpoint not in kept]
    for checkpoint in others[: max(0, len(oldest_first) - max(limit, len(kept)))]:
        (run_dir / STAGING).mkdir(exist_ok=True)
        Path(checkpoint).rename(run_dir / STAGING / Path(checkpoint).name)
    shutil.rmtree(run_dir / STAGING, ignore_errors=True)


def write_manifest(folder: Path):
    """Write down size and checksum of every file of a folder, in that folder."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": checksum(path)}
        for path in files_in(folder)
        if path.name != MANIFEST
    }
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    """Why a checkpoint cannot be used, or None if it is whole; nothing of it is loaded."""
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return f"it has no {MANIFEST}, which is written last"
    try:
        files = read_json(manifest)
    except ValueError:
        return f"its {MANIFEST} is cut off"
    files = files.get("files") if isinstance(files, dict) else None
    if not isinstance(files, dict):
        return f"its {MANIFEST} names no files with checksums"
    present = {path.relative_to(checkpoint).as_posix() for path in files_in(checkpoint)} - {MANIFEST}
    reason = what_is_unnamed(files, present)
    if reason is not None:
        return reason
    for name, entry in files.items():
        if name not in present:
            return f"{_shown(name)} is missing"
        path = checkpoint / name
        size, digest = (entry.get("bytes"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        if path.stat().st_size != size:
            return f"{_shown(name)} has {path.stat().st_size} bytes of {reprlib.repr(size)}"
        if checksum(path) != digest:
            return f"{_shown(name)} is not what was written, its checksum is another"
    return what_is_wrong(checkpoint)


def what_is_unnamed(files: dict, present: set[str]) -> str | None:
    """What a manifest would have to name and does not."""
    needed = [TRAINER_STATE_NAME, PROGRESS]
    if OPTIMIZER_NAME in present | files.keys():  # without: weights alone, or an optimizer in parts
        needed += [OPTIMIZER_NAME, SCHEDULER_NAME]
        if not any(name.startswith("rng_state") for name in files):
            return f"its {MANIFEST} does not name rng_state.pth"
        if not any(name.endswith(WEIGHT_ENDINGS) and not name.startswith("ema") for name in files):
            return f"its {MANIFEST} names no weights"
    needed += sorted(name for name in present if name.endswith(READ_ENDINGS) and not Path(name).name.startswith("."))
    for name in needed:
        if name not in files:
            return f"its {MANIFEST} does not name {_shown(name)}"
    return None


def what_is_wrong(checkpoint: Path) -> str | None:
    """What in the state and the counts of a checkpoint no run has written, or None."""
    try:
        state = read_json(checkpoint / TRAINER_STATE_NAME)
        progress = read_json(checkpoint / PROGRESS)
    except ValueError as error:
        return str(error)
    hints = {field.name: field.type for field in dataclasses.fields(TrainerState)}
    if not isinstance(state, dict) or not state.keys() <= hints.keys():
        return f"{TRAINER_STATE_NAME} is not the state of a run"
    for name, value in state.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        kind = str(hints[name])
        if (hints[name] in (int, float) and not (is_number and 0 <= value < 2**63)) or (
            (hints[name] is bool and not isinstance(value, bool))
            or (name == "global_step" and not isinstance(value, int))
            or ("None" in kind and "int" in kind and not (value is None or isinstance(value, (int, dict))))
            or (name == "best_metric" and not (value is None or is_number))
            or (name == "best_model_checkpoint" and not (value is None or isinstance(value, str)))
            or (name == "stateful_callbacks" and not isinstance(value, (dict, type(None))))
        ):
            return f"{name} in {TRAINER_STATE_NAME} is {reprlib.repr(value)}"
    if "global_step" not in state:
        return f"{TRAINER_STATE_NAME} has no global_step"
    log = state.get("log_history")
    if not isinstance(log, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("step"), int) and all(map(is_plain, entry.values()))
        for entry in log
    ):
        return f"log_history in {TRAINER_STATE_NAME} is no list of logged steps"
    if not isinstance(progress, dict):
        return f"{PROGRESS} is not that of a run"
    for name, progress_type in PROGRESS_TYPES.items():
        entry: Any = progress.get(name)
        types = (int, float) if progress_type is float else (progress_type,)
        is_right = isinstance(entry, types) and not isinstance(entry, bool)
        if not is_right or (progress_type is int and entry < 0):
            return f"{name} in {PROGRESS} is {reprlib.repr(entry)}"
    return None


def is_plain(value) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def read_json(path: Path):
    """The content of a JSON file; ValueError, with the name of the file, if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON that can be read ({reprlib.repr(str(error))})") from None


def _shown(value) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) < 80 else reprlib.repr(value)


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
