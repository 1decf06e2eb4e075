# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Explanations of a mask: what the maps are, what the growth is, and that the figure shows them legibly."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import MASK_HEADS, make_tokenizer, remamber_config
from typer.testing import CliRunner

from remamber_hf import ReMamberForImageSegmentation, ReMamberImageProcessorPil, ReMamberProcessor
from remamber_hf.cli.main import app
from remamber_hf.inference.explanation import (
    Explanation,
    draw_explanation,
    explain_mask,
    flatten_layout,
    recorded_inputs,
    shorten,
)
from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES, load_pipeline


STAGES = ["stage 1", "stage 2", "stage 3", "stage 4"]
LEVELS = ["head level 1", "head level 2", "head level 3", "head level 4"]


@pytest.fixture(scope="module")
def bundled():
    return load_pipeline(BUNDLED_MODEL, "cpu")


@pytest.fixture(scope="module")
def picture():
    return Image.open(BUNDLED_PICTURES / "shapes_3.png").convert("RGB")


@pytest.fixture(scope="module")
def tiny_processor():
    tokenizer = make_tokenizer(pad_token="<|endoftext|>")
    size = {"height": 64, "width": 96}
    return ReMamberProcessor(ReMamberImageProcessorPil(size=size), tokenizer, text_length=7)


def tiny_model(mask_head, processor, **fields):
    torch.manual_seed(0)
    config = remamber_config(mask_head, **fields)
    end = processor.tokenizer.eos_token_id
    config.text_config.vocab_size = len(processor.tokenizer)
    config.text_config.eos_token_id = config.text_config.pad_token_id = end
    config.text_config.bos_token_id = processor.tokenizer.bos_token_id
    return ReMamberForImageSegmentation(config).eval()


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_correlations_are_the_inner_products_of_token_and_pixel_without_the_padding(mask_head, tiny_processor):
    model = tiny_model(mask_head, tiny_processor)
    picture = Image.effect_noise((60, 40), 90).convert("RGB")
    explanation = explain_mask(model, tiny_processor, picture, "cat dog")
    assert explanation.tokens == ["[start]", "cat", "dog", "[end]"]
    assert list(explanation.correlations) == STAGES + (LEVELS if mask_head == "mamba" else [])
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    shapes = [maps.shape for maps in explanation.correlations.values()]
    assert shapes[:4] == [(4, *size) for size in sizes]
    assert shapes[4:] == ([(4, *size) for size in sizes[::-1]] if mask_head == "mamba" else [])

    texts = [fusion.local_text for fusion in model.remamber.fusions]
    texts += [level.local_text for level in model.mask_head.levels] if mask_head == "mamba" else []
    inputs = tiny_processor(images=picture, text="cat dog", return_tensors="pt")
    with torch.no_grad(), recorded_inputs(dict(enumerate(texts))) as recorded:
        model(**inputs)
        for (index, (pixels, tokens)), maps in zip(recorded.items(), explanation.correlations.values()):
            pixels, tokens = F.gelu(texts[index].vision_proj(pixels[0])), F.gelu(texts[index].text_proj(tokens[0]))
            for token in range(4):
                expected = (pixels * tokens[token]).sum(-1)
                torch.testing.assert_close(torch.from_numpy(maps[token]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{"fusion": "cross_attention"}, {"use_local_text": False}])
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_fusion_without_correlations_has_its_growth_and_those_of_the_mask_head(mask_head, fields, tiny_processor):
    model = tiny_model(mask_head, tiny_processor, **fields)
    picture = Image.effect_noise((60, 40), 90).convert("RGB")
    explanation = explain_mask(model, tiny_processor, picture, "cat dog")
    assert list(explanation.correlations) == (LEVELS if mask_head == "mamba" else [])
    assert len(explanation.growth) == 4
    assert draw_explanation(picture, explanation).width == 1200


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_growth_reads_the_layout_of_the_first_stages_only(mask_head, tiny_processor):
    model = tiny_model(mask_head, tiny_processor)
    picture = Image.effect_noise((96, 64), 90).convert("RGB")
    growth = explain_mask(model, tiny_processor, picture, "cat dog").growth
    inputs = tiny_processor(images=picture, text="cat dog", return_tensors="pt")
    with torch.no_grad(), recorded_inputs({"head": model.mask_head}) as recorded:
        model(**inputs)
        maps, text = recorded["head"]
        for num_kept in (1, 2, 3):
            # Shuffled pixels have the same mean, so whatever reads the mean alone gives the same.
            order = torch.randperm(maps[3].shape[1] * maps[3].shape[2])
            shuffled = maps[3].flatten(1, 2)[:, order].unflatten(1, maps[3].shape[1:3])
            later = [*maps[num_kept:3], shuffled]
            logits = model.mask_head((*maps[:num_kept], *map(flatten_layout, later)), text)
            expected = F.interpolate(logits.permute(0, 3, 1, 2), (64, 96), mode="bilinear", align_corners=True)
            found = torch.from_numpy(growth[num_kept - 1])
            torch.testing.assert_close(found, expected[0, 0].sigmoid(), rtol=1e-4, atol=1e-5)
    assert len({probabilities.tobytes() for probabilities in growth}) == 4


def test_growth_ends_in_the_mask_of_the_model(bundled, picture):
    growth = explain_mask(bundled.model, bundled.processor, picture, "the purple star").growth
    found = bundled(picture, "the purple star", return_probabilities=True)
    assert [probabilities.shape for probabilities in growth] == [(480, 480)] * 4
    assert (growth[-1] == found["probabilities"]).all()


