# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Command: the masks of the objects that expressions mean, in one picture or in many."""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO
from urllib.parse import urlsplit

import numpy as np
import typer
from PIL import Image, ImageChops
from pycocotools import mask as coco_mask
from tqdm import tqdm
from transformers.utils import logging

from .data.refer import decode_text, read_regular_file
from .explanation import draw_explanation, explain_mask
from .loading import BUNDLED_MODEL, DEVICES, DTYPES, load_pipeline
from .pictures import WEB, describe_name, picture_endings, printable, read_bounded, read_picture, set_max_pixels
from .pipeline_remamber import ReferringSegmentationPipeline
from .visualization import blur_background, cut_out, draw_overlay
from .whole_files import STANDARD, make_whole_file, save_picture


MANY_FOLDER = Path("segmented")
CSV_COLUMNS = ("file_name", "expression")  # those of `metadata.csv` in people's own data
MAX_NAMED = 5  # of the files that are left out
LONGEST_FILE_NAME = 255  # bytes, of each part of a path
LONGEST_NAME = 100  # letters of a web address that name a file
MAX_TOGETHER = 16  # expressions of a picture that go through the model at once, to bound the memory


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


# ---------------------------------------------------------------------------------------------------------- what to do
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
        wanted = read_csv(from_csv)
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


def read_csv(path: Path) -> dict[str, list[str]]:
    """The expressions of each picture that a CSV file names, in the order in which pictures first come up."""
    content = sys.stdin.buffer.read() if path == STANDARD else read_regular_file(path)
    rows = csv.DictReader(StringIO(decode_text(content, path), newline=""), strict=True)
    try:
        lines = [(rows.line_num, row) for row in rows]
    except csv.Error as error:
        raise ValueError(f"{path} is not read: {error} in line {rows.line_num + 1}; is a quote not closed?") from None
    missing = [name for name in CSV_COLUMNS if name not in (rows.fieldnames or [])]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]!r}; its first line must be {','.join(CSV_COLUMNS)}.")
    repeated = [name for name in CSV_COLUMNS if (rows.fieldnames or []).count(name) > 1]
    if repeated:
        raise ValueError(f"{path} has the column {repeated[0]!r} twice; leave one out.")
    wanted: dict[str, list[str]] = {}
    for line, row in lines:
        if None in row:
            raise ValueError(f"line {line} of {path} has more cells than the first; quote a cell that holds a comma.")
        file, expression = (row[name] for name in CSV_COLUMNS)
        if not file or not (expression or "").strip():
            raise ValueError(f"line {line} of {path} lacks a file name or an expression.")
        if "\0" in file or (is_file_name(file) and max(map(len, os.fsencode(file).split(b"/"))) > LONGEST_FILE_NAME):
            raise ValueError(f"line {line} of {path} names {describe_name(file)}, which can be no file.")
        file = file if file.startswith(WEB) else str(path.parent / file)
        wanted.setdefault(file, []).append(expression)
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


# ------------------------------------------------------------------------------------------------------ what to write
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


def render(name: str, picture: Image.Image, results: list[dict]) -> Iterator[Image.Image]:
    """The pictures of a format, from what the pipeline returned, each made when it is asked for."""
    masks = [result["mask"] for result in results]
    if name == "overlay":
        yield draw_overlay(picture, masks, [(result["expression"], f": {describe(result)}") for result in results])
    elif name == "mask":
        yield from masks
    elif name == "cutout":
        for mask in masks:
            yield cut_out(picture, np.asarray(mask) > 0)
    else:
        yield blur_background(picture, np.asarray(reduce(ImageChops.lighter, masks)) > 0)


def explain_results(
    pipe: ReferringSegmentationPipeline, picture: Image.Image, results: list[dict], threshold: float
) -> Iterator[Image.Image]:
    """The figure that explains each mask."""
    for result in results:
        # The pipeline has checked what its model is.
        explanation = explain_mask(pipe.model, pipe.processor, picture, result["expression"])  # type: ignore[arg-type]
        yield draw_explanation(picture, explanation, threshold)


def describe(result: dict) -> str:
    """Area, share of the picture and mean probability, in words."""
    area = area_of(result["mask"])
    if not area:
        return "nothing found"
    share = area / (result["mask"].width * result["mask"].height)
    return f"{area} px ({share:.1%}), mean probability {result['score']:.2f}"


def area_of(mask: Image.Image) -> int:
    """Pixels of a mask."""
    return mask.histogram()[255]


