# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Referring expressions about synthetic scenes, written: draft a sentence, keep it if the evaluator agrees.

A writer drafts a sentence of one kind about one object, or about several; it may be wrong or ambiguous. What is kept
was read back by the evaluator, which knows the text and the scene graph only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from operator import attrgetter

import numpy as np

from .grammar import SIDES
from .scenes import STYLE_COLOURS, STYLE_SHAPES, TEXTURES, Scene, SceneObject, choose, choose_plain
from .shape_sentences import PLAIN_WORDS, SHAPES, WORDS


NUM_DRAFTS = 3
MAX_EXPRESSIONS = 3
MANY_DRAFTS = 12
# Sets of properties to call an object by.
NAMINGS = (("shape",), ("shape", "colour"), ("shape", "size"), ("shape", "texture"), ("colour",), ("size", "colour"))
PLACE_PREPOSITIONS = ("on ", "at ", "in ")


def sample_expressions(scene: Scene, rng: np.random.Generator) -> dict[int, list[str]]:
    """Write expressions that are certainly true of one object and of no other: object index → 1 to 3 of them.

    The expressions of an object are of different kinds. An object that none was found for is left out.
    """
    writers = WRITERS[scene.style]
    expressions = {}
    for index in range(len(scene.objects)):
        wanted = int(rng.integers(1, MAX_EXPRESSIONS + 1))
        written: list[str] = []
        for kind in rng.permutation(list(writers)).tolist():
            drafts: Iterable[str | None] = (writers[kind](rng, scene, index) for _ in range(NUM_DRAFTS))
            objects = scene.objects
            if scene.style == "plain":
                # All drafts are drawn before one is judged: what a plain seed stands for depends on it.
                drafts = list(drafts)
            text = next((draft for draft in drafts if draft and SHAPES.is_true_of_one(draft, objects, index)), None)
            if text is not None and text not in written:
                written.append(text)
            if len(written) == wanted:
                break
        if written:
            expressions[index] = written
    return expressions


