# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation as the papers' table, in Markdown."""

from typing import Any

from .bootstrap import LEVEL, MIN_PICTURES, NUM_DRAWS
from .referring_iou.scores import PRECISION_THRESHOLDS, TARGET_PRECISION_THRESHOLDS
from .tables import Table, write_markdown


SCORE_TITLES = {
    "oiou": "oIoU",
    "miou": "mIoU",
    **{f"precision@{threshold}": f"P@{threshold}" for threshold in PRECISION_THRESHOLDS},
    "acc": "Acc",
    "mrr": "mRR",
    "riou": "rIoU",
    "giou": "gIoU",
    "ciou": "cIoU",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    **{f"target_precision@{threshold}": f"Pr@{threshold}" for threshold in TARGET_PRECISION_THRESHOLDS},
}
# What results.json calls the parts of a split → what stands above their table, and above the column of their names.
PART_TITLES = {
    "target_kinds": ("By objects that are meant", "objects"),
    "kinds": ("By kind of expression", "kind"),
    "lengths": ("By length of the expression", "words"),
    "sizes": ("By size of what is meant", "size"),
    "categories": ("By category of what is meant", "category"),
}
NO_NAME = "no name"  # of the protocol
UNKNOWN = "–"


def write_report(results: dict) -> str:
    """
    The scores of every split with the published ones below them, then those of the parts that the splits come in.

    Args:
        results: what `remamber evaluate` writes as JSON; scores are fractions, None where there is none.

    Returns:
        Markdown; the scores in it are in per cent.
    """
    splits = results["splits"]
    titles = {name: title for name, title in SCORE_TITLES.items() if name in next(iter(splits.values()))["scores"]}
    protocol = results["protocol"]["name"] or NO_NAME
    groups: list[list[list[str]]] = []
    for split, result in splits.items():
        rows = [[split, "this model", protocol, *_cells(result, titles), f"{result['num_sentences']}"]]
        for published in result["published"]:
            rows.append([split, published["model"], published["protocol"], *_cells(published, titles), ""])
        groups.append(rows)
    data = results["dataset"] + (f" ({results['split_by']})" if results["split_by"] else "")
    text = f"# {results['model']} on {data}\n\n{_describe(results)}\n\n"
    text += write_markdown(Table(["split", "model", "protocol", *titles.values(), "sentences"], groups, num_left=3))
    for name, (title, header) in PART_TITLES.items():
        groups = [
            [
                [split, part, *_cells(scores, titles), f"{scores['num_sentences']}"]
                for part, scores in result[name].items()
            ]
            for split, result in splits.items()
        ]
        if any(groups):
            text += f"\n## {title}\n\n"
            text += write_markdown(Table(["split", header, *titles.values(), "sentences"], groups))
    sources = {row["model"]: row["source"] for result in splits.values() for row in result["published"]}
    if sources:
        text += "\n## Sources of published figures\n\n"
        text += "".join(f"- {model}: {source}\n" for model, source in sources.items())
    return text


def _describe(results: dict) -> str:
    protocol = results["protocol"]
    size = protocol["size"]
    words = [
        "Scores in per cent",
        "counted at the picture's size" if isinstance(size, str) else f"counted at {size[0]}×{size[1]} pixels",
        f"logits resized: {protocol['resize']}",
        f"pictures prepared by {protocol['image_backend']}",
        f"object where the probability is above {protocol['threshold']}",
        f"computed in {protocol['dtype']}",
    ]
    if results["sentences"]:
        words.append(f"text of the data set: {results['sentences']}")
    if "nothing_found" in protocol:
        ((measure, bound),) = protocol["nothing_found"].items()
        words.append(
            f"nothing found where the {'presence' if measure == 'presence_below' else 'number of pixels'} is "
            f"below {bound}"
        )
    words.append(f"protocol: {protocol['name'] or NO_NAME}")
    if results["max_samples"]:
        words.append(f"only the first {results['max_samples']} sentences of each split")
    if any("intervals" in split for split in results["splits"].values()):
        words.append(f"in brackets the interval at {LEVEL:.0%} of a bootstrap over pictures, {NUM_DRAWS:,} draws")
        words.append(f"none for fewer than {MIN_PICTURES} pictures")
    return "; ".join(words) + "."


def percent(value: float | None) -> str:
    """A fraction as a cell in per cent."""
    return UNKNOWN if value is None else f"{100 * value:.2f}"


def _cells(described: dict[str, Any], titles: dict[str, str]) -> list[str]:
    """Scores in per cent, each with its interval if there are intervals."""
    cells = []
    for name in titles:
        cell = percent(described["scores"].get(name))
        bounds = described.get("intervals", {}).get(name)
        cells.append(cell if bounds is None else f"{cell} [{percent(bounds[0])}, {percent(bounds[1])}]")
    return cells
