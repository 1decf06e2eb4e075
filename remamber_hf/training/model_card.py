# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The model card of a trained model: data, recipe, metrics as model-index, licence, use, limits, environment."""

import os
import re
import shlex
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
import yaml
from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from ..configuration_remamber import ReMamberConfig
from ..data.mixture import DataSource
from ..data.rows import TARGET_KINDS
from ..evaluation.report import SCORE_TITLES
from ..files import make_whole_file
from ..inference.environment import describe_environment
from ..inference.image_backend import image_backend
from ..inference.loading import BUNDLED
from ..processing_remamber import ReMamberProcessor
from .arguments import ReMamberTrainingArguments
from .ema import AVERAGED_MODEL
from .evaluation_metrics import GENERALIZED_METRICS
from .evaluation_metrics import METRICS as PLAIN_METRICS
from .nonfinite import REPORT


METRICS = {name: SCORE_TITLES[name] for name in PLAIN_METRICS if name != "loss"}
GENERALIZED = {name: SCORE_TITLES[name] for name in GENERALIZED_METRICS if name in SCORE_TITLES}
GENERALIZED |= {f"giou_{kind}": f"gIoU, {kind}" for kind in TARGET_KINDS}
ALL_METRICS = {**METRICS, **GENERALIZED}
VERSIONS = ("remamber_hf", "torch", "transformers", "accelerate", "datasets", "python")
# The arguments that a card tells, and no others: paths, addresses, tokens and names of runs stay here.
TOLD = frozenset(
    """
    adam_beta1 adam_beta2 adam_epsilon augment auto_find_batch_size backbone_learning_rate bf16 cross_entropy_weight
    data_seed dataloader_drop_last dataset dice_weight do_eval do_train ema_decay ema_start_step eval_split eval_steps
    eval_strategy expressions_per_picture fp16 freeze full_determinism generalized gradient_accumulation_steps
    gradient_checkpointing gradient_checkpointing_kwargs image_size learning_rate load_best_model_at_end lora
    lr_scheduler_kwargs lr_scheduler_type max_eval_samples max_grad_norm max_nonfinite_steps max_steps
    metric_for_best_model model model_config new_tokenizer no_target_share num_train_epochs on_error optim
    per_device_eval_batch_size per_device_train_batch_size predicts_presence seed sentences split_by sync_batch_norm
    text_encoder_learning_rate text_model tf32 tokenizer torch_compile train_split use_cpu vision_model
    vocabulary_size warmup_steps weight_decay weight_decay_mode
    """.split()
)
# Text in an argument that no path, address or token is.
PLAIN_TEXT = re.compile(r"(?!hf_)[A-Za-z0-9_.+,:*-]{1,100}")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
NAMES = ("dataset", "model", "text_model", "tokenizer", "vision_model")
PUSHED = ("*.safetensors", "*.json", "*.py", "curves.png", "README.md")
KEPT = ("trainer_state.json", "train_results.json", "all_results.json", REPORT)  # of the run, not of the model

# What the HTTP library raises that huggingface_hub is built on; which one that is depends on its version.
HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]

SAYS_NOTHING = """\
It says how probable it is that an expression means anything in a picture (`presence_logits`), and where it does not
  think so the mask is empty."""
SAYS_NO_NOTHING = "It may answer with a mask also where nothing in the picture is meant."
LEGENDS = {
    "miou": """\
mIoU is the mean IoU of the expressions, oIoU all intersections over all unions, P@X the share of expressions with an
IoU of at least X; masks at the pictures' own sizes.""",
    "giou": """\
Where an expression may mean several objects or none: gIoU is the mean IoU of the expressions, where one that means
nothing counts 1 if nothing is found and 0 if not, and any other 0 if nothing is found; beside it that of expressions
that mean none, one or many. cIoU is all intersections over all unions, N-acc the share of expressions that mean
nothing of which nothing is found, T-acc the share of the others of which something is, Pr@X the share of the others
with an IoU of at least X; masks at the pictures' own sizes.""",
}

