# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Time a training step of a small model on this CPU, and its peak memory, with and without gradient checkpointing.

    python benchmarks/training.py                   writes benchmarks/training.json and .md
    python benchmarks/training.py --quick           a tiny size, to see that it works; writes to build/bench-quick

The model is of the bundled one's shape, with either mask head; pictures of 96×96, batch 4, float32. A step is
forward, loss, backward, clipping and AdamW, fused as the Trainer has it. The baseline is the published arithmetic: the
plain recurrence in the published layout (`rivals.published_layout`), the rest ours. The versions take turns in one
run, figures are medians of wall time, and a version whose loss or gradients differ from the baseline's gets no figure.

Memory is the peak of the resident set during the first step above what it was before, weights in place: activations,
gradients and the state of AdamW. It is measured in a fresh process for each version.
"""

import argparse
import copy
import gc
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from common import (
    MAX_ROUNDS,
    describe,
    machine,
    output_dir,
    ratio,
    time_in_turns,
    write_report,
)
from model import GRADIENT_TOLERANCE, QUICK_ROUNDS, TOLERANCE, use_backend
from rivals import plain_recurrence, published_layout

from remamber_hf import ReMamberConfig, ReMamberForImageSegmentation, keep_freed_memory
from remamber_hf.inference.loading import BUNDLED_MODEL
from remamber_hf.inference.profiling import in_fresh_process, read_resident, reset_peak_resident


HEADS = ("conv", "mamba")
BATCH, SIDE, QUICK_SIDE = 4, 96, 32
BASELINE = "published arithmetic"
# Name → whether it is ours, whether it checkpoints.
VERSIONS = {
    BASELINE: (False, False),
    f"{BASELINE}, checkpointed": (False, True),
    "ours": (True, False),
    "ours, checkpointed": (True, True),
}


def make_case(head: str, side: int) -> tuple[ReMamberForImageSegmentation, dict[str, torch.Tensor]]:
    """The model with random weights, and a batch."""
    config = ReMamberConfig.from_pretrained(BUNDLED_MODEL, mask_head=head)
    end = config.text_config.eos_token_id
    torch.manual_seed(0)
    model = ReMamberForImageSegmentation(config).train()
    input_ids = torch.randint(0, config.text_config.bos_token_id, (BATCH, config.text_length))
    input_ids[:, -1] = end
    pixel_values = torch.randn(BATCH, 3, side, side)
    return model, {"pixel_values": pixel_values, "input_ids": input_ids, "labels": pixel_values[:, 0] > 0}


def make_step(model: ReMamberForImageSegmentation, inputs: dict, version: str):
    """A function that makes a training step and returns the loss, and the gradients in one vector."""
    is_ours, is_checkpointed = VERSIONS[version]
    if is_checkpointed:
        model.activation_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        use_backend(model, "auto" if is_ours else "reference")
        optimizer.zero_grad()
        with nullcontext() if is_ours else published_layout(plain_recurrence()[0]):
            loss = model(**inputs).loss
            loss.backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach(), gradients

    return step


def measure_time(head: str, side: int, max_rounds: int) -> dict:
    """Differences of each version from the baseline in its first step, and its median time in ms."""
    original, inputs = make_case(head, side)
    steps = {name: make_step(copy.deepcopy(original), inputs, name) for name in VERSIONS}
    first = {name: step() for name, step in steps.items()}
    loss, gradients = first[BASELINE]
    differences = {
        name: {
            "loss": (abs(one[0] - loss) / loss).item(),
            "gradients": ((one[1] - gradients).norm() / gradients.norm()).item(),
        }
        for name, one in first.items()
    }
    correct = {
        name: steps[name]
        for name, difference in differences.items()
        if difference["loss"] <= TOLERANCE and difference["gradients"] <= GRADIENT_TOLERANCE
    }
    return {"head": head, "differences": differences, "milliseconds": time_in_turns(correct, max_rounds)}


def measure_memory(head: str, side: int, version: str, threads: int) -> float | None:
    """MiB of the first step; `None` where the system is no Linux. For a fresh process."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    model, inputs = make_case(head, side)
    step = make_step(model, inputs, version)
    gc.collect()
    reset_peak_resident()
    before = read_resident("VmRSS")
    step()
    return None if before is None else (read_resident("VmHWM") - before) / 2**20


def markdown(report: dict) -> list[str]:
    size = f"{report['side']}×{report['side']}"
    lines = [
        "# Training step",
        "",
        *describe(report["machine"], report["is_quick"]),
        f"Model of the bundled one's shape, {size}, batch {BATCH}, {report['threads']} thread(s). "
        f"`training.py` says what is compared; plain recurrence: {report['plain_recurrence']}.",
        "",
        "| head | version | ms | faster than the baseline | MiB of a step | of the baseline's |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        times, memory = row["milliseconds"], row["mebibytes"]
        for name in VERSIONS:
            if name not in times:
                lines.append(f"| {row['head']} | {name} | wrong | | | |")
                continue
            cells = [f"{times[name]:.0f}", f"{times[BASELINE] / times[name]:.1f}×", "–", "–"]
            share = ratio(memory[name], memory[BASELINE])
            if share is not None:
                cells[2:] = [f"{memory[name]:.0f}", f"{share:.2f}"]
            lines.append(f"| {row['head']} | {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny size: only to see that the script works")
    parser.add_argument("--output_dir", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    side, max_rounds = (QUICK_SIDE, QUICK_ROUNDS) if arguments.quick else (SIDE, MAX_ROUNDS)
    about, rows = machine(), []
    for head in HEADS:
        row = measure_time(head, side, max_rounds)
        measure = partial(in_fresh_process, measure_memory, head, side)
        row["mebibytes"] = {name: measure(name, arguments.threads) for name in row["milliseconds"]}
        rows.append(row)
    report = {
        "machine": about,
        "plain_recurrence": plain_recurrence()[1],
        "is_quick": arguments.quick,
        "side": side,
        "threads": arguments.threads,
        "rows": rows,
    }
    write_report(output_dir(arguments.output_dir, arguments.quick), "training", report, markdown(report))


if __name__ == "__main__":
    main()
