# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What errors show of what came."""

from remamber_hf.messages import describe, printable, shorten


def test_what_a_terminal_would_act_on_is_escaped():
    assert printable("the \x1b[31mred\u202e one\n") == "the \\x1b[31mred\\u202e one\\n"
    assert printable("das grüne Boot 船") == "das grüne Boot 船"
    assert printable("half \ud83d of one") == "half \\ud83d of one"
    assert len(describe(10**5000)) < 100 and len(describe(["x" * 10**6] * 10**3)) <= 200


def test_what_is_shown_is_made_in_bounded_time_and_of_bounded_length():
    unfolding = [0]
    for _ in range(60):
        unfolding = [unfolding] * 10
    wide = {index: {"a": unfolding} for index in range(100_000)}
    for value in (unfolding, wide, "x" * 10**7, {"deep": {"deep": {"deep": {"deep": 1}}}}):
        assert len(describe(value)) <= 200
    assert shorten("a" * 500, 100) == "a" * 50 + "…" + "a" * 40
