# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate every fusion design, arrangement of scans and option with the same budget, data and seeds.

    python benchmarks/ablation.py                   all of ablation.yaml; some hours on two cores, less on a GPU
    python benchmarks/ablation.py --variants twister channel --seeds 0
    python benchmarks/ablation.py --quick           a few steps of two variants; writes to build/bench-quick

Each run is `remamber train` with a recipe that stays beside what it wrote, in build/ablation. Runs that are done are
not repeated, and one that was cut off goes on from its last checkpoint: the same command as often as needed. Scenes
that are evaluated on are not trained on. Written are ablation.json, .md, and .png with the curves.

As many runs go side by side as there are cores, with one thread each, on a CUDA device if there is one.
"""

import argparse
import concurrent.futures
import copy
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import mean, stdev

import torch
import yaml
from common import HERE, describe, machine, output_dir, write_report
from matplotlib.figure import Figure

from remamber_hf import ReMamberConfig, ReMamberForImageSegmentation
from remamber_hf.inference.cost import count_parts


BASELINE = "twister"
# RefCOCO val mIoU as third-party summaries of the paper report it; docs/fusion.md says how sure that is.
PAPER = {
    "twister": 71.6,
    "norm_adaptation": 70.2,
    "in_context": 69.1,
    "cross_attention": 65.3,
    "channel": 62.3,
    "spatial": 70.0,
    "parallel": 71.0,
    "no_global_text": 69.9,
}
PANELS = {
    "Fusion designs": ["twister", "channel_scan_size_8", "norm_adaptation", "in_context", "cross_attention"],
    "Scans of the Twister": [
        "twister",
        "spatial_then_channel",
        "parallel",
        "spatial",
        "channel",
        "channel_scan_size_8",
    ],
    "Texts of the cube, mask head": ["twister", "no_global_text", "no_local_text", "mamba_head"],
    "In-context": ["in_context", "in_context_window_2", "in_context_window_4", "in_context_suffix"],
}
DEVICE_FILE = "device.txt"  # beside what a run wrote: where it ended
QUICK = {"variants": ["twister", "norm_adaptation"], "seeds": [0], "images": 100}
QUICK_RECIPE = {"max_steps": 2, "eval_steps": 1, "save_steps": 1, "logging_steps": 1, "max_eval_samples": 4}


# ------------------------------------------------------------------------------------------------------------ the runs


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else machine()["processor"]


def make_scenes(folder: Path, scenes: dict) -> None:
    """The data set of all runs, unless it is there; SystemExit if that is another."""
    told = folder.with_suffix(".yaml")
    if not told.is_file():
        options = [word for name, value in scenes.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "remamber_hf", "data", "synthesize", str(folder), *options]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"{folder} could not be made, as said above.")
        told.write_text(yaml.safe_dump(scenes))
    elif yaml.safe_load(told.read_text()) != scenes:
        sys.exit(f"{folder} holds other scenes than ablation.yaml says; delete it or give another --runs_dir.")


def write_recipe(folder: Path, plan: dict, name: str, seed: int, scenes: Path) -> Path:
    """
    The recipe of one run: it can be given to `remamber train` by itself.

    Raises:
        SystemExit: if the run is there already, and was of another recipe.
    """
    recipe = copy.deepcopy(plan["recipe"])
    recipe["model_config"] |= plan["variants"][name]
    recipe |= {"seed": seed, "data_dir": str(scenes), "output_dir": str(folder / f"{name}-{seed}")}
    path = folder / f"{name}-{seed}.yaml"
    if path.with_suffix("").is_dir():
        before = yaml.safe_load(path.read_text())
        if any(before.get(key) != recipe.get(key) for key in (before | recipe).keys() - {"data_dir", "output_dir"}):
            sys.exit(f"{path.with_suffix('')} is a run of another recipe; delete it or give another --runs_dir.")
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def train(recipe: Path) -> str:
    """Run one recipe to its end, from where it stands; an empty string, or the last line of what went wrong."""
    folder = recipe.with_suffix("")
    if (folder / "eval_results.json").is_file():
        return ""
    command = [sys.executable, "-m", "remamber_hf", "train", str(recipe), "--resume_from_checkpoint", "true"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    start = time.time()
    with recipe.with_suffix(".log").open("a") as log:
        returncode = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
    print(f"{folder.name}: {'done' if not returncode else 'FAILED'} after {time.time() - start:.0f} s", flush=True)
    if not returncode:
        (folder / DEVICE_FILE).write_text(device_name())
        return ""
    lines = recipe.with_suffix(".log").read_text().strip().splitlines() or ["nothing was printed"]
    return f"{folder.name}: {lines[-1]}"


def read_run(folder: Path) -> dict | None:
    """Scores at the end and during training, `None` of a run that is not done."""
    if not (folder / "eval_results.json").is_file():
        return None
    scores = json.loads((folder / "eval_results.json").read_text())
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {
        "miou": scores["eval_miou"],
        "oiou": scores["eval_oiou"],
        "precision": scores["eval_precision@0.5"],
        "curve": [(entry["step"], entry["eval_miou"]) for entry in history if "eval_miou" in entry],
        "seconds": json.loads((folder / "train_results.json").read_text())["train_runtime"],
        "device": (folder / DEVICE_FILE).read_text() if (folder / DEVICE_FILE).is_file() else "an unknown device",
    }


# ---------------------------------------------------------------------------------------------------------- the report


def count(folder: Path, image_size: int) -> dict[str, dict[str, int]]:
    """Parameters and FLOPs of the parts of a run's model."""
    with torch.device("meta"):
        model = ReMamberForImageSegmentation(ReMamberConfig.from_pretrained(folder))
    return count_parts(model, image_size)


