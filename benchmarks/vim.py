# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Time Vim-tiny on this CPU: with our scans and with other packages', part by part, and against the picture's size.

    python benchmarks/vim.py                        writes benchmarks/vim.json, .md and .png; 6 minutes
    python benchmarks/vim.py --quick                tiny sizes, to see that it works; writes to build/bench-quick

Random weights, float32. Versions take turns in one run, figures are medians of wall time, and one whose outputs differ
from the plain recurrence's gets no figure.

- The model with other scans: forward at 224×224, batch 1, and forward and backward, batch 2. The rivals run one
  direction after the other, as published (`rivals.vim_with_scan`); both at once, as ours, take each of them longer,
  and the plain recurrence is timed so too (`rivals.vim_with_grouped_scan`).
  The plain loops' backward pass is quadratic in the length: at 224×224, where a single one takes 20 s and more, they
  are left out, and gradients are compared with those of blocked PyTorch. At 64×64 that is compared with the plain
  recurrence.
- Where the time goes: the functions that the forward pass calls are timed while it runs. The rest is what is left.
- The causal convolution of both directions with its SiLU: in C++, by PyTorch's convolution and as multiply-adds of
  shifted sequences, for which the sequence is turned round; beside SiLU alone.
- Time and peak memory against the picture's side, beside DeiT-tiny of transformers with both kinds of attention. Each
  model is made for the size, and all sizes are in the same turns. The exponent p of time = a · tokens^p is fitted by
  least squares of the logarithms. Memory is the peak of the resident set during a forward pass above what it was
  before, weights in place, in a fresh process that has seen a smaller picture; where that is some ten MiB, the
  allocator's luck moves it by a tenth, for sdpa by up to a half.
"""

import argparse
import gc
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from statistics import linear_regression, median
from unittest import mock

import torch
import torch.nn.functional as F
from common import (
    MAX_ROUNDS,
    Bar,
    bar_table,
    describe,
    machine,
    output_dir,
    ratio,
    time_in_turns,
    write_report,
)
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from rivals import plain_recurrence, rival_scans, vim_with_grouped_scan, vim_with_scan
from scan import BOTH, FORWARD, NAMES, QUADRATIC, QUICK_ROUNDS, cell
from transformers import DeiTConfig, DeiTForImageClassification, PreTrainedModel

from remamber_hf import VimConfig, VimForImageClassification, bidirectional_scan, cpu_scan, keep_freed_memory
from remamber_hf.bidirectional_scan import both_ways
from remamber_hf.causal_conv import causal_conv1d_torch
from remamber_hf.cpu_conv import causal_conv_both_ways
from remamber_hf.inference.profiling import in_fresh_process, read_resident, reset_peak_resident


TOLERANCE = 1e-4  # of the norm of the logits, or of all gradients
BASELINE = "plain recurrence"
IN_ONE_CALL = "plain recurrence, both directions in one call"
OURS = ("cpu", "torch")
NUM_CLASSES = 1000
SIDE, QUICK_SIDE = 224, 32
LOOPS_SIDE = 64  # of pictures on which the plain loops go backward
BATCH = 2  # forward + backward
QUICK_MODEL = {"hidden_size": 16, "num_hidden_layers": 2}


def relative_difference(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Largest difference of two lists of tensors, as a share of the norm of each tensor."""
    return max(((a - e).norm() / e.norm()).item() for a, e in zip(actual, expected, strict=True))


def make_vim(side: int, is_quick: bool) -> VimForImageClassification:
    """Vim-tiny for pictures of one size; random weights, that of a quick run is smaller."""
    torch.manual_seed(0)
    config = VimConfig(image_size=side, num_labels=NUM_CLASSES, **(QUICK_MODEL if is_quick else {}))
    return VimForImageClassification(config).eval()


def make_pictures(side: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------ the model with other scans


def run(model: VimForImageClassification, backend: str, context, pixel_values: torch.Tensor) -> list[torch.Tensor]:
    """The logits."""
    model.set_scan_backend(backend)
    with context(), torch.inference_mode():
        return [model(pixel_values).logits]


def run_both(model: VimForImageClassification, backend: str, context, pixel_values: torch.Tensor):
    """The loss, and the gradients of all weights in one vector."""
    model.set_scan_backend(backend)
    labels = torch.arange(len(pixel_values))
    with context():
        loss = model(pixel_values, labels=labels).loss
        gradients = torch.autograd.grad(loss, list(model.parameters()))
    return [loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])]