CARD = """\
---
{metadata}
---

# {name}

[ReMamber](https://arxiv.org/abs/2403.17839) for referring image segmentation: a picture and an expression such as "the
right dog" go in, the mask of that object comes out. Trained by `remamber train` of the package remamber_hf; it loads
without that package, since the model's code is in this folder.

## How to load it

```python
import torch
from PIL import Image
from transformers import AutoModelForImageSegmentation, AutoProcessor

name = "{repo_id}"
model = AutoModelForImageSegmentation.from_pretrained({place}, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained({place}, trust_remote_code=True)

picture = Image.open("picture.jpg").convert("RGB")
inputs = processor(images=picture, text=["the right dog"], return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs, return_dict=True)
size = (picture.height, picture.width)
(mask,) = processor.post_process_referring_segmentation(outputs, target_sizes=[size])  # bool (height, width)
```

## What it is for

Cutting out the one object of a picture that an expression means, in pictures and language like those of its data.

- {absence}{parameters}
- It reads {text_length} tokens of an expression; what is longer is cut off.
- Pictures are resized to {size} (height × width) pixels, so proportions change and small objects lose detail.
- It has what its data has of bias: in what is pictured, who is pictured, and how people speak of them. It is not made
  for decisions about people.

## Data

{data}

## Metrics

{metrics}

## Recipe

{start} The arguments of `remamber train` that differ from their defaults:

```yaml
{recipe}```

## Environment

{environment}

## Licence

{licence} The code files in this folder are Apache-2.0.
"""


@dataclass(frozen=True)
class TrainingRun:
    """
    What a card tells about a run.

    sources: the data; num_rows: objects trained on; num_removed: rows that a mixture left out, by source.
    given: the arguments that differ from their defaults. metrics: what `Trainer.evaluate` returned, or nothing.
    runtime: seconds, since the run was resumed if it was. num_parameters: of the model.
    """

    sources: list[DataSource]
    num_rows: int
    num_removed: dict[str, int]
    train_split: str
    eval_split: str
    given: dict
    license: str | None
    metrics: dict[str, float]
    runtime: float
    is_resumed: bool
    steps: int
    epochs: float
    num_parameters: int | None = None


def write_model_card(
    config: ReMamberConfig, processor: ReMamberProcessor, run: TrainingRun, args: ReMamberTrainingArguments
):
    """Write README.md into the output folder, and into that of the averaged weights if there is one."""
    folder = Path(args.output_dir)
    write_text(folder / "README.md", make_card(config, processor, run, args))
    if (folder / AVERAGED_MODEL).is_dir() and args.ema_decay is not None:
        card = make_card(config, processor, run, args, is_average=True)
        write_text(folder / AVERAGED_MODEL / "README.md", card)


def write_text(path: Path, text: str):
    with make_whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def make_card(config, processor, run: TrainingRun, args: ReMamberTrainingArguments, is_average: bool = False) -> str:
    """The text of a card, of the trained weights or of the averaged ones."""
    name = folder_name(args.hub_model_id or args.output_dir)
    repo_id = args.hub_model_id or "FOLDER"
    start = describe_start(run)
    if is_average:
        name = f"{name}, averaged weights"
        start += f" These weights are the moving average of the trained ones, with decay {args.ema_decay}."
    size = processor.image_processor.size
    return CARD.format(
        metadata=make_metadata(name, config, run, "ema_" if is_average else "").to_yaml(),
        name=name,
        repo_id=repo_id,
        place=f'name, subfolder="{AVERAGED_MODEL}"' if is_average else "name",
        text_length=config.text_length,
        size=f"{size['height']}×{size['width']}",
        absence=SAYS_NOTHING if config.predicts_presence else SAYS_NO_NOTHING,
        parameters="" if run.num_parameters is None else f"\n- It has {run.num_parameters:,} parameters.",
        data=describe_data(run),
        start=start,
        metrics=describe_metrics(run),
        recipe=yaml.safe_dump(make_recipe(run), sort_keys=False, allow_unicode=True, width=100),
        environment=describe_machine(run, args, processor),
        licence=f"Weights: {run.license}." if run.license else "No licence was given for the weights.",
    )


def make_recipe(run: TrainingRun) -> dict:
    """What `remamber train` would have to be given again, the folder of the data apart."""
    recipe = {key: _public(key, value) for key, value in run.given.items() if key in TOLD}
    found = [source for source in run.sources if source.split_by]
    if found and "dataset" not in recipe:  # it was found in the folder
        recipe["dataset"] = ",".join(source.name for source in found)
    if found and "split_by" not in recipe:
        recipe["split_by"] = ",".join(str(source.split_by) for source in found)
    return {key: value for key, value in recipe.items() if value is not None}


