# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""ReMamber's preprocessing: picture → pixel values, segmentation map → labels; logits back onto the picture."""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType, requires_backends

from .messages import describe
from .pictures import is_fraction, list_pictures, open_picture, palette_map, read_picture, to_picture, to_rgb
from .post_processing_remamber import ReferringPostProcessing


def to_binary_map(segmentation_map: Any, index: int) -> np.ndarray:
    """Turns a PIL image, array or tensor into a uint8 map (height, width), 1 where the object is and 0 elsewhere.

    Raises:
        ValueError: another shape, or values besides 0 and one of 1 and 255: several objects, an ignore value, greys.
    """
    if isinstance(segmentation_map, torch.Tensor):
        segmentation_map = segmentation_map.detach().cpu()
        if segmentation_map.is_floating_point():
            segmentation_map = segmentation_map.float()  # NumPy has no bfloat16
        segmentation_map = segmentation_map.numpy()
    if getattr(segmentation_map, "mode", None) == "P":
        segmentation_map = palette_map(segmentation_map)
    values = np.asarray(segmentation_map)
    if values.ndim != 2:
        raise ValueError(f"Segmentation map {index} has shape {values.shape}; give one (height, width) map.")
    is_object = values != 0
    if values.dtype != bool:
        codes = values[is_object]
        if codes.size and not (codes[0] in (1, 255) and (codes == codes[0]).all()):
            came = ", ".join(str(code) for code in np.unique(values)[:6])
            raise ValueError(
                f"Segmentation map {index} has the values {came}; give 0 and 1, 0 and 255 or bool, as `map == 7` does "
                "for the object that a map calls 7. Pixels to be ignored there are none."
            )
    return is_object.view(np.uint8)


def list_maps(segmentation_maps: Any) -> list[Any]:
    """The maps of a single one, a batch (an array with one axis more), or an iterable of either, in their order."""
    if isinstance(segmentation_maps, Image.Image) or (
        isinstance(segmentation_maps, (np.ndarray, torch.Tensor)) and segmentation_maps.ndim == 2
    ):
        return [segmentation_maps]
    is_flat = getattr(segmentation_maps, "ndim", 2) < 2 and str(getattr(segmentation_maps, "dtype", "")) != "object"
    is_text = isinstance(segmentation_maps, (str, bytes, Mapping))
    if is_flat or is_text or not isinstance(segmentation_maps, Iterable):
        raise ValueError(
            f"{describe(segmentation_maps)} came as segmentation map; give PIL images or arrays (height, width)."
        )
    return [segmentation_map for entry in segmentation_maps for segmentation_map in list_maps(entry)]


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


def find_resampling(resample: Any) -> Any:
    """A filter of Pillow's by its name; ValueError for an unknown one, for which transformers takes its own."""
    if not isinstance(resample, str):
        return resample
    names = [filter_.name.lower() for filter_ in Image.Resampling]
    if resample.lower() not in names:
        raise ValueError(f"resample is {describe(resample)}; give one of {', '.join(names)}.")
    return Image.Resampling[resample.upper()]


TORCHVISION_CODE = "image_processing_remamber.ReMamberImageProcessor"  # in the auto_map of a saved folder
LARGEST_SIDE = 8192  # pixels of what a model reads


