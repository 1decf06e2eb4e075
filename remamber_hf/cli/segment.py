# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber segment`: the masks of the objects that expressions mean, in one picture or in many."""

import json
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageChops
from tqdm import tqdm
from transformers.utils import logging

from ..data.reading import is_unicode
from ..data.rle import encode_mask
from ..files import STANDARD, save_picture
from ..inference.explanation import draw_explanation, explain_mask
from ..inference.loading import BUNDLED, load_pipeline
from ..inference.visualization import blur_background, cut_out, draw_overlay
from ..messages import printable
from ..pictures import read_bounded, read_picture, set_max_pixels
from ..pipeline_remamber import ReferringSegmentationPipeline, SegmentedObject
from ..post_processing_remamber import PRESENCE_THRESHOLD
from .options import DTYPE_NAMES, Device, complete
from .tasks import CSV_COLUMNS, FORMATS, MANY_FOLDER, Task, check_outputs, choose_outputs, plan_files, read_tasks
from .unfinished_lines import UnfinishedLines, stamp_of_model


MAX_TOGETHER = 16  # expressions of a picture that go through the model at once, to bound the memory


def render(
    name: str, picture: Image.Image, results: list[SegmentedObject], presence_threshold: float | None
) -> Iterator[Image.Image]:
    """The pictures of a format, from what the pipeline returned, each made when it is asked for."""
    masks = [result["mask"] for result in results]
    if name == "overlay":
        words = [f": {describe(result, presence_threshold)}" for result in results]
        yield draw_overlay(picture, masks, [(result["expression"], text) for result, text in zip(results, words)])
    elif name == "mask":
        yield from masks
    elif name == "cutout":
        for mask in masks:
            yield cut_out(picture, np.asarray(mask) > 0)
    else:
        yield blur_background(picture, np.asarray(reduce(ImageChops.lighter, masks)) > 0)


def explain_results(
    pipe: ReferringSegmentationPipeline, picture: Image.Image, results: list[SegmentedObject], threshold: float
) -> Iterator[Image.Image]:
    """The figure that explains each mask."""
    for result in results:
        # The pipeline has checked what its model is.
        explanation = explain_mask(pipe.model, pipe.processor, picture, result["expression"])  # type: ignore[arg-type]
        yield draw_explanation(picture, explanation, threshold)


def describe(result: SegmentedObject, presence_threshold: float | None) -> str:
    """Area, share of the picture and mean probability, in words; or that there is no such object."""
    area = area_of(result["mask"])
    presence = result.get("presence")
    if presence is not None and presence < (PRESENCE_THRESHOLD if presence_threshold is None else presence_threshold):
        return f"not in the picture (presence {presence:.2f})"
    if not area:
        return "nothing found"
    share = area / (result["mask"].width * result["mask"].height)
    return f"{area} px ({share:.1%}), mean probability {result['score']:.2f}"


def area_of(mask: Image.Image) -> int:
    """Pixels of a mask."""
    return mask.histogram()[255]


def to_json(source: str, result: SegmentedObject) -> str:
    """One line about one expression; the mask is COCO's run-length encoding."""
    record = {
        "file_name": source,
        "expression": result["expression"],
        "score": round(result["score"], 4),
        **({"presence": round(result["presence"], 4)} if "presence" in result else {}),
        "area": area_of(result["mask"]),
        "box": result["box"],
        "rle": encode_mask(np.asarray(result["mask"]) > 0),
    }
    line = json.dumps(record, ensure_ascii=False)
    # A name that is no UTF-8 has halves of surrogates.
    return line if line.isascii() or is_unicode(line) else json.dumps(record)


