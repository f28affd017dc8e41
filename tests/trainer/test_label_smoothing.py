"""Smoothed labels are those of the next token, in every trainer that this model meets."""

import pytest
import torch
from exporting import build_inputs, build_processor, write_video
from exporting import build_model as build_inference_model
from torch import nn
from training_samples import build_collator, build_model, chat, make_mixed_batch, make_sample
from transformers import Trainer, TrainingArguments

from trainer.supervision.label_smoothing import smoothed_labels

FACTOR = 0.3


def by_hand(logits, labels, num_items=None):
    """The mean over labels of (1 - f) * -log p(label) + f * mean over words of -log p, word by word."""
    terms = []
    for row, answers in zip(logits.double(), labels, strict=True):
        for scores, label in zip(row[:-1], answers[1:].tolist(), strict=True):
            if label != -100:
                surprise = -(scores - scores.logsumexp(-1))
                terms.append((1 - FACTOR) * surprise[label] + FACTOR * surprise.mean())
    return (sum(terms) / (len(terms) if num_items is None else num_items)).float()


@pytest.fixture
def language_only():
    names = ("depth", "cross_view", "consistency", "distillation", "grounding")
    return {**{f"{name}_weight": 0.0 for name in names}, "label_smoothing_factor": FACTOR}


@pytest.mark.parametrize("num_items", [None, 11])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_loss_is_that_of_the_next_token(make_trainer, language_only, mode, num_items):
    """Packed chats, texts alone and videos of different length in one batch."""
    samples = make_mixed_batch()
    trainer = make_trainer(samples, **language_only)
    batch = build_collator()(samples)
    getattr(trainer.model, mode)()
    with torch.no_grad():
        plain = trainer.model(**batch, logits_to_keep=0)
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=num_items)
        assert trainer.model(**batch, logits_to_keep=0).loss == plain.loss  # the model itself stays as it was
    # An evaluation is over its own tokens, whatever Trainer counts over all processes.
    expected = by_hand(plain.logits, batch["labels"], num_items if mode == "train" else None)
    torch.testing.assert_close(loss, expected)
    assert abs(loss - plain.loss) > 0.01


def test_an_answerless_batch_has_no_loss(make_trainer, language_only):
    sample = make_sample(2)
    trainer = make_trainer([sample], **language_only)
    batch = build_collator()([sample])
    batch["labels"] = torch.full_like(batch["labels"], -100)
    assert trainer.compute_loss(trainer.model.train(), batch) == 0


def test_training_and_evaluation_smooth_alike(make_trainer, language_only):
    samples = [make_sample(2, seed=seed, messages=chat(answer=answer)) for seed, answer in enumerate(("2 m", "near"))]
    trainer = make_trainer(samples, eval_dataset=samples, learning_rate=0.0, max_steps=1, **language_only)
    trainer.train()
    trained = next(entry["loss_language"] for entry in trainer.state.log_history if "loss_language" in entry)
    assert trainer.evaluate()["eval_loss_language"] == pytest.approx(trained, rel=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
@pytest.mark.parametrize("source", ["inference class", "training class", "adapters"])
def test_plain_trainer(tmp_path, source):
    """Trainer knows a class by its name; `test_export` asks the exported class in a process of its own."""
    processor = build_processor()
    model = build_model() if source == "training class" else build_inference_model(processor)
    if source == "adapters":
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=r"model\.language_model.*q_proj"))
    if source == "training class":
        batch = build_collator()([make_sample(2)])
    else:
        batch = build_inputs(processor, write_video(tmp_path / "room.mp4"))
        batch["labels"] = batch["input_ids"].masked_fill(batch["input_ids"] == processor.video_token_id, -100)
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", label_smoothing_factor=FACTOR)
    trainer = Trainer(model=model.eval(), args=args)
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch))
        logits = model(**batch).logits
    torch.testing.assert_close(loss, by_hand(logits, batch["labels"]))


def test_another_loss_is_refused(model):
    model.loss_function = nn.functional.mse_loss
    with pytest.raises(ValueError, match="label_smoothing_factor=0.1 smooths the loss of the next token"):
        with smoothed_labels(model, 0.1):
            pass
