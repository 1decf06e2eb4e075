# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes: what stands in a picture (the scene graph), and drawing it.

Positions and sizes are fractions of the picture's side, x to the right and y downwards, so that one scene can be
drawn at any size. Objects are painted in order: a later one covers an earlier one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import ClassVar

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from pycocotools import mask as coco_mask

from ..data.rle import decode_rle


PLAIN_COLOURS = {
    "red": (214, 32, 38),
    "green": (44, 160, 60),
    "blue": (36, 84, 224),
    "yellow": (248, 220, 40),
    "orange": (250, 132, 16),
    "purple": (128, 44, 168),
    "cyan": (52, 204, 224),
    "pink": (250, 140, 192),
}
COLOURS = PLAIN_COLOURS | {"white": (244, 244, 244), "black": (22, 22, 22)}
PLAIN_SHAPES = ("circle", "square", "triangle", "star")
SHAPES = (*PLAIN_SHAPES, "cross", "ring", "heart", "diamond", "crescent")
STYLE_SHAPES = {"plain": PLAIN_SHAPES, "rich": SHAPES}
STYLE_COLOURS = {"plain": PLAIN_COLOURS, "rich": COLOURS}
PLAIN_RADII = {"small": (0.070, 0.085), "large": (0.140, 0.170)}
RADII = {"small": (0.068, 0.078), "medium": (0.110, 0.125), "large": (0.175, 0.200)}
TEXTURES = ("solid", "stripes", "dots", "checks")
SUPERSAMPLING = 4
PATTERN_SUPERSAMPLING = 2
# Part of an object that stays visible where it is placed, measured at one size: more than the half that is promised,
# since smaller pictures round it differently.
MIN_VISIBLE = 0.6
MEASURED_SIZE = 128
# Least distance in RGB between the background and an object, or its outline.
MIN_CONTRAST = 90.0

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class SceneObject:
    """One shape: its words first, then its geometry and paint.

    `x`, `y` and `radius` are fractions of the side, `rotation` is in degrees; `accent` colours texture and outline.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    rgb: Colour
    texture: str = "solid"
    outline: str = "none"
    rotation: float = 0.0
    accent: Colour = (0, 0, 0)
    texture_angle: float = 0.0
    is_crowd: ClassVar[bool] = False

    # What `evaluator.Located` asks of an object.

    def has(self, role: str, value: str) -> bool:
        return getattr(self, role) == value

    may_have = has

    def distance_to(self, side: str) -> float:
        if side in ("left", "right"):
            return self.x if side == "left" else 1 - self.x
        return self.y if side == "top" else 1 - self.y

    fraction_to = distance_to

    def precedes(self, other: SceneObject, side: str, margin: float) -> bool:
        return self.distance_to(side) + margin <= other.distance_to(side)

    def outsizes(self, other: SceneObject, ratio: float) -> bool:
        return math.log(other.radius) + math.log(ratio) <= math.log(self.radius)

    def is_clear_of(self, anchor: SceneObject, side: str) -> bool:
        return True  # shapes are of much the same size: their centres say it

    def is_next_to(self, anchor: SceneObject, reach: float, strictly: bool) -> bool:
        raise NotImplementedError("The grammar of shapes has no word for it.")


@dataclass(frozen=True)
class Background:
    """What lies behind the objects: `kind` is a key of `BACKGROUND_PAINTERS`, `seed` draws its noise."""

    kind: str
    colours: tuple[Colour, ...]
    seed: int = 0


@dataclass(frozen=True)
class Shadow:
    """A soft shadow that every object throws: its offset as fractions of the side, its strength in 0 … 1."""

    x: float
    y: float
    strength: float


@dataclass(frozen=True)
class Scene:
    """The scene graph of one picture."""

    style: str
    background: Background
    objects: tuple[SceneObject, ...]
    shadow: Shadow | None = None


def choose(rng: np.random.Generator, items):
    """Return one item of a sequence, each equally likely."""
    return items[int(rng.random() * len(items))]


def choose_plain(rng: np.random.Generator, items):
    """As `choose`, by the slower draw that the meaning of plain seeds rests on."""
    return items[int(rng.integers(len(items)))]


def sample_scene(rng: np.random.Generator, style: str) -> Scene:
    """Draw a scene graph at random; `style` is a key of `SCENE_SAMPLERS`."""
    if style not in SCENE_SAMPLERS:
        raise ValueError(f"style is {style!r}; choose one of {', '.join(SCENE_SAMPLERS)}.")
    return SCENE_SAMPLERS[style](rng)


def sample_plain_scene(rng: np.random.Generator) -> Scene:
    """2 to 5 shapes apart from each other on one light or dark colour.

    A new shape often repeats the shape or colour of an earlier one, so that expressions have distractors.
    """
    objects: list[SceneObject] = []
    wanted = int(rng.integers(2, 6))
    while len(objects) < wanted:
        repeated = choose_plain(rng, objects) if objects else None
        shape = repeated.shape if repeated and rng.random() < 0.4 else choose_plain(rng, PLAIN_SHAPES)
        colour = repeated.colour if repeated and rng.random() < 0.4 else choose_plain(rng, tuple(PLAIN_COLOURS))
        size = choose_plain(rng, tuple(PLAIN_RADII))
        radius = float(rng.uniform(*PLAIN_RADII[size]))
        place = _sample_free_place(rng, shape, radius, objects)
        if place is None and len(objects) >= 2:
            break
        if place is not None:
            objects.append(SceneObject(shape, colour, size, *place, radius, COLOURS[colour]))
    low, high = (8, 48) if rng.random() < 0.5 else (208, 248)
    grey = int(rng.integers(low, high))
    red, green, blue = np.clip(grey + rng.integers(-8, 9, size=3), 0, 255).tolist()
    return Scene("plain", Background("flat", ((red, green, blue),)), tuple(objects))


def _sample_free_place(
    rng: np.random.Generator,
    shape: str,
    radius: float,
    objects: list[SceneObject],
    num_tries: int = 30,
    gap: float = 0.02,
) -> tuple[float, float] | None:
    """Return a centre whose bounding circle stays in the picture and off the others', or None after `num_tries`."""
    reach = radius * _reach(shape) + 0.01
    for _ in range(num_tries):
        x, y = (float(value) for value in rng.uniform(reach, 1 - reach, size=2))
        if all(
            math.hypot(x - other.x, y - other.y) >= reach + other.radius * _reach(other.shape) + gap
            for other in objects
        ):
            return x, y
    return None