def compare(model: VimForImageClassification, which: str, side: int, with_loops: bool, rounds: int) -> dict:
    """Check, then time, the model with every scan at one size."""
    pixel_values = make_pictures(side, 1 if which == FORWARD else BATCH)
    contexts = dict.fromkeys(OURS, nullcontext)
    contexts |= {name: partial(vim_with_scan, scan) for name, scan in rival_scans().items()}
    contexts[IN_ONE_CALL] = partial(vim_with_grouped_scan, plain_recurrence()[0])
    functions = {
        name: partial(
            run if which == FORWARD else run_both, model, name if name in OURS else "torch", context, pixel_values
        )
        for name, context in contexts.items()
        if with_loops or name not in (*QUADRATIC, IN_ONE_CALL)
    }
    expected = functions[BASELINE if with_loops else "torch"]()
    differences = {name: relative_difference(function(), expected) for name, function in functions.items()}
    correct = {name: functions[name] for name, difference in differences.items() if difference <= TOLERANCE}
    row = {"pass": which, "side": side, "batch": len(pixel_values), "differences": differences}
    row["milliseconds"] = time_in_turns(correct, rounds)
    print(row, flush=True)
    return row


def compare_scans(is_quick: bool, rounds: int) -> list[dict]:
    side = QUICK_SIDE if is_quick else SIDE
    model = make_vim(side, is_quick)
    return [
        compare(model, FORWARD, side, True, rounds),
        compare(model, BOTH, QUICK_SIDE if is_quick else LOOPS_SIDE, True, rounds),
        compare(model, BOTH, side, False, rounds),
    ]


# ------------------------------------------------------------------------------------------------------------- parts

# What the forward pass of the model calls, by name of the part and where it is looked up.
PARTS = {
    "selective scan": [(bidirectional_scan, "cross_selective_scan_cpu")],
    "causal convolution and its SiLU": [(bidirectional_scan, "causal_conv_both_ways")],
    "matrix products": [(F, "linear")],
}
CONVOLUTION = "causal convolution and its SiLU"
REST = "the rest: embedding, norms, gates, sums"
PARTS_SIDES, QUICK_PARTS_SIDES = (224, 448, 896), (32,)


