# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Everything on a GPU: each backend against the reference, the models, training steps in half precision, DDP.

Run by `make test-gpu`; without a GPU all of it is skipped. The reference runs on the CPU in float32 or on the same
rounded inputs.
"""

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch


sys.path.append(str(Path(__file__).parents[1]))
from test_selective_scan import (
    assert_equal_to_reference,
    outputs_and_gradients,
    random_map,
    random_sequences,
)
from tiny import (
    FUSION_VARIANTS,
    MASK_HEADS,
    SEGMENTATION_CASES,
    golden_inputs,
    golden_model,
    golden_tensors,
    remamber_config,
    segmentation_inputs,
)

from remamber_hf import ReMamberForImageSegmentation
from remamber_hf.inference.profiling import PeakMemory, Workload, in_fresh_process, measure_model
from remamber_hf.selective_scan import BACKENDS, Direction, cross_selective_scan, selective_scan


pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Largest difference, as a share of the largest value. Float32 products on a GPU are summed in another order.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
GPU_BACKENDS = ["mamba_ssm", "kernels", "triton", "torch"]


@pytest.fixture(params=GPU_BACKENDS)
def backend(request):
    why_not = BACKENDS[request.param].why_not(torch.device("cuda")) or BACKENDS[request.param].fetch()
    if why_not:
        pytest.skip(f"{request.param}: {why_not}")
    return request.param


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Products of float32 matrices and convolutions in float32, not in TF32."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def assert_close_to(actual, expected, tolerance):
    for name in expected:
        scale = expected[name].abs().max().item()
        difference = (actual[name] - expected[name]).abs().max().item()
        assert difference <= tolerance * scale, f"{name}: off by {difference:.2e}, largest value {scale:.2e}"


def to_cuda(inputs: dict) -> dict:
    return {name: tensor.cuda() for name, tensor in inputs.items()}


# ------------------------------------------------------------------------------------------------------------ the scan
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("state_size", [1, 16])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (1, 197), (197, 1), (33, 67)])
def test_maps_and_their_gradients_equal_the_reference(size, state_size, dtype, backend):
    inputs = random_map(*size, state_size, dtype, channels=40, rank=19)
    actual = outputs_and_gradients(cross_selective_scan, inputs, "cuda", backend=backend)
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference")
    assert_close_to(actual, expected, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("state_size", "groups"), [(1, 4), (16, 1)])
@pytest.mark.parametrize("length", [1, 63, 64, 197])
def test_sequences_and_their_gradients_equal_the_reference(length, state_size, groups, dtype, backend):
    inputs = random_sequences(length, state_size, groups, dtype)
    actual = outputs_and_gradients(selective_scan, inputs, "cuda", delta_softplus=True, backend=backend)
    expected = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend="reference")
    assert_close_to(actual, expected, TOLERANCES[dtype])


@pytest.mark.parametrize("shape", [(120, 120, 256, 8), (15, 15, 2048, 64), (1, 3072, 512, 16)])
def test_maps_of_the_base_model_equal_blocked_pytorch(shape, backend):
    height, width, channels, rank = shape
    inputs = random_map(height, width, batch=2, channels=channels, rank=rank)
    actual = outputs_and_gradients(cross_selective_scan, inputs, "cuda", backend=backend)
    expected = outputs_and_gradients(cross_selective_scan, inputs, "cuda", backend="torch")
    assert_close_to(actual, expected, TOLERANCES[torch.float32])


def test_triton_gives_the_same_bits_twice():
    why_not = BACKENDS["triton"].why_not(torch.device("cuda"))
    if why_not:
        pytest.skip(why_not)
    inputs = random_map(60, 60, channels=96, rank=19)
    first, second = (outputs_and_gradients(cross_selective_scan, inputs, "cuda", backend="triton") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_triton_does_not_wait_for_the_gpu():
    why_not = BACKENDS["triton"].why_not(torch.device("cuda"))
    if why_not:
        pytest.skip(why_not)
    inputs = {name: tensor.cuda().requires_grad_() for name, tensor in random_map(9, 8).items()}
    cross_selective_scan(**inputs, backend="triton").sum().backward()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        cross_selective_scan(**inputs, backend="triton").sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_triton_runs_on_the_device_of_its_tensors():
    why_not = BACKENDS["triton"].why_not(torch.device("cuda"))
    if why_not or torch.cuda.device_count() < 2:
        pytest.skip(why_not or "there is one GPU only")
    inputs = random_map(5, 7)
    actual = outputs_and_gradients(cross_selective_scan, inputs, "cuda:1", backend="triton")
    expected = outputs_and_gradients(cross_selective_scan, inputs, backend="reference")
    assert_equal_to_reference(actual, expected, torch.float32)


def test_the_scan_is_captured_in_a_cuda_graph(backend):
    inputs = to_cuda(random_map(9, 8))
    directions = tuple(Direction)
    with torch.no_grad():
        expected = cross_selective_scan(**inputs, directions=directions, backend=backend)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = cross_selective_scan(**inputs, directions=directions, backend=backend)
        graph.replay()
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------------- the models
@pytest.mark.parametrize("case", SEGMENTATION_CASES)
def test_logits_equal_the_published_code(case, backend):
    model = golden_model(case, backend).cuda()
    with torch.no_grad():
        logits = model(**to_cuda(golden_inputs(case))).logits
    torch.testing.assert_close(logits.cpu(), golden_tensors(case)["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", SEGMENTATION_CASES)
def test_masks_in_half_precision_are_those_of_float32(case, dtype, backend):
    model = golden_model(case, backend).cuda()
    with torch.no_grad(), torch.autocast("cuda", dtype):
        masks = model(**to_cuda(golden_inputs(case))).logits.cpu() > 0
    expected = golden_tensors(case)["logits"] > 0
    assert (masks & expected).sum() / (masks | expected).sum() > 0.98


@pytest.mark.parametrize("fields", [{"mask_head": "mamba"}, *FUSION_VARIANTS.values()], ids=str)
def test_the_gradients_of_the_model_are_those_of_the_reference(fields, backend):
    torch.manual_seed(0)
    inputs = to_cuda(segmentation_inputs())
    gradients = {}
    model = ReMamberForImageSegmentation(remamber_config(**fields)).cuda().eval()
    for name in (backend, "reference"):
        model.set_scan_backend(name)
        model.zero_grad()
        model(**inputs).loss.backward()
        gradients[name] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    difference = (gradients[backend] - gradients["reference"]).norm() / gradients["reference"].norm()
    assert difference < 1e-2  # a value that meets a ReLU at 0 may fall on either side


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_training_steps_in_half_precision_stay_finite(mask_head, dtype, backend):
    torch.manual_seed(0)
    model = ReMamberForImageSegmentation(remamber_config(mask_head)).cuda().train()
    model.set_scan_backend(backend)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, enabled=dtype == torch.float16)
    inputs = to_cuda(segmentation_inputs())
    for _ in range(10):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype):
            loss = model(**inputs).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        assert loss.isfinite()
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all(), name
        scaler.step(optimizer)
        scaler.update()
    assert all(not torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_training_step_does_not_wait_for_the_gpu(mask_head, backend):
    model = ReMamberForImageSegmentation(remamber_config(mask_head)).cuda().train()
    model.set_scan_backend(backend)
    inputs = to_cuda(segmentation_inputs())
    model(**inputs).loss.backward()  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(**inputs).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_the_model_is_captured_in_a_cuda_graph(mask_head, backend):
    model = ReMamberForImageSegmentation(remamber_config(mask_head)).cuda().eval()
    model.set_scan_backend(backend)
    inputs, others = to_cuda(segmentation_inputs(seed=0)), to_cuda(segmentation_inputs(seed=1))
    with torch.no_grad():
        expected = model(**others).logits
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = model(**inputs).logits
        for name, tensor in inputs.items():
            tensor.copy_(others[name])
        graph.replay()
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compile", [True, "reduce-overhead"])
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_compiled_model_has_the_same_logits(mask_head, compile, backend):
    model = ReMamberForImageSegmentation(remamber_config(mask_head)).cuda().eval()
    model.set_scan_backend(backend)
    inputs = to_cuda(segmentation_inputs())
    del inputs["labels"]
    with torch.no_grad():
        expected = model(**inputs).logits
        model.optimize_for_inference(compile=compile)
        for _ in range(3):  # a CUDA graph is captured in the second call and replayed in the third
            actual = model(**inputs).logits.clone()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_model_is_profiled_and_its_peak_has_the_weights_in_it(dtype):
    config, cuda = remamber_config("mamba"), torch.device("cuda")
    figures = in_fresh_process(measure_model, config, Workload((64, 96), 2, 3, dtype, num_runs=2), cuda)
    weights = sum(parameter.nbytes for parameter in ReMamberForImageSegmentation(config).parameters())
    assert weights < 2**20 * figures["peak_mib"] < weights + 2**30
    assert 0 < figures["milliseconds"]["q1"] <= figures["milliseconds"]["q3"]


def test_the_peak_of_memory_grows_by_a_buffer_that_is_let_go():
    memory = PeakMemory(torch.device("cuda"))
    memory.reset()
    torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    assert 64 * 2**20 <= memory.read() < 80 * 2**20


# ----------------------------------------------------------------------------------------------------------------- DDP
def test_gradients_of_all_gpus_together_are_those_of_one(tmp_path):
    world_size = torch.cuda.device_count()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", f"--nproc_per_node={world_size}", f"--master_port={port}"]
    command = [sys.executable, *launch, __file__, str(tmp_path / "result.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    report = json.loads((tmp_path / "result.json").read_text())
    assert report["world_size"] == world_size
    assert report["difference"] < 1e-3


def compare_gradients(path: Path) -> None:
    """One process of DDP: the gradients of its share of a batch, averaged, and those of the whole batch, on rank 0."""
    rank = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(rank)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.distributed.init_process_group("nccl")
    world_size = torch.distributed.get_world_size()
    torch.manual_seed(0)
    model = ReMamberForImageSegmentation(remamber_config("conv")).cuda().eval()  # batch norms with fixed statistics
    inputs = to_cuda(segmentation_inputs(batch_size=2 * world_size))
    share = {name: tensor[2 * rank : 2 * rank + 2] for name, tensor in inputs.items()}
    torch.nn.parallel.DistributedDataParallel(model, device_ids=[rank])(**share).loss.backward()
    together = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    losses = []
    model.zero_grad()
    for first in range(0, 2 * world_size, 2):  # the loss of a batch need not be the mean over its pictures
        losses.append(model(**{name: tensor[first : first + 2] for name, tensor in inputs.items()}).loss)
    (sum(losses) / world_size).backward()
    alone = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    if rank == 0:
        difference = ((together - alone).norm() / alone.norm()).item()
        path.write_text(json.dumps({"world_size": world_size, "difference": difference}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    compare_gradients(Path(sys.argv[1]))
