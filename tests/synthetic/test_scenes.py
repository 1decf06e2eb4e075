# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes and their pictures: masks follow the paint, and styles use what they have."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scene_fixture import STYLES, place, scene_of

from remamber_hf.synthetic.scenes import (
    COLOURS,
    MIN_CONTRAST,
    RADII,
    SHAPES,
    STYLE_SHAPES,
    TEXTURES,
    Background,
    Scene,
    Shadow,
    mask_of,
    render,
    sample_scene,
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_masks_follow_the_paint_to_a_pixel(shape, size):
    drawn = place(shape, "white", 0.503, 0.491, size, rotation=7.0)
    scene = Scene("rich", Background("flat", ((0, 0, 0),)), (drawn,))
    image, masks = render(scene, 128)
    paint = np.asarray(image.convert("L")) > 122
    mask = Image.fromarray(masks[0])
    assert not (paint & ~np.asarray(mask.convert("L").filter(ImageFilter.MaxFilter(3)), bool)).any()
    assert not (np.asarray(mask.convert("L").filter(ImageFilter.MinFilter(3)), bool) & ~paint).any()
    if size == "large":
        assert (paint & masks[0]).sum() / (paint | masks[0]).sum() >= 0.97


def test_what_shows_through_a_ring_is_not_the_ring():
    scene = scene_of(place("star", "white", 0.5, 0.5, "small"), place("ring", "black", 0.5, 0.5, "large"))
    image, masks = render(scene)
    assert image.getpixel((64, 64)) == COLOURS["white"]
    assert masks[:, 64, 64].tolist() == [True, False]


def test_every_rich_object_stays_at_least_half_visible():
    shares = []
    for index in range(60):
        scene = sample_scene(np.random.default_rng(index), "rich")
        _, masks = render(scene)
        shares += [mask.sum() / mask_of(drawn, 128).sum() for drawn, mask in zip(scene.objects, masks)]
    assert min(shares) >= 0.5
    assert 0.1 < np.mean(np.array(shares) < 1) < 0.5


def test_plain_objects_never_touch():
    for index in range(60):
        scene = sample_scene(np.random.default_rng(index), "plain")
        assert 2 <= len(scene.objects) <= 5
        masks = np.stack([mask_of(drawn, 128) for drawn in scene.objects])
        assert masks.sum(axis=0).max() == 1


def test_rich_scenes_use_the_whole_vocabulary():
    scenes = [sample_scene(np.random.default_rng(index), "rich") for index in range(60)]
    objects = [drawn for scene in scenes for drawn in scene.objects]
    assert {drawn.shape for drawn in objects} == set(STYLE_SHAPES["rich"]) and len(STYLE_SHAPES["rich"]) >= 8
    assert {drawn.colour for drawn in objects} == set(COLOURS) and len(COLOURS) == 10
    assert {drawn.size for drawn in objects} == set(RADII) and len(RADII) == 3
    assert {drawn.texture for drawn in objects} == set(TEXTURES)
    assert {drawn.outline for drawn in objects} == {"none", "drawn"}
    assert {scene.background.kind for scene in scenes} == {"gradient", "noise", "photo"}
    assert {scene.shadow is None for scene in scenes} == {True, False}
    assert {len(scene.objects) for scene in scenes} == {3, 4, 5, 6, 7}


def test_rich_objects_and_outlines_stand_out_from_the_background():
    for index in range(60):
        scene = sample_scene(np.random.default_rng(index), "rich")
        for drawn in scene.objects:
            # Where no background suits all objects of a scene, the best one comes near.
            assert min(math.dist(drawn.rgb, colour) for colour in scene.background.colours) >= 0.8 * MIN_CONTRAST
            if drawn.outline == "drawn":
                assert min(math.dist(drawn.accent, colour) for colour in scene.background.colours) >= MIN_CONTRAST


def test_a_shadow_darkens_the_picture_and_leaves_the_masks():
    scene = sample_scene(np.random.default_rng(0), "rich")
    image, masks = render(replace(scene, shadow=None))
    darker, same_masks = render(replace(scene, shadow=Shadow(0.02, 0.02, strength=0.5)))
    assert np.array_equal(masks, same_masks)
    assert np.asarray(darker, int).sum() < np.asarray(image, int).sum()


@pytest.mark.parametrize("style", STYLES)
def test_a_scene_can_be_drawn_at_any_size(style):
    scene = sample_scene(np.random.default_rng(5), style)
    small, large = render(scene, 96), render(scene, 192)
    assert large[0].size == (192, 192)
    np.testing.assert_allclose(large[1].mean(axis=(1, 2)), small[1].mean(axis=(1, 2)), rtol=0.12)


def test_an_unknown_style_of_scene_is_refused():
    with pytest.raises(ValueError, match="style is 'baroque'"):
        sample_scene(np.random.default_rng(0), "baroque")
