# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The model card of a trained model: data, recipe, metrics as model-index, licence, use, limits, environment."""

import os
import shlex
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HfHubHTTPError
from transformers import TrainingArguments

from ..configuration_remamber import ReMamberConfig
from ..data.mixture import DataSource
from ..environment import describe_environment
from ..metrics.referring_iou.scores import referring_iou
from ..metrics.report import SCORE_TITLES
from ..processing_remamber import ReMamberProcessor
from .nonfinite import REPORT
from .trainer import AVERAGED_MODEL


METRICS = {name: SCORE_TITLES[name] for name in referring_iou([0], [1])}
VERSIONS = ("remamber_hf", "torch", "transformers", "accelerate", "datasets", "python")
# Where the run stood on this machine, and what is no one else's business.
PRIVATE = (
    "cache_dir",
    "data_dir",
    "hub_model_id",
    "hub_private_repo",
    "hub_token",
    "license",
    "output_dir",
    "project",
    "push_to_hub",
    "resume_from_checkpoint",
    "run_name",
)
NAMES = ("dataset", "model", "text_model", "tokenizer", "vision_model")
PUSHED = ("*.safetensors", "*.json", "*.py", "curves.png", "README.md")
KEPT = ("trainer_state.json", "train_results.json", "all_results.json", REPORT)  # of the run, not of the model

# What the HTTP library raises that huggingface_hub is built on; which one that is depends on its version.
HTTP_ERROR = HfHubHTTPError.__bases__[0]

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
model = AutoModelForImageSegmentation.from_pretrained(name, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)

picture = Image.open("picture.jpg").convert("RGB")
inputs = processor(images=picture, text=["the right dog"], return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
size = (picture.height, picture.width)
(mask,) = processor.post_process_referring_segmentation(outputs, target_sizes=[size])  # bool (height, width)
```

## What it is for

Cutting out the one object of a picture that an expression means, in pictures and language like those of its data.

- It may answer with a mask also where nothing in the picture is meant.
- It reads {text_length} tokens of an expression; what is longer is cut off.
- Pictures are resized to {size} (height × width) pixels, so proportions change and small objects lose detail.
- It has what its data has of bias: in what is pictured, who is pictured, and how people speak of them. It is not made
  for decisions about people.

## Data

{data}

## Metrics

{metrics}

mIoU is the mean IoU of the expressions, oIoU all intersections over all unions, P@X the share of expressions with an
IoU of at least X; masks at the pictures' own sizes.

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
    runtime: seconds, since the run was resumed if it was.
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


def write_model_card(config: ReMamberConfig, processor: ReMamberProcessor, run: TrainingRun, args: TrainingArguments):
    """Write README.md into the output folder."""
    name = Path(args.hub_model_id or args.output_dir).name
    recipe = {key: _public(key, value) for key, value in run.given.items() if key not in PRIVATE}
    size = processor.image_processor.size
    card = CARD.format(
        metadata=make_metadata(name, config, run).to_yaml(),
        name=name,
        repo_id=args.hub_model_id or "FOLDER",
        text_length=config.text_length,
        size=f"{size['height']}×{size['width']}",
        data=describe_data(run),
        start=describe_start(run),
        metrics=describe_metrics(run),
        recipe=yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100),
        environment=describe_machine(run, args),
        licence=f"Weights: {run.license}." if run.license else "No licence was given for the weights.",
    )
    (Path(args.output_dir) / "README.md").write_text(card, encoding="utf-8")


def make_metadata(name: str, config: ReMamberConfig, run: TrainingRun) -> ModelCardData:
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
            metric_name=METRICS[metric],
            metric_value=round(value, 4),
        )
        for source, metrics in source_metrics(run)
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
        metrics = {key: run.metrics[prefix + key] for key in METRICS if prefix + key in run.metrics}
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
        start = f"Trained on from `{names['model']}`."
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
    """A table with a line for each source, and for the averaged weights on it."""
    rows = [(str(source), metrics) for source, metrics in source_metrics(run)]
    rows += [(f"{source}, averaged weights (`ema/`)", metrics) for source, metrics in source_metrics(run, "ema_")]
    if not rows:
        return "Not evaluated in this run."
    lines = [
        "| data set | split | " + " | ".join(METRICS.values()) + " |",
        "|---" * (2 + len(METRICS)) + "|",
    ]
    for name, metrics in rows:
        values = " | ".join(f"{metrics[key]:.4f}" for key in METRICS)
        lines.append(f"| {name} | {run.eval_split} | {values} |")
    limit = run.given.get("max_eval_samples")
    if limit is not None:
        lines.append(f"\nOn the first {limit} expressions of the split at most.")
    return "\n".join(lines)


def describe_machine(run: TrainingRun, args: TrainingArguments) -> str:
    """What the run took, where, and with which versions."""
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    processes = "1 process" if args.world_size == 1 else f"{args.world_size} processes"
    environment = describe_environment()
    device = environment["devices"][args.device.type]
    precision = args.mixed_precision.replace("no", "float32")
    found = {name: environment["versions"][name] or "not installed" for name in VERSIONS}
    versions = ", ".join(f"{name} {number}" for name, number in found.items())
    minutes = f"{run.runtime / 60:.1f} minutes{' since it was resumed' if run.is_resumed else ''}"
    return (
        f"- {run.steps} steps of {batch} objects ({run.epochs:.1f} epochs), seed {args.seed}, {precision}\n"
        f"- {minutes} with {processes} on {device}, {date.today()}\n"
        f"- {versions}"
    )


def _is_hub_name(name: str | None) -> bool:
    return name is not None and not os.path.exists(name)


def _public(key: str, value):
    """A local folder without the way to it."""
    return value if key not in NAMES or _is_hub_name(value) else Path(value).name


def push_folder(args: TrainingArguments) -> str:
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
        url = api.create_repo(args.hub_model_id, private=args.hub_private_repo, exist_ok=True)
        api.upload_folder(
            repo_id=args.hub_model_id,
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


def upload_command(args: TrainingArguments, names: list[str]) -> str:
    """The command line that sends these files of the output folder as `push_folder` does."""
    words = ["hf", "upload", args.hub_model_id, args.output_dir]
    words += ["--private"] if args.hub_private_repo else []
    words += ["--revision", args.hub_revision] if args.hub_revision else []
    return shlex.join([*words, *(word for name in names for word in ("--include", name))])