def sample_rich_scene(rng: np.random.Generator) -> Scene:
    """3 to 7 textured shapes, some partly covered, before a gradient, grain or blurred clouds."""
    objects: list[SceneObject] = []
    wanted = int(rng.integers(3, 8))
    num_tries = 0
    while len(objects) < 3 or (len(objects) < wanted and num_tries < 4 * wanted):
        num_tries += 1
        drawn = _sample_rich_object(rng, objects)
        if drawn is not None:
            objects.append(drawn)
    angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.02, 0.035)
    shadow = Shadow(float(distance * math.cos(angle)), float(distance * math.sin(angle)), float(rng.uniform(0.3, 0.6)))
    background = _sample_rich_background(rng, objects)
    seen = tuple(_without_unseen_outline(drawn, background) for drawn in objects)
    return Scene("rich", background, seen, shadow if rng.random() < 0.5 else None)


def _sample_rich_object(rng: np.random.Generator, objects: list[SceneObject]) -> SceneObject | None:
    """Draw an object whose words often repeat an earlier one's; None if it does not fit where it was put."""
    model = choose(rng, objects) if objects else None
    shape = model.shape if model and rng.random() < 0.45 else choose(rng, SHAPES)
    size = choose(rng, tuple(RADII))
    radius = float(rng.uniform(*RADII[size]))
    place = None
    if model and rng.random() < 0.35:
        angle, distance = rng.uniform(0, 2 * math.pi), (radius + model.radius) * rng.uniform(0.6, 1.0)
        place = (float(model.x + distance * math.cos(angle)), float(model.y + distance * math.sin(angle)))
    place = place or _sample_free_place(rng, shape, radius, objects, num_tries=8)
    if place is None:
        return None
    colour = model.colour if model and rng.random() < 0.35 else choose(rng, tuple(COLOURS))
    texture = choose(rng, TEXTURES) if rng.random() < 0.7 else "solid"
    # On a small object, an outline around a texture would leave nothing of its colour.
    has_outline = rng.random() < 0.35 and (size != "small" or texture == "solid")
    rotation, tilt, *shade = rng.uniform(-1, 1, size=5).tolist()
    rgb = tuple(min(255, max(0, round(value + 10 * change))) for value, change in zip(COLOURS[colour], shade))
    drawn = SceneObject(
        shape,
        colour,
        size,
        *place,
        radius,
        rgb,
        texture=texture,
        outline="drawn" if has_outline else "none",
        rotation=12 * rotation,
        accent=_accent_of(colour),
        texture_angle=choose(rng, (0, 45, 90, 135)) + 8 * tilt,
    )
    return drawn if _fits(drawn, objects) else None


