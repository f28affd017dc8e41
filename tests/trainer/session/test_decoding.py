"""Greedy decoding gives the tokens of `generate`, whatever ends an answer and however close two tokens are."""

import pytest
import torch
from scene_models import build_scene_model
from torch import nn

from trainer.session.decoding import GreedyDecoder
from trainer.session.shared_prefix import RepeatedPrefix

NEW_TOKENS = 8


def questions(model, lengths=(5, 9, 7)):
    generator = torch.Generator().manual_seed(3)
    words = [torch.randint(3, 90, (length,), generator=generator) for length in lengths]
    return [model.get_input_embeddings()(tokens).detach() for tokens in words]


def generated(model, suffixes):
    return [
        model.generate(
            inputs_embeds=suffix[None],
            attention_mask=torch.ones(1, len(suffix), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )[0].tolist()
        for suffix in suffixes
    ]


def decoded(model, processor, suffixes):
    reader = RepeatedPrefix.without_prefix(model)
    return [answer.tokens for answer in GreedyDecoder(model, processor).decode(reader, suffixes, NEW_TOKENS)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_any_of_several_end_tokens_ends_an_answer(scene_model, processor, count):
    suffixes = questions(scene_model)
    scene_model.generation_config.eos_token_id = [scene_model.config.text_config.vocab_size - 1]
    free = generated(scene_model, suffixes)
    ends = [free[question][place] for question, place in ((0, 2), (1, 4))][:count]
    scene_model.generation_config.eos_token_id = ends or None
    tokens = decoded(scene_model, processor, suffixes)
    if ends:
        assert tokens == generated(scene_model, suffixes)
        assert {row[-1] for row in tokens if len(row) < NEW_TOKENS} == set(ends)
    else:  # the tokenizer's end token is left
        assert GreedyDecoder(scene_model, processor).end_tokens == {processor.tokenizer.eos_token_id}


def test_of_equal_logits_the_first_token_is_taken(processor):
    """As `generate` does. In half precision the best two tokens are often equal."""
    model = build_scene_model(processor)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        half = len(model.lm_head.weight) // 2
        model.lm_head.weight[half : 2 * half] = model.lm_head.weight[:half]
    suffixes = questions(model, lengths=(5, 6, 7, 8, 9))
    assert decoded(model, processor, suffixes) == generated(model, suffixes)


def test_a_limit_below_one_token_is_refused(scene_model, processor):
    reader = RepeatedPrefix.without_prefix(scene_model)
    with pytest.raises(ValueError, match="`max_new_tokens` must be an integer of at least 1, got 0"):
        GreedyDecoder(scene_model, processor).decode(reader, questions(scene_model), 0)