def add_time(seconds: dict[str, float], part: str, function: Callable) -> Callable:
    """`function`, which adds the time that it takes to that of its part."""

    def timed(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[part] += time.perf_counter() - start
        return result

    return timed


@torch.inference_mode()
def time_parts(side: int, is_quick: bool, rounds: int) -> dict:
    """Median time in ms of each part of a forward pass, of what is left, and of the whole."""
    model, pixel_values = make_vim(side, is_quick), make_pictures(side)
    model(pixel_values)
    passes = []
    for _ in range(rounds):
        seconds = dict.fromkeys(PARTS, 0.0)
        with ExitStack() as patches:
            for part, functions in PARTS.items():
                for owner, name in functions:
                    timed = add_time(seconds, part, getattr(owner, name))
                    patches.enter_context(mock.patch.object(owner, name, timed))
            start = time.perf_counter()
            model(pixel_values)
            whole = time.perf_counter() - start
        passes.append({**seconds, REST: whole - sum(seconds.values()), "whole": whole})
    row = {"side": side, "milliseconds": {part: 1e3 * median(one[part] for one in passes) for part in passes[0]}}
    print(row, flush=True)
    return row


# ------------------------------------------------------------------------------------------------------- convolution

CHANNELS, LENGTHS, WIDTH = 384, (197, 730, 1024), 4
QUICK_CHANNELS, QUICK_LENGTHS = 8, (17,)
CALLS = 50  # in a turn
SILU = "SiLU alone"


def causal_conv1d_shifted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """One multiply-add for each column of the weight, of the sequence shifted by as many steps."""
    y = torch.addcmul(bias.unsqueeze(1), x, weight[:, -1:])
    for steps in range(1, weight.shape[1]):
        y[..., steps:].addcmul_(x[..., :-steps], weight[:, -1 - steps, None])
    return F.silu(y, inplace=True)


def repeat(function: Callable[[], object]) -> None:
    for _ in range(CALLS):
        function()


def in_one_order(y: torch.Tensor) -> torch.Tensor:
    """The kernel's (batch, length, 2, channels) as (batch, 2 * channels, length), its second half turned round."""
    if y.dim() == 3:
        return y
    forward, backward = y.permute(2, 0, 3, 1)
    return torch.cat([forward, backward.flip(-1)], dim=1)


@torch.inference_mode()
def time_convolution(channels: int, length: int, rounds: int) -> dict:
    """Median time in ms of both directions' causal convolution in each form, batch 1, from in_proj's output on."""
    x = torch.randn(1, length, 2 * channels)[..., :channels]
    weight, bias = torch.randn(2 * channels, WIDTH), torch.randn(2 * channels)
    functions = {
        "C++ kernel": lambda: causal_conv_both_ways(x, weight, bias),
        "F.conv1d": lambda: causal_conv1d_torch(both_ways(x.mT), weight, bias),
        "shifted multiply-adds": lambda: causal_conv1d_shifted(both_ways(x.mT), weight, bias),
    }
    expected = functions["F.conv1d"]()
    differences = {
        name: relative_difference([in_one_order(function())], [expected]) for name, function in functions.items()
    }
    correct = {name: functions[name] for name, difference in differences.items() if difference <= TOLERANCE}
    times = time_in_turns(
        {name: partial(repeat, function) for name, function in {**correct, SILU: partial(F.silu, x)}.items()}, rounds
    )
    milliseconds = {name: value / CALLS for name, value in times.items()}
    return {"channels": channels, "length": length, "differences": differences, "milliseconds": milliseconds}


# ------------------------------------------------------------------------------------------------------------- sizes

SIDES, QUICK_SIDES = (224, 320, 448, 640, 896, 1248), (32, 64)  # 1248: where the paper's figure 1 ends
MODELS = {"vim": "Vim-tiny, ours", "sdpa": "DeiT-tiny, sdpa", "eager": "DeiT-tiny, eager"}
NUM_LONGEST = 2  # sizes of the second fit


def make_model(kind: str, side: int, is_quick: bool) -> PreTrainedModel:
    """Vim-tiny or DeiT-tiny for pictures of one size; random weights."""
    if kind == "vim":
        return make_vim(side, is_quick)
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}
    if is_quick:
        sizes |= {**QUICK_MODEL, "num_attention_heads": 2}
    config = DeiTConfig(image_size=side, num_labels=NUM_CLASSES, attn_implementation=kind, **sizes)
    return DeiTForImageClassification(config).eval()


