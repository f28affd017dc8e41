"""Head and embedding are one weight or two: what a config says of it is never believed over the weights."""

import copy

import pytest
import torch
from exporting import build_model, build_processor
from training_samples import build_model as build_training_model
from training_samples import make_sample

from modeling_ide3d import IDE3DForConditionalGeneration
from trainer import export_inference_model
from trainer.export import export_checkpoint
from trainer.loop.adapters import load_and_merge_adapters, merge_adapters

IDS = torch.arange(30, 42)[None]
ATTENTION = r"model\.language_model\..*q_proj"
BOTH = ["embed_tokens", "lm_head"]


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def flags(model):
    return model.config.tie_word_embeddings, model.config.text_config.tie_word_embeddings


def is_tied(model):
    return model.lm_head.weight is model.get_input_embeddings().weight


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def _tied(processor):
    return build_model(processor, tie_word_embeddings=True)


@pytest.fixture
def tied(_tied):
    model = copy.deepcopy(_tied)
    model.config.text_config.tie_word_embeddings = True  # as small Qwen2 checkpoints have it
    assert is_tied(model)
    return model


@pytest.fixture
def untied(tied):
    """Its config still says that it is tied."""
    tied.lm_head.weight = torch.nn.Parameter(tied.lm_head.weight + 0.1 * torch.randn_like(tied.lm_head.weight))
    return tied


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
@pytest.mark.parametrize(
    "adapters, one_weight",
    [
        ({"target_modules": ATTENTION}, True),
        ({"target_modules": ATTENTION, "modules_to_save": BOTH}, False),
        ({"target_modules": ATTENTION, "modules_to_save": ["lm_head"]}, False),
        ({"target_modules": ATTENTION, "modules_to_save": ["embed_tokens"]}, False),
        ({"target_modules": ATTENTION, "modules_to_save": BOTH, "ensure_weight_tying": True}, True),
        ({"target_modules": ["lm_head"]}, False),
        ({"target_modules": ["embed_tokens"]}, False),
        ({"target_modules": BOTH}, False),
        ({"target_modules": BOTH, "ensure_weight_tying": True}, True),
        ({"target_modules": ATTENTION, "trainable_token_indices": [35, 36]}, True),
    ],
)
def test_merged_adapters_are_exported_as_they_answered(tied, processor, tmp_path, adapters, one_weight):
    peft = pytest.importorskip("peft")
    base = copy.deepcopy(tied)
    adapted = peft.get_peft_model(tied, peft.LoraConfig(r=4, **adapters))
    torch.manual_seed(0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    answer = logits(adapted)
    assert (answer - logits(base)).abs().max() > 1e-3
    adapted.save_pretrained(tmp_path / "adapter")
    merged = {"memory": merge_adapters(adapted), "folder": load_and_merge_adapters(base, tmp_path / "adapter")}
    for name, model in merged.items():
        torch.testing.assert_close(logits(model), answer, atol=1e-5, rtol=1e-4)
        assert flags(model) == (one_weight, one_weight) and is_tied(model) == one_weight
        export = export_inference_model(model, processor, tmp_path / name)
        loaded = IDE3DForConditionalGeneration.from_pretrained(export)
        torch.testing.assert_close(logits(loaded), answer, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("write", ["save_pretrained", "export"])
def test_weights_that_differ_are_written_apart(untied, processor, tmp_path, write):
    answer = logits(untied)
    if write == "export":
        export_inference_model(untied, processor, tmp_path / "model")
    else:
        untied.save_pretrained(tmp_path / "model")
    loaded = IDE3DForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert flags(loaded) == (False, False) and torch.equal(logits(loaded), answer)
    loaded.tie_weights()  # as `resize_token_embeddings` does
    assert torch.equal(logits(loaded), answer)


@pytest.mark.parametrize("write", ["save_pretrained", "export"])
def test_one_weight_that_the_config_calls_two_is_not_lost(tied, processor, tmp_path, write):
    answer = logits(tied)
    tied.config.tie_word_embeddings = tied.config.text_config.tie_word_embeddings = False
    if write == "export":
        export_inference_model(tied, processor, tmp_path / "model")
    else:
        tied.save_pretrained(tmp_path / "model")
    assert torch.equal(logits(IDE3DForConditionalGeneration.from_pretrained(tmp_path / "model")), answer)


def test_a_checkpoint_of_two_weights_under_a_tied_config_is_read_as_two(untied, processor, tmp_path, monkeypatch):
    answer = logits(untied)
    with monkeypatch.context() as patch:  # as another program writes it
        patch.setattr(IDE3DForConditionalGeneration, "settle_tied_weights", lambda self: None)
        untied.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded, report = IDE3DForConditionalGeneration.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert flags(loaded) == (False, False) and torch.equal(logits(loaded), answer) and not report["missing_keys"]
    exported = IDE3DForConditionalGeneration.from_pretrained(
        export_checkpoint(tmp_path / "model", tmp_path / "export")
    )
    assert torch.equal(logits(exported), answer)


def test_a_training_saves_a_head_of_its_own_and_resumes_where_there_is_one(make_trainer, tmp_path):
    model = build_training_model(tie_word_embeddings=True)
    assert is_tied(model) and "lm_head.weight" in model._keys_to_ignore_on_save
    other = copy.deepcopy(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * 1.1)
    samples = [make_sample(2), make_sample(2, seed=1)]
    trainer = make_trainer(samples, model=model, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    checkpoint = tmp_path / "run" / "checkpoint-1"
    loaded = IDE3DForConditionalGeneration.from_pretrained(checkpoint)
    assert torch.equal(logits(loaded), logits(trainer.model)) and flags(loaded)[0] is False
    with pytest.raises(ValueError, match="has tie_word_embeddings=False, the model has True"):
        make_trainer(samples, "again", model=other, max_steps=2).train(resume_from_checkpoint=str(checkpoint))
