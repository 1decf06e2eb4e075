# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters, FLOPs and MACs of every part are, to the last one, what the papers' formulas give by hand."""

import math
from typing import NamedTuple

import pytest
import torch
from tiny import FUSIONS, MASK_HEADS, REMAMBER_FIELDS, TEXT_FIELDS, VISION_FIELDS, build, vim_config, vision_config

from remamber_hf import VimForImageClassification, VMambaConfig, VMambaForImageClassification
from remamber_hf.inference.cost import META, count_parts


SIZE = (64, 96)
PIXELS = [(64 >> scale) * (96 >> scale) for scale in range(6)]  # of maps of stride 1, 2, 4, 8, 16, 32
WIDTHS = VISION_FIELDS["hidden_sizes"]
TOKENS, TEXT, SHARED = REMAMBER_FIELDS["text_length"], TEXT_FIELDS["hidden_size"], REMAMBER_FIELDS["correlation_size"]
CELLS = REMAMBER_FIELDS["channel_scan_size"] ** 2
STATES, DIRECTIONS = 1, 4
# How the Twister scans: along the channels of how many maps, from how many maps to one by a linear layer, likewise by
# a spatial scan. The cube has three maps.
SCANS = {
    "channel_then_spatial": (3, 0, 3),
    "spatial_then_channel": (1, 0, 3),
    "channel": (3, 3, 0),
    "spatial": (0, 0, 3),
    "parallel": (3, 3, 3),
}


class Cost(NamedTuple):
    parameters: int
    flops: int = 0
    macs: int = 0

    def __add__(self, other):
        return Cost(*(one + another for one, another in zip(self, other)))

    def times(self, number: int) -> "Cost":
        return Cost(*(number * value for value in self))


def total(*costs: Cost) -> Cost:
    return sum(costs, start=Cost(0))


# ---------------------------------------------------------------------------------------------------------- the boxes


def product(number: int, weights: int = 0) -> Cost:
    """So many multiplications, each with its addition."""
    return Cost(weights, 2 * number, number)


def linear(rows: int, size_in: int, size_out: int, bias: bool = True) -> Cost:
    return product(rows * size_in * size_out, size_in * size_out + bias * size_out)


def conv(pixels: int, size_in: int, size_out: int, bias: bool = True) -> Cost:
    """3×3, to so many pixels."""
    return linear(pixels, 9 * size_in, size_out, bias)


def norm(channels: int) -> Cost:
    return Cost(2 * channels)


def scan(steps: int, channels: int, rank: int, states: int, directions: int) -> Cost:
    """x_proj, dt_proj, the recurrence with its nine operations for each state, and the skip; channels are inner."""
    x_proj = product(steps * directions * (rank + 2 * states) * channels)
    dt_proj = product(steps * directions * rank * channels)
    recurrence = Cost(0, 9 * steps * directions * states * channels, 9 * steps * directions * states * channels)
    skip = product(steps * directions * channels)
    weights = directions * channels * ((rank + 2 * states) + rank + 1 + states + 1)  # …, bias of dt_proj, A, D
    return total(x_proj, dt_proj, recurrence, skip, Cost(weights))


def ss2d(pixels: int, channels: int, size_in: int | None = None, is_gated: bool = False, tokens: int = 0) -> Cost:
    """Section 3 of the paper's VMamba; `tokens` are scanned with the pixels, but are not convolved or put out."""
    inner, rank = 2 * channels, math.ceil(channels / 16)
    return total(
        linear(pixels + tokens, size_in or channels, inner * (1 + is_gated), bias=False),
        product(9 * pixels * inner, 9 * inner),  # depthwise
        scan(pixels + tokens, inner, rank, STATES, DIRECTIONS),
        norm(inner),
        linear(pixels, inner, channels, bias=False),
    )


def attention(asking: int, answering: int, channels: int) -> Cost:
    return product(2 * asking * answering * channels)


# ---------------------------------------------------------------------------------------------------------- the parts


def text_encoder() -> Cost:
    wide = TEXT_FIELDS["intermediate_size"]
    embeddings = Cost(TEXT * (TEXT_FIELDS["vocab_size"] + TEXT_FIELDS["max_position_embeddings"]))
    layer = total(
        norm(TEXT),
        linear(TOKENS, TEXT, TEXT).times(4),
        attention(TOKENS, TOKENS, TEXT),
        norm(TEXT),
        linear(TOKENS, TEXT, wide),
        linear(TOKENS, wide, TEXT),
    )
    return total(embeddings, layer.times(TEXT_FIELDS["num_hidden_layers"]), norm(TEXT))


def stem() -> Cost:
    half, width = WIDTHS[0] // 2, WIDTHS[0]
    return total(conv(PIXELS[1], 3, half), norm(half), conv(PIXELS[2], half, width), norm(width))


