"""`supervise_any_model.py`: another model in a plain `Trainer`, with the heads beside it."""

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, TrainingArguments

from processing.rooms import load_rooms
from trainer import GeometrySupervision
from trainer.supervision import SupervisedTrainer
from trainer.supervision.supervised_trainer import TARGETS


@pytest.fixture
def script(example):
    return example("supervise_any_model")


@pytest.fixture
def rooms():
    return list(load_rooms("train", 2, image_size=112, num_frames=4))


@pytest.fixture
def tiny(script, rooms):
    torch.manual_seed(0)
    entries = [entry for room in rooms for entry in room["questions"]]
    return script.build_tiny([text for entry in entries for text in (entry["question"], entry["answer"])])


@pytest.fixture
def make_trainer(script, rooms, tiny, tmp_path):
    def build(model=None, **changes):
        model = tiny[0] if model is None else model
        torch.manual_seed(0)
        supervision = GeometrySupervision.attach(model, validator="light")
        options = {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 3e-3, **changes}
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "run"),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            logging_steps=1,
            save_strategy="no",
            remove_unused_columns=False,
            lr_scheduler_type="constant",
            **options,
        )
        collator = script.RoomCollator(tiny[1])
        return SupervisedTrainer(
            model, arguments, train_dataset=rooms, eval_dataset=rooms, data_collator=collator, supervision=supervision
        )

    return build


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_from_rooms_to_a_saved_model(script, tmp_path):
    words = ["--rooms", "2", "--steps", "2"]
    script.main([*words, "--output", str(tmp_path / "first")])
    loaded, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "first", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any("geometric" in name for name in loaded.state_dict())
    script.main([*words, "--model", str(tmp_path / "first"), "--output", str(tmp_path / "second")])
    again = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "second").state_dict()
    assert any(not torch.equal(weight, again[name]) for name, weight in loaded.state_dict().items())


def test_answers_are_what_is_learned(script, rooms, tiny):
    processor = tiny[1]
    batch = script.RoomCollator(processor)(rooms)
    assert {"depth", "intrinsics", "camera_to_world"} < set(batch)
    assert batch["depth"].shape == (2, 4, 112, 112) and batch["intrinsics"].shape == (2, 4, 3, 3)
    for row, room in enumerate(rooms):
        entry = next(entry for entry in room["questions"] if entry["reference"] == "word")
        said = batch["labels"][row]
        assert processor.tokenizer.decode(said[said != -100]) == entry["answer"] + "<|im_end|>"
        assert entry["question"] in processor.tokenizer.decode(batch["input_ids"][row])


def test_model_and_heads_learn(make_trainer):
    trainer = make_trainer(max_steps=12)
    before = {
        name: weight.clone()
        for module in (trainer.model, trainer.supervision)
        for name, weight in module.named_parameters()
    }
    trainer.train()
    assert losses(trainer)[-1] < 0.8 * losses(trainer)[0]
    for module, part in ((trainer.model, "visual.blocks"), (trainer.supervision, "geometric_validator.decoder")):
        moved = [name for name, weight in module.named_parameters() if not torch.equal(weight, before[name])]
        assert any(part in name for name in moved), part


def test_accumulated_batches_are_one_batch(make_trainer, tiny):
    """The language loss is weighted by tokens, the depth of rooms of one size by halves."""
    weights = {name: weight.clone() for name, weight in tiny[0].state_dict().items()}
    logged = []
    for size, steps in ((2, 1), (1, 2)):
        tiny[0].load_state_dict(weights)
        trainer = make_trainer(per_device_train_batch_size=size, gradient_accumulation_steps=steps)
        trainer.supervision.loss_weights = {"loss_depth": 0.8}
        trainer.train()
        trainer.supervision.detach()
        logged.append(losses(trainer)[0])
    assert logged[0] == pytest.approx(logged[1], rel=1e-3)


def test_evaluation_has_the_language_loss_alone(make_trainer):
    trainer = make_trainer()
    supervised = trainer.evaluate()["eval_loss"]
    trainer.supervision.detach()
    assert trainer.evaluate()["eval_loss"] == supervised


def test_smoothed_labels_are_those_of_the_next_token(make_trainer, rooms):
    """Transformers shifts them for the classes of a table that has no Qwen2.5-VL."""
    trainer = make_trainer(label_smoothing_factor=0.3)
    batch = trainer.data_collator(rooms)
    trainer.model.eval()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
        plain = trainer.model(**{key: value for key, value in batch.items() if key not in TARGETS})
    scores, labels = plain.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, labels, label_smoothing=0.3))
    assert abs(loss - plain.loss) > 1e-3 and outputs.logits.shape == plain.logits.shape
