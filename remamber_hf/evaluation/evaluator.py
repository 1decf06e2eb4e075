# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
A model on every split of a data set, by one process or several.

rows → samples → batches of whole pictures → masks at the pictures' size → pixel counts → gathered; `scoring.py` makes
scores of them, and `results.py` tables. The batches are the same for any number of processes, and so are the scores.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow.compute
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.rle import decode_mask, encode_mask
from ..data.rows import TARGET_KINDS, is_generalized, row_mask
from ..inference.devices import DTYPES
from ..inference.visualization import Sample as Tile
from ..inference.visualization import draw_sheet
from ..modeling_remamber import ReMamberForImageSegmentation
from ..pictures import to_rgb
from ..post_processing_remamber import find_presence
from ..processing_remamber import ReMamberProcessor
from .protocols import OURS, Protocol
from .referring_iou.scores import count_pixels
from .scoring import NothingRule, Tally, configuration_of


TRAINING_SPLIT = "train"
MASK_COLUMNS = ["ann_id", "height", "width", "segmentation"]
SHEET_COLUMNS = 4


@dataclass(frozen=True)
class Sample:
    """
    A sentence of a split.

    row: where its object is in the split. ann_id: an id, or where sentences may mean nothing or several, a list.
    picture: what sentences of one picture share. image_file: None if unknown.
    """

    row: int
    ref_id: int
    ann_id: int | list[int]
    image_id: int
    sentence_id: int
    picture: str
    image_file: str | None
    sentence: str


def choose_splits(data: datasets.DatasetDict, splits: str | None) -> datasets.DatasetDict:
    """The splits that are named with commas between, by default all but that for training."""
    if splits is None:
        names = [name for name in data if name != TRAINING_SPLIT]
        if not names:
            raise ValueError(f"there is only the split {TRAINING_SPLIT}; evaluate it with --splits {TRAINING_SPLIT}.")
    else:
        names = [name.strip() for name in splits.split(",")]
    unknown = [name for name in names if name not in data]
    if unknown:
        raise ValueError(f"there is no split {unknown[0]!r}; choose --splits from {', '.join(data)}.")
    return datasets.DatasetDict({name: data[name] for name in names})


def list_samples(rows: datasets.Dataset, split: str, max_samples: int | None) -> list[Sample]:
    """
    One sample per sentence, in the order of the rows; no picture is decoded.

    Raises:
        FileNotFoundError: if a picture is missing.
        ValueError: if there is no sentence.
    """
    columns = ["image", "sentences", "sentence_ids", "ref_id", "ann_id", "image_id"]
    samples = []
    for index, row in enumerate(rows.select_columns(columns).cast_column("image", datasets.Image(decode=False))):
        path = row["image"]["path"]
        if row["image"]["bytes"] is None and not Path(path).is_file():
            raise FileNotFoundError(f"the picture {path} of split {split} is missing; put it back.")
        # Ids may come again where data sets were put together.
        content = row["image"]["bytes"]
        picture = path if content is None else hashlib.sha256(content).hexdigest()
        image_file = None if path is None else os.path.basename(path)
        ids = (row["ref_id"], row["ann_id"], row["image_id"])
        samples += [
            Sample(index, *ids, sentence_id, picture, image_file, sentence)
            for sentence_id, sentence in zip(row["sentence_ids"], row["sentences"], strict=True)
        ]
        if max_samples is not None and len(samples) >= max_samples:
            break
    if not samples:
        raise ValueError(f"the split {split} has no sentence; choose others with --splits.")
    return samples[:max_samples]


def make_batches(samples: list[Sample], batch_size: int) -> list[list[int]]:
    """
    Indices of at most `batch_size` samples each; those of one picture stand together.

    They depend on nothing else, the number of processes least of all: the size of a batch can change the last digit
    of a logit.
    """
    pictures: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        pictures.setdefault(sample.picture, []).append(index)
    batches: list[list[int]] = [[]]
    for indices in pictures.values():
        for start in range(0, len(indices), batch_size):
            part = indices[start : start + batch_size]
            if len(batches[-1]) + len(part) > batch_size:
                batches.append([])
            batches[-1] += part
    return batches


