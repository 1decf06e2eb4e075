# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""ReMamber (arXiv 2403.17839): text encoder, backbone and fusions, then the mask head over them; loss and outputs.

Maps are (batch, height, width, channels) inside; what the public classes return is channels-first.
"""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import reprlib
from copy import deepcopy
from dataclasses import dataclass
from os import PathLike
from typing import Any, Self, TypeVar, Unpack

import torch
from torch import nn
from transformers import CLIPTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import filter_output_hidden_states
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import ModelOutput
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.utils.generic import TransformersKwargs, can_return_tuple

from .configuration_remamber import LEGACY_END_TOKEN, ReMamberConfig, text_config_of, vision_config_of
from .fusion_remamber import FUSIONS, NormAdaptationBlock
from .losses_remamber import presence_loss, segmentation_loss
from .mask_heads_remamber import MASK_HEADS, ConvMixer, ConvNormReLU, fold_batch_norms
from .modeling_scan import check_keywords, check_values
from .modeling_vmamba import VMambaModel, VMambaPreTrainedModel, channels_first, channels_last, resize
from .presence_head_remamber import PresenceHead
from .saved_code import CUSTOM_PIPELINES


Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass
class ReMamberModelOutput(ModelOutput):
    """
    last_hidden_state: the fused map of the last stage (batch, channels, height / 32, width / 32).
    feature_maps: the four fused maps (batch, channels, height, width) of strides 4, 8, 16, 32.
    text_hidden_states: hidden states of the tokens (batch, text_length, text channels).
    hidden_states: the map after the stem, then the four fused maps, when asked for.
    attentions: attention maps of the text encoder's layers, when asked for.
    text_pooler_output: the text's vector, that of its end token (num_expressions, text channels).
    """

    last_hidden_state: torch.Tensor | None = None
    feature_maps: tuple[torch.Tensor, ...] | None = None
    text_hidden_states: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    text_pooler_output: torch.Tensor | None = None


@dataclass
class ReMamberImageSegmentationOutput(ModelOutput):
    """
    loss: dice + binary cross-entropy, and that of the presence, a scalar, when labels were given.
    logits: mask logits (batch, 1, height, width), before the sigmoid.
    presence_logits: whether each expression means anything (batch), before the sigmoid, with `predicts_presence`.
    hidden_states: the map after the stem, then the four fused maps, when asked for.
    attentions: attention maps of the text encoder's layers, when asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    presence_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def load_part(
    part_class: type[Model],
    name: str | PathLike[str] | None,
    model: PreTrainedModel | None,
    model_types: tuple[str, ...],
    keywords: dict[str, Any],
) -> Model:
    """
    The pretrained `part_class` that `model` is or holds, or the one called `name`, loaded with `keywords`.

    Raises:
        ValueError: if both or neither are given, or one of none of the `model_types`, or weights are missing.
    """
    source = name if model is None else model
    if source is None or (name is not None and model is not None):
        raise ValueError(f"Give one model of type {' or '.join(model_types)}, by its name or folder or itself.")
    if isinstance(source, (str, PathLike)):
        model_type = PreTrainedConfig.get_config_dict(source, **keywords)[0].get("model_type")
        what = str(source)
    else:
        model_type = getattr(getattr(source, "config", None), "model_type", None)
        what = type(source).__name__
    if model_type not in model_types:
        raise ValueError(f"{what} is a model of type {model_type!r}; give one of type {' or '.join(model_types)}.")
    if isinstance(source, (str, PathLike)):
        return load_whole(part_class, source, **keywords)
    if keywords:
        raise ValueError(f"{next(iter(keywords))!r} is for a {part_class.__name__} that is loaded by its name.")
    part = next((module for module in source.modules() if isinstance(module, part_class)), None)
    if part is None:
        raise ValueError(f"{what} holds no {part_class.__name__}; give one, or the name or folder of one.")
    return part


def load_whole(model_class: type[Model], name: str | PathLike[str], fresh: str | None = None, **kwargs: Any) -> Model:
    """
    A pretrained model; ValueError if weights are missing, where transformers makes random ones and goes on, but for
    those whose names start with `fresh`.
    """
    loaded: Any = model_class.from_pretrained(name, output_loading_info=True, **kwargs)  # not annotated as a pair
    model, report = loaded
    missing = sorted(key for key in report["missing_keys"] if fresh is None or not key.startswith(fresh))
    if missing:
        raise ValueError(f"it lacks the weights of {missing[0]} and is no whole model.")
    return model


