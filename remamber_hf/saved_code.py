# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline's code goes where a model's code goes, though no model runs it."""

from typing import TYPE_CHECKING


# transformers saves and fetches with a file what that imports, and reads it as text; Python passes over this.
if TYPE_CHECKING:
    from .pipeline_remamber import ReferringSegmentationPipeline  # noqa: F401


TASK = "referring-image-segmentation"
# What config.json says about the pipeline.
CUSTOM_PIPELINES = {
    TASK: {"impl": "pipeline_remamber.ReferringSegmentationPipeline", "pt": ["AutoModelForImageSegmentation"]}
}
