# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a file of weights says about itself, compared with a model before anything is allocated or read."""

import reprlib
import zipfile
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn


LARGEST_STRUCTURE = 64 * 2**20  # bytes of data.pkl, which holds names, shapes and options; published files have 0.2 MB
MOST_MADE = 2**28  # weights that a model may have over the bytes of its files: a fresh head


def check_torch_file(path: str | PathLike[str]) -> None:
    """
    Refuse a file of `torch.save` whose content is larger than the file.

    Raises:
        ValueError: if parts of it are compressed, which `torch.save` never does, or its structure is too large.
    """
    if not zipfile.is_zipfile(path):
        return  # written by torch before 1.6, or no checkpoint at all: its reader says so
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError) as error:
        raise ValueError(f"{Path(path).name} is a broken zip file: {reprlib.repr(str(error))}.") from None
    for entry in entries:
        name = reprlib.repr(entry.filename)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{Path(path).name} holds {name} compressed, which torch.save never does; it is refused.")
        if entry.filename.endswith(".pkl") and entry.file_size > LARGEST_STRUCTURE:
            raise ValueError(
                f"{Path(path).name} holds {name} of {entry.file_size:,} bytes; the structure of a checkpoint has at "
                f"most {LARGEST_STRUCTURE:,}."
            )
    if sum(entry.file_size for entry in entries) > Path(path).stat().st_size:
        raise ValueError(f"{Path(path).name} says that it holds more than its own size; it is broken.")


def check_weight_files(model: nn.Module, files: Iterable[str | PathLike[str]], is_other_shape_taken: bool) -> None:
    """
    Compare a model on the meta device with the headers of its files.

    Args:
        model: as its configuration wants it.
        files: .safetensors are compared; of files of `torch.save` only their own sizes are checked.
        is_other_shape_taken: whether a tensor of another shape is left out, and made anew, instead of refused.

    Raises:
        RuntimeError: if a tensor has another shape.
        ValueError: if one has whole numbers in place of floats, or the model is far larger than its files, so mostly
            random.
    """
    paths = [Path(file) for file in files]
    for path in paths:
        if path.suffix != ".safetensors":
            check_torch_file(path)
    needed = model.state_dict()
    num_values = sum(tensor.numel() for tensor in needed.values())
    if num_values > MOST_MADE + sum(path.stat().st_size for path in paths):
        raise ValueError(
            f"the configuration makes {num_values:,} weights, more than the bytes of its files; one of them "
            "is of another model."
        )
    if is_other_shape_taken:
        return
    is_quantized = getattr(getattr(model, "config", None), "quantization_config", None) is not None
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for path in paths:
        if path.suffix != ".safetensors":
            continue
        try:
            with safe_open(path, "pt") as content:
                slices = {name: content.get_slice(name) for name in content.keys()}
                shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
                dtypes = {name: part.get_dtype() for name, part in slices.items()}
        except SafetensorError as error:
            raise ValueError(f"{path.name} is no readable safetensors file: {reprlib.repr(str(error))}.") from None
        for name, shape in shapes.items():
            known = next((key for key in (name, prefix + name, name.removeprefix(prefix)) if key in needed), None)
            if known is not None and tuple(needed[known].shape) != shape:
                raise RuntimeError(  # as transformers has it
                    f"{known} has shape {shape} in {path.name}, and the configuration needs "
                    f"{tuple(needed[known].shape)}; one of them is of another model."
                )
            is_float = dtypes[name].startswith(("F", "BF"))
            if known is not None and needed[known].is_floating_point() and not (is_float or is_quantized):
                raise ValueError(f"{known} is of {dtypes[name]} in {path.name}, and weights are floating point.")