@dataclass(frozen=True)
class Split:
    """A split as it is evaluated: `batches` holds indices into `samples`, whose `row` is one of `rows`."""

    name: str
    rows: datasets.Dataset
    samples: list[Sample]
    batches: list[list[int]]

    @property
    def is_generalized(self) -> bool:
        """Whether a sentence may mean several objects or none."""
        return is_generalized(self.rows)

    @property
    def target_kinds(self) -> np.ndarray:
        """Which of `TARGET_KINDS` each sample is of, (samples,)."""
        lengths = pyarrow.compute.list_value_length(self.rows.with_format("arrow")["segmentation"][:]).to_numpy()
        kinds = np.array(TARGET_KINDS)[np.minimum(lengths, 2)]
        return kinds[[sample.row for sample in self.samples]]


class Found(NamedTuple):
    """What a model says of a sample: mask, bool (height, width), and presence in [0, 1], None without a head."""

    mask: np.ndarray
    presence: float | None = None


@dataclass(frozen=True)
class Count:
    """
    What was counted of a split.

    tally: of its samples. object_areas: pixels of what each means at its picture's size, int64 (samples,). masks:
    those found, as RLEs at the size that was counted at and as they came; empty unless they are kept.
    """

    tally: Tally
    object_areas: np.ndarray
    masks: list[dict]


class EvaluationBatches(Dataset):
    """number of a batch → (indices of its samples, model inputs with each picture once, true masks as RLE, areas)."""

    def __init__(self, split: Split, numbers: list[int], processor: ReMamberProcessor, protocol: Protocol):
        self.protocol = protocol
        self.samples = split.samples
        self.batches = [split.batches[number] for number in numbers]
        self.pictures = split.rows.select_columns(["image"])
        self.masks = split.rows.select_columns(MASK_COLUMNS)
        self.processor = processor

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[list[int], dict[str, torch.Tensor], list[dict], list[int]]:
        indices = self.batches[number]
        images, sentences, masks, areas = [], [], {}, {}
        for _, samples in groupby((self.samples[index] for index in indices), key=lambda sample: sample.picture):
            group = list(samples)
            images.append(self.pictures[group[0].row]["image"])
            sentences.append([sample.sentence for sample in group])
            for row in {sample.row for sample in group}:
                truth = self.protocol.truth_of(self.masks[row])
                masks[row] = encode_mask(truth)
                is_whole = self.protocol.side is None
                areas[row] = int((truth if is_whole else row_mask(self.masks[row], self.protocol.mask_overlap)).sum())
        inputs = self.processor(images=images, text=sentences, return_tensors="pt")
        rows = [self.samples[index].row for index in indices]
        return indices, dict(inputs), [masks[row] for row in rows], [areas[row] for row in rows]


