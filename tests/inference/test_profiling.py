# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Times are of the passes that are said, memory is what is taken, and a fresh process ends with the one before it."""

import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from tiny import build, remamber_config, vim_config, vision_config

from remamber_hf import VimBackbone, VMambaForImageClassification
from remamber_hf.inference import profiling
from remamber_hf.inference.cost import make_inputs
from remamber_hf.inference.profiling import (
    NUM_WARMUP,
    PeakMemory,
    Workload,
    build_model,
    in_fresh_process,
    measure_model,
    name_scan_backends,
    quartiles,
    read_resident,
    time_passes,
)
from remamber_hf.selective_scan import BACKENDS, fastest_backend


CPU = torch.device("cpu")
MIB = 2**20


# --------------------------------------------------------------------------------------------------------------- time


def test_times_are_those_of_the_passes_after_the_warm_up(monkeypatch):
    model = build()
    passes = []
    model.register_forward_hook(lambda *args: passes.append(torch.is_inference_mode_enabled()))
    seconds = [(index, index + length) for index, length in enumerate([0.9] * NUM_WARMUP + [0.003, 0.001, 0.002])]
    clock = iter([second for both in seconds for second in both])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    times = time_passes(model, make_inputs(model.config, 32, CPU), num_runs=3)
    assert times == pytest.approx([3, 1, 2])
    assert passes == [True] * (NUM_WARMUP + 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_half_precision_is_autocast_and_weights_stay(dtype):
    model = build("mamba")
    made = set()
    model.remamber.backbone.stages[0].blocks[0].mlp.fc1.register_forward_hook(
        lambda module, args, output: made.add(output.dtype)
    )
    time_passes(model, make_inputs(model.config, 32, CPU), dtype, num_runs=1)
    assert made == {getattr(torch, dtype)} and model.dtype == torch.float32


def test_quartiles_are_those_of_the_numbers():
    assert quartiles([5.0]) == {"q1": 5, "median": 5, "q3": 5}
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == {"q1": 2, "median": 3, "q3": 4}
    values = [0.3, 8.0, 2.5, 7.25]
    assert quartiles(values)["median"] == statistics.median(values)
    assert torch.tensor(list(quartiles(values).values())).tolist() == pytest.approx(
        torch.quantile(torch.tensor(values), torch.tensor([0.25, 0.5, 0.75])).tolist()
    )


# ------------------------------------------------------------------------------------------------------------- memory


def take(before_reset: int, at_the_peak: int) -> int | None:
    """What is measured where so many MiB are filled and let go, before the peak is reset and after it."""
    memory = PeakMemory(CPU)
    torch.ones(before_reset * MIB, dtype=torch.uint8)
    memory.reset()
    torch.ones(at_the_peak * MIB, dtype=torch.uint8)
    return memory.read()


def test_the_peak_grows_by_a_buffer_that_is_filled_and_let_go_and_not_by_one_before_it():
    small, large, early = (in_fresh_process(take, *sizes) for sizes in ((0, 1), (0, 65), (65, 1)))
    if not Path("/proc/self/clear_refs").exists():
        assert small is large is early is None
        return
    assert 60 * MIB < large - small < 80 * MIB
    assert abs(early - small) < 16 * MIB


def test_where_the_system_does_not_tell_there_is_no_figure(monkeypatch, tmp_path):
    def path_elsewhere(name):
        return tmp_path / "nothing"

    monkeypatch.setattr(profiling, "Path", path_elsewhere)
    assert take(0, 1) is None and read_resident("VmRSS") is None
    (tmp_path / "nothing").write_text("Name:\tpython\n")  # a system without these lines
    assert read_resident("VmRSS") is None
    assert take(0, 1) is None


def test_a_peak_that_cannot_be_reset_is_none(monkeypatch):
    monkeypatch.setattr(profiling, "reset_peak_resident", lambda: False)
    assert take(0, 1) is None


def test_no_figure_of_the_process_is_given_for_another_device():
    memory = PeakMemory(torch.device("mps"))
    memory.reset()
    assert memory.read() is None


def test_on_cuda_it_is_the_peak_of_the_allocator_beyond_what_was_there(monkeypatch):
    allocated, calls = {"now": 100, "peak": 900}, []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: allocated["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", calls.append)
    memory = PeakMemory(torch.device("cuda:1"))
    memory.reset()
    allocated["peak"] = 350
    assert memory.read() == 250 and calls == [torch.device("cuda:1")]


# ------------------------------------------------------------------------------------------------------------ together


def test_a_configuration_makes_the_model_that_saved_it(tmp_path):
    for model in (
        build("mamba"),
        VMambaForImageClassification(vision_config(num_labels=7)),
        VimBackbone(vim_config(out_features=["stage2"])),
    ):
        model.save_pretrained(tmp_path)
        config = type(model.config).from_pretrained(tmp_path)
        made = build_model(config)
        assert type(made) is type(model) and not made.training
        assert [tuple(weight.shape) for weight in made.parameters()] == [
            tuple(weight.shape) for weight in model.parameters()
        ]
    assert type(build_model(vision_config())).__name__ == "VMambaModel"  # nobody saved it
    for saved_by in (["os.system"], "VimBackbone", 5, None):
        assert type(build_model(vim_config(architectures=saved_by))).__name__ == "VimModel"


def test_what_is_measured_says_how_it_was_measured():
    workload = Workload((32, 64), batch_size=2, num_expressions=3, num_runs=4, num_threads=1)
    figures = in_fresh_process(measure_model, remamber_config(), workload, CPU)
    times = figures["milliseconds"]
    assert list(times) == ["q1", "median", "q3"] and 0 < times["q1"] <= times["median"] <= times["q3"]
    assert figures["pictures_per_second"] == pytest.approx(2000 / times["median"])
    assert figures["ran"] == {"threads": 1, "scan_backend": fastest_backend("cpu")[0]}
    if figures["peak_mib"] is not None:
        assert figures["peak_mib"] > 1  # the weights alone


def test_inputs_have_the_shapes_that_are_asked_for_and_no_seed_is_touched():
    state = torch.get_rng_state()
    inputs = make_inputs(remamber_config(), (32, 64), CPU, batch_size=2, num_expressions=3)
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "pixel_values": (2, 3, 32, 64),
        "input_ids": (6, 7),
        "attention_mask": (6, 7),
        "image_index": (6,),
    }
    assert inputs["image_index"].tolist() == [0, 0, 0, 1, 1, 1]
    assert list(make_inputs(vim_config(), 48, CPU)) == ["pixel_values"]
    assert torch.equal(state, torch.get_rng_state())