def test_explaining_leaves_no_hooks_behind(bundled, picture):
    model, processor = bundled.model, bundled.processor
    explain_mask(model, processor, picture, "the purple star")
    with pytest.raises(ValueError, match="Expression 0 is ' '"):
        explain_mask(model, processor, picture, " ")
    with pytest.raises(RuntimeError), recorded_inputs({"all": model}):
        raise RuntimeError
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_tokens_are_named_as_the_expression_spells_them(bundled, picture):
    model, processor = bundled.model, bundled.processor
    expression = "The  Purple café 🐱"
    tokens = explain_mask(model, processor, picture, expression).tokens
    assert tokens[:3] == ["[start]", "The", "Purple"] and tokens[-1] == "[end]"
    assert {"é-", "é"} <= set(tokens)  # two tokens, one for each byte of the letter
    cut = explain_mask(model, processor, picture, "star " * 30).tokens
    assert cut == ["[start]", *["star"] * 18, "[end]"]


def test_several_expressions_and_training_mode_are_refused(bundled, picture):
    model, processor = bundled.model, bundled.processor
    with pytest.raises(ValueError, match="expression is a list; give one expression"):
        explain_mask(model, processor, picture, ["the purple star"])
    model.train()
    try:
        with pytest.raises(ValueError, match=r"in training mode, .*; call model\.eval\(\) first"):
            explain_mask(model, processor, picture, "the purple star")
    finally:
        model.eval()


def test_a_model_in_bfloat16_is_explained(tiny_processor):
    model = tiny_model("mamba", tiny_processor).to(torch.bfloat16)
    explanation = explain_mask(model, tiny_processor, Image.new("RGB", (30, 20)), "cat")
    maps = [*explanation.correlations.values(), *explanation.growth]
    assert {array.dtype for array in maps} == {np.dtype("float32")}
    assert all(np.isfinite(array).all() for array in maps)


# -------------------------------------------------------------------------------------------------------- the figure


def made_up(num_tokens: int, size: tuple[int, int]) -> Explanation:
    """Maps of 4 × 4 cells that are highest, by an amount of the token's own, in one cell of the diagonal."""
    maps = {stage: np.zeros((num_tokens, 4, 4), dtype=np.float32) for stage in STAGES}
    for index, array in enumerate(maps.values()):
        array[:, index, index] = 1 + np.arange(num_tokens)
    growth = [np.full(size[::-1], 0.1, dtype=np.float32) for _ in STAGES]
    return Explanation("an expression", [f"token{index}" for index in range(num_tokens)], maps, growth)


@pytest.mark.parametrize(("num_tokens", "num_lines"), [(3, 1), (8, 1), (9, 2), (20, 3)])
@pytest.mark.parametrize("size", [(96, 96), (300, 20), (20, 300), (1, 400)])
def test_the_figure_is_1200_wide_and_has_a_map_for_each_token_and_stage(num_tokens, num_lines, size):
    figure = draw_explanation(Image.new("RGB", size, "white"), made_up(num_tokens, size))
    assert figure.width == 1200
    pixels = np.asarray(figure, dtype=int)
    is_highest = (pixels == (253, 231, 37)).all(-1)
    assert is_highest[:, :20].sum() == 0  # nothing reaches into the labels
    columns = -(-num_tokens // num_lines)
    if size == (96, 96):
        cell = ((min(220, (1200 - 8 - 110) // columns - 8)) / 4) ** 2
        assert is_highest.sum() == pytest.approx(4 * num_tokens * cell, rel=0.05)


def test_each_map_has_its_own_scale(picture):
    explanation = made_up(3, picture.size)
    louder = {stage: maps * np.float32(1000) for stage, maps in explanation.correlations.items()}
    figures = [
        np.asarray(draw_explanation(picture, Explanation("e", explanation.tokens, maps, explanation.growth)))
        for maps in (explanation.correlations, louder)
    ]
    is_heat = [figure.std(-1) > 10 for figure in figures]  # captions, in grey, differ
    assert (is_heat[0] == is_heat[1]).all()
    assert (figures[0][is_heat[0]] == figures[1][is_heat[1]]).all()


@pytest.mark.filterwarnings("error")
def test_a_map_that_is_the_same_everywhere_is_drawn(picture):
    explanation = made_up(3, picture.size)
    flat = {stage: np.full_like(maps, 7) for stage, maps in explanation.correlations.items()}
    figure = draw_explanation(picture, Explanation("e", explanation.tokens, flat, explanation.growth))
    assert not (np.asarray(figure) == (253, 231, 37)).all(-1).any()


def test_a_picture_of_another_size_is_refused(picture):
    with pytest.raises(
        ValueError, match=r"the picture has \(width, height\) \(480, 480\), the explained one \(9, 5\)"
    ):
        draw_explanation(picture, made_up(3, (9, 5)))


# ------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_figure_for_each_expression(tmp_path):
    arguments = ["segment", str(BUNDLED_PICTURES / "shapes_3.png"), "the purple star", "the orange square"]
    arguments += ["-o", str(tmp_path / "overlay.png"), "--explain", str(tmp_path / "why.png"), "--threshold", "0.7"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["overlay.png", "why_1.png", "why_2.png"]
    figures = [Image.open(tmp_path / f"why_{number}.png") for number in (1, 2)]
    assert [figure.width for figure in figures] == [1200, 1200]
    assert figures[0].tobytes() != figures[1].tobytes()


def test_numbers_under_a_map_are_short():
    assert [shorten(value) for value in (4761.3, 115_408, -6.428, 0.01234)] == ["4760", "115000", "-6.43", "0.0123"]
