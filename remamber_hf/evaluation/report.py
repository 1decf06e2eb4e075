# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation as the papers' table, in Markdown."""

from .referring_iou.scores import PRECISION_THRESHOLDS, TARGET_PRECISION_THRESHOLDS


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


def write_report(results: dict) -> str:
    """
    The scores of every split with the published ones below them, then those of every kind of target and of expression.

    Args:
        results: what `remamber evaluate` writes as JSON; scores are fractions, None where there is none.

    Returns:
        Markdown; the scores in it are in per cent.
    """
    splits = results["splits"]
    titles = {name: title for name, title in SCORE_TITLES.items() if name in next(iter(splits.values()))["scores"]}
    protocol = results["protocol"]["name"] or "default"
    rows: list[list[str]] = []
    target_rows: list[list[str]] = []
    kind_rows: list[list[str]] = []
    for split, result in splits.items():
        scores = _cells(result["scores"], titles)
        rows.append([split, "this model", protocol, *scores, f"{result['num_sentences']}"])
        for published in result["published"]:
            rows.append([split, published["model"], published["protocol"], *_cells(published["scores"], titles), ""])
        for part_rows, parts in ((target_rows, result["target_kinds"]), (kind_rows, result["kinds"])):
            for kind, part in parts.items():
                part_rows.append([split, kind, *_cells(part["scores"], titles), f"{part['num_sentences']}"])
    data = results["dataset"] + (f" ({results['split_by']})" if results["split_by"] else "")
    lines = [f"# {results['model']} on {data}", "", _describe(results), ""]
    lines += _table(["split", "model", "protocol", *titles.values(), "sentences"], rows, num_left=3)
    for title, part_rows in (("By objects that are meant", target_rows), ("By kind of expression", kind_rows)):
        if part_rows:
            lines += ["", f"## {title}", ""]
            lines += _table(["split", "kind", *titles.values(), "sentences"], part_rows)
    return "\n".join(lines) + "\n"


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
    if "nothing_found" in protocol:
        ((measure, bound),) = protocol["nothing_found"].items()
        words.append(
            f"nothing found where the {'presence' if measure == 'presence_below' else 'number of pixels'} is "
            f"below {bound}"
        )
    if protocol["name"]:
        words.append(f"protocol: {protocol['name']}")
    if results["max_samples"]:
        words.append(f"only the first {results['max_samples']} sentences of each split")
    return "; ".join(words) + "."


def _cells(scores: dict[str, float | None], titles: dict[str, str]) -> list[str]:
    values = [scores.get(name) for name in titles]
    return ["–" if value is None else f"{100 * value:.2f}" for value in values]


def _table(header: list[str], rows: list[list[str]], num_left: int = 2) -> list[str]:
    """Lines of a Markdown table that is aligned as plain text too; the first `num_left` columns to the left."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rules = ["-" * width if column < num_left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    aligned = [
        [
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        for row in [header, *rows]
    ]
    return ["| " + " | ".join(cells) + " |" for cells in [aligned[0], rules, *aligned[1:]]]
