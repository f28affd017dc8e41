"""Model cards: valid metadata, the facts that were handed in, and no others."""

import re
from pathlib import Path

import pytest
import yaml
from exporting import build_processor, build_training_model
from huggingface_hub import EvalResult, ModelCard
from transformers import AutoModel, AutoModelForImageTextToText
from transformers.pipelines import check_task

from modeling_ide3d import IDE3DConfig
from modeling_ide3d.auxiliary.outputs import CAMERA_TERMS
from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.losses import DepthRegressionLoss, RegionContrastLoss
from trainer.model_card import LossTerm, TeacherFacts, create_model_card, list_loss_terms, set_model_id


def score(**fields) -> EvalResult:
    defaults = {
        "task_type": "video-text-to-text",
        "task_name": "distance questions",
        "dataset_type": "rooms",
        "dataset_name": "Rooms",
        "dataset_split": "test",
        "metric_type": "accuracy",
        "metric_value": 0.75,
    }
    return EvalResult(**{**defaults, **fields})


@pytest.fixture
def full_card() -> ModelCard:
    return create_model_card(
        model_name="Room model",
        model_id="someone/room-model",
        num_parameters=1234567,
        num_frames=8,
        license="apache-2.0",
        language="en",
        base_model="someone/base",
        datasets=["someone/rooms"],
        training_data="300 procedural rooms, seed 5.",
        losses=[
            LossTerm("loss_language", 1.0),
            LossTerm("loss_depth", 0.8, DepthRegressionLoss()),
            LossTerm("loss_grounding", 0.5, RegionContrastLoss()),
            LossTerm("loss_switched_off", 0.0, DepthRegressionLoss()),
        ],
        teacher=TeacherFacts("VGGT-1B", "cc-by-nc-4.0", "sha256:1, last layer"),
        scores=[score(), score(task_name="grounding", metric_type="recall", metric_value=0.5)],
        limits=["Seen nothing but procedural rooms."],
    )


def test_metadata_survives_being_read_again(full_card, tmp_path):
    full_card.save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "transformers"
    assert (
        {"custom_code", "video-text-to-text"} <= set(data.tags)
        and data.license == "apache-2.0"
        and data.language == "en"
    )
    assert data.base_model == "someone/base" and data.datasets == ["someone/rooms"]
    assert data.model_name == "Room model"
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [
        ("accuracy", 0.75),
        ("recall", 0.5),
    ]


def test_pipeline_knows_the_tag(full_card):
    _, task, _ = check_task(full_card.data.pipeline_tag)
    assert AutoModelForImageTextToText in task["pt"]


def test_metadata_is_plain_yaml_with_a_model_index(full_card):
    header = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", str(full_card), re.DOTALL)[1])
    results = header["model-index"][0]["results"]
    assert {result["dataset"]["name"] for result in results} == {"Rooms"}
    assert all(isinstance(metric["value"], float) for result in results for metric in result["metrics"])


def test_facts_that_were_handed_in_are_stated(full_card):
    text = re.sub(" +", " ", full_card.text)  # cells are padded to the width of their column
    for fact in (
        "1,234,567",
        "8 at most",
        "300 procedural rooms, seed 5.",
        "| loss_depth | 0.8 |",
        "VGGT-1B (sha256:1, last layer), licence: cc-by-nc-4.0",
        "| distance questions | Rooms | test | accuracy | 0.75 |",
        "- Seen nothing but procedural rooms.",
    ):
        assert fact in text, fact
    assert "loss_switched_off" not in text


def test_citations_of_the_losses_are_there_once(full_card):
    entries = re.findall(r"(?m)^@\w+\{([^,]+),", full_card.text)
    expected = {
        key
        for loss in (DepthRegressionLoss(), RegionContrastLoss())
        for key in re.findall(r"(?m)^@\w+\{([^,]+),", loss.citation)
    }
    assert len(entries) == len(set(entries)) and set(entries) >= expected and len(expected) > 1
    assert full_card.text.count("```") % 2 == 0


