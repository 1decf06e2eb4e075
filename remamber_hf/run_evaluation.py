# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Command: the papers' table for a model, every split of a data set in one run, by one process or several.

rows → samples → batches of whole pictures → masks at the pictures' size → pixel counts → gathered → scores, Parquet,
contact sheets. The batches are the same for any number of processes, and so are the scores.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers.utils import logging

from .data.check import PUBLISHED_COUNTS
from .data.collator import decode_mask, encode_mask
from .data.expressions import KINDS, expression_kind
from .data.mixture import is_generalized, load_one
from .data.refer import row_mask
from .environment import describe_environment
from .image_backend import image_backend, with_pil
from .image_processing_remamber import LOGIT_INTERPOLATIONS
from .loading import DEVICES, find_device, load_model
from .metrics.published import PUBLISHED_RESULTS, PublishedResult
from .metrics.referring_iou.scores import (
    PRECISION_THRESHOLDS,
    count_pixels,
    generalized_iou,
    referring_iou,
    sample_ious,
)
from .metrics.report import write_report
from .modeling_remamber import ReMamberForImageSegmentation
from .pictures import to_rgb
from .processing_remamber import ReMamberProcessor
from .visualization import Sample as Tile
from .visualization import draw_sheet
from .whole_files import check_new_folder, make_whole_folder


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
THRESHOLD = 0.5
TRAINING_SPLIT = "train"
MASK_COLUMNS = ["ann_id", "height", "width", "segmentation"]
SHEET_COLUMNS = 4
SHEET_SEED = 0


@dataclass(frozen=True)
class Protocol:
    """
    How a published code counts, or this package where `name` is None. Facts were read in those codes.

    resize: how logits get the size that is counted at. side: of the square that the truth is squashed to, or None for
    the picture's own size. mask_overlap: see `row_mask`. truth: where it is squashed, "mask" (nearest) or "polygons".
    threshold: an object is where the probability is above it. epsilon: what is added to unions of single samples.
    is_strict: whether precision counts IoU > X, where X is in float32, instead of IoU ≥ X.
    """

    name: str | None = None
    resize: str = "bilinear"
    side: int | None = None
    mask_overlap: str = "published"
    truth: str = "mask"
    threshold: float = THRESHOLD
    epsilon: float = 0.0
    is_strict: bool = False

    def truth_of(self, row: dict) -> np.ndarray:
        """The true mask of a row, bool, at the size that is counted at."""
        if self.side is None:
            return row_mask(row, self.mask_overlap)
        if self.truth == "polygons":
            return squashed_union(row, self.side)
        mask = Image.fromarray(row_mask(row, self.mask_overlap).astype(np.uint8))
        return np.asarray(mask.resize((self.side, self.side), Image.Resampling.NEAREST)).astype(bool)

    def describe(self) -> dict:
        """What results.json says of it."""
        return {
            "name": self.name,
            "resize": self.resize,
            "size": "the picture's" if self.side is None else [self.side, self.side],
            "threshold": self.threshold,
            "mask_overlap": self.mask_overlap,
            "precision": "IoU > X" if self.is_strict else "IoU ≥ X",
        }


PROTOCOLS = {
    "published": Protocol("published", "nearest"),
    "lavt": Protocol("lavt", side=480),
    "rela": Protocol("rela", side=480, mask_overlap="union", truth="polygons"),
    "cris": Protocol("cris", mask_overlap="union", threshold=0.35, epsilon=1e-6, is_strict=True),
}


def squashed_union(row: dict, side: int) -> np.ndarray:
    """The union of a row's objects with polygons scaled to a square before they are drawn; RLEs are drawn first."""
    height, width = int(row["height"]), int(row["width"])
    scale = np.array([side / width, side / height])
    mask = np.zeros((side, side), dtype=bool)
    for segmentation in row["segmentation"]:
        polygons = [(np.reshape(part, (-1, 2)) * scale).ravel().tolist() for part in segmentation["polygons"]]
        if polygons:
            mask |= coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, side, side))).astype(bool)
        else:
            one = {**row, "segmentation": [segmentation]}
            drawn = Image.fromarray(row_mask(one, "union").astype(np.uint8))
            mask |= np.asarray(drawn.resize((side, side), Image.Resampling.NEAREST)).astype(bool)
    return mask


