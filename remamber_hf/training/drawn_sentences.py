# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The sentence that a row is trained with, and how it is varied, as a function of seed, epoch and row alone."""

from zlib import crc32

import numpy as np
import torch
from torch.utils.data import Dataset

from ..data.rows import ids_of
from .augmentation import vary


class DrawnSentences(Dataset):
    """
    Rows with one of their sentences each, drawn anew in every epoch.

    The collator draws from a random state that moves on with every batch of a worker, so a run that is resumed, or
    has another number of workers or processes, would see other sentences. What is drawn here is the same in all.

    Args:
        rows: of `load_refer`.
        seed: of the run.
        variations: names of `augmentation.VARIATIONS`; rows of one picture are varied alike, so that they share it.
    """

    def __init__(self, rows, seed: int, variations: tuple[str, ...] = ()):
        self.rows = rows
        self.seed = seed
        self.variations = variations
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # so that workers that live on see it change

    def set_epoch(self, epoch: int):
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        sentences = row.get("sentences") if isinstance(row, dict) else None
        if isinstance(sentences, str) or sentences is None or not len(sentences):
            return row  # for a collator of another kind, or for ours to refuse
        draws = np.random.default_rng((self.seed, int(self.epoch), index))
        drawn = draws.integers(len(sentences))
        one = {"sentences": [sentences[drawn]]}
        if "sentence_ids" in row:
            one["sentence_ids"] = [ids_of(sentences, row["sentence_ids"])[drawn]]
        if not self.variations:
            return {**row, **one}
        picture = crc32(repr(row.get("image_id", ("row", index))).encode())
        return vary({**row, **one}, self.variations, (self.seed, int(self.epoch), picture))
