# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber evaluate`."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import PartialState
from transformers.utils import logging

from ..data.mixture import is_refer, load_one
from ..data.refer_config import SENTENCES
from ..evaluation.evaluator import Evaluator
from ..evaluation.masks import MASK_FORMATS
from ..evaluation.protocols import OURS, PROTOCOLS, Protocol
from ..evaluation.report import write_report
from ..evaluation.results import evaluate_splits, read_splits, write_results
from ..evaluation.samples import PARTS
from ..evaluation.scoring import NothingRule, configuration_of
from ..files import check_new_folder
from ..inference.devices import DTYPES, find_device, peak_gpu_memory
from ..inference.environment import describe_environment, device_name
from ..inference.image_backend import image_backend, with_pil
from ..inference.loading import hash_weights, load_model
from ..post_processing_remamber import LOGIT_INTERPOLATIONS, PRESENCE_THRESHOLD, check_threshold
from .options import Device, Generalized, command_line


def check_arguments(
    output_dir: Path | None,
    resize: str | None,
    protocol: str | None,
    dtype: str,
    sentences: str | None,
    save_masks: str | None,
    by: list[str],
    **numbers,
) -> None:
    """
    Refuse what cannot be done before anything is loaded.

    Args:
        numbers: name of an option → its value and the least that it may be.

    Raises:
        ValueError: naming the option.
        FileExistsError: if the output folder is not empty.
    """
    choices: list[tuple[str, str | None, Iterable[str]]]
    choices = [("resize", resize, LOGIT_INTERPOLATIONS), ("protocol", protocol, PROTOCOLS), ("dtype", dtype, DTYPES)]
    choices += [("sentences", sentences, SENTENCES), ("save_masks", save_masks, MASK_FORMATS)]
    for name, value, known in choices:
        if value is not None and value not in known:
            raise ValueError(f"--{name} is {value!r}; choose one of {', '.join(known)}.")
    for column in by:
        if column not in PARTS:
            raise ValueError(f"--by is {column!r}; choose from {', '.join(PARTS)}.")
    if protocol is not None:
        if resize not in (None, PROTOCOLS[protocol].resize):
            way = PROTOCOLS[protocol].resize
            raise ValueError(f"--protocol {protocol} resizes by {way}; leave out --resize {resize}.")
        if dtype != "float32":
            raise ValueError(f"--protocol {protocol} computes in float32; leave out --dtype {dtype}.")
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}; give at least {least}.")
    if output_dir is not None:
        check_new_folder(output_dir)
    elif save_masks is not None:
        raise ValueError(f"--save_masks {save_masks} needs a folder to write to; give --output_dir.")


def choose_protocol(name: str | None, resize: str | None, dtype: str) -> Protocol:
    """The protocol of this name; without one, that of this package, which other settings take its name from."""
    if name is not None:
        return PROTOCOLS[name]
    is_ours = resize in (None, OURS.resize) and dtype == "float32"
    return OURS if is_ours else replace(OURS, name=None, resize=resize or OURS.resize)


def choose_rule(
    presence_threshold: float | None, min_pixels: int | None, predicts_presence: bool, is_generalized: bool
) -> NothingRule:
    """When the model says that nothing is meant; ValueError for an option that has no say in it."""
    if min_pixels is not None and not is_generalized:
        raise ValueError(
            f"--min_pixels is {min_pixels}, and every sentence of this data set means an object; leave it out."
        )
    if presence_threshold is not None and not predicts_presence:
        raise ValueError(
            f"--presence_threshold is {presence_threshold}, and the model does not say whether an expression means "
            "anything; give one with predicts_presence, or --min_pixels."
        )
    if min_pixels is not None and predicts_presence:
        raise ValueError(
            f"--min_pixels is {min_pixels}, and the model says itself whether an expression means anything; leave it "
            "out, or give --presence_threshold."
        )
    if predicts_presence:
        return NothingRule(PRESENCE_THRESHOLD if presence_threshold is None else presence_threshold)
    return NothingRule(min_pixels=min_pixels or 1)


