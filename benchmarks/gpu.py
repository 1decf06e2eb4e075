# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Time the scan's core and the base models on a CUDA GPU: our Triton kernels and mamba-ssm's.

    python benchmarks/gpu.py                    writes benchmarks/gpu.json and .md, part by part, in ten minutes
    python benchmarks/gpu.py --parts core       the core only, two minutes
    python benchmarks/gpu.py --quick            tiny sizes, to see that it works; writes to build/bench-quick

Versions take turns in one run, figures are medians of wall time with the GPU waited for, and one whose outputs differ
from those of the baseline gets no figure. The baseline is mamba-ssm's kernel in the published composition; where it is
missing, blocked PyTorch, in the core only. The first calls compile the kernels and are not timed.

- The core, `cross_selective_scan`: forward, and forward + backward, at the shapes of ReMamber-base at 480×480 and
  batch 1 and 8, beside the bound of memory: the map read and written once (backward: again, with the gradient of the
  output), at the speed of adding two large arrays, measured in the same run.
- Inference with both heads under autocast: images per second, ms, peak memory in all.
- A training step (forward, loss, backward, AdamW fused as the Trainer has it) at 480×480.
- STEPS training steps in float16 at 480×480, batch 8, on drawn discs: the loss, and steps that the scaler left out.
- Inference at 480×480 in bfloat16, batch 1 and 8: as it is, under `torch.compile`, and under that with CUDA graphs
  (`optimize_for_inference(compile="reduce-overhead")`).

At small batches a host that launches slowly is what is timed, with either kernel.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import (
    Bar,
    bar_table,
    describe,
    largest_difference,
    machine,
    output_dir,
    ratio,
    time_in_turns,
    write_report,
)
from model import HEADS, MODEL_NAMES, make_inputs, make_model, use_backend
from scan import BOTH, FORWARD, QUICK_SHAPES, SHAPES, core_inputs, run

from remamber_hf.selective_scan import BACKENDS, cross_selective_scan


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
HALVES = ("float16", "bfloat16")
RIVAL = "mamba_ssm"
OURS = "triton"
CORE_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}  # of the largest value
MODEL_TOLERANCE = 5e-2  # of the largest logit: half precision rounds what differs by the order of sums
TURN_SECONDS = 0.03
BANDWIDTH_VALUES = 2**27
SIDE, QUICK_SIDE = 480, 64
INFERENCE = ((480, 1), (480, 8), (480, 32), (240, 8), (960, 8))  # side, batch
QUICK_INFERENCE = ((64, 1), (64, 2))
TRAINING = ((480, 8), (480, 24))
QUICK_TRAINING = ((64, 2),)
STEPS, QUICK_STEPS = 300, 3
COMPILED_BATCHES = (1, 8)
EAGER = "not compiled"
COMPILE_MODES = {"compiled": True, "compiled, CUDA graphs": "reduce-overhead"}


def runnable_backends() -> list[str]:
    """What can be timed here, the baseline first."""
    return [name for name in (RIVAL, OURS) if not BACKENDS[name].why_not(torch.device("cuda"))]


def expected_backend() -> str:
    return RIVAL if RIVAL in runnable_backends() else "torch"