def count_tokens(kind: str, side: int) -> int:
    """Patches, and the class token; DeiT has one for distillation too."""
    return (side // 16) ** 2 + (1 if kind == "vim" else 2)


@torch.inference_mode()
def measure_memory(kind: str, side: int, is_quick: bool, threads: int) -> float | None:
    """MiB of a forward pass; `None` where the system is no Linux. For a fresh process."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    model, pixel_values = make_model(kind, side, is_quick), make_pictures(side)
    options = {} if kind == "vim" else {"interpolate_pos_encoding": True}
    model(make_pictures(QUICK_SIDE), **options)  # loads what the first pass of a process loads
    gc.collect()
    reset_peak_resident()
    before = read_resident("VmRSS")
    model(pixel_values)
    return None if before is None else (read_resident("VmHWM") - before) / 2**20


@torch.inference_mode()
def measure_sizes(sides: list[int], is_quick: bool, threads: int, rounds: int) -> list[dict]:
    """
    Time of a forward pass of every model at every size, all in turns: exponents compare sizes. And memory, each in a
    fresh process but for a quick run.
    """
    passes = {}
    for side in sides:
        pixel_values = make_pictures(side)
        for kind in MODELS:
            passes[kind, side] = partial(make_model(kind, side, is_quick), pixel_values)
            passes[kind, side]()
    times = time_in_turns(passes, rounds)
    measure = measure_memory if is_quick else partial(in_fresh_process, measure_memory)
    points = []
    for (kind, side), milliseconds in times.items():
        point = {"model": kind, "side": side, "tokens": count_tokens(kind, side), "milliseconds": milliseconds}
        points.append({**point, "peak_mib": measure(kind, side, is_quick, threads)})
        print(points[-1], flush=True)
    return points


def fit_exponents(points: list[dict]) -> dict[str, dict[str, float]]:
    """The power of the tokens with which the time of each model grows: over all sizes and over the longest."""
    exponents = {}
    for kind in MODELS:
        own = sorted((point for point in points if point["model"] == kind), key=lambda point: point["tokens"])
        x, y = ([math.log(point[field]) for point in own] for field in ("tokens", "milliseconds"))
        exponents[kind] = {
            "all": linear_regression(x, y).slope,
            "longest": linear_regression(x[-NUM_LONGEST:], y[-NUM_LONGEST:]).slope,
        }
    return exponents


def plot(points: list[dict], path: Path, about: str) -> None:
    """Draw time and memory against the picture, on logarithmic axes."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    sides = sorted({point["side"] for point in points})
    for axes, field, title in (
        (panels[0], "milliseconds", "Time of one forward pass (ms)"),
        (panels[1], "peak_mib", "Peak memory beyond the weights (MiB)"),
    ):
        for (kind, name), marker, colour in zip(MODELS.items(), "os^", ("#0072B2", "#D55E00", "#CC79A7")):
            own = [point for point in points if point["model"] == kind and (point[field] or 0) > 0]
            x, y = [count_tokens("vim", point["side"]) for point in own], [point[field] for point in own]
            axes.plot(x, y, marker=marker, color=colour, label=name)
            if kind == "vim" and own:
                axes.plot(x, [y[-1] * tokens / x[-1] for tokens in x], "--", color="black", lw=1, zorder=3)
        axes.plot([], [], "--", color="black", lw=1, label="linear in tokens")
        axes.set(xscale="log", yscale="log", title=title, xlabel="picture (pixels), tokens of Vim")
        ticks = [count_tokens("vim", side) for side in sides]
        axes.set_xticks(ticks, [f"{side}²\n{tokens:,}" for side, tokens in zip(sides, ticks)])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.grid(alpha=0.25)
        axes.legend()
    figure.suptitle(about, fontsize=9)
    figure.savefig(path, dpi=130)


# ----------------------------------------------------------------------------------------------------------- the run


def find_bars(report: dict) -> list[Bar]:
    row = report["scans"][0]
    names = {
        IN_ONE_CALL: "mamba-ssm's plain recurrence in place of the scan's one call",
        BASELINE: "mamba-ssm's plain recurrence, one direction after the other",
        "transformers": "transformers' fallback",
        "mambapy": "mambapy",
    }

    def times_faster(rival: str) -> float | None:
        return ratio(row["milliseconds"].get(rival), row["milliseconds"].get("cpu"))

    return [
        Bar(f"forward at {row['side']}², over the model with {name}", asked, times_faster(rival))
        for (rival, name), asked in zip(names.items(), (15, 15, 4, 4))
    ]


def markdown(report: dict) -> list[str]:
    lines = ["# Vision Mamba", "", *describe(report["machine"], report["is_quick"])]
    lines += [
        "Vim-tiny, random weights, float32, medians of wall time. `vim.py` says what is compared. Plain recurrence: "
        f"{report['plain_recurrence']}.",
        "",
        *bar_table(report["bars"], report["threads"]),
    ]
    lines += ["", "## With other scans", "", "ms; in brackets how much longer than with the C++ kernel.", ""]
    lines += scan_table(report["scans"])
    lines += ["", "## Where the time goes", "", "Forward, batch 1, with the C++ kernel.", "", *part_table(report)]
    lines += ["", "The causal convolution by itself, batch 1, ms:", "", *convolution_table(report["convolution"])]
    lines += ["", "## Against the size of the picture", "", "![time and memory against the picture](vim.png)", ""]
    return lines + size_table(report)


def scan_table(rows: list[dict]) -> list[str]:
    columns = list(rows[0]["differences"])
    lines = [
        " | ".join(["| picture", "batch", "pass", *(NAMES.get(name, name) for name in columns)]) + " |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for row in rows:
        cells = [cell(row["milliseconds"], row["differences"], name) for name in columns]
        lines.append(" | ".join([f"| {row['side']}²", str(row["batch"]), row["pass"], *cells]) + " |")
    return lines


def part_table(report: dict) -> list[str]:
    rows = report["parts"]
    lines = [" | ".join(["|", *(f"{row['side']}², ms | share" for row in rows)]) + " |"]
    lines.append("|---" * (2 * len(rows) + 1) + "|")
    for part in rows[0]["milliseconds"]:
        times = [(row["milliseconds"][part], row["milliseconds"]["whole"]) for row in rows]
        lines.append(" | ".join([f"| {part}", *(f"{own:.1f} | {own / whole:.0%}" for own, whole in times)]) + " |")
    return lines


def convolution_table(rows: list[dict]) -> list[str]:
    names = [*rows[0]["differences"], SILU]
    lines = [" | ".join(["| channels × length", *names]) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        cells = [f"{row['milliseconds'][name]:.3f}" if name in row["milliseconds"] else "wrong" for name in names]
        lines.append(" | ".join([f"| {row['channels']} × {row['length']}", *cells]) + " |")
    return lines


def size_table(report: dict) -> list[str]:
    points, sides = report["sizes"], report["sides"]
    lines = ["| | " + " | ".join(f"{side}²" for side in sides) + " |", "|---" * (len(sides) + 1) + "|"]
    lines.append("| tokens of Vim | " + " | ".join(f"{count_tokens('vim', side):,}" for side in sides) + " |")
    own = {kind: [point for point in points if point["model"] == kind] for kind in MODELS}
    for kind, name in MODELS.items():
        lines.append(f"| {name}, ms | " + " | ".join(f"{point['milliseconds']:.0f}" for point in own[kind]) + " |")
    for kind, name in list(MODELS.items())[1:]:
        factors = (ratio(a["milliseconds"], b["milliseconds"]) for a, b in zip(own[kind], own["vim"]))
        lines.append(f"| {name}: time over Vim's | " + " | ".join(f"{factor:.2f}×" for factor in factors) + " |")
    for kind, name in MODELS.items():
        cells = ("–" if point["peak_mib"] is None else f"{point['peak_mib']:.0f}" for point in own[kind])
        lines.append(f"| {name}, MiB | " + " | ".join(cells) + " |")
    longest = " and ".join(f"{side}²" for side in sorted(sides)[-NUM_LONGEST:])
    lines += ["", f"| time grows with the tokens to the power | all sizes | {longest} |", "|---|---|---|"]
    for kind, name in MODELS.items():
        exponents = report["exponents"][kind]
        lines.append(f"| {name} | {exponents['all']:.2f} | {exponents['longest']:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="two or more, each at least 32")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that the script works")
    parser.add_argument("--output_dir", type=Path)
    arguments = parser.parse_args()
    library, reason = cpu_scan.load_library()
    if library is None:
        raise SystemExit(f"There is no C++ kernel to time: {reason}")
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    is_quick, rounds = arguments.quick, QUICK_ROUNDS if arguments.quick else MAX_ROUNDS
    sides = sorted(QUICK_SIDES if is_quick else arguments.sides)
    channels, lengths = (QUICK_CHANNELS, QUICK_LENGTHS) if is_quick else (CHANNELS, LENGTHS)
    report = {
        "machine": machine("mambapy"),
        "plain_recurrence": plain_recurrence()[1],
        "is_quick": is_quick,
        "threads": arguments.threads,
        "sides": sides,
        "scans": compare_scans(is_quick, rounds),
        "parts": [time_parts(side, is_quick, rounds) for side in (QUICK_PARTS_SIDES if is_quick else PARTS_SIDES)],
        "convolution": [time_convolution(channels, length, rounds) for length in lengths],
        "sizes": measure_sizes(sides, is_quick, arguments.threads, rounds),
    }
    report["exponents"] = fit_exponents(report["sizes"])
    report["bars"] = find_bars(report)
    about = report["machine"]
    about_plot = (
        f"{about['processor']}, {arguments.threads} thread(s), batch 1, float32, "
        f"torch {about['versions']['torch']}, transformers {about['versions']['transformers']}, {about['date']}"
    )
    folder = output_dir(arguments.output_dir, is_quick)
    folder.mkdir(parents=True, exist_ok=True)
    plot(report["sizes"], folder / "vim.png", about_plot)
    write_report(folder, "vim", report, markdown(report))


if __name__ == "__main__":
    main()
