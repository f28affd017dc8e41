"""The first lesson: every visual token is labelled with the word of its cell, and nothing else is."""

import numpy as np
import pytest
import torch
from training_samples import GRID, chat, make_mixed_batch, make_sample

from trainer.data_collator import IGNORED_LABEL
from trainer.nano.cell_naming import CellNamingCollator


def lesson(views: int, words: np.ndarray | None = None, **fields) -> dict:
    digits = np.arange(views * GRID[0] * GRID[1]).reshape(views, *GRID) % 10
    messages = [{"role": "system", "content": "digits"}, {"role": "user", "content": [{"type": "video"}]}]
    return make_sample(views, **{"messages": messages, "cell_words": digits.astype(str), **fields})


@pytest.fixture
def naming(collator):
    return CellNamingCollator(collator)


def named(naming, batch, index: int) -> list[str]:
    """For each visual token of a sample the word that its output is compared with; "" for none."""
    processor = naming.collator.processor
    places = (batch["input_ids"][index] == processor.video_token_id).nonzero().flatten()
    labels = batch["labels"][index, places + 1].tolist()
    return ["" if label == IGNORED_LABEL else processor.tokenizer.decode([label]) for label in labels]


def test_each_cell_predicts_its_word_and_newlines_nothing(naming):
    samples = [lesson(2), lesson(3, seed=1)]
    batch = naming(samples)
    for index, sample in enumerate(samples):
        newline = np.full((*sample["cell_words"].shape[:2], 1), "")
        assert named(naming, batch, index) == np.concatenate([sample["cell_words"], newline], -1).ravel().tolist()
    assert int((batch["labels"] != IGNORED_LABEL).sum()) == 5 * GRID[0] * GRID[1]


def test_cells_without_a_word_and_answers_have_no_label(naming):
    words = np.full((1, *GRID), "", dtype="U3")
    words[0, 1, 2] = "2 m"
    batch = naming([lesson(1, messages=chat(), cell_words=words)])
    first_token = naming.collator.processor.tokenizer.encode("2 m")[0]
    assert batch["labels"][batch["labels"] != IGNORED_LABEL].tolist() == [first_token]


def test_all_else_is_the_collators(naming):
    samples = [lesson(2), lesson(1)]
    batch, plain = naming(samples), naming.collator(samples)
    assert set(batch) == set(plain)
    for key in set(batch) - {"labels"}:
        assert torch.equal(batch[key], plain[key]), key


def test_the_language_loss_is_that_of_the_words(naming, model):
    batch = naming([lesson(2)])
    model.eval()
    output = model(**batch)
    places = (batch["input_ids"][0] == naming.collator.processor.video_token_id).nonzero().flatten()
    cells = places.unflatten(0, (-1, GRID[0], GRID[1] + 1))[..., :-1].flatten()
    ids = torch.tensor([naming.collator.processor.tokenizer.encode(word)[0] for word in lesson(2)["cell_words"].flat])
    expected = torch.nn.functional.cross_entropy(output.logits[0, cells], ids)
    torch.testing.assert_close(output.loss, expected)


def test_wrong_shapes_raise(naming):
    with pytest.raises(ValueError, match=r"Sample 1: cell_words must have shape \(2, 3, 3\), got \(1, 3, 3\)"):
        naming([lesson(2), lesson(2, cell_words=np.full((1, *GRID), "0"))])
    with pytest.raises(ValueError, match="cell_words must have shape"):
        naming([make_sample(2)])
    with pytest.raises(ValueError, match="cell_words must have shape"):
        naming([make_mixed_batch()[-1]])  # text alone


def test_a_model_learns_to_name_cells(make_trainer, naming):
    trainer = make_trainer([lesson(1, geometry=False)], collator=naming, max_steps=25, learning_rate=3e-3)
    trainer.train()
    losses = [entry["loss_language"] for entry in trainer.state.log_history if "loss_language" in entry]
    assert losses[-1] < 0.5 * losses[0]
