"""Tokens of numbers: a model gets them, they are in order, nothing else of it changes, and it is loaded again."""

import copy
import importlib.util

import pytest
import torch
from training_samples import build_model, build_processor
from transformers import AutoTokenizer

from modeling_ide3d import IDE3DForConditionalGeneration
from processing.boxes_in_words import NUM_BINS, key_tokens, write_boxes
from processing.oriented_boxes import CameraBox
from trainer.loop.adapters import add_adapters, merge_adapters
from trainer.recipes.box_tokens import add_box_tokens, find_box_tokens, number_waves

NUM_ADDED = NUM_BINS + len(key_tokens())


def table(model):
    return model.get_input_embeddings().weight.detach()


@pytest.fixture(params=[False, True], ids=["own head", "tied head"])
def model_and_tokenizer(request):
    tokenizer = build_processor().tokenizer
    model = build_model(tie_word_embeddings=request.param).eval()
    if request.param:
        model.config.text_config.tie_word_embeddings = True
        model.tie_weights()
    return model, tokenizer


def test_a_model_gets_them_and_keeps_what_it_knew(model_and_tokenizer, tmp_path):
    model, tokenizer = model_and_tokenizer
    before = copy.deepcopy(model)
    known = len(tokenizer)
    assert add_box_tokens(model, tokenizer) == NUM_ADDED
    assert len(tokenizer) == known + NUM_ADDED == model.config.get_text_config().vocab_size
    ids = torch.tensor([tokenizer.encode("Where is the ball?")])
    with torch.no_grad():
        old, new = (each(input_ids=ids).logits for each in (before, model))
    torch.testing.assert_close(new[..., :known], old)
    assert [tokenizer.decode([i]) for i in tokenizer.encode("<bin_7><bin_300>")] == ["<bin_7>", "<bin_300>"]
    assert tokenizer.decode(tokenizer.encode("[<bin_7>]"), skip_special_tokens=True) == "[<bin_7>]"

    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = IDE3DForConditionalGeneration.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, new)
    assert AutoTokenizer.from_pretrained(tmp_path).encode("<bin_7>") == tokenizer.encode("<bin_7>")


def test_near_numbers_are_alike_in_every_table(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    add_box_tokens(model, tokenizer)
    ids = find_box_tokens(tokenizer)[:NUM_BINS]
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = layer.weight.detach()[ids]
        gaps = torch.cdist(rows, rows)
        assert all(gaps.diagonal(n).max() < gaps.diagonal(n + 1).min() for n in range(3))
        others = layer.weight.detach()[: min(ids)]
        deviation = (others - others.mean(0)).norm(dim=1).mean()
        assert (rows - others.mean(0)).norm(dim=1).mean() == pytest.approx(deviation.item() / 2, rel=0.01)


def test_an_answer_is_short_and_keys_start_as_their_pieces(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    spelled = tokenizer.encode(',"center":"')
    before = table(model)[spelled].mean(0)
    add_box_tokens(model, tokenizer)
    (key,) = tokenizer.encode(',"center":"')
    torch.testing.assert_close(table(model)[key], before)
    boxes = [CameraBox(frame, (-0.34, 0.12, 2.31), (0.61, 0.88, 0.58), -0.21) for frame in (2, 0)]
    text = write_boxes(boxes, numbers="tokens")
    ids = tokenizer.encode(text)
    assert len(ids) <= 30 and tokenizer.decode(ids) == text


def test_a_tokenizer_that_has_them_keeps_its_model(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    add_box_tokens(model, tokenizer)
    rows = table(model).clone()
    assert add_box_tokens(model, tokenizer) == 0
    assert torch.equal(table(model), rows)


def test_rows_to_spare_are_used(model_and_tokenizer):
    """Checkpoints of Qwen 2 have more rows than words."""
    model, tokenizer = model_and_tokenizer
    model.resize_token_embeddings(len(tokenizer) + 1000)
    add_box_tokens(model, tokenizer)
    assert len(table(model)) == len(tokenizer) - NUM_ADDED + 1000


def test_waves_have_length_one():
    waves = number_waves(32)
    assert waves.shape == (NUM_BINS, 32)
    torch.testing.assert_close(waves.norm(dim=1), torch.ones(NUM_BINS))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_adapters_train_their_rows_and_no_other(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    add_box_tokens(model, tokenizer)
    ids = find_box_tokens(tokenizer)
    before = [layer.weight.detach().clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    adapted = add_adapters(model, 2, tokens=ids)
    optimizer = torch.optim.SGD([value for value in adapted.parameters() if value.requires_grad], lr=1.0)
    said = torch.tensor([tokenizer.encode("near <bin_7><bin_300> near")])
    adapted(input_ids=said, labels=said).loss.backward()
    optimizer.step()
    merged = merge_adapters(adapted)
    for old, layer in zip(before, (merged.get_input_embeddings(), merged.get_output_embeddings()), strict=True):
        changed = (layer.weight.detach() != old).any(1).nonzero().flatten().tolist()
        assert {ids[7], ids[300]} <= set(changed) <= set(ids)