def _accent_of(colour: str) -> Colour:
    """Return a second colour that does not change the name of the first."""
    if colour in ("black", "white"):
        return (128, 128, 128)
    red, green, blue = COLOURS[colour]
    return (36, 36, 36) if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else (240, 240, 240)


def _are_apart(first: SceneObject, second: SceneObject) -> bool:
    """Whether the circles around two objects do not meet."""
    reach = first.radius * _reach(first.shape) + second.radius * _reach(second.shape)
    return math.hypot(first.x - second.x, first.y - second.y) >= reach


def _fits(drawn: SceneObject, objects: list[SceneObject]) -> bool:
    """Whether an object lies in the picture, hides none too far, and leans on none of its own colour."""
    reach = drawn.radius * _reach(drawn.shape) + 0.01
    if not (reach <= drawn.x <= 1 - reach and reach <= drawn.y <= 1 - reach):
        return False
    for index, other in enumerate(objects):
        if _are_apart(drawn, other):
            continue
        if drawn.colour == other.colour:
            return False
        whole = mask_of(other, MEASURED_SIZE)
        visible = whole & ~mask_of(drawn, MEASURED_SIZE)
        for later in objects[index + 1 :]:
            if not _are_apart(later, other):
                visible &= ~mask_of(later, MEASURED_SIZE)
        if visible.sum() < MIN_VISIBLE * whole.sum():
            return False
    return True


def _sample_rich_background(rng: np.random.Generator, objects: list[SceneObject]) -> Background:
    """Take the first of 16 sets of dull colours that all objects stand out from, or the best of them."""
    grey, shade, tint = (rng.uniform(-1, 1, size=size) for size in ((16, 1, 1), (16, 3, 1), (16, 3, 3)))
    palettes = (128 + 88 * grey + 35 * shade + 22 * tint).clip(0, 255)
    paints = np.array([drawn.rgb for drawn in objects], dtype=float)
    contrasts = np.linalg.norm(palettes[:, :, None] - paints, axis=3).min(axis=(1, 2))
    palette = palettes[contrasts.clip(max=MIN_CONTRAST).argmax()]
    colours = tuple((int(red), int(green), int(blue)) for red, green, blue in palette)
    return Background(choose(rng, ("gradient", "noise", "photo")), colours, int(rng.integers(2**31)))


def _without_unseen_outline(drawn: SceneObject, background: Background) -> SceneObject:
    """Take the outline from an object where it would melt into the background."""
    is_seen = all(math.dist(drawn.accent, colour) >= MIN_CONTRAST for colour in background.colours)
    return drawn if is_seen or drawn.outline == "none" else replace(drawn, outline="none")


