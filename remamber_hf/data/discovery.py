# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which data sets a folder holds: refs files of REFER sets, or a metadata file of one's own pictures."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..messages import shorten
from .published import PUBLISHED_SETS, REFS_NAMES, published_name


METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


def find_metadata(folder: str | os.PathLike) -> Path | None:
    """Return the metadata file of a folder, None if it has none; ValueError if it has two."""
    paths = [path for path in (Path(folder) / name for name in METADATA_NAMES) if path.is_file()]
    if len(paths) == 2:
        raise ValueError(f"{folder} holds {METADATA_NAMES[0]} and {METADATA_NAMES[1]}; keep one of them.")
    return paths[0] if paths else None


@dataclass(frozen=True)
class DataSetFile:
    """A refs file that is there, by the name of its set or its folder; `generalized` if it is a grefs file."""

    dataset: str
    split_by: str
    generalized: bool = False

    def __str__(self) -> str:
        return shorten(f"{self.dataset} ({self.split_by}{', generalised' if self.generalized else ''})")


def find_data_sets(data_dir: str | os.PathLike) -> list[DataSetFile]:
    """Return the refs and grefs files in the folders of `data_dir`, and what stands for them, in order of names."""
    data_dir = Path(data_dir).expanduser()
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir} is no folder; give the one that holds the data sets and the pictures.")
    found = []
    for path in sorted(data_dir.glob("*/*")):
        dataset = published_name(path.parent.name)
        match = re.fullmatch(r"(g?)refs\((.+)\)\.(p|json)", path.name)
        if not path.is_file() or not str(path).isprintable():
            continue
        if path.name in REFS_NAMES.get(dataset, ()):
            found.append(DataSetFile(dataset, PUBLISHED_SETS[dataset][0]))
        elif dataset not in REFS_NAMES and match and bool(match[1]) == (match[3] == "json"):
            found.append(DataSetFile(dataset, match[2], bool(match[1])))
    return list(dict.fromkeys(found))