def sample_absent_expressions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Write up to 2 expressions that nobody could mean any object of the scene by.

    Each would be true of one object if that had another colour, shape, texture or place.
    """
    writers = WRITERS[scene.style]
    written: list[str] = []
    wanted = int(rng.integers(1, 3))
    for _ in range(8 * wanted):
        index = int(rng.integers(len(scene.objects)))
        objects = list(scene.objects)
        objects[index] = _alter(rng, objects[index], scene.style)
        imagined = replace(scene, objects=tuple(objects))
        draft = writers[choose(rng, tuple(writers))](rng, imagined, index)
        if draft is None or draft in written:
            continue
        if SHAPES.is_true_of_one(draft, objects, index) and SHAPES.is_true_of_none(draft, scene.objects):
            written.append(draft)
        if len(written) == wanted:
            break
    return written


def sample_many_expressions(scene: Scene, rng: np.random.Generator) -> dict[frozenset[int], list[str]]:
    """Write up to `MAX_EXPRESSIONS` expressions that are certainly true of several objects: these → their texts."""
    written: dict[frozenset[int], list[str]] = {}
    for _ in range(MANY_DRAFTS):
        text = _write_many(rng, scene)
        meant = SHAPES.is_true_of_many(text, scene.objects) if text else frozenset()
        if text and meant and text not in written.get(meant, ()):
            written.setdefault(meant, []).append(text)
        if sum(map(len, written.values())) == MAX_EXPRESSIONS:
            break
    return written


def sample_absent_many_expressions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """
    Write up to 2 expressions about several things that nobody could mean any object of the scene by.

    Each would be true of two objects if these had another colour, shape, texture or place.
    """
    written: list[str] = []
    wanted = int(rng.integers(1, 3))
    for _ in range(8 * wanted):
        objects = list(scene.objects)
        first, second = rng.permutation(len(objects))[:2].tolist()
        objects[first] = _alter(rng, objects[first], scene.style)
        objects[second] = replace(objects[first], x=objects[second].x, y=objects[second].y)  # a word for the two
        imagined = replace(scene, objects=tuple(objects))
        draft = _write_many(rng, imagined)
        if not draft or draft in written:
            continue
        if SHAPES.is_true_of_many(draft, objects) and SHAPES.is_true_of_none(draft, scene.objects):
            written.append(draft)
        if len(written) == wanted:
            break
    return written


def _alter(rng: np.random.Generator, scene_object: SceneObject, style: str) -> SceneObject:
    """Give an object another colour, shape or texture, or move it to the other side of the picture."""
    choices = {"colour": tuple(STYLE_COLOURS[style]), "shape": STYLE_SHAPES[style]}
    if style == "rich":
        choices["texture"] = TEXTURES
    role = choose(rng, (*choices, "place"))
    if role == "place":
        return replace(scene_object, x=1 - scene_object.x, y=1 - scene_object.y)
    return replace(scene_object, **{role: choose(rng, choices[role])})


# Plain: short sentences about an object by itself and its place in the picture.


def _join(rng: np.random.Generator, *words: str) -> str:
    """Join the words that are not empty, most often after 'the'."""
    article = "the" if rng.random() < 0.6 else ""
    return " ".join(word for word in (article, *words) if word)


def _write_plain_shape(rng: np.random.Generator, scene: Scene, index: int) -> str:
    return _join(rng, scene.objects[index].shape)


def _write_plain_colour(rng: np.random.Generator, scene: Scene, index: int) -> str:
    target = scene.objects[index]
    draw = rng.random()
    if draw < 0.2:
        return f"the {target.colour} {choose_plain(rng, PLAIN_WORDS['any'][None])}"
    if draw < 0.4:
        return _join(rng, target.shape, "that is", target.colour)
    return _join(rng, target.colour, target.shape)


def _write_plain_size(rng: np.random.Generator, scene: Scene, index: int) -> str:
    target = scene.objects[index]
    noun = target.shape if rng.random() < 0.8 else choose_plain(rng, PLAIN_WORDS["any"][None])
    colour = target.colour if rng.random() < 0.5 else ""
    if rng.random() < 0.35:
        degree = choose_plain(rng, PLAIN_WORDS["superlative"]["largest" if target.size == "large" else "smallest"])
        return f"the {degree} {colour} {noun}".replace("  ", " ")
    return _join(rng, choose_plain(rng, PLAIN_WORDS["size"][target.size]), colour, noun)


def _write_plain_position(rng: np.random.Generator, scene: Scene, index: int) -> str:
    target = scene.objects[index]
    noun = target.shape if rng.random() < 0.8 else choose_plain(rng, PLAIN_WORDS["any"][None])
    colour = target.colour if rng.random() < 0.35 else ""
    quarter = ("top" if target.y < 0.5 else "bottom", "left" if target.x < 0.5 else "right")
    if rng.random() < 0.35:
        place = choose_plain(rng, PLAIN_WORDS["quarter"][quarter])
    else:
        place = choose_plain(rng, PLAIN_WORDS["side"][choose_plain(rng, SIDES)])
    if place.startswith(PLACE_PREPOSITIONS):
        return _join(rng, colour, noun, place)
    return _join(rng, place, colour, noun)


# Rich: more words, and sentences that rest on other objects.


def _same(scene: Scene, index: int, roles: tuple[str, ...]) -> list[int]:
    """Return the indices of the objects, itself included, that share an object's properties."""
    if not roles:
        return list(range(len(scene.objects)))
    properties_of = attrgetter(*roles)
    shared = properties_of(scene.objects[index])
    return [at for at, other in enumerate(scene.objects) if properties_of(other) == shared]


def _choose_naming(rng: np.random.Generator, scene: Scene, index: int, num_same: int) -> tuple[str, ...]:
    """Return properties that at least `num_same` objects share, if there are any such; else any properties."""
    shared = [roles for roles in NAMINGS if len(_same(scene, index, roles)) >= num_same]
    return choose(rng, shared or NAMINGS)


def _name(
    rng: np.random.Generator,
    target: SceneObject,
    roles: tuple[str, ...],
    before: str = "",
    after: str = "",
    can_trail: bool = True,
) -> str:
    """Name an object by some of its properties, without an article; one may trail the noun if nothing else does."""
    noun = choose(rng, WORDS["shape"][target.shape] if "shape" in roles else WORDS["any"][None])
    in_front = [before]
    for role in ("size", "texture", "outline", "colour"):
        if role not in roles:
            continue
        phrase = choose(rng, WORDS[role][getattr(target, role)])
        is_free = can_trail and not after
        if phrase.startswith("with "):
            if is_free:
                after = phrase
            else:
                in_front.append(WORDS[role][getattr(target, role)][0])
        elif role == "colour" and is_free and rng.random() < 0.2:
            after = f"{choose(rng, ('that is', 'which is', 'in'))} {phrase}"
        else:
            in_front.append(phrase)
    return " ".join(word for word in (*in_front, noun, after) if word)


