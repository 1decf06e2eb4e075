# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What `remamber segment` is to do: which pictures and expressions, and which files to write of them."""

import csv
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import typer

from ..data.reading import decode_text, read_csv, read_regular_file
from ..files import STANDARD
from ..messages import describe_name, printable
from ..pictures import WEB, picture_endings


MANY_FOLDER = Path("segmented")


CSV_COLUMNS = ("file_name", "expression")  # those of `metadata.csv` in people's own data


MAX_NAMED = 5  # of the files that are left out


LONGEST_FILE_NAME = 255  # bytes, of each part of a path


LONGEST_NAME = 100  # letters of a web address that name a file


@dataclass(frozen=True)
class Format:
    """A kind of file to write: the endings it may have, the usual one first, and if each expression has its own."""

    endings: tuple[str, ...]
    is_per_expression: bool = False


FORMATS = {
    "overlay": Format((".png", ".jpg", ".jpeg", ".webp")),
    # without loss, so that a mask stays black and white
    "mask": Format((".png", ".bmp", ".tif", ".tiff"), is_per_expression=True),
    "cutout": Format((".png", ".webp", ".tif", ".tiff"), is_per_expression=True),  # with transparency
    "blur": Format((".png", ".jpg", ".jpeg", ".webp")),
    "explain": Format((".png", ".jpg", ".jpeg", ".webp"), is_per_expression=True),
    "json": Format((".jsonl", ".json")),
}


@dataclass(frozen=True)
class Task:
    """
    A picture and what is looked for in it.

    source: path, URL or "-". name: of the files to write, in their folder and without ending.
    """

    source: str
    name: Path
    expressions: list[str]


def read_tasks(inputs: list[str], expressions: list[str], from_csv: Path | None) -> tuple[list[Task], bool]:
    """
    What to do, from the arguments of the command, and whether it counts as many pictures.

    Args:
        inputs: a picture and expressions; with `expressions` or `from_csv`, only pictures or nothing.
        expressions: what to look for in each of `inputs`.
        from_csv: a file with the columns `CSV_COLUMNS`, or `STANDARD`; its paths start from its folder.

    Raises:
        ValueError: if a part is missing, empty or given twice.
        FileNotFoundError: if there is no such CSV file.
    """
    if from_csv is not None:
        if inputs or expressions:
            raise ValueError("--from-csv names pictures and expressions itself; leave out all others.")
        wanted = read_csv_tasks(from_csv)
        is_many = True
    else:
        if inputs and not expressions:
            inputs, expressions = inputs[:1], inputs[1:]
            files = [text for text in expressions if os.path.isfile(text)]
            if files:
                raise ValueError(f"{files[0]} is a file, no expression; with several pictures, use -e EXPRESSION.")
        if not inputs or not expressions:
            raise ValueError('give a picture and an expression, as in: remamber segment street.jpg "the left car"')
        pictures = [file for source in inputs for file in list_pictures(source)]
        wanted = dict.fromkeys(pictures, expressions)
        is_many = len(wanted) > 1 or any(map(os.path.isdir, inputs))
    for texts in wanted.values():
        for index, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"expression {index + 1} is empty; say which object is meant, as in 'the right dog'.")
    names = name_outputs(list(wanted))
    return [Task(source, name, texts) for (source, texts), name in zip(wanted.items(), names)], is_many


def list_pictures(source: str) -> list[str]:
    """
    The pictures right in a folder, sorted, and anything else as it is; ValueError if the folder has none.

    A picture is what has an ending of a format that is read. Hidden files are none, as those that macOS puts beside
    pictures (._a.png). What else is left out is named.
    """
    if not os.path.isdir(source):
        return [source]
    files = sorted(path for path in Path(source).iterdir() if not path.name.startswith(".") and not path.is_dir())
    found = [str(path) for path in files if path.suffix.lower() in picture_endings()]
    if not found:
        raise ValueError(f"the folder {source} has no pictures right in it, by their endings: .png, .jpg and others.")
    others = [printable(path.name) for path in files if path.suffix.lower() not in picture_endings()]
    if others:
        names = ", ".join(others[:MAX_NAMED]) + (" …" if len(others) > MAX_NAMED else "")
        typer.echo(f"remamber: note: {len(others)} files left out of {printable(source)}: {names}", err=True)
    return found


def read_csv_tasks(path: Path) -> dict[str, list[str]]:
    """The expressions of each picture that a CSV file names, in the order in which pictures first come up."""
    content = sys.stdin.buffer.read() if path == STANDARD else read_regular_file(path)
    text = decode_text(content, path)
    try:
        columns, lines = read_csv(text)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path} is not read: {error}") from None
    wanted: dict[str, list[str]] = {}
    missing = [name for name in CSV_COLUMNS if name not in columns]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; its first line must be {','.join(CSV_COLUMNS)}.")
    for line, row in lines:
        file, expression = (row[name] for name in CSV_COLUMNS)
        if not file or not (expression or "").strip():
            raise ValueError(f"line {line} of {path} lacks a file name or an expression.")
        if "\0" in file or (is_file_name(file) and max(map(len, os.fsencode(file).split(b"/"))) > LONGEST_FILE_NAME):
            raise ValueError(f"line {line} of {path} names {describe_name(file)}, which can be no file.")
        file = file if file.startswith(WEB) else str(path.parent / file)
        wanted.setdefault(file, []).append(str(expression))
    if not wanted:
        raise ValueError(f"{path} names no pictures.")
    return wanted


