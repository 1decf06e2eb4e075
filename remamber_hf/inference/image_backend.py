# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What prepares pictures: PIL or torchvision, whose grey levels differ by 1."""

from ..image_processing_remamber import ReMamberImageProcessorPil
from ..processing_remamber import ReMamberProcessor


def image_backend(processor: ReMamberProcessor) -> str:
    """Name of the library that resizes the pictures of a processor."""
    return "PIL" if isinstance(processor.image_processor, ReMamberImageProcessorPil) else "torchvision"


def with_pil(processor: ReMamberProcessor) -> ReMamberProcessor:
    """The processor, or one like it that prepares pictures with PIL."""
    if image_backend(processor) == "PIL":
        return processor
    image_processor = ReMamberImageProcessorPil.from_dict(processor.image_processor.to_dict())
    return ReMamberProcessor(image_processor, processor.tokenizer, text_length=processor.text_length)
