# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Saved results of several models beside each other: differences and how sure they are, and the papers' table."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, product
from statistics import mean, stdev

import numpy as np

from .bootstrap import LEVEL, MIN_PICTURES, NUM_DRAWS, SEED, bound_difference, draw_scores
from .referring_iou.scores import Ratio
from .report import SCORE_TITLES, UNKNOWN, percent
from .samples import split_by
from .saved import SavedResults, read_results
from .tables import Table


# Configuration of the metric → the scores that papers print of it.
MAIN_SCORES = {
    "default": ("oiou", "miou"),
    "generalized": ("giou", "ciou", "n_acc", "t_acc"),
    "ref_zom": ("miou", "oiou", "acc"),
    "r_refcoco": ("miou", "mrr", "riou"),
}
ALL = "all"  # scores
WHOLE = "all"  # of a split
# What must be the same where scores are compared, and how an error calls it.
COUNTED_ALIKE = {
    "size": "size that is counted at",
    "resize": "resize of logits",
    "threshold": "threshold",
    "mask_overlap": "overlap of polygons",
    "precision": "precision",
    "epsilon": "epsilon",
    "name": "protocol",
}


@dataclass(frozen=True)
class Entry:
    """A model as a row of a table: its name, and its results, of several seeds or data sets or both."""

    name: str
    results: list[SavedResults]

    def on(self, data: str) -> list[SavedResults]:
        """Those on a data set: one for each seed."""
        return [results for results in self.results if results.data == data]

    @property
    def data(self) -> list[str]:
        """The data sets."""
        return list(dict.fromkeys(results.data for results in self.results))


def read_entries(arguments: Sequence[str]) -> list[Entry]:
    """
    Read what a command is told to compare.

    Args:
        arguments: folders of results, each `FOLDER`, `NAME=FOLDER`, or several with commas between them; `*` and `?`
            stand for any letters. Without a name it is that of the model, or that of the folder if two have one model.

    Raises:
        FileNotFoundError, ValueError: if there are no results, they cannot be read, or names come twice.
    """
    entries = [(name, [read_results(folder) for folder in find_folders(rest)]) for name, rest in map(parse, arguments)]
    models = [os.path.basename(os.path.normpath(results[0].about["model"])) for _, results in entries]
    named = [
        Entry(name or (model if models.count(model) == 1 else os.fspath(results[0].folder)), results)
        for (name, results), model in zip(entries, models)
    ]
    names = [entry.name for entry in named]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} comes twice; give names, as in ours=FOLDER baseline=FOLDER.")
    return named


def parse(argument: str) -> tuple[str | None, str]:
    """The name, None if there is none, and the folders."""
    name, equals, rest = argument.partition("=")
    if not equals or os.sep in name or os.path.isdir(argument):
        return None, argument
    if not name.strip() or not rest:
        raise ValueError(f"{argument!r} has no name or no folder; give NAME=FOLDER.")
    return name.strip(), rest


def find_folders(text: str) -> list[str]:
    """The folders that a text names; FileNotFoundError if it names none, ValueError if one twice."""
    if os.path.isdir(text):
        return [text]
    folders: list[str] = []
    for part in map(os.path.expanduser, map(str.strip, text.split(","))):
        if not part:
            raise ValueError(f"{text!r} has a comma too many; give folders with one between them.")
        has_letters = glob.has_magic(part) and not os.path.isdir(part)
        folders += sorted(glob.glob(part)) if has_letters else [part]
    if not folders:
        raise FileNotFoundError(f"{text} stands for no folder; give one that `remamber evaluate --output_dir` wrote.")
    places = [os.path.realpath(folder) for folder in folders]
    for folder, place in zip(folders, places):
        if places.count(place) > 1:
            raise ValueError(f"{folder} comes twice in {text!r}; give each folder once.")
    return folders


# ------------------------------------------------------------------------------------------------------ differences


def compare(
    entries: Sequence[Entry],
    scores: Sequence[str] | None = None,
    by: Iterable[str] = ("target_kind", "kind"),
    num_draws: int = NUM_DRAWS,
    seed: int = SEED,
) -> Table:
    """
    Differences of all models from the first: score by score, for each split and the parts that it comes in.

    Several seeds count by their mean. The interval is over pictures; ± is the deviation over the seeds.

    Args:
        entries: at least two. scores: names of the metric's scores, `ALL`, or None for those that papers print.
        by: columns of samples.parquet, see `PARTS`.

    Raises:
        ValueError: if they were not counted alike, on the same samples.
    """
    reference, *others = entries
    if not others:
        raise ValueError("there is one model; give two or more, as in ours=FOLDER baseline=FOLDER.")
    groups = []
    for data in reference.data:
        for other in others:
            groups += compare_on(data, reference, other, scores, tuple(by), num_draws, seed)
    if not groups:
        on = "; ".join(f"{entry.name} on {', '.join(entry.data)}" for entry in entries)
        raise ValueError(f"no other model was evaluated on the data of the first ({on}); compare results of the same.")
    header = ["data", "split", "part", "score", reference.name, "model", "its score", "difference"]
    note = (
        f"Intervals at {LEVEL:.0%} and two-sided p of a paired bootstrap over pictures, {num_draws:,} draws, seed "
        f"{seed}; {UNKNOWN} for fewer than {MIN_PICTURES} pictures."
    )
    return Table([*header, f"{LEVEL:.0%} interval", "p"], groups, num_left=4, note=note)


