# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber profile`: the table of efficiency of a paper."""

import json
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME, logging

from ..configuration_remamber import ReMamberConfig, VMambaConfig
from ..configuration_vim import VimConfig
from ..image_processing_remamber import ReMamberImageProcessorPil
from ..inference.cost import META, count_parameters, count_parts, model_parts
from ..inference.devices import DTYPES, find_device
from ..inference.environment import describe_environment, device_name
from ..inference.loading import BUNDLED, find_model, load_config_of
from ..inference.profiling import NUM_WARMUP, Workload, build_model, in_fresh_process, machine_memory, measure_model
from .options import Device, Output, check_output, complete, read_size, write_text
from .profile_report import FORMATS


CONFIGS = (ReMamberConfig, VMambaConfig, VimConfig)
SIDES = (32, 8192)  # pixels
DEFAULT_SIDES = {ReMamberConfig.model_type: 480, VMambaConfig.model_type: 224}  # a Vim's configuration has its own
MOST = {"batch_size": 2**16, "num_expressions": 2**10, "num_runs": 10**6, "num_threads": 2**10}
SHORT_OF_MEMORY = ("out of memory", "allocate memory")  # as PyTorch says it


Model = Annotated[
    str,
    typer.Argument(
        help="A folder, a Hub name, bundled, a config.json or a training recipe: of a ReMamber, a VMamba or a Vim. "
        "Weights are not read."
    ),
]
ImageSizes = Annotated[
    list[str] | None,
    typer.Option(
        "--image_size",
        "--image-size",
        metavar="SIDE|HxW",
        help="Size of the picture in pixels; may be repeated, a row each.",
        show_default="that of its processor, or as published",
    ),
]
BatchSize = Annotated[
    int, typer.Option("--batch_size", "--batch-size", help="Pictures in a pass, for time and memory.")
]
NumExpressions = Annotated[
    int, typer.Option("--num_expressions", "--num-expressions", help="Expressions about each picture.")
]
NumRuns = Annotated[int, typer.Option("--num_runs", "--num-runs", help="Passes that are timed.")]
NumThreads = Annotated[
    int | None, typer.Option("--num_threads", "--num-threads", help="Of a CPU.", show_default="as PyTorch has it")
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=complete(*DTYPES),
        help=f"One of {', '.join(DTYPES)}; the last two by autocast.",
    ),
]
IsMeasured = Annotated[
    bool, typer.Option("--time/--no-time", help="Whether to take time and memory, besides parameters and FLOPs.")
]
Format = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        autocompletion=complete(*FORMATS),
        help=f"One of {', '.join(FORMATS)}; LaTeX needs the package booktabs.",
    ),
]


def profile(
    model: Model,
    image_size: ImageSizes = None,
    batch_size: BatchSize = 1,
    num_expressions: NumExpressions = 1,
    num_runs: NumRuns = 10,
    num_threads: NumThreads = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    is_measured: IsMeasured = True,
    format: Format = "table",
    output: Output = None,
) -> None:
    """
    Show a model's parameters, FLOPs, latency and memory, at one size of the picture or several.

    Example: remamber profile bundled --image_size 96 --image_size 480x640 --format latex
    """
    numbers = {"batch_size": batch_size, "num_expressions": num_expressions, "num_runs": num_runs}
    numbers |= {} if num_threads is None else {"num_threads": num_threads}
    for name, value in numbers.items():
        if not 1 <= value <= MOST[name]:
            raise ValueError(f"--{name} is {value}; give 1 to {MOST[name]}.")
    for name, choice, known in (("dtype", dtype, DTYPES), ("format", format, FORMATS)):
        if choice not in known:
            raise ValueError(f"--{name} is {choice!r}; choose one of {', '.join(known)}.")
    given = list(dict.fromkeys(map(read_sides, image_size or ())))
    check_output(output)
    target = find_device(device)
    logging.set_verbosity_error()
    subject = find_subject(model)
    if num_expressions > 1 and not isinstance(subject.config, ReMamberConfig):
        raise ValueError(f"--num_expressions is {num_expressions}, and {model} reads no expressions; leave it out.")
    sizes = given or [subject.image_size]
    workloads = [Workload(size, batch_size, num_expressions, dtype, num_runs, num_threads) for size in sizes]
    results = make_profile(model, subject, workloads, target if is_measured else None)
    write_text(FORMATS[format](results), output)


def read_sides(text: str) -> tuple[int, int]:
    """Height and width of SIDE or HxW; ValueError if there is no such picture."""
    size = read_size(text)
    height, width = size if isinstance(size, list) else (size, size)
    if not all(SIDES[0] <= side <= SIDES[1] for side in (height, width)):
        raise ValueError(f"--image_size is {text}; give {SIDES[0]} to {SIDES[1]} pixels a side.")
    return height, width


# ---------------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Subject:
    """
    A model by its configuration.

    image_size: (height, width) that its processor gives it, or a default. trained: of a recipe that trains only some
    weights, how many of each part and of the whole.
    """

    config: PreTrainedConfig
    image_size: tuple[int, int]
    trained: dict[str, int] | None = None