Model = Annotated[str, typer.Argument(help="Folder or Hub name of a ReMamber model, or bundled.")]
Dataset = Annotated[
    str | None, typer.Option(help="Such as refcoco; without --data_dir, a data set of the Hub or a Parquet folder.")
]
SplitBy = Annotated[
    str | None,
    typer.Option("--split_by", "--split-by", help="unc, google, umd or berkeley.", show_default="as in the papers"),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data_dir", "--data-dir", help="Folder of the data sets and pictures, or of your own data."),
]
Splits = Annotated[str | None, typer.Option(help="Such as val,testA,testB.", show_default="all but train")]
OutputDir = Annotated[
    Path | None,
    typer.Option("--output_dir", "--output-dir", help="Folder to make, for tables, samples and contact sheets."),
]
Resize = Annotated[
    str | None,
    typer.Option(
        help=f"How logits get the picture's size: {' or '.join(LOGIT_INTERPOLATIONS)}.",
        show_default="bilinear, as everywhere else in this package",
    ),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        help=f"Count as a released evaluation does: {', '.join(PROTOCOLS)}; published is ReMamber's, full is ours.",
        show_default="full, unless --resize or --dtype is another",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch_size", "--batch-size", help="Sentences in a batch.")]
NumWorkers = Annotated[
    int, typer.Option("--num_workers", "--num-workers", help="Processes that read pictures, for each model.")
]
Dtype = Annotated[str, typer.Option(help=f"One of {', '.join(DTYPES)}; the last two by autocast.")]
ContactSheet = Annotated[
    int, typer.Option("--contact_sheet", "--contact-sheet", help="Draw the N worst and the N best of each split.")
]
PresenceThreshold = Annotated[
    float | None,
    typer.Option(
        "--presence_threshold",
        "--presence-threshold",
        help="Nothing is found where the presence is below this.",
        show_default=f"{PRESENCE_THRESHOLD}, with a model that predicts it",
    ),
]
MinPixels = Annotated[
    int | None,
    typer.Option(
        "--min_pixels",
        "--min-pixels",
        help="Nothing is found where a mask has fewer pixels; where sentences may mean nothing.",
        show_default="1, with a model that predicts no presence",
    ),
]
SentencesRead = Annotated[
    str | None,
    typer.Option(
        help='Text of a REFER set: "sent", as it was cleaned, or "raw", as it was written.',
        show_default="what the protocol's code reads",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        help=f"More tables, names with commas between, of {', '.join(PARTS)}; the first two come by themselves where "
        "there are any."
    ),
]
Intervals = Annotated[
    bool, typer.Option("--intervals", help="Give each score the 95 % interval of a bootstrap over pictures.")
]
SaveMasks = Annotated[
    str | None,
    typer.Option(
        "--save_masks",
        "--save-masks",
        help="Write the masks that are found too: rle, into masks.parquet, or png, into the folder masks.",
    ),
]
MaxSamples = Annotated[
    int | None, typer.Option("--max_samples", "--max-samples", help="Only the first N sentences of each split.")
]


def evaluate(
    model: Model,
    dataset: Dataset = None,
    split_by: SplitBy = None,
    data_dir: DataDir = None,
    splits: Splits = None,
    generalized: Generalized = False,
    sentences: SentencesRead = None,
    output_dir: OutputDir = None,
    resize: Resize = None,
    protocol: ProtocolName = None,
    batch_size: BatchSize = 16,
    num_workers: NumWorkers = 2,
    device: Device = "auto",
    dtype: Dtype = "float32",
    contact_sheet: ContactSheet = 8,
    max_samples: MaxSamples = None,
    presence_threshold: PresenceThreshold = None,
    min_pixels: MinPixels = None,
    by: By = None,
    intervals: Intervals = False,
    save_masks: SaveMasks = None,
    context: typer.Context = None,  # type: ignore[assignment]  # Typer gives it, Python need not
) -> None:
    """
    Score a model on every split of a data set: the papers' table, beside the published figures.

    In several processes: torchrun --nproc_per_node 2 -m remamber_hf evaluate MODEL …

    Example: remamber evaluate runs/refcoco --dataset refcoco --data_dir DATA --output_dir results
    """
    numbers: dict[str, tuple[int | None, int]] = {"batch_size": (batch_size, 1), "num_workers": (num_workers, 0)}
    numbers |= {"contact_sheet": (contact_sheet, 0), "max_samples": (max_samples, 1), "min_pixels": (min_pixels, 1)}
    if presence_threshold is not None:
        check_threshold(presence_threshold, "--presence_threshold")
    columns = [] if by is None else [name.strip() for name in by.split(",")]
    check_arguments(output_dir, resize, protocol, dtype, sentences, save_masks, columns, **numbers)
    rules = choose_protocol(protocol, resize, dtype)
    state = PartialState(cpu=find_device(device).type == "cpu")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    loaded, processor = load_model(model, "cpu", "float32")
    network: Any = loaded  # transformers' decorator hides `self` of `to`
    if sentences is None:
        sentences = rules.sentences if is_refer(dataset, data_dir) else "sent"
    with state.main_process_first():
        source = load_one(dataset, split_by, data_dir, generalized=generalized, sentences=sentences)
    chosen = read_splits(source, splits, max_samples, batch_size)
    is_generalized = chosen[0].is_generalized
    if is_generalized and not rules.takes_generalized:
        raise ValueError(f"--protocol {protocol} knows no generalised data set; take rela, or leave it out.")
    nothing = choose_rule(presence_threshold, min_pixels, network.config.predicts_presence, is_generalized)
    if rules.image_backend == "PIL":
        processor = with_pil(processor)
    network = network.to(on_this_process(device, state))
    evaluator = Evaluator(network, processor, dtype, num_workers, rules, nothing)
    if state.is_main_process:
        typer.echo(f"pictures are prepared by {image_backend(processor)}")
        cut = processor.describe_cut([sample.sentence for split in chosen for sample in split.samples])
        if cut is not None:
            typer.echo(cut)
    about = {
        "model": model,
        "dataset": source.name,
        "split_by": source.split_by,
        "sentences": source.sentences,
        "metric": configuration_of(source.name, is_generalized),
        "protocol": {
            **rules.describe(),
            **({"nothing_found": nothing.describe()} if is_generalized or network.config.predicts_presence else {}),
            "dtype": dtype,
            "image_backend": image_backend(processor),
        },
        "max_samples": max_samples,
        "device": device_name(network.device),
        "versions": describe_environment()["versions"],
        "command": command_line(context),
        "weights_sha256": hash_weights(network) if state.is_main_process else None,
    }
    num_drawn = contact_sheet if output_dir is not None else 0
    evaluation = evaluate_splits(evaluator, chosen, source, num_drawn, columns, intervals, save_masks is not None)
    if state.is_main_process:
        results = {**about, "splits": evaluation.splits}
        typer.echo(write_report(results))
        if (memory := peak_gpu_memory(network.device)) is not None:
            typer.echo(f"memory of the GPU: {memory} MiB at most")
        if output_dir is not None:
            write_results(output_dir, results, evaluation, save_masks)
            typer.echo(f"written: {output_dir}")
        else:
            typer.echo("nothing was written; --output_dir keeps it for `remamber compare` and `table`.", err=True)
    state.destroy_process_group()


def on_this_process(device: str, state: PartialState) -> torch.device:
    """The device of this process: the one that is named, where one process runs; else the one that is its own."""
    return find_device(device) if state.num_processes == 1 else state.device
