"""ReMamber's preprocessing and postprocessing: picture → pixel values, segmentation map → labels, logits → masks."""

import os
import struct
from collections.abc import Sequence
from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ImageInput,
    PILImageResampling,
    make_flat_list_of_images,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import requires_backends


# What Pillow raises for a damaged file depends on the format; OSError holds "cannot identify" and "truncated".
PILLOW_ERRORS = (
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
)

# How `post_process_referring_segmentation` resizes logits; the published evaluation used "nearest".
LOGIT_INTERPOLATIONS = {
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "nearest": {"mode": "nearest"},
}


def open_picture(source) -> Image.Image:
    """Opens a picture of any kind that Pillow reads as upright 8-bit RGB.

    The EXIF rotation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits, and of an animation
    the first frame is taken.

    Args:
        source: a path, a binary file object or a PIL image (at its current frame).

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: no such source, a folder, an empty, damaged or truncated file, a decompression bomb, or pixel
            values without an 8-bit meaning.
    """
    is_picture = isinstance(source, Image.Image)
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if not os.path.exists(source):
            raise FileNotFoundError(f"There is no file {name!r}; give the path of a picture.")
        if os.path.isdir(source):
            raise ValueError(f"{name!r} is a folder; give the path of one picture.")
    elif is_picture or hasattr(source, "read"):
        name = getattr(source, "filename", "") or getattr(source, "name", "") or type(source).__name__
    else:
        raise ValueError(f"{type(source).__name__} came; give a path, a binary file object or a PIL image.")
    try:
        with nullcontext(source) if is_picture else Image.open(source) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except PILLOW_ERRORS as error:
        raise ValueError(f"The picture {name!r} cannot be read ({error}); give a complete image file.") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a PIL image of any mode to RGB, transparency laid on white; the EXIF rotation is left alone.

    Integer greys (modes I and I;16) are 16-bit values. Floats are fractions if all lie in [0, 1], else 8-bit values.

    Raises:
        ValueError: integers outside [0, 65535], floats outside [0, 255], or a mode that Pillow cannot convert.
    """
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int32)
        check_range(grey, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.asarray(image)
        check_range(grey, 255)
        scale = 255 if grey.max() <= 1 else 1
        return Image.fromarray((grey * scale).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def check_range(values: np.ndarray, largest: int):
    if not (values.min() >= 0 and values.max() <= largest):  # a NaN fails both comparisons
        raise ValueError(
            f"pixel values from {values.min()} to {values.max()} came, [0, {largest}] was needed; scale the picture"
        )


def to_binary_map(segmentation_map, index: int) -> np.ndarray:
    """Turns a PIL image, array or tensor into a uint8 map (height, width): 1 where the value is not zero, else 0."""
    if isinstance(segmentation_map, torch.Tensor):
        segmentation_map = segmentation_map.cpu().numpy()
    values = np.asarray(segmentation_map)
    if values.ndim != 2:
        raise ValueError(f"Segmentation map {index} has shape {values.shape}; give one (height, width) map.")
    return (values != 0).view(np.uint8)


def to_channels_first(image: Image.Image | np.ndarray) -> np.ndarray:
    """Turns a PIL image into an array (channels, height, width); an array is one already."""
    if isinstance(image, np.ndarray):
        return image
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def look_up(image: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Replaces each pixel of an image, uint8 (channels, height, width), by its channel's entry in tables."""
    values = np.empty(image.shape, dtype=tables.dtype)
    for channel, table in enumerate(tables):
        # Any other mode fills a buffer first; no index is out of range.
        np.take(table, image[channel], out=values[channel], mode="clip")
    return values


def check_target_sizes(target_sizes, num_expressions: int) -> list[tuple[int, int]]:
    sizes = target_sizes.tolist() if isinstance(target_sizes, torch.Tensor) else list(target_sizes)
    if len(sizes) != num_expressions:
        raise ValueError(
            f"target_sizes has {len(sizes)} entries, logits have {num_expressions} expressions; "
            "give one (height, width) per expression."
        )
    for index, size in enumerate(sizes):
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"target_sizes[{index}] is {tuple(size)}; give (height, width), both at least 1.")
    return [(int(height), int(width)) for height, width in sizes]


