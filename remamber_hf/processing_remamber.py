"""ReMamber's processor: pictures and expressions → model inputs; logits → full-size masks."""

from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import make_flat_list_of_images
from transformers.processing_utils import ProcessorMixin


def pair_expressions(text, num_images: int | None) -> tuple[list[str], list[int] | None]:
    """Lists the expressions and the picture that each refers to.

    Args:
        text: one expression, a list of them, or one list of expressions per picture.
        num_images: None if no pictures came; then the second result is None too.

    Raises:
        ValueError: the numbers of pictures and expressions do not match.
    """
    expressions = text if isinstance(text, (list, tuple)) else [text]
    num_lists = sum(isinstance(entry, (list, tuple)) for entry in expressions)
    if num_lists:
        if num_lists != len(expressions):
            raise ValueError(
                f"text mixes {num_lists} lists with {len(expressions) - num_lists} expressions; "
                "give only expressions or only lists of expressions."
            )
        if num_images is not None and num_lists != num_images:
            raise ValueError(
                f"{num_images} images came with {num_lists} lists of expressions; give one list per image."
            )
        image_index = [image for image, group in enumerate(expressions) for _ in group]
        if len(set(image_index)) != num_lists:
            empty = min(set(range(num_lists)) - set(image_index))
            raise ValueError(f"text[{empty}] has 0 expressions; give its image an expression or leave it out.")
        expressions = [expression for group in expressions for expression in group]
        return check_expressions(expressions), None if num_images is None else image_index

    expressions = check_expressions(expressions)
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


def check_expressions(expressions) -> list[str]:
    if not expressions:
        raise ValueError("text has 0 expressions; give at least one.")
    for index, expression in enumerate(expressions):
        if not isinstance(expression, str) or not expression.strip():
            raise ValueError(f"Expression {index} is {expression!r}; give a str that says which object is meant.")
    return list(expressions)


class ReMamberProcessor(ProcessorMixin):
    """Pictures → image processor, expressions → CLIP tokenizer, and an index that pairs the two.

    Args:
        image_processor: `ReMamberImageProcessor` or its PIL twin.
        tokenizer: `CLIPTokenizer`; pads with its end token, as ReMamber was trained.
        text_length: tokens per expression, start and end token included; the weights of the fusion depend on it.
    """

    def __init__(self, image_processor=None, tokenizer=None, text_length: int = 20):
        super().__init__(image_processor, tokenizer)
        if tokenizer.pad_token_id != tokenizer.eos_token_id:
            raise ValueError(
                f"The tokenizer pads with {tokenizer.pad_token!r}, ReMamber was trained with the end token "
                f"{tokenizer.eos_token!r} as padding; set tokenizer.pad_token to it."
            )
        if text_length < 3:
            raise ValueError(f"text_length is {text_length}; start token, one word and end token need at least 3.")
        self.text_length = text_length
        self.text_kwargs = {"padding": "max_length", "truncation": True, "max_length": text_length}

    def __call__(self, images=None, text=None, segmentation_maps=None, **kwargs) -> BatchFeature:
        """Turns pictures and expressions into model inputs; a picture with several expressions is kept once.

        Args:
            images: one picture or several: PIL images, arrays, tensors or paths.
            text: one expression, one per picture, or one list of expressions per picture. One picture goes with any
                number of expressions, and one expression with any number of pictures.
            segmentation_maps: one map per expression, each (height, width) of its picture; not zero means object.
                Without text, one per picture.
            **kwargs: options of the image processor and the tokenizer, `return_tensors` among them.

        Returns:
            pixel_values: (num_images, 3, height, width), float32.
            input_ids, attention_mask: (num_expressions, text_length), int64; the padding is the end token.
            image_index: (num_expressions,), int64, the picture of each expression; if both pictures and text came.
            labels: (num_expressions, height, width), uint8, 0 or 1; if segmentation_maps came.

        Raises:
            ValueError: nothing came, an expression is empty, or the numbers or sizes do not match.
        """
        if images is None and text is None:
            raise ValueError("Neither images nor text came; give at least one of them.")
        if images is None and segmentation_maps is not None:
            raise ValueError("segmentation_maps came without images; give the images they belong to.")
        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        text_kwargs, images_kwargs = merged["text_kwargs"], merged["images_kwargs"]
        image_tensors = images_kwargs.pop("return_tensors", None)
        return_tensors = text_kwargs.pop("return_tensors", None) or image_tensors

        data = {}
        image_index = None
        if images is not None:
            images = make_flat_list_of_images(self.image_processor.fetch_images(images))
            if not images:
                raise ValueError("images is empty; give at least one image.")
        if text is not None:
            expressions, image_index = pair_expressions(text, None if images is None else len(images))
            data.update(self.tokenizer(expressions, **text_kwargs))
        if segmentation_maps is not None and image_index is not None:
            segmentation_maps = make_flat_list_of_images(segmentation_maps, expected_ndims=2)
            if len(segmentation_maps) != len(image_index):
                raise ValueError(
                    f"{len(segmentation_maps)} segmentation maps came with {len(image_index)} expressions; "
                    "give one map per expression."
                )
        if images is not None:
            data.update(self.image_processor(images, segmentation_maps, image_index, **images_kwargs))
        if image_index is not None:
            data["image_index"] = image_index
        return BatchFeature(data, tensor_type=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "image_index"]

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        # The last call's padding and truncation stay in the backend tokenizer. Saved with it, they would come back
        # as its own defaults and outrank text_length.
        self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.backend_tokenizer.no_truncation()
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def post_process_referring_segmentation(self, *args, **kwargs):
        """Turns logits into masks; see `ReMamberImageProcessor.post_process_referring_segmentation`."""
        return self.image_processor.post_process_referring_segmentation(*args, **kwargs)


__all__ = ["ReMamberProcessor"]
