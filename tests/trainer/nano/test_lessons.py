"""The lessons of a nano model: what a question sees in them, what they train, and that they leave a whole model."""

import numpy as np
import pytest
import torch
from training_samples import GRID, build_model, chat, make_regions, make_sample

from trainer import IDE3DTrainingArguments
from trainer.nano.lessons import RegionReadingCollator, lesson_arguments, lesson_kept, name_cells, read_regions


def pointing_sample(views: int = 1, seed: int = 0) -> dict:
    return make_sample(
        views,
        seed=seed,
        teacher=True,
        messages=[chat("How far is <ground>?", "2 m"), chat("How far is <ground>?", "It is near.")],
        region_masks=make_regions(2, views, seed),
        region_references=[0, 1],
    )


def naming_sample() -> dict:
    words = np.full((2, *GRID), "2")
    return make_sample(2, teacher=True, messages=[{"role": "user", "content": [{"type": "video"}]}], cell_words=words)


@pytest.fixture
def args(tmp_path):
    return IDE3DTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        save_steps=1,
    )


def changed_parts(model, before: dict) -> set[str]:
    prefixes = ("model.vision_tower", "model.multi_modal_projector", "model.language_model.layers", "lm_head")
    prefixes += ("geometric_validator", "teacher_projector")
    after = model.state_dict()
    assert after.keys() == before.keys()
    return {
        part for part in prefixes for name in after if name.startswith(part) if (after[name] != before[name]).any()
    }


def snapshot(model) -> dict:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_question_sees_its_region_and_not_the_video(collator, model):
    """Other pixels outside of the region change nothing of the answer's logits; inside of it they do."""
    model.eval()
    sample = pointing_sample()
    batch = RegionReadingCollator(collator)([sample])
    is_question = batch["segment_ids"][0] == 1
    hidden = {"video": model.get_video_features(batch["pixel_values_videos"], return_dict=True)}
    tokens = hidden["video"].pooler_output[0]
    region = torch.from_numpy(sample["region_masks"][0][0])
    cells = torch.nn.functional.pad(region, (0, 1)).flatten().nonzero().flatten()
    others = torch.ones(len(tokens), dtype=torch.bool)
    others[cells] = False

    def logits(change):
        hidden["video"].pooler_output = [tokens + change]
        kept = {key: value for key, value in batch.items() if key != "pixel_values_videos"}
        return model(**kept, mm_encoder_outputs=hidden).logits[0, is_question]

    with torch.no_grad():
        plain = logits(0.0)
        assert torch.equal(plain, logits(others.unsqueeze(1) * 1.0))
        assert not torch.allclose(plain, logits(~others.unsqueeze(1) * 1.0))


def test_all_but_the_segments_is_the_collators(collator):
    samples = [pointing_sample(1), pointing_sample(2, seed=1)]
    batch, plain = RegionReadingCollator(collator)(samples), collator(samples)
    assert batch.keys() == plain.keys()
    for key in set(batch) - {"segment_ids"}:
        assert torch.equal(batch[key], plain[key]), key
    assert torch.equal(batch["segment_ids"] < 0, plain["segment_ids"] < 0)
    assert not (batch["segment_ids"] == 0).any()


def test_single_chats_raise(collator):
    with pytest.raises(ValueError, match="a list of chats about one video"):
        RegionReadingCollator(collator)([make_sample(1)])


def test_naming_trains_tower_and_heads_and_gives_the_layers_back(collator, args):
    model = build_model()
    before = snapshot(model)
    name_cells(model, collator, [naming_sample()] * 4, [pointing_sample(2)] * 2, args, 2)
    parts = changed_parts(model, before)
    assert parts == {
        "model.vision_tower",
        "model.multi_modal_projector",
        "lm_head",
        "geometric_validator",
        "teacher_projector",
    }


def test_the_schedule_of_geometry_terms_is_that_of_the_training(collator, args):
    """Terms that begin late, or behind the end of the training, are there in full in the lesson that has them."""
    args.geometry_start_step, args.geometry_warmup_steps, args.geometry_decay_steps = 50, 7, 9
    model = build_model()
    before = snapshot(model)
    name_cells(model, collator, [naming_sample()] * 4, [pointing_sample(2)] * 2, args, 1)
    assert {"geometric_validator", "teacher_projector"} <= changed_parts(model, before)
    assert [lesson_arguments(args, "naming", 2).geometry_scale(step, 2) for step in (0, 1)] == [1.0, 1.0]


def test_a_lesson_that_fails_gives_the_layers_back(collator, args):
    model = build_model()
    keys = model.state_dict().keys()
    with pytest.raises(ValueError, match="cell_words"):
        name_cells(model, collator, [make_sample(1)], [pointing_sample()], args, 1)
    assert model.state_dict().keys() == keys


def test_reading_trains_by_the_language_loss_alone(collator, args, tmp_path):
    model = build_model()
    before = snapshot(model)
    read_regions(model, collator, [pointing_sample(), pointing_sample(2, seed=1)], args, 2)
    parts = changed_parts(model, before)
    assert {"model.vision_tower", "model.language_model.layers", "lm_head"} <= parts
    assert not {"geometric_validator", "teacher_projector"} & parts
    assert not list(tmp_path.rglob("checkpoint-*"))  # a lesson leaves nothing that a training could resume from


def test_reading_learns_what_regions_say(collator, args):
    """Which of two regions is meant decides the answer; the words of the question are the same."""
    model = build_model()
    args.learning_rate = 3e-3
    sample = pointing_sample()
    collate = RegionReadingCollator(collator)

    def loss() -> float:
        with torch.no_grad():
            return float(model(**collate([sample])).loss)

    before = loss()
    read_regions(model, collator, [sample] * 2, args, 40)
    assert loss() < 0.2 * before


def test_questions_that_point_at_nothing_see_the_video(collator):
    """In a lesson of both kinds only those that point are cut off from it."""
    words = make_sample(1, messages=[chat("How many?", "2"), chat("How far?", "1 m")])
    batch = RegionReadingCollator(collator)([pointing_sample(), words])
    assert not (batch["segment_ids"][0] == 0).any()
    assert (batch["segment_ids"][1] == 0).sum() > 10
    assert torch.equal(batch["segment_ids"][1], collator([pointing_sample(), words])["segment_ids"][1])


class TestKeptLessons:
    def test_a_lesson_is_taken_once(self, tmp_path):
        model, taught = build_model(), tmp_path / "lessons" / "naming.safetensors"
        with lesson_kept(model, taught) as is_done:
            assert not is_done
            with torch.no_grad():
                model.lm_head.weight.fill_(0.5)
        expected = snapshot(model)
        other = build_model()
        with lesson_kept(other, taught) as is_done:
            assert is_done
        assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
        assert [file.name for file in taught.parent.iterdir()] == ["naming.safetensors"]

    def test_a_lesson_that_fails_is_not_kept(self, tmp_path):
        with pytest.raises(RuntimeError, match="killed"), lesson_kept(build_model(), tmp_path / "a.safetensors"):
            raise RuntimeError("killed")
        assert not list(tmp_path.iterdir())