SCENE_SAMPLERS = {"plain": sample_plain_scene, "rich": sample_rich_scene}


def _regular_points(count: int, radii: tuple[float, ...], phase: float = -math.pi / 2) -> np.ndarray:
    """Points at equal angles around the origin, their radii taken from `radii` in turn; the first lies at the top."""
    angles = phase + 2 * math.pi * np.arange(count) / count
    lengths = np.resize(np.array(radii), count)
    return np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)


def _arc(radius: float, first: float, last: float, count: int = 32) -> np.ndarray:
    """Points on a circle around the origin between two angles."""
    angles = np.linspace(first, last, count)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cross() -> tuple[np.ndarray, ...]:
    long, short = 1.25, 0.42
    corner = np.array([[short, short], [short, long], [-short, long]])
    turn = np.array([[0, -1], [1, 0]])
    return (np.concatenate([corner @ np.linalg.matrix_power(turn.T, quarter) for quarter in range(4)]),)


def _heart() -> tuple[np.ndarray, ...]:
    angles = 2 * math.pi * np.arange(48) / 48
    x = 16 * np.sin(angles) ** 3
    y = -13 * np.cos(angles) + 5 * np.cos(2 * angles) + 2 * np.cos(3 * angles) + np.cos(4 * angles)
    return (np.stack([x, y], axis=1) / 13.5,)


def _crescent() -> tuple[np.ndarray, ...]:
    """A disc without the part that a smaller disc, `shift` to the right, covers."""
    outer, inner, shift = 1.3, 1.05, 0.6
    x = (shift**2 + outer**2 - inner**2) / (2 * shift)
    y = math.sqrt(outer**2 - x**2)
    outside, inside = math.atan2(y, x), math.atan2(y, x - shift)
    back = _arc(inner, 2 * math.pi - inside, inside) + (shift, 0)
    return (np.concatenate([_arc(outer, outside, 2 * math.pi - outside), back]),)


SHAPE_CONTOURS = {
    "circle": lambda: (_regular_points(64, (1.0,)),),
    "square": lambda: (_regular_points(4, (1.25,), phase=-math.pi / 4),),
    "triangle": lambda: (_regular_points(3, (1.35,)),),
    "star": lambda: (_regular_points(10, (1.4, 0.58)),),
    "cross": _cross,
    "ring": lambda: (_regular_points(64, (1.1,)), _regular_points(48, (0.58,))),
    "heart": _heart,
    "diamond": lambda: (_regular_points(4, (1.45, 0.95)),),
    "crescent": _crescent,
}


@cache
def unit_contours(shape: str) -> tuple[np.ndarray, ...]:
    """Outline of a shape of radius 1, bounding box centred on the origin: (points, 2), then the outlines of holes.

    The scales let shapes of one radius look equally large.
    """
    contours = SHAPE_CONTOURS[shape]()
    middle = (contours[0].min(axis=0) + contours[0].max(axis=0)) / 2
    return tuple(contour - middle for contour in contours)


@cache
def _reach(shape: str) -> float:
    """Radius of the circle around the centre that holds a shape of radius 1."""
    return float(np.linalg.norm(unit_contours(shape)[0], axis=1).max())


@lru_cache(maxsize=64)
def contours_of(scene_object: SceneObject, image_size: int) -> tuple[np.ndarray, ...]:
    """Outline of an object in pixels, then the outlines of its holes: (points, 2) as x, y, to a hundredth."""
    centre = np.array([scene_object.x, scene_object.y])
    angle = math.radians(scene_object.rotation)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return tuple(
        ((centre + scene_object.radius * contour @ turn) * image_size).round(2)
        for contour in unit_contours(scene_object.shape)
    )