def run_task(
    pipe: ReferringSegmentationPipeline, task: Task, threshold: float, presence_threshold: float | None
) -> tuple[Image.Image, list[SegmentedObject]]:
    """The picture of a task, and what the pipeline returns for each of its expressions."""
    is_standard = task.source == str(STANDARD)
    picture = read_picture(read_bounded(sys.stdin.buffer, "standard input") if is_standard else task.source)
    results: list[SegmentedObject] = []
    for start in range(0, len(task.expressions), MAX_TOGETHER):
        texts = task.expressions[start : start + MAX_TOGETHER]
        results += pipe(picture, texts, threshold=threshold, presence_threshold=presence_threshold, return_box=True)
    return picture, results


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PICTURE EXPRESSION",
        help='A picture (a file, a URL, "-" for standard input) or a folder of pictures, and what to segment in '
        "it. With -e: pictures and folders only.",
    ),
]
Expressions = Annotated[
    list[str] | None,
    typer.Option("--expression", "-e", metavar="TEXT", help="What to segment in every picture; may be repeated."),
]
FromCsv = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"Read pictures and expressions from a CSV file with the columns {' and '.join(CSV_COLUMNS)}; "
        "paths start from its folder.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Folder or Hub name of a ReMamber model.", show_default="the bundled one"),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help='File to write, for many pictures a folder; "-" for standard output.',
        show_default=f"NAME_overlay.png, for many pictures {MANY_FOLDER}/, for json -",
    ),
]
FormatName = Annotated[
    str,
    typer.Option(metavar="NAME", autocompletion=complete(*FORMATS), help=f"What to write: {', '.join(FORMATS)}."),
]
MaskPath = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Write the masks too; files or folder as for --output.")
]
CutoutPath = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Write the objects on a transparent ground too.")
]
BlurPath = Annotated[
    Path | None,
    typer.Option("--blur-background", metavar="PATH", help="Write the picture too, blurred but for the objects."),
]
ExplainPath = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Write a figure too of how each mask came about.")
]
Threshold = Annotated[
    float, typer.Option(metavar="NUMBER", help="Probability above which a pixel belongs to the object.")
]
PresenceThreshold = Annotated[
    float | None,
    typer.Option(
        "--presence_threshold",
        "--presence-threshold",
        metavar="NUMBER",
        help="Presence below which an expression means nothing in the picture; of a model that tells it.",
        show_default="0.5",
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        metavar="NUMBER",
        help="Pixels that a picture may have; a larger one is refused.",
        show_default="REMAMBER_MAX_PIXELS or Pillow's 89478485",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=complete(*DTYPE_NAMES),
        help=f"Numbers to compute in: {', '.join(DTYPE_NAMES)}; auto is as saved.",
    ),
]


