# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of a published checkpoint of any size, written from the description of the released models."""

import math


class PublishedShapes:
    """
    Collects `shapes`, name → shape, of a published model.

    Args:
        hidden_sizes, depths: of the four stages.
        state_size, expand, conv_bias: of every SS2D; `vision_state_size`, `vision_expand` of the backbone's where they
            differ.
    """

    def __init__(
        self,
        hidden_sizes=(16, 32, 64, 128),
        depths=(1, 1, 2, 1),
        expand=2.0,
        state_size=1,
        conv_bias=False,
        vision_expand=None,
        vision_state_size=None,
        mlp_ratio=4,
        num_channels=3,
    ):
        self.shapes = {}
        self.hidden_sizes, self.depths = hidden_sizes, depths
        self.expand, self.state_size, self.conv_bias = expand, state_size, conv_bias
        self.vision_expand, self.vision_state_size = vision_expand or expand, vision_state_size or state_size
        self.mlp_ratio, self.num_channels = mlp_ratio, num_channels

    # layers
    def weight(self, name, *shape, bias=True):
        self.shapes[f"{name}.weight"] = list(shape)
        if bias:
            self.shapes[f"{name}.bias"] = [shape[0]]

    def batch_norm(self, name, size):
        self.weight(name, size)
        self.shapes |= {
            f"{name}.running_mean": [size],
            f"{name}.running_var": [size],
            f"{name}.num_batches_tracked": [],
        }

    def ss2d(self, name, size, input_size=None, is_gated=False, expand=None, state_size=None):
        inner, states, rank = int((expand or self.expand) * size), state_size or self.state_size, math.ceil(size / 16)
        self.shapes |= {
            f"{name}.x_proj_weight": [4, rank + 2 * states, inner],
            f"{name}.dt_projs_weight": [4, inner, rank],
            f"{name}.dt_projs_bias": [4, inner],
            f"{name}.A_logs": [4 * inner, states],
            f"{name}.Ds": [4 * inner],
        }
        self.weight(f"{name}.in_proj", (1 + is_gated) * inner, input_size or size, bias=False)
        self.weight(f"{name}.conv2d", inner, 1, 3, 3, bias=self.conv_bias)
        self.weight(f"{name}.out_norm", inner)
        self.weight(f"{name}.out_proj", size, inner, bias=False)

    # models
    def backbone(self, prefix=""):
        first = self.hidden_sizes[0]
        self.weight(f"{prefix}patch_embed.0", first // 2, self.num_channels, 3, 3)
        self.weight(f"{prefix}patch_embed.2", first // 2)
        self.weight(f"{prefix}patch_embed.5", first, first // 2, 3, 3)
        self.weight(f"{prefix}patch_embed.7", first)
        for i, (size, depth) in enumerate(zip(self.hidden_sizes, self.depths, strict=True)):
            for j in range(depth):
                block = f"{prefix}layers.{i}.blocks.{j}"
                self.weight(f"{block}.norm", size)
                self.ss2d(f"{block}.op", size, expand=self.vision_expand, state_size=self.vision_state_size)
                self.weight(f"{block}.norm2", size)
                self.weight(f"{block}.mlp.fc1", self.mlp_ratio * size, size)
                self.weight(f"{block}.mlp.fc2", size, self.mlp_ratio * size)
            if i + 1 < len(self.hidden_sizes):
                self.weight(f"{prefix}layers.{i}.downsample.1", self.hidden_sizes[i + 1], size, 3, 3)
                self.weight(f"{prefix}layers.{i}.downsample.3", self.hidden_sizes[i + 1])

    def text_encoder(self, size=768, vocabulary=1000, positions=77, layers=1, intermediate=256):
        self.text_size = size
        prefix = "text_encoder.text_model"
        self.weight(f"{prefix}.embeddings.token_embedding", vocabulary, size, bias=False)
        self.weight(f"{prefix}.embeddings.position_embedding", positions, size, bias=False)
        for i in range(layers):
            layer = f"{prefix}.encoder.layers.{i}"
            for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
                self.weight(f"{layer}.self_attn.{projection}", size, size)
            self.weight(f"{layer}.layer_norm1", size)
            self.weight(f"{layer}.mlp.fc1", intermediate, size)
            self.weight(f"{layer}.mlp.fc2", size, intermediate)
            self.weight(f"{layer}.layer_norm2", size)
        self.weight(f"{prefix}.final_layer_norm", size)

    def texts(self, prefix, i, size, text_length, correlation_size):
        """Global and local text of level `i`."""
        self.weight(f"{prefix}.text_guidencee.{i}.0", size, self.text_size)
        local = f"{prefix}.local_text_fusion.{i}"
        self.weight(f"{local}.vis_proj.0", correlation_size, size)
        self.weight(f"{local}.text_proj.0", correlation_size, self.text_size)
        self.weight(f"{local}.unsqueeze.0", correlation_size, text_length, 3, 3)
        self.weight(f"{local}.out_proj", size, correlation_size)

    def fusion(self, text_length=20, correlation_size=512, num_blocks=2, channel_scan_size=16):
        for i, size in enumerate(self.hidden_sizes):
            self.texts("backbone", i, size, text_length, correlation_size)
            for j in range(num_blocks):
                block = f"backbone.multimodal_blocks.{i}.blocks.{j}"
                self.weight(f"{block}.ln_1", size)
                self.ss2d(f"{block}.self_attention.ss2d", size, input_size=3 * size)
                self.ss2d(f"{block}.self_attention.ss1d", channel_scan_size**2, is_gated=True)

    def conv_head(self, ratio=4):
        stage1, stage2, stage3, stage4 = self.hidden_sizes
        width = ratio * stage1
        for name, size in (("mixer3", stage4), ("mixer2", width + stage3), ("mixer1", width + stage2)):
            self.weight(f"decoder.{name}.conv1.conv", size, size, 1, 1, bias=False)
            self.batch_norm(f"decoder.{name}.conv1.bn", size)
            self.weight(f"decoder.{name}.dwconv", size, 1, 3, 3, bias=False)
            self.batch_norm(f"decoder.{name}.norm", size)
            self.weight(f"decoder.{name}.conv2.conv", width, size, 1, 1, bias=False)
            self.batch_norm(f"decoder.{name}.conv2.bn", width)
        self.weight("decoder.neck.0", width, width + stage1, 3, 3)
        self.batch_norm("decoder.neck.1", width)
        self.weight("decoder.neck.4", width, width, 3, 3)
        self.batch_norm("decoder.neck.5", width)
        self.weight("decoder.neck.8", 1, width, 3, 3)

    def mamba_head(self, depths=(2, 4, 2, 2), text_length=20, correlation_size=512):
        for i, (size, depth) in enumerate(zip(self.hidden_sizes[::-1], depths, strict=True)):
            self.texts("decoder", i, size, text_length, correlation_size)
            self.weight(f"decoder.in_proj.{i}", size, 3 * size, bias=False)
            for j in range(depth):
                block = f"decoder.multimodal_blocks.{i}.blocks.{j}"
                self.weight(f"{block}.ln_1", size)
                self.ss2d(f"{block}.self_attention", size)
            self.weight(f"decoder.multimodal_blocks.{i}.downsample.proj", size // 2, size, bias=False)
            self.weight(f"decoder.multimodal_blocks.{i}.downsample.norm", size // 2)
            if i < 3:
                fusion = f"decoder.hire_fusion.{i}.fusion"
                self.weight(f"{fusion}.0", size // 2, size, 3, 3, bias=False)
                self.batch_norm(f"{fusion}.1", size // 2)
                self.weight(f"{fusion}.3", size // 2, size // 2, 3, 3, bias=False)
                self.batch_norm(f"{fusion}.4", size // 2)
        width = self.hidden_sizes[0] // 2
        self.weight("decoder.proj_out.1.0", width, width, 3, 3, bias=False)
        self.batch_norm("decoder.proj_out.1.1", width)
        self.weight("decoder.proj_out.2", 1, width, 3, 3)

    def classifier(self, num_classes=10):
        self.weight("classifier.norm", self.hidden_sizes[-1])
        self.weight("classifier.head", num_classes, self.hidden_sizes[-1])


def remamber_shapes(
    mask_head="conv", text=None, head=None, text_length=20, correlation_size=512, fusion=None, **sizes
) -> dict[str, list[int]]:
    """Shapes of ReMamber_Conv or ReMamber_Mamba; `text`, `head` and `fusion` are arguments of those parts."""
    model = PublishedShapes(**sizes)
    local_text = {"text_length": text_length, "correlation_size": correlation_size}
    model.backbone("backbone.")
    model.text_encoder(**(text or {}))
    model.fusion(**local_text, **(fusion or {}))
    if mask_head == "conv":
        model.conv_head(**(head or {}))
    else:
        model.mamba_head(**local_text, **(head or {}))
    return model.shapes


def vmamba_shapes(num_classes=10, **sizes) -> dict[str, list[int]]:
    """Shapes of a VMamba ImageNet classifier."""
    model = PublishedShapes(**sizes)
    model.backbone()
    model.classifier(num_classes)
    return model.shapes
