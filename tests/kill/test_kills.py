# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed at any moment: no final name on half a file, and nothing hidden outlives the next run.

Takes minutes and so runs by `make test-kill`. The commands run in forked children of one thread with shared imports.
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from published_checkpoint import remamber_shapes
from safetensors.torch import load_file
from tqdm import tqdm

from remamber_hf.cli.main import main as remamber
from remamber_hf.inference.loading import BUNDLED_PICTURES


sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
runs = pytest.importorskip("runs")
pytestmark = pytest.mark.slow

SEED = 20261126
NUM_KILLS = 25
STEPS = 6
SIZES = {
    "hidden_sizes": (16, 32, 64, 128),
    "depths": (1, 1, 1, 1),
    "text": {"size": 64, "vocabulary": 520, "positions": 24, "intermediate": 64},
    "text_length": 8,
    "correlation_size": 16,
    "fusion": {"channel_scan_size": 4, "num_blocks": 1},
}


def start(arguments: list[str]) -> int:
    """Process id of a child, the first of its group, that runs the command."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 3
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        torch.set_num_threads(1)
        tqdm.set_lock(threading.RLock())  # its own outlives the child that held it
        sys.argv = ["remamber", *map(str, arguments)]
        remamber()
        status = 0
    except SystemExit as error:
        status = error.code or 0
    finally:
        os._exit(status if isinstance(status, int) else 1)


def finish(arguments: list[str]) -> float:
    """Run a command to its end; the seconds that it took."""
    begin = time.monotonic()
    child = start(arguments)
    _, how = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(how) == 0, arguments
    return time.monotonic() - begin


def kill_after(arguments: list[str], seconds: float) -> bool:
    """Whether a command was killed before its end."""
    child = start(arguments)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, how = os.waitpid(child, 0)
    return os.WIFSIGNALED(how)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    """Folder with a tiny data set, a tiny model and a checkpoint as it was published."""
    folder = tmp_path_factory.mktemp("begin")
    runs.make_start(folder)
    shapes = remamber_shapes(**SIZES)
    generator = torch.Generator().manual_seed(0)
    torch.save({name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}, folder / "model.pth")
    return folder


def training(begin: Path, output_dir: Path) -> list[str]:
    options = {
        "model": begin / "conv",
        "data_dir": begin / "data" / "shapes",
        "output_dir": output_dir,
        "max_steps": STEPS,
        "save_steps": 1,
        "save_total_limit": 2,
        "ema_decay": 0.8,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": "true",
        "resume_from_checkpoint": "true",
    }
    return [
        "train",
        "--do_train",
        "--use_cpu",
        *(str(word) for name in options for word in (f"--{name}", options[name])),
    ]


@pytest.fixture(scope="module")
def unbroken(begin, tmp_path_factory):
    """Output folder of a run that nobody killed, and its seconds."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    seconds = finish(training(begin, folder))
    return folder, seconds


@pytest.mark.parametrize("number", range(NUM_KILLS))
def test_training_that_is_killed_and_resumed_ends_with_the_same_weights(begin, unbroken, tmp_path, number):
    folder, seconds = unbroken
    draw = random.Random(f"{SEED} {number}")
    for _ in range(draw.choice([1, 1, 2])):
        kill_after(training(begin, tmp_path / "run"), draw.uniform(0.05, 1) * seconds)
        for path in (tmp_path / "run").glob("**/*.safetensors"):
            if "_unfinished" not in path.parts:
                load_file(path)  # whole
        for path in (tmp_path / "run").glob("*.json"):
            json.loads(path.read_text())
    finish(training(begin, tmp_path / "run"))
    for name in ("model.safetensors", "ema/model.safetensors"):
        weights, expected = load_file(tmp_path / "run" / name), load_file(folder / name)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)
    # Where it was killed before the oldest checkpoint was removed, that stays.
    of_run, of_unbroken = ({path.name for path in each.iterdir()} for each in (tmp_path / "run", folder))
    assert of_run >= of_unbroken and all(name.startswith("checkpoint-") for name in of_run - of_unbroken)


def commands(begin: Path, out: Path) -> dict[str, list[str]]:
    """A command of each kind, whose output is `out`."""
    shapes = begin / "data" / "shapes"
    pictures = sorted(BUNDLED_PICTURES.glob("*.png"))[:3]
    words = ["-e", "the purple star", "-e", "the orange square", "--device", "cpu"]
    return {
        "convert": ["convert", begin / "model.pth", out],
        "synthesize": ["data", "synthesize", out, "--images", "30", "--style", "plain"],
        "export": ["data", "export", "--data_dir", shapes, "--output_dir", out],
        "evaluate": ["evaluate", begin / "conv", "--data_dir", shapes, "--output_dir", out, "--num_workers", "0"],
        "segment": ["segment", *pictures, *words, "--output", out],
        "json": ["segment", *pictures, *words, "--format", "json", "--output", f"{out}.jsonl"],
        "explain": ["segment", pictures[0], "the purple star", "--device", "cpu", "--output", f"{out}.overlay.png"]
        + ["--explain", f"{out}.png"],
    }


@pytest.mark.parametrize("name", commands(Path(), Path()))
def test_a_command_that_is_killed_leaves_nothing_half_written_and_the_next_one_cleans_up(begin, tmp_path, name):
    out = tmp_path / "plain" / "out"
    out.parent.mkdir()
    command = commands(begin, out)[name]
    seconds = finish(command)
    expected = {path.relative_to(out.parent): path.stat().st_size for path in out.parent.rglob("*") if path.is_file()}
    shutil.rmtree(out.parent)
    out.parent.mkdir()
    draw = random.Random(f"{SEED} {name}")
    num_left = 0
    for _ in range(6):
        if not kill_after(command, draw.uniform(0.2, 1) * seconds):
            break  # it was done
        for path in out.parent.rglob("*"):
            inside = path.relative_to(out.parent)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                assert path.suffix != ".png" or Image.open(path).load() is not None
                if name in ("convert", "synthesize", "export", "evaluate"):  # the folder came to be at once
                    assert inside in expected
        num_left += len(hidden(out.parent))
    if out.is_dir():
        shutil.rmtree(out)
    finish(command)
    assert hidden(out.parent) == []
    found = {path.relative_to(out.parent) for path in out.parent.rglob("*") if path.is_file()}
    assert found == set(expected)