class Evaluator:
    """A model on one split after another: `count` in all processes together, `draw` in one."""

    def __init__(
        self,
        model: ReMamberForImageSegmentation,
        processor: ReMamberProcessor,
        dtype: str = "float32",
        num_workers: int = 0,
        protocol: Protocol = OURS,
        nothing: NothingRule = NothingRule(),  # noqa: B008  # frozen
    ):
        self.model = model
        self.processor = processor
        self.protocol = protocol
        self.nothing = nothing
        self.dtype = DTYPES[dtype]
        self.num_workers = num_workers

    def predict(self, inputs: dict[str, torch.Tensor], sizes: list[tuple[int, int]]) -> Iterator[Found]:
        """Mask and presence of each expression, the mask at the size of its picture and whatever the presence."""
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        is_mixed = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self.model.device.type, self.dtype, enabled=is_mixed):
            outputs = self.model(**inputs, return_dict=True)
        presence = find_presence(outputs)
        probabilities = [None] * len(sizes) if presence is None else presence.tolist()
        # One mask in memory at a time.
        for logits, size, probability in zip(outputs.logits.split(1), sizes, probabilities, strict=True):
            (mask,) = self.processor.post_process_referring_segmentation(
                logits, target_sizes=[size], threshold=self.protocol.threshold, interpolation=self.protocol.resize
            )
            yield Found(mask.cpu().numpy(), probability)

    def segment(self, split: Split, numbers: list[int]) -> Iterator[tuple[int, Found, np.ndarray, int]]:
        """Index, prediction, true mask and the object's area of every sample in the batches of these numbers."""
        batches = EvaluationBatches(split, numbers, self.processor, self.protocol)
        for indices, inputs, truths, areas in DataLoader(batches, batch_size=None, num_workers=self.num_workers):
            predictions = self.predict(inputs, [tuple(truth["size"]) for truth in truths])
            yield from zip(indices, predictions, map(decode_mask, truths), areas)

    def count(self, split: Split, dataset: str, keeps_masks: bool = False) -> Count:
        """What is counted of every sample of a split of `dataset`; the same in every process."""
        state = PartialState()
        numbers = list(range(state.process_index, len(split.batches), state.num_processes))
        counts = []
        with tqdm(
            total=sum(len(split.batches[number]) for number in numbers),
            desc=split.name,
            unit=" sentences",
            disable=None if state.is_main_process else True,
        ) as bar:
            for index, found, truth, area in self.segment(split, numbers):
                kept = [encode_mask(found.mask)] if keeps_masks else []
                counts.append((index, *count_pixels(found.mask, truth), area, found.presence, kept))
                bar.update()
        columns = list(zip(*sorted(gather_object(counts), key=itemgetter(0))))
        pixels = np.array(columns[1:4], dtype=np.int64).T
        presence = None if None in columns[5] else np.array(columns[5], dtype=np.float32)
        tally = Tally(
            configuration=configuration_of(dataset, split.is_generalized),
            pixels=pixels,
            nothing_found=self.nothing.find(pixels, presence),
            presence=presence,
            target_kinds=split.target_kinds,
            ref_ids=np.array([sample.ref_id for sample in split.samples]),
        )
        return Count(tally, np.array(columns[4], dtype=np.int64), list(chain.from_iterable(columns[6])))

    def draw(self, split: Split, tally: Tally, chosen: list[int]) -> Image.Image:
        """A sheet of the chosen samples, in this order: the true mask, and the prediction beside it."""
        numbers = [number for number, batch in enumerate(split.batches) if not set(batch).isdisjoint(chosen)]
        ious, tiles = tally.ious(), {}
        for index, found, truth, _ in self.segment(split, numbers):
            if index in chosen:
                title = describe_found(ious[index], found.presence, tally.nothing_found[index])
                tiles[index] = make_tiles(split, index, found.mask, truth, title)
        return draw_sheet([tile for index in chosen for tile in tiles[index]], SHEET_COLUMNS)


def describe_found(iou: float, presence: float | None, is_nothing: bool) -> str:
    """What stands above a prediction that is drawn."""
    words = [f"prediction, IoU {iou:.3f}"] if presence is None else [f"IoU {iou:.3f}", f"presence {presence:.2f}"]
    return ", ".join(words) + (": nothing found" if is_nothing else "")


def make_tiles(split: Split, index: int, prediction: np.ndarray, truth: np.ndarray, found: str) -> list[Tile]:
    sample = split.samples[index]
    picture = to_rgb(split.rows[sample.row]["image"])
    if truth.shape != (picture.height, picture.width):  # a protocol that squashes
        picture = picture.resize(truth.shape[::-1])
    meant = f"truth, ref {sample.ref_id}" + ("" if truth.any() else ": means nothing here")
    return [Tile(picture, truth, meant, [sample.sentence]), Tile(picture, prediction, found, [])]