@dataclass(frozen=True)
class Sample:
    """
    A sentence of a split.

    row: where its object is in the split. picture: what sentences of one picture share. image_file: None if unknown.
    """

    row: int
    ref_id: int
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
    columns = ["image", "sentences", "ref_id", "image_id", "height", "width"]
    samples = []
    for index, row in enumerate(rows.select_columns(columns).cast_column("image", datasets.Image(decode=False))):
        path = row["image"]["path"]
        if row["image"]["bytes"] is None and not Path(path).is_file():
            raise FileNotFoundError(f"the picture {path} of split {split} is missing; put it back.")
        # Ids may come again where data sets were put together.
        content = row["image"]["bytes"]
        picture = path if content is None else hashlib.sha256(content).hexdigest()
        image_file = None if path is None else os.path.basename(path)
        samples += [Sample(index, row["ref_id"], picture, image_file, sentence) for sentence in row["sentences"]]
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


class EvaluationBatches(Dataset):
    """number of a batch → (indices of its samples, model inputs with each picture once, true masks as RLE)."""

    def __init__(self, split: Split, numbers: list[int], processor: ReMamberProcessor, protocol: Protocol):
        self.protocol = protocol
        self.samples = split.samples
        self.batches = [split.batches[number] for number in numbers]
        self.pictures = split.rows.select_columns(["image"])
        self.masks = split.rows.select_columns(MASK_COLUMNS)
        self.processor = processor

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[list[int], dict[str, torch.Tensor], list[dict]]:
        indices = self.batches[number]
        images, sentences, masks = [], [], {}
        for _, samples in groupby((self.samples[index] for index in indices), key=lambda sample: sample.picture):
            group = list(samples)
            images.append(self.pictures[group[0].row]["image"])
            sentences.append([sample.sentence for sample in group])
            for row in {sample.row for sample in group}:
                masks[row] = encode_mask(self.protocol.truth_of(self.masks[row]))
        inputs = self.processor(images=images, text=sentences, return_tensors="pt")
        return indices, dict(inputs), [masks[self.samples[index].row] for index in indices]