@lru_cache(maxsize=64)
def mask_of(scene_object: SceneObject, image_size: int) -> np.ndarray:
    """Mask of an object that nothing covers: bool (height, width)."""
    return rasterize(contours_of(scene_object, image_size), image_size, image_size).astype(bool)


def rasterize(contours: tuple[np.ndarray, ...], height: int, width: int) -> np.ndarray:
    """Fill the first contour and cut the others out, as pycocotools does (a pixel counts by its centre).

    Returns uint8 (height, width), 1 inside.
    """
    outlines = [contour.flatten().tolist() for contour in contours]
    filled, *holes = map(decode_rle, coco_mask.frPyObjects(outlines, height, width))
    for hole in holes:
        filled &= ~hole
    return filled.view(np.uint8)


def draw_alpha(contours: tuple[np.ndarray, ...]) -> tuple[Image.Image, tuple[int, int]]:
    """Draw an outline anti-aliased: the coverage in 0 … 255 on a crop, and the crop's left and top pixel."""
    left, top = (int(value) - 1 for value in np.floor(contours[0].min(axis=0)))
    right, bottom = (int(value) + 1 for value in np.ceil(contours[0].max(axis=0)))
    # Pillow's own polygons are half a pixel too wide on every side.
    enlarged = tuple((contour - (left, top)) * SUPERSAMPLING for contour in contours)
    canvas = 255 * rasterize(enlarged, (bottom - top) * SUPERSAMPLING, (right - left) * SUPERSAMPLING)
    return Image.fromarray(canvas).reduce(SUPERSAMPLING), (left, top)


