# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What people look at while a model trains: sample predictions and curves, drawn after every evaluation."""

import io
import math
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback
from transformers.utils import logging

from ..data.rows import is_generalized_row, row_mask, target_kind
from ..files import save_picture
from ..inference.visualization import Sample, draw_sheet
from ..pictures import to_rgb
from ..post_processing_remamber import find_presence
from ..processing_remamber import ReMamberProcessor
from .evaluation_metrics import count_samples, kind_codes, score_counts


logger = logging.get_logger(__name__)

SHEET_COLUMNS = 4  # two samples side by side, each as truth and prediction
SCORE_CURVES = {"miou": "mIoU", "oiou": "oIoU", "giou": "gIoU", "ciou": "cIoU", "n_acc": "N-acc", "t_acc": "T-acc"}


class SamplePredictions(TrainerCallback):
    """
    After every evaluation: truth and prediction of the same samples → samples/step-0000250.png.

    The main process alone runs the model on them, so it must hold the whole model: not under FSDP.

    Args:
        rows: what is drawn, with one sentence each.
        processor: that of the model.
    """

    def __init__(self, rows: Iterable[dict], processor: ReMamberProcessor):
        self.rows = rows
        self.processor = processor
        self.drawn_step = None

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        # Several evaluation sets are evaluated in the same step.
        if not state.is_world_process_zero or state.global_step == self.drawn_step:
            return
        self.drawn_step = state.global_step
        sheet = draw_predictions(model, self.processor, self.rows)
        save_picture(sheet, Path(args.output_dir) / "samples" / f"step-{state.global_step:07d}.png")


@torch.no_grad()
def draw_predictions(model, processor: ReMamberProcessor, rows: Iterable[dict]) -> Image.Image:
    """A sheet with the truth and, right of it, the prediction for each row; the rows have one sentence each."""
    was_training = model.training
    model.eval()
    tiles = []
    for row in rows:
        picture, truth = to_rgb(row["image"]), row_mask(row)
        inputs = processor(images=picture, text=row["sentences"], return_tensors="pt").to(model.device, model.dtype)
        outputs = model(**inputs, return_dict=True)
        title = describe_prediction(row, count_samples(processor, outputs, [truth])[0], find_presence(outputs))
        (mask,) = processor.post_process_referring_segmentation(outputs, target_sizes=[truth.shape])
        tiles.append(Sample(picture, truth, describe_truth(row), row["sentences"]))
        tiles.append(Sample(picture, mask.cpu().numpy(), title, []))
    model.train(was_training)
    return draw_sheet(tiles, SHEET_COLUMNS)


def describe_truth(row: dict) -> str:
    """What stands above the true mask of a row."""
    meant = ": means nothing here" if target_kind(row) == "none" else ""
    return f"truth, {row['split']}, ref {row['ref_id']}{meant}"


def describe_prediction(row: dict, counts: torch.Tensor, presence: torch.Tensor | None) -> str:
    """What stands above the mask found for a row: `counts` (4,) of `count_samples`, `presence` (1,) in [0, 1]."""
    scores = score_counts(counts[None].numpy(), kind_codes([row]))
    words = [f"prediction, IoU {scores['giou' if is_generalized_row(row) else 'miou']:.2f}"]
    return ", ".join([*words, *([] if presence is None else [f"presence {presence.item():.2f}"])])


class Curves(TrainerCallback):
    """After every evaluation and at the end: losses and scores (`SCORE_CURVES`) over the steps → curves.png."""

    def on_evaluate(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            save_curves(state.log_history, Path(args.output_dir) / "curves.png")

    on_train_end = on_evaluate


def save_curves(log_history: list[dict], path: Path) -> None:
    """
    Draw the Trainer's log; without matplotlib, or before anything is logged, nothing is drawn.

    Args:
        log_history: `state.log_history`.
        path: picture to write.
    """
    if find_spec("matplotlib") is None:
        logger.warning_once(f"{path.name} is not drawn: pip install matplotlib")
        return
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    losses, scores = read_curves(log_history)
    if not losses and not scores:
        return
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, curves, title in zip(figure.subplots(1, 2), (losses, scores), ("loss", "scores on the evaluation set")):
        for label, points in curves.items():
            steps, values = zip(*points)
            axes.plot(steps, values, label=label, marker="." if len(points) < 30 else None)
        axes.set(title=title, xlabel="step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if curves:
            axes.legend()
    figure.axes[0].set_ylim(0, 1.05 * max((value for points in losses.values() for _, value in points), default=1))
    figure.axes[1].set_ylim(0, 1)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    save_picture(Image.open(content), path)


def read_curves(log_history: list[dict]) -> tuple[dict[str, list], dict[str, list]]:
    """
    The curves of a Trainer's log, as (step, value) pairs by label: the losses, and the scores.

    The evaluation sets of a mixture have a curve each; the Trainer puts their names before those of the metrics. A
    value that is no finite number is left out.
    """
    losses: dict[str, dict] = {}
    scores: dict[str, dict] = {}
    for entry in log_history:
        for name, value in entry.items():
            metric = next((known for known in ("loss", *SCORE_CURVES) if f"_{name}".endswith(f"_{known}")), None)
            dataset = name.removeprefix("eval_").removesuffix(metric or "").removesuffix("_")
            if name == "loss":
                curves, label = losses, "training"
            elif name.startswith("eval_") and metric == "loss":
                curves, label = losses, f"evaluation {dataset}".strip()
            elif name.startswith("eval_") and metric is not None:
                curves, label = scores, f"{SCORE_CURVES[metric]} {dataset}".strip()
            else:
                continue
            if isinstance(value, (int, float)) and math.isfinite(value):
                # With the best checkpoint loaded at the end, the last step is evaluated again, on other weights.
                curves.setdefault(label, {}).setdefault(entry["step"], value)
    in_order = [{label: sorted(points.items()) for label, points in curves.items()} for curves in (losses, scores)]
    return in_order[0], in_order[1]


def choose_samples(evaluation_rows: list[datasets.Dataset], count: int) -> list[dict]:
    """`count` rows in all, evenly spaced over the evaluation rows of each data set, whose columns may differ."""
    chosen: list[dict] = []
    for index, rows in enumerate(evaluation_rows):
        share = len(range(index, count, len(evaluation_rows)))
        indices = np.linspace(0, len(rows) - 1, num=min(share, len(rows)), dtype=int)
        chosen += rows.select(indices)
    return chosen