def check_fields(fields: Mapping[str, Any]) -> None:
    """
    ValueError for fields of an image processor that are none, or that mean nothing.

    Every side in `size`, `crop_size` and `pad_size` is a whole number of pixels up to 8,192; `rescale_factor`,
    `image_mean` and `image_std` are finite, the last above 0.
    """
    for name in fields:
        if callable(getattr(ReMamberPreprocessing, name, None)) or callable(getattr(PilBackend, name, None)):
            raise ValueError(f"{name} is no field of an image processor; leave it out.")
    value: Any
    for name in ("rescale_factor", "image_mean", "image_std"):
        value = fields.get(name)
        if value is None:
            continue
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.array(np.nan)
        if not numbers.size or not np.isfinite(numbers).all() or (name == "image_std" and numbers.min() <= 0):
            above = " above 0" if name == "image_std" else ""
            raise ValueError(f"{name} is {describe(value)}; give finite numbers{above}.")
    for name in ("size", "crop_size", "pad_size"):
        value = fields.get(name)
        if isinstance(value, SizeDict):
            value = vars(value)
        elif not isinstance(value, Mapping):
            value = dict(enumerate(value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]))
        for key, side in value.items():
            largest = LARGEST_SIDE**2 if str(key).endswith("pixels") else LARGEST_SIDE
            is_whole = isinstance(side, (int, np.integer)) and not isinstance(side, bool)
            if side is not None and not (is_whole and 0 < side <= largest):
                raise ValueError(f"{name} has {describe(side)}; give whole numbers of pixels, none above {largest:,}.")


