# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Loops that are written by hand with accelerate, in one process and in two, against the loop of batch one."""

import os
import socket
import subprocess
import sys

import accelerate
import pytest
import torch
import two_processes
from accelerate import Accelerator, PartialState, dispatch_model, init_empty_weights, load_checkpoint_and_dispatch
from accelerate.state import AcceleratorState, GradientState
from rows import load_model, load_processor, logits_one_by_one, make_rows, masks_one_by_one, weights_of
from two_processes import COUNT, RATE, process

from remamber_hf import ReMamberConfig, ReMamberForImageSegmentation


CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def forget_accelerator():
    """Its state is that of the process: a test is not to find what another one has set."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def fresh_accelerator():
    forget_accelerator()
    yield
    forget_accelerator()


def run_two_processes(folder, output) -> list[dict]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    command = [sys.executable, *launch, two_processes.__file__, str(folder), str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr[-4000:]
    return [torch.load(output / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module", params=[1, 2])
def results(request, folder, tmp_path_factory):
    """What each idiom of `two_processes.idioms` gives in each process."""
    output = tmp_path_factory.mktemp("processes")
    if request.param == 2:
        return run_two_processes(folder, output)
    forget_accelerator()
    return [two_processes.idioms(folder, output)]


# -------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize(
    "name",
    [
        "evaluate",
        "evaluate, batches split",
        "evaluate, batches dispatched",
        "evaluate, split and dispatched",
        "evaluate, a stream",
    ],
)
def test_gather_for_metrics_gives_each_row_once_in_order_as_the_loop_does(results, model, processor, name):
    expected = logits_one_by_one(model, processor, make_rows(COUNT))
    for result in results:
        torch.testing.assert_close(result[name], expected, **CLOSE)


def test_rows_that_are_split_between_processes_have_the_masks_of_the_loop(results, model, processor):
    expected = masks_one_by_one(model, processor, make_rows(COUNT))
    for result in results:
        assert len(result["evaluate, objects"]) == COUNT
        assert all((found.numpy() == mask).all() for found, mask in zip(result["evaluate, objects"], expected))


def test_pictures_that_are_shared_within_a_process_give_the_logits_of_the_loop(results, model, processor):
    rows = [
        {**row, "expression": expression}
        for row in make_rows(4)
        for expression in (row["expression"], "dog dog", "cat cat")
    ]
    expected = logits_one_by_one(model, processor, rows)
    for result in results:
        torch.testing.assert_close(result["share pictures"], expected, **CLOSE)


def test_shared_pictures_that_are_dispatched_are_right_in_one_process_and_refused_in_two(results):
    for result in results:
        if len(results) == 1:
            torch.testing.assert_close(result["share pictures, dispatched"], result["share pictures"], **CLOSE)
        else:
            line = result["share pictures, dispatched"]
            assert line.startswith("image_index ") and "\n" not in line
            assert "give the picture of each expression, counted from 0 in this batch" in line


# ---------------------------------------------------------------------------------------------------------- training


def expected_step(folder, is_frozen: bool) -> dict[str, torch.Tensor]:
    """Weights after a step on four rows, without accelerate: row by row, or at once where batch norm mixes them."""
    model = load_model(folder).train()
    model.mask_head.requires_grad_(not is_frozen)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=RATE)
    rows = process(load_processor(folder), make_rows(4))
    size = 1 if is_frozen else 4
    for start in range(0, 4, size):
        batch = torch.utils.data.default_collate(rows[start : start + size])
        (model(**batch).loss * size / 4).backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    return weights_of(model)


@pytest.mark.parametrize("name", ["step", "step, accumulated", "step, dispatched"])
def test_a_step_is_that_of_the_loop(results, folder, name):
    expected = expected_step(folder, is_frozen=True)
    for result in results:
        torch.testing.assert_close(result[name], expected, **CLOSE)


def test_a_step_with_synchronized_batch_norm_is_that_of_the_large_batch(results, folder):
    expected = expected_step(folder, is_frozen=False)
    for result in results:
        torch.testing.assert_close(result["step, batch norm synchronized"], expected, **CLOSE)


def test_uneven_inputs_are_joined_as_if_the_missing_gradients_were_zero(results, folder):
    model = load_model(folder).train()
    model.mask_head.requires_grad_(False)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=RATE)
    rows = process(load_processor(folder), make_rows(COUNT))
    num_processes = len(results)
    for start in range(0, COUNT, num_processes):
        for row in rows[start : start + num_processes]:
            loss = model(**{name: tensor[None] for name, tensor in row.items()}).loss
            (loss / num_processes).backward()
        optimizer.step()
        optimizer.zero_grad()
    for result in results:
        torch.testing.assert_close(result["join uneven"], weights_of(model), **CLOSE)


def test_a_state_that_is_loaded_goes_on_as_the_one_that_was_saved(results):
    for result in results:
        saved, after, again = result["save and load"]
        assert any(not torch.equal(saved[name], after[name]) for name in saved)
        torch.testing.assert_close(again, after, rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------- saving and dispatching


def test_a_prepared_model_is_saved_and_loads_as_it_was(folder, processor, tmp_path):
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(load_model(folder))
    with torch.no_grad():
        model.mask_head.classifier.bias += 1
    accelerator.unwrap_model(model).save_pretrained(
        tmp_path / "pretrained",
        is_main_process=accelerator.is_main_process,
        save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(model),
    )
    accelerator.save_model(model, tmp_path / "bare")
    loaded = load_model(tmp_path / "pretrained")
    torch.testing.assert_close(weights_of(loaded), weights_of(model), rtol=0, atol=0)
    bare = ReMamberForImageSegmentation(loaded.config).eval()
    accelerate.load_checkpoint_in_model(bare, str(tmp_path / "bare"))
    torch.testing.assert_close(weights_of(bare), weights_of(model), rtol=0, atol=0)


def test_bfloat16_of_accelerate_is_close_to_float32(folder, processor):
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model = accelerator.prepare(load_model(folder))
    logits = logits_one_by_one(model, processor, make_rows())
    assert logits.dtype == torch.float32
    expected = logits_one_by_one(load_model(folder), processor, make_rows())
    assert (logits - expected).abs().mean() < 0.05 * expected.abs().mean()


DISPATCHED = {
    "from_pretrained": lambda folder, offload: ReMamberForImageSegmentation.from_pretrained(folder, device_map="cpu"),
    "from_pretrained, auto": lambda folder, offload: ReMamberForImageSegmentation.from_pretrained(
        folder, device_map="auto", max_memory={"cpu": 300_000}, offload_folder=str(offload)
    ),
    "dispatch_model": lambda folder, offload: dispatch_model(load_model(folder), {"": "cpu"}),
    "cpu_offload": lambda folder, offload: accelerate.cpu_offload(load_model(folder), torch.device("cpu")),
    "disk_offload": lambda folder, offload: accelerate.disk_offload(
        load_model(folder), str(offload), torch.device("cpu")
    ),
    "load_checkpoint_and_dispatch": lambda folder, offload: load_checkpoint_and_dispatch(
        empty_model(folder), str(folder / "model.safetensors"), device_map={"": "cpu"}
    ),
    "load_checkpoint_and_dispatch, from disk": lambda folder, offload: load_checkpoint_and_dispatch(
        empty_model(folder),
        str(folder / "model.safetensors"),
        device_map={"remamber": "disk", "mask_head": "cpu"},
        offload_folder=str(offload),
    ),
}


def empty_model(folder) -> ReMamberForImageSegmentation:
    with init_empty_weights():
        return ReMamberForImageSegmentation(ReMamberConfig.from_pretrained(folder))


@pytest.mark.parametrize("way", DISPATCHED)
def test_a_dispatched_model_gives_the_logits_of_one_that_is_not(folder, processor, tmp_path, way):
    PartialState(cpu=True)
    model = DISPATCHED[way](folder, tmp_path).eval()
    if way == "from_pretrained, auto":  # some of it fits
        assert set(model.hf_device_map.values()) == {"cpu", "disk"}
    expected = logits_one_by_one(load_model(folder), processor, make_rows())
    torch.testing.assert_close(logits_one_by_one(model, processor, make_rows()), expected, **CLOSE)
