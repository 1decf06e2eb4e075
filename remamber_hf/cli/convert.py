# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber convert`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..convert_checkpoint import CLIP_TOKENIZER, convert_checkpoint
from ..inference.cost import count_parameters
from .options import read_size


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Published .pth file.")],
    output_dir: Annotated[Path, typer.Argument(help="Folder to make.")],
    tokenizer: Annotated[
        str | None, typer.Option(help="Name or folder of the CLIP tokenizer.", show_default=CLIP_TOKENIZER)
    ] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Convert the averaged weights (model_ema).")] = False,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image_size", help="Of a Vim: the pictures it was trained on, in pixels, as SIDE or HEIGHTxWIDTH."
        ),
    ] = None,
    class_token: Annotated[
        str | None,
        typer.Option(
            "--class_token", help="Of a Vim: middle or first, where its class token stands.", show_default="middle"
        ),
    ] = None,
):
    """
    Convert a published checkpoint (ReMamber_Conv, ReMamber_Mamba, VMamba, Vim) to a Hugging Face folder.

    The kind is recognised from the tensors; nothing in the file is executed.
    """
    places: dict[str, Any] = {
        "image_size": None if image_size is None else read_size(image_size),
        "class_token": class_token,
    }
    model = convert_checkpoint(checkpoint, output_dir, tokenizer, use_ema=ema, **places)
    head = getattr(model.config, "mask_head", None)
    size = count_parameters([model])[0] / 1e6
    typer.echo(f"{type(model).__name__}{f' ({head} head)' if head else ''}, {size:.1f} M parameters → {output_dir}")
    if head and not (output_dir / "tokenizer.json").is_file():
        typer.echo("No tokenizer is in the folder, so AutoProcessor cannot load it: give one with --tokenizer.")
