# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What was counted of the samples of a split → the scores of its kind of data set; when nothing counts as found."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .protocols import OURS, Protocol
from .referring_iou.scores import (
    PRECISION_THRESHOLDS,
    Ratio,
    generalized_ratios,
    r_refcoco_ratios,
    ref_zom_ratios,
    referring_ratios,
    sample_ious,
)


# Names of data sets, in small letters, with their copies in other repositories.
REF_ZOM = ("ref-zom", "ref_zom", "refzom")
R_REFCOCO = tuple(f"{kind}{name}" for kind in ("r", "r-", "fp", "fp-") for name in ("refcoco", "refcoco+", "refcocog"))


def configuration_of(dataset: str, is_generalized: bool) -> str:
    """The configuration of the metric `referring_iou` for a data set of this name, of the Hub too."""
    name = dataset.rsplit("/", 1)[-1].lower()
    if not is_generalized:
        return "default"
    if name in REF_ZOM:
        return "ref_zom"
    return "r_refcoco" if name in R_REFCOCO else "generalized"


@dataclass(frozen=True)
class NothingRule:
    """
    When a model says that a sentence means nothing.

    presence_threshold: where its presence is below this; None for a model without a presence head, then
    min_pixels: where its mask has fewer pixels, at the size that is counted at.
    """

    presence_threshold: float | None = None
    min_pixels: int = 1

    def find(self, pixels: np.ndarray, presence: np.ndarray | None) -> np.ndarray:
        """Whether nothing is found, bool (samples,); see `Tally` for the arguments."""
        if self.presence_threshold is not None and presence is not None:
            return presence < self.presence_threshold
        intersections, unions, areas = pixels.T
        return intersections + unions - areas < self.min_pixels  # I + U - R is the prediction

    def describe(self) -> dict[str, float]:
        """What results.json says of it."""
        if self.presence_threshold is not None:
            return {"presence_below": self.presence_threshold}
        return {"pixels_below": self.min_pixels}


@dataclass(frozen=True)
class Tally:
    """
    What is known of the samples of a split, one entry each.

    configuration: of the metric. pixels: of intersection, union and true mask, int64 (samples, 3), of masks as they
    came. nothing_found: whether the model says that nothing is meant, bool. presence: the probability with which it
    says that something is, float32, None without a head. target_kinds: of `TARGET_KINDS`. ref_ids: int64.

    Where every sentence means one object, masks count as one gets them: empty where nothing is found.
    """

    configuration: str
    pixels: np.ndarray
    nothing_found: np.ndarray
    presence: np.ndarray | None
    target_kinds: np.ndarray
    ref_ids: np.ndarray

    def part(self, is_chosen: np.ndarray) -> "Tally":
        """Of some samples."""
        arrays = ("pixels", "nothing_found", "target_kinds", "ref_ids")
        chosen: dict[str, Any] = {name: getattr(self, name)[is_chosen] for name in arrays}
        return replace(self, **chosen, presence=None if self.presence is None else self.presence[is_chosen])

    def _as_one_gets_them(self) -> tuple[np.ndarray, np.ndarray]:
        """Intersections and unions of masks that are empty where nothing is found."""
        intersections, unions, areas = self.pixels.T
        return np.where(self.nothing_found, 0, intersections), np.where(self.nothing_found, areas, unions)

    @property
    def flags(self) -> dict[str, Any]:
        return {"nothing_found": self.nothing_found, "nothing_meant": self.target_kinds == "none"}

    def ious(self) -> np.ndarray:
        """Of each sample, float64; where nothing is meant, 1 if nothing is found and 0 if not."""
        if self.configuration == "default":
            return sample_ious(*self._as_one_gets_them())
        intersections, unions, areas = self.pixels.T
        blanks = self.configuration != "generalized"
        return sample_ious(intersections, unions, areas, **self.flags, blanks=blanks)

    def ratios(self, protocol: Protocol = OURS) -> dict[str, Ratio]:
        """The papers' scores as ratios of sums over samples."""
        intersections, unions, areas = self.pixels.T
        if self.configuration == "r_refcoco":
            return r_refcoco_ratios(intersections, unions, areas, self.ref_ids, **self.flags)
        if self.configuration != "default":
            compute = ref_zom_ratios if self.configuration == "ref_zom" else generalized_ratios
            return compute(intersections, unions, areas, **self.flags)
        intersections, unions = self._as_one_gets_them()
        ratios = referring_ratios(intersections, unions)
        if protocol.epsilon:
            ious = intersections / (unions + protocol.epsilon)
            ratios["miou"] = ratios["miou"]._replace(numerators=ious)
            for threshold in PRECISION_THRESHOLDS if protocol.is_strict else ():
                is_above = ious > np.float64(np.float32(threshold))
                ratios[f"precision@{threshold}"] = ratios["miou"]._replace(numerators=is_above)
        return ratios

    def ratios_of(self, is_chosen: np.ndarray, protocol: Protocol = OURS) -> dict[str, Ratio]:
        """Those of some samples; `samples` in them counts all."""
        places = np.flatnonzero(is_chosen)
        ratios = self.part(is_chosen).ratios(protocol)
        return {name: ratio._replace(samples=places[ratio.samples]) for name, ratio in ratios.items()}

    def scores(self, protocol: Protocol = OURS) -> dict[str, float | None]:
        """The papers' scores, fractions; None where no sample counts."""
        scores = {name: ratio.value for name, ratio in self.ratios(protocol).items()}
        return {name: None if np.isnan(value) else value for name, value in scores.items()}