class ReMamberPreTrainedModel(VMambaPreTrainedModel):
    """What every ReMamber has: loading, saving, initialization, and where its scans run."""

    config: ReMamberConfig  # type: ignore[assignment]  # what the two configs share is SS2DConfig
    base_model_prefix = "remamber"
    _auto_map = {
        "AutoModel": "modeling_remamber.ReMamberModel",
        "AutoModelForImageSegmentation": "modeling_remamber.ReMamberForImageSegmentation",
    }
    input_modalities = ["image", "text"]
    _no_split_modules = [
        "VSSBlock",
        "MambaTwisterBlock",
        "InContextBlock",
        "CrossAttentionBlock",
        "NormAdaptationBlock",
        "MambaDecoderBlock",
        "TextImageCorrelation",
        "ConvMixer",
        "CLIPEncoderLayer",
        "CLIPTextEmbeddings",
    ]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, NormAdaptationBlock):
            init.zeros_(module.adaptation.weight)
            init.zeros_(module.adaptation.bias)
        elif isinstance(module, PresenceHead):
            module.start_from_prior()

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str | PathLike[str] | None = None,
        text_model_name_or_path: str | PathLike[str] | None = None,
        *,
        vision_model: VMambaModel | PreTrainedModel | None = None,
        text_model: CLIPTextModel | PreTrainedModel | None = None,
        **kwargs: Any,
    ) -> Self:
        """
        A model to train: pretrained backbone and text encoder, fresh fusion and mask head.

        The arguments are those of `VisionTextDualEncoderModel.from_vision_text_pretrained`.

        Args:
            vision_model_name_or_path: name or folder of a VMamba backbone or classifier.
            text_model_name_or_path: name or folder of a CLIP text model or of a whole CLIP.
            vision_model, text_model: the models, instead of their names; their weights are copied.
            kwargs: `vision_…` and `text_…` go to `from_pretrained` of the two, such as `vision_drop_path_rate`; the
                others are fields of [`ReMamberConfig`], such as `mask_head`, and so is `text_length`.

        Raises:
            ValueError: if a model is of another kind, or lacks weights: they would be random.
        """
        keywords: dict[str, dict[str, Any]] = {"vision": {}, "text": {}}
        known = ReMamberConfig().to_dict().keys() - {
            "dtype"
        }  # fresh parts are float32, and so is what is put together
        for name in list(kwargs):
            part, _, keyword = name.partition("_")
            if part in keywords and name != "text_length":
                keywords[part][keyword] = kwargs.pop(name)
            elif name not in known:
                raise ValueError(f"{name!r} is no field of ReMamberConfig that a new model can have; leave it out.")
        backbone = load_part(VMambaModel, vision_model_name_or_path, vision_model, ("vmamba",), keywords["vision"])
        text_encoder = load_part(
            CLIPTextModel, text_model_name_or_path, text_model, ("clip_text_model", "clip"), keywords["text"]
        )
        text_config, vision_config = deepcopy(text_encoder.config), deepcopy(backbone.config)
        if text_config.eos_token_id == LEGACY_END_TOKEN and text_model_name_or_path is not None:
            tokenizer = CLIPTokenizer.from_pretrained(text_model_name_or_path)
            if len(tokenizer) > 2:  # as many as transformers makes of nothing
                text_config.eos_token_id = tokenizer.eos_token_id
        model = cls(ReMamberConfig(text_config=text_config, vision_config=vision_config, **kwargs))
        base: Any = model.base_model
        base.text_encoder.load_state_dict(text_encoder.state_dict())
        base.backbone.load_state_dict(backbone.state_dict())
        return model