def segment(
    inputs: Inputs = None,
    expression: Expressions = None,
    from_csv: FromCsv = None,
    model: Model = None,
    output: Output = None,
    format: FormatName = "overlay",
    mask: MaskPath = None,
    cutout: CutoutPath = None,
    blurred: BlurPath = None,
    explain: ExplainPath = None,
    threshold: Threshold = 0.5,
    presence_threshold: PresenceThreshold = None,
    max_pixels: MaxPixels = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
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
             box, rle (COCO's run-length encoding of the mask); also presence,
             the probability that there is such an object, if the model says it

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
    if presence_threshold is not None and not 0 <= presence_threshold <= 1:
        raise ValueError(f"--presence_threshold is {presence_threshold}; it must be in [0, 1].")
    if max_pixels is not None:
        set_max_pixels(max_pixels)
    tasks, is_many = read_tasks(inputs or [], expression or [], from_csv)
    outputs = choose_outputs(tasks, is_many, format, output, mask=mask, cutout=cutout, blur=blurred, explain=explain)
    check_outputs(tasks, outputs, is_many)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    pipe = load_pipeline(model or BUNDLED, device, dtype)
    if presence_threshold is not None and not pipe.model.config.predicts_presence:
        raise ValueError(
            f"--presence_threshold is {presence_threshold}, and this model does not say whether an expression means "
            "anything; leave it out."
        )
    cut = pipe.processor.describe_cut(list(dict.fromkeys(text for task in tasks for text in task.expressions)))
    if cut is not None:
        typer.echo(f"remamber: note: {cut}", err=True)
    run = Run(pipe, outputs, is_many, threshold, presence_threshold)
    if outputs.get("json") == STANDARD and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # JSON Lines are, whatever the terminal takes
    elif "json" in outputs:
        run.keep_lines(tasks, [str(model), stamp_of_model(model), dtype, threshold, presence_threshold])
    for task in tqdm(tasks, desc="segment", unit="picture", disable=None if is_many else True):
        run.do(task)
    run.finish(tasks)


class Run:
    """
    The pictures of one call of the command, one after another: masks, files, a line about each.

    Of many pictures, one that cannot be read is named and counted; a single one raises.
    """

    def __init__(
        self,
        pipe: ReferringSegmentationPipeline,
        outputs: dict[str, Path],
        is_many: bool,
        threshold: float,
        presence_threshold: float | None,
    ) -> None:
        self.pipe = pipe
        self.outputs = outputs
        self.is_many = is_many
        self.threshold = threshold
        self.presence_threshold = presence_threshold
        self.report = sys.stderr if STANDARD in outputs.values() else sys.stdout
        self.written: dict[str, list[Path]] = {name: [] for name, path in outputs.items() if path != STANDARD}
        self.num_failed = 0
        self.lines: UnfinishedLines | None = None
        self.done: set[str] = set()

    def keep_lines(self, tasks: list[Task], settings: list) -> None:
        """Collect JSON Lines beside their file, and go on from an interrupted run over many pictures."""
        self.lines = UnfinishedLines(self.outputs["json"], settings)
        self.done = self.lines.read(tasks) if self.is_many else set()
        if self.done:
            typer.echo(f"remamber: note: an interrupted run goes on; {len(self.done)} pictures are done", err=True)

    def do(self, task: Task) -> None:
        """Segment one picture, write what is wanted of it, and say what was found."""
        planned = plan_files(task, self.outputs, self.is_many)
        if task.source in self.done and all(path.exists() for paths in planned.values() for path in paths):
            self._note_written(planned)
            return
        try:
            results = self._write_pictures(task, planned)
        except (ValueError, OSError) as error:
            if not self.is_many or isinstance(error, BrokenPipeError):
                raise
            self.num_failed += 1
            message = printable(" ".join(str(error).split()))
            about = "" if printable(task.source) in message else f"{printable(task.source)}: "
            tqdm.write(f"remamber: failed: {about}{message}", file=sys.stderr)
            return
        if self.lines is not None:
            self.lines.add(task, [to_json(task.source, result) for result in results])
            return
        for result in results:
            if "json" in self.outputs:
                tqdm.write(to_json(task.source, result), file=sys.stdout)
            else:
                start = f"{task.source}: " if self.is_many else ""
                words = describe(result, self.presence_threshold)
                tqdm.write(printable(f"{start}{result['expression']}: {words}"), file=self.report)
        sys.stdout.flush()

    def finish(self, tasks: list[Task]) -> None:
        """Put the JSON Lines in their file, say what was written; Exit with 1 if a picture failed."""
        if self.lines is not None:
            self.lines.finish(tasks)
        if self.written:
            lines = [str(self.outputs["json"])] if "json" in self.written else []
            pictures = {name: paths for name, paths in self.written.items() if name != "json"}
            if self.is_many:
                parts = [f"{len(paths)} in {self.outputs[name]}" for name, paths in pictures.items()]
            else:
                parts = [str(path) for paths in pictures.values() for path in paths]
            typer.echo(f"written: {printable(', '.join(parts + lines))}", file=self.report)
        if self.num_failed:
            typer.echo(f"remamber: {self.num_failed} of {len(tasks)} pictures failed", err=True)
            raise typer.Exit(1)

    def _write_pictures(self, task: Task, planned: dict[str, list[Path]]) -> list[SegmentedObject]:
        picture, results = run_task(self.pipe, task, self.threshold, self.presence_threshold)
        for name, paths in planned.items():
            if name == "explain":
                pictures = explain_results(self.pipe, picture, results, self.threshold)
            else:
                pictures = render(name, picture, results, self.presence_threshold)
            for path, rendered in zip(paths, pictures):
                save_picture(rendered, path)
            self._note_written({name: paths})
        return results

    def _note_written(self, planned: dict[str, list[Path]]) -> None:
        for name, paths in planned.items():
            if name in self.written:
                self.written[name] += paths
