# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes that are put together by hand."""

from remamber_hf.synthetic.scenes import COLOURS, Background, Scene, SceneObject


STYLES = ("plain", "rich")


def place(shape: str, colour: str, x: float, y: float, size: str = "medium", **more) -> SceneObject:
    radius = {"small": 0.07, "medium": 0.115, "large": 0.18}[size]
    return SceneObject(shape, colour, size, x, y, radius, COLOURS[colour], **more)


def scene_of(*objects: SceneObject) -> Scene:
    return Scene("rich", Background("flat", ((120, 120, 120),)), objects)
