# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A small CLIP tokenizer, byte-level BPE with end-of-word marks, trained on a data set's own sentences."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer


START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"


def train_tokenizer(sentences: Iterable[str], vocabulary_size: int, text_length: int) -> CLIPTokenizer:
    """
    Train a tokenizer that knows every byte and the most frequent words of `sentences`.

    Args:
        sentences: what it learns its merges from; the same sentences in the same order give the same tokenizer.
        vocabulary_size: most tokens it may have; 514 are bytes, bytes at a word's end, start and end token.
        text_length: tokens to which it cuts an expression.

    Returns:
        a tokenizer whose last two ids are start and end token, padded with the end token.

    Raises:
        ValueError: if `vocabulary_size` leaves no room for the bytes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = alphabet + [letter + END_OF_WORD for letter in alphabet]
    if vocabulary_size < len(base) + 2:
        raise ValueError(f"vocabulary_size is {vocabulary_size}; the bytes alone need {len(base) + 2}.")
    words = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    words.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 2,
        initial_alphabet=alphabet,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    words.train_from_iterator(sentences, trainer)
    merges = [tuple(merge) for merge in json.loads(words.to_str())["model"]["merges"]]
    tokens = base + [first + second for first, second in merges] + [START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # It hands the pairs on to tokenizers, which takes nothing else.
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=text_length)  # type: ignore[arg-type]
