# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Sample predictions and curves: what is drawn is what happened."""

import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import torch
from PIL import Image
from torch import nn

from remamber_hf import ReMamberProcessor
from remamber_hf.data.rows import row_mask
from remamber_hf.training import callbacks
from remamber_hf.training.callbacks import (
    Curves,
    SamplePredictions,
    choose_samples,
    draw_predictions,
    read_curves,
    save_curves,
)


LOG = [
    {"step": 1, "loss": 2.0, "learning_rate": 0.1},
    {"step": 2, "loss": 1.5},
    {"step": 2, "eval_loss": 1.7, "eval_miou": 0.25, "eval_oiou": 0.5, "eval_precision@0.5": 0.1, "eval_runtime": 3.0},
    {"step": 3, "loss": 1.0},
    {"step": 4, "eval_loss": 1.2, "eval_miou": 0.75, "eval_oiou": 0.5},
    {"step": 4, "eval_loss": 1.2, "eval_miou": 0.75, "eval_oiou": 0.5},
    {"step": 4, "train_loss": 1.5, "train_runtime": 9.0},
]


class Knowing(nn.Module):
    """Finds the true masks of the rows, one after the other, or the rest of the picture."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, rows, is_right: bool):
        super().__init__()
        self.masks = [row_mask(row) for row in rows]
        self.is_right = is_right

    def forward(self, **inputs):
        mask = torch.from_numpy(np.ascontiguousarray(self.masks.pop(0)))[None, None].float()
        logits = nn.functional.interpolate(mask, inputs["pixel_values"].shape[-2:]) * 20 - 10
        return SimpleNamespace(logits=logits if self.is_right else -logits)


@pytest.fixture
def rows(start):
    return runs.load_rows(start, "val").select(range(3))


@pytest.fixture
def processor(start):
    return ReMamberProcessor.from_pretrained(start / "conv")


@pytest.fixture
def state(tmp_path):
    """What a callback is told: arguments, state and control of the Trainer, in step 5 of the main process."""
    state = SimpleNamespace(is_world_process_zero=True, global_step=5, log_history=LOG)
    return SimpleNamespace(output_dir=str(tmp_path)), state, None


@pytest.fixture
def tiles(monkeypatch):
    """The tiles of every sheet that is drawn."""
    drawn = []
    draw_sheet = callbacks.draw_sheet
    monkeypatch.setattr(
        callbacks, "draw_sheet", lambda samples, columns: drawn.extend(samples) or draw_sheet(samples, columns)
    )
    return drawn


# Samples


def test_truth_and_prediction_stand_side_by_side_with_their_iou(rows, processor, tiles):
    sheet = draw_predictions(Knowing(rows, is_right=True), processor, rows)
    assert sheet.width == 16 + 4 * (320 + 16)
    for row, truth, found in zip(rows, tiles[::2], tiles[1::2], strict=True):
        assert np.array_equal(truth.mask, row_mask(row))
        assert truth.texts == row["sentences"] and truth.title == f"truth, val, ref {row['ref_id']}"
        intersection, union = (truth.mask & found.mask).sum(), (truth.mask | found.mask).sum()
        assert found.title == f"prediction, IoU {intersection / union:.2f}" and intersection / union > 0.6


def test_a_wrong_prediction_has_no_iou(rows, processor, tiles):
    draw_predictions(Knowing(rows, is_right=False), processor, rows)
    assert all(float(tile.title.rsplit(" ", 1)[1]) < 0.1 for tile in tiles[1::2])


def test_a_step_is_drawn_once_however_many_sets_are_evaluated_in_it(rows, processor, state, tmp_path):
    callback = SamplePredictions(rows, processor)
    model = Knowing(rows, is_right=True)
    callback.on_evaluate(*state, model=model)
    callback.on_evaluate(*state, model=model)  # has no masks left to find
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step-0000005.png"]


def test_drawing_leaves_mode_and_random_state_alone(rows, processor, state):
    model = Knowing(rows, is_right=True).train()
    before = torch.get_rng_state()
    SamplePredictions(rows, processor).on_evaluate(*state, model=model)
    assert model.training and torch.equal(torch.get_rng_state(), before)


def test_other_processes_draw_nothing(rows, processor, state, tmp_path):
    state[1].is_world_process_zero = False
    SamplePredictions(rows, processor).on_evaluate(*state, model=None)
    Curves().on_train_end(*state)
    assert not list(tmp_path.iterdir())


def test_samples_are_spread_over_all_evaluation_sets(rows):
    chosen = choose_samples([rows, rows.select([0, 2])], 4)
    assert [row["ref_id"] for row in chosen] == [rows["ref_id"][index] for index in (0, 2, 0, 2)]
    assert len(choose_samples([rows], 8)) == 3
    assert len(choose_samples([rows, rows], 1)) == 1


# Curves


def test_curves_are_those_of_the_log():
    losses, scores = read_curves(LOG)
    assert losses == {"training": [(1, 2.0), (2, 1.5), (3, 1.0)], "evaluation": [(2, 1.7), (4, 1.2)]}
    assert scores == {"mIoU": [(2, 0.25), (4, 0.75)], "oIoU": [(2, 0.5), (4, 0.5)]}


def test_what_is_not_finite_is_left_out_and_the_rest_is_drawn(tmp_path):
    log = [{"step": 1, "loss": math.nan}, {"step": 1, "eval_loss": math.inf, "eval_miou": 0.1}, {"step": 2, "loss": 1}]
    log.append({"step": 3, "loss": "x", "eval_miou": None})  # in a file
    assert read_curves(log) == ({"training": [(2, 1)]}, {"mIoU": [(1, 0.1)]})
    save_curves(log, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 1000
    save_curves(log[:1], tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()


def test_the_score_of_the_best_checkpoint_does_not_replace_that_of_the_last_step():
    losses, scores = read_curves([{"step": 4, "eval_miou": 0.5}, {"step": 4, "eval_miou": 0.9}])
    assert (losses, scores) == ({}, {"mIoU": [(4, 0.5)]})


def test_every_set_of_a_mixture_has_its_curves():
    losses, scores = read_curves(
        [{"step": 3, "eval_refcoco+_miou": 0.5, "eval_my_set_loss": 1.0, "eval_ema_oiou": 0.6}]
    )
    assert losses == {"evaluation my_set": [(3, 1.0)]}
    assert scores == {"mIoU refcoco+": [(3, 0.5)], "oIoU ema": [(3, 0.6)]}


def test_sets_whose_sentences_may_mean_nothing_have_their_scores_as_curves():
    logged = {"eval_loss": 2.0, "eval_giou": 0.5, "eval_n_acc": 0.25, "eval_giou_many": 0.4, "eval_my_set_t_acc": 1.0}
    losses, scores = read_curves([{"step": 3, **logged, "eval_target_precision@0.7": 0.1, "eval_ema_ciou": 0.6}])
    assert losses == {"evaluation": [(3, 2.0)]}
    assert scores == {"gIoU": [(3, 0.5)], "N-acc": [(3, 0.25)], "T-acc my_set": [(3, 1.0)], "cIoU ema": [(3, 0.6)]}


def test_curves_are_drawn_at_the_end_and_after_every_evaluation(state, tmp_path):
    for event in ("on_evaluate", "on_train_end"):
        getattr(Curves(), event)(*state)
        picture = Image.open(tmp_path / "curves.png")
        assert picture.width > 1000
        colours = {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3)}
        assert (31, 119, 180) in colours and (255, 127, 14) in colours  # the first two curves
        (tmp_path / "curves.png").unlink()


def test_nothing_is_drawn_of_an_empty_log(tmp_path):
    save_curves([], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_missing_package_is_named(state, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(callbacks, "find_spec", lambda name: None)
    callbacks.logger.warning_once.cache_clear()
    monkeypatch.setattr(logging.getLogger("remamber_hf"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        Curves().on_train_end(*state)
    assert "curves.png is not drawn: pip install matplotlib" in caplog.text
    assert not list(tmp_path.iterdir())
