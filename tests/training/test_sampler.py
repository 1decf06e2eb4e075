# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from itertools import groupby

import pytest

from remamber_hf.training.sampler import PictureGroupSampler


# 40 pictures of 1 to 7 objects, their rows shuffled.
IMAGE_IDS = [picture for turn in range(7) for picture in range(100, 140) if picture % 7 >= turn]


def runs(order: list[int]) -> list[tuple[int, int]]:
    """(picture, number of rows) of each run of rows of one picture."""
    return [(picture, len(list(rows))) for picture, rows in groupby(order, key=IMAGE_IDS.__getitem__)]


def test_an_epoch_visits_every_row_once():
    sampler = PictureGroupSampler(IMAGE_IDS, group_size=4, seed=0)
    assert sorted(sampler) == list(range(len(IMAGE_IDS)))
    assert len(sampler) == len(IMAGE_IDS)


@pytest.mark.parametrize("group_size", [2, 4, 100])
def test_the_rows_of_a_picture_stand_in_groups(group_size):
    sampler = PictureGroupSampler(IMAGE_IDS, group_size, seed=0)
    num_groups = sum(-(-count // group_size) for count in Counter(IMAGE_IDS).values())
    assert len(runs(list(sampler))) <= num_groups


def test_no_group_is_larger_than_asked():
    # Two groups of one picture can meet by chance, not three in these epochs.
    sampler = PictureGroupSampler(IMAGE_IDS, group_size=2, seed=0)
    assert max(length for _, length in runs(list(sampler))) <= 4


def test_the_order_depends_on_seed_and_epoch_only():
    sampler = PictureGroupSampler(IMAGE_IDS, group_size=4, seed=0)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    other = PictureGroupSampler(IMAGE_IDS, group_size=4, seed=0)
    other.set_epoch(1)
    assert list(other) == second
    assert list(PictureGroupSampler(IMAGE_IDS, group_size=4, seed=1)) != first
