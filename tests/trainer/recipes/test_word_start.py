"""The start of a projector from words: what a cell is made of, what is fitted, and what is refused."""

import logging

import numpy as np
import pytest
import torch
from language_models import TEXTS, write_language_model
from transformers import AutoModelForImageTextToText

from processing.rooms import load_rooms
from processing.rooms.samples import cell_objects
from processing.token_grid import TokenGrid
from trainer.export import export_inference_model
from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor
from trainer.recipes import read_recipe, run_recipe, word_start
from trainer.recipes.idle import warn_of_idle

SIZE, FRAMES, WIDTH = 32, 2, 32


@pytest.fixture(scope="module")
def built():
    """A random nano model of 32 px and its processor."""
    processor = build_nano_processor(TEXTS, image_size=SIZE, num_frames=FRAMES, vocab_size=300)
    torch.manual_seed(0)
    return build_nano_model(build_nano_config(processor, hidden_size=WIDTH, vision_layers=2, text_layers=2)), processor


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    return list(load_rooms("train", 4, image_size=SIZE, num_frames=FRAMES, cache_dir=folder))


def test_a_cell_is_the_sum_of_its_words(built, rooms):
    model, processor = built
    grid, tokenizer = TokenGrid.of(processor), processor.tokenizer
    table = model.get_input_embeddings().weight.detach()
    words = word_start.CellWords(table, tokenizer)
    room = rooms[0]
    bare = {**room, "depth": [torch.zeros(SIZE, SIZE).numpy()] * FRAMES}  # no depth is measured
    found, index = words.read_room(bare, grid), cell_objects(room, grid)
    assert found.shape == (FRAMES, *grid.shape, WIDTH)

    def vector(text):
        return table[tokenizer.encode(text)].mean(0) - table.mean(0)

    frame, row, column = (int(place[0]) for place in (index >= 0).nonzero())
    thing = room["objects"][index[frame, row, column]]
    assert thing["colour"]
    right = (column + 0.5) / grid.cols
    expected = table.mean(0) + vector(f" {thing['colour']}") + vector(f" {thing['category']}")
    expected = expected + (1 - right) * vector(" left") + right * vector(" right")
    torch.testing.assert_close(found[frame, row, column], expected)
    deep = {**room, "depth": [torch.full((SIZE, SIZE), 2.25).numpy()] * FRAMES}
    metres = words.read_room(deep, grid) - found
    torch.testing.assert_close(
        metres, (0.75 * vector("2") + 0.25 * vector("3")).expand_as(metres), atol=1e-5, rtol=1e-4
    )
    far = {**room, "depth": [torch.full((SIZE, SIZE), 20.0).numpy()] * FRAMES}
    metres = words.read_room(far, grid) - found
    torch.testing.assert_close(metres, vector("9").expand_as(metres), atol=1e-5, rtol=1e-4)


def test_the_fit_is_that_of_least_squares(built, rooms):
    """The share that is explained is that of the tokens that the model then gives, and better than a fit by half."""
    model, processor = built
    grid = TokenGrid.of(processor)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    share = word_start.start_from_words(model, processor, rooms)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"model.multi_modal_projector.linear_2.{part}" for part in ("weight", "bias")}
    words = word_start.CellWords(model.get_input_embeddings().weight, processor.tokenizer)

    def explained():
        tokens, vectors = [], []
        for room in rooms:
            frames = torch.stack([torch.from_numpy(np.array(frame)) for frame in room["frames"]])
            pixels = processor.video_processor(
                videos=[frames.permute(0, 3, 1, 2)], return_tensors="pt", do_sample_frames=False
            )["pixel_values_videos"]
            with torch.no_grad():
                tokens.append(grid.split(model.get_video_features(pixels).pooler_output[0]).flatten(0, 2))
            vectors.append(words.read_room(room, grid).flatten(0, 2))
        tokens, vectors = torch.cat(tokens), torch.cat(vectors)
        return 1 - ((tokens - vectors) ** 2).sum() / ((vectors - vectors.mean(0)) ** 2).sum()

    assert explained().item() == pytest.approx(share, abs=1e-3)
    assert 0.1 < share < 1
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.mul_(0.9)
    assert explained() < share
    model.load_state_dict(before)


@pytest.mark.slow
def test_a_recipe_starts_from_words(built, tiny_recipe, tmp_path, caplog):
    checkpoint = export_inference_model(*built, tmp_path / "nano")
    name = write_language_model(tmp_path / "language", max_position_embeddings=2048)
    options = {"teacher": "none", "validator": "none", "naming_steps": 0, "reading_steps": 0, "max_grounding": 0}
    options |= {"model_name_or_path": str(checkpoint), "language_model": name, "learning_rate": 1e-9}
    weights = {}
    with caplog.at_level(logging.INFO):
        for rooms in (0, 3):
            path = tiny_recipe(**options, word_rooms=rooms, output_dir=str(tmp_path / f"out{rooms}"))
            model = AutoModelForImageTextToText.from_pretrained(run_recipe(*read_recipe(path)))
            weights[rooms] = model.model.multi_modal_projector.linear_2.weight
    assert caplog.text.count("The projector starts from words") == 1
    assert (weights[3] - weights[0]).abs().max() > 0.01


def test_no_room_is_refused(built):
    with pytest.raises(ValueError, match="at least one room"):
        word_start.start_from_words(*built, [])


def test_without_a_language_model_it_has_no_effect(tiny_recipe, caplog):
    warn_of_idle(*read_recipe(tiny_recipe(word_rooms=3))[:2])
    assert "word_rooms has no effect: language_model is not set." in caplog.text
