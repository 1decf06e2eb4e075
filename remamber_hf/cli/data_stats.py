# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber data stats`: what `data/statistics.py` finds in a data set or a list of expressions."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import datasets
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tqdm import tqdm
from transformers import CLIPConfig, CLIPTextConfig
from transformers.utils import CONFIG_NAME

from ..configuration_remamber import ReMamberConfig
from ..data.mixture import load_one
from ..data.reading import decode_text, read_regular_file
from ..data.rows import read_sentences
from ..data.statistics import MASK_COLUMNS, MaskStatistics, Summary, TextStatistics, measure_masks, measure_text
from ..files import STANDARD
from ..inference.loading import BUNDLED, find_model, load_config_of, load_tokenizer
from ..messages import describe, shorten
from ..processing_remamber import LONGEST_TEXT, SHORTEST_TEXT, count_tokens
from .data import OnError, OwnDataDir, SplitBy
from .options import Dataset, Generalized, Sentences, check_output, make_console, write_text


COUNTS = ("rows", "pictures", "sentences")  # of a split
SUMMARY = ("min", "median", "mean", "95 %", "max")
THIRDS_DOWN = ("top", "middle", "bottom")
THIRDS_ACROSS = ("left", "middle", "right")
LONGEST_WORD = 30  # letters of one that is shown


TextFile = Annotated[
    Path | None,
    typer.Option(
        "--text", metavar="FILE", help='Not data, but a file with an expression in each line; "-" for stdin.'
    ),
]
Model = Annotated[
    str,
    typer.Option(metavar="NAME", help="Folder or Hub name of a ReMamber model or a CLIP tokenizer: counts tokens."),
]
TextLength = Annotated[
    int | None,
    typer.Option(
        "--text_length",
        "--text-length",
        help="Tokens of an expression that are read.",
        show_default=f"the model's, {ReMamberConfig.text_length} with a tokenizer",
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help='Write the numbers to a file too; "-" prints them, and no tables.'),
]


def stats(
    data_dir: OwnDataDir = None,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    split: Annotated[str | None, typer.Option(help="Such as val; by default all of them.")] = None,
    text: TextFile = None,
    model: Model = BUNDLED,
    text_length: TextLength = None,
    generalized: Generalized = False,
    on_error: OnError = "raise",
    sentences: Sentences = "sent",
    json_file: JsonFile = None,
) -> None:
    """
    Count sentences, their words and tokens, words of place, and where the masks lie.

    Example: remamber data stats --data_dir DATA --dataset refcoco --model FOLDER

    Example: remamber data stats --text expressions.txt --json stats.json
    """
    if text_length is not None and not SHORTEST_TEXT <= text_length <= LONGEST_TEXT:
        raise ValueError(f"--text_length is {text_length}; give {SHORTEST_TEXT} to {LONGEST_TEXT}.")
    given = {"data_dir": data_dir, "dataset": dataset, "split_by": split_by, "split": split}
    usual = {"generalized": (generalized, False), "on_error": (on_error, "raise"), "sentences": (sentences, "sent")}
    named = [name for name, value in given.items() if value is not None]
    named += [name for name, (value, default) in usual.items() if value != default]
    if text is not None and named:
        raise ValueError(f"--{named[0]} is for a data set, and --text names a file of expressions; leave one out.")
    check_output(json_file)
    tokenizer = load_tokenizer(model)
    length = find_text_length(model) if text_length is None else text_length
    splits: dict[str, dict[str, int]] = {}
    masks = None
    if text is not None:
        name, lines = str(text), read_lines(text)
    else:
        source = load_one(dataset, split_by, data_dir, on_error, generalized, sentences)
        data = dict(source.splits) if split is None else {split: source.rows(split, "--split")}
        name, lines = str(source), []
        for split_name, rows in data.items():
            part = [sentence for row in read_sentences(rows) for sentence in row]
            splits[split_name] = dict(zip(COUNTS, (len(rows), count_pictures(rows), len(part))))
            lines += part
        masks = measure_masks(list_masks(data))
    measured = measure_text(lines, lambda texts: count_tokens(tokenizer, texts), length)
    results = {
        "data": name,
        "model": model,
        "splits": splits,
        "text": asdict(measured),
        "masks": None if masks is None else asdict(masks),
    }
    if json_file != STANDARD:
        print_statistics(make_console(), results, measured, masks)
    if json_file is not None:
        write_text(json.dumps(results, indent=2) + "\n", json_file)


# ----------------------------------------------------------------------------------------------------- what is counted