def stage(index: int) -> Cost:
    pixels, width = PIXELS[2 + index], WIDTHS[index]
    mlp = linear(pixels, width, 4 * width) + linear(pixels, 4 * width, width)
    block = total(norm(width), ss2d(pixels, width), norm(width), mlp)
    if index == 3:
        return block
    downsample = conv(PIXELS[3 + index], width, WIDTHS[index + 1]) + norm(WIDTHS[index + 1])
    return block + downsample


def backbone() -> Cost:
    return total(stem(), *map(stage, range(4)))


def global_text(width: int) -> Cost:
    return linear(1, TEXT, width)


def local_text(pixels: int, width: int) -> Cost:
    return total(
        linear(pixels, width, SHARED),
        linear(TOKENS, TEXT, SHARED),
        product(pixels * TOKENS * SHARED),
        conv(pixels, TOKENS, SHARED),
        linear(pixels, SHARED, width),
    )


def twister(pixels: int, width: int, scans: str = "channel_then_spatial") -> Cost:
    along, to_one, spatial = SCANS[scans]
    block = norm(width)
    block += ss2d(along * width, CELLS, is_gated=True) if along else Cost(0)
    block += linear(pixels, to_one * width, width, bias=False) if to_one else Cost(0)
    block += ss2d(pixels, width, size_in=spatial * width) if spatial else Cost(0)
    return total(global_text(width), local_text(pixels, width), block.times(2))


def in_context(pixels: int, width: int) -> Cost:
    block = norm(width) + ss2d(pixels, width, tokens=TOKENS)
    if width <= 16:  # of rank 1 the time step is a product of elements, which are not counted where they are no scan's
        block += product((pixels + TOKENS) * DIRECTIONS * 2 * width).times(-1)
    return linear(TOKENS, TEXT, width) + block.times(2)


def cross_attention(pixels: int, width: int) -> Cost:
    inner = 32 * math.ceil(width / 32)  # whole heads
    asking = linear(pixels, width, inner, bias=False) + linear(pixels, inner, width, bias=False)
    answering = linear(TOKENS, TEXT, inner, bias=False).times(2)
    block = total(norm(width), asking, answering, attention(pixels, TOKENS, inner), norm(width), ss2d(pixels, width))
    return block.times(2)


def norm_adaptation(pixels: int, width: int) -> Cost:
    return total(linear(1, TEXT, 3 * width), ss2d(pixels, width)).times(2)


FUSION_COSTS = {
    "twister": twister,
    "in_context": in_context,
    "cross_attention": cross_attention,
    "norm_adaptation": norm_adaptation,
}


def fusions(cost, *options) -> Cost:
    return total(*(cost(pixels, width, *options) for pixels, width in zip(PIXELS[2:], WIDTHS)))


def conv_head() -> Cost:
    width = 4 * WIDTHS[0]
    cost = Cost(0)
    for pixels, size_in in zip(PIXELS[:2:-1], (WIDTHS[3], width + WIDTHS[2], width + WIDTHS[1])):
        depthwise = product(9 * pixels * size_in, 9 * size_in)
        cost += total(linear(pixels, size_in, size_in, bias=False), norm(size_in), depthwise, norm(size_in))
        cost += linear(pixels, size_in, width, bias=False) + norm(width)
    neck = conv(PIXELS[2], width + WIDTHS[0], width) + norm(width) + conv(PIXELS[1], width, width) + norm(width)
    return total(cost, neck, conv(PIXELS[0], width, 1))


def mamba_head() -> Cost:
    cost = Cost(0)
    for level, (pixels, width) in enumerate(zip(PIXELS[:1:-1], WIDTHS[::-1])):
        half = width // 2
        cost += total(global_text(width), local_text(pixels, width), linear(pixels, 3 * width, width, bias=False))
        cost += norm(width) + ss2d(pixels, width)
        cost += linear(pixels, width, half, bias=False) + norm(half)  # before the resize, with which it commutes
        if level < 3:
            finer = 4 * pixels
            cost += (
                conv(finer, width, half, bias=False) + norm(half) + conv(finer, half, half, bias=False) + norm(half)
            )
    half = WIDTHS[0] // 2
    return total(cost, conv(PIXELS[0], half, half, bias=False), norm(half), conv(PIXELS[0], half, 1))


def presence_head() -> Cost:
    return total(
        norm(WIDTHS[3]),
        linear(PIXELS[5], WIDTHS[3], 256),
        norm(TEXT),
        linear(1, TEXT, 256, bias=False),
        linear(1, 2 * 256, 1),
    )


HEAD_COSTS = {"conv": conv_head, "mamba": mamba_head}


# --------------------------------------------------------------------------------------------------------- the claims


