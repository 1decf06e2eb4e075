# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The order of training rows: random, with the objects of one picture next to each other."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class PictureGroupSampler(Sampler[int]):
    """
    Every row once per epoch: rows of one picture → groups of at most `group_size` → groups in random order.

    Neighbours in a batch then share a picture: stem and first stage run once for them, and the loss tells apart
    objects of the same picture. The order depends on seed and epoch only, so a resumed run goes on with the same.

    Args:
        image_ids: picture of each row.
        group_size: most rows of one picture that stand together.
        seed: of the run.
    """

    def __init__(self, image_ids: Sequence, group_size: int, seed: int):
        _, pictures = np.unique(np.asarray(image_ids), return_inverse=True)
        self.rows = np.argsort(pictures, kind="stable")
        self.bounds = np.flatnonzero(np.diff(pictures[self.rows])) + 1
        self.group_size = group_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        groups = []
        for rows in np.split(self.rows, self.bounds):
            rows = rng.permutation(rows)
            groups += [rows[start : start + self.group_size] for start in range(0, len(rows), self.group_size)]
        for group in rng.permutation(len(groups)):
            yield from groups[group].tolist()