def summarise(runs: dict[str, dict[int, dict]], plan: dict, runs_dir: Path) -> list[dict]:
    """One row for each variant that has a run: mean and spread over its seeds."""
    rows = []
    for name, by_seed in runs.items():
        if not by_seed:
            continue
        row = {"variant": name, "fields": plan["variants"][name], "seeds": sorted(by_seed), "paper": PAPER.get(name)}
        for score in ("miou", "oiou", "precision"):
            values = [run[score] for run in by_seed.values()]
            row[score] = mean(values)
            row[f"{score}_spread"] = stdev(values) if len(values) > 1 else None
        row["parts"] = count(runs_dir / f"{name}-{row['seeds'][0]}", plan["recipe"]["image_size"])
        rows.append(row)
    return rows


def count_devices(runs: dict[str, dict[int, dict]]) -> str:
    counts = Counter(run["device"] for by_seed in runs.values() for run in by_seed.values())
    return ", ".join(f"{count} on {name}" for name, count in counts.items())


def percent(row: dict, score: str) -> str:
    spread = row[f"{score}_spread"]
    return f"{100 * row[score]:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def markdown(report: dict) -> list[str]:
    lines = ["# Fusion designs and scans compared", "", *describe(report["machine"], report["is_quick"])]
    recipe, scenes = report["plan"]["recipe"], report["plan"]["scenes"]
    lines += [
        f"{recipe['max_steps']} steps of {recipe['per_device_train_batch_size']} objects on {scenes['images']:,} "
        f"{scenes['style']} scenes of {recipe['image_size']}×{recipe['image_size']}, less those evaluated on; "
        "mean and standard deviation over the seeds, in percent. The paper's column is RefCOCO val mIoU of large "
        "pretrained models, as summaries of it report: to be compared in order only. "
        f"Runs by device: {count_devices(report['runs'])}.",
        "",
        "| variant | seeds | mIoU | oIoU | P@0.5 | parameters, of them fusion | FLOPs | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        whole, fusion = row["parts"]["whole"], row["parts"]["fusion"]
        lines.append(
            f"| {row['variant']} | {len(row['seeds'])} | {percent(row, 'miou')} | {percent(row, 'oiou')} | "
            f"{percent(row, 'precision')} | {whole['parameters'] / 1e6:.2f} M, {fusion['parameters'] / 1e6:.2f} M | "
            f"{whole['flops'] / 1e9:.2f} G | {row['paper'] or '–'} |"
        )
    lines += ["", "![mIoU during training](ablation.png)"]
    return lines


def plot(runs: dict[str, dict[int, dict]], path: Path) -> None:
    """mIoU of the unseen scenes during training: means over the seeds, and their range as a band."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for axis, (title, names) in zip(axes.flat, PANELS.items()):
        for name in names:
            curves = [dict(run["curve"]) for run in runs.get(name, {}).values()]
            steps = sorted(set.intersection(*map(set, curves))) if curves else []
            if not steps:
                continue
            values = [[100 * curve[step] for curve in curves] for step in steps]
            (line,) = axis.plot(steps, [mean(value) for value in values], marker="o", markersize=3, label=name)
            axis.fill_between(
                steps, list(map(min, values)), list(map(max, values)), color=line.get_color(), alpha=0.15
            )
        axis.set_title(title)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(loc="lower right", fontsize=8)
    for axis in axes[1]:
        axis.set_xlabel("step")
    for axis in axes[:, 0]:
        axis.set_ylabel("mIoU, %")
    figure.savefig(path, dpi=110)


def read_plan(is_quick: bool) -> dict:
    """What ablation.yaml says; little of it for a quick run."""
    plan = yaml.safe_load((HERE / "ablation.yaml").read_text())
    if is_quick:
        plan["variants"] = {name: plan["variants"][name] for name in QUICK["variants"]}
        plan["seeds"], plan["scenes"]["images"] = QUICK["seeds"], QUICK["images"]
        plan["recipe"] |= QUICK_RECIPE
    return plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", help="names in ablation.yaml; all if not given")
    parser.add_argument("--seeds", nargs="+", type=int, help="those of ablation.yaml if not given")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--runs_dir", type=Path, help="what the runs write; build/ablation if not given")
    parser.add_argument("--report-only", action="store_true", help="train nothing, write what is there")
    parser.add_argument("--quick", action="store_true", help="a few steps: only to see that the script works")
    parser.add_argument("--output_dir", type=Path)
    arguments = parser.parse_args()
    plan = read_plan(arguments.quick)
    names, seeds = arguments.variants or list(plan["variants"]), arguments.seeds or plan["seeds"]
    unknown = [name for name in names if name not in plan["variants"]]
    if unknown:
        parser.error(f"{unknown[0]} is no variant; there are {', '.join(plan['variants'])}.")
    folder = output_dir(arguments.output_dir, arguments.quick)
    runs_dir = arguments.runs_dir or HERE.parent / "build" / ("ablation-quick" if arguments.quick else "ablation")
    runs_dir.mkdir(parents=True, exist_ok=True)
    about = machine()
    failures = []
    if not arguments.report_only:
        scenes = runs_dir / "scenes"
        make_scenes(scenes, plan["scenes"])
        recipes = [write_recipe(runs_dir, plan, name, seed, scenes) for seed in seeds for name in names]
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            failures = [failure for failure in pool.map(train, recipes) if failure]
    runs: dict[str, dict[int, dict]] = {name: {} for name in plan["variants"]}
    for name in plan["variants"]:
        for seed in sorted({*plan["seeds"], *seeds}):
            run = read_run(runs_dir / f"{name}-{seed}")
            if run is not None:
                runs[name][seed] = run
    if not any(runs.values()):
        sys.exit("No run is done: " + "; ".join(failures or ["nothing was trained"]))
    report = {
        "machine": about,
        "is_quick": arguments.quick,
        "plan": plan,
        "rows": summarise(runs, plan, runs_dir),
        "runs": runs,
    }
    write_report(folder, "ablation", report, markdown(report))
    plot(runs, folder / "ablation.png")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