def counted(model) -> dict[str, Cost]:
    parts = count_parts(model, SIZE)
    assert all(counts["trained"] == counts["parameters"] for counts in parts.values())
    return {part: Cost(counts["parameters"], counts["flops"], counts["macs"]) for part, counts in parts.items()}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("mask_head", MASK_HEADS)
@pytest.mark.parametrize("predicts_presence", [False, True], ids=["", "presence"])
def test_every_part_of_a_remamber_costs_what_its_formulas_say(fusion, mask_head, predicts_presence):
    with META:
        model = build(mask_head, fusion=fusion, predicts_presence=predicts_presence)
    expected = {
        "text_encoder": text_encoder(),
        "backbone": backbone(),
        "fusion": fusions(FUSION_COSTS[fusion]),
        "mask_head": HEAD_COSTS[mask_head](),
        **({"presence_head": presence_head()} if predicts_presence else {}),
    }
    assert counted(model) == {**expected, "whole": total(*expected.values())}


@pytest.mark.parametrize("scans", SCANS)
def test_every_arrangement_of_scans_costs_what_its_formulas_say(scans):
    with META:
        model = build(twister_scans=scans)
    assert counted(model)["fusion"] == fusions(twister, scans)


def test_a_vmamba_costs_what_its_formulas_say():
    with META:
        model = VMambaForImageClassification(vision_config(num_labels=10))
    expected = {"stem": stem(), **{f"stage{index + 1}": stage(index) for index in range(4)}}
    expected |= {"norm": norm(WIDTHS[3]), "classifier": linear(1, WIDTHS[3], 10)}
    assert counted(model) == {**expected, "whole": total(*expected.values())}


def test_a_vim_costs_what_its_formulas_say():
    with META:
        model = VimForImageClassification(vim_config(num_labels=10))
    width, states, patches, kernel = 24, 4, 4 * 6, 4
    inner, rank, steps = 2 * width, math.ceil(width / 16), patches + 1  # with the class token
    learned = (3 * 4 + 2) * width  # positions, of a grid of 48×64 pixels; the class token and its position
    embeddings = linear(patches, 3 * 16 * 16, width) + Cost(learned)
    mixer = total(
        linear(steps, width, 2 * inner, bias=False),
        # PyTorch's convolution computes the steps behind the last one too, which are cut off.
        product((steps + kernel - 1) * 2 * inner * kernel, 2 * inner * (kernel + 1)),
        scan(steps, inner, rank, states, directions=2),
        linear(steps, inner, width, bias=False),
    )
    layers = total(Cost(width), mixer).times(3)
    expected = {"embeddings": embeddings, "layers": layers, "norm": Cost(width), "classifier": linear(1, width, 10)}
    assert counted(model) == {**expected, "whole": total(*expected.values())}


@pytest.mark.parametrize("num_expressions", [2, 5])
def test_expressions_about_one_picture_share_what_comes_before_the_text(num_expressions):
    with META:
        model = build(predicts_presence=True)
    parts = count_parts(model, SIZE, num_expressions)
    shared = stem().flops + stage(0).flops - conv(PIXELS[3], WIDTHS[0], WIDTHS[1]).flops  # but for the downsample
    expected = {"text_encoder": text_encoder(), "fusion": fusions(twister), "mask_head": conv_head()}
    expected["presence_head"] = presence_head()
    for part, cost in expected.items():
        assert parts[part]["flops"] == num_expressions * cost.flops
    assert parts["backbone"]["flops"] == shared + num_expressions * (backbone().flops - shared)


@pytest.mark.parametrize(
    ("fields", "parameters", "published"),
    [
        ({"hidden_sizes": [96, 192, 384, 768], "depths": [2, 2, 8, 2], "expand": 1.0}, 30, "4.9"),
        ({"hidden_sizes": [96, 192, 384, 768], "depths": [2, 2, 15, 2]}, 50, "8.7"),
        ({}, 89, "15.4"),
    ],
    ids=["tiny", "small", "base"],
)
def test_macs_are_what_vmambas_table_has_as_flops_but_for_its_norms(fields, parameters, published):
    """VMamba, arXiv 2401.10166, table of ImageNet at 224 pixels; fvcore has five operations for a value in a norm."""
    values = []
    with META:
        model = VMambaForImageClassification(VMambaConfig(num_labels=1000, **fields))
        hooks = [
            module.register_forward_hook(lambda module, args, output: values.append(output.numel()))
            for module in model.modules()
            if isinstance(module, torch.nn.LayerNorm)
        ]
        model.eval()(torch.empty(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    whole = count_parts(model, 224)["whole"]
    assert round(whole["parameters"] / 1e6) == parameters
    assert f"{(whole['macs'] + 5 * sum(values)) / 1e9:.1f}" == published