def to_json(source: str, result: dict) -> str:
    """One line about one expression; the mask is COCO's run-length encoding."""
    mask = np.asfortranarray(np.asarray(result["mask"]) > 0).astype(np.uint8)
    rle = coco_mask.encode(mask)
    record = {
        "file_name": source,
        "expression": result["expression"],
        "score": round(result["score"], 4),
        "area": area_of(result["mask"]),
        "box": result["box"],
        "rle": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
    }
    line = json.dumps(record, ensure_ascii=False)
    # A name that is no UTF-8 has halves of surrogates.
    return line if line.isascii() or is_encodable(line) else json.dumps(record)


def is_encodable(text: str) -> bool:
    """Whether it can be written as UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


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
    folder = BUNDLED_MODEL if model is None else Path(model)
    return sorted([path.name, path.stat().st_mtime_ns] for path in folder.glob("*.*")) if folder.is_dir() else []


def stamp_of(task: Task) -> list:
    """What tells whether the lines about a picture are still right: the expressions, and its file's size and time."""
    try:
        status = os.stat(task.source)
    except (OSError, ValueError):
        return [task.expressions, None, None]
    return [task.expressions, status.st_size, status.st_mtime_ns]


# --------------------------------------------------------------------------------------------------------- the command
def run_task(pipe: ReferringSegmentationPipeline, task: Task, threshold: float) -> tuple[Image.Image, list[dict]]:
    """The picture of a task, and what the pipeline returns for each of its expressions."""
    is_standard = task.source == str(STANDARD)
    picture = read_picture(read_bounded(sys.stdin.buffer, "standard input") if is_standard else task.source)
    results = []
    for start in range(0, len(task.expressions), MAX_TOGETHER):
        texts = task.expressions[start : start + MAX_TOGETHER]
        results += pipe(picture, texts, threshold=threshold, return_box=True)
    return picture, results


def note_cut_expressions(pipe: ReferringSegmentationPipeline, tasks: list[Task]) -> None:
    """Say which expressions the model does not read to their end."""
    length = pipe.processor.text_length
    for expression in dict.fromkeys(text for task in tasks for text in task.expressions):
        if pipe.processor.count_tokens(expression) > length:
            limit = f"the model reads {length} tokens, the rest is cut off"
            typer.echo(f"remamber: note: {limit}: {printable(expression)}", err=True)