def make_metadata(name: str, config: ReMamberConfig, run: TrainingRun, weights: str = "") -> ModelCardData:
    """The head of the card, with the metrics in the form model-index."""
    hub_names = [run.given[key] for key in ("model", "text_model", "vision_model") if _is_hub_name(run.given.get(key))]
    from_hub = "data_dir" not in run.given and _is_hub_name(run.given.get("dataset"))
    results = [
        EvalResult(
            task_type="image-segmentation",
            task_name="Referring image segmentation",
            dataset_type=source.name,
            dataset_name=str(source),
            dataset_split=run.eval_split,
            metric_type=metric,
            metric_name=ALL_METRICS[metric],
            metric_value=_whole(round(value, 4)),
        )
        for source, metrics in source_metrics(run, weights)
        for metric, value in metrics.items()
    ]
    return ModelCardData(
        license=run.license or "other",
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=["referring-image-segmentation", "remamber", "mamba", f"mask-head-{config.mask_head}"],
        base_model=hub_names or None,
        datasets=[run.given["dataset"]] if from_hub else None,
        model_name=name,
        eval_results=results or None,
    )


def source_metrics(run: TrainingRun, weights: str = "") -> list[tuple[DataSource, dict[str, float]]]:
    """The papers' metrics of each source that was evaluated, with `weights` "ema_" those of the averaged weights."""
    found = []
    for source in run.sources:
        prefix = f"eval_{'' if len(run.sources) == 1 else f'{source.name}_'}{weights}"
        metrics = {key: run.metrics[prefix + key] for key in ALL_METRICS if prefix + key in run.metrics}
        if metrics:
            found.append((source, metrics))
    return found


def describe_data(run: TrainingRun) -> str:
    """The sources, what was trained on, and what was left out."""
    sources = ", ".join(str(source) for source in run.sources)
    lines = [f"{run.num_rows} objects of the split {run.train_split} of {sources}."]
    if sum(run.num_removed.values()):
        removed = ", ".join(f"{count} of {name}" for name, count in run.num_removed.items())
        lines.append(f"Left out, because their pictures are in another split of one of these: {removed}.")
    return "\n".join(lines)


def describe_start(run: TrainingRun) -> str:
    """What training began with."""
    names = {key: _public(key, run.given[key]) for key in NAMES if key in run.given}
    if "model" in names:
        start = f"Trained on from `{names['model']}`"
        start += ", with a new tokenizer trained on the sentences." if run.given.get("new_tokenizer") else "."
    elif "text_model" in names:
        start = f"Started from the text encoder of `{names['text_model']}` and the backbone `{names['vision_model']}`."
    else:
        tokenizer = (
            f"the tokenizer of `{names['tokenizer']}`"
            if "tokenizer" in names
            else "a tokenizer trained on the sentences"
        )
        start = f"Started from nothing, with {tokenizer}."
    return start + (" Low-rank adapters were trained and merged." if "lora" in run.given else "")


def describe_metrics(run: TrainingRun) -> str:
    """A table for each kind of data set, with a line for each source, and for the averaged weights on it."""
    rows = [(str(source), metrics) for source, metrics in source_metrics(run)]
    rows += [(f"{source}, averaged weights (`ema/`)", metrics) for source, metrics in source_metrics(run, "ema_")]
    parts = []
    for first, known in (("miou", METRICS), ("giou", GENERALIZED)):
        found = [(name, metrics) for name, metrics in rows if first in metrics]
        titles = {key: title for key, title in known.items() if any(key in metrics for _, metrics in found)}
        lines = [
            "| data set | split | " + " | ".join(titles.values()) + " |",
            "|---" * (2 + len(titles)) + "|",
        ]
        for name, metrics in found:
            values = " | ".join(f"{metrics[key]:.4f}" if key in metrics else "–" for key in titles)
            lines.append(f"| {name} | {run.eval_split} | {values} |")
        parts += ["\n".join(lines), LEGENDS[first]] if found else []
    if not parts:
        return "Not evaluated in this run."
    limit = run.given.get("max_eval_samples")
    if limit is not None:
        parts.append(f"On the first {limit} expressions of the split at most.")
    return "\n\n".join(parts)


