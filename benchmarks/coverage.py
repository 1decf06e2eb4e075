# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""How often the intervals of the bootstrap over pictures hold the truth, which in a simulation is known.

Two models on pictures that are hard or easy for both, 1 to 8 sentences each; objects of very different sizes; one mask
in eight misses its object. The truth is the scores of 400,000 pictures. 1,000 samples of each number of pictures.
"""

import numpy as np

from remamber_hf.evaluation.bootstrap import MIN_PICTURES, bound_difference, draw_scores, interval
from remamber_hf.evaluation.referring_iou.scores import Ratio, referring_ratios
from remamber_hf.evaluation.tables import Table, write_markdown


SCORES = {"miou": "mIoU", "oiou": "oIoU", "precision@0.5": "P@0.5", "precision@0.9": "P@0.9"}
NUM_PICTURES = (20, 30, 50, 100, 300)
NUM_SAMPLES, NUM_DRAWS = 1000, 1000


def simulate(rng: np.random.Generator, num_pictures: int) -> tuple[list[dict[str, Ratio]], np.ndarray]:
    """The scores of two models, and which picture each sample is of."""
    pictures = np.repeat(np.arange(num_pictures), rng.integers(1, 9, num_pictures))
    num_sentences = len(pictures)
    ease = rng.normal(1, 1, num_pictures)[pictures]
    unions = (1.2 * np.exp(rng.normal(8, 1.2, num_pictures)[pictures])).astype(int) + 2
    models = []
    for gain in (0.0, 0.2):
        ious = 1 / (1 + np.exp(-(ease + gain + rng.normal(0, 1, num_sentences))))
        ious[rng.random(num_sentences) < 0.12] = 0
        models.append(referring_ratios((ious * unions).astype(int), unions))
    return models, pictures


def main() -> None:
    rng = np.random.default_rng(1)
    (first, second), _ = simulate(rng, 400_000)
    truth = {name: (first[name].value, second[name].value) for name in SCORES}
    rows = []
    for num_pictures in NUM_PICTURES:
        holds = np.zeros((2, len(SCORES)))
        for seed in range(NUM_SAMPLES):
            models, pictures = simulate(rng, num_pictures)
            drawn = draw_scores([model[name] for model in models for name in SCORES], pictures, NUM_DRAWS, seed)
            for place, name in enumerate(SCORES):
                low, high = interval(drawn[place])
                holds[0, place] += low <= truth[name][0] <= high
                bounds = bound_difference(drawn[place], drawn[len(SCORES) + place])
                holds[1, place] += bounds.low <= truth[name][1] - truth[name][0] <= bounds.high
        for what, shares in zip(("score", "difference"), holds / NUM_SAMPLES):
            rows.append([f"{num_pictures}", what, *(f"{share:.1%}" for share in shares)])
    print(f"Intervals at 95 %; none is given for fewer than {MIN_PICTURES} pictures.\n")
    print(write_markdown(Table(["pictures", "interval of", *SCORES.values()], [rows])), end="")


if __name__ == "__main__":
    main()