class ReMamberPreprocessing(ReferringPostProcessing, BaseImageProcessor):
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
    do_center_crop: bool | None
    do_pad: bool | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._auto_class = None  # registered is a class, not what is made of it elsewhere

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        image_index: Sequence[int] | None = None,
        **kwargs: Unpack[ImagesKwargs],
    ) -> BatchFeature:
        """Turns pictures and their segmentation maps into what the model reads.

        Args:
            images: one picture or several, of all kinds that `read_picture` takes; the EXIF rotation of a PIL image is
                left alone. With `do_convert_rgb=False`, PIL images, arrays and tensors go as they are to transformers.
            segmentation_maps: one map or several, each (height, width) of its picture, as `to_binary_map` takes them.
            image_index: the picture that each map belongs to; map i belongs to picture i by default.
            **kwargs: for this call other values than the processor's own. What crops or pads is the processor's own
                matter: where a picture lay must be known when its mask is laid back.

        Returns:
            pixel_values: (num_images, 3, height, width), float32.
            labels: (num_maps, height, width), uint8, 0 or 1; only if segmentation_maps are given.

        Raises:
            ValueError: the number of maps does not match, or a map has not the size of its picture.
        """
        return super().preprocess(images, segmentation_maps, image_index, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As every image processor's. The folder names the twin that runs wherever it is loaded, with Pillow alone."""
        fields = super().to_dict()
        auto_map = fields.get("auto_map") or {}
        if auto_map.get("AutoImageProcessor") == TORCHVISION_CODE:
            fields["auto_map"] = {**auto_map, "AutoImageProcessor": f"{TORCHVISION_CODE}Pil"}
        return fields

    def fetch_images(self, images: Any) -> list[Any]:
        """The pictures as a list; what names a picture is opened, PIL images, arrays and tensors stay as they are."""
        kept = (Image.Image, np.ndarray, torch.Tensor)
        pictures = list_pictures(images)
        if not pictures:
            raise ValueError("images is empty; give at least one picture.")
        return [picture if isinstance(picture, kept) else read_picture(picture) for picture in pictures]

    def _preprocess_image_like_inputs(  # type: ignore[override]  # `preprocess` alone calls it
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        image_index: Sequence[int] | None = None,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        check_fields(kwargs)
        self._check_geometry(kwargs)
        kwargs["resample"] = find_resampling(kwargs["resample"])
        if kwargs.get("data_format") not in (None, "channels_first", ChannelDimension.FIRST):
            raise ValueError(
                f"data_format is {describe(kwargs['data_format'])}; the model reads channels_first, leave it out."
            )
        pictures = self.fetch_images(images)
        if kwargs["do_convert_rgb"]:
            if not kwargs["do_rescale"]:
                kwargs |= self._rescale_of_fractions(pictures, kwargs)
            layout = kwargs.pop("input_data_format", None)
            channels_first = None if layout is None else ChannelDimension(layout) == ChannelDimension.FIRST
            pictures = [
                to_rgb(picture) if isinstance(picture, Image.Image) else to_picture(picture, channels_first)
                for picture in pictures
            ]
        prepared = [self.process_image(picture, **kwargs) for picture in pictures]
        data = dict(self._preprocess(prepared, return_tensors=None, **kwargs))
        if segmentation_maps is not None:
            sizes = [
                (image.height, image.width) if isinstance(image, Image.Image) else tuple(image.shape[-2:])
                for image in prepared
            ]
            data["labels"] = self._preprocess_maps(segmentation_maps, sizes, image_index, **kwargs)
        return BatchFeature(data, tensor_type=return_tensors)

    def _check_geometry(self, kwargs: Mapping[str, Any]) -> None:
        """Refuses, for one call, another place of the pictures than that from which masks are laid back."""
        own = self._geometry()
        names = own if kwargs["do_center_crop"] or kwargs["do_pad"] else ["do_center_crop", "do_pad"]
        for name in names:
            if (kwargs[name] or None) != (own[name] or None):
                raise ValueError(
                    f"{name} is {kwargs[name]} in this call and {own[name]} in the image processor, which lays masks "
                    f"back on their pictures; set it there, as in image_processor.{name} = …"
                )

    def _geometry(self) -> dict[str, Any]:
        """What decides where a picture lies in what the model sees; sizes as `SizeDict`, however they were set."""
        sizes = {name: getattr(self, name) for name in ("size", "crop_size", "pad_size")}
        sizes = self._standardize_kwargs(**sizes, default_to_square=self.default_to_square)
        if self.do_center_crop and sizes["crop_size"] is None:
            raise ValueError("do_center_crop is true and crop_size is missing; set image_processor.crop_size too.")
        kept = {name: sizes[name] for name in ("size", "crop_size", "pad_size")}
        return {**kept, **{name: getattr(self, name) for name in ("do_resize", "do_center_crop", "do_pad")}}

    def _rescale_of_fractions(self, pictures: list[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """What `do_rescale=False` asks for: fractions, which become 8-bit values on their way, stay fractions."""
        num_fractions = sum(is_fraction(picture) for picture in pictures)
        if num_fractions == len(pictures):
            return {"do_rescale": True, "rescale_factor": 1 / 255}
        is_normalized_as_fractions = kwargs["do_normalize"] and max(np.atleast_1d(kwargs["image_mean"])) <= 1
        if num_fractions or is_normalized_as_fractions:
            raise ValueError(
                f"do_rescale is false, and of {len(pictures)} pictures {num_fractions} have floats in [0, 1]; leave "
                "do_rescale true for pictures of 8 bits."
            )
        return {}

    def _preprocess_maps(
        self,
        segmentation_maps: ImageInput,
        image_sizes: list[tuple[int, int]],
        image_index: Sequence[int] | None,
        **kwargs: Any,
    ) -> list[np.ndarray]:
        """Checks the maps against their pictures and gives them the pictures' geometry, by Pillow in both twins."""
        maps = list_maps(segmentation_maps)
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
        pil_twin = self if isinstance(self, ReMamberImageProcessorPil) else ReMamberImageProcessorPil()
        labels = pil_twin._preprocess(
            [Image.fromarray(segmentation_map) for segmentation_map in maps],
            return_tensors=None,
            **{**kwargs, **for_maps},
        )
        return [label[0] for label in labels["pixel_values"]]

    def lay_back(
        self, logits: torch.Tensor, target_size: tuple[int, int], interpolation: dict[str, Any]
    ) -> torch.Tensor:
        """Logits (1, 1, height, width) as probabilities (height, width) on a picture of `target_size`."""
        if not (self.do_center_crop or self.do_pad):
            return F.interpolate(logits, size=target_size, **interpolation)[0, 0].sigmoid_()  # of a photograph: large
        geometry = self._geometry()
        resized_size = self._resized_size(target_size, geometry["size"]) if self.do_resize else target_size
        crop = geometry["crop_size"]
        crop_size = (crop.height, crop.width) if self.do_center_crop else resized_size
        seen, place = [], []  # along each axis: which logits show the picture, and where in it
        for target, resized, crop in zip(target_size, resized_size, crop_size):
            offset = (resized - crop) // 2  # negative where the crop is larger and was filled up around the picture
            first, last = max(offset, 0), min(offset + crop, resized)
            seen.append(slice(first - offset, last - offset))
            place.append(slice(round(first * target / resized), round(last * target / resized)))
        probabilities = logits.new_zeros(target_size)
        size = [axis.stop - axis.start for axis in place]
        shown = logits[:, :, seen[0], seen[1]]
        if min(*size, *shown.shape[2:]) > 0:
            probabilities[place[0], place[1]] = F.interpolate(shown, size=size, **interpolation)[0, 0].sigmoid_()
        return probabilities

    def _resized_size(self, picture_size: tuple[int, int], size: SizeDict) -> tuple[int, int]:
        """(height, width) to which a picture is resized by `size`."""
        if size.height and size.width:
            return size.height, size.width
        blank = np.zeros((1, *picture_size), dtype=np.uint8)
        # It asks nothing of `self`.
        resized = PilBackend.resize(self, blank, size, PILImageResampling.NEAREST)  # type: ignore[arg-type]
        return resized.shape[1], resized.shape[2]


class ReMamberImageProcessor(ReMamberPreprocessing, TorchvisionBackend):
    """Prepares pictures with torchvision, in batches and on any device; pixel values differ slightly from Pillow's."""

    def __init__(self, **kwargs: Unpack[ImagesKwargs]):
        requires_backends(self, ["torchvision"])
        check_fields(kwargs)
        super().__init__(**kwargs)


class ReMamberImageProcessorPil(ReMamberPreprocessing, PilBackend):
    """Prepares pictures with Pillow: the published preprocessing, exactly.

    A PIL image stays one until it is resized, and 8-bit pixels are rescaled and normalized by looking up their 256
    values: the numbers of `PilBackend` with fewer copies.
    """

    def __init__(self, **kwargs: Unpack[ImagesKwargs]):
        check_fields(kwargs)
        super().__init__(**kwargs)

    def process_image(
        self,
        image: Any,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        **kwargs: Any,
    ) -> Any:
        if do_convert_rgb and isinstance(image, Image.Image):
            return image
        return super().process_image(image, do_convert_rgb, input_data_format, **kwargs)

    def _preprocess(  # type: ignore[override]  # all options come by name
        self,
        images: list[Any],
        *,
        do_rescale: bool,
        do_normalize: bool,
        do_pad: bool | None,
        return_tensors: str | TensorType | None,
        **kwargs: Any,
    ) -> BatchFeature:
        size = kwargs["size"]
        if do_pad or not (kwargs["do_resize"] and size.height and size.width):
            images = [to_channels_first(image) for image in images]
        is_8_bit = all(isinstance(image, Image.Image) or image.dtype == np.uint8 for image in images)
        values: dict[str, Any] = {"do_rescale": do_rescale, "do_normalize": do_normalize}
        # The padded border has to stay zero through the normalization.
        if do_pad or not is_8_bit or not (do_rescale or do_normalize):
            return super()._preprocess(images, **values, do_pad=do_pad, return_tensors=return_tensors, **kwargs)
        raw: dict[str, Any] = {"do_rescale": False, "do_normalize": False, "do_pad": False, "return_tensors": None}
        images = super()._preprocess(images, **raw, **kwargs)["pixel_values"]
        still: dict[str, Any] = {"do_resize": False, "do_center_crop": False, "do_pad": False, "return_tensors": None}
        pixel_values = []
        for image in images:
            levels = np.tile(np.arange(256, dtype=np.uint8), (len(image), 1, 1))  # (channels, 1, 256)
            tables = super()._preprocess([levels], **values, **{**kwargs, **still})["pixel_values"][0]
            pixel_values.append(look_up(image, tables[:, 0]))
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors)


__all__ = ["ReMamberImageProcessor", "ReMamberImageProcessorPil", "open_picture", "read_picture"]