def complete(*values: str):
    """A shell completion of these values."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def segment(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURE EXPRESSION",
            help='A picture (a file, a URL, "-" for standard input) or a folder of pictures, and what to segment in '
            "it. With -e: pictures and folders only.",
        ),
    ] = None,
    expression: Annotated[
        list[str] | None,
        typer.Option("--expression", "-e", metavar="TEXT", help="What to segment in every picture; may be repeated."),
    ] = None,
    from_csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Read pictures and expressions from a CSV file with the columns {' and '.join(CSV_COLUMNS)}; "
            "paths start from its folder.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Folder or Hub name of a ReMamber model.", show_default="the bundled one"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help='File to write, for many pictures a folder; "-" for standard output.',
            show_default=f"NAME_overlay.png, for many pictures {MANY_FOLDER}/, for json -",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(metavar="NAME", autocompletion=complete(*FORMATS), help=f"What to write: {', '.join(FORMATS)}."),
    ] = "overlay",
    mask: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the masks too; files or folder as for --output.")
    ] = None,
    cutout: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write the objects on a transparent ground too.")
    ] = None,
    blurred: Annotated[
        Path | None,
        typer.Option("--blur-background", metavar="PATH", help="Write the picture too, blurred but for the objects."),
    ] = None,
    explain: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write a figure too of how each mask came about.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(metavar="NUMBER", help="Probability above which a pixel belongs to the object.")
    ] = 0.5,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Pixels that a picture may have; a larger one is refused.",
            show_default="REMAMBER_MAX_PIXELS or Pillow's 89478485",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME", autocompletion=complete(*DEVICES), help=f"Where to compute: {', '.join(DEVICES)}."
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            autocompletion=complete(*DTYPES),
            help=f"Numbers to compute in: {', '.join(DTYPES)}; auto is as saved.",
        ),
    ] = "auto",
):
    """
    Segment what expressions mean, in one picture or in many.

    remamber segment street.jpg "the left car" "woman in red"
    remamber segment photos/ *.png -e "the dog" -o found/
    remamber segment --from-csv wanted.csv --format json > found.jsonl
    remamber segment cat.jpg "the cat" --format cutout -o cat.png
    cat cat.jpg | remamber segment - "the cat" --format mask -o - > mask.png

    Formats:
    overlay  the picture with a colour for each expression and a legend;
             one narrower than 480 pixels is enlarged
    mask     white on black, one file for each expression
    cutout   the object on a transparent ground, one file for each expression
    blur     the picture, blurred but for the objects of all expressions
    explain  text-image correlation per token and stage, and the mask by stage,
             one figure for each expression
    json     a line for each expression: file_name, expression, score, area,
             box, rle (COCO's run-length encoding of the mask)

    Several files of a kind about one picture are numbered NAME_1, NAME_2 ….
    Files of the same name are replaced. A picture among many that cannot be
    read is named and does not stop the rest. JSON Lines about many pictures
    that go to a file are kept when the run is interrupted; the same command
    goes on from there.

    Exit status: 0 if all went well, 1 if some of many pictures failed, 2 if
    the arguments or the only picture are wrong.
    """
    if format not in FORMATS:
        raise ValueError(f"--format is {format!r}; use one of {', '.join(FORMATS)}.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold is {threshold}; it must be in [0, 1].")
    if max_pixels is not None:
        set_max_pixels(max_pixels)
    tasks, is_many = read_tasks(inputs or [], expression or [], from_csv)
    if output is None:
        one = Path(f"{tasks[0].name}_{format}.png")
        output = STANDARD if format == "json" else MANY_FOLDER if is_many else one
    outputs = {format: output}
    for name, path in (("mask", mask), ("cutout", cutout), ("blur", blurred), ("explain", explain)):
        if path is not None and name in outputs:
            raise ValueError(f"--format {name} goes to --output; leave out the option that writes it too.")
        if path is not None:
            outputs[name] = path
    check_outputs(tasks, outputs, is_many)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    pipe = load_pipeline(BUNDLED_MODEL if model is None else model, device, dtype)
    note_cut_expressions(pipe, tasks)

    report = sys.stderr if STANDARD in outputs.values() else sys.stdout
    written: dict[str, list[Path]] = {name: [] for name, path in outputs.items() if path != STANDARD}
    failed = 0
    lines: UnfinishedLines | None = None
    done: set[str] = set()
    if outputs.get("json") == STANDARD and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # JSON Lines are, whatever the terminal takes
    elif "json" in outputs:
        lines = UnfinishedLines(outputs["json"], [str(model), stamp_of_model(model), dtype, threshold])
        done = lines.read(tasks) if is_many else done
        if done:
            typer.echo(f"remamber: note: an interrupted run goes on; {len(done)} pictures are done", err=True)
    for task in tqdm(tasks, desc="segment", unit="picture", disable=None if is_many else True):
        planned = plan_files(task, outputs, is_many)
        if task.source in done and all(path.exists() for paths in planned.values() for path in paths):
            for name, paths in planned.items():
                written[name] += paths
            continue
        try:
            picture, results = run_task(pipe, task, threshold)
            for name, paths in planned.items():
                if name == "explain":
                    pictures = explain_results(pipe, picture, results, threshold)
                else:
                    pictures = render(name, picture, results)
                for path, rendered in zip(paths, pictures):
                    save_picture(rendered, path)
                if name in written:
                    written[name] += paths
        except (ValueError, OSError) as error:
            if not is_many or isinstance(error, BrokenPipeError):
                raise
            failed += 1
            message = printable(" ".join(str(error).split()))
            about = "" if printable(task.source) in message else f"{printable(task.source)}: "
            tqdm.write(f"remamber: failed: {about}{message}", file=sys.stderr)
            continue
        if lines is not None:
            lines.add(task, [to_json(task.source, result) for result in results])
            continue
        for result in results:
            if "json" in outputs:
                tqdm.write(to_json(task.source, result), file=sys.stdout)
            else:
                start = f"{task.source}: " if is_many else ""
                tqdm.write(printable(f"{start}{result['expression']}: {describe(result)}"), file=report)
        sys.stdout.flush()
    if lines is not None:
        lines.finish(tasks)
    if written:
        if is_many:
            parts = [f"{len(paths)} in {outputs[name]}" for name, paths in written.items() if name != "json"]
        else:
            parts = [str(path) for paths in written.values() for path in paths]
        parts += [str(outputs["json"])] if "json" in written else []
        typer.echo(f"written: {printable(', '.join(parts))}", file=report)
    if failed:
        typer.echo(f"remamber: {failed} of {len(tasks)} pictures failed", err=True)
        raise typer.Exit(1)
