# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline's code beside saved weights: no model imports it, so transformers alone would not save it with one."""

import shutil
from os import PathLike
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_imports
from transformers.utils import cached_file


TASK = "referring-image-segmentation"
PIPELINE = "pipeline_remamber"
# What config.json says about the pipeline, in a folder that has this file beside the weights.
CUSTOM_PIPELINES = {
    TASK: {"impl": f"{PIPELINE}.ReferringSegmentationPipeline", "pt": ["AutoModelForImageSegmentation"]}
}


def find_pipeline_code(origin: str) -> list[Path]:
    """
    The pipeline's file and all that it imports.

    Args:
        origin: folder or Hub name that the model came from: where AutoModel runs code that came with a model, it has
            fetched what the model imports, and the rest is still there.

    Returns:
        the files; none if one is in neither place.
    """
    files: dict[str, Path] = {}
    waiting = [PIPELINE]
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        path = Path(__file__).with_name(f"{name}.py")
        if not path.is_file():
            found = cached_file(origin, f"{name}.py", _raise_exceptions_for_missing_entries=False) if origin else None
            if found is None:
                return []
            path = Path(found)
        files[name] = path
        waiting += get_relative_imports(path)
    return list(files.values())


def copy_files(files: list[Path], folder: str | PathLike[str]) -> None:
    """Copy files into a folder, but for those that are in it already."""
    for path in files:
        target = Path(folder) / path.name
        if not (target.exists() and target.samefile(path)):
            shutil.copyfile(path, target)
