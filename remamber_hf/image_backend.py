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
"""What prepares pictures: PIL or torchvision, whose grey levels differ by 1."""

from .image_processing_remamber import ReMamberImageProcessorPil
from .processing_remamber import ReMamberProcessor


def image_backend(processor: ReMamberProcessor) -> str:
    """Name of the library that resizes the pictures of a processor."""
    return "PIL" if isinstance(processor.image_processor, ReMamberImageProcessorPil) else "torchvision"


def with_pil(processor: ReMamberProcessor) -> ReMamberProcessor:
    """The processor, or one like it that prepares pictures with PIL."""
    if image_backend(processor) == "PIL":
        return processor
    image_processor = ReMamberImageProcessorPil.from_dict(processor.image_processor.to_dict())
    return ReMamberProcessor(image_processor, processor.tokenizer, text_length=processor.text_length)