def _fractal_noise(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Three channels of smooth noise, five octaves: float32 (height, width, 3), mean 0, standard deviation 1."""
    total = Image.new("RGB", (1, 1))
    for side, weight in ((2, 1.0), (4, 0.4), (8, 0.26), (16, 0.16), (32, 0.1)):
        finer = Image.fromarray(rng.integers(0, 256, size=(side, side, 3), dtype=np.uint8))
        total = Image.blend(total.resize((side, side), Image.Resampling.BICUBIC), finer, weight)
    values = np.asarray(total.resize((image_size, image_size), Image.Resampling.BICUBIC), np.float32)
    return (values - values.mean(axis=(0, 1))) / values.std(axis=(0, 1))


def _paint_flat(background: Background, image_size: int) -> Image.Image:
    return Image.new("RGB", (image_size, image_size), background.colours[0])


def _mix(weights: np.ndarray, first, second) -> np.ndarray:
    """Blend two colours by weights (height, width) in 0 … 1."""
    return np.asarray(first, np.float32) + weights[..., None] * (np.asarray(second, np.float32) - first)


def _to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _paint_gradient(background: Background, image_size: int) -> Image.Image:
    """From the first colour to the second, in a direction drawn at random."""
    angle = np.random.default_rng(background.seed).uniform(0, 2 * math.pi)
    steps = np.linspace(-0.5, 0.5, image_size, dtype=np.float32)
    weights = steps[None] * np.float32(math.cos(angle)) + steps[:, None] * np.float32(math.sin(angle))
    return _to_image(_mix((weights + 0.5).clip(0, 1), *background.colours[:2]))


def _paint_noise(background: Background, image_size: int) -> Image.Image:
    """The first colour with the grain of a rough wall."""
    rng = np.random.default_rng(background.seed)
    grain = rng.standard_normal((image_size, image_size, 1), dtype=np.float32)
    return _to_image(np.asarray(background.colours[0], np.float32) + 9 * grain)


def _paint_photo(background: Background, image_size: int) -> Image.Image:
    """Three colours in clouds of smooth noise, with light and shade, as out of focus; drawn at half the size."""
    noise = _fractal_noise(np.random.default_rng(background.seed), image_size // 2)
    clouds, patches = np.moveaxis((0.5 + 0.5 * noise[..., :2]).clip(0, 1), 2, 0)
    first, second, third = background.colours
    pixels = _mix(patches, _mix(clouds, first, second), third) + 12 * noise[..., 2:]
    return _to_image(pixels).resize((image_size, image_size), Image.Resampling.BICUBIC)


BACKGROUND_PAINTERS = {
    "flat": _paint_flat,
    "gradient": _paint_gradient,
    "noise": _paint_noise,
    "photo": _paint_photo,
}


def _fraction(values: np.ndarray) -> np.ndarray:
    return values - np.floor(values)


def _draw_pattern(scene_object: SceneObject, size: tuple[int, int], image_size: int) -> Image.Image:
    """Draw the texture's share of the accent colour, 0 … 255, on a crop of `size` (width, height)."""
    width, height = size
    period = 0.55 * scene_object.radius * image_size * PATTERN_SUPERSAMPLING
    angle = math.radians(scene_object.texture_angle)
    cos, sin = np.float32(math.cos(angle) / period), np.float32(math.sin(angle) / period)
    across = np.arange(width * PATTERN_SUPERSAMPLING, dtype=np.float32)[None]
    down = np.arange(height * PATTERN_SUPERSAMPLING, dtype=np.float32)[:, None]
    u = _fraction(across * cos + down * sin)
    if scene_object.texture == "stripes":
        marks = u < 0.4
    else:
        v = _fraction(down * cos - across * sin)
        marks = (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.09 if scene_object.texture == "dots" else (u < 0.5) != (v < 0.5)
    return Image.fromarray(255 * marks.astype(np.uint8)).reduce(PATTERN_SUPERSAMPLING)


def _draw_paint(scene_object: SceneObject, alpha: Image.Image, image_size: int) -> Image.Image:
    """Draw the surface of an object on the crop of `alpha`: colour, texture, outline."""
    paint = Image.new("RGB", alpha.size, scene_object.rgb)
    if scene_object.texture != "solid":
        paint.paste(scene_object.accent, (0, 0), _draw_pattern(scene_object, alpha.size, image_size))
    if scene_object.outline == "drawn":
        thickness = max(1, round(0.09 * scene_object.radius * image_size))
        inside = alpha.filter(ImageFilter.MinFilter(2 * thickness + 1))
        paint.paste(scene_object.accent, (0, 0), ImageChops.invert(inside))
    return paint


def throw_shadow(image: Image.Image, shadow: Shadow, alpha: Image.Image, corner: tuple[int, int]) -> None:
    """Darken a picture behind an object that is about to be painted."""
    side = image.width
    margin = round(0.03 * side)
    soft = Image.new("L", (alpha.width + 2 * margin, alpha.height + 2 * margin), 0)
    soft.paste(round(255 * shadow.strength), (margin, margin), alpha)
    soft = soft.filter(ImageFilter.BoxBlur(0.012 * side)).filter(ImageFilter.BoxBlur(0.012 * side))
    place = (corner[0] - margin + round(shadow.x * side), corner[1] - margin + round(shadow.y * side))
    image.paste((0, 0, 0), place, soft)


def render(scene: Scene, image_size: int = 128) -> tuple[Image.Image, np.ndarray]:
    """Draw a scene.

    Returns the RGB picture and the visible masks, bool (objects, height, width): a pixel belongs to the topmost object
    that its centre lies in.
    """
    image = BACKGROUND_PAINTERS[scene.background.kind](scene.background, image_size)
    masks = np.zeros((len(scene.objects), image_size, image_size), dtype=bool)
    for index, scene_object in enumerate(scene.objects):
        alpha, corner = draw_alpha(contours_of(scene_object, image_size))
        if scene.shadow is not None:
            throw_shadow(image, scene.shadow, alpha, corner)
        image.paste(_draw_paint(scene_object, alpha, image_size), corner, alpha)
        masks[index] = mask_of(scene_object, image_size)
        masks[:index] &= ~masks[index]
    return image, masks