def name_outputs(sources: list[str]) -> list[Path]:
    """
    Names for what is written about each picture: where it lies below the folder that holds them all, no ending.

    Where two would be the same, they keep the ending, and a number where that is the same too.
    """
    files = [os.path.abspath(source) for source in sources if is_file_name(source)]  # no ".." is left
    root = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    whole = []
    for source in sources:
        if is_file_name(source):
            whole.append(Path(os.path.abspath(source)).relative_to(root))
        elif source == str(STANDARD):
            whole.append(Path("stdin"))
        else:
            whole.append(Path(PurePosixPath(urlsplit(source).path).name[-LONGEST_NAME:] or "picture"))
    counts = Counter(str(path.with_suffix("")).casefold() for path in whole)  # some systems take A and a for the same
    names, taken = [], set()
    for path in whole:
        wanted = path if counts[str(path.with_suffix("")).casefold()] > 1 else path.with_suffix("")
        name, index = wanted, 1
        while str(name).casefold() in taken:
            index += 1
            name = wanted.with_name(f"{wanted.name}_{index}")
        taken.add(str(name).casefold())
        names.append(name)
    return names


def is_file_name(source: str) -> bool:
    """Whether a picture is a file, and not a URL or standard input."""
    return source != str(STANDARD) and not source.startswith(WEB)


def plan_files(task: Task, outputs: dict[str, Path], is_many: bool) -> dict[str, list[Path]]:
    """
    The picture files to write for a task, by format.

    Args:
        outputs: where each format goes: a file for one picture, a folder for many, or `STANDARD`.
    """
    files = {}
    for name, path in outputs.items():
        if name == "json":
            continue
        if is_many and path != STANDARD:
            path = path / task.name.with_name(f"{task.name.name}_{name}{FORMATS[name].endings[0]}")
        is_numbered = FORMATS[name].is_per_expression and len(task.expressions) > 1
        files[name] = number(path, len(task.expressions)) if is_numbered else [path]
    return files


def number(path: Path, count: int) -> list[Path]:
    """A path for each of several files, numbered from 1."""
    return [path.with_name(f"{path.stem}_{index}{path.suffix}") for index in range(1, count + 1)]


def choose_outputs(
    tasks: list[Task], is_many: bool, format: str, output: Path | None, **others: Path | None
) -> dict[str, Path]:
    """Where each format goes: that of --format to --output or where it goes by default, `others` where they say."""
    if output is None:
        one = Path(f"{tasks[0].name}_{format}.png")
        output = STANDARD if format == "json" else MANY_FOLDER if is_many else one
    outputs = {format: output}
    for name, path in others.items():
        if path is not None and name in outputs:
            raise ValueError(f"--format {name} goes to --output; leave out the option that writes it too.")
        if path is not None:
            outputs[name] = path
    return outputs


def check_outputs(tasks: list[Task], outputs: dict[str, Path], is_many: bool) -> None:
    """ValueError if a format or a folder does not fit, or if a file is a picture itself or is to be written twice."""
    standard = [name for name, path in outputs.items() if path == STANDARD]
    if len(standard) > 1:
        raise ValueError(f"{' and '.join(standard)} both go to standard output; give one of them a file.")
    if standard and standard != ["json"]:
        is_several = FORMATS[standard[0]].is_per_expression and len(tasks[0].expressions) > 1
        if is_many or is_several:
            raise ValueError(f"standard output takes one {standard[0]}, this makes several; name a file or folder.")
    taken = {real(task.source) for task in tasks if is_file_name(task.source)}
    for name, path in outputs.items():
        if path == STANDARD:
            continue
        if is_many and name != "json":
            if path.exists() and not path.is_dir():
                raise ValueError(f"{path} is a file; with many pictures, name a folder.")
            continue
        endings = FORMATS[name].endings
        if path.suffix.lower() not in endings:
            raise ValueError(f"{path} names no format that fits; end it in {', '.join(endings)}.")
    files = []
    for task in tasks:
        for name, paths in plan_files(task, outputs, is_many).items():
            files += paths
            if is_many and outputs[name] != STANDARD:
                for path in paths:
                    if not real(path).is_relative_to(real(outputs[name])):
                        raise ValueError(f"{path} leads out of {outputs[name]} by a link; remove it or name another.")
    files += [outputs["json"]] if "json" in outputs else []
    for path in files:
        if path == STANDARD:
            continue
        if path.is_dir():
            raise ValueError(f"{path} is a folder; name a file in it.")
        if real(path) in taken:
            raise ValueError(f"{path} is the picture itself or is to be written twice; use another name.")
        taken.add(real(path))


def real(path: str | Path) -> Path:
    """Where a path leads, also one that is not there; `Path.resolve` raises for a loop of links."""
    return Path(os.path.realpath(path))
