# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber data from-coco`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table
from rich.text import Text

from ..data.reading import decode_text, read_regular_file
from ..data.rows import papers_order
from ..messages import describe, shorten
from ..synthetic.coco_pictures import VAL_SHARE, Rules
from ..synthetic.evaluator import Margins
from ..synthetic.from_coco import DATASET_NAME, OUTPUT_FORMATS, Summary, derive_from_coco
from ..synthetic.thing_words import KINDS
from ..synthetic.thing_writers import MAX_EXPRESSIONS
from ..synthetic.things import THING_MARGINS
from .data import OnError
from .options import complete, make_console


MARGIN_NAMES = ", ".join(f"{name}={value}" for name, value in asdict(THING_MARGINS).items())


def from_coco(
    instances: Annotated[Path, typer.Argument(help="JSON in COCO format, with boxes and masks.")],
    images: Annotated[Path, typer.Argument(help="Folder of its pictures.")],
    output_dir: Annotated[Path, typer.Argument(help="Folder to make.")],
    many: Annotated[bool, typer.Option("--many", help="Also write sentences that mean several things.")] = False,
    no_target: Annotated[
        bool, typer.Option("--no_target", "--no-target", help="Also write sentences that mean nothing in the picture.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    max_sentences: Annotated[
        int, typer.Option("--max_sentences", "--max-sentences", help="Most sentences of a thing.")
    ] = MAX_EXPRESSIONS,
    val: Annotated[
        float | None,
        typer.Option(
            help="Share of the pictures for the split val.",
            show_default=f"split or subset of the images in the file, else {VAL_SHARE}",
        ),
    ] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="YAML file of further words: lines such as `dog: [puppy, hound]`.")
    ] = None,
    stuff: Annotated[
        str | None, typer.Option(help="Categories that are not counted, such as road,sky; besides `isthing: 0`.")
    ] = None,
    stuff_file: Annotated[
        Path | None,
        typer.Option("--stuff_file", "--stuff-file", help="JSON with annotations of stuff in the same pictures."),
    ] = None,
    min_area: Annotated[
        float, typer.Option("--min_area", "--min-area", help="Least part of the picture that a thing covers.")
    ] = Rules.min_area,
    border: Annotated[
        float,
        typer.Option(help="What is nearer to an edge, as a part of the longer side, is taken for cut off by it."),
    ] = Rules.border,
    keep_truncated: Annotated[
        bool, typer.Option("--keep_truncated", "--keep-truncated", help="Also write sentences about what is cut off.")
    ] = False,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help=f"How clear a case must be; may be given several times. By default {MARGIN_NAMES}.",
        ),
    ] = None,
    output_format: Annotated[
        str, typer.Option("--format", autocompletion=complete(*OUTPUT_FORMATS), help=f"{' or '.join(OUTPUT_FORMATS)}.")
    ] = "refer",
    dataset_name: Annotated[
        str, typer.Option("--dataset_name", "--dataset-name", help="Name of the set in a REFER folder.")
    ] = DATASET_NAME,
    on_error: OnError = "raise",
):
    """
    Derive expressions for pictures with boxes and masks in COCO format, true by geometry.

    refer: a REFER folder, with grefs(unc).json too if --many or --no_target is given. folder: pictures and
    metadata.jsonl, with a line per thing, to correct by hand.
    """
    summary = derive_from_coco(
        instances,
        images,
        output_dir,
        seed=seed,
        max_sentences=max_sentences,
        many=many,
        no_target=no_target,
        output_format=output_format,
        dataset_name=dataset_name,
        rules=Rules(read_margins(margin or []), min_area, border, keep_truncated),
        synonyms=None if synonyms is None else read_synonyms(synonyms),
        stuff=[name.strip() for name in stuff.split(",")] if stuff else (),
        stuff_file=stuff_file,
        val=val,
        on_error=on_error,
    )
    print_summary(summary)
    typer.echo(f"written: {output_dir}")


def read_margins(texts: list[str]) -> Margins:
    """Margins that differ from those for photographs, as NAME=VALUE."""
    given = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = None
        if name not in asdict(THING_MARGINS) or number is None:
            raise ValueError(f"--margin is {describe(text)}; give NAME=VALUE, the names are in {MARGIN_NAMES}.")
        given[name] = number
    return replace(THING_MARGINS, **given)


def read_synonyms(path: Path) -> dict[str, list[str]]:
    """Read category → its further words from YAML; ValueError for anything else."""
    try:
        content = yaml.safe_load(decode_text(read_regular_file(path), path))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{shorten(str(path))} is no YAML: {shorten(' '.join(str(error).split()))}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{shorten(str(path))} holds {describe(content)}; give lines such as `dog: [puppy, hound]`.")
    synonyms = {}
    for category, words in content.items():
        words = [words] if isinstance(words, str) else words
        if not isinstance(category, str) or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise ValueError(
                f"{shorten(str(path))} has {describe({category: words})}; give a category and words, each of which "
                'YAML reads as text: in quotes where it is a number, "yes" or "no".'
            )
        synonyms[category] = words
    return synonyms


def print_summary(summary: Summary) -> None:
    """Print a table of what was written, and a line for each thing that was left out or is wrong."""
    table = Table("", "written")
    table.columns[1].justify = "right"
    for split in papers_order(summary.pictures):
        table.add_row(f"pictures, {split}", str(summary.pictures[split]))
    table.add_section()
    meant = {"one": "one thing", "many": "several things", "none": "nothing"}
    for target, words in meant.items():
        if summary.sentences[target]:
            table.add_row(f"sentences that mean {words}", str(summary.sentences[target]))
    table.add_section()
    for kind in KINDS:
        table.add_row(f"sentences by {kind}", str(summary.kinds[kind]))
    console = make_console()
    console.print(table)
    lines = [f"{count} × {reason}" for reason, count in summary.left_out.most_common()]
    lines += [
        f"the category {describe(category)} {reason}; --synonyms can give it a word"
        for category, reason in summary.left_out_categories.items()
    ]
    if summary.empty_pictures:
        lines.append(f"{summary.empty_pictures} × picture without a true sentence")
    for line in lines:
        console.print(Text(f"left out: {line}"), soft_wrap=True)
    for kind, count in summary.problems.counts.most_common():
        line = f": {count} × {kind}; first: {summary.problems.first[kind]}"
        console.print(Text.assemble(("wrong", "red"), line), soft_wrap=True)