def find_left_out(entries: Sequence[Entry]) -> list[str]:
    """The splits that are not compared with a model because it, or the first model, lacks them; in a line each."""
    reference, *others = entries
    lines = []
    for other in others:
        names = [{(run.data, split) for run in entry.results for split in run.splits} for entry in (reference, other)]
        for mine, theirs, lacking in ((names[0], names[1], other.name), (names[1], names[0], reference.name)):
            if left := sorted(mine - theirs):
                lines.append(
                    f"left out: {', '.join(f'{data} {split}' for data, split in left)}, which {lacking} lacks"
                )
    return lines


def compare_on(
    data: str,
    reference: Entry,
    other: Entry,
    scores: Sequence[str] | None,
    by: tuple[str, ...],
    num_draws: int,
    seed: int,
) -> list[list[list[str]]]:
    """Rows of one data set, in a group for each split that both models were evaluated on."""
    runs = [reference.on(data), other.on(data)]
    if not all(runs):
        return []
    check_counted_alike([*runs[0], *runs[1]])
    for entry in (reference, other):
        check_same_seeds(entry, data)
    names = [name for name in runs[0][0].splits if all(name in run.splits for group in runs for run in group)]
    if not names:
        raise ValueError(
            f"{reference.name} and {other.name} have no split of {data} in common; evaluate both on the same."
        )
    chosen = choose_scores(runs[0][0], scores)
    groups = []
    for split in names:
        first = runs[0][0].splits[split]
        check_same_samples([run for group in runs for run in group], split)
        parts = {("", WHOLE): np.ones(len(first.pictures), dtype=bool)}
        for column in by:
            if column == "target_kind" and first.tally.configuration == "default":
                continue  # they all mean one
            found = split_by(column, first.table[column].to_pylist())
            parts |= {(column, part): is_of for part, is_of in found.items()}
        ratios = {
            (part, score): [[ratios[score] for ratios in group] for group in of_runs]
            for part, is_of in parts.items()
            for of_runs in [
                [[run.splits[split].tally.ratios_of(is_of, run.protocol) for run in group] for group in runs]
            ]
            for score in chosen
        }
        drawn = iter(
            draw_scores([r for pair in ratios.values() for r in chain(*pair)], first.pictures, num_draws, seed)
        )
        rows = []
        for (part, score), pair in ratios.items():
            cells = difference_cells(pair, [[next(drawn) for _ in group] for group in pair])
            if set(cells) == {UNKNOWN}:
                continue  # no sentence of the part counts, as of those that mean something in N-acc
            rows.append([data, split, name_part(*part), SCORE_TITLES[score], cells[0], other.name, *cells[1:]])
        groups.append(rows)
    return groups


def difference_cells(ratios: list[list[Ratio]], drawn: list[list[np.ndarray]]) -> list[str]:
    """
    Score of the first model, of the second, their difference, its interval, p: text.

    Args:
        ratios: those of the first model, one for each seed, and those of the second. drawn: what was drawn of each.
    """
    values = [[ratio.value for ratio in group] for group in ratios]
    first, second = (np.mean(group, axis=0) for group in drawn)
    gain = mean(values[1]) - mean(values[0])
    found = bound_difference(first, second)
    cells = [*(spread(group) for group in values), UNKNOWN if np.isnan(gain) else signed(gain)]
    if found is None:
        return [*cells, UNKNOWN, UNKNOWN]
    return [*cells, f"[{signed(found.low)}, {signed(found.high)}]", f"{found.p_value:.4f}"]


def check_counted_alike(runs: list[SavedResults]) -> None:
    """ValueError unless the results were counted in one way."""
    first = runs[0]
    for run in runs[1:]:
        for field, name in COUNTED_ALIKE.items():
            values = first.about["protocol"][field], run.about["protocol"][field]
            if values[0] != values[1]:
                raise ValueError(
                    f"{first.folder} and {run.folder} were counted in two ways: {name} {values[0]} and {values[1]}; "
                    "evaluate both under one protocol."
                )
        if first.about["metric"] != run.about["metric"]:
            raise ValueError(
                f"{first.folder} has scores of the kind {first.about['metric']}, {run.folder} of "
                f"{run.about['metric']}; evaluate both on the same data set."
            )


def check_same_samples(runs: list[SavedResults], split: str) -> None:
    """ValueError unless the results are of the same sentences of the same objects, in the same order."""
    for first, run in pairwise(runs):
        names = ["ref_id", "sentence_id", "picture", "target_kind"]
        if run.about["protocol"]["mask_overlap"] == first.about["protocol"]["mask_overlap"]:
            names.append("object_area")  # ids are those of every data set that counts from 1
        if run.about["sentences"] == first.about["sentences"]:
            names.append("sentence")
        ours, theirs = (each.splits[split].table.select(names).to_pydict() for each in (first, run))
        if ours != theirs:
            counts = [len(each["ref_id"]) for each in (ours, theirs)]
            raise ValueError(
                f"{first.folder} has {counts[0]} sentences of {split}, {run.folder} {counts[1]}, and they "
                "are not the same; evaluate both on the same data with the same options."
            )


