# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile recipes and checkpoints: one line each, nothing executed, nothing half-written, time and memory bounded."""

import functools
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from machinery import attempt, run_command
from safetensors.torch import load_file, save_file

from remamber_hf.inference.memory import keep_freed_memory
from remamber_hf.run_training import main as train
from remamber_hf.training.checkpoints import MANIFEST, write_manifest


sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
runs = pytest.importorskip("runs")


SEED = 20261126
RUN = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "ema_decay": 0.9}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder with data and models, and one of a run with three checkpoints."""
    folder = tmp_path_factory.mktemp("start")
    runs.make_start(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs.make_trainer(folder, folder / "run", **{**RUN, "max_steps": 2}).train()
    torch.set_num_threads(threads)
    return folder


class Bomb:
    """What a pickle would run."""

    def __reduce__(self):
        return os.system, ("echo executed",)


# ---------------------------------------------------------------------------------------- files of another content


def pickled(content) -> bytes:
    return pickle.dumps(content)


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def deep(depth: int) -> list:
    value = []
    for _ in range(depth):
        value = [value]
    return value


def bytes_of_anything(old: bytes, draw: random.Random) -> dict[str, bytes]:
    """What any file can be made into."""
    place = draw.randrange(len(old))
    return {
        "empty": b"",
        "cut": old[: draw.randrange(1, len(old) - 1)],
        "noise": draw.randbytes(len(old)),
        "a changed middle": old[:place] + draw.randbytes(64) + old[place + 64 :],
        "a pickle that runs": pickled(Bomb()),
        "torch's file that runs": saved({"state": Bomb()}),
        "text": b"[1, 2",
    }


FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "progress.json")
FILES += ("ema.safetensors", "config.json")
KINDS = list(bytes_of_anything(bytes(100), random.Random(0)))


def resume(start: Path, checkpoint: Path):
    trainer = runs.make_trainer(start, checkpoint.parent, **RUN)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return trainer.state.global_step


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A copy of the newest checkpoint, alone in a folder."""
    return shutil.copytree(trained / "run" / "checkpoint-2", tmp_path / "run" / "checkpoint-2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_content_with_its_checksum_is_refused(trained, checkpoint, tmp_path, name, kind):
    draw = random.Random(f"{SEED} {name} {kind}")
    path = checkpoint / name
    path.write_bytes(bytes_of_anything(path.read_bytes(), draw)[kind])
    write_manifest(checkpoint)
    outcome = attempt(resume, trained, checkpoint, folder=tmp_path, gigabytes=6, seconds=30)
    assert "executed" not in outcome.stdout
    if kind == "a changed middle" and outcome.status == 0:  # other numbers are numbers
        return
    if name == "config.json" and outcome.status == 0:  # read for a version that is not there
        return
    outcome.check_refused("checkpoint")


def change_optimizer(change):
    def changed(path: Path):
        content = torch.load(path, weights_only=False)  # ours
        change(content)
        torch.save(content, path)

    return changed


def of_state(name, value):
    def change(content):
        content["state"][0][name] = value

    return change


def change_tensors(change):
    def changed(path: Path):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return changed


def first(tensors: dict) -> str:
    return next(name for name, tensor in sorted(tensors.items()) if tensor.dim() == 1 and len(tensor) > 1)


def lose_shape(tensors: dict):
    tensors[first(tensors)] = torch.zeros(1)


def widen(tensors: dict):
    tensors[first(tensors)] = torch.zeros(3, 5)


def spoil(tensors: dict):
    tensors[first(tensors)][0] = float("nan")


def make_text(tensors: dict):
    tensors[first(tensors)] = torch.zeros_like(tensors[first(tensors)], dtype=torch.int8)


def with_json(**values):
    def changed(path: Path):
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return changed


def write_torch(content):
    return functools.partial(torch.save, content)


CONTENTS = {
    "no exp_avg": ("optimizer.pt", change_optimizer(lambda content: content["state"][0].pop("exp_avg"))),
    "exp_avg of another shape": ("optimizer.pt", change_optimizer(of_state("exp_avg", torch.zeros(7)))),
    "exp_avg as text": ("optimizer.pt", change_optimizer(of_state("exp_avg", "x"))),
    "exp_avg in integers": ("optimizer.pt", change_optimizer(of_state("exp_avg_sq", torch.zeros(1, dtype=torch.int)))),
    "a step of many numbers": ("optimizer.pt", change_optimizer(of_state("step", torch.zeros(4)))),
    "no learning rate": ("optimizer.pt", change_optimizer(lambda content: content["param_groups"][0].pop("lr"))),
    "a learning rate of text": (
        "optimizer.pt",
        change_optimizer(lambda content: content["param_groups"][0].update(lr="much")),
    ),
    "one beta": ("optimizer.pt", change_optimizer(lambda content: content["param_groups"][0].update(betas=(0.9,)))),
    "fewer groups": ("optimizer.pt", change_optimizer(lambda content: content["param_groups"].pop())),
    "no groups": ("optimizer.pt", write_torch({"state": {}})),
    "an optimizer that is a list": ("optimizer.pt", write_torch([1])),
    "an optimizer that is a tensor": ("optimizer.pt", write_torch(torch.zeros(3))),
    "a scheduler with another optimizer": (
        "scheduler.pt",
        change_optimizer(lambda content: content.update(optimizer=3)),
    ),
    "a scheduler without a step": ("scheduler.pt", change_optimizer(lambda content: content.pop("last_epoch"))),
    "a scheduler with text for a step": (
        "scheduler.pt",
        change_optimizer(lambda content: content.update(last_epoch="x")),
    ),
    "a scheduler that is a number": ("scheduler.pt", write_torch(3)),
    "a random state without torch's": ("rng_state.pth", change_optimizer(lambda content: content.pop("cpu"))),
    "a random state of text": ("rng_state.pth", change_optimizer(lambda content: content.update(python="x"))),
    "a random state that is deep": ("rng_state.pth", change_optimizer(lambda content: content.update(cpu=deep(50)))),
    "an average of another shape": ("ema.safetensors", change_tensors(lose_shape)),
    "an average in integers": ("ema.safetensors", change_tensors(make_text)),
    "an average of fewer weights": ("ema.safetensors", change_tensors(lambda tensors: tensors.pop(first(tensors)))),
    "weights of another shape": ("model.safetensors", change_tensors(widen)),
    "weights that are no numbers": ("model.safetensors", change_tensors(spoil)),
    "an average that is no number": ("ema.safetensors", change_tensors(spoil)),
    "moments that are no numbers": (
        "optimizer.pt",
        change_optimizer(lambda content: content["state"][0]["exp_avg_sq"].fill_(float("nan"))),
    ),
    "fewer weights": ("model.safetensors", change_tensors(lambda tensors: tensors.pop(first(tensors)))),
    "more weights": ("model.safetensors", change_tensors(lambda tensors: tensors.update(more=torch.zeros(1)))),
    "a step below 0": ("trainer_state.json", with_json(global_step=-3)),
    "a step of text": ("trainer_state.json", with_json(global_step="\u202e" * 5000)),
    "a step beyond all": ("trainer_state.json", with_json(global_step=10**40)),
    "an unknown state": ("trainer_state.json", with_json(**{"x" * 5000: 1})),
    "a log of numbers": ("trainer_state.json", with_json(log_history=[1, 2])),
    "a log of deep lists": ("trainer_state.json", with_json(log_history=[{"step": 1, "loss": deep(200)}])),
    "a best checkpoint that is a list": ("trainer_state.json", with_json(best_model_checkpoint=["/"])),
    "a loss of text": ("progress.json", with_json(loss_since_log="x")),
    "counts below 0": ("progress.json", with_json(nonfinite_steps=-1)),
    "counts of lists": ("progress.json", with_json(last_logged_step=deep(300))),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_checkpoint_of_hostile_content_with_its_checksum_is_refused(trained, checkpoint, tmp_path, name):
    file, change = CONTENTS[name]
    change(checkpoint / file)
    write_manifest(checkpoint)
    outcome = attempt(resume, trained, checkpoint, folder=tmp_path, gigabytes=6, seconds=30)
    outcome.check_refused("resume" if "Resume" not in outcome.message else "Resume")


@pytest.mark.parametrize(
    "text",
    [
        '{"bytes": {}}',
        "[]",
        "null",
        '{"files": []}',
        '{"files": {}}',
        '{"files": {"../../secret": {"bytes": 1}}}',
        '{"files": {"trainer_state.json": 3, "progress.json": null}}',
        "[" * 200_000,
        "9" * 5000,
        '{"files": {"\u202e\u001b' + "x" * 100_000 + '": 1}}',
    ],
    ids=range(10),
)
def test_the_checkpoint_before_a_hostile_manifest_is_taken(trained, checkpoint, tmp_path, text):
    shutil.copytree(trained / "run" / "checkpoint-1", checkpoint.with_name("checkpoint-1"))
    (checkpoint / MANIFEST).write_text(text)
    named = attempt(resume, trained, checkpoint, folder=tmp_path, gigabytes=6, seconds=30)
    named.check_refused("is not a whole checkpoint")

    def resume_newest():
        trainer = runs.make_trainer(trained, checkpoint.parent, **RUN)
        trainer.train(resume_from_checkpoint=True)
        return Path(trainer.checkpoint).name, trainer.state.global_step

    newest = attempt(resume_newest, gigabytes=6, seconds=30)
    assert newest.value == "('checkpoint-1', 3)", newest.text + newest.trace


# --------------------------------------------------------------------------------------------------------- recipes


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def bomb_in(name: str, levels: int) -> str:
    value = "&b0 [x, x]"
    for level in range(1, levels):
        value = f"&b{level} [{value}, *b{level - 1}, *b{level - 1}, *b{level - 1}]"
    return f"{name}: {value}"


RECIPES = {
    "aliases": (bomb(12), "a0"),
    "aliases in a known name": (bomb_in("dataset", 18), "dataset"),
    "aliases in a mapping": (bomb_in("model_config", 18), "model_config"),
    "a loop": ("model_config: &a {b: *a}", "model_config"),
    "a loop of a list": ("freeze: &a [*a]", "freeze"),
    "python object": ("output_dir: !!python/object/apply:os.system ['echo executed']", "YAML"),
    "python name": ("seed: !!python/name:os.system", "YAML"),
    "an integer of 5,000 digits": ("seed: " + "9" * 5000, "seed"),
    "an integer of 300 digits": ("seed: " + "9" * 300, "seed"),
    "deep": ("a: " + "[" * 3000 + "]" * 3000, "recipe.yaml"),
    "deep mapping": ("model_config: " + "{a: " * 3000 + "}" * 3000, "recipe.yaml"),
    "no mapping": ("- 1\n- 2", "mapping"),
    "nothing": ("", "mapping"),
    "bytes": (b"\xff\xfe\x00", "recipe.yaml"),
    "control characters": ("output_dir: \x1b[31m", "recipe.yaml"),
    "escaped control characters in a name": ('"\\e[31m\\u202e": 1', "recipe.yaml"),
    "a long name": ("x" * 1000 + ": 1", "recipe.yaml"),
    "a list for a name": ("? [a, b]\n: 1", "recipe.yaml"),
    "a number for a name": ("3: 1", "3"),
    "a date for a number": ("seed: 2026-11-26", "seed"),
    "text for int": ("max_steps: many", "max_steps"),
    "text with controls for int": ('max_steps: "\\e[31m\\u202e"', "max_steps"),
    "float for int": ("max_steps: 1.5", "max_steps"),
    "bool for int": ("max_steps: true", "max_steps"),
    "text for float": ("learning_rate: fast", "learning_rate"),
    "nan for float": ("learning_rate: .nan", "learning_rate"),
    "list for float": ("learning_rate: [1]", "learning_rate"),
    "mapping for text": ("dataset: {a: 1}", "dataset"),
    "number for bool": ("do_train: 7", "do_train"),
    "text for bool": ("bf16: perhaps", "bf16"),
    "list for bool": ("bf16: [1]", "bf16"),
    "list for a path": ("data_dir: [a]", "data_dir"),
    "mapping for a path": ("output_dir: {a: 1}", "output_dir"),
    "unknown part": ("freeze: [head]", "freeze"),
    "mapping in a list": ("freeze: [{a: 1}]", "freeze"),
    "number in a list": ("freeze: [3]", "freeze"),
    "a list for a mapping": ("model_config: [1]", "model_config"),
    "text for a mapping": ("lr_scheduler_kwargs: '{min_lr: 1}'", "lr_scheduler_kwargs"),
    "a number for a mapping": ("lr_scheduler_kwargs: 3", "lr_scheduler_kwargs"),
    "broken JSON for a mapping": ("gradient_checkpointing_kwargs: '{'", "gradient_checkpointing_kwargs"),
    "broken JSON for accelerate": ("accelerator_config: '{split: 1}'", "accelerator_config"),
    "unknown field for accelerate": ("accelerator_config: {unknown: 1}", "accelerator_config"),
    "deep JSON": ("lr_scheduler_kwargs: '" + '{"a":' * 3000 + "1" + "}" * 3000 + "'", "lr_scheduler_kwargs"),
    "JSON of 5,000 digits": ('lr_scheduler_kwargs: \'{"a": ' + "9" * 5000 + "}'", "lr_scheduler_kwargs"),
    "unknown scheduler": ("lr_scheduler_type: stairs", "lr_scheduler_type"),
    "unknown optimizer": ("optim: best", "optim"),
    "a name twice": ("learning_rate: 0.1\nlearning_rate: 0.2", "line 2: learning_rate stands there twice"),
    "a name twice in a mapping": ("model_config: {a: 1, b: 2, a: 3}", "a stands there twice"),
    "a name twice in JSON": ('lr_scheduler_kwargs: \'{"a": 1, "a": 2}\'', "'a' stands twice"),
    "a batch of none": ("per_device_eval_batch_size: 0", "--per_device_eval_batch_size is 0; give at least 1"),
    "fewer than no epochs": ("num_train_epochs: -1", "--num_train_epochs is -1.0; give more than 0"),
    "counts of none": ("eval_accumulation_steps: 0", "--eval_accumulation_steps is 0; give at least 1"),
    "weights that grow": ("weight_decay: -1", "--weight_decay is -1.0; give at least 0"),
    "a seed beyond all": ("seed: 5000000000", "--seed is 5000000000; give at most 4294967295"),
    "Latin-1": ("run_name: café".encode("latin-1"), "line 1: byte 0xe9 is no UTF-8"),
    "NUL": ("seed: 1\0", "is no valid YAML: unacceptable character"),
    "unknown way to compile": ("torch_compile_mode: fast", "torch_compile_mode is 'fast'; choose one of default"),
    "kernels for others": ("use_liger_kernel: true", "use_liger_kernel is true; Liger has no kernel for ReMamber"),
    "null for int": ("max_steps: null", "max_steps"),
    "null for text": ("output_dir: null", "output_dir"),
    "NUL in a path": ('output_dir: "a\\0b"', "output_dir"),
    "half a surrogate": ('output_dir: "\\ud800"', "recipe.yaml"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_hostile_recipe_is_refused(tmp_path, name):
    content, word = RECIPES[name]
    recipe = tmp_path / "recipe.yaml"
    text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    rest = "" if "output_dir" in name or b"output_dir" in text else f"\noutput_dir: {tmp_path / 'out'}"
    rest += "" if b"do_train" in text else "\ndo_train: true"
    is_open = isinstance(content, str) and ":" in content and not content.startswith("-")
    recipe.write_bytes(text + (rest + "\nuse_cpu: true").encode() if is_open else text)
    more = [] if b"model_config" in text else ["--model_config", "{}"]
    outcome = attempt(train, [str(recipe), *more], folder=tmp_path, seconds=20)
    assert "executed" not in outcome.stdout
    outcome.check_refused(word, "recipe.yaml", megabytes=300)


# ------------------------------------------------------------------------------------------------------ no more room


def with_room_for(size: int, arguments: list[str]):
    """Run the command where no file may grow beyond `size` bytes, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    run_command(*arguments)


@pytest.mark.parametrize("size", [5000, 20_000, 60_000, 120_000])
@pytest.mark.parametrize("command", ["train", "export", "evaluate"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(trained, tmp_path, command, size):
    keep_freed_memory()  # which the command asks for, and the machinery would take for a program that is started
    data, out = trained / "data" / "shapes", tmp_path / "out"
    model = str(trained / "conv")
    commands = {
        "train": ["train", "--model", model, "--do_train", "--use_cpu", "--max_steps", "1", "--save_steps", "1"],
        "export": ["data", "export"],
        "evaluate": ["evaluate", model, "--num_workers", "0", "--splits", "val", "--device", "cpu"],
    }
    arguments = [*commands[command], "--data_dir", str(data), "--output_dir", str(out)]
    outcome = attempt(with_room_for, size, arguments, gigabytes=6, seconds=60)
    assert outcome.status == 2 or (outcome.status == 0 and size > 50_000), outcome.trace + outcome.stderr
    message = [line for line in outcome.stderr.splitlines() if "remamber: error" in line]
    assert "Traceback" not in outcome.stderr and len(message) == (outcome.status == 2), outcome.stderr
    if outcome.status == 2:
        assert len(message[0]) < 600 and not list(tmp_path.glob(".*"))
        assert command == "train" or not out.exists()
        assert not list(out.glob("**/*.safetensors")) and not list(out.glob("checkpoint-*"))