def find_text_length(name: str) -> int:
    """How many tokens a model reads; ReMamber's default for a CLIP or a tokenizer alone."""
    folder = Path(find_model(name))
    if folder.is_dir() and not (folder / CONFIG_NAME).exists():
        return ReMamberConfig.text_length
    config = load_config_of((ReMamberConfig, CLIPConfig, CLIPTextConfig), name)
    return getattr(config, "text_length", ReMamberConfig.text_length)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank; ValueError if there are none, or it is no text."""
    content = sys.stdin.buffer.read() if path == STANDARD else read_regular_file(path)
    # Not `splitlines`, which also divides at letters that stand inside an expression.
    lines = [line.removesuffix("\r") for line in decode_text(content, path).split("\n")]
    expressions = [line for line in lines if line.strip()]
    if not expressions:
        raise ValueError(f"{shorten(str(path))} holds no expression; give a text file with one in each line.")
    return expressions


def count_pictures(rows: datasets.Dataset) -> int:
    return len(set(rows.select_columns("image_id").with_format(None)[:]["image_id"]))


def list_masks(data: dict[str, datasets.Dataset]) -> Iterator[dict]:
    """What masks are drawn of, row by row; no picture is read."""
    with tqdm(total=sum(map(len, data.values())), desc="masks", unit=" rows", disable=None) as bar:
        for rows in data.values():
            for row in rows.select_columns(MASK_COLUMNS).with_format(None):
                yield row
                bar.update()


# ---------------------------------------------------------------------------------------------------- what is printed


def print_statistics(
    console: Console, results: dict[str, Any], text: TextStatistics, masks: MaskStatistics | None
) -> None:
    """Print tables of at most 80 columns, then a line for what a model does not read."""
    name, model = shorten(results["data"]), shorten(results["model"])
    console.print(Text(f"{name}: {text.num_sentences:,} sentences, tokens as {model} counts them\n"))
    if results["splits"]:
        console.print(splits_table(results["splits"]), "")
    console.print(lengths_table(text, masks), "")
    console.print(words_table(text), "")
    frequent = ", ".join(f"{shorten(word, LONGEST_WORD)} {count:,}" for word, count in text.frequent.items())
    console.print(Text(f"Most frequent words: {frequent}\n"))
    console.print(places_table(text), "")
    if masks is not None:
        if masks.areas is not None:
            console.print(centres_table(masks), "")
        if masks.kinds["none"] or masks.kinds["many"]:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in masks.kinds.items())
            console.print(Text(f"Rows by how many objects they mean: {kinds}"))
    cut = share(text.num_cut, text.num_sentences)
    console.print(
        Text(f"Sentences that are cut, of which {text.text_length} tokens are read: {text.num_cut:,} ({cut})")
    )
    if text.refused is not None:
        line = f": {text.num_refused:,} sentences, special tokens inside; first: {describe(text.refused)}"
        console.print(Text.assemble(("refused", "red"), line))


def splits_table(splits: dict[str, dict[str, int]]) -> Table:
    table = Table("split")
    for name in COUNTS:
        table.add_column(name, justify="right")
    for split, counts in splits.items():
        table.add_row(Text(split), *(f"{counts[name]:,}" for name in COUNTS))
    return table


def lengths_table(text: TextStatistics, masks: MaskStatistics | None) -> Table:
    table = Table("", *SUMMARY)
    rows = {"words of a sentence": text.words, "tokens of a sentence": text.tokens}
    for name, summary in rows.items():
        table.add_row(name, *numbers(summary, 1, ".4g"))
    if masks is not None:
        table.add_row("mask, % of the picture", *numbers(masks.areas, 100, ".3g"))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def words_table(text: TextStatistics) -> Table:
    table = Table("words", "count", "one token each")
    table.add_row("all", f"{text.num_words:,}", share(text.num_whole_words, text.num_words))
    table.add_row("different", f"{text.num_different:,}", share(text.num_whole_different, text.num_different))
    table.add_row("that come once", f"{text.num_once:,}", "")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def places_table(text: TextStatistics) -> Table:
    table = Table("word of place (English)", "sentences", "share")
    for place, count in text.places.items():
        table.add_row(place, f"{count:,}", share(count, text.num_sentences))
    table.add_section()
    table.add_row("any of them", f"{text.num_placed:,}", share(text.num_placed, text.num_sentences))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def centres_table(masks: MaskStatistics) -> Table:
    table = Table("centres of masks", *THIRDS_ACROSS)
    total = sum(map(sum, masks.centres))
    for name, counts in zip(THIRDS_DOWN, masks.centres):
        table.add_row(name, *(share(count, total) for count in counts))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def numbers(summary: Summary | None, factor: float, format: str) -> list[str]:
    """The cells of a row of a summary, each number times a factor."""
    if summary is None:
        return ["-"] * len(SUMMARY)
    return [f"{value * factor:{format}}" for value in asdict(summary).values()]


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
