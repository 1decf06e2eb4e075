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
"""Files and folders that are there whole or not at all."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image


STANDARD = Path("-")  # stands for standard input or output


def check_new_folder(folder: str | Path) -> None:
    """FileExistsError unless a folder can be made there: nothing is there, or an empty folder."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder; give a new folder or remove it.")


@contextmanager
def make_whole_folder(folder: str | Path) -> Iterator[Path]:
    """
    A folder to fill beside `folder`, which it becomes if all goes well; else it is gone.

    Raises:
        FileExistsError: as `check_new_folder`.
    """
    check_new_folder(folder)
    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def make_whole_file(path: Path) -> Iterator[Path]:
    """A path to write to beside `path`, which it becomes if all goes well; else it is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(unfinished)
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, path)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all, in the format that the name's ending says; to standard output as PNG."""
    if path == STANDARD:
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        sys.stdout.buffer.write(buffer.getvalue())
        return
    with make_whole_file(path) as unfinished:
        picture.save(unfinished)
