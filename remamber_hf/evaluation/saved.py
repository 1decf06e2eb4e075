# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What `remamber evaluate --output_dir` wrote, read again: settings, and what was counted of every sample."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ..data.mixture import check_parquet
from ..data.reading import decode_text, read_json, read_regular_file
from ..messages import shorten
from .protocols import Protocol, protocol_of
from .scoring import Tally


RESULTS, SAMPLES = "results.json", "samples.parquet"
TOLERANCE = 1e-9  # of scores that another machine added up
# Columns of samples.parquet that are read, by what they hold; pandas writes a column without a value as nulls.
COLUMNS: dict[Callable[[pa.DataType], bool], tuple[str, ...]] = {
    pa.types.is_integer: (
        *("ref_id", "sentence_id", "picture", "object_area"),
        *("intersection", "union", "true_area"),
    ),
    pa.types.is_boolean: ("nothing_found",),
    lambda kind: pa.types.is_floating(kind) or pa.types.is_null(kind): ("presence", "iou"),
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind): (
        *("split", "image_file", "sentence", "target_kind"),
        *("length", "size", "category", "kind"),
    ),
}
METRICS = ("default", "generalized", "ref_zom", "r_refcoco")


@dataclass(frozen=True)
class SavedSplit:
    """A split that was evaluated: the rows of samples.parquet, and the same as counts."""

    table: pa.Table
    tally: Tally

    @property
    def pictures(self) -> np.ndarray:
        """Which picture each sample is of, integers (samples,)."""
        return self.table["picture"].to_numpy()


@dataclass(frozen=True)
class SavedResults:
    """A folder of results. about: what results.json says; splits: by name, in its order."""

    folder: Path
    about: dict[str, Any]
    splits: dict[str, SavedSplit]

    @property
    def protocol(self) -> Protocol:
        return protocol_of(self.about["protocol"])

    @property
    def data(self) -> str:
        """Name of the data set, and who split it."""
        return self.about["dataset"] + (f" ({self.about['split_by']})" if self.about["split_by"] else "")


def read_results(folder: str | Path) -> SavedResults:
    """
    Read a folder that `remamber evaluate --output_dir` wrote.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged, or they do not belong together.
    """
    folder = Path(folder)
    path = folder / RESULTS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give a folder that `remamber evaluate --output_dir` wrote.")
    samples = read_samples(folder)
    try:
        about = read_json(decode_text(read_regular_file(path), path))
        check_about(about)
        configuration, protocol = about["metric"], protocol_of(about["protocol"])
        splits = {name: read_split(samples, name, configuration) for name in about["splits"]}
        is_same = all(
            is_close(split.tally.scores(protocol), about["splits"][name]["scores"]) for name, split in splits.items()
        )
        if not splits:
            raise ValueError("it has no split")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {shorten(str(error))}"
        raise ValueError(f"{path} is not as `remamber evaluate` writes it ({reason}); evaluate again.") from error
    if not is_same:
        raise ValueError(f"{path} has other scores than {SAMPLES} beside it; evaluate again.")
    return SavedResults(folder, about, splits)


def check_about(about: dict[str, Any]) -> None:
    """KeyError, TypeError, AttributeError or ValueError unless results.json holds what is read of it."""
    protocol = about["protocol"]
    texts = [about["model"], about["dataset"], about["metric"]]
    texts += [protocol[name] for name in ("resize", "mask_overlap", "precision")]
    texts += [text for text in (about["split_by"], about["sentences"], protocol["name"]) if text is not None]
    numbers = [protocol["threshold"], protocol["epsilon"]]
    for split in about["splits"].values():
        for row in split["published"]:
            texts += [row["model"], row["protocol"], row["source"]]
            numbers += row["scores"].values()
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is no text")
    if not all(isinstance(number, float | int) and math.isfinite(number) for number in numbers):
        raise TypeError("a figure is no number")
    if about["metric"] not in METRICS or "size" not in protocol:
        raise ValueError("the metric is none of this package, or the protocol has no size")


def read_samples(folder: Path) -> pa.Table:
    """The samples of a folder of results; FileNotFoundError or ValueError if they are missing or damaged."""
    path = folder / SAMPLES
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give a folder that `remamber evaluate --output_dir` wrote.")
    try:
        check_parquet(folder)
        samples = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {shorten(str(error))}. Evaluate again.") from error
    for is_of, names in COLUMNS.items():
        for name in names:
            if samples.column_names.count(name) != 1 or not is_of(samples.schema.field(name).type):
                raise ValueError(f"{path} has no column {name!r} as `remamber evaluate` writes it; evaluate again.")
    return samples


def read_split(samples: pa.Table, name: str, configuration: str) -> SavedSplit:
    """The rows of a split; KeyError for a column that is missing, ValueError without a row or with an empty cell."""
    table = samples.filter(pa.compute.equal(samples["split"], name))
    columns = (
        *("intersection", "union", "true_area"),
        *("nothing_found", "target_kind", "ref_id", "sentence_id", "picture", "object_area", "sentence", "iou"),
    )
    empty = [column for column in columns if table[column].null_count]
    if empty or not len(table):
        raise ValueError(f"the split {name} has {len(table)} rows in {SAMPLES}, with empty cells in {empty}")
    presence = table["presence"]
    return SavedSplit(
        table,
        Tally(
            configuration=configuration,
            pixels=np.stack([table[column].to_numpy() for column in columns[:3]], axis=1),
            nothing_found=table["nothing_found"].to_numpy(),
            presence=None if presence.null_count else presence.to_numpy(),
            target_kinds=np.array(table["target_kind"].to_pylist()),
            ref_ids=table["ref_id"].to_numpy(),
        ),
    )


def is_close(scores: dict[str, float | None], others: dict[str, float | None]) -> bool:
    """Whether scores are the same but for rounding."""
    if scores.keys() != others.keys():
        return False
    pairs = [(value, others[name]) for name, value in scores.items()]
    return all(a is b if a is None or b is None else math.isclose(a, b, abs_tol=TOLERANCE) for a, b in pairs)
