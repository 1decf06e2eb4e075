# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Time several expressions on one picture: with `image_index`, with the picture repeated, and one call for each.

    python benchmarks/expressions.py                writes benchmarks/expressions.json and benchmarks/expressions.md
    python benchmarks/expressions.py --quick        a tiny model, to see that it works; writes to build/bench-quick

The models are the base config at 480×480 with random weights and the bundled one at its own size, in eval mode. The
three versions take turns in one run, every figure is a median of wall time of the model's call. First their logits are
compared: if they differ, nothing is timed.
"""

import argparse
from pathlib import Path

import torch
from common import describe, largest_difference, machine, output_dir, time_in_turns, write_report

from remamber_hf import ReMamberConfig, ReMamberForImageSegmentation, keep_freed_memory
from remamber_hf.inference.loading import BUNDLED_MODEL


COUNTS = (1, 2, 4, 8)
TOLERANCE = 1e-4  # of the largest logit; float32, batches of different size
QUICK_FIELDS = {
    "text_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    "vision_config": {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]},
    "correlation_size": 16,
    "channel_scan_size": 4,
}


def make_inputs(model: ReMamberForImageSegmentation, size: int, count: int) -> dict[str, torch.Tensor]:
    """A random picture and random expressions."""
    generator = torch.Generator().manual_seed(0)
    end = model.config.text_config.eos_token_id
    input_ids = torch.randint(0, end - 1, (count, model.config.text_length), generator=generator)
    input_ids[:, -1] = end
    return {"pixel_values": torch.randn(1, 3, size, size, generator=generator), "input_ids": input_ids}


def make_versions(model: ReMamberForImageSegmentation, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> dict:
    """Functions that return the logits of all expressions, by name."""
    count = len(input_ids)

    def shared():
        return model(pixel_values, input_ids, image_index=torch.zeros(count, dtype=torch.long)).logits

    def repeated():
        return model(pixel_values.repeat(count, 1, 1, 1), input_ids).logits

    def one_by_one():
        return torch.cat([model(pixel_values, input_ids[index : index + 1]).logits for index in range(count)])

    return {"shared": shared, "repeated": repeated, "one by one": one_by_one}


def compare(name: str, model: ReMamberForImageSegmentation, size: int) -> list[dict]:
    """One row for each number of expressions; ValueError if the versions differ."""
    rows = []
    for count in COUNTS:
        versions = make_versions(model, **make_inputs(model, size, count))
        expected = versions["repeated"]()
        differences = {label: largest_difference([run()], [expected]) for label, run in versions.items()}
        if max(differences.values()) > TOLERANCE:
            raise ValueError(f"{name}, {count} expressions: logits differ by {differences}; nothing is timed.")
        times = time_in_turns(versions)
        rows.append(
            {"model": name, "size": size, "expressions": count, "differences": differences, "milliseconds": times}
        )
        print(f"{name}, {count}: {times}", flush=True)
    return rows


def table(rows: list[dict]) -> list[str]:
    largest = max(value for row in rows for value in row["differences"].values())
    lines = [
        f"Logits agree to {largest:.0e} of the largest. Times in ms; the factor is how much longer than the first.",
        "",
        "| model | expressions | picture once | picture repeated | one call for each |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        times = row["milliseconds"]
        others = [
            f"{times[label]:.0f} ({times[label] / times['shared']:.2f}×)" for label in ("repeated", "one by one")
        ]
        lines.append(f"| {row['model']} | {row['expressions']} | {times['shared']:.0f} | {others[0]} | {others[1]} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a tiny model instead of the base one")
    parser.add_argument("--output_dir", type=Path, help="where the results go")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    about = machine()
    config = ReMamberConfig(**QUICK_FIELDS) if arguments.quick else ReMamberConfig()
    name, size = ("tiny", 64) if arguments.quick else ("base", 480)
    bundled = ReMamberForImageSegmentation.from_pretrained(BUNDLED_MODEL).eval()
    with torch.inference_mode():
        rows = compare(f"{name}, {size}×{size}", ReMamberForImageSegmentation(config).eval(), size)
        rows += compare("bundled, 96×96", bundled, 96)
    heading = ["# Several expressions on one picture", "", f"{arguments.threads} thread(s).", ""]
    markdown = [*heading, *describe(about, arguments.quick), *table(rows)]
    report = {"machine": about, "threads": arguments.threads, "rows": rows}
    write_report(output_dir(arguments.output_dir, arguments.quick), "expressions", report, markdown)


if __name__ == "__main__":
    main()