class ReMamberPreprocessing:
    """RGB → squash-resize to 480 x 480 → / 255 → ImageNet normalization; map → nearest resize → 0/1 labels.

    What the two image processors share; a transformers backend follows it in their list of parents.
    """

    valid_kwargs = ImagesKwargs
    do_convert_rgb = True
    do_resize = True
    size: ClassVar[dict[str, int]] = {"height": 480, "width": 480}
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        image_index: Sequence[int] | None = None,
        **kwargs: Unpack[ImagesKwargs],
    ) -> BatchFeature:
        """Turns pictures and their segmentation maps into what the model reads.

        Args:
            images: one picture or several: PIL images (the EXIF rotation is left alone), arrays, tensors, or paths,
                which are read by `open_picture`.
            segmentation_maps: one map or several, each (height, width) of its picture; not zero means object.
            image_index: the picture that each map belongs to; map i belongs to picture i by default.

        Returns:
            pixel_values: (num_images, 3, height, width), float32.
            labels: (num_maps, height, width), uint8, 0 or 1; only if segmentation_maps are given.

        Raises:
            ValueError: the number of maps does not match, or a map has not the size of its picture.
        """
        return super().preprocess(images, segmentation_maps, image_index, **kwargs)

    def fetch_images(self, images):
        if isinstance(images, os.PathLike) or (isinstance(images, str) and os.path.exists(images)):
            return open_picture(images)
        return super().fetch_images(images)

    def process_image(self, image, do_convert_rgb: bool | None = None, **kwargs):
        # transformers would clip 16-bit greys and floats at 255.
        if do_convert_rgb and isinstance(image, Image.Image):
            image = to_rgb(image)
        return super().process_image(image, do_convert_rgb=do_convert_rgb, **kwargs)

    def _preprocess_image_like_inputs(
        self, images, segmentation_maps=None, image_index=None, return_tensors=None, **kwargs
    ) -> BatchFeature:
        images = self._prepare_image_like_inputs(images, **kwargs)
        data = dict(self._preprocess(images, return_tensors=None, **kwargs))
        if segmentation_maps is not None:
            sizes = [
                (image.height, image.width) if isinstance(image, Image.Image) else tuple(image.shape[-2:])
                for image in images
            ]
            data["labels"] = self._preprocess_maps(segmentation_maps, sizes, image_index, **kwargs)
        return BatchFeature(data, tensor_type=return_tensors)

    def _preprocess_maps(self, segmentation_maps, image_sizes, image_index, **kwargs) -> list[np.ndarray]:
        """Checks the maps against their pictures and gives them the pictures' geometry, by Pillow in both twins."""
        maps = make_flat_list_of_images(segmentation_maps, expected_ndims=2)
        image_index = range(len(image_sizes)) if image_index is None else image_index
        if len(maps) != len(image_index):
            raise ValueError(
                f"{len(maps)} segmentation maps came, {len(image_index)} were needed; "
                "give one per image, or say with image_index which image each belongs to."
            )
        if not all(0 <= image < len(image_sizes) for image in image_index):
            raise ValueError(f"image_index is {list(image_index)}; with {len(image_sizes)} images, count from 0.")
        maps = [to_binary_map(segmentation_map, index) for index, segmentation_map in enumerate(maps)]
        for index, (segmentation_map, image) in enumerate(zip(maps, image_index)):
            if segmentation_map.shape != image_sizes[image]:
                raise ValueError(
                    f"Segmentation map {index} is {segmentation_map.shape}, its image {image} is {image_sizes[image]} "
                    "(height, width); give each map at the size of its image."
                )
        for_maps = {"resample": PILImageResampling.NEAREST, "do_rescale": False, "do_normalize": False}
        pil_twin = self if isinstance(self, PilBackend) else ReMamberImageProcessorPil()
        labels = pil_twin._preprocess(
            [Image.fromarray(segmentation_map) for segmentation_map in maps],
            return_tensors=None,
            **{**kwargs, **for_maps},
        )
        return [label[0] for label in labels["pixel_values"]]

    def post_process_referring_segmentation(
        self,
        outputs,
        target_sizes: list[tuple[int, int]] | torch.Tensor | None = None,
        threshold: float = 0.5,
        interpolation: str = "bilinear",
        return_probabilities: bool = False,
    ) -> list[torch.Tensor] | tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Turns logits into masks: resize the logits → sigmoid → compare with the threshold, in float32.

        Args:
            outputs: the model's output, with logits of shape (num_expressions, 1, height, width).
            target_sizes: (height, width) of each expression's picture; by default the logits' size.
            threshold: a pixel is object if its probability is above it; in [0, 1].
            interpolation: "bilinear", or "nearest" as in the published evaluation.
            return_probabilities: also return the probabilities.

        Returns:
            masks: one bool tensor (height, width) per expression.
            probabilities: one float32 tensor (height, width) in [0, 1] per expression; only if asked for.

        Raises:
            ValueError: an argument outside what is described here, or logits that are not finite.
        """
        logits = outputs.logits.detach()
        if logits.ndim != 4 or logits.shape[1] != 1:
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}; (num_expressions, 1, height, width) was needed."
            )
        if interpolation not in LOGIT_INTERPOLATIONS:
            raise ValueError(f"interpolation is {interpolation!r}; choose one of {sorted(LOGIT_INTERPOLATIONS)}.")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold}; give a probability in [0, 1].")
        if target_sizes is not None:
            target_sizes = check_target_sizes(target_sizes, len(logits))
        num_finite = int(logits.isfinite().flatten(1).all(dim=1).sum())
        if num_finite < len(logits):
            reason = "weights or pixel values are not; look which."
            if logits.dtype == torch.float16:
                reason = "the model overflows in float16, which ends at 65,504; use bfloat16 or float32."
            raise ValueError(
                f"the logits of {len(logits) - num_finite} of {len(logits)} expressions are not finite: {reason}"
            )

        masks, probabilities = [], []
        for index in range(len(logits)):
            resized = logits[index : index + 1].float()
            if target_sizes is not None:
                resized = F.interpolate(resized, size=target_sizes[index], **LOGIT_INTERPOLATIONS[interpolation])
            probability = resized[0, 0].sigmoid()  # (height, width)
            masks.append(probability > threshold)
            if return_probabilities:
                probabilities.append(probability)
        return (masks, probabilities) if return_probabilities else masks


class ReMamberImageProcessor(ReMamberPreprocessing, TorchvisionBackend):
    """Prepares pictures with torchvision, in batches and on any device; pixel values differ slightly from Pillow's."""

    def __init__(self, **kwargs: Unpack[ImagesKwargs]):
        requires_backends(self, ["torchvision"])
        super().__init__(**kwargs)


