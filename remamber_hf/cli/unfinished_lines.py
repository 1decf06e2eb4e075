# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""JSON Lines about many pictures that are kept when a run is interrupted, so that the next one goes on."""

import json
import os
from pathlib import Path
from typing import BinaryIO

from ..files import make_whole_file
from ..inference.loading import BUNDLED, find_model
from .tasks import Task


class UnfinishedLines:
    """
    JSON Lines that are kept beside their file until all are there, so that an interrupted run goes on.

    Each line of the file NAME.unfinished is [source, stamp, the JSON Lines about it]; the first says of which run.

    Args:
        path: of the file that they become.
        settings: what decides on the lines, besides the pictures and expressions.
    """

    def __init__(self, path: Path, settings: list):
        self.path = path
        self.unfinished = path.with_name(f"{path.name}.unfinished")
        self.first = json.dumps(["remamber segment", *settings]).encode() + b"\n"
        self.end = 0  # of what is kept, in bytes
        self.places: dict[str, int] = {}  # of each source's line, in bytes
        self.file: BinaryIO | None = None

    def read(self, tasks: list[Task]) -> set[str]:
        """The sources of which an interrupted run with the same settings has lines; pictures that changed are none."""
        if not self.unfinished.is_file() or self.unfinished.is_symlink():
            return set()
        stamps = {task.source: stamp_of(task) for task in tasks}
        with self.unfinished.open("rb") as file:
            if file.readline() != self.first:
                return set()
            self.end = file.tell()
            for line in file:
                try:
                    source, stamp, kept = json.loads(line)
                except (ValueError, TypeError, RecursionError):
                    break
                is_whole = line.endswith(b"\n") and isinstance(source, str) and isinstance(kept, list)
                if not is_whole or not all(isinstance(text, str) for text in kept):  # half-written, or not ours
                    break
                if stamps.get(source) == stamp:
                    self.places[source] = self.end
                self.end += len(line)
        return set(self.places)

    def add(self, task: Task, lines: list[str]) -> None:
        """Keep the lines about one picture."""
        file = self._open()
        line = json.dumps([task.source, stamp_of(task), lines]).encode() + b"\n"
        self.places[task.source] = self.end
        file.write(line)
        file.flush()
        self.end += len(line)

    def finish(self, tasks: list[Task]) -> None:
        """Write the file, whole, in the order of the tasks."""
        unfinished = self._open()
        with make_whole_file(self.path) as path, path.open("w", encoding="utf-8", newline="\n") as file:
            for task in tasks:
                if task.source in self.places:
                    unfinished.seek(self.places[task.source])
                    file.writelines(f"{line}\n" for line in json.loads(unfinished.readline())[2])
        unfinished.close()
        self.unfinished.unlink()

    def _open(self) -> BinaryIO:
        """The unfinished file, to be written at its end."""
        if self.file is not None:
            return self.file
        if self.end:
            self.file = self.unfinished.open("r+b")
            self.file.seek(self.end)
            self.file.truncate()
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.unfinished.unlink(missing_ok=True)
            self.file = self.unfinished.open("x+b")
            self.end = self.file.write(self.first)
        return self.file


def stamp_of_model(model: str | None) -> list:
    """The times at which the files of a model's folder were written."""
    folder = Path(find_model(model or BUNDLED))
    return sorted([path.name, path.stat().st_mtime_ns] for path in folder.glob("*.*")) if folder.is_dir() else []


def stamp_of(task: Task) -> list:
    """What tells whether the lines about a picture are still right: the expressions, and its file's size and time."""
    try:
        status = os.stat(task.source)
    except (OSError, ValueError):
        return [task.expressions, None, None]
    return [task.expressions, status.st_size, status.st_mtime_ns]