def check_same_seeds(entry: Entry, data: str) -> None:
    """ValueError if a split was evaluated with fewer seeds than another."""
    counts = Counter(split for run in entry.on(data) for split in run.splits)
    for split, count in counts.items():
        if count != max(counts.values()):
            raise ValueError(
                f"{entry.name} has {count} results of {split} and {max(counts.values())} of another split of {data}; "
                "evaluate every seed on the same splits."
            )


def name_part(column: str, part: str) -> str:
    """What a part is called beside those of other columns."""
    return " ".join(filter(None, ({"target_kind": "objects"}.get(column, column), part)))


def choose_scores(results: SavedResults, names: Sequence[str] | None) -> list[str]:
    """The scores that are asked for; ValueError for one that the results do not have."""
    known = [name for name in SCORE_TITLES if name in next(iter(results.about["splits"].values()))["scores"]]
    if names is None:
        return list(MAIN_SCORES[results.about["metric"]])
    if list(names) == [ALL]:
        return known
    by_title = {SCORE_TITLES[name].lower(): name for name in known}
    chosen = [by_title.get(name.lower(), name.lower()) for name in names]
    for name, asked in zip(chosen, names):
        if name not in known:
            raise ValueError(
                f"{results.folder} has no score {asked!r}; choose --scores from {', '.join(known)}, or {ALL}."
            )
    return chosen


# -------------------------------------------------------------------------------------------------- the papers' table


def make_paper_table(
    entries: Sequence[Entry], scores: Sequence[str] | None = None, has_published: bool = True
) -> Table:
    """
    A row per model, published ones first, and a column per split of the data sets; a group of rows per score.

    Args:
        entries: models. scores: as for `compare`. has_published: whether published figures stand beside; they do where
            the results have them, which is where a split has the counts of the published one.

    Raises:
        ValueError: if seeds of one model were counted in two ways, or a column is of two sets of samples.
    """
    all_results = [results for entry in entries for results in entry.results]
    columns = list(
        dict.fromkeys((results.data, split) for results in all_results for split in results.splits)
    )  # data set, split
    for entry in entries:
        for data in entry.data:
            check_counted_alike(entry.on(data))
            check_same_seeds(entry, data)
    for (data, split), metric in product(columns, MAIN_SCORES):
        runs = [each for each in all_results if each.data == data and split in each.splits]
        check_same_samples([run for run in runs if run.about["metric"] == metric], split)
    chosen = list(dict.fromkeys(score for results in all_results for score in choose_scores(results, scores)))
    groups = []
    for score in chosen:
        rows = published_rows(all_results, columns, score) if has_published else []
        for entry in entries:
            cells = [entry_cell(entry, column, score) for column in columns]
            if any(cell != UNKNOWN for cell in cells):
                rows.append([entry.name, protocol_name(entry), "measured", SCORE_TITLES[score], *cells])
        groups.append(rows)
    header = ["model", "protocol", "source", "score", *(f"{data} {split}" for data, split in columns)]
    return Table(header, groups, num_left=4)


def protocol_name(entry: Entry) -> str:
    names = dict.fromkeys(results.about["protocol"]["name"] or "no name" for results in entry.results)
    return ", ".join(names)


def entry_cell(entry: Entry, column: tuple[str, str], score: str) -> str:
    """The score of a model on a split: mean and deviation over its seeds."""
    data, split = column
    runs = [results for results in entry.on(data) if split in results.splits]
    described = [run.about["splits"][split] for run in runs]
    values = [each["scores"].get(score) for each in described]
    known = [value for value in values if value is not None]
    return spread(known) if known and len(known) == len(values) else UNKNOWN


def published_rows(all_results: list[SavedResults], columns: list[tuple[str, str]], score: str) -> list[list[str]]:
    """Rows of published models that have this score on any of the splits."""
    found: dict[tuple[str, str, str], dict[tuple[str, str], float]] = {}
    for results in all_results:
        for split, described in results.about["splits"].items():
            for row in described["published"]:
                if row["scores"].get(score) is not None:
                    place = (row["model"], row["protocol"], row["source"])
                    found.setdefault(place, {})[results.data, split] = row["scores"][score]
    return [
        [*place, SCORE_TITLES[score], *(percent(values.get(column)) for column in columns)]
        for place, values in found.items()
    ]


# ------------------------------------------------------------------------------------------------------------- cells


def spread(values: Sequence[float]) -> str:
    """Mean of fractions in per cent, with their standard deviation if they are several."""
    if any(np.isnan(values)):
        return UNKNOWN
    return percent(mean(values)) + (f" ± {100 * stdev(values):.2f}" if len(values) > 1 else "")


def signed(value: float) -> str:
    """A difference of fractions in per cent, with its sign; one that is rounded to 0 has that of 0."""
    return f"{round(100 * value, 2) + 0.0:+.2f}"