def _with_article(rng: np.random.Generator, text: str) -> str:
    return f"the {text}" if rng.random() < 0.75 else text


def _write_shape(rng: np.random.Generator, scene: Scene, index: int) -> str:
    return _with_article(rng, _name(rng, scene.objects[index], ("shape",)))


def _write_colour(rng: np.random.Generator, scene: Scene, index: int) -> str:
    roles = choose(rng, (("colour",), ("colour", "shape"), ("colour", "shape")))
    return _with_article(rng, _name(rng, scene.objects[index], roles))


def _write_texture(rng: np.random.Generator, scene: Scene, index: int) -> str:
    target = scene.objects[index]
    role = "outline" if target.outline == "drawn" and rng.random() < 0.5 else "texture"
    roles = choose(rng, ((role,), (role, "shape"), (role, "colour"), (role, "colour", "shape")))
    return _with_article(rng, _name(rng, target, roles))


def _write_size(rng: np.random.Generator, scene: Scene, index: int) -> str:
    target = scene.objects[index]
    roles = choose(rng, ((), ("shape",), ("colour",), ("colour", "shape"), ("texture", "shape")))
    if target.size != "medium" and rng.random() < 0.4:
        degree = choose(rng, WORDS["superlative"]["largest" if target.size == "large" else "smallest"])
        return f"the {_name(rng, target, roles, before=degree)}"
    return _with_article(rng, _name(rng, target, ("size", *roles)))


def _write_position(rng: np.random.Generator, scene: Scene, index: int) -> str:
    target = scene.objects[index]
    roles = _choose_naming(rng, scene, index, num_same=2)
    rivals = [scene.objects[at] for at in _same(scene, index, roles)]
    sides = [side for side in SIDES if target == min(rivals, key=lambda rival: rival.distance_to(side))]
    draw = rng.random()
    if draw < 0.15 and max(abs(target.x - 0.5), abs(target.y - 0.5)) < 0.15:
        place = choose(rng, WORDS["middle"]["middle"])
    elif sides and draw < 0.7:
        place = choose(rng, WORDS["side"][choose(rng, sides)])
    else:
        quarter = ("top" if target.y < 0.5 else "bottom", "left" if target.x < 0.5 else "right")
        place = choose(rng, WORDS["quarter"][quarter])
    is_behind = place.startswith(PLACE_PREPOSITIONS)
    return _with_article(
        rng, _name(rng, target, roles, after=place) if is_behind else _name(rng, target, roles, place)
    )


def _write_order(rng: np.random.Generator, scene: Scene, index: int) -> str | None:
    roles = _choose_naming(rng, scene, index, num_same=3)
    side = choose(rng, SIDES)
    in_order = sorted(_same(scene, index, roles), key=lambda at: scene.objects[at].distance_to(side))
    rank = 1 + in_order.index(index)
    if rank not in WORDS["ordinal"]:
        return None
    ordinal = choose(rng, WORDS["ordinal"][rank])
    return f"the {_name(rng, scene.objects[index], roles, before=ordinal, after=f'from the {side}')}"


def _write_relation(rng: np.random.Generator, scene: Scene, index: int) -> str | None:
    options = _find_relations(rng, scene, index)
    if not options:
        return None
    relation, anchors = choose(rng, options)
    drafts = [_name_alone(rng, scene, anchor) for anchor in anchors]
    names = [draft for draft in drafts if draft is not None]
    if len(names) < len(drafts):
        return None
    roles = choose(rng, ((), _choose_naming(rng, scene, index, num_same=2)))
    after = f"{choose(rng, WORDS['relation'][relation])} {' and '.join(names)}"
    return _with_article(rng, _name(rng, scene.objects[index], roles, after=after))