def seconds_of(function: Callable[[], object], calls: int) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def time_on_gpu(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median ms of one call of each function, in turns of several calls."""
    calls = {}
    for name, function in functions.items():
        seconds_of(function, 2)  # compiles, and fills the cache of the allocator
        calls[name] = max(1, int(TURN_SECONDS / seconds_of(function, 1)))
    turns = time_in_turns({name: partial(seconds_of, functions[name], calls[name]) for name in functions})
    return {name: milliseconds / calls[name] for name, milliseconds in turns.items()}


def peak_gib(function: Callable[[], object]) -> float:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    function()
    return torch.cuda.max_memory_allocated() / 2**30


# ---------------------------------------------------------------------------------------------------------- the core


def measure_bandwidth(num_values: int) -> float:
    """Bytes per second of adding two arrays into a third."""
    a, b, c = torch.ones(3, num_values, device="cuda")
    milliseconds = time_on_gpu({"add": lambda: torch.add(a, b, out=c)})["add"]
    return 3 * a.nbytes / milliseconds * 1e3


def time_core(is_quick: bool, bandwidth: float) -> list[dict]:
    rows = []
    for shape in QUICK_SHAPES if is_quick else SHAPES:
        for batch in (1, 8):
            for dtype in ("float32", "bfloat16"):
                for kind in (FORWARD, BOTH):
                    rows.append(time_core_row(shape, batch, dtype, kind, bandwidth))
                    print(rows[-1], flush=True)
    return rows


def time_core_row(shape, batch: int, dtype: str, kind: str, bandwidth: float) -> dict:
    with_backward = kind == BOTH
    inputs = core_inputs(shape, 1, torch.Generator().manual_seed(0))
    inputs["x"] = inputs["x"].expand(batch, -1, -1, -1).contiguous()
    half_names = ("x", "x_proj_weight", "dt_proj_weight")
    inputs = {
        name: tensor.cuda().to(DTYPES[dtype] if name in half_names else torch.float32).requires_grad_(with_backward)
        for name, tensor in inputs.items()
    }
    functions = {
        name: partial(run, partial(cross_selective_scan, backend=name), inputs, with_backward)
        for name in runnable_backends()
    }
    expected = run(partial(cross_selective_scan, backend=expected_backend()), inputs, with_backward)
    differences = {name: largest_difference(function(), expected) for name, function in functions.items()}
    correct = {name: functions[name] for name, value in differences.items() if value <= CORE_TOLERANCE[dtype]}
    values, size = inputs["x"].numel(), inputs["x"].element_size()
    # The output and its gradient are float32. Backward reads the map and that gradient and writes the map's.
    moved = values * (size + 4) + (values * (2 * size + 4) if with_backward else 0)
    return {
        "case": shape.name,
        "batch": batch,
        "dtype": dtype,
        "kind": kind,
        "differences": differences,
        "milliseconds": time_on_gpu(correct),
        "bound": 1e3 * moved / bandwidth,
    }


# --------------------------------------------------------------------------------------------------------- the model


def batch_of(side: int, batch: int) -> dict[str, torch.Tensor]:
    inputs = make_inputs(side)
    return {name: tensor.expand(batch, *tensor.shape[1:]).contiguous().cuda() for name, tensor in inputs.items()}


@torch.no_grad()
def forward(model, backend: str, dtype: str, inputs: dict) -> torch.Tensor:
    use_backend(model, backend)
    with torch.autocast("cuda", DTYPES[dtype]):
        return model(**inputs).logits


def time_inference(is_quick: bool) -> list[dict]:
    rows = []
    for head in HEADS:
        model = make_model(head, is_quick).cuda()
        for side, batch in QUICK_INFERENCE if is_quick else INFERENCE:
            for dtype in HALVES:
                row = {"case": head, "side": side, "batch": batch, "dtype": dtype}
                inputs = batch_of(side, batch)
                functions = {name: partial(forward, model, name, dtype, inputs) for name in runnable_backends()}
                rows.append({**row, **measure_model(functions, lambda logits: logits)})
                print(rows[-1], flush=True)
    return rows


def time_compiled(is_quick: bool) -> list[dict]:
    rows = []
    side = QUICK_SIDE if is_quick else SIDE
    for head in HEADS:
        models = {EAGER: make_model(head, is_quick).cuda().optimize_for_inference()}
        for name, mode in COMPILE_MODES.items():
            models[name] = make_model(head, is_quick).cuda().optimize_for_inference(compile=mode)  # the same weights
        for batch in COMPILED_BATCHES:
            inputs = batch_of(side, batch)
            functions = {name: partial(forward, model, OURS, "bfloat16", inputs) for name, model in models.items()}
            row = {"case": head, "side": side, "batch": batch, "dtype": "bfloat16"}
            rows.append({**row, **measure_model(functions, lambda logits: logits)})
            print(rows[-1], flush=True)
    return rows


def training_step(model, optimizer, scaler, backend: str, dtype: str, inputs: dict) -> torch.Tensor:
    use_backend(model, backend)
    optimizer.zero_grad()
    with torch.autocast("cuda", DTYPES[dtype]):
        loss = model(**inputs).loss
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()


def time_training(is_quick: bool) -> list[dict]:
    rows = []
    for head in HEADS:
        model = make_model(head, is_quick).cuda().train()
        # Every version steps from the same weights.
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
        for side, batch in QUICK_TRAINING if is_quick else TRAINING:
            inputs = batch_of(side, batch)
            inputs["labels"] = inputs["pixel_values"][:, 0] > 0
            for dtype in HALVES:
                scaler = torch.amp.GradScaler("cuda", enabled=dtype == "float16")
                functions = {
                    name: partial(training_step, model, optimizer, scaler, name, dtype, inputs)
                    for name in runnable_backends()
                }
                row = {"case": head, "side": side, "batch": batch, "dtype": dtype}
                rows.append({**row, **measure_model(functions, lambda loss: loss[None])})
                print(rows[-1], flush=True)
    return rows


def batch_of_discs(side: int, batch: int) -> dict[str, torch.Tensor]:
    """Noise in which a disc is brighter, for each picture another; the disc is the mask."""
    inputs = batch_of(side, batch)
    pixels = torch.arange(side, device="cuda")
    centers = torch.randint(side // 5, side - side // 5, (batch, 2, 1, 1), device="cuda")
    squares = (pixels[:, None] - centers[:, 0]) ** 2 + (pixels - centers[:, 1]) ** 2
    inputs["labels"] = squares < (side / 6) ** 2
    noise = torch.randn(batch, 3, side, side, device="cuda")
    return {**inputs, "pixel_values": noise + 2 * inputs["labels"][:, None]}


def train_in_float16(is_quick: bool) -> list[dict]:
    """One row for each head: losses of the first and the last tenth, and what the scaler left out."""
    rows = []
    side, batch = (QUICK_TRAINING if is_quick else TRAINING)[0]
    num_steps = QUICK_STEPS if is_quick else STEPS
    for head in HEADS:
        torch.manual_seed(0)
        model = make_model(head, is_quick).cuda().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
        scaler = torch.amp.GradScaler("cuda")
        start = time.perf_counter()
        losses = torch.stack(
            [
                training_step(model, optimizer, scaler, OURS, "float16", batch_of_discs(side, batch))
                for _ in range(num_steps)
            ]
        ).cpu()
        seconds = time.perf_counter() - start
        tenth = max(1, num_steps // 10)
        row = {
            "case": head,
            "steps": num_steps,
            "losses_finite": bool(losses.isfinite().all()),
            "weights_finite": all(bool(parameter.isfinite().all()) for parameter in model.parameters()),
            "left_out": num_steps - max(int(state["step"]) for state in optimizer.state.values()),
            "first_loss": losses[:tenth].mean().item(),
            "last_loss": losses[-tenth:].mean().item(),
            "milliseconds_per_step": 1e3 * seconds / num_steps,
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def measure_model(functions: dict[str, Callable[[], torch.Tensor]], view: Callable) -> dict:
    """Differences from the first version, ms and peak GiB of each; none of one that is wrong or out of memory."""
    outputs, peaks = {}, {}
    for name, function in functions.items():
        try:
            peaks[name] = peak_gib(function)
            torch.manual_seed(0)  # of stochastic depth
            outputs[name] = view(function()).float().cpu()
        except torch.OutOfMemoryError:
            print(f"{name} ran out of memory", flush=True)
    if not outputs:
        return {"differences": {}, "milliseconds": {}, "peak_gib": {}}
    expected = next(iter(outputs.values()))
    differences = {name: largest_difference([output], [expected]) for name, output in outputs.items()}
    correct = {name: functions[name] for name, value in differences.items() if value <= MODEL_TOLERANCE}
    times = time_on_gpu(correct)
    return {
        "differences": differences,
        "milliseconds": times,
        "peak_gib": {name: peaks[name] for name in times},
    }


# ----------------------------------------------------------------------------------------------------------- the run


def find_bars(report: dict) -> list[Bar]:
    side, batch = (QUICK_TRAINING if report["is_quick"] else TRAINING)[0]

    def find(rows: list[dict], **fields) -> dict:
        matches = (row for row in rows if all(row[name] == value for name, value in fields.items()))
        return next(matches, {"milliseconds": {}, "bound": None})

    def times_faster(row: dict) -> float | None:
        return ratio(row["milliseconds"].get(RIVAL), row["milliseconds"].get(OURS))

    core = find(report["core"], case="stage 1", batch=8, dtype="bfloat16", kind=FORWARD)
    share = ratio(core["bound"], core["milliseconds"].get(OURS))
    bars = [
        Bar("core over mamba-ssm's kernel, stage 1, batch 8, bfloat16", 2, times_faster(core)),
        Bar("core, share of the bound of memory, likewise", 0.5, share),
    ]
    for head in HEADS:
        for name in ("inference", "training"):
            row = find(report[name], case=head, side=side, batch=batch, dtype="bfloat16")
            bars.append(
                Bar(f"{MODEL_NAMES[head]}, {name} at {side}², batch {batch}, likewise", 1.5, times_faster(row))
            )
    return bars


def cell(row: dict, name: str) -> str:
    if name not in row["milliseconds"]:
        return "wrong" if name in row["differences"] else "–"
    text = f"{row['milliseconds'][name]:.3g} ms"
    if "peak_gib" in row:
        text += f", {1e3 * row['batch'] / row['milliseconds'][name]:.3g}/s, {row['peak_gib'][name]:.2f} GiB"
    return text


def table(rows: list[dict], fields: tuple[str, ...], versions: list[str]) -> list[str]:
    if not rows:
        return ["Not run."]
    has_bound = "bound" in rows[0]
    header = [*fields, *versions, *(["bound of memory"] if has_bound else [])]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in rows:
        cells = [str(row[field]) for field in fields] + [cell(row, name) for name in versions]
        cells += [f"{row['bound']:.3g} ms"] if has_bound else []
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def markdown(report: dict) -> list[str]:
    backends, gpu = report["backends"], report["gpu"]
    lines = ["# On a GPU", "", *describe(report["machine"], report["is_quick"])]
    lines += [
        f"{gpu['name']}, compute capability {gpu['capability']}, CUDA {gpu['cuda']}, {gpu['gib']:.0f} GiB, "
        f"{gpu['bytes_per_second'] / 1e9:.0f} GB/s in adding two arrays. `gpu.py` says what is measured.",
        "",
        *(f"{name} was not run: {why}." for name, why in report["missing"].items()),
        "",
        *bar_table(report["bars"], torch.get_num_threads()),
    ]
    lines += ["", "## Core", "", *table(report["core"], ("case", "batch", "dtype", "kind"), backends)]
    fields = ("case", "side", "batch", "dtype")
    lines += ["", "## Inference", "", *table(report["inference"], fields, backends)]
    lines += ["", "## Compiled", "", *table(report["compiled"], fields, [EAGER, *COMPILE_MODES])]
    lines += ["", "## Training step", "", *table(report["training"], fields, backends)]
    lines += ["", "## Training in float16", ""]
    for row in report["float16"]:
        lines.append(
            f"- {MODEL_NAMES[row['case']]}: {row['steps']} steps, {row['milliseconds_per_step']:.0f} ms each; the "
            f"scaler left out {row['left_out']}; all losses finite: {row['losses_finite']}, all weights: "
            f"{row['weights_finite']}; loss of the first tenth {row['first_loss']:.3f}, of the last "
            f"{row['last_loss']:.3f}."
        )
    return lines


PARTS = {
    "core": lambda report: time_core(report["is_quick"], report["gpu"]["bytes_per_second"]),
    "inference": lambda report: time_inference(report["is_quick"]),
    "training": lambda report: time_training(report["is_quick"]),
    "float16": lambda report: train_in_float16(report["is_quick"]),
    "compiled": lambda report: time_compiled(report["is_quick"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that the script works")
    parser.add_argument("--output_dir", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device, and PyTorch finds none here; nothing was measured.")
    about = machine("triton", "mamba-ssm")
    bandwidth = measure_bandwidth(2**20 if arguments.quick else BANDWIDTH_VALUES)
    properties = torch.cuda.get_device_properties(0)
    report = {
        "machine": about,
        "gpu": {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "gib": properties.total_memory / 2**30,
            "bytes_per_second": bandwidth,
        },
        "is_quick": arguments.quick,
        "backends": runnable_backends(),
        "missing": {
            name: BACKENDS[name].why_not(torch.device("cuda"))
            for name in (RIVAL, OURS)
            if name not in runnable_backends()
        },
        **{name: [] for name in PARTS},
    }
    for name in arguments.parts:
        report[name] = PARTS[name](report)
        report["bars"] = find_bars(report)
        write_report(output_dir(arguments.output_dir, arguments.quick), "gpu", report, markdown(report))


if __name__ == "__main__":
    main()
