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
"""Command: the masks of the objects that expressions mean in a picture."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import logging

from .image_processing_remamber import open_picture
from .modeling_remamber import ReMamberForImageSegmentation
from .processing_remamber import ReMamberProcessor
from .visualization import draw_overlay


BUNDLED_MODEL = Path(__file__).parent / "checkpoints" / "shapes"
BUNDLED_PICTURES = Path(__file__).parent / "examples"
OVERLAY_FORMATS = (".png", ".jpg", ".jpeg", ".webp")
MASK_FORMATS = (".png", ".bmp", ".tif", ".tiff")  # without loss, so that a mask stays black and white
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class SegmentedObject:
    """
    What an expression means in a picture.

    mask: bool (height, width) at the picture's size.
    probability: mean over the mask, in [0, 1]; nan where it is empty.
    """

    expression: str
    mask: np.ndarray
    probability: float

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.mask.sum())

    def describe(self) -> str:
        """Area, share of the picture and mean probability, in words."""
        if not self.area:
            return "nothing found"
        return f"{self.area} px ({self.area / self.mask.size:.1%}), mean probability {self.probability:.2f}"


def segment_picture(
    model: ReMamberForImageSegmentation,
    processor: ReMamberProcessor,
    picture: Image.Image,
    expressions: list[str],
    threshold: float = 0.5,
) -> list[SegmentedObject]:
    """
    Segment the object that each expression means.

    Args:
        model, processor: as loaded by `load_model`.
        picture: RGB.
        expressions: one or several, none empty.
        threshold: a pixel belongs to the object if its probability is above it.

    Raises:
        ValueError: if an expression is empty or the threshold is outside [0, 1].
    """
    inputs = processor(images=picture, text=expressions, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        outputs = model(**inputs)
    masks, probabilities = processor.post_process_referring_segmentation(
        outputs,
        target_sizes=[(picture.height, picture.width)] * len(expressions),
        threshold=threshold,
        return_probabilities=True,
    )
    return [
        SegmentedObject(expression, mask.cpu().numpy(), probability[mask].mean().item())
        for expression, mask, probability in zip(expressions, masks, probabilities)
    ]


def load_model(name: str | Path, device: str = "auto") -> tuple[ReMamberForImageSegmentation, ReMamberProcessor]:
    """
    Load a model for inference and its processor.

    Args:
        name: folder, or name on the Hub.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "mps".

    Raises:
        ValueError: if it is no ReMamber model, lacks weights or a tokenizer, or the device is not there.
    """
    target = find_device(device)
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} is no model that can be loaded: {error}") from None
    if config.model_type != "remamber":
        raise ValueError(f"{name} is a model of type {config.model_type!r}; give one of type 'remamber'.")
    try:
        model, report = ReMamberForImageSegmentation.from_pretrained(name, output_loading_info=True)
        processor = ReMamberProcessor.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from None
    if report["missing_keys"]:
        raise ValueError(f"{name} lacks the weights of {sorted(report['missing_keys'])[0]}; it is no whole model.")
    return model.to(target).eval(), processor


def find_device(device: str) -> torch.device:
    """The torch device for one of `DEVICES`; ValueError if it is unknown or not on this machine."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    if device not in available:
        raise ValueError(f"the device {device!r} is unknown; use one of {', '.join(DEVICES)}.")
    if not available[device]:
        raise ValueError(f"the device {device!r} is not available on this machine; use --device auto.")
    return torch.device(device)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all, in the format that the name's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        picture.save(unfinished)
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, path)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def check_target(path: Path, taken: list[Path], formats: tuple[str, ...]) -> None:
    """ValueError if `path` ends in none of `formats`, is a folder, or is one of the files in `taken`."""
    if path.suffix.lower() not in formats:
        raise ValueError(f"{path} names no format that fits; end it in {', '.join(formats)}.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it.")
    if path.resolve() in [other.resolve() for other in taken]:
        raise ValueError(f"{path} is the picture itself or is to be written twice; name another file.")


def mask_paths(mask: Path, count: int) -> list[Path]:
    """The path itself for one mask, numbered from 1 for several."""
    if count == 1:
        return [mask]
    return [mask.with_name(f"{mask.stem}_{number}{mask.suffix}") for number in range(1, count + 1)]


def segment(
    picture: Annotated[Path, typer.Argument(help="A picture: JPEG, PNG or another format that Pillow reads.")],
    expressions: Annotated[list[str], typer.Argument(help='What to segment, such as "the right dog".')],
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub name of a ReMamber model.", show_default="the bundled one")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Overlay to write.", show_default="NAME_overlay.png in this folder")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Write the bare mask too, white on black; NAME_1, NAME_2 … if there are several."),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Probability above which a pixel belongs to the object.")] = 0.5,
    device: Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")] = "auto",
):
    """
    Segment what expressions mean in a picture.

    Writes an overlay with a colour for each expression, and prints area and mean probability for each. A picture
    narrower than 480 pixels is enlarged in the overlay; masks keep its size. Files of the same name are replaced.

    Example: remamber segment street.jpg "the left car" "woman in red" --mask mask.png
    """
    output = Path(f"{picture.stem}_overlay.png") if output is None else output
    for index, expression in enumerate(expressions):
        if not expression.strip():
            raise ValueError(f"expression {index + 1} is empty; say which object is meant, as in 'the right dog'.")
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold is {threshold}; it must be in [0, 1].")
    masks = [] if mask is None else mask_paths(mask, len(expressions))
    check_target(output, [picture], OVERLAY_FORMATS)
    for path in masks:
        check_target(path, [picture, output], MASK_FORMATS)
    image = open_picture(picture)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    loaded_model, processor = load_model(BUNDLED_MODEL if model is None else model, device)

    for expression in expressions:
        if len(processor.tokenizer(expression)["input_ids"]) > processor.text_length:
            limit = f"the model reads {processor.text_length} tokens, the rest is cut off"
            typer.echo(f"remamber: note: {limit}: {expression}", err=True)

    objects = segment_picture(loaded_model, processor, image, expressions, threshold)
    labels = [(found.expression, f": {found.describe()}") for found in objects]
    save_picture(draw_overlay(image, [found.mask for found in objects], labels), output)
    for path, found in zip(masks, objects):
        save_picture(Image.fromarray(found.mask), path)
    for label in labels:
        typer.echo("".join(label))
    typer.echo("written: " + ", ".join(str(path) for path in [output, *masks]))
