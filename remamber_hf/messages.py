# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What an error shows of what came: short, whatever it is, and in letters that a terminal shows."""

import os
import reprlib
from typing import Any


class ShortRepr(reprlib.Repr):
    """`repr` of bounded length, made in bounded time."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 160  # characters

    def repr_int(self, number: int, level: int) -> str:
        # Python refuses to write the digits of very long ones.
        return repr(number) if number.bit_length() < 100 else f"<an integer of {number.bit_length()} bits>"

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        # That of reprlib sorts all keys first.
        if level <= 0 and value:
            return "{...}"
        entries = [f"{self.repr1(key, level - 1)}: {self.repr1(value[key], level - 1)}" for key in list(value)[:4]]
        return "{" + ", ".join(entries + ["..."] * (len(value) > 4)) + "}"


def describe(value: object) -> str:
    """What came, for an error: short, whatever it is, and in letters that a terminal shows."""
    return shorten(ShortRepr().repr(value))


def printable(text: str) -> str:
    """Text as a terminal may get it: control codes, marks of direction and halves of surrogates are escaped."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in text
    )


def describe_name(name: object) -> str:
    """A file's name for an error."""
    return repr(shorten(os.fsdecode(name))) if isinstance(name, (str, bytes)) else describe(name)


def shorten(text: str, length: int = 200) -> str:
    """Text for an error, its middle left out where it is long, in letters that a terminal shows."""
    return printable(text if len(text) <= length else f"{text[: length - 50]}…{text[-40:]}")
