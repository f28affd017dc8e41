"""Training behaviour and attention backends: gradients, activation checkpointing, eager, sdpa, flex."""

import copy
import importlib.util

import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from modeling_ide3d import IDE3DForConditionalGeneration


@torch.no_grad()
def logits_of(model, inputs):
    return model(**inputs).logits


@pytest.fixture
def batch(tiny_inputs):
    """Two videos of different length and an image, with regions."""
    return tiny_inputs([2, "text", "ground", "text"], ["image", 1, "text", "ground"], regions=1)


# Attention backends


def test_parts_take_their_own_attention(tiny_model, batch, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    choice = {"vision_config": "eager", "text_config": "sdpa"}
    mixed = IDE3DForConditionalGeneration.from_pretrained(tmp_path, attn_implementation=choice)
    assert mixed.get_encoder("video").config._attn_implementation == "eager"
    assert mixed.get_decoder().config._attn_implementation == "sdpa"
    default = IDE3DForConditionalGeneration.from_pretrained(tmp_path)
    assert default.get_encoder("video").config._attn_implementation == "sdpa"
    torch.testing.assert_close(logits_of(mixed, batch), logits_of(default, batch), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_eager_equals_sdpa(tiny_model, tiny_inputs, padding_side):
    inputs = tiny_inputs([3, "text"], ["text", 1], padding_side=padding_side)
    own = inputs["attention_mask"].bool()
    logits = {}
    for name in ("eager", "sdpa"):
        tiny_model.set_attn_implementation(name)
        assert tiny_model.get_encoder("video").config._attn_implementation == name
        logits[name] = logits_of(tiny_model, inputs)[own]
    torch.testing.assert_close(logits["eager"], logits["sdpa"], atol=2e-5, rtol=1e-4)


@pytest.mark.slow
def test_flex_attention_equals_sdpa(tiny_model, tiny_inputs):
    # On a CPU it runs without gradients only, and compiles C++ first.
    inputs = tiny_inputs([2, "text"])
    expected = logits_of(tiny_model, inputs)
    tiny_model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(logits_of(tiny_model, inputs), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not is_flash_attn_2_available(), reason="flash-attn is not installed")
def test_flash_attention_equals_sdpa(tiny_model, batch):
    model = tiny_model.to("cuda", torch.bfloat16)
    inputs = {key: value.to("cuda") for key, value in batch.items()}
    expected = logits_of(model, inputs)
    model.set_attn_implementation("flash_attention_2")
    own = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits_of(model, inputs)[own], expected[own], atol=5e-2, rtol=5e-2)


# Training


def loss_and_gradients(model, inputs):
    model.train()
    loss = model(**inputs, labels=inputs["input_ids"], use_cache=False).loss
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters()}


def test_training_lowers_the_loss(tiny_model, batch):
    optimizer = torch.optim.AdamW(tiny_model.parameters(), lr=3e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss, gradients = loss_and_gradients(tiny_model, batch)
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    without = {name.split(".")[-3] for name, gradient in gradients.items() if gradient is None and "tower" in name}
    assert without <= {"vision_tower"}  # its last norm is behind the layer that is read
    for name in ("model.image_newline", "model.multi_modal_projector.linear_1.weight", "lm_head.weight"):
        assert gradients[name].abs().sum() > 0


def test_loss_counts_the_words_of_the_whole_step(tiny_model, batch):
    labels = batch["input_ids"].clone()
    labels[:, :-4] = -100
    with torch.no_grad():
        outputs = tiny_model(**batch, labels=labels)
        expected = torch.nn.functional.cross_entropy(outputs.logits[:, -5:-1].flatten(0, 1), labels[:, -4:].flatten())
        torch.testing.assert_close(outputs.loss, expected)
        whole_step = tiny_model(**batch, labels=labels, num_items_in_batch=torch.tensor(32)).loss
    torch.testing.assert_close(whole_step, expected * 8 / 32)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing_gives_equal_gradients(tiny_model, batch, use_reentrant):
    other = copy.deepcopy(tiny_model)
    loss, gradients = loss_and_gradients(tiny_model, batch)
    calls = []
    other.get_encoder("video").encoder.layers[0].layer_norm1.register_forward_hook(lambda *_: calls.append(1))
    other.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": use_reentrant})
    if use_reentrant:
        other.enable_input_require_grads()  # as the Trainer does: a reentrant checkpoint needs an input with gradient
    same_loss, same_gradients = loss_and_gradients(other, batch)
    torch.testing.assert_close(same_loss, loss)
    for name, gradient in gradients.items():
        if gradient is None:
            assert same_gradients[name] is None, name
        else:
            torch.testing.assert_close(same_gradients[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert len(calls) == 4  # videos and images, each twice


@pytest.mark.parametrize("detach", [True, False])
def test_region_reference_is_detached_by_config(make_tiny_model, tiny_config, tiny_inputs, detach):
    model = make_tiny_model(tiny_config(detach_region_references=detach))
    inputs = tiny_inputs(["text", "ground", "text", 1], regions=1)
    # Words before the video see it through the reference alone.
    model(**inputs).logits[0, : inputs["input_ids"][0].tolist().index(101)].sum().backward()
    gradient = model.model.multi_modal_projector.linear_1.weight.grad
    assert (gradient is None or gradient.abs().sum() == 0) == detach


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_low_rank_adapters_on_the_language_model(tiny_model, batch):
    from peft import LoraConfig, get_peft_model

    expected = logits_of(tiny_model, batch)
    targets = r"model\.language_model\..*\.(q_proj|v_proj)"
    adapted = get_peft_model(tiny_model, LoraConfig(r=2, target_modules=targets))
    torch.testing.assert_close(logits_of(adapted, batch), expected)
    adapted(**batch, labels=batch["input_ids"]).loss.backward()
    trained = [name for name, weight in adapted.named_parameters() if weight.grad is not None]
    assert trained
    assert all("lora_" in name and "language_model" in name for name in trained)
