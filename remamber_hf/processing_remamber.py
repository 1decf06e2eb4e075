# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""ReMamber's processor: pictures and expressions → model inputs; logits → full-size masks."""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import copy
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, TypeVar

from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin, TextKwargs
from transformers.utils import logging

from .image_processing_remamber import list_maps
from .messages import describe
from .post_processing_remamber import ReferringPostProcessing


logger = logging.get_logger(__name__)


def pair_expressions(text: Any, num_images: int | None) -> tuple[list[str], list[int] | None]:
    """Lists the expressions and the picture that each refers to.

    Args:
        text: one expression, an iterable of them, or one iterable of expressions per picture.
        num_images: None if no pictures came; then the second result is None too.

    Raises:
        ValueError: the numbers of pictures and expressions do not match.
    """
    entries = list(text) if is_iterable(text) else [text]
    num_lists = sum(map(is_iterable, entries))
    if num_lists:
        if num_lists != len(entries):
            raise ValueError(
                f"text mixes {num_lists} lists with {len(entries) - num_lists} expressions; "
                "give only expressions or only lists of expressions."
            )
        if num_images is not None and num_lists != num_images:
            raise ValueError(
                f"{num_images} images came with {num_lists} lists of expressions; give one list per image."
            )
        groups = [list(group) for group in entries]
        empty = next((index for index, group in enumerate(groups) if not group), None)
        if empty is not None:
            raise ValueError(f"text[{empty}] has 0 expressions; give its image an expression or leave it out.")
        expressions = [expression for group in groups for expression in group]
        image_index = [image for image, group in enumerate(groups) for _ in group]
        return check_expressions(expressions), None if num_images is None else image_index

    expressions = check_expressions(entries)
    if num_images is None:
        return expressions, None
    if num_images == 1:
        return expressions, [0] * len(expressions)
    if len(expressions) == 1:
        return expressions * num_images, list(range(num_images))
    if len(expressions) != num_images:
        raise ValueError(
            f"{num_images} images came with {len(expressions)} expressions; give one expression per image, one list "
            "of expressions per image, one image for all expressions, or one expression for all images."
        )
    return expressions, list(range(num_images))


def is_iterable(text: object) -> bool:
    """Whether text is a list, a column of a data set or table, an array or a generator of what it may be itself."""
    has_axis = getattr(text, "ndim", 1) > 0
    return isinstance(text, Iterable) and has_axis and not isinstance(text, (str, bytes, Mapping))


def check_expressions(expressions: list[Any]) -> list[str]:
    if not expressions:
        raise ValueError("text has 0 expressions; give at least one.")
    for index, expression in enumerate(expressions):
        if not isinstance(expression, str) or not expression.strip():
            came = describe(expression)
            raise ValueError(f"Expression {index} is {came}; give a str that says which object is meant.")
        if any("\ud800" <= letter <= "\udfff" for letter in expression):
            raise ValueError(f"Expression {index}, {describe(expression)}, has half of a letter; write it anew.")
    return [str(expression) for expression in expressions]


