# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which training rows an epoch has, and in which order: random, the objects of one picture next to each other."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class PictureGroupSampler(Sampler[int]):
    """
    Every row once per epoch: rows of one picture → groups of at most `group_size` → groups in random order.

    Neighbours in a batch then share a picture: stem and first stage run once for them, and the loss tells apart
    objects of the same picture. The order depends on seed and epoch only, so a resumed run goes on with the same.

    With `no_target_share`, the rows that mean something come once, and of the others as many as make up that share:
    some of them, other ones in every epoch, or some of them again.

    Args:
        image_ids: picture of each row.
        group_size: most rows of one picture that stand together.
        seed: of the run.
        is_no_target: whether each row means nothing in its picture.
        no_target_share: share of an epoch that means nothing, in [0, 1); by default that of the rows.

    Raises:
        ValueError: if there are no rows to make up the share.
    """

    def __init__(
        self,
        image_ids: Sequence,
        group_size: int,
        seed: int,
        is_no_target: Sequence[bool] = (),
        no_target_share: float | None = None,
    ):
        _, self.pictures = np.unique(np.asarray(image_ids), return_inverse=True)
        self.group_size = group_size
        self.seed = seed
        self.epoch = 0
        self.wanted, self.spare = np.arange(len(self.pictures)), np.arange(0)
        self.num_spare = 0
        if no_target_share is not None:
            self.wanted, self.spare = np.flatnonzero(~np.asarray(is_no_target)), np.flatnonzero(is_no_target)
            self.num_spare = round(len(self.wanted) * no_target_share / (1 - no_target_share))
            if not len(self.wanted) or (no_target_share > 0 and not len(self.spare)):
                lacking = "nothing" if len(self.wanted) else "something"
                raise ValueError(
                    f"no_target_share is {no_target_share}, and no training row means {lacking} in its picture; leave "
                    "it out, or add such rows."
                )

    def set_epoch(self, epoch: int):
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.wanted) + self.num_spare

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        chosen = self.wanted
        if self.num_spare:
            times = -(-self.num_spare // len(self.spare))
            spare = np.concatenate([rng.permutation(self.spare) for _ in range(times)])
            chosen = np.concatenate([chosen, spare[: self.num_spare]])
        chosen = chosen[np.argsort(self.pictures[chosen], kind="stable")]
        bounds = np.flatnonzero(np.diff(self.pictures[chosen])) + 1
        groups = []
        for rows in np.split(chosen, bounds):
            rows = rng.permutation(rows)
            groups += [rows[start : start + self.group_size] for start in range(0, len(rows), self.group_size)]
        for group in rng.permutation(len(groups)):
            yield from groups[group].tolist()