def describe_machine(run: TrainingRun, args: ReMamberTrainingArguments, processor: ReMamberProcessor) -> str:
    """What the run took, where, and with which versions."""
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    processes = "1 process" if args.world_size == 1 else f"{args.world_size} processes"
    environment = describe_environment()
    precision = args.mixed_precision.replace("no", "float32")
    found = {name: environment["versions"][name] or "not installed" for name in VERSIONS}
    versions = ", ".join(f"{name} {number}" for name, number in found.items())
    time = f"{describe_time(run.runtime)}{' since it was resumed' if run.is_resumed else ''}"
    device = environment["devices"].get(args.device.type) or describe_device(args.device)
    epochs = _whole(round(run.epochs, 1))
    return (
        f"- {run.steps} steps of {batch} objects ({epochs} epoch{'' if epochs == 1 else 's'}), seed {args.seed}, "
        f"{precision}\n"
        f"- {time} with {processes} on {device}, {date.today()}\n"
        f"- pictures prepared by {image_backend(processor)}\n"
        f"- {versions}"
    )


def describe_time(seconds: float) -> str:
    for length, name in ((3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * length:
            return f"{_whole(round(seconds / length, 1))} {name}s"
    count = max(1, round(seconds))
    return f"{count} second{'' if count == 1 else 's'}"


def describe_device(device: torch.device) -> str:
    """The name that a device gives itself, or its type: there are more kinds than anybody has here."""
    try:
        return str(getattr(torch, device.type).get_device_name())
    except (AttributeError, RuntimeError, AssertionError, NotImplementedError):
        return device.type


def _whole(value):
    """A number without the point where nothing stands behind it, in lists and mappings too."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_hub_name(name: str | None) -> bool:
    is_free = name is not None and name != BUNDLED and not os.path.exists(name)
    return is_free and HUB_NAME.fullmatch(str(name)) is not None


def _public(key: str, value):
    """A value as it may be told: of a local folder its name, and no text that could be a path or a secret."""
    if key in NAMES and isinstance(value, str):
        return ",".join(name if _is_hub_name(name) else folder_name(name) for name in value.split(","))
    return _whole(_plain(value))


def folder_name(path: str) -> str:
    """The last part of a path, also where it is written as "." or ".."."""
    return Path(os.path.abspath(path)).name


def _plain(value):
    """Numbers and plain words of a value; what else there is in lists and mappings is left out."""
    if isinstance(value, dict):
        plain = {key: _plain(item) for key, item in value.items() if _plain(key) is not None}
        return {key: item for key, item in plain.items() if item is not None or value[key] is None}
    if isinstance(value, (list, tuple)):
        return [item for item in map(_plain, value) if item is not None]
    if isinstance(value, str):
        value = str(getattr(value, "value", value))  # an enumeration of transformers
        return value if PLAIN_TEXT.fullmatch(value) else None
    return value if isinstance(value, (bool, int, float)) else None


def push_folder(args: ReMamberTrainingArguments) -> str:
    """
    Send card, code files, processor, weights and curves of the output folder to the Hub, and return the address.

    Raises:
        ValueError: if that fails; the folder stays as it is.
    """
    folder = Path(args.output_dir)
    # An earlier run into this folder may have left averaged weights and metrics.
    averaged = () if args.ema_decay is None else (f"{AVERAGED_MODEL}/{pattern}" for pattern in PUSHED)
    kept = KEPT if args.do_eval else (*KEPT, "eval_results.json")
    names = [
        path.relative_to(folder).as_posix()
        for pattern in (*PUSHED, *averaged)
        for path in sorted(folder.glob(pattern))
        if path.name not in kept
    ]
    api = HfApi(token=args.hub_token)
    try:
        repo_id = str(args.hub_model_id)  # `remamber train` pushes to none without a name
        url = api.create_repo(repo_id, private=args.hub_private_repo, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=names,
            revision=args.hub_revision,
            commit_message="Trained with remamber_hf",
        )
    except (OSError, ValueError, HTTP_ERROR) as error:
        raise ValueError(
            f"the model is whole in {folder}, but the push to {args.hub_model_id} failed: "
            f"{str(error).splitlines()[0]}; `hf auth login` logs in, and `{upload_command(args, names)}` sends it "
            "without training again."
        ) from None
    return str(url)


def upload_command(args: ReMamberTrainingArguments, names: list[str]) -> str:
    """The command line that sends these files of the output folder as `push_folder` does."""
    words = ["hf", "upload", str(args.hub_model_id), args.output_dir]
    words += ["--private"] if args.hub_private_repo else []
    words += ["--revision", args.hub_revision] if args.hub_revision else []
    return shlex.join([*words, *(word for name in names for word in ("--include", name))])