def check_image_index(
    image_index: torch.Tensor, num_images: torch.Tensor | None, num_pictures: int, num_expressions: int
) -> None:
    """
    Raise a ValueError unless `image_index` has an entry for each expression, names each picture and none besides, and
    was made for as many pictures as there are.

    A batch that was cut, or put together of parts that counted their pictures by themselves, is found out so.
    """
    if not isinstance(image_index, torch.Tensor):
        raise ValueError(f"image_index came as {type(image_index).__name__}; give a tensor of integers.")
    if image_index.is_floating_point() or image_index.dtype == torch.bool:
        raise ValueError(f"image_index is of {image_index.dtype}; give integers, the picture of each expression.")
    if image_index.ndim != 1 or image_index.shape[0] != num_expressions:
        raise ValueError(
            f"image_index has shape {tuple(image_index.shape)} for {num_expressions} expressions; give one for each."
        )
    advice = (
        "give the picture of each expression, counted from 0 in this batch, and no picture without expression; rows "
        "that are put together one picture to one expression need no image_index."
    )
    if num_images is not None:
        num_images = torch.as_tensor(num_images)
        check_values(
            (num_images == num_pictures).all(),
            "num_images is not the number of pictures: the batch was cut or put together of parts.",
            lambda: (
                f"image_index was made for {num_images.flatten()[0].item()} pictures (num_images), and {num_pictures} "
                f"are here: the batch was cut or put together of parts; {advice}"
            ),
        )
    pictures = torch.arange(num_pictures, device=image_index.device)
    is_named = (image_index[:, None] == pictures).any(0)
    is_inside = (image_index >= 0) & (image_index < num_pictures)
    check_values(
        is_named.all() & is_inside.all(),
        "image_index does not fit the pictures: give the picture of each expression, counted from 0; leave none over.",
        lambda: f"image_index is {reprlib.repr(image_index.tolist())} for {num_pictures} pictures; {advice}",
    )