def test_card_without_facts_claims_nothing():
    card = create_model_card(model_name="Bare")
    for heading in ("Training data", "Training losses", "Teacher", "Scores", "## Model"):
        assert heading not in card.text, heading
    header = card.data.to_dict()
    assert "license" not in header and "model-index" not in header and "base_model" not in header
    assert "## Quick start" in card.text and "## Input of each task" in card.text and "## Limits" in card.text


def test_the_card_asks_for_the_transformers_that_the_code_needs(full_card):
    setup = (Path(__file__).parents[2] / "setup.cfg").read_text()
    oldest = re.search(r"transformers>=(\S+)", setup)[1]
    assert f"Transformers {oldest} or newer" in full_card.text


def test_quick_start_is_twelve_lines_of_valid_python(full_card):
    code = re.search(r"```python\n(.*?)```", full_card.text, re.DOTALL)[1]
    compile(code, "README.md", "exec")
    assert code.count("\n") == 12 and "trust_remote_code=True" in code
    assert 'model_id = "someone/room-model"' in code


def test_sizes_come_from_the_config():
    processor = build_processor()
    config = build_training_model(processor).config
    card = create_model_card(model_name="Sizes", config=config)
    rows, cols = config.token_grid
    assert f"(batch, regions, frames, {rows}, {cols})" in card.text
    assert f"{config.tokens_per_frame} tokens" in card.text


def test_a_pretrained_language_model_is_named_with_its_licence():
    sizes = build_training_model(build_processor()).config.to_dict()
    of = {"language_model_name": "someone/words-135M", "language_model_license": "apache-2.0"}
    card = create_model_card(model_name="Joined", config=IDE3DConfig(**{**sizes, **of}))
    assert "## Language model\n\nsomeone/words-135M, licence: apache-2.0." in card.text
    assert card.data.base_model == "someone/words-135M"
    assert card.data.license is None  # the licence of a part
    of = {"language_model_name": "words", "language_model_license": None}  # a folder
    card = create_model_card(model_name="Joined", config=IDE3DConfig(**{**sizes, **of}))
    assert "words, licence: not known." in card.text
    assert card.data.base_model is None
    assert "## Language model" not in create_model_card(model_name="Own", config=IDE3DConfig(**sizes)).text


def test_set_model_id_changes_the_quick_start_only(full_card):
    changed = set_model_id(full_card, r'me/o"d\d name')
    assert 'model_id = "me/o\\"d\\\\d name"' in changed.text
    assert changed.data.to_dict() == full_card.data.to_dict()
    assert "someone/room-model" in full_card.text  # the card that was given is unchanged
    with pytest.raises(ValueError, match="model_id"):
        set_model_id(ModelCard("# Somebody else's card"), "me/model")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.7", None])
def test_score_that_is_no_number_raises(value):
    with pytest.raises(ValueError, match="finite number"):
        create_model_card(model_name="x", scores=[score(metric_value=value)])


def test_weight_that_is_no_number_raises():
    with pytest.raises(ValueError, match="weight of the loss 'loss_depth'"):
        create_model_card(model_name="x", losses=[LossTerm("loss_depth", float("nan"))])


def test_loss_terms_of_a_trainer(tmp_path):
    arguments = IDE3DTrainingArguments(
        output_dir=tmp_path, depth_weight=0.25, distillation_weight=0.5, use_cpu=True, report_to="none"
    )
    model = build_training_model(build_processor())
    terms = {term.name: term for term in list_loss_terms(IDE3DTrainer(model, arguments))}
    assert set(terms) == {"loss_language", *arguments.loss_weights} - CAMERA_TERMS
    assert terms["loss_depth"].weight == 0.25 and "@" in terms["loss_depth"].citation
    assert terms["loss_language"].weight == 1.0 and terms["loss_language"].citation == ""


def test_loss_terms_without_a_head_are_left_out(tmp_path):
    model = build_training_model(build_processor())
    model.teacher_projector = None
    arguments = IDE3DTrainingArguments(output_dir=tmp_path, use_cpu=True, report_to="none")
    names = {term.name for term in list_loss_terms(IDE3DTrainer(model, arguments))}
    assert "loss_distillation" not in names and "loss_depth" in names


def test_quick_start_names_a_class_that_exists(full_card):
    assert f"import {AutoModel.__name__}, AutoProcessor" in full_card.text
