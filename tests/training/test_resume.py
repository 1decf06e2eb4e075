# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed go on as if nothing had happened; checkpoints are whole or passed over."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import torch
from runs import make_trainer
from safetensors.torch import load_file
from transformers import TrainerState

from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.checkpoints import (
    MANIFEST,
    PROGRESS,
    STAGING,
    checkpoints_in,
    newest_whole_checkpoint,
    publish,
    rotate,
    what_is_missing,
    write_manifest,
)
from remamber_hf.training.ema import AVERAGE


RUN = {
    "max_steps": 12,  # an epoch has 6
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "save_strategy": "steps",
    "save_steps": 4,
    "save_total_limit": 2,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "num_eval": 2,
    "expressions_per_picture": 2,
    "drop_path_rate": 0.4,  # reads the random state in every step
    "ema_decay": 0.8,
    "ema_start_step": 2,
    "lr_scheduler_type": "cosine",
}
# Where the run is killed, the step it goes on from, and the number of workers that load its data.
KILLS = {
    "in a step": (["step", 6], 4, 0),
    "while the optimizer's state is written": (["file", "optimizer.pt", 12], 8, 2),
    "before the checkpoint has its name": (["rename", 8], 4, 0),
    "before the first checkpoint": (["step", 1], 0, 0),
}