def check_tensor(name: str, value: object) -> torch.Tensor:
    """`value`, a tensor; ValueError for anything else."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(
            f"{name} came as {type(value).__name__}; give tensors, as the processor makes them with "
            "return_tensors='pt'."
        )
    return value


def check_tokens(input_ids: torch.Tensor, attention_mask: torch.Tensor | None, embedding: nn.Module) -> None:
    """
    Raise a ValueError for tokens that the text encoder does not have, and for a mask that is not 1 up to the padding.
    """
    if input_ids.is_floating_point():
        raise ValueError(f"input_ids are {input_ids.dtype}; give integers, as the tokenizer does.")
    num_tokens = getattr(embedding, "num_embeddings", None)  # an adapter's wrapper may not tell
    if num_tokens is not None and input_ids.numel():
        check_values(
            ((input_ids >= 0) & (input_ids < num_tokens)).all(),
            "input_ids has tokens that the text encoder does not have.",
            lambda: (
                f"input_ids has the token {input_ids.max().item()}, and the text encoder has {num_tokens}; after "
                "adding words call model.resize_token_embeddings(len(tokenizer))."
            ),
        )
    if attention_mask is None:
        return
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)} and input_ids {tuple(input_ids.shape)}; give one."
        )
    mask = attention_mask.bool()
    check_values(
        mask[:, :1].all() & (mask[:, 1:] <= mask[:, :-1]).all(),
        "attention_mask is not 1 up to the padding and 0 after it.",
        lambda: "attention_mask is not 1 up to the padding and 0 after it; have the tokenizer pad on the right.",
    )


def mask_after_end(input_ids: torch.Tensor, end_token_id: int) -> torch.Tensor:
    """1 up to the first end token and 0 after it, for tokens (batch, length); all 1 where there is none."""
    is_end = (input_ids == end_token_id).to(torch.int64)
    return (is_end.cumsum(dim=-1) - is_end == 0).to(torch.int64)


class ReMamberModel(ReMamberPreTrainedModel):
    """Text encoder and VMamba backbone, the text fused into the map after every stage."""

    def __init__(self, config: ReMamberConfig):
        super().__init__(config)
        self.text_encoder = CLIPTextModel(text_config_of(config))
        self.backbone = VMambaModel(vision_config_of(config))
        fusion_class = FUSIONS[config.fusion]
        self.fusions = nn.ModuleList(fusion_class(config, size) for size in vision_config_of(config).hidden_sizes)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_encoder.set_input_embeddings(value)

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        num_images: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ReMamberModelOutput:
        """
        Args:
            pixel_values: normalized pictures (num_images, 3, height, width), any size.
            input_ids: tokens (num_expressions, text_length), padded with the end token.
            attention_mask: 1 for tokens, 0 for padding (num_expressions, text_length), for the text encoder and for
                fusions that read tokens. By default what comes after the first end token is padding.
            image_index: picture of each expression (num_expressions); what does not depend on the text runs once per
                picture. Without it there is one picture per expression.
            num_images: number of pictures that `image_index` was made for (num_expressions), as the processor gives
                it; a batch that was cut has another.
            kwargs: `output_hidden_states`, whether to return `hidden_states` too, or indices of some;
                `output_attentions`, whether to return the `attentions` of the text encoder too; `return_dict`; and
                what else transformers' text encoders take.

        Raises:
            ValueError: if the numbers of tokens, or of pictures and expressions, do not fit, or `image_index` does not
                name each picture, see `check_values`.
            TypeError: for other keywords than transformers'.
        """
        check_keywords(kwargs)
        if kwargs.get("output_attentions") is None:
            kwargs["output_attentions"] = self.config.output_attentions
        kwargs["output_hidden_states"] = False  # the text encoder's are not returned
        if input_ids is None:
            raise ValueError(
                "input_ids are missing, the tokens of an expression; give a picture and a text to the processor, or "
                "to pipeline('referring-image-segmentation')."
            )
        pixel_values, input_ids = check_tensor("pixel_values", pixel_values), check_tensor("input_ids", input_ids)
        if attention_mask is not None:
            attention_mask = check_tensor("attention_mask", attention_mask)
        if input_ids.ndim != 2:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}; it must be (num_expressions, text_length). Batches "
                "that were made one by one have an axis too many; take [0] of each."
            )
        num_pictures, num_expressions = pixel_values.shape[0], input_ids.shape[0]
        if input_ids.shape[-1] != self.config.text_length:
            raise ValueError(
                f"input_ids has {input_ids.shape[-1]} tokens per expression, the model reads exactly "
                f"{self.config.text_length} (config.text_length); pad or cut them as ReMamberProcessor does."
            )
        if image_index is None and num_pictures != num_expressions:
            raise ValueError(
                f"{num_pictures} pictures came with {num_expressions} expressions; give one picture per expression or "
                "image_index, the picture of each expression."
            )
        check_tokens(input_ids, attention_mask, self.get_input_embeddings())
        if image_index is None and num_images is not None:
            raise ValueError("num_images came without image_index; give both, or none where no picture is shared.")
        if image_index is not None:
            check_image_index(image_index, num_images, num_pictures, num_expressions)
            image_index = image_index.long()  # bytes would be a mask
        if attention_mask is None:
            end_token_id: Any = text_config_of(self.config).eos_token_id  # transformers allows None and a list
            attention_mask = mask_after_end(input_ids, end_token_id)
        # Left to itself the text encoder looks whether all are 1, and a GPU runs dry until the answer is there.
        like_embeddings = input_ids.new_empty((*input_ids.shape, 0), dtype=self.text_encoder.dtype)
        causal_mask = create_causal_mask(
            self.text_encoder.config,
            like_embeddings,
            attention_mask,
            None,  # no cache; by place, as its name changes with transformers 5.24
            allow_is_causal_skip=False,
        )
        text = self.text_encoder(
            input_ids=input_ids,
            attention_mask=causal_mask,
            return_dict=True,
            **kwargs,
        )

        maps = [channels_first(self.backbone.stem(pixel_values))]
        hidden_states = channels_last(maps[-1])  # goes on from what is returned, so that the two have one gradient
        stage: Any  # a VMambaStage, of which a ModuleList does not tell
        for index, (stage, fusion) in enumerate(zip(self.backbone.stages, self.fusions)):
            hidden_states = stage.blocks(hidden_states)
            if index == 0 and image_index is not None:
                hidden_states = hidden_states[image_index]
            fused = fusion(hidden_states, text.last_hidden_state, text.pooler_output, attention_mask)
            maps.append(channels_first(fused))
            hidden_states = stage.downsample(channels_last(maps[-1]))
        return ReMamberModelOutput(
            last_hidden_state=maps[-1],
            feature_maps=tuple(maps[1:]),
            text_hidden_states=text.last_hidden_state,
            hidden_states=tuple(maps),
            attentions=text.attentions,
            text_pooler_output=text.pooler_output,
        )


class ReMamberForImageSegmentation(ReMamberPreTrainedModel):
    """
    ReMamber with a mask head: the mask of what an expression means; with `predicts_presence` also whether it means
    anything in the picture.
    """

    def __init__(self, config: ReMamberConfig):
        super().__init__(config)
        self.remamber = ReMamberModel(config)
        self.mask_head = MASK_HEADS[config.mask_head](config)
        self.presence_head = None
        if config.predicts_presence:
            with torch.random.fork_rng(devices=[]):  # a seed gives the other weights the same values with it
                self.presence_head = PresenceHead(config)
        self.is_folded = False
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_images: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        is_present: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ReMamberImageSegmentationOutput:
        """
        Args:
            pixel_values: normalized pictures (num_images, 3, height, width), any size.
            input_ids: tokens (num_expressions, text_length), padded with the end token.
            attention_mask: 1 for tokens, 0 for padding (num_expressions, text_length); by default what comes after the
                first end token is padding.
            image_index: picture of each expression (num_expressions), where pictures are shared.
            labels: masks (num_expressions, height, width) of 0 and 1, of the pictures' size, all 0 for an expression
                that means nothing; with them comes `loss`.
            num_images: number of pictures that `image_index` was made for (num_expressions).
            token_type_ids: not read; tokenizers of other kinds give them, and CLIP's text has no segments.
            is_present: beside labels, whether each expression means something (num_expressions), for the presence
                head; by default where a label has a pixel. A small object may have none at this size.
            kwargs: as `ReMamberModel` takes them.

        Returns:
            `logits` (num_expressions, 1, height, width) at the pictures' size, which the presence leaves as they are,
            and with `predicts_presence` the `presence_logits` (num_expressions).

        Raises:
            ValueError: if tokens, pictures, expressions or labels do not fit, see `ReMamberModel` and
                `segmentation_loss`.
        """
        outputs = self.remamber(
            pixel_values,
            input_ids,
            attention_mask=attention_mask,
            image_index=image_index,
            num_images=num_images,
            return_dict=True,
            **kwargs,
        )
        feature_maps = tuple(channels_last(feature_map) for feature_map in outputs.feature_maps)
        logits = self.mask_head(feature_maps, outputs.text_hidden_states)
        size = check_tensor("pixel_values", pixel_values).shape[-2:]
        logits = channels_first(resize(logits, size, align_corners=True))
        presence_logits = None
        if self.presence_head is not None:
            presence_logits = self.presence_head(feature_maps[-1], outputs.text_pooler_output)
        loss = None
        if labels is not None:
            loss = segmentation_loss(logits, labels)
            if presence_logits is not None:
                loss = loss + self.config.presence_loss_weight * presence_loss(presence_logits, labels, is_present)
        return ReMamberImageSegmentationOutput(
            loss=loss,
            logits=logits,
            presence_logits=presence_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def optimize_for_inference(self, compile: bool | str = False) -> "ReMamberForImageSegmentation":
        """
        Fold the batch norms of the mask head into the layers before them, in place; calling it again changes nothing.

        Logits stay equal to 1e-4. A folded model is neither trained nor saved: its weights are no longer ReMamber's.

        Args:
            compile: whether to have `torch.compile` compile the model too, at the first call for each size of picture;
                or its mode, such as "reduce-overhead": CUDA graphs, whose outputs the next call overwrites.

        Returns:
            the model itself.

        Raises:
            RuntimeError: if the model is in training mode or weights are offloaded.
        """
        if self.training:
            raise RuntimeError("A model in training mode cannot be optimized for inference; call model.eval() first.")
        if any(parameter.is_meta for parameter in self.mask_head.parameters()):
            raise RuntimeError(
                "The mask head's weights are offloaded; load the model without device_map to optimize it."
            )
        if not self.is_folded:
            with torch.no_grad():
                for module in self.mask_head.modules():
                    if isinstance(module, (ConvMixer, ConvNormReLU)):
                        fold_batch_norms(module)
            self.is_folded = True
        if compile:
            self.compile(mode=None if compile is True else compile)
        return self

    def train(self, mode: bool = True) -> "ReMamberForImageSegmentation":
        if mode and self.is_folded:
            raise RuntimeError(
                "optimize_for_inference() folded the batch norms of this model away; load it anew to train it."
            )
        return super().train(mode)

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """
        Write the model and its code as every model does, and the pipeline's code, which `config.json` then names.

        Raises:
            RuntimeError: if the batch norms are folded.
        """
        if self.is_folded:
            raise RuntimeError(
                "optimize_for_inference() folded the batch norms of this model away; save it before, or load it anew."
            )
        vars(self.config).pop("custom_pipelines", None)
        if self.is_saved_with_code:
            self.config.custom_pipelines = deepcopy(CUSTOM_PIPELINES)
        super().save_pretrained(save_directory, *args, **kwargs)


__all__ = ["ReMamberForImageSegmentation", "ReMamberModel", "ReMamberPreTrainedModel"]
