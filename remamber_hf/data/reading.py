# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Files of anybody: read in bounds, nothing in them executed; and what a message shows of them, cut and escaped."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import stat
import struct
from collections import Counter
from collections.abc import Callable
from typing import ClassVar, TypeGuard

from ..messages import describe, shorten


MAX_TEXT_LETTERS = 10_000
MAX_FILE_BYTES = 4 * 2**30
PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


def read_regular_file(path: str | os.PathLike) -> bytes:
    """Read a file; ValueError if it is a pipe, a device or larger than any file of annotations."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{shorten(os.fspath(path))} is no regular file; give one.")
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(
            f"{shorten(os.fspath(path))} has {status.st_size} bytes, at most {MAX_FILE_BYTES} are read; divide it."
        )
    with open(path, "rb") as file:
        return file.read()


def decode_text(content: bytes, name: str | os.PathLike) -> str:
    """Decode UTF-8, with or without a byte order mark; ValueError with the file's name, the line and advice."""
    is_utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]
    try:
        if not is_utf_16:
            return content.decode("utf-8-sig")
        place, reason = 0, "it looks like UTF-16"
    except UnicodeDecodeError as error:
        mark = len(content) - len(content.removeprefix(b"\xef\xbb\xbf"))  # the codec counts from behind it
        place = error.start + mark
        reason = f"byte 0x{content[place]:02x} is no UTF-8, as Latin-1 or Windows-1252 would have it"
    line = content.count(b"\n", 0, place) + 1
    raise ValueError(f"{shorten(os.fspath(name))}, line {line}: {reason}; save the file as UTF-8.")


def read_json(content: str | bytes):
    """Read JSON; ValueError if a name stands twice in one object: `json` itself takes the last without a word."""
    return json.loads(content, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple]) -> dict:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{describe(name)} stands twice in one object")
    return fields


class Defect(ValueError):
    """What is wrong with a ref: its kind, by which it is counted, and the particulars."""

    def __init__(self, kind: str, particulars: str):
        super().__init__(f"{kind}: {particulars}")
        self.kind = kind


class PlainUnpickler(pickle._Unpickler):
    """An unpickler that knows containers, strings and numbers, and refuses every class and function by name.

    Built on the one in pure Python: the one in C makes room for any memo index that a file names.
    """

    stack: list
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(
            f"it asks for {shorten(f'{module}.{name}')}, and only containers, strings and numbers are read"
        )

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it asks for a persistent object, and only containers, strings, numbers are read")

    def _decode_string(self, content: bytes) -> str:
        """Read a text of Python 2."""
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin-1")

    def load_setitem(self):
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()  # type: ignore[misc]  # typeshed does not know what loads an opcode

    def load_setitems(self):
        self._check_keys(self.stack[0::2])
        super().load_setitems()  # type: ignore[misc]

    def load_dict(self):
        self._check_keys(self.stack[0::2])
        super().load_dict()  # type: ignore[misc]

    def refuse(self):
        raise pickle.UnpicklingError("it holds a set or a buffer, and only lists, dicts, strings and numbers are read")

    def _check_keys(self, keys: list):
        # The hash of tuples in tuples can take for ever.
        if not all(isinstance(key, (str, bytes, int, float, type(None))) for key in keys):
            raise pickle.UnpicklingError("a key of a dict is no text or number")

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    for code in (pickle.EMPTY_SET, pickle.FROZENSET, pickle.BYTEARRAY8, pickle.NEXT_BUFFER):
        dispatch[code[0]] = refuse


def read_csv(text: str) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    """Read CSV whose first line names the columns: these, and (line, cells by column) for each further line.

    Raises csv.Error for a quote that is not closed or a cell without end, ValueError for a column that is there twice
    or a line of more cells than the first; both name the line.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    records: list[tuple[int, dict[str, str | None]]] = []
    line = 1
    try:
        names = list(reader.fieldnames or ())
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise ValueError(f"the column {describe(repeated[0])} is there twice; leave one out")
        while True:
            line = reader.line_num + 1
            record = next(reader, None)
            if record is None:
                return names, records
            if None in record:
                raise ValueError(
                    f"line {reader.line_num} has more cells than the first; quote a cell that holds a comma"
                )
            records.append((reader.line_num, record))
    except csv.Error as error:
        raise csv.Error(f"line {line}: {error}; is a quote not closed?") from None


def check_tree(value, most: int) -> None:
    """ValueError if there are more than `most` values in a value, those that stand in several places counted for each.

    A pickle can put one list into many places, so that a few bytes unfold to more than any memory, or into itself.
    """
    waiting, count = [value], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
            count += len(value)
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
            count += len(value)
        if count > most:
            raise ValueError("it holds lists that stand in too many places, or in themselves")


def text_of(record: dict, key: str) -> str:
    text = record.get(key)
    if not isinstance(text, str):
        raise Defect("malformed entry", f"{key} is {describe(text)}, text is needed")
    return check_text(text, key)


def check_text(text: str, key: str) -> str:
    """Return the text; Defect if it is too long, or no Unicode text."""
    if len(text) > MAX_TEXT_LETTERS:
        raise Defect("malformed entry", f"{key} has {len(text)} letters, at most {MAX_TEXT_LETTERS} are read")
    if not is_unicode(text):
        raise Defect("malformed entry", f"{key} is {describe(text)}, which is not Unicode text (half of a surrogate)")
    return text


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: it has no half of a surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def integer_of(record: dict, key: str) -> int:
    number = record.get(key)
    if not is_integer(number):
        raise Defect("malformed entry", f"{key} is {describe(number)}, an integer is needed")
    return number


def is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def are_within(numbers: list, low: float, high: float) -> bool:
    return all(
        isinstance(number, (int, float)) and not isinstance(number, bool) and low <= number <= high
        for number in numbers
    )