@pytest.fixture(scope="module")
def killed(start, tmp_path_factory):
    """Folders of runs that killed themselves, by what they were doing."""
    folder = tmp_path_factory.mktemp("killed")
    processes = {}
    for number, (name, (kill, _, num_workers)) in enumerate(KILLS.items()):
        spec = [{"folder": str(start), "output_dir": str(folder / str(number)), "kill": kill, **RUN}]
        spec[0]["dataloader_num_workers"] = num_workers
        path = folder / f"{number}.json"
        path.write_text(json.dumps(spec))
        command = [sys.executable, runs.__file__, str(path)]
        processes[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for process in processes.values():
        _, errors = process.communicate()
        assert process.returncode == -9, errors
    return {name: folder / str(number) for number, name in enumerate(KILLS)}


def train(start, output_dir, resume=None, **arguments):
    trainer = make_trainer(start, output_dir, **{**RUN, **arguments})
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A run that nobody killed."""
    return train(start, tmp_path_factory.mktemp("whole"))


def history_of(trainer) -> list[dict]:
    """What was logged, but for the times."""
    history = [entry for entry in trainer.state.log_history if "train_loss" not in entry]
    return [{k: v for k, v in entry.items() if "_per_second" not in k and "runtime" not in k} for entry in history]


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(start, whole, killed, name):
    _, step, num_workers = KILLS[name]
    newest = newest_whole_checkpoint(killed[name])
    assert newest == (str(killed[name] / f"checkpoint-{step}") if step else None)
    trainer = train(start, killed[name], resume=True, dataloader_num_workers=num_workers)
    assert history_of(trainer) == history_of(whole)
    weights, expected = trainer.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert all(torch.equal(trainer.average.tensors[name], mean) for name, mean in whole.average.tensors.items())
    assert not (killed[name] / STAGING).exists()


def test_a_log_line_that_spans_the_checkpoint_is_the_same(start, tmp_path):
    arguments = {"logging_steps": 6, "eval_strategy": "no", "max_steps": 6, "gradient_accumulation_steps": 1}
    unbroken = train(start, tmp_path, **arguments)
    resumed = train(start, tmp_path, resume=str(tmp_path / "checkpoint-4"), **arguments)
    assert runs.losses_of(resumed) == runs.losses_of(unbroken)


def test_the_loss_of_a_resumed_run_is_that_of_its_own_steps(start, tmp_path):
    arguments = {"logging_steps": 100, "eval_strategy": "no", "max_steps": 6, "gradient_accumulation_steps": 1}
    checkpoint = tmp_path / "checkpoint-4"
    unbroken = train(start, tmp_path, **arguments)
    resumed = train(start, tmp_path, resume=str(checkpoint), **arguments)
    before = json.loads((checkpoint / PROGRESS).read_text())["loss_since_log"]
    expected = (6 * unbroken.state.log_history[-1]["train_loss"] - before) / 2
    assert before > 0 and resumed.state.log_history[-1]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_last_checkpoint_is_trained_no_further(start, whole, tmp_path):
    checkpoint = Path(whole.args.output_dir) / "checkpoint-8"  # in the second epoch
    resumed = train(start, tmp_path, resume=str(checkpoint), max_steps=8)
    assert resumed.state.global_step == 8
    weights = load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(resumed.model.state_dict()[name], tensor) for name, tensor in weights.items())


def test_a_checkpoint_holds_the_average_beside_the_weights(whole):
    folder = Path(whole.args.output_dir) / "checkpoint-12"
    weights, average = load_file(folder / "model.safetensors"), load_file(folder / AVERAGE)
    assert average.keys() <= weights.keys()
    assert not torch.equal(weights["mask_head.classifier.weight"], average["mask_head.classifier.weight"])


def test_the_best_checkpoint_is_found_again_with_its_average(start, tmp_path):
    arguments = {"save_steps": 2, "eval_steps": 2, "max_steps": 4, "save_total_limit": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_ema_loss"}
    best["greater_is_better"] = True  # as the loss falls, the best is then the first
    trainer = train(start, tmp_path, **{**RUN, **arguments, **best})
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2"}
    average = load_file(tmp_path / "checkpoint-2" / AVERAGE)
    assert all(torch.equal(trainer.average.tensors[name], tensor) for name, tensor in average.items())


def test_the_best_checkpoint_is_kept_however_the_folder_is_spelled(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    arguments = {**RUN, **best, "save_steps": 1, "eval_steps": 1, "save_total_limit": 1}
    arguments = {**arguments, "learning_rate": 1e-3, "ema_decay": None, "ema_start_step": 0}
    for output_dir, steps, resume in (("./run", 2, None), (tmp_path / "run", 3, True)):
        trainer = train(start, output_dir, resume, **{**arguments, "max_steps": steps})
        losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
        step = max(losses, key=losses.get)
        assert step == 1, "the best is to be the one that rotation would delete"
        expected = load_file(tmp_path / "run" / "checkpoint-1" / "model.safetensors")
        assert all(torch.equal(trainer.model.state_dict()[name], tensor) for name, tensor in expected.items())


def test_a_run_does_not_start_anew_among_the_checkpoints_of_another(start, tmp_path):
    (tmp_path / "checkpoint-6").mkdir()
    with pytest.raises(ValueError, match="holds checkpoint-6 of another run; give --resume_from_checkpoint true"):
        train(start, tmp_path)


def test_a_checkpoint_of_weights_alone_is_not_resumed(start, tmp_path):
    arguments = {"save_only_model": True, "save_steps": 1, "max_steps": 1, "eval_strategy": "no", "ema_decay": None}
    train(start, tmp_path, **arguments, ema_start_step=0)
    with pytest.raises(ValueError, match="checkpoint-1 was saved with save_only_model, which no run resumes from"):
        train(start, tmp_path, resume=True, **{**arguments, "max_steps": 2}, ema_start_step=0)


def test_the_best_checkpoint_is_found_in_a_folder_that_was_moved(start, tmp_path):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    arguments = {**RUN, **best, "save_steps": 1, "eval_steps": 1}  # as the loss falls, the best is then the first
    train(start, tmp_path / "before", **{**arguments, "max_steps": 2})
    (tmp_path / "before").rename(tmp_path / "after")
    trainer = train(start, tmp_path / "after", resume=True, **{**arguments, "max_steps": 3})
    assert trainer.state.best_model_checkpoint == str(tmp_path / "after" / "checkpoint-1")
    weights = load_file(tmp_path / "after" / "checkpoint-1" / "model.safetensors")
    assert all(torch.equal(trainer.model.state_dict()[name], tensor) for name, tensor in weights.items())


# ----------------------------------------------------------------------------------- which checkpoint is resumed from


def fake_checkpoint(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(bytes(100))
    state = TrainerState(global_step=step)
    state.save_to_json(str(checkpoint / "trainer_state.json"))
    counts = {"loss_since_log": 0.5, "last_logged_step": 1, "nonfinite_steps": 0, "nonfinite_in_a_row": []}
    (checkpoint / PROGRESS).write_text(json.dumps(counts))
    write_manifest(checkpoint)
    return checkpoint


def cut_weights(checkpoint: Path):
    (checkpoint / "model.safetensors").write_bytes(bytes(50))


def manifest(text: str):
    return lambda checkpoint: (checkpoint / MANIFEST).write_text(text)


def signed(name: str, text: str):
    """A file with another content, and a manifest that has its checksum."""

    def change(checkpoint: Path):
        (checkpoint / name).write_text(text)
        write_manifest(checkpoint)

    return change


DAMAGE = {
    "model.safetensors has 50 bytes of 100": cut_weights,
    "model.safetensors is missing": lambda checkpoint: (checkpoint / "model.safetensors").unlink(),
    "it has no complete.json, which is written last": lambda checkpoint: (checkpoint / MANIFEST).unlink(),
    "its complete.json is cut off": manifest('{"files": {'),
    "its complete.json names no files with checksums": manifest('{"bytes": {}}'),
    "its complete.json names no files with checksums ": manifest('["model.safetensors"]'),
    "its complete.json does not name trainer_state.json": manifest('{"files": {}}'),
    "its complete.json is cut off ": manifest("[" * 100_000),
    "its complete.json does not name rng_state.pth": lambda checkpoint: (checkpoint / "optimizer.pt").write_text("x"),
    "its complete.json does not name other.safetensors": lambda checkpoint: (
        checkpoint / "other.safetensors"
    ).write_text("x"),
    "model.safetensors is not what was written, its checksum is another": lambda checkpoint: (
        checkpoint / "model.safetensors"
    ).write_bytes(bytes(99) + b"1"),
    "trainer_state.json is not the state of a run": signed("trainer_state.json", '{"unknown": 1}'),
    "trainer_state.json is not the state of a run ": signed("trainer_state.json", "[]"),
    "trainer_state.json has no global_step": signed("trainer_state.json", "{}"),
    "trainer_state.json is no JSON that can be read": signed(
        "trainer_state.json", '{"global_step": ' + "9" * 5000 + "}"
    ),
    "global_step in trainer_state.json is -1": signed("trainer_state.json", '{"global_step": -1}'),
    "log_history in trainer_state.json is no list": signed(
        "trainer_state.json", '{"global_step": 1, "log_history": [3]}'
    ),
    "progress.json is no JSON that can be read": signed(PROGRESS, ""),
    "loss_since_log in progress.json is 'x'": signed(PROGRESS, '{"loss_since_log": "x"}'),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_checkpoint_that_is_cut_off_is_recognised_and_the_one_before_is_used(start, tmp_path, reason):
    before, broken = fake_checkpoint(tmp_path, 90), fake_checkpoint(tmp_path, 100)
    assert newest_whole_checkpoint(tmp_path) == str(broken)
    DAMAGE[reason](broken)
    assert what_is_missing(broken).startswith(reason.strip())
    assert newest_whole_checkpoint(tmp_path) == str(before)
    with pytest.raises(
        ValueError, match=f"checkpoint-100 is not a whole checkpoint: {re.escape(reason.strip())}.*. Resume from one"
    ):
        make_trainer(start, tmp_path).train(resume_from_checkpoint=str(broken))
    cut_weights(before)
    with pytest.raises(ValueError, match="None of the 2 checkpoints in .* is whole; start anew, in another folder"):
        make_trainer(start, tmp_path).train(resume_from_checkpoint=True)


def test_what_cannot_be_resumed_is_refused(start, tmp_path, whole):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder; give a checkpoint, or true for the newest one"):
        make_trainer(start, tmp_path).train(resume_from_checkpoint=str(tmp_path / "nowhere"))
    checkpoint = Path(whole.args.output_dir) / "checkpoint-12"
    for head, reason in (("mamba", "size mismatch for mask_head"), ("other", "weights are in one of the two only")):
        trainer = make_trainer(start, tmp_path, **{**RUN, "ema_decay": None, "ema_start_step": 0})
        if head == "mamba":
            trainer.model.mask_head.classifier = torch.nn.Conv2d(1, 1, 1)
        else:
            trainer.model.mask_head.other = torch.nn.Linear(1, 1)
        with pytest.raises(ValueError, match=f"The checkpoint is not of this model; resume with .*{reason}"):
            trainer.train(resume_from_checkpoint=str(checkpoint))
    (copy,) = [tmp_path / "checkpoint-12"]
    copy.symlink_to(checkpoint)
    with pytest.raises(ValueError, match="checkpoint-12 was saved with other parts frozen; resume with the same"):
        train(start, tmp_path, resume=str(copy), freeze=["backbone"])


def test_a_checkpoint_of_another_design_is_refused_though_its_weights_fit(start, tmp_path, whole):
    checkpoint = Path(whole.args.output_dir) / "checkpoint-12"
    for name, value in (("twister_scans", "spatial_then_channel"), ("layer_norm_eps", 1e-3)):
        trainer = make_trainer(start, tmp_path, **RUN)
        there = getattr(trainer.model.config, name)
        setattr(trainer.model.config, name, value)
        told = re.escape(f"({name} is {there!r} there and {value!r} here)")
        with pytest.raises(ValueError, match=f"The checkpoint is not of this model; resume with .*{told}"):
            trainer.train(resume_from_checkpoint=str(checkpoint))


def test_a_checkpoint_without_the_average_is_refused(start, tmp_path, whole):
    with pytest.raises(ValueError, match="was saved without ema_decay; resume without it"):
        whole._load_own_state(tmp_path)


def test_true_may_be_written_as_a_word(tmp_path):
    for word, value in (("true", True), ("True", True), ("false", False), ("folder", "folder"), (None, None)):
        arguments = ReMamberTrainingArguments(output_dir=str(tmp_path), use_cpu=True, resume_from_checkpoint=word)
        assert arguments.resume_from_checkpoint == value


def test_a_checkpoint_that_replaces_another_leaves_the_old_one_whole_or_none(tmp_path, monkeypatch):
    calls = 0

    def or_die(change):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == deadly:
                raise KeyboardInterrupt
            return change(*args, **kwargs)

        return call

    for name in ("rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, or_die(getattr(os, name)))
    for deadly in range(1, 10):
        folder, calls = tmp_path / str(deadly), 0
        final, staged = fake_checkpoint(folder, 4), folder / STAGING / "checkpoint-4"
        shutil.copytree(final, staged)
        (staged / "model.safetensors").write_bytes(bytes(200))
        try:
            publish(staged, final)
        except KeyboardInterrupt:
            assert not final.exists() or what_is_missing(final) is None
        else:
            break
    assert deadly > 1 and what_is_missing(final) is None
    assert (final / "model.safetensors").stat().st_size == 200


def test_a_checkpoint_that_was_being_removed_does_not_outlive_whole_ones(tmp_path, monkeypatch):
    def remove_half(folder, **kwargs):
        next(path for path in sorted(Path(folder).rglob("*")) if path.is_file()).unlink()
        raise KeyboardInterrupt

    for step in (1, 2, 3):
        os.utime(fake_checkpoint(tmp_path, step), (10 * step, 10 * step))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", remove_half)
        with pytest.raises(KeyboardInterrupt):
            rotate(tmp_path, 2, None)
    assert {path.name for path in checkpoints_in(tmp_path).values()} == {"checkpoint-2", "checkpoint-3"}
    fake_checkpoint(tmp_path, 4)
    rotate(tmp_path, 2, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-4"]


@pytest.mark.parametrize(
    "limit, best, kept",
    [(None, None, {1, 2, 3}), (0, None, {1, 2, 3}), (2, None, {2, 3}), (1, 1, {1, 3}), (2, 1, {1, 3}), (1, 3, {3})],
)
def test_the_best_and_the_newest_checkpoint_stay(tmp_path, limit, best, kept):
    for step in (1, 2, 3):
        os.utime(fake_checkpoint(tmp_path, step), (10 * step, 10 * step))
    rotate(tmp_path, limit, best and str(tmp_path / f"checkpoint-{best}"))
    assert checkpoints_in(tmp_path).keys() == kept


def test_one_process_of_several_saves_the_averaged_model(start, tmp_path, monkeypatch):
    trainer = make_trainer(start, tmp_path / "run", ema_decay=0.9, max_steps=1)
    trainer.train()
    assert trainer.average is not None  # there is something that could be saved
    monkeypatch.setattr(ReMamberTrainingArguments, "should_save", False)  # as in all but the first
    trainer.save_model(str(tmp_path / "saved"))
    assert not (tmp_path / "saved" / "ema").exists()


def test_a_failed_write_leaves_nothing_behind(start, tmp_path, monkeypatch):
    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    trainer = make_trainer(start, tmp_path, save_strategy="steps", save_steps=1)
    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match="No space left on device"):
        trainer.train()
    assert list(tmp_path.iterdir()) == []
