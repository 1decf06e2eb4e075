# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What `remamber env --model` prints: the facts of `inference/cost.py` as a table or JSON."""

import json
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from transformers.utils import CONFIG_NAME, logging

from ..configuration_remamber import ReMamberConfig
from ..inference.cost import count_parts, time_picture
from ..inference.devices import DEVICES, find_device
from ..inference.environment import device_name
from ..inference.loading import BUNDLED, load_config
from ..messages import printable
from ..modeling_remamber import ReMamberForImageSegmentation
from ..selective_scan import fastest_backend
from .options import make_console


SIDES = (32, 8192)  # pixels
COUNTED = (
    "FLOPs: a multiplication and an addition are two, where many papers print multiply-adds; elementwise arithmetic "
    "outside the scans is not counted, as PyTorch has it."
)


def show_cost(name: str, image_size: int, device: str, is_timed: bool, as_json: bool) -> None:
    """Print what the model that `name` stands for costs, as a table or as JSON."""
    if not SIDES[0] <= image_size <= SIDES[1]:
        raise ValueError(f"--image_size is {image_size}; give {SIDES[0]} to {SIDES[1]}.")
    target = find_device(device)
    logging.set_verbosity_error()
    config = find_config(name)
    with torch.device("meta"):
        model = ReMamberForImageSegmentation(config)
    cost = {
        "model": name,
        "fusion": config.fusion,
        "mask_head": config.mask_head,
        "image_size": image_size,
        "text_length": config.text_length,
        "parts": count_parts(model, image_size),
        "time": describe_time(config, image_size, target) if is_timed else None,
    }
    if as_json:
        print(json.dumps(cost, indent=2))
        return
    console = make_console()
    for lines in (Text(describe(cost), style="italic"), cost_table(cost), Text(COUNTED)):
        console.print(lines, soft_wrap=isinstance(lines, Text))


def find_config(name: str) -> ReMamberConfig:
    """
    The configuration of the model that `name` stands for.

    Args:
        name: folder or Hub name of a model, path of its config.json, "bundled"; or a recipe, by its file or name.

    Raises:
        ValueError, FileNotFoundError: if there is none, or it is of another model.
    """
    is_written = name.endswith((".yaml", ".yml"))
    if name.endswith(".json") and not Path(name).is_file():
        raise FileNotFoundError(f"{name} is no file; give a config.json, a folder or a Hub name.")
    is_model = name in ("", BUNDLED) or "/" in name or Path(name).is_file() or (Path(name) / CONFIG_NAME).is_file()
    if is_written or not is_model:
        # They bring all of training, which a model that is named does not need.
        from ..training.recipe import RECIPES, read_model_arguments
        from ..training.start import read_config

        if is_written or (RECIPES / f"{name}.yaml").is_file():
            return read_config(read_model_arguments(name))
    config = load_config(name)
    if Path(name).is_file():  # perhaps written by hand
        from ..training.start import check_fields

        check_fields(json.loads(Path(name).read_text(encoding="utf-8")), where=name)
    return config


def describe_time(config: ReMamberConfig, image_size: int, device: torch.device) -> dict[str, Any]:
    """ms of a picture in float32, with weights that are random: their values do not matter; and what it ran on."""
    model: Any = ReMamberForImageSegmentation(config)  # transformers' decorator hides `self` of `to`
    milliseconds = time_picture(model.eval().to(device), image_size)
    scans = ["cross_selective_scan"] + ["selective_scan"] * (config.fusion == "in_context")
    return {
        "milliseconds": milliseconds,
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "scan_backend": " and ".join(dict.fromkeys(fastest_backend(device.type, operation=each)[0] for each in scans)),
    }


def describe(cost: dict[str, Any]) -> str:
    """What was counted and where the time was taken, the title of the table."""
    side, timed = cost["image_size"], cost["time"]
    title = (
        f"{printable(cost['model'])}: fusion {cost['fusion']}, {cost['mask_head']} head; one picture of {side}×{side}"
    )
    title += f" pixels and an expression of {cost['text_length']} tokens"
    if timed is None:
        return title
    threads = f", {timed['threads']} threads" if timed["device"] == "cpu" else ""
    place = f"{DEVICES[timed['device']]} ({timed['device_name']}{threads})"
    return f"{title}; ms on {place} in {timed['dtype']}, scan backend {timed['scan_backend']}, with random weights"


def cost_table(cost: dict[str, Any]) -> Table:
    timed = cost["time"]
    table = Table()
    table.add_column("part", no_wrap=True)
    for header in ("parameters, M", "FLOPs, G", *(["ms"] if timed else [])):
        table.add_column(header, justify="right")
    for part, counts in cost["parts"].items():
        if part == "whole":
            table.add_section()
        numbers = [f"{counts['parameters'] / 1e6:,.2f}", f"{counts['flops'] / 1e9:,.2f}"]
        if timed and part == "whole":
            numbers.append(f"{timed['milliseconds']:,.1f}")
        table.add_row(part.replace("_", " "), *numbers)
    return table