def _find_relations(rng: np.random.Generator, scene: Scene, index: int) -> list[tuple[str, tuple[int, ...]]]:
    """Return true relations of one sort, drawn at random, with the objects they refer to; 'nearest' may be wrong."""
    target = scene.objects[index]
    others = [at for at in range(len(scene.objects)) if at != index]
    sort = choose(rng, ("beside", "beside", "nearest", "between"))
    if sort == "nearest":
        return [("nearest", (at,)) for at in others]
    options: list[tuple[str, tuple[int, ...]]]
    if sort == "between":
        options = [("between", pair) for pair in combinations(others, 2)]
    else:
        options = [(side, (at,)) for at in others for side in SIDES]
    return [
        (relation, anchors)
        for relation, anchors in options
        if SHAPES.is_placed(target, relation, tuple(scene.objects[at] for at in anchors))
    ]


def _name_alone(rng: np.random.Generator, scene: Scene, index: int) -> str | None:
    """Name an object with 'the' by properties that no other has, or return None."""
    unique = [roles for roles in NAMINGS if _same(scene, index, roles) == [index]]
    return f"the {_name(rng, scene.objects[index], choose(rng, unique), can_trail=False)}" if unique else None


def _write_negation(rng: np.random.Generator, scene: Scene, index: int) -> str | None:
    """Deny a property that another object has, which is like this one otherwise."""
    target = scene.objects[index]
    roles, denied = choose(
        rng,
        (
            (("shape",), "colour"),
            (("shape",), "texture"),
            (("shape",), "size"),
            (("colour",), "shape"),
            (("texture", "shape"), "colour"),
            (("size", "shape"), "colour"),
        ),
    )
    rivals = [scene.objects[at] for at in _same(scene, index, roles)]
    values = sorted({getattr(rival, denied) for rival in rivals} - {getattr(target, denied)})
    if not values:
        return None
    word = WORDS[denied][choose(rng, values)][0]
    clause = f"{choose(rng, ('that is', 'which is'))} not {'a ' if denied == 'shape' else ''}{word}"
    return _with_article(rng, _name(rng, target, roles, after=clause))


# Several: sentences that are true of every object of a sort.


def _write_many(rng: np.random.Generator, scene: Scene) -> str | None:
    """Name all objects that share properties with one of the scene, or all that lie on a side of it or another."""
    is_rich = scene.style == "rich"
    index = int(rng.integers(len(scene.objects)))
    target = scene.objects[index]
    place = after = ""
    draw = rng.random()
    if draw < 0.25:
        # Of "the leftmost circles" nobody knows how many they are.
        places = WORDS["side"][choose(rng, SIDES)]
        place = choose(rng, [phrase for phrase in places if not phrase.endswith("most")])
    elif draw < 0.5 and is_rich:
        anchors = [at for at in range(len(scene.objects)) if at != index]
        name = _name_alone(rng, scene, choose(rng, anchors)) if anchors else None
        if name is None:
            return None
        after = f"{choose(rng, WORDS['relation'][choose(rng, SIDES)])} {name}"
    if place.startswith(PLACE_PREPOSITIONS):
        place, after = "", place
    if after and rng.random() < 0.5:
        return f"everything {after}"
    namings = NAMINGS if is_rich else (("shape",), ("colour",), ("colour", "shape"), ("shape", "size"))
    roles = choose(rng, [roles for roles in namings if len(_same(scene, index, roles)) > 1] or [()])
    nouns = WORDS["shapes"][target.shape] if "shape" in roles else WORDS["several"][None]
    words = [place]
    for role in ("size", "texture", "colour"):
        if role in roles:
            phrases = WORDS[role][getattr(target, role)]
            words.append(
                choose(rng, [word for word in phrases if not word.startswith("with ")]) if is_rich else phrases[0]
            )
    words += [choose(rng, nouns) if is_rich else nouns[0], after]
    start = choose(rng, ("the", "the", "all", "all the", "both", ""))
    return " ".join(word for word in (start, *words) if word)


WRITERS: dict[str, dict[str, Callable[[np.random.Generator, Scene, int], str | None]]] = {
    "plain": {
        "shape": _write_plain_shape,
        "colour": _write_plain_colour,
        "size": _write_plain_size,
        "position": _write_plain_position,
    },
    "rich": {
        "shape": _write_shape,
        "colour": _write_colour,
        "texture": _write_texture,
        "size": _write_size,
        "position": _write_position,
        "order": _write_order,
        "relation": _write_relation,
        "negation": _write_negation,
    },
}