class ReMamberImageProcessorPil(ReMamberPreprocessing, PilBackend):
    """Prepares pictures with Pillow: the published preprocessing, exactly.

    A PIL image stays one until it is resized, and 8-bit pixels are rescaled and normalized by looking up their 256
    values: the numbers of `PilBackend` with fewer copies.
    """

    def process_image(self, image, do_convert_rgb: bool | None = None, **kwargs):
        if do_convert_rgb and isinstance(image, Image.Image):
            return to_rgb(image)
        return super().process_image(image, do_convert_rgb=do_convert_rgb, **kwargs)

    def _preprocess(self, images, *, do_rescale, do_normalize, do_pad, return_tensors, **kwargs) -> BatchFeature:
        size = kwargs["size"]
        if do_pad or not (kwargs["do_resize"] and size.height and size.width):
            images = [to_channels_first(image) for image in images]
        is_8_bit = all(isinstance(image, Image.Image) or image.dtype == np.uint8 for image in images)
        values = {"do_rescale": do_rescale, "do_normalize": do_normalize}
        # The padded border has to stay zero through the normalization.
        if do_pad or not is_8_bit or not (do_rescale or do_normalize):
            return super()._preprocess(images, **values, do_pad=do_pad, return_tensors=return_tensors, **kwargs)
        raw = {"do_rescale": False, "do_normalize": False, "do_pad": False, "return_tensors": None}
        images = super()._preprocess(images, **raw, **kwargs)["pixel_values"]
        still = {"do_resize": False, "do_center_crop": False, "do_pad": False, "return_tensors": None}
        pixel_values = []
        for image in images:
            levels = np.tile(np.arange(256, dtype=np.uint8), (len(image), 1, 1))  # (channels, 1, 256)
            tables = super()._preprocess([levels], **values, **{**kwargs, **still})["pixel_values"][0]
            pixel_values.append(look_up(image, tables[:, 0]))
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors)


__all__ = ["ReMamberImageProcessor", "ReMamberImageProcessorPil", "open_picture"]
