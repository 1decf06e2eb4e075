# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Files and folders that are there whole or not at all.

What is being written has a hidden name beside the final one, `.NAME.remamber-XXXXXXXX`, and its writer holds a lock on
it, which the system lets go when the writer dies, however it dies. So what has such a name and no lock was left by a
writer that was killed, and the next one that writes NAME removes it.

Who may read what is written says the user's umask, as for files that `open` makes; a file that was there keeps its
permissions, and a link is followed.
"""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image


try:
    import fcntl
except ImportError:  # Windows, where nothing is locked and so nothing that was left is removed
    fcntl = None  # type: ignore[assignment]


STANDARD = Path("-")  # stands for standard input or output
MARK = ".remamber-"  # in the name of what is unfinished


def check_new_folder(folder: str | os.PathLike[str]) -> None:
    """FileExistsError unless a folder can be made there: nothing is there, or an empty folder."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder; give a new folder or remove it.")


@contextmanager
def make_whole_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """
    A folder to fill beside `folder`, which it becomes if all goes well; else it is gone.

    Raises:
        FileExistsError: as `check_new_folder`.
    """
    check_new_folder(folder)
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_left(folder.parent, folder.name)
    unfinished, lock = make_unfinished(Path.mkdir, folder.parent, folder.name)
    try:
        yield unfinished
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        let_go(lock)


@contextmanager
def make_whole_file(path: Path) -> Iterator[Path]:
    """
    A file to write to beside `path`, which it becomes if all goes well; else it is gone.

    Raises:
        ValueError: if `path` is a device or a pipe, whose place it would take.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is no regular file; give the name of one.")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path.parent, path.stem, path.suffix)
    unfinished, lock = make_unfinished(partial(Path.touch, exist_ok=False), path.parent, path.stem, path.suffix)
    try:
        yield unfinished
        if path.exists():
            shutil.copymode(path, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        let_go(lock)


def make_unfinished(
    make: Callable[[Path], None], parent: Path, stem: str, suffix: str = ""
) -> tuple[Path, int | None]:
    """Make what will be `stem + suffix` in `parent`, by `make`, which raises FileExistsError; and the lock on it."""
    while True:
        unfinished = parent / f".{stem}{MARK}{secrets.token_hex(4)}{suffix}"
        try:
            make(unfinished)
        except FileExistsError:
            continue
        lock = take_lock(unfinished)
        if unfinished.exists():  # else another writer came before the lock, and took it for left
            return unfinished, lock
        let_go(lock)


@contextmanager
def weights_as_umask_says(folder: str | os.PathLike[str]) -> Iterator[None]:
    """
    What is written inside in `folder` as *.safetensors gets the permissions of other files, and links are followed.

    safetensors itself makes files that nobody but their owner may read, and puts them in place of links.
    """

    def find() -> dict[Path, tuple[int, int]]:
        stats = {path: path.lstat() for path in Path(folder).glob("*.safetensors")}
        return {path: (stat.st_ino, stat.st_ctime_ns) for path, stat in stats.items()}

    before = find()
    links = {path: path.readlink() for path in before if path.is_symlink()}
    yield
    for path in (path for path, version in find().items() if version != before.get(path)):
        probe, lock = make_unfinished(partial(Path.touch, exist_ok=False), path.parent, path.stem)
        shutil.copymode(probe, path)
        probe.unlink()
        let_go(lock)
        if path in links:
            shutil.move(path, path.parent / links[path])
            path.symlink_to(links[path])


def take_lock(path: str | Path) -> int | None:
    """A descriptor that holds the lock on a file or folder until it is closed; None if it is held, or cannot be."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody's, or a file system without locks
        os.close(descriptor)
        return None
    return descriptor


def let_go(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def remove_left(parent: Path, stem: str, suffix: str = "") -> None:
    """Remove what writers of `stem + suffix` in `parent` left when they were killed; what is being written stays."""
    name = re.compile(re.escape(f".{stem}{MARK}") + "[a-z0-9_]{8}" + re.escape(suffix))
    with os.scandir(parent) as entries:
        left = [entry for entry in entries if name.fullmatch(entry.name)]
    for entry in left:
        lock = take_lock(entry.path)
        if lock is None:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)
        let_go(lock)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all, in the format that the name's ending says; to standard output as PNG."""
    if path == STANDARD:
        buffer = BytesIO()
        picture.save(buffer, "PNG")
        sys.stdout.buffer.write(buffer.getvalue())
        return
    with make_whole_file(path) as unfinished:
        picture.save(unfinished)
