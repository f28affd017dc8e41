"""From a recipe of boxes in words to their scores: trained, exported, asked by the script."""

import json

import pytest

from trainer.recipes import read_recipe, run_recipe


@pytest.mark.parametrize("numbers", ["digits", "tokens"])
def test_a_trained_model_is_scored(example, tiny_recipe, tmp_path, numbers):
    """After two steps it has learned nothing; its tokenizer has the words of the recipe."""
    words = ["--lessons", "box=1", "--box_numbers", numbers, "--naming_steps", "0", "--reading_steps", "0"]
    folder = run_recipe(*read_recipe(tiny_recipe(max_steps=1), words))
    output = tmp_path / "scores.json"
    given = [str(folder), "--split", "validation", "--num-rooms", "1", "--num-baseline-rooms", "2"]
    result = example("evaluate_room_boxes").main([*given, "--output", str(output)])
    assert result["numbers"] == numbers and result["model"]["unparsable"] > 50
    assert result["mean_box"]["unparsable"] == 0 and result["mean_box"]["center_error"] > 0
    assert json.loads(output.read_text())["mean_box"] == result["mean_box"]
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert any(entry["content"] == "<bin_511>" for entry in tokenizer["added_tokens"]) == (numbers == "tokens")
