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
"""`pipeline("referring-image-segmentation")`: a picture and expressions in, a mask for each expression out."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from http.client import HTTPException
from io import BytesIO
from types import SimpleNamespace
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers.pipelines import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .image_processing_remamber import open_picture


TASK = "referring-image-segmentation"
# What config.json says about the pipeline, in a folder that has this file beside the weights.
CUSTOM_PIPELINES = {
    TASK: {"impl": "pipeline_remamber.ReferringSegmentationPipeline", "pt": ["AutoModelForImageSegmentation"]}
}
WEB = ("http://", "https://")
DOWNLOAD_TIMEOUT = 20  # seconds without an answer


class ReferringSegmentationPipeline(Pipeline):
    """Segments the objects that expressions mean: open picture → processor → model → masks at the picture's size.

    Several expressions on one picture cost less than as many calls: what does not depend on the text runs once.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.model.config.model_type != "remamber":
            raise ValueError(f"the model is of type {self.model.config.model_type!r}; give one of type 'remamber'.")
        if self.processor is None:
            raise ValueError("the processor is missing; give processor=ReMamberProcessor.from_pretrained(…).")
        self.model.eval()

    def __call__(self, image, expression: str | list[str] | None = None, **options):
        """Segments what one or several expressions mean, in one picture or in many.

        Args:
            image: a path, a URL, a PIL image, an array (height, width, 3) of uint8 or a binary file object; or
                {"image": …, "expression": …}; or a list, a generator or another iterable of such dicts.
            expression: one expression or a list of them; not where `image` has them.
            threshold: a pixel is object if its probability is above it; in [0, 1], by default 0.5.
            return_box: also return the box.
            return_probabilities: also return the probability map.
            batch_size: pictures that go through the model together, each with all its expressions; by default 1.

        Returns:
            for one expression a dict, for a list of expressions a list of dicts, in their order:

            mask: PIL image of mode "L" and the picture's size, 255 where the object is and 0 elsewhere.
            score: mean probability inside the mask, in [0, 1]; 0.0 if the mask is empty.
            expression: as it came.
            box: {"xmin", "ymin", "xmax", "ymax"}, int, the smallest that holds the mask, its far edges not included as
                in `PIL.Image.crop`; None if the mask is empty. Only if asked for.
            probabilities: float32 array (height, width) in [0, 1]. Only if asked for.

            A list of dicts gives a list of these, any other iterable a generator, which reads as it goes.

        Raises:
            ValueError: a picture that cannot be read, an expression that is empty or missing, or an option outside
                what is described here.
            FileNotFoundError: nothing is at the path.
        """
        is_picture = isinstance(image, (str, os.PathLike, Image.Image, np.ndarray)) or hasattr(image, "read")
        if is_picture:
            if expression is None:
                raise ValueError("expression is missing; say which object is meant, as in 'the right dog'.")
            return super().__call__([{"image": image, "expression": expression}], **options)[0]
        if expression is not None:
            raise ValueError(
                f"image is a {type(image).__name__} and an expression came beside it; give one picture and its "
                'expressions, or a list of {"image": …, "expression": …} alone.'
            )
        if isinstance(image, Mapping):
            return super().__call__([image], **options)[0]
        if isinstance(image, (list, tuple)):
            return super().__call__(list(image), **options) if image else []
        if not isinstance(image, Iterable) or isinstance(image, torch.Tensor):
            raise ValueError(f"image is a {type(image).__name__}; give a path, URL, PIL image or uint8 array.")
        return super().__call__((item for item in image), **options)

    def _sanitize_parameters(self, **options):
        unknown = sorted(set(options) - {"threshold", "return_box", "return_probabilities"})
        if unknown:
            raise ValueError(f"the option {unknown[0]} is unknown; see the pipeline's __call__.")
        threshold = options.get("threshold", 0.5)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}; give a probability in [0, 1].")
        return {}, {}, options

    def preprocess(self, item: Mapping) -> dict:
        """A picture and its expressions as the model's inputs, with what `postprocess` has to know."""
        if not isinstance(item, Mapping) or not {"image", "expression"} <= set(item):
            came = f"the keys {sorted(item)}" if isinstance(item, Mapping) else f"a {type(item).__name__}"
            raise ValueError(f'{came} came; give {{"image": …, "expression": …}} for each picture.')
        picture = read_picture(item["image"])
        expression = item["expression"]
        is_list = isinstance(expression, (list, tuple))
        expressions = list(expression) if is_list else [expression]
        inputs = self.processor(images=picture, text=expressions, return_tensors="pt")
        return {
            "pixel_values": inputs["pixel_values"],
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "size": (picture.height, picture.width),
            "expressions": expressions,
            "is_list": is_list,
        }

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator:
        """As in transformers, but a batch stays a list: its pictures may have different numbers of expressions."""
        if isinstance(inputs, Sized):
            dataset = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            dataset = PipelineIterator(inputs, self.preprocess, preprocess_params)
            num_workers = min(num_workers, 1)  # each would read the whole iterable
        for batch in DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=list):
            for outputs in self.forward(batch, **forward_params):
                yield self.postprocess(outputs, **postprocess_params)

    def _forward(self, batch: list[dict]) -> list[dict]:
        counts = [len(item["expressions"]) for item in batch]
        image_index = [image for image, count in enumerate(counts) for _ in range(count)]
        logits = self.model(
            pixel_values=torch.cat([item["pixel_values"] for item in batch]),
            input_ids=torch.cat([item["input_ids"] for item in batch]),
            attention_mask=torch.cat([item["attention_mask"] for item in batch]),
            image_index=torch.tensor(image_index, device=self.device),
        ).logits
        return [{**item, "logits": part} for item, part in zip(batch, logits.split(counts))]

    def postprocess(
        self,
        outputs: dict,
        threshold: float = 0.5,
        return_box: bool = False,
        return_probabilities: bool = False,
    ) -> dict | list[dict]:
        masks, probabilities = self.processor.post_process_referring_segmentation(
            SimpleNamespace(logits=outputs["logits"]),
            target_sizes=[outputs["size"]] * len(outputs["expressions"]),
            threshold=threshold,
            return_probabilities=True,
        )
        results = []
        for expression, mask, probability in zip(outputs["expressions"], masks, probabilities):
            picture = Image.fromarray(mask.numpy().astype(np.uint8) * 255)
            score = probability[mask].mean().item() if mask.any() else 0.0
            result = {"mask": picture, "score": score, "expression": expression}
            if return_box:
                box = picture.getbbox()
                result["box"] = box and dict(zip(("xmin", "ymin", "xmax", "ymax"), box))
            if return_probabilities:
                result["probabilities"] = probability.numpy()
            results.append(result)
        return results if outputs["is_list"] else results[0]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs):
        """Writes model, processor and the code of both and of this pipeline; see `PreTrainedModel.save_pretrained`."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def read_picture(source) -> Image.Image:
    """Opens a picture as `open_picture` does, and also a URL or an array (height, width, 3) of uint8.

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: a picture that cannot be fetched or read, or an array of another kind.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise ValueError(f"an array {source.shape} of {source.dtype} came; give (height, width, 3) of uint8.")
        return Image.fromarray(source)
    if isinstance(source, str) and source.startswith(WEB):
        return open_picture(BytesIO(download(source)))
    return open_picture(source)


def download(url: str) -> bytes:
    """What is at a URL; ValueError if it cannot be fetched."""
    request = Request(url, headers={"User-Agent": "remamber_hf"})  # some servers refuse Python's own name
    try:
        with urlopen(request, timeout=DOWNLOAD_TIMEOUT) as answer:
            return answer.read()
    except (OSError, HTTPException) as error:
        raise ValueError(f"{url} cannot be fetched: {error}") from error


__all__ = ["ReferringSegmentationPipeline"]
