# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of `load_refer` → Parquet files with everything inside, for `datasets.load_dataset` without this package.

<output_dir>/README.md                    the card, whose header names the splits
<output_dir>/data/<split>-00000.parquet   rows with the picture and the mask as files in a column
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from ..files import make_whole_folder
from .rows import is_generalized, row_mask


ROWS_PER_GROUP = 100
MAX_SHARD_BYTES = 500_000_000

CARD = """\
---
pretty_name: {quoted_title}
task_categories:
- image-segmentation
tags:
- referring-image-segmentation
configs:
- config_name: default
  data_files:
{data_files}
---

# {title}

Referring image segmentation: pictures, and expressions that each mean {meaning}. Written by `remamber data export`.

| split | rows | sentences |
|---|---|---|
{counts}

```python
from datasets import load_dataset

data = load_dataset("FOLDER OR NAME ON THE HUB")
row = data["{first_split}"][0]
row["image"], row["mask"], row["sentences"]
```

- `image`: the picture. `height`, `width`: its size in pixels.
- `mask`: PNG of the same size with 1 bit per pixel, 1 for the object. {overlap}
- `sentences`: the expressions. `sentence_ids`: the id of each.
- `segmentation`: one entry per object, `polygons` ([x1, y1, x2, y2, …] in pixels) and `rles` (COCO's counts).
- `bbox`: x, y, width, height in pixels. `category`: name of the kind of object.
- `ref_id`, `ann_id`, `image_id`, `split`: as in the source.

Pictures and annotations keep the licence of their publishers.
"""
OVERLAP = (
    "Pixels that two parts of an object cover are 0, as in the published evaluation; `segmentation` has the parts."
)
UNION = "All objects of the row together."


def export_parquet(data: datasets.DatasetDict, output_dir: str | os.PathLike, title: str) -> dict[str, int]:
    """Write all splits of a data set; a folder that is not finished is removed again.

    Args:
        data: as `load_refer` and `load_referring_folder` give it.
        output_dir: folder to create; an empty one is filled, any other raises FileExistsError.
        title: name of the data set for its card.

    Returns the number of rows of each split.
    """
    with make_whole_folder(output_dir) as unfinished:
        (unfinished / "data").mkdir()
        for split, rows in data.items():
            _write_split(rows, unfinished / "data", split)
        (unfinished / "README.md").write_text(write_card(data, title), encoding="utf-8")
    return {split: len(rows) for split, rows in data.items()}


def write_card(data: datasets.DatasetDict, title: str) -> str:
    """Return the README.md of an exported data set."""
    is_generalized_set = is_generalized(next(iter(data.values())))
    sentences = {
        split: sum(len(texts) for texts in rows.select_columns("sentences")["sentences"])
        for split, rows in data.items()
    }
    return CARD.format(
        title=title,
        quoted_title=json.dumps(title, ensure_ascii=False),
        data_files="\n".join(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in data),
        meaning="any number of objects, none included" if is_generalized_set else "one object",
        counts="\n".join(f"| {split} | {len(rows)} | {sentences[split]} |" for split, rows in data.items()),
        first_split=next(iter(data)),
        overlap=UNION if is_generalized_set else OVERLAP,
    )


def _write_split(rows: datasets.Dataset, folder: Path, split: str) -> None:
    columns = list(rows.features.items())
    features = datasets.Features(dict([columns[0], ("mask", datasets.Image()), *columns[1:]]))
    groups = _encode_groups(rows.cast_column("image", datasets.Image(decode=False)), split)
    group = next(groups, None)
    shard = 0
    while group is not None:
        num_bytes = 0
        with pq.ParquetWriter(folder / f"{split}-{shard:05d}.parquet", features.arrow_schema) as writer:
            while group is not None and num_bytes < MAX_SHARD_BYTES:
                table = pa.Table.from_pylist(group, features.arrow_schema)
                writer.write_table(table)
                num_bytes += table.nbytes
                group = next(groups, None)
        shard += 1


def _encode_groups(rows: datasets.Dataset, split: str) -> Iterator[list[dict]]:
    """Yield rows in groups, with the bytes of picture and mask in them."""
    group = []
    for row in tqdm(rows, desc=f"Exporting {split}", disable=None):
        image = row["image"]
        content = Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]
        name = None if image["path"] is None else os.path.basename(image["path"])
        mask = {"path": None, "bytes": _encode_mask(row)}
        group.append({**row, "image": {"path": name, "bytes": content}, "mask": mask})
        if len(group) == ROWS_PER_GROUP:
            yield group
            group = []
    if group:
        yield group


def _encode_mask(row: dict) -> bytes:
    content = io.BytesIO()
    Image.fromarray(row_mask(row)).save(content, "PNG")
    return content.getvalue()
