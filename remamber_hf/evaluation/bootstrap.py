# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""How sure a score is, and a difference of two: the bootstrap over pictures (Efron and Tibshirani, 1993).

The pictures of a split are drawn anew, as many, with replacement; all sentences of a picture come with it, since they
share what is easy or hard about it. Models that are compared get the same draws: what all of them find hard cancels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .referring_iou.scores import Ratio


NUM_DRAWS = 10_000
LEVEL = 0.95
MIN_PICTURES = 20  # with fewer, an interval at 95 % holds the truth in less than 90 % of cases
SEED = 0
DRAWN_AT_ONCE = 2**22  # pictures
ROUNDING = 1e-12  # a difference below this is that of one sum and the same in another order


class Bounds(NamedTuple):
    """How sure a difference is: from `low` to `high` at `LEVEL`; `p_value` that there is none, two-sided."""

    low: float
    high: float
    p_value: float


def draw_scores(
    ratios: Sequence[Ratio], pictures: np.ndarray, num_draws: int = NUM_DRAWS, seed: int = SEED
) -> np.ndarray:
    """
    Scores of pictures drawn anew, float64 (ratios, draws); nan where a draw has nothing that a score is about, and
    for a score that fewer than `MIN_PICTURES` have a part in.

    Args:
        ratios: scores, of any models, of the same samples.
        pictures: which picture each sample is of, integers (samples,).
    """
    _, pictures = np.unique(pictures, return_inverse=True)
    num_pictures = int(pictures.max()) + 1
    columns = [
        np.bincount(pictures[ratio.samples], weights=values, minlength=num_pictures)
        for ratio in ratios
        for values in (ratio.numerators, ratio.denominators)
    ]
    sums = np.stack(columns, axis=1)  # (pictures, 2 * ratios)
    generator = np.random.default_rng(seed)
    parts = []
    for start in range(0, num_draws, step := max(1, DRAWN_AT_ONCE // num_pictures)):
        count = min(step, num_draws - start)
        drawn = generator.integers(num_pictures, size=(count, num_pictures))
        places = (drawn + num_pictures * np.arange(count)[:, None]).ravel()
        times = np.bincount(places, minlength=count * num_pictures).reshape(count, num_pictures)
        parts.append(times.astype(np.float64) @ sums)
    numerators, denominators = np.concatenate(parts).T.reshape(len(ratios), 2, num_draws).swapaxes(0, 1)
    is_sure = np.count_nonzero(sums[:, 1::2], axis=0) >= MIN_PICTURES
    is_number = (denominators > 0) & is_sure[:, None]
    return np.divide(numerators, denominators, out=np.full_like(numerators, np.nan), where=is_number)


def interval(drawn: np.ndarray) -> tuple[float, float] | None:
    """The interval at `LEVEL` of a score of which these were drawn, by their percentiles; None if none counts."""
    drawn = drawn[~np.isnan(drawn)]
    if not drawn.size:
        return None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bound_difference(first: np.ndarray, second: np.ndarray) -> Bounds | None:
    """
    How sure it is by how much the second of two scores is above the first; None if no draw has both.

    Args:
        first, second: what was drawn of each, by the same draws, (draws,).
    """
    differences = second - first
    differences = differences[~np.isnan(differences)]
    differences[abs(differences) < ROUNDING] = 0
    bounds = interval(differences)
    if bounds is None:
        return None
    fewest = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return Bounds(*bounds, min(1.0, 2 * (fewest + 1) / (len(differences) + 1)))