def test_the_backends_are_those_of_the_scans_that_a_model_has(monkeypatch):
    def never(device):
        return "it is not here"

    for name in ("cpu", "mamba_ssm", "kernels"):
        monkeypatch.setitem(BACKENDS, name, BACKENDS[name].__class__(print, print, never, BACKENDS[name].device_type))
    triton = BACKENDS["triton"]
    here = triton.__class__(print, print, lambda device: "", "cuda", automatic=triton.automatic)
    monkeypatch.setitem(BACKENDS, "triton", here)
    cuda = torch.device("cuda")
    assert name_scan_backends(remamber_config(), cuda) == "triton"
    assert name_scan_backends(remamber_config(fusion="in_context"), cuda) == "triton and torch"
    assert name_scan_backends(vim_config(), cuda) == "torch"
    assert name_scan_backends(vision_config(), CPU) == "torch"


# ----------------------------------------------------------------------------------------------------- other processes


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    if not status.exists():
        return False
    return status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_fresh_process_returns_and_raises_what_the_function_does():
    assert in_fresh_process(os.getpid) != os.getpid()
    with pytest.raises(ZeroDivisionError):
        in_fresh_process(divmod, 1, 0)


def test_a_fresh_process_that_is_killed_is_an_error():
    with pytest.raises(BrokenProcessPool):
        in_fresh_process(signal.raise_signal, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell which processes there are")
def test_a_fresh_process_ends_when_the_one_that_started_it_is_killed(tmp_path):
    code = """
import os, pathlib, time
from remamber_hf.inference.profiling import in_fresh_process

def work():
    pathlib.Path("pid").write_text(str(os.getpid()))
    pathlib.Path("pid").rename("written")
    time.sleep(600)

if __name__ == "__main__":
    in_fresh_process(work)
"""
    (tmp_path / "script.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, env=environment)
    while not (tmp_path / "written").exists():
        assert parent.poll() is None
        time.sleep(0.1)
    child = int((tmp_path / "written").read_text())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 60
    while is_alive(child) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_alive(child)
