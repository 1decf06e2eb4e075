# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
A small CLIP tokenizer, byte-level BPE with end-of-word marks, trained on a data set's own sentences, and how a model
changes over to one.
"""

import json
from collections.abc import Iterable
from copy import deepcopy

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from ..configuration_remamber import text_config_of
from ..modeling_remamber import ReMamberForImageSegmentation


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
    # The trainer makes room for no byte at a word's end that it has not seen. Its merges stand most frequent first.
    room = vocabulary_size - len(base) - 2
    merges = [tuple(merge) for merge in json.loads(words.to_str())["model"]["merges"]][:room]
    tokens = base + [first + second for first, second in merges] + [START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    # It hands the pairs on to tokenizers, which takes nothing else.
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=text_length)  # type: ignore[arg-type]


def change_tokenizer(
    model: ReMamberForImageSegmentation, old: CLIPTokenizer, new: CLIPTokenizer
) -> ReMamberForImageSegmentation:
    """Make a model for another tokenizer: with the embeddings of tokens that both know, and new ones for all others.

    New ones are drawn with the mean and the deviation of the old, the same in every process.

    Args:
        model: a ReMamber model.
        old: the tokenizer that it was trained with.
        new: the one that it gets.

    Returns the model, a new one: modules keep what their configuration said of the tokenizer when they were made.
    """
    config = deepcopy(model.config)
    text_config = text_config_of(config)
    text_config.vocab_size = len(new)
    text_config.bos_token_id, text_config.eos_token_id = new.bos_token_id, new.eos_token_id
    text_config.pad_token_id = new.pad_token_id
    changed = ReMamberForImageSegmentation(config)
    (learnt,) = (weight.detach() for weight in model.get_input_embeddings().parameters())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(len(new), learnt.shape[1], generator=generator).to(learnt)
    weight = learnt.mean(0) + learnt.std(0) * drawn  # (tokens, hidden size)
    known = old.get_vocab()
    for token, index in new.get_vocab().items():
        if token in known:
            weight[index] = learnt[known[token]]
    embeddings = model.get_input_embeddings()
    (name,) = (name for name, module in model.named_modules() if module is embeddings)
    changed.load_state_dict(model.state_dict() | {f"{name}.weight": weight})
    return changed