def encode(tokenizer: Any, expressions: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """The ids of each expression's tokens, whole and without padding, and the letters from … to … of each.

    Padding and truncation are a state of the tokenizer, which every call of it sets. Nothing is set here, and what
    another thread has set is undone, so that neither disturbs the other.
    """
    if type(tokenizer).__module__.partition(".")[0] != "transformers":  # its class may do more
        encodings = copy.deepcopy(tokenizer)(expressions, padding=False, truncation=False, verbose=False).encodings
        return [(encoding.ids, encoding.offsets) for encoding in encodings]
    backend = tokenizer.backend_tokenizer
    encodings = backend.encode_batch(expressions)
    if any(encoding.overflowing for encoding in encodings):
        backend = copy.deepcopy(backend)
        backend.no_truncation()
        encodings = backend.encode_batch(expressions)
    tokens = []
    for encoding in encodings:
        is_token = encoding.attention_mask  # each of these makes a new list of all
        tokens.append((list(compress(encoding.ids, is_token)), list(compress(encoding.offsets, is_token))))
    return tokens


def find_fault(tokenizer: Any, ids: list[int]) -> str | None:
    """What no model reads right in the ids of an expression, and what to do about it; None if nothing."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if ids.count(start) > 1:
        return "has the start token inside; leave it out."
    if end not in ids or ids.index(end) != len(ids) - 1:
        return (
            f"has the end token {ids.count(end)} times, and must have it at the end alone: leave out special tokens "
            "and what the tokenizer does not know."
        )
    return None


MAX_TOGETHER = 4096  # expressions whose tokens are in memory at once, where only their number is wanted


def count_tokens(tokenizer: Any, expressions: Sequence[str]) -> list[int]:
    """How many tokens each expression is, with the start and the end; 0 for one that `find_fault` finds fault with."""
    counts = []
    for start in range(0, len(expressions), MAX_TOGETHER):
        for ids, _ in encode(tokenizer, list(expressions[start : start + MAX_TOGETHER])):
            counts.append(0 if find_fault(tokenizer, ids) else len(ids))
    return counts


# Each text_length of which this process has said that expressions are cut to it, or the one that it was forked from.
SAID_CUT: set[int] = set()


# What the tokenizer could do to an expression, and the value of each with which ReMamber was trained.
ONLY_TEXT_OPTIONS = {
    "add_special_tokens": True,
    "padding_side": "right",
    "truncation_side": "right",
    "text_pair": None,
    "text_target": None,
    "text_pair_target": None,
    "is_split_into_words": False,
    "split_special_tokens": False,
    "return_overflowing_tokens": False,
    "return_token_type_ids": False,
    "return_offsets_mapping": False,
    "return_special_tokens_mask": False,
    "return_length": False,
    "stride": 0,
}


TRUNCATIONS = (None, True, False, "longest_first", "only_first", "do_not_truncate")
PADDINGS = (None, True, False, "longest", "max_length", "do_not_pad")
LONGEST_TEXT = 2**16  # tokens: the most that a configuration allows a text encoder
SHORTEST_TEXT = 3  # tokens: the start, a word, the end


Method = TypeVar("Method", bound=Callable[..., Any])


def by_image_processor(method: Method) -> Method:
    """A method of the processor that calls the one of this name of its image processor."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.image_processor, method.__name__)(*args, **kwargs)

    return call  # type: ignore[return-value]


class ReMamberProcessor(ProcessorMixin, ReferringPostProcessing):
    """Pictures → image processor, expressions → CLIP tokenizer, and where pictures are shared an index of them.

    Every expression gets `text_length` tokens: cut after `text_length - 1`, closed with the end token and filled up
    with it on the right, as ReMamber was trained, whatever the tokenizer's own padding is.

    Args:
        image_processor: `ReMamberImageProcessor` or its PIL twin.
        tokenizer: `CLIPTokenizer`; its padding token is its end token.
        text_length: tokens per expression, start and end token included; the weights of the fusion depend on it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._auto_class = None  # registered is a class, not what is made of it elsewhere

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, text_length: int = 20) -> None:
        if not hasattr(image_processor, "lay_back"):
            raise ValueError(
                f"image_processor is a {type(image_processor).__name__}; give a ReMamberImageProcessor or its twin."
            )
        super().__init__(image_processor, tokenizer)
        self.text_length = text_length
        self._check_own()

    def _check_own(self) -> None:
        """Refuses what the processor cannot be, when it is made or set later."""
        length = self.text_length
        if not isinstance(length, int) or isinstance(length, bool) or not SHORTEST_TEXT <= length <= LONGEST_TEXT:
            raise ValueError(
                f"text_length is {describe(length)}; start token, one word and end token need {SHORTEST_TEXT} or "
                f"more, at most {LONGEST_TEXT:,}."
            )
        if self.tokenizer.pad_token_id != self.tokenizer.eos_token_id:
            raise ValueError(
                f"The tokenizer pads with {self.tokenizer.pad_token!r}, ReMamber was trained with the end token "
                f"{self.tokenizer.eos_token!r} as padding; set tokenizer.pad_token to it."
            )

    def __call__(
        self, images: Any = None, text: Any = None, segmentation_maps: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Turns pictures and expressions into model inputs; a picture with several expressions is kept once.

        Args:
            images: one picture or several: PIL images, arrays, tensors, paths, web addresses; see `read_picture`.
            text: one expression, one per picture, or one list of expressions per picture. One picture goes with any
                number of expressions, and one expression with any number of pictures.
            segmentation_maps: one map per expression, each (height, width) of its picture; 0 and 1, 0 and 255 or bool.
                Without text, one per picture.
            **kwargs: options of the image processor and the tokenizer, `return_tensors` among them. Every `padding` is
                to `text_length`; with `truncation=False` a longer expression is refused.

        Returns:
            pixel_values: (num_images, 3, height, width), float32.
            input_ids, attention_mask: (num_expressions, text_length), int64; the padding is the end token.
            image_index: (num_expressions,), int64, the picture of each expression; only where they differ in number.
                It counts the pictures of this call: a row with one picture and one expression has none.
            num_images: (num_expressions,), int64, the number of pictures of this call, beside `image_index`: by it a
                model finds out a batch that was cut.
            labels: (num_expressions, height, width), uint8, 0 or 1; if segmentation_maps came.

        Raises:
            ValueError: nothing came, an expression is empty, the numbers or sizes do not match, or an option would
                give the model other tokens than it was trained with.
        """
        if images is None and text is None:
            raise ValueError("Neither images nor text came; give at least one of them.")
        if images is None and segmentation_maps is not None:
            raise ValueError("segmentation_maps came without images; give the images they belong to.")
        self._check_options(kwargs)
        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        text_kwargs, images_kwargs = merged["text_kwargs"], merged["images_kwargs"]
        image_tensors = images_kwargs.pop("return_tensors", None)
        return_tensors = text_kwargs.get("return_tensors") or image_tensors

        data: dict[str, Any] = {}
        image_index = None
        if images is not None:
            images = self.image_processor.fetch_images(images)
        if text is not None:
            expressions, image_index = pair_expressions(text, None if images is None else len(images))
            data.update(self._tokenize(expressions, text_kwargs))
        if segmentation_maps is not None and image_index is not None:
            segmentation_maps = list_maps(segmentation_maps)
            if len(segmentation_maps) != len(image_index):
                raise ValueError(
                    f"{len(segmentation_maps)} segmentation maps came with {len(image_index)} expressions; "
                    "give one map per expression."
                )
        if images is not None:
            data.update(self.image_processor(images, segmentation_maps, image_index, **images_kwargs))
        if image_index is not None and image_index != list(range(len(images))):
            data["image_index"] = image_index
            data["num_images"] = [len(images)] * len(image_index)
        return BatchFeature(data, tensor_type=return_tensors)

    def _check_options(self, kwargs: Mapping[str, Any]) -> None:
        """Refuses options of the tokenizer with which an expression would be other tokens, or several."""
        given = {**kwargs, **(kwargs.get("common_kwargs") or {}), **(kwargs.get("text_kwargs") or {})}
        for name, only in ONLY_TEXT_OPTIONS.items():
            if given.get(name) not in (None, only):
                raise ValueError(f"{name} is {describe(given[name])}; ReMamber was trained with {only}, leave it out.")
        if given.get("padding") not in PADDINGS:
            raise ValueError(f"padding is {describe(given['padding'])}; give one of {', '.join(map(str, PADDINGS))}.")
        if given.get("truncation") not in TRUNCATIONS:
            choices = ", ".join(map(str, TRUNCATIONS))
            raise ValueError(f"truncation is {describe(given['truncation'])}; give one of {choices}.")
        max_length = given.get("max_length")
        if max_length is not None and (not isinstance(max_length, int) or max_length < SHORTEST_TEXT):
            raise ValueError(f"max_length is {describe(max_length)}; give {SHORTEST_TEXT} or more.")
        if max_length is not None and max_length > LONGEST_TEXT:
            raise ValueError(f"max_length is {describe(max_length)}; give {LONGEST_TEXT:,} or less.")
        self._check_own()

    @property
    def text_kwargs(self) -> TextKwargs:  # type: ignore[override]  # set by `text_length`, not by itself
        """Options of the tokenizer where a call names no others."""
        return {"padding": "max_length", "truncation": True, "max_length": self.text_length}

    def _tokenize(self, expressions: list[str], options: Mapping[str, Any]) -> dict[str, list[list[int]]]:
        # Cut and filled up here: padding and truncation are a state of the tokenizer, which threads and calls share.
        tokens = [ids for ids, _ in encode(self.tokenizer, expressions)]
        length, end = options.get("max_length") or self.text_length, self.tokenizer.eos_token_id
        for index, ids in enumerate(tokens):
            fault = find_fault(self.tokenizer, ids)
            if fault is not None:
                raise ValueError(f"Expression {index}, {describe(expressions[index])}, {fault}")
            if len(ids) > length:
                if options.get("truncation") in (False, "do_not_truncate"):
                    raise ValueError(
                        f"Expression {index} has {len(ids)} tokens and {length} are read; make it shorter, or leave "
                        "truncation=False out to have it cut."
                    )
                tokens[index] = [*ids[: length - 1], end]
                if length not in SAID_CUT:
                    SAID_CUT.add(length)
                    logger.warning(
                        f"An expression has {len(ids)} tokens, and {length} are read: {describe(expressions[index])}. "
                        "Of others that are cut nothing is said; `remamber data stats` counts them."
                    )
        # Any padding is to what the model reads; who asks for another length has another use, and pads as it likes.
        if length != self.text_length and options.get("padding") in (True, "longest"):
            length = max(map(len, tokens))
        is_padded = length == self.text_length or options.get("padding") not in (False, "do_not_pad")
        num_padding = [max(length - len(ids), 0) if is_padded else 0 for ids in tokens]
        inputs = {
            "input_ids": [ids + [end] * count for ids, count in zip(tokens, num_padding)],
            "attention_mask": [[1] * len(ids) + [0] * count for ids, count in zip(tokens, num_padding)],
        }
        if options.get("return_attention_mask") is False:
            del inputs["attention_mask"]
        return inputs

    def count_tokens(self, expression: str) -> int:
        """How many tokens an expression is, with the start and the end; beyond `text_length` the model reads none."""
        ((ids, _),) = encode(self.tokenizer, check_expressions([expression]))
        return len(ids)

    def describe_cut(self, expressions: Sequence[str]) -> str | None:
        """Says how many of all the expressions of a run are cut to `text_length` tokens; None if none is.

        Who asks is to show it: this process, and those that are forked from it, will not say it by themselves.

        Raises:
            ValueError: if one is empty or no text.
        """
        if not len(expressions):
            return None
        counts = count_tokens(self.tokenizer, check_expressions(list(expressions)))
        SAID_CUT.add(self.text_length)
        num_cut = sum(count > self.text_length for count in counts)
        if not num_cut:
            return None
        longest = max(range(len(counts)), key=counts.__getitem__)
        return (
            f"{num_cut:,} of {len(counts):,} expressions are cut, of which the model reads {self.text_length} tokens; "
            f"the longest has {counts[longest]:,}: {describe(expressions[longest])}"
        )

    def _is_without_code(self) -> bool:
        """Whether this is of a subclass, in another file, that is not registered."""
        return self._auto_class is None and type(self).__module__ != __name__

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        # How the tokenizer was loaded is no matter of who loads it next.
        for name in ("is_local", "local_files_only"):
            self.tokenizer.init_kwargs.pop(name, None)
        if self._is_without_code():  # what the folder says that the tokenizer came from: no code is written here
            self.tokenizer.init_kwargs.pop("auto_map", None)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As every processor's. A subclass that is not registered goes by this class's name, which loads anywhere."""
        fields = super().to_dict()
        if self._is_without_code():
            fields["processor_class"] = ReMamberProcessor.__name__
            fields.pop("auto_map", None)
            fields["image_processor"].get("auto_map", {}).pop("AutoProcessor", None)
        return fields

    # What these do, the image processor's class says, or one made of it.
    lay_back = by_image_processor(ReferringPostProcessing.lay_back)
    post_process_probabilities = by_image_processor(ReferringPostProcessing.post_process_probabilities)
    post_process_referring_segmentation = by_image_processor(
        ReferringPostProcessing.post_process_referring_segmentation
    )
    post_process_semantic_segmentation = by_image_processor(ReferringPostProcessing.post_process_semantic_segmentation)
    post_process_instance_segmentation = by_image_processor(ReferringPostProcessing.post_process_instance_segmentation)
    post_process_presence = by_image_processor(ReferringPostProcessing.post_process_presence)


__all__ = ["ReMamberProcessor"]
