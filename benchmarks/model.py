# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Time the whole base model on this CPU, its convolutions, and a training step of the tiny model.

    python benchmarks/model.py                      writes benchmarks/model.json and .md
    python benchmarks/model.py --quick              tiny sizes, to see that it works; writes to build/bench-quick

Random weights, batch 1, float32, one expression of 20 tokens. Versions take turns in one run, figures are medians of
wall time, and one whose outputs differ from those of the baseline gets no figure.

- Forward at 480×480 with both heads: our backends, and as baseline the published layout with the plain recurrence
  (`rivals.published_layout`: SS2D channels-first, a copy of the map per direction, a loop over the pixels). What
  surrounds SS2D is ours in the baseline too, which makes it faster than the published code is.
- A training step (forward, loss, backward, AdamW fused as the Trainer has it) of the reference cases conv_tiny and
  mamba_tiny of the tests.
- The 3×3 convolutions of the Conv head's neck, and a square matrix product, in turns.
"""

import argparse
import copy
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from common import (
    HERE,
    MAX_ROUNDS,
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
from rivals import plain_recurrence, published_layout
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, PreTrainedModel

from remamber_hf import ReMamberConfig, ReMamberForImageSegmentation, keep_freed_memory
from remamber_hf.modeling_vmamba import convolve
from remamber_hf.selective_scan import BACKENDS


BASELINE = "published layout, plain recurrence"
HEADS = ("conv", "mamba")
SIDE = 480
QUICK_SIDE = 64
QUICK_ROUNDS = 1
TEXT_LENGTH = 20
TOLERANCE = 1e-3  # of the largest logit
GRADIENT_TOLERANCE = 1e-2  # of the norm of all gradients: a value that meets a ReLU at 0 may fall on either side
TRAINING_CASES = ("conv_tiny", "mamba_tiny")
QUICK_TRAINING_CASES = ("conv",)
MODEL_NAMES = {"conv": "ReMamber, Conv head", "mamba": "ReMamber, Mamba head", "clipseg": "CLIPSeg rd64"}

TINY_TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}


def make_model(kind: str, is_quick: bool) -> PreTrainedModel:
    """The base model with the head `kind`, or CLIPSeg; random weights, those of a quick run tiny."""
    torch.manual_seed(0)
    if kind == "clipseg":
        config = CLIPSegConfig(
            vision_config={"patch_size": 16}, reduce_dim=64, use_complex_transposed_convolution=True
        )
        if is_quick:
            config.extract_layers = (0,)
            config.text_config.update(TINY_TEXT)
            config.vision_config.update(TINY_TEXT)
        return CLIPSegForImageSegmentation(config).eval()
    config = ReMamberConfig(mask_head=kind)
    if is_quick:
        config = ReMamberConfig(
            mask_head=kind,
            text_config={**config.text_config.to_dict(), **TINY_TEXT},
            vision_config={"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1], "drop_path_rate": 0.0},
            decoder_depths=[1, 1, 1, 1],
            correlation_size=16,
            channel_scan_size=4,
        )
    return ReMamberForImageSegmentation(config).eval()


def make_inputs(side: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, 49405, (1, TEXT_LENGTH), generator=generator)
    input_ids[:, -1] = 49407  # the end token
    return {"pixel_values": torch.randn(1, 3, side, side, generator=generator), "input_ids": input_ids}


def use_backend(model: ReMamberForImageSegmentation, backend: str) -> None:
    model.set_scan_backend(backend)


@torch.no_grad()
def forward(model: ReMamberForImageSegmentation, backend: str, context, inputs: dict) -> torch.Tensor:
    use_backend(model, backend)
    with context():
        return model(**inputs).logits


def scan_versions() -> dict[str, tuple[str, object]]:
    """Backend and context of the baseline and of each of our backends that runs here."""
    names = [name for name, backend in BACKENDS.items() if not backend.why_not(torch.device("cpu"))]
    baseline = ("reference", partial(published_layout, plain_recurrence()[0]))
    return {BASELINE: baseline, **{name: (name, nullcontext) for name in names}}


def time_heads(is_quick: bool) -> list[dict]:
    """Forward passes of both heads with every version, and with batch norms folded."""
    rows = []
    for head in HEADS:
        model, inputs = make_model(head, is_quick), make_inputs(QUICK_SIDE if is_quick else SIDE)
        functions = {
            name: partial(forward, model, backend, context, inputs)
            for name, (backend, context) in scan_versions().items()
        }
        folded = copy.deepcopy(model).optimize_for_inference()
        functions["cpu, optimize_for_inference()"] = partial(forward, folded, "cpu", nullcontext, inputs)
        expected = functions[BASELINE]()
        differences = {name: largest_difference([function()], [expected]) for name, function in functions.items()}
        correct = {name: functions[name] for name, difference in differences.items() if difference <= TOLERANCE}
        times = time_in_turns(correct, QUICK_ROUNDS if is_quick else MAX_ROUNDS)
        rows.append({"case": head, "differences": differences, "milliseconds": times})
        print(f"{torch.get_num_threads()} thread(s), forward, {head}: {times}", flush=True)
    return rows


# ----------------------------------------------------------------------------------------------------- training step


def training_case(case: str) -> tuple[ReMamberForImageSegmentation, dict[str, torch.Tensor]]:
    """Model and inputs with labels: a reference case of the tests, or the model of a quick run."""
    if case in QUICK_TRAINING_CASES:
        inputs = make_inputs(32)
        return make_model(case, is_quick=True).train(), {**inputs, "labels": inputs["pixel_values"][:, 0] > 0}
    sys.path.append(str(HERE.parent / "tests"))
    from tiny import golden_inputs, golden_model, golden_tensors

    return golden_model(case).train(), {**golden_inputs(case), "labels": golden_tensors(case)["labels"]}


def training_step(model, optimizer, backend: str, context, inputs: dict) -> torch.Tensor:
    """One step; returns the loss and leaves the gradients on the model."""
    use_backend(model, backend)
    optimizer.zero_grad()
    with context():
        loss = model(**inputs).loss
        loss.backward()
    optimizer.step()
    return loss.detach()


def time_training_steps(is_quick: bool) -> list[dict]:
    """Training steps of the tiny reference cases with every version, each on its own copy of the model."""
    rows = []
    for case in QUICK_TRAINING_CASES if is_quick else TRAINING_CASES:
        original, inputs = training_case(case)
        functions, losses, gradients = {}, {}, {}
        for name, (backend, context) in scan_versions().items():
            model = copy.deepcopy(original)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
            functions[name] = partial(training_step, model, optimizer, backend, context, inputs)
            losses[name] = functions[name]()
            gradients[name] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        differences = {
            name: {
                "loss": (losses[name] / losses[BASELINE] - 1).abs().item(),
                "gradients": ((gradients[name] - gradients[BASELINE]).norm() / gradients[BASELINE].norm()).item(),
            }
            for name in functions
        }
        correct = {
            name: functions[name]
            for name, difference in differences.items()
            if difference["loss"] <= TOLERANCE and difference["gradients"] <= GRADIENT_TOLERANCE
        }
        times = time_in_turns(correct, QUICK_ROUNDS if is_quick else MAX_ROUNDS)
        rows.append({"case": case, "differences": differences, "milliseconds": times})
        print(f"{torch.get_num_threads()} thread(s), training step, {case}: {times}", flush=True)
    return rows


# ------------------------------------------------------------------------------------------ the Conv head's neck


@torch.no_grad()
def time_neck(is_quick: bool) -> list[dict]:
    """
    Arithmetic speed of the 3×3 convolutions in the neck of the Conv head, and of a square matrix product.

    They run as published, after the resize; on a CPU the model runs them before it, see `convolve_resized`.
    """
    head = make_model("conv", is_quick).mask_head
    side = (QUICK_SIDE if is_quick else SIDE) // 4
    convolutions = {
        "1st": (head.neck[0][0], side),
        "2nd": (head.neck[1][0], 2 * side),
        "classifier": (head.classifier, 4 * side),
    }
    size = 64 if is_quick else 3072
    a, b = torch.randn(2, size, size)
    functions, operations = {"matrix product": partial(torch.mm, a, b)}, {"matrix product": 2 * size**3}
    names = {"matrix product": f"{size}×{size} matrix product"}
    for name, (layer, pixels) in convolutions.items():
        functions[name] = partial(convolve, layer, torch.randn(1, pixels, pixels, layer.in_channels))
        operations[name] = 2 * 9 * layer.in_channels * layer.out_channels * pixels**2
        names[name] = f"{name}, {layer.in_channels} → {layer.out_channels} channels at {pixels}×{pixels}"
    for function in functions.values():
        function()
    times = time_in_turns(functions, QUICK_ROUNDS if is_quick else MAX_ROUNDS)
    return [
        {
            "name": names[name],
            "gflop": operations[name] / 1e9,
            "milliseconds": times[name],
            "gflop_per_second": operations[name] / times[name] / 1e6,
        }
        for name in functions
    ]


# ----------------------------------------------------------------------------------------------------------- the run


def find_bars(report: dict) -> list[Bar]:
    run = report["runs"][-1]

    def times_faster(rows: list[dict], case: str) -> float | None:
        times = next(row["milliseconds"] for row in rows if row["case"] == case)
        return ratio(times.get(BASELINE), times.get("cpu"))

    bars = [
        Bar(
            "Mamba head at 480², over the published layout with the plain recurrence",
            8,
            times_faster(run["heads"], "mamba"),
        ),
        Bar("Conv head at 480², likewise", 5, times_faster(run["heads"], "conv")),
    ]
    bars += [
        Bar(f"training step of {row['case']}, likewise", 10, times_faster(run["training"], row["case"]))
        for row in run["training"]
    ]
    return bars


def markdown(report: dict) -> list[str]:
    lines = ["# Whole model", "", *describe(report["machine"], report["is_quick"])]
    lines += [
        "Random weights, batch 1, float32. Medians of wall time; in brackets how many times as long as with the C++ "
        f"kernel. `model.py` says what is compared. Plain recurrence: {report['plain_recurrence']}.",
        "",
        *bar_table(report["bars"], report["runs"][-1]["threads"]),
    ]
    for run in report["runs"]:
        lines += ["", f"## {run['threads']} thread(s)", "", "Forward, 480×480:", "", *version_table(run["heads"])]
        lines += ["", "Training step of the tiny reference cases:", "", *version_table(run["training"])]
        lines += ["", "3×3 convolutions of the Conv head's neck:", "", *neck_table(run["neck"])]
    return lines


def version_table(rows: list[dict]) -> list[str]:
    names = list(rows[0]["differences"])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        cells = [version_cell(row["milliseconds"], name) for name in names]
        lines.append(f"| {MODEL_NAMES.get(row['case'], row['case'])} | " + " | ".join(cells) + " |")
    return lines


def version_cell(times: dict[str, float], name: str) -> str:
    if name not in times:
        return "wrong"
    text = f"{times[name]:.0f} ms" if times[name] < 1000 else f"{times[name] / 1000:.2f} s"
    return f"{text} ({times[name] / times['cpu']:.1f}×)" if name != "cpu" and "cpu" in times else text


def neck_table(rows: list[dict]) -> list[str]:
    product, *convolutions = rows
    total = sum(row["gflop"] for row in convolutions)
    speed = total / sum(row["milliseconds"] for row in convolutions) * 1000
    lines = ["| | GFLOP | ms | GFLOP/s | of the matrix product |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['gflop']:.1f} | {row['milliseconds']:.1f} | {row['gflop_per_second']:.0f} | "
            f"{row['gflop_per_second'] / product['gflop_per_second']:.0%} |"
        )
    lines.append(f"| the three together | {total:.1f} | | {speed:.0f} | {speed / product['gflop_per_second']:.0%} |")
    return lines


def measure(threads: int, is_quick: bool) -> dict:
    """All figures for one number of threads."""
    torch.set_num_threads(threads)
    return {
        "threads": threads,
        "heads": time_heads(is_quick),
        "training": time_training_steps(is_quick),
        "neck": time_neck(is_quick),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that the script works")
    parser.add_argument("--output_dir", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    report = {
        "machine": machine(),
        "plain_recurrence": plain_recurrence()[1],
        "is_quick": arguments.quick,
        "runs": [measure(threads, arguments.quick) for threads in arguments.threads],
    }
    report["bars"] = find_bars(report)
    write_report(output_dir(arguments.output_dir, arguments.quick), "model", report, markdown(report))


if __name__ == "__main__":
    main()