class Evaluator:
    """A model on one split after another: `count` in all processes together, `draw` in one."""

    def __init__(
        self,
        model: ReMamberForImageSegmentation,
        processor: ReMamberProcessor,
        resize: str | None = None,
        dtype: str = "float32",
        num_workers: int = 0,
        protocol: Protocol = Protocol(),
    ):
        self.model = model
        self.processor = processor
        self.protocol = protocol if resize is None else replace(protocol, resize=resize)
        self.dtype = DTYPES[dtype]
        self.num_workers = num_workers

    def predict(self, inputs: dict[str, torch.Tensor], sizes: list[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Masks, bool (height, width), at the size of each expression's picture."""
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        is_mixed = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self.model.device.type, self.dtype, enabled=is_mixed):
            outputs = self.model(**inputs, return_dict=True)
        for logits, size in zip(outputs.logits.split(1), sizes, strict=True):  # one mask in memory at a time
            (mask,) = self.processor.post_process_referring_segmentation(
                logits, target_sizes=[size], threshold=self.protocol.threshold, interpolation=self.protocol.resize
            )
            yield mask.cpu().numpy()

    def segment(self, split: Split, numbers: list[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Index, predicted mask and true mask of every sample in the batches of these numbers."""
        batches = EvaluationBatches(split, numbers, self.processor, self.protocol)
        for indices, inputs, truths in DataLoader(batches, batch_size=None, num_workers=self.num_workers):
            predictions = self.predict(inputs, [tuple(truth["size"]) for truth in truths])
            yield from zip(indices, predictions, map(decode_mask, truths))

    def count(self, split: Split) -> np.ndarray:
        """Pixels of intersection, union and true mask, int64 (samples, 3); the same in every process."""
        state = PartialState()
        numbers = list(range(state.process_index, len(split.batches), state.num_processes))
        counts = []
        with tqdm(
            total=sum(len(split.batches[number]) for number in numbers),
            desc=split.name,
            unit=" sentences",
            disable=None if state.is_main_process else True,
        ) as bar:
            for index, prediction, truth in self.segment(split, numbers):
                counts.append((index, *count_pixels(prediction, truth)))
                bar.update()
        return np.array(sorted(gather_object(counts)), dtype=np.int64)[:, 1:]

    def draw(self, split: Split, ious: np.ndarray, chosen: list[int]) -> Image.Image:
        """A sheet of the chosen samples, in this order: the true mask, and the prediction beside it."""
        numbers = [number for number, batch in enumerate(split.batches) if not set(batch).isdisjoint(chosen)]
        tiles = {}
        for index, prediction, truth in self.segment(split, numbers):
            if index in chosen:
                tiles[index] = _make_tiles(split, index, prediction, truth, ious[index])
        return draw_sheet([tile for index in chosen for tile in tiles[index]], SHEET_COLUMNS)


def _make_tiles(split: Split, index: int, prediction: np.ndarray, truth: np.ndarray, iou: float) -> list[Tile]:
    sample = split.samples[index]
    picture = to_rgb(split.rows[sample.row]["image"])
    if truth.shape != (picture.height, picture.width):  # a protocol that squashes
        picture = picture.resize(truth.shape[::-1])
    meant = f"truth, ref {sample.ref_id}" + ("" if truth.any() else ": means nothing here")
    found = f"prediction, IoU {iou:.3f}" + ("" if prediction.any() else ": nothing found")
    return [Tile(picture, truth, meant, [sample.sentence]), Tile(picture, prediction, found, [])]


def kinds_of(samples: list[Sample]) -> list[str] | None:
    """The kind of every expression if all are in the grammar of synthetic scenes, else None."""
    try:
        return [expression_kind(sample.sentence) for sample in samples]
    except ValueError:
        return None


def score(counts: np.ndarray, is_generalized: bool, protocol: Protocol = Protocol()) -> dict[str, float | None]:
    """The papers' scores of the samples in `counts` (samples, 3), fractions; None where no sample counts."""
    scores = generalized_iou(*counts.T) if is_generalized else referring_iou(*counts[:, :2].T)
    if protocol.epsilon or protocol.is_strict:
        ious = counts[:, 0] / (counts[:, 1] + protocol.epsilon)
        scores["miou"] = float(np.mean(ious))
        for threshold in PRECISION_THRESHOLDS:
            scores[f"precision@{threshold}"] = float(np.mean(ious > np.float64(np.float32(threshold))))
    return {name: None if np.isnan(value) else value for name, value in scores.items()}


def describe_split(
    split: Split,
    counts: np.ndarray,
    kinds: list[str] | None,
    published: list[PublishedResult],
    protocol: Protocol = Protocol(),
) -> dict:
    """What the JSON file says of a split."""
    kinds_of_samples = np.array(kinds)
    parts = {kind: counts[kinds_of_samples == kind] for kind in KINDS} if kinds else {}
    return {
        "num_sentences": len(split.samples),
        "num_objects": len({sample.row for sample in split.samples}),
        "num_pictures": len({sample.picture for sample in split.samples}),
        "scores": score(counts, split.is_generalized, protocol),
        "kinds": {
            kind: {"num_sentences": len(part), "scores": score(part, split.is_generalized, protocol)}
            for kind, part in parts.items()
            if len(part)
        },
        "published": [
            {"model": result.model, "protocol": result.protocol, "scores": result.scores} for result in published
        ],
    }


def published_beside(dataset: str, split_by: str | None, split: Split) -> list[PublishedResult]:
    """The published results of a split that has as many refs, pictures and sentences as the published one."""
    expected = PUBLISHED_COUNTS.get((dataset, split_by), {}).get(split.name)
    if expected is None or split.is_generalized:
        return []
    found = {
        "refs": len({sample.row for sample in split.samples}),
        "images": len({sample.picture for sample in split.samples}),
        "sentences": len(split.samples),
    }
    if any(count not in (None, found[name]) for name, count in vars(expected).items()):
        return []
    return PUBLISHED_RESULTS.get((dataset, split_by), {}).get(split.name, [])


def choose_for_sheet(split: Split, order: np.ndarray, count: int) -> list[int]:
    """Indices of the samples whose `order` is lowest, one for each object; ties are drawn, always alike."""
    draws = np.random.default_rng(SHEET_SEED).random(len(order))
    objects = split.rows.select_columns(["ann_id"]) if "ann_id" in split.rows.column_names else None
    chosen: dict[tuple, int] = {}
    for index in np.lexsort((draws, order)).tolist():
        sample = split.samples[index]
        ann_id = None if objects is None else objects[sample.row]["ann_id"]
        is_known = ann_id is not None and ann_id != []
        chosen.setdefault((sample.picture, str(ann_id)) if is_known else (sample.picture, sample.row), index)
        if len(chosen) == count:
            break
    return list(chosen.values())


def make_table(split: Split, counts: np.ndarray, ious: np.ndarray, kinds: list[str] | None) -> pa.Table:
    """One row per sample."""
    samples = split.samples
    return pa.table(
        {
            "split": [split.name] * len(samples),
            "ref_id": pa.array([sample.ref_id for sample in samples], pa.int64()),
            "image_file": pa.array([sample.image_file for sample in samples], pa.string()),
            "sentence": pa.array([sample.sentence for sample in samples], pa.string()),
            "kind": pa.array([None] * len(samples) if kinds is None else kinds, pa.string()),
            "intersection": counts[:, 0],
            "union": counts[:, 1],
            "true_area": counts[:, 2],
            "iou": ious,
        }
    )


def check_arguments(output_dir: Path | None, resize: str | None, protocol: str | None, dtype: str, **numbers) -> None:
    """
    Refuse what cannot be done before anything is loaded.

    Args:
        numbers: name of an option → its value and the least that it may be.

    Raises:
        ValueError: naming the option.
        FileExistsError: if the output folder is not empty.
    """
    choices: list[tuple[str, str | None, Iterable[str]]]
    choices = [("resize", resize, LOGIT_INTERPOLATIONS), ("protocol", protocol, PROTOCOLS), ("dtype", dtype, DTYPES)]
    for name, value, known in choices:
        if value is not None and value not in known:
            raise ValueError(f"--{name} is {value!r}; choose one of {', '.join(known)}.")
    if protocol is not None:
        if resize not in (None, PROTOCOLS[protocol].resize):
            way = PROTOCOLS[protocol].resize
            raise ValueError(f"--protocol {protocol} resizes by {way}; leave out --resize {resize}.")
        if dtype != "float32":
            raise ValueError(f"--protocol {protocol} computes in float32; leave out --dtype {dtype}.")
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}; give at least {least}.")
    if output_dir is not None:
        check_new_folder(output_dir)


def write_results(output_dir: Path, results: dict, tables: list[pa.Table], sheets: dict[str, Image.Image]) -> None:
    """Write the folder whole or not at all."""
    with make_whole_folder(output_dir) as unfinished:
        (unfinished / "results.md").write_text(write_report(results), encoding="utf-8")
        (unfinished / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        pq.write_table(pa.concat_tables(tables), unfinished / "samples.parquet")
        for name, sheet in sheets.items():
            sheet.save(unfinished / f"{name}.png")


def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or Hub name of a ReMamber model.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Such as refcoco; without --data_dir, a data set of the Hub or a Parquet folder."),
    ] = None,
    split_by: Annotated[
        str | None,
        typer.Option(
            "--split_by", "--split-by", help="unc, google, umd or berkeley.", show_default="as in the papers"
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data_dir", "--data-dir", help="Folder of the data sets and pictures, or of your own data."),
    ] = None,
    splits: Annotated[str | None, typer.Option(help="Such as val,testA,testB.", show_default="all but train")] = None,
    generalized: Annotated[
        bool, typer.Option("--generalized", help="Read grefs(...).json, as is always done for grefcoco.")
    ] = False,
    sentences: Annotated[
        str, typer.Option(help='Text of a REFER set: "sent", as it was cleaned, or "raw", as it was written.')
    ] = "sent",
    output_dir: Annotated[
        Path | None,
        typer.Option("--output_dir", "--output-dir", help="Folder to make, for tables, samples and contact sheets."),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            help=f"How logits get the picture's size: {' or '.join(LOGIT_INTERPOLATIONS)}.",
            show_default="bilinear, as everywhere else in this package",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help=f"Count as a released evaluation does: {', '.join(PROTOCOLS)}; published is ReMamber's.",
            show_default="at the picture's size",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", "--batch-size", help="Sentences in a batch.")] = 16,
    num_workers: Annotated[
        int, typer.Option("--num_workers", "--num-workers", help="Processes that read pictures, for each model.")
    ] = 2,
    device: Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")] = "auto",
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(DTYPES)}; the last two by autocast.")] = "float32",
    contact_sheet: Annotated[
        int,
        typer.Option("--contact_sheet", "--contact-sheet", help="Draw the N worst and the N best of each split."),
    ] = 8,
    max_samples: Annotated[
        int | None, typer.Option("--max_samples", "--max-samples", help="Only the first N sentences of each split.")
    ] = None,
):
    """
    Score a model on every split of a data set: the papers' table, beside the published figures.

    In several processes: torchrun --nproc_per_node 2 -m remamber_hf.run_evaluation MODEL …

    Example: remamber evaluate runs/refcoco --dataset refcoco --data_dir DATA --output_dir results
    """
    check_arguments(
        output_dir,
        resize,
        protocol,
        dtype,
        batch_size=(batch_size, 1),
        num_workers=(num_workers, 0),
        contact_sheet=(contact_sheet, 0),
        max_samples=(max_samples, 1),
    )
    state = PartialState(cpu=find_device(device).type == "cpu")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    loaded_model, processor = load_model(model, "cpu", "float32")
    with state.main_process_first():
        source = load_one(dataset, split_by, data_dir, generalized=generalized, sentences=sentences)
    chosen = []
    for name, rows in choose_splits(source.splits, splits).items():
        samples = list_samples(rows, name, max_samples)
        chosen.append(Split(name, rows, samples, make_batches(samples, batch_size)))
    if protocol not in (None, "rela") and chosen[0].is_generalized:
        raise ValueError(f"--protocol {protocol} knows no generalised data set; take rela, or leave it out.")
    rules = Protocol() if protocol is None else PROTOCOLS[protocol]
    if protocol is not None:  # those codes resize pictures so
        processor = with_pil(processor)
    evaluator = Evaluator(loaded_model.to(state.device), processor, resize, dtype, num_workers, rules)
    rules = evaluator.protocol
    if state.is_main_process:
        typer.echo(f"pictures are prepared by {image_backend(processor)}")

    results = {
        "model": model,
        "dataset": source.name,
        "split_by": source.split_by,
        "sentences": source.sentences,
        "protocol": {**rules.describe(), "dtype": dtype, "image_backend": image_backend(processor)},
        "max_samples": max_samples,
        "versions": describe_environment()["versions"],
        "splits": {},
    }
    tables, sheets = [], {}
    for split in chosen:
        counts = evaluator.count(split)
        if not state.is_main_process:
            continue
        kinds = kinds_of(split.samples)
        ious = sample_ious(*(counts.T if split.is_generalized else counts[:, :2].T))
        results["splits"][split.name] = describe_split(
            split, counts, kinds, published_beside(source.name, source.split_by, split), rules
        )
        tables.append(make_table(split, counts, ious, kinds))
        if output_dir is not None and contact_sheet:
            for name, order in (("worst", ious), ("best", -ious)):
                chosen_samples = choose_for_sheet(split, order, contact_sheet)
                sheets[f"{split.name}_{name}"] = evaluator.draw(split, ious, chosen_samples)
    if state.is_main_process:
        typer.echo(write_report(results))
        if output_dir is not None:
            write_results(output_dir, results, tables, sheets)
            typer.echo(f"written: {output_dir}")
    state.destroy_process_group()


if __name__ == "__main__":
    # The command finds its subcommand and turns bad input into one line.
    from .cli import main

    sys.argv.insert(1, "evaluate")
    main()
