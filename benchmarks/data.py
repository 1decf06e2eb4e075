# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Time the loader: samples per second of the training path and of drawing masks, against a plain PyTorch Dataset.

    python benchmarks/data.py                       writes benchmarks/data.json and benchmarks/data.md

Pictures of COCO's size, 640×480 JPEG, are generated for the run. The plain version is what a researcher writes in the
style of the published training code: dicts of the annotation files, Pillow for the picture, pycocotools for the mask,
one call of the tokenizer per sample, int64 masks. Both versions take turns, and every figure is a median. Batches are
compared before anything is timed: masks and tokens must be equal, pixel values equal up to rounding in float32.
"""

import argparse
import io
import json
import os
import pickle
import platform
import tempfile
import time
from collections import deque
from datetime import date
from pathlib import Path
from statistics import median

import datasets
import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset

from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask
from remamber_hf.image_processing_remamber import ReMamberImageProcessorPil
from remamber_hf.processing_remamber import ReMamberProcessor
from remamber_hf.training.tokenizer import train_tokenizer


HEIGHT, WIDTH = 480, 640
SIZE = 480
TEXT_LENGTH = 20
BATCH_SIZE = 8
NUM_SHARED_STEPS = 3  # of `time_steps`: decode, resize, shared memory
REFS_PER_PICTURE = 2
IMAGE_FOLDER = "train2014"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDING = 1e-6  # of pixel values around 1: a few units in the last place of float32


def write_data_set(folder: Path, num_pictures: int) -> None:
    """Write a RefCOCO folder: one sentence per ref, so that nothing is drawn at random; every fourth has two parts."""
    rng = np.random.default_rng(0)
    (folder / IMAGE_FOLDER).mkdir(parents=True)
    (folder / "refcoco").mkdir()
    images, annotations, refs = [], [], []
    for image_id in range(1, num_pictures + 1):
        name = f"{image_id:012d}.jpg"
        draw_picture(rng).save(folder / IMAGE_FOLDER / name, quality=90)
        images.append({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for _ in range(REFS_PER_PICTURE):
            ref_id = len(refs) + 1
            polygons = [draw_polygon(rng) for _ in range(2 if ref_id % 4 == 0 else 1)]
            annotations.append(
                {"id": ref_id, "image_id": image_id, "category_id": 1, "bbox": [0, 0, 1, 1], "segmentation": polygons}
            )
            sentence = " ".join(rng.choice(["the", "left", "man", "in", "red", "with", "a", "dog"], size=6))
            refs.append(
                {
                    "ref_id": ref_id,
                    "ann_id": ref_id,
                    "image_id": image_id,
                    "split": "train",
                    "sentences": [{"sent_id": ref_id, "sent": sentence}],
                }
            )
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "refcoco" / "instances.json").write_text(json.dumps(instances))
    (folder / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs))


def draw_picture(rng: np.random.Generator) -> Image.Image:
    """Draw smooth colours with noise; as a JPEG of quality 90 it takes about 160 kB, the mean of COCO's train2014."""
    colours = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(colours.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
    noisy = smooth + rng.normal(0, 20, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def draw_polygon(rng: np.random.Generator, num_points: int = 50) -> list[float]:
    angles = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    radii = rng.uniform(40, 140) * rng.uniform(0.8, 1.2, num_points)
    x = rng.uniform(150, 490) + radii * np.cos(angles)
    y = rng.uniform(150, 330) + radii * np.sin(angles)
    return np.stack([x, y], axis=1).round(2).flatten().tolist()


class PlainDataset(Dataset):
    """One dict per ref, everything else done when a sample is asked for."""

    def __init__(self, folder: Path, tokenizer):
        instances = json.loads((folder / "refcoco" / "instances.json").read_text())
        self.annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
        self.images = {image["id"]: image for image in instances["images"]}
        self.refs = pickle.loads((folder / "refcoco" / "refs(unc).p").read_bytes())
        self.folder = folder / IMAGE_FOLDER
        self.tokenizer = tokenizer
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ref = self.refs[index]
        picture = Image.open(self.folder / self.images[ref["image_id"]]["file_name"]).convert("RGB")
        mask = Image.fromarray(self.mask(index))
        picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        mask = mask.resize((SIZE, SIZE), Image.Resampling.NEAREST)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
        sentence = ref["sentences"][np.random.randint(len(ref["sentences"]))]["sent"]
        tokens = self.tokenizer(
            sentence, padding="max_length", truncation=True, max_length=TEXT_LENGTH, return_tensors="pt"
        )
        return {
            "pixel_values": (pixels.float().div(255) - self.mean) / self.std,
            "labels": torch.as_tensor(np.array(mask), dtype=torch.int64),
            "input_ids": tokens["input_ids"][0],
            "attention_mask": tokens["attention_mask"][0],
        }

    def mask(self, index: int) -> np.ndarray:
        """Add up the parts and keep what equals 1: uint8 (height, width)."""
        annotation = self.annotations[self.refs[index]["ann_id"]]
        image = self.images[annotation["image_id"]]
        parts = coco_mask.frPyObjects(annotation["segmentation"], image["height"], image["width"])
        counts = np.sum(coco_mask.decode(parts), axis=2).astype(np.uint8)
        return (counts == 1).astype(np.uint8)


def check_equal(plain: dict[str, torch.Tensor], ours: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of the pixel values; ValueError if the two batches are not the same."""
    for name in ("labels", "input_ids", "attention_mask"):
        if not torch.equal(plain[name], ours[name].to(plain[name].dtype)):
            raise ValueError(f"The batches differ in {name}; no speed is reported.")
    difference = (plain["pixel_values"] - ours["pixel_values"]).abs().max().item()
    if not difference <= ROUNDING:
        raise ValueError(f"The pixel values differ by {difference}; no speed is reported.")
    return difference


def seconds_of(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_turns(functions: dict, num_rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each function in each round, after one round that is not counted."""
    seconds = {name: [] for name in functions}
    for round_index in range(num_rounds + 1):
        for name, function in functions.items():
            elapsed = seconds_of(function)
            if round_index:
                seconds[name].append(elapsed)
    return seconds


def compare(functions: dict, num_samples: int, num_rounds: int) -> dict:
    """Return the median samples per second of "plain" and "ours", and the median of the ratio round by round."""
    seconds = take_turns(functions, num_rounds)
    ratios = [plain / ours for plain, ours in zip(seconds["plain"], seconds["ours"])]
    rates = {name: num_samples / median(values) for name, values in seconds.items()}
    return {**rates, "ratio": median(ratios), "ratio_lowest": min(ratios), "ratio_highest": max(ratios)}


def time_steps(data: datasets.Dataset, processor: ReMamberProcessor, num_rounds: int) -> dict[str, float]:
    """Return the median ms per sample of the steps of our path, in this process; the first three are in any path."""
    files = [Path(value["path"]) for value in data.cast_column("image", datasets.Image(decode=False))["image"]]
    contents = [path.read_bytes() for path in files]
    rows = [data[index] for index in range(len(data))]
    masks = [row_mask(row) for row in rows]
    batch = torch.zeros(BATCH_SIZE, 3, SIZE, SIZE)

    def tokenize(start: int):
        processor(text=[row["sentences"][0] for row in rows[start : start + BATCH_SIZE]], return_tensors="pt")

    steps = {
        "decode JPEG": (lambda content: Image.open(io.BytesIO(content)).load(), contents),
        "resize picture": (lambda row: row["image"].resize((SIZE, SIZE), Image.Resampling.BILINEAR), rows),
        "copy to shared memory": (lambda start: batch.clone().share_memory_(), range(0, len(rows), BATCH_SIZE)),
        "picture, resize included": (lambda row: processor.image_processor(images=row["image"]), rows),
        "draw mask": (row_mask, rows),
        "resize mask": (
            lambda mask: Image.fromarray(mask).resize((SIZE, SIZE), Image.Resampling.NEAREST),
            [mask.view(np.uint8) for mask in masks],
        ),
        "tokenize": (tokenize, range(0, len(rows), BATCH_SIZE)),
        "read row, decoding included": (lambda index: data[index], range(len(data))),
    }
    # Nothing is kept: memory that is new to the process takes longer to write to.
    functions = {
        name: (lambda step=step, inputs=inputs: deque(map(step, inputs), maxlen=0))
        for name, (step, inputs) in steps.items()
    }
    return {name: 1000 * median(values) / len(data) for name, values in take_turns(functions, num_rounds).items()}


def run(folder: Path, num_pictures: int, num_rounds: int, num_workers: int) -> dict:
    write_data_set(folder, num_pictures)
    data = load_refer("refcoco", "unc", "train", data_dir=folder, cache_dir=folder / "cache")
    sentences = [sentence for row in data.select_columns("sentences") for sentence in row["sentences"]]
    tokenizer = train_tokenizer(sentences, 600, TEXT_LENGTH)
    processor = ReMamberProcessor(ReMamberImageProcessorPil(), tokenizer, text_length=TEXT_LENGTH)
    plain = PlainDataset(folder, tokenizer)

    def loaders(workers: int) -> dict[str, DataLoader]:
        shared = {"batch_size": BATCH_SIZE, "num_workers": workers, "persistent_workers": workers > 0}
        return {
            "plain": DataLoader(plain, **shared),
            "ours": DataLoader(data, collate_fn=ReMamberCollator(processor), **shared),
        }

    pairs = zip(*loaders(0).values())
    difference = max(check_equal(*pair) for pair in pairs)
    if not all(np.array_equal(plain.mask(index), row_mask(row)) for index, row in enumerate(data)):
        raise ValueError("The masks differ at full size; no speed is reported.")

    load_before = os.getloadavg()[0]
    comparisons = {}
    for workers in sorted({0, num_workers}):
        epochs = {name: (lambda loader=loader: sum(1 for _ in loader)) for name, loader in loaders(workers).items()}
        comparisons[f"training path, {workers} workers"] = compare(epochs, len(data), num_rounds)
    rows = list(data.remove_columns("image"))
    draw = {
        "plain": lambda: [plain.mask(index) for index in range(len(plain))],
        "ours": lambda: [row_mask(row) for row in rows],
    }
    comparisons["drawing masks, full size"] = compare(draw, len(data), num_rounds)
    sizes = [path.stat().st_size for path in (folder / IMAGE_FOLDER).iterdir()]
    return {
        "date": date.today().isoformat(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers, datasets, np)},
            "pillow": PIL.__version__,
        },
        "samples": len(data),
        "rounds": num_rounds,
        "picture": f"{WIDTH}×{HEIGHT} JPEG, {sum(sizes) / len(sizes) / 1000:.0f} kB on average, to {SIZE}×{SIZE}",
        "largest_pixel_difference": difference,
        "samples_per_second": comparisons,
        "steps_ms": time_steps(data, processor, num_rounds),
    }


def processor_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def to_markdown(result: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# Loader",
        "",
        f"{result['date']}, {result['processor']}, {result['cores']} cores, load {result['load_before']} before the "
        f"start; {versions}. {result['picture']}. {result['samples']} samples, batches of {BATCH_SIZE}, "
        f"medians of {result['rounds']} rounds that took turns. Batches equal: masks and tokens exactly, pixel values "
        f"within {result['largest_pixel_difference']:.1e}.",
        "",
        "| samples/s | plain | ours | ratio (lowest … highest) |",
        "|---|---|---|---|",
    ]
    for name, figures in result["samples_per_second"].items():
        lines.append(
            f"| {name} | {figures['plain']:.0f} | {figures['ours']:.0f} | {figures['ratio']:.2f} "
            f"({figures['ratio_lowest']:.2f} … {figures['ratio_highest']:.2f}) |"
        )
    if result["load_before"] >= 1:
        lines += ["", "Other work was running on the machine: read the ratios, not the rates."]
    steps = result["steps_ms"]
    lines += ["", "| step of our path, one process | ms per sample |", "|---|---|"]
    lines += [f"| {name} | {milliseconds:.2f} |" for name, milliseconds in steps.items()]
    shared = sum(list(steps.values())[:NUM_SHARED_STEPS])
    lines += ["", f"The first {NUM_SHARED_STEPS} steps take {shared:.1f} ms and are the same in both versions."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_pictures", type=int, default=48)
    parser.add_argument("--num_rounds", type=int, default=7)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), arguments.num_pictures, arguments.num_rounds, arguments.num_workers)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "data.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    (arguments.output_dir / "data.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
