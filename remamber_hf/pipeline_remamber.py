# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`pipeline("referring-image-segmentation")`: a picture and expressions in, a mask for each expression out."""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from copy import copy
from typing import Any, NotRequired, TypedDict, overload
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.pipelines import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from .messages import describe
from .pictures import DOWNLOAD_SECONDS, DOWNLOAD_TIMEOUT, is_stored_picture, list_pictures, read_picture
from .post_processing_remamber import check_threshold, find_absent, find_presence
from .processing_remamber import ReMamberProcessor, is_iterable


# Other names under which people know the picture and its expressions.
PICTURE_NAMES = ("image", "images", "inputs")
EXPRESSION_NAMES = ("expression", "expressions", "text", "prompt")
OPTIONS = {
    "threshold": 0.5,
    "presence_threshold": None,
    "return_box": False,
    "return_probabilities": False,
    "timeout": DOWNLOAD_TIMEOUT,
}


class SegmentedObject(TypedDict):
    """What an expression means in a picture, see `ReferringSegmentationPipeline.__call__`."""

    mask: Image.Image
    score: float
    expression: str
    presence: NotRequired[float]
    box: NotRequired[dict[str, int] | None]
    probabilities: NotRequired[np.ndarray]


class ReferringSegmentationPipeline(Pipeline):
    """Segments the objects that expressions mean: open picture → processor → model → masks at the picture's size.

    Several expressions on one picture cost less than as many calls: what does not depend on the text runs once.
    """

    _load_processor = None  # if there is one: it may also come in parts
    _load_image_processor = False  # type: ignore[assignment]  # transformers' own pipelines set them so too
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]
    processor: ReMamberProcessor

    def __init__(
        self,
        *args: Any,
        processor: Any = None,
        image_processor: Any = None,
        tokenizer: Any = None,
        feature_extractor: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, processor=processor, **kwargs)  # type: ignore[misc]  # the model alone has no name
        if feature_extractor is not None:
            raise ValueError("a feature_extractor came; give it as image_processor.")
        if self.model.config.model_type != "remamber":
            raise ValueError(f"the model is of type {self.model.config.model_type!r}; give one of type 'remamber'.")
        self.processor = self._find_processor(image_processor, tokenizer)
        self.model.eval()

    def _find_processor(self, image_processor: Any, tokenizer: Any) -> ReMamberProcessor:
        """The processor that came, or that of the model's folder; with parts that came in place of its own."""
        if isinstance(image_processor, (str, os.PathLike)):
            image_processor = AutoImageProcessor.from_pretrained(image_processor)
        if isinstance(tokenizer, (str, os.PathLike)):
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        processor: Any = self.processor  # what came, if anything
        for name, part in {"image_processor": image_processor, "tokenizer": tokenizer}.items():
            if hasattr(part, "tokenizer"):
                raise ValueError(f"{name} is a {type(part).__name__}; give it as processor.")
        if processor is not None and not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
            raise ValueError(
                f"processor is a {type(processor).__name__}; give a ReMamberProcessor, or this as a part of one by "
                "tokenizer= or image_processor=."
            )
        if processor is None and (image_processor is None or tokenizer is None):
            if not self.model.name_or_path:
                raise ValueError("the processor is missing; give processor=ReMamberProcessor.from_pretrained(…).")
            try:
                processor = ReMamberProcessor.from_pretrained(self.model.name_or_path)
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"{self.model.name_or_path} has no processor that can be loaded: {reason}") from error
        if image_processor is None and tokenizer is None:
            return processor
        if processor is None:
            return ReMamberProcessor(image_processor, tokenizer, text_length=self.model.config.text_length)
        processor = copy(processor)  # the caller's stays as it is
        processor.image_processor = processor.image_processor if image_processor is None else image_processor
        processor.tokenizer = processor.tokenizer if tokenizer is None else tokenizer
        return processor

    @overload  # type: ignore[override]
    def __call__(
        self, image: str | os.PathLike[str] | bytes | Image.Image, expression: str, **options: Any
    ) -> SegmentedObject: ...

    @overload
    def __call__(
        self,
        image: str | os.PathLike[str] | bytes | Image.Image,
        expression: list[str] | tuple[str, ...],
        **options: Any,
    ) -> list[SegmentedObject]: ...

    @overload
    def __call__(self, image: Any = None, expression: Any = None, **options: Any) -> Any: ...

    def __call__(self, image: Any = None, expression: Any = None, **options: Any) -> Any:
        """Segments what one or several expressions mean, in one picture or in many.

        Args:
            image: a picture of any kind that `read_picture` takes: a path, a web address, a data URL, bytes, a PIL
                image, an array or tensor; or {"image": …, "expression": …}; or a list, a data set, a generator or
                another iterable of such. Also `images` or `inputs`.
            expression: one expression or a list of them, or for a list of pictures one list per picture; not where
                `image` has them. Also `text` or `prompt`.
            threshold: a pixel is object if its probability is above it; in [0, 1], by default 0.5.
            presence_threshold: an expression whose presence is below it gets an empty mask; in [0, 1], by default 0.5.
                Only of a model with `predicts_presence`.
            return_box: also return the box.
            return_probabilities: also return the probability map.
            timeout: seconds to wait for a web server's answer, by default 20.
            batch_size: pictures that go through the model together, each with all its expressions; by default 1.

        Returns:
            for one expression a dict, for a list of expressions a list of dicts, in their order:

            mask: PIL image of mode "L" and the picture's size, 255 where the object is and 0 elsewhere.
            score: mean probability inside the mask, in [0, 1]; 0.0 if the mask is empty.
            expression: as it came.
            presence: the probability that it means anything in the picture, in [0, 1]. Only of a model with
                `predicts_presence`.
            box: {"xmin", "ymin", "xmax", "ymax"}, int, the smallest that holds the mask, its far edges not included as
                in `PIL.Image.crop`; None if the mask is empty. Only if asked for.
            probabilities: float32 array (height, width) in [0, 1]. Only if asked for.

            A list of pictures gives a list of these, any other iterable a generator, which reads as it goes.

        Raises:
            ValueError: a picture that cannot be read, an expression that is empty or missing, or an option outside
                what is described here.
            FileNotFoundError: nothing is at the path.
        """
        given = {"image": image, "expression": expression}
        given |= {name: options.pop(name) for name in (*PICTURE_NAMES, *EXPRESSION_NAMES) if name in options}
        image, expression = take(given, PICTURE_NAMES), take(given, EXPRESSION_NAMES)
        if image is None:
            raise ValueError("image is missing; give a picture, as a path, a PIL image or an array.")
        if is_one_picture(image):
            if expression is None and not isinstance(image, Mapping):
                raise ValueError("expression is missing; say which object is meant, as in 'the right dog'.")
            return super().__call__([as_item(image, expression)], **options)[0]
        if isinstance(image, (np.ndarray, torch.Tensor)):
            image = list_pictures(image)
        if hasattr(image, "iterrows"):  # a table of pandas'
            image = image.to_dict("records")
        if isinstance(image, (list, tuple)):
            expressions = expression_of_each(expression, len(image))
            items = [as_item(*pair) for pair in zip(image, expressions)]
            return super().__call__(items, **options) if items else []
        if not isinstance(image, Iterable) and hasattr(image, "__getitem__") and hasattr(image, "__len__"):
            pictures = image  # a data set of PyTorch's
            image = (pictures[index] for index in range(len(pictures)))
        if not isinstance(image, Iterable):
            raise ValueError(f"image is a {type(image).__name__}; give a path, a PIL image, an array or many of them.")
        expression_of_each(expression, 0)  # one for all: nobody knows how many there will be
        return super().__call__((as_item(item, expression) for item in image), **options)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise ValueError(f"the option {unknown[0]} is unknown; see the pipeline's __call__.")
        options = {name: OPTIONS[name] if value is None else value for name, value in options.items()}
        for name in ("threshold", "presence_threshold"):
            if options.get(name) is not None:
                check_threshold(options[name], name)
        if options.get("presence_threshold") is not None and not self.model.config.predicts_presence:
            raise ValueError(
                f"presence_threshold is {options['presence_threshold']}, and the model does not say whether an "
                "expression means anything; give one with predicts_presence, or leave it out."
            )
        timeout = options.pop("timeout", None)
        if timeout is not None and not (isinstance(timeout, (int, float)) and 0 < timeout <= DOWNLOAD_SECONDS):
            raise ValueError(
                f"timeout is {describe(timeout)}; give seconds, more than 0 and up to {DOWNLOAD_SECONDS:.0f}."
            )
        return {} if timeout is None else {"timeout": timeout}, {}, options

    # transformers' annotations are of what most pipelines pass on; what is passed on here, this class alone decides.
    def preprocess(  # type: ignore[override]
        self, item: Mapping[str, Any], timeout: float = DOWNLOAD_TIMEOUT
    ) -> dict[str, Any]:
        """A picture and its expressions as the model's inputs, with what `postprocess` has to know."""
        picture = read_picture(item["image"], timeout)
        is_list = is_iterable(item["expression"])
        expressions = list(item["expression"]) if is_list else [item["expression"]]
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
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """As in transformers, but a batch stays a list: its pictures may have different numbers of expressions."""
        dataset: Dataset[Any]
        if isinstance(inputs, Sized):
            dataset = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            dataset = PipelineIterator(inputs, self.preprocess, preprocess_params)
            num_workers = min(num_workers, 1)  # each would read the whole iterable
        for batch in DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=list):
            for outputs in self.forward(batch, **forward_params):
                yield self.postprocess(outputs, **postprocess_params)

    def _forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:  # type: ignore[override]
        counts = [len(item["expressions"]) for item in batch]
        sizes = sorted({tuple(item["pixel_values"].shape[-2:]) for item in batch})
        if len(sizes) > 1:
            raise ValueError(
                f"the image processor makes pictures of several sizes, {sizes[0]} and {sizes[1]} for two; give "
                "batch_size=1, or resize or pad all pictures to one size."
            )
        image_index = None
        if any(count != 1 for count in counts):
            image_index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(self.device)
        with in_eval_mode(self.model):  # a Trainer leaves it in training
            outputs = self.model(
                pixel_values=torch.cat([item["pixel_values"] for item in batch]),
                input_ids=torch.cat([item["input_ids"] for item in batch]),
                attention_mask=torch.cat([item["attention_mask"] for item in batch]),
                image_index=image_index,
                return_dict=True,
            )
        parts = [outputs.logits.split(counts)]
        names = ["logits"]
        presence_logits = getattr(outputs, "presence_logits", None)  # a user's own forward may know none
        if presence_logits is not None:
            parts.append(presence_logits.split(counts))
            names.append("presence_logits")
        return [{**item, **dict(zip(names, values))} for item, *values in zip(batch, *parts)]

    def postprocess(  # type: ignore[override]
        self,
        outputs: dict[str, Any],
        threshold: float = 0.5,
        presence_threshold: float | None = None,
        return_box: bool = False,
        return_probabilities: bool = False,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        # One after the other: at the size of a photograph the probabilities of one take hundreds of MiB.
        presence = find_presence(outputs)
        is_absent = find_absent(outputs, presence_threshold)
        results = [
            self._describe(logits, expression, outputs["size"], least, return_box, return_probabilities)
            for expression, logits, least in zip(
                outputs["expressions"],
                outputs["logits"].split(1),
                [math.inf if absent else threshold for absent in is_absent],
            )
        ]
        for result, probability in zip(results, [] if presence is None else presence.tolist()):
            result["presence"] = probability
        return results if outputs["is_list"] else results[0]

    def _describe(
        self,
        logits: torch.Tensor,
        expression: str,
        size: tuple[int, int],
        threshold: float,
        return_box: bool,
        return_probabilities: bool,
    ) -> dict[str, Any]:
        """What is returned for one expression."""
        pixels = np.empty(size, dtype=np.uint8)  # first: what is freed below then leaves no holes between what is kept
        (probabilities,) = self.processor.post_process_probabilities(logits, target_sizes=[size])
        mask, probability = (probabilities > threshold).numpy(), probabilities.numpy()
        picture = Image.fromarray(np.multiply(mask.view(np.uint8), np.uint8(255), out=pixels))
        inside = torch.from_numpy(probability[mask])  # torch's own indexing takes 16 bytes for each pixel of the mask
        result: dict[str, Any] = {
            "mask": picture,
            "score": inside.mean().item() if len(inside) else 0.0,
            "expression": expression,
        }
        if return_box:
            box = picture.getbbox()
            result["box"] = box and dict(zip(("xmin", "ymin", "xmax", "ymax"), box))
        if return_probabilities:
            result["probabilities"] = probability
        return result

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes model, processor and the code of both and of this pipeline; see `PreTrainedModel.save_pretrained`."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


# For each model that pipelines are running just now: how many, and whether it was in training before the first.
_running: WeakKeyDictionary[torch.nn.Module, tuple[int, bool]] = WeakKeyDictionary()
_running_lock = threading.Lock()


@contextmanager
def in_eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """The model in eval mode, until the last of all threads that asked for it is done."""
    with _running_lock:
        count, was_training = _running.get(model, (0, model.training))
        if count == 0:
            model.eval()
        _running[model] = (count + 1, was_training)
    try:
        yield
    finally:
        with _running_lock:
            count, _ = _running.pop(model)
            if count > 1:
                _running[model] = (count - 1, was_training)
            else:
                model.train(was_training)


def take(given: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """What came under one of the names, or None; ValueError if it came under two."""
    came = [name for name in names if given.get(name) is not None]
    if len(came) > 1:
        raise ValueError(f"{came[0]} and {came[1]} came, which mean the same; give one of them.")
    return given[came[0]] if came else None


def is_one_picture(image: Any) -> bool:
    """Whether `image` is a picture, or a dict of a picture and its expressions, not several."""
    if isinstance(image, (np.ndarray, torch.Tensor)):
        return image.ndim < 4 and image.dtype != object
    kinds = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, Mapping)
    return isinstance(image, kinds) or hasattr(image, "read")


def as_item(image: Any, expression: Any) -> dict[str, Any]:
    """{"image": …, "expression": …} of a picture, or of a dict that has the picture and perhaps the expressions."""
    if isinstance(image, Mapping) and not is_stored_picture(image):
        own = take(image, EXPRESSION_NAMES)
        if own is not None and expression is not None:
            raise ValueError("an expression came beside a picture that has its own; give one of them.")
        names = sorted(map(str, image))
        image, expression = take(image, PICTURE_NAMES), expression if own is None else own
        if image is None or expression is None:
            raise ValueError(
                f'the keys {describe(names)} came; give {{"image": …, "expression": …}} for each picture.'
            )
    elif expression is None:
        came = type(image).__name__
        raise ValueError(f'a {came} came; give {{"image": …, "expression": …}} for each picture, or an expression.')
    return {"image": image, "expression": expression}


def expression_of_each(expression: Any, num_pictures: int) -> list[Any]:
    """The expressions of each of several pictures: the same one for all, or a list of one list per picture."""
    if expression is None or not is_iterable(expression):
        return [expression] * num_pictures
    expression = list(expression)
    if len(expression) != num_pictures or not all(map(is_iterable, expression)):
        raise ValueError(
            f"{len(expression)} expressions came with several pictures; give one expression for all of them, a list "
            'of one list per picture, or {"image": …, "expression": …} for each.'
        )
    return expression


__all__ = ["ReferringSegmentationPipeline"]
