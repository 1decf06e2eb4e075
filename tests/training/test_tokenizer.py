# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The small tokenizer that is trained with a model from nothing."""

import pytest
from transformers import CLIPTokenizer

from remamber_hf.training.tokenizer import train_tokenizer


SENTENCES = ["the red circle", "the small blue star", "Star on the left"] * 5


def test_words_of_the_sentences_become_one_token_each():
    tokenizer = train_tokenizer(SENTENCES, 600, 20)
    assert len(tokenizer("the small blue star")["input_ids"]) == 4 + 2


def test_what_was_never_seen_is_spelt_in_bytes_and_comes_back():
    tokenizer = train_tokenizer(SENTENCES, 600, 20)
    ids = tokenizer("zébra 犬")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "zébra犬"


def test_start_and_end_are_the_last_two_ids_and_the_end_pads():
    tokenizer = train_tokenizer(SENTENCES, 600, 20)
    size = len(tokenizer)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (size - 2, size - 1, size - 1)


def test_saved_and_loaded_it_gives_the_same_ids(tmp_path):
    tokenizer = train_tokenizer(SENTENCES, 600, 20)
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded("the Red circle, left")["input_ids"] == tokenizer("the Red circle, left")["input_ids"]
    assert loaded.model_max_length == 20


def test_the_same_sentences_give_the_same_tokenizer():
    first, second = (train_tokenizer(SENTENCES, 600, 20) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()


def test_a_vocabulary_that_cannot_hold_the_bytes_is_refused():
    with pytest.raises(ValueError, match="vocabulary_size is 100; the bytes alone need 514"):
        train_tokenizer(SENTENCES, 100, 20)


def test_a_vocabulary_is_never_larger_than_it_may_be():
    """Bytes that no word ends in take room too; the merges that are left are the most frequent."""
    sentences = [f"the {letter}{other}{letter} of {other}" for letter in "abcdefghij" for other in "klmnopqrst"]
    for size in (514, 530, 600, 700):
        tokenizer = train_tokenizer([*sentences, *SENTENCES], size, 20)
        assert len(tokenizer) <= size and sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert len(tokenizer("the")["input_ids"]) == 1 + 2