def find_subject(name: str) -> Subject:
    """
    What `name` stands for.

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
        from ..training.recipe import RECIPES

        if is_written or (RECIPES / f"{name}.yaml").is_file():
            return read_recipe(name)
    config = load_config_of(CONFIGS, name)
    if Path(name).is_file():  # perhaps written by hand
        from ..training.start import check_fields

        check_fields(json.loads(Path(name).read_text(encoding="utf-8")), where=name, config_class=type(config))
    return Subject(config, find_image_size(name, config))


def read_recipe(name: str) -> Subject:
    """What a recipe of `remamber train` starts from, and trains."""
    from ..training.lora import add_lora
    from ..training.recipe import read_model_arguments
    from ..training.start import freeze_parts, read_config

    arguments, frozen = read_model_arguments(name)
    config = read_config(arguments)
    side = arguments.image_size
    image_size = find_image_size(arguments.model, config) if side is None else (side, side)
    if not frozen and arguments.lora is None:
        return Subject(config, image_size)
    with META:
        model: Any = build_model(config)
        if arguments.lora is not None:
            fields: Any = arguments.lora  # read by now
            model = add_lora(model, fields, whole=["presence_head"] if arguments.predicts_presence else [])
    freeze_parts(model, frozen)
    parts: dict[str, nn.Module] = {**model_parts(model), "whole": model}
    return Subject(config, image_size, {part: count_parameters([module])[1] for part, module in parts.items()})


def find_image_size(name: str | None, config: Any) -> tuple[int, int]:
    """The size that the processor beside a model gives pictures; without one, that of the published models."""
    size: Any = config.image_size if isinstance(config, VimConfig) else DEFAULT_SIDES[config.model_type]
    if isinstance(config, ReMamberConfig) and name is not None and not Path(name).is_file():
        size = processor_size(name) or size
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def processor_size(name: str) -> tuple[int, int] | None:
    """None where there is no processor, or none of the kind that a ReMamber has."""
    try:
        size = ReMamberImageProcessorPil.get_image_processor_dict(str(find_model(name)))[0]["size"]
        height, width = size["height"], size["width"]
    except Exception:  # of any kind: what is in the file is anybody's, and another size is as good to measure
        return None
    are_sides = all(isinstance(side, int) and SIDES[0] <= side <= SIDES[1] for side in (height, width))
    return (height, width) if are_sides else None


# -------------------------------------------------------------------------------------------------------- its figures


def make_profile(
    name: str, subject: Subject, workloads: list[Workload], device: torch.device | None
) -> dict[str, Any]:
    """All that is known of a model, ready for JSON; without a device, no time and no memory."""
    config: Any = subject.config
    with META:
        model = build_model(config)
    results: dict[str, Any] = {"model": name, "class": type(model).__name__}
    if isinstance(config, ReMamberConfig):
        results |= {field: getattr(config, field) for field in ("fusion", "mask_head", "text_length")}
    results |= {
        "num_expressions": workloads[0].num_expressions,
        "versions": describe_environment()["versions"],
        "measured": None,
        "sizes": [],
    }
    if device is not None:
        check_fits(model)
    for workload in workloads:
        parts = count_parts(model, workload.image_size, workload.num_expressions)
        for part, trained in (subject.trained or {}).items():
            parts[part]["trained"] = trained
        figures = dict.fromkeys(("milliseconds", "pictures_per_second", "peak_mib"))
        if device is not None:
            figures = measure(config, workload, device)
            results["measured"] = describe_measurement(workload, device, figures.pop("ran"))
        results["sizes"].append({"image_size": list(workload.image_size), "parts": parts, **figures})
    return results


def describe_measurement(workload: Workload, device: torch.device, ran: dict[str, Any]) -> dict[str, Any]:
    """Where and how time and memory were taken, alike for all sizes."""
    return {
        "device": device.type,
        "device_name": device_name(device),
        **ran,
        "dtype": workload.dtype,
        "batch_size": workload.batch_size,
        "num_runs": workload.num_runs,
        "num_warmup": NUM_WARMUP,
    }


def check_fits(model: nn.Module) -> None:
    """ValueError for a model whose weights this machine has not the memory for."""
    size, memory = 4 * count_parameters([model])[0], machine_memory()
    if memory is not None and size > memory:
        raise ValueError(
            f"the weights take {size / 2**30:,.1f} GiB, and this machine has {memory / 2**30:,.1f}; give --no-time."
        )


def measure(config: PreTrainedConfig, workload: Workload, device: torch.device) -> dict[str, Any]:
    """See `measure_model`; ValueError where memory does not suffice."""
    size = "×".join(map(str, workload.image_size))
    if sys.stderr.isatty():
        typer.echo(f"measuring {size} pixels", err=True)
    try:
        return in_fresh_process(measure_model, config, workload, device)
    except RuntimeError as error:
        is_killed = isinstance(error, BrokenProcessPool)
        if not is_killed and not any(words in str(error) for words in SHORT_OF_MEMORY):
            raise
        why = "the process that measures was killed, as where memory is short" if is_killed else "memory is short"
        raise ValueError(
            f"{size} pixels in batches of {workload.batch_size}: {why}; give a smaller --image_size or --batch_size, "
            "or --no-time."
        ) from None
