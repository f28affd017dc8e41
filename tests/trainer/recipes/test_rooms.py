"""A recipe of rooms, from its file to an export: lessons, training, resuming, and what the command line changes."""

import importlib.util
import json
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor, BitImageProcessor, Dinov2Config, Dinov2Model

from processing.boxes_in_words import key_tokens, parse_boxes
from processing.token_grid import TokenGrid
from trainer import IDE3DTrainingArguments
from trainer.export import export_checkpoint, is_export
from trainer.recipes import DataArguments, lessons, read_recipe, run, run_recipe, train
from trainer.recipes.data import REGION_QUESTIONS, load_decoded, load_training_rooms, make_samples
from trainer.recipes.idle import list_idle
from trainer.recipes.models import build_teacher, load_model

EXAMPLES = Path(__file__).parents[3] / "examples"


class TestRecipe:
    def test_the_recipe_of_the_repository_is_read(self):
        recipes = sorted((EXAMPLES / "recipes").glob("*.yaml"))
        recipes = [path for path in recipes if not path.stem.startswith("emergence")]  # those of emergence.py
        assert recipes
        for path in recipes:
            model, data, args = read_recipe(path, ["--dry-run"])
            assert args.report_to == [] and bool(args.frozen_parts) == path.stem.startswith("smollm2")
            if data.source == "rooms":
                is_fine_tuning = path.stem in (
                    "rooms_other_style",
                    "boxes_from_nano",
                    "boxes_nano_terms",
                    "boxes_nano_few",
                    "nano_more_rooms",
                    "nano_all_tasks",
                    "nano_benchmark_words",
                    "smollm2_rooms",
                    "smollm2_rooms_lora",
                )
                assert (model.model_name_or_path is not None) == is_fine_tuning and data.num_rooms > 100
                assert data.room_style == ("loft" if path.stem == "rooms_other_style" else "plain")
                assert read_recipe(path, [])[2].use_cpu is True
            else:  # the paper's: 16 samples a step, weights of the terms and learning rates in its ratio
                batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * model.planned_processes
                assert batch == 16 and data.num_frames == 32 and len(data.tasks) == 5 and args.protocol == "paper"
                defaults = IDE3DTrainingArguments("unused", protocol="paper", report_to="none", use_cpu=True)
                assert args.loss_weights == defaults.loss_weights
                assert args.learning_rate == pytest.approx(5 * args.vision_learning_rate)

    def test_the_command_line_changes_the_recipe(self, tiny_recipe):
        words = ["--max_steps", "7", "--num_rooms=9", "--teacher", "none", "--use_cpu", "True"]
        model, data, args = read_recipe(tiny_recipe(depth_weight=0.3), words)
        assert (args.max_steps, data.num_rooms, model.teacher) == (7, 9, "none")
        assert (args.depth_weight, model.hidden_size, data.place_samples) == (0.3, 32, 1)

    @pytest.mark.parametrize("words", [["--no_such_argument", "1"], ["stray"]])
    def test_unknown_words_raise(self, tiny_recipe, words):
        with pytest.raises(ValueError, match=words[0]):
            read_recipe(tiny_recipe(), words)

    def test_unknown_keys_raise(self, tiny_recipe):
        with pytest.raises(ValueError, match="num_romms"):
            read_recipe(tiny_recipe(num_romms=3), [])

    @pytest.mark.parametrize("text", ["", "- max_steps\n", "max_steps"])
    def test_a_file_without_keys_is_named(self, tmp_path, text):
        (tmp_path / "odd.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"odd.yaml must hold lines of `argument: value`"):
            read_recipe(tmp_path / "odd.yaml", [])

    def test_a_wrong_choice_is_named_with_the_choices(self, tiny_recipe):
        with pytest.raises(ValueError, match="--validator: invalid choice: 'heavy' .*light"):
            read_recipe(tiny_recipe(validator="heavy"))

    def test_values_have_the_types_of_their_arguments(self, tiny_recipe):
        """YAML takes 1e-3 for a text; a null is the default, and a mapping is one."""
        path = tiny_recipe(lora_alpha=None, validator_chunk=3, lr_scheduler_kwargs={"num_cycles": 2})
        path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 1e-3"))
        model, _, args = read_recipe(path)
        assert (args.learning_rate, model.lora_alpha, model.validator_chunk) == (1e-3, None, 3)
        assert args.lr_scheduler_kwargs == {"num_cycles": 2}

    def test_the_command_line_says_in_one_line_what_is_wrong(self, run_train, tiny_recipe, capsys):
        with pytest.raises(SystemExit) as end:
            run_train(tiny_recipe(), "--num_romms", 3)
        assert end.value.code == 2 and "num_romms" in capsys.readouterr().err.strip().splitlines()[-1]

    def test_help_lists_all_arguments(self, run_train, capsys):
        with pytest.raises(SystemExit) as end:
            run_train("--help")
        told = capsys.readouterr().out
        assert end.value.code == 0 and "RECIPE.yaml" in told
        for name in ("--model_name_or_path", "--num_rooms", "--naming_steps", "--depth_weight", "--learning_rate"):
            assert name in told

    def test_no_recipe_ends_with_an_example(self, run_train):
        for words in ([], ["--max_steps", "3"]):
            with pytest.raises(SystemExit, match="Expected a recipe, e.g. python examples/train.py"):
                run_train(*words)

    def test_the_script_is_this_command_line(self):
        spec = importlib.util.spec_from_file_location("train_script", EXAMPLES / "train.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        assert script.main is run.main


class TestSamples:
    def load(self, split="train", **changes):
        small = {"image_size": 32, "num_frames": 2, "max_questions": 4}
        data = DataArguments(**{**small, **changes})
        rooms = load_decoded(split, 4, data)
        return make_samples(rooms, data, TokenGrid(32, 8, 1), training=split == "train")

    def test_kinds(self):
        samples = self.load(place_samples=1, max_grounding=2)
        grounding = [sample for sample in samples if "region_targets" in sample]
        places = [sample for sample in samples if "region_targets" not in sample and "object_ids" not in sample]
        assert 0 < len(grounding) <= 8 and len(places) == 4 and len(samples) > 8
        asked = {entry["type"] for sample in samples for entry in sample["questions"]}
        assert asked <= {*REGION_QUESTIONS, "grounding"}

    def test_places_and_grounding_only_where_asked_for(self):
        assert len(self.load(max_grounding=0)) <= 4
        counts = {len(self.load("validation", place_samples=number)) for number in (0, 1)}
        assert len(counts) == 1  # the evaluation loss is of objects alone

    def test_further_rooms_of_another_style(self):
        further = {"further_rooms": 2, "further_style": "loft", "further_variations": ["noise"]}
        rooms = load_training_rooms(DataArguments(num_rooms=3, image_size=32, num_frames=2, **further))
        own = load_decoded("train", 3, DataArguments(image_size=32, num_frames=2))
        loft = load_decoded("train", 2, DataArguments(image_size=32, num_frames=2, room_style="loft"))
        assert [room["scene_id"] for room in rooms] == [room["scene_id"] for room in own + loft]
        assert (rooms[0]["frames"][0] == own[0]["frames"][0]).all()
        assert (rooms[3]["frames"][0] != loft[0]["frames"][0]).any()  # it has noise
        assert (rooms[3]["instance_ids"][0] == loft[0]["instance_ids"][0]).all()

    def test_words_or_regions(self):
        for reference in ("word", "region"):
            entries = [e for s in self.load(max_grounding=0, reference=reference) for e in s["questions"]]
            assert {entry["reference"] for entry in entries} == {reference}


class TestTraining:
    def test_recipe_to_export_and_resume(self, run_train, tiny_recipe, tmp_path, monkeypatch):
        recipe, given = tiny_recipe(), []
        for name in ("name_cells", "read_regions"):
            give = getattr(lessons, name)
            monkeypatch.setattr(lessons, name, lambda *words, n=name, g=give: (given.append(n), g(*words)))
        run_train(recipe)
        assert given == ["name_cells", "read_regions"]
        assert (tmp_path / "out" / "checkpoint-2").is_dir()
        folder = tmp_path / "out" / "export"
        assert {"config.json", "model.safetensors", "README.md"} <= {file.name for file in folder.iterdir()}
        assert "out" in (folder / "README.md").read_text()
        loaded = AutoModel.from_pretrained(folder, trust_remote_code=True)
        assert not any("validator" in name or "teacher" in name for name, _ in loaded.named_parameters())

        again = export_checkpoint(tmp_path / "out", tmp_path / "again")
        assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
        assert is_export(again)

        written = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
        run_train(recipe)  # a finished run: no step, no checkpoint, the same export
        assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == written

        run_train(recipe, "--max_steps", 3)
        assert len(given) == 2  # resumed: no lesson is given again
        state = json.loads((tmp_path / "out" / "checkpoint-3" / "trainer_state.json").read_text())
        assert [entry["step"] for entry in state["log_history"] if "loss_language" in entry] == [1, 2, 3]

    def test_training_goes_on_from_an_export(self, tiny_recipe, tmp_path):
        model, data, args = read_recipe(
            tiny_recipe(), ["--max_steps", "1", "--naming_steps", "0", "--reading_steps", "0"]
        )
        trainer, processor = train(model, data, args)
        weights = trainer.model.state_dict()
        trainer.model.save_pretrained(tmp_path / "first")
        processor.save_pretrained(tmp_path / "first")
        model.model_name_or_path = str(tmp_path / "first")
        again, _ = load_model(model, data, [], 3)
        assert again.teacher_projector.config.teacher_size == 3
        for name, value in again.state_dict().items():
            if not name.startswith(("geometric_validator", "teacher_projector")):
                assert torch.equal(value, weights[name]), name

    def test_a_vision_backbone_is_the_teacher(self, tiny_recipe, tmp_path):
        """It is asked about the rooms while they are trained on; its width is that of the projector."""
        size = {"height": 28, "width": 28}
        backbone = Dinov2Config(
            hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
        )
        Dinov2Model(backbone).save_pretrained(tmp_path / "eyes")
        BitImageProcessor(size=size, crop_size=size).save_pretrained(tmp_path / "eyes")
        (tmp_path / "eyes" / "README.md").write_text("---\nlicense: mit\n---\n")
        words = [
            "--teacher",
            str(tmp_path / "eyes"),
            "--max_steps",
            "1",
            "--naming_steps",
            "0",
            "--reading_steps",
            "0",
        ]
        trainer, _ = train(*read_recipe(tiny_recipe(), words))
        assert trainer.model.teacher_projector.config.teacher_size == 12
        losses = [entry["loss_distillation"] for entry in trainer.state.log_history if "loss_distillation" in entry]
        assert len(losses) == 1 and 0 < losses[0] < 4

    def test_without_heads(self, tiny_recipe):
        words = [
            "--validator",
            "none",
            "--teacher",
            "none",
            "--max_steps",
            "1",
            "--naming_steps",
            "0",
            "--reading_steps",
            "0",
        ]
        trainer, _ = train(*read_recipe(tiny_recipe(), words))
        assert trainer.model.geometry_state_dict() == {} and trainer.state.global_step == 1


class TestLessons:
    def test_few_rooms_evaluation_and_best_model(self, tiny_recipe, monkeypatch):
        """The lessons have no evaluation set, and fewer samples than they would standardise by."""
        words = ["--eval_strategy", "steps", "--eval_steps", "1", "--load_best_model_at_end", "True"]
        trainer, _ = train(*read_recipe(tiny_recipe(), [*words, "--max_steps", "1"]))
        assert any("eval_loss" in entry for entry in trainer.state.log_history)

    def test_questions_in_words_are_no_reading_lesson(self, tiny_recipe, monkeypatch):
        read = []
        monkeypatch.setattr(lessons, "read_regions", lambda model, collator, pointed, *rest: read.extend(pointed))
        words = ["--reference", "both", "--place_samples", "1", "--max_steps", "1", "--naming_steps", "0"]
        train(*read_recipe(tiny_recipe(), words))
        assert read and {entry["reference"] for sample in read for entry in sample["questions"]} == {"region"}

    @pytest.mark.parametrize("lesson", ["view", "view=much"])
    def test_a_lesson_has_a_share(self, tiny_recipe, lesson):
        with pytest.raises(ValueError, match="kind=share with a positive share, such as view=2"):
            train(*read_recipe(tiny_recipe(), ["--lessons", lesson]))

    def test_mentions_come_with_lessons(self, tiny_recipe):
        with pytest.raises(ValueError, match="mention_weight=0.5 needs lessons"):
            train(*read_recipe(tiny_recipe(), ["--mention_weight", "0.5"]))

    def test_lessons_have_their_own_rate_and_samples(self, tiny_recipe, monkeypatch):
        taken = {}
        for name in ("name_cells", "read_regions"):
            monkeypatch.setattr(lessons, name, lambda *given, name=name: taken.update({name: given}))
        words = ["--lessons", "view=1", "--reading_lessons", "place=1", "region=2", "--lesson_learning_rate", "0.01"]
        trainer, _ = train(*read_recipe(tiny_recipe(), [*words, "--learning_rate", "0.001"]))
        assert taken["name_cells"][4].learning_rate == taken["read_regions"][3].learning_rate == 0.01
        assert trainer.args.learning_rate == 0.001
        assert set(taken["read_regions"][2].datasets) == {"place", "region"}

    def test_lessons_ask_about_labelled_rooms_and_all_are_named(self, tiny_recipe, monkeypatch):
        taken = []
        monkeypatch.setattr(lessons, "name_cells", lambda *given: taken.append(given[2]))
        words = ["--lessons", "view=1", "--labelled_rooms", "3", "--reading_steps", "0"]
        trainer, _ = train(*read_recipe(tiny_recipe(), words))
        asked = {sample["scene_id"] for sample in map(trainer.train_dataset.__getitem__, range(12))}
        assert len(asked) == len(trainer.train_dataset.datasets["view"].rooms) == 3
        assert len(taken[0].rooms) == 4
        with pytest.raises(ValueError, match="labelled_rooms must be at most num_rooms=4, got 5"):
            read_recipe(tiny_recipe(), ["--lessons", "view=1", "--labelled_rooms", "5"])

    def test_lessons_drawn_anew_train_and_go_on(self, tiny_recipe, tmp_path):
        """All kinds in one run; killed after the naming, it is not named again."""
        words = ["--lessons", "view=9", "word=9", "place=1", "region=1", "--word_search", "True"]
        words += ["--tie_word_embeddings", "True", "--rope_theta", "1e6", "--mixture_batches", "grouped"]
        words += ["--reading_lessons", "region=1", "--mention_weight", "0.5", "--logging_steps", "1"]
        trainer, _ = train(*read_recipe(tiny_recipe(), words))
        assert trainer.state.global_step == 2
        assert any(entry.get("mention_share", 0) > 0 for entry in trainer.state.log_history)
        kept = tmp_path / "out" / "lessons" / "naming.safetensors"
        written = kept.stat().st_mtime_ns
        for checkpoint in (tmp_path / "out").glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        trainer, _ = train(*read_recipe(tiny_recipe(), words))
        assert trainer.state.global_step == 2 and kept.stat().st_mtime_ns == written


class TestBoxes:
    """The lesson of boxes in words, in each way of writing them, with and without geometry terms."""

    @pytest.mark.parametrize(
        "words",
        [
            ["--box_numbers", "digits", "--mention_weight", "0.5"],
            ["--box_numbers", "bins", "--box_lenses", "several"],
            ["--box_numbers", "tokens", "--box_lenses", "several", "--field_of_view", "unify"],
            ["--teacher", "none", "--validator", "none", *"--depth_weight 0 --cross_view_weight 0".split(),
             "--distillation_weight", "0"],
        ],
        ids=["digits", "bins", "tokens", "no geometry"],
    )  # fmt: skip
    def test_is_trained(self, tiny_recipe, words, caplog):
        given = ["--lessons", "box=1", "--max_steps", "1", "--naming_steps", "0", "--reading_steps", "0"]
        trainer, processor = train(*read_recipe(tiny_recipe(), [*given, *words]))
        assert trainer.state.global_step == 1 and trainer.state.log_history[0]["loss_language"] > 0
        assert "has no effect" not in caplog.text
        batch = trainer.data_collator([trainer.train_dataset[0]])
        answers = [
            processor.decode(batch["input_ids"][0][batch["segment_ids"][0] == number], skip_special_tokens=True)
            for number in range(1, int(batch["segment_ids"].max()) + 1)
        ]
        numbers = words[1] if words[0] == "--box_numbers" else "digits"
        assert answers
        for answer in answers:
            # What the model learns to say is what the parser reads, after the tokenizer and back.
            parse_boxes(answer.split("assistant\n")[-1], numbers=numbers, num_frames=2)
        assert (trainer.model.geometry_state_dict() == {}) == ("--teacher" in words)

    def test_each_number_is_one_token(self, tiny_recipe):
        words = ["--lessons", "box=1", "--box_numbers", "tokens"]
        arguments, data, _ = read_recipe(tiny_recipe(), words)
        model, processor = load_model(arguments, data, ["a"], None)
        ids = processor.tokenizer.encode("<bin_0><bin_511>")
        assert len(ids) == 2 and max(ids) < model.get_input_embeddings().num_embeddings

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
    @pytest.mark.parametrize("adapters", [[], ["--lora_rank", "2"]], ids=["whole", "adapters"])
    def test_a_checkpoint_without_tokens_of_boxes_gets_them(self, tiny_recipe, tmp_path, adapters):
        if adapters:
            pytest.importorskip("peft")
        words = ["--lessons", "box=1", "--naming_steps", "0", "--reading_steps", "0", "--max_steps", "1"]
        folder = run_recipe(*read_recipe(tiny_recipe(), words))
        words += ["--box_numbers", "tokens", "--output_dir", str(tmp_path / "tokens"), *adapters]
        given = read_recipe(tiny_recipe(model_name_or_path=str(folder)), words)
        known = AutoModel.from_pretrained(folder, trust_remote_code=True)
        model = AutoModel.from_pretrained(run_recipe(*given), trust_remote_code=True)
        tokenizer = AutoProcessor.from_pretrained(tmp_path / "tokens" / "export", trust_remote_code=True).tokenizer
        ids = tokenizer.encode("<bin_0><bin_511>")
        assert len(ids) == 2 and ids[1] - ids[0] == 511
        rows = model.get_input_embeddings().weight.detach()
        assert len(rows) == len(known.get_input_embeddings().weight) + 512 + len(key_tokens())
        first, near, far = rows[[ids[0], ids[0] + 1, ids[0] + 100]]
        assert torch.dist(first, near) < torch.dist(first, far) / 3  # in order, after a step of training too

    def test_the_recipe_of_boxes_is_read(self):
        _, data, args = read_recipe(EXAMPLES / "recipes" / "boxes_nano.yaml")
        assert any(lesson.startswith("box=") for lesson in data.lessons) and args.depth_weight > 0

    @pytest.mark.parametrize("name", ["boxes_nano_small", "boxes_nano_terms"])
    def test_arms_differ_in_geometry_terms_alone(self, name):
        path = EXAMPLES / "recipes" / f"{name}.yaml"
        pairs = "--cross_view_weight 0 " if name == "boxes_nano_terms" else ""
        words = f"--teacher none --validator none --depth_weight 0 {pairs}--distillation_weight 0"
        assert words in path.read_text()
        ours, theirs = read_recipe(path), read_recipe(path, words.split())
        assert build_teacher(ours[0], ours[2]).camera == "own"
        changed = {
            item.name
            for one, other in zip(ours, theirs, strict=True)
            for item in fields(one)
            if item.init and getattr(one, item.name) != getattr(other, item.name)
        }
        assert changed == {word.removeprefix("--") for word in words.split() if word.startswith("--")}
        assert not any(theirs[2].loss_weights.values())

    def test_geometry_terms_of_the_small_recipe_are_in_the_naming_lesson(self):
        _, data, args = read_recipe(EXAMPLES / "recipes" / "boxes_nano_small.yaml")
        assert not data.naming_depth
        assert args.geometry_start_step == args.max_steps  # in the training itself the arms have the same terms

    @pytest.mark.slow
    def test_the_stages_follow_each_other(self, tiny_recipe):
        """The recipes outline, terms and few: each begins with the export of the one before."""
        recipes = EXAMPLES / "recipes"
        tiny = "--num_rooms 4 --num_validation_rooms 1 --max_steps 1 --per_device_train_batch_size 2 --save_steps 1"
        small = "--image_size 32 --hidden_size 32 --text_layers 2 --naming_steps 1"
        folder = tiny_recipe().parent
        source = run_recipe(
            *read_recipe(
                recipes / "boxes_nano_outline.yaml", [*f"{tiny} {small}".split(), "--output_dir", str(folder)]
            )
        )
        for name in ("terms", "few"):
            words = [*tiny.split(), "--output_dir", str(folder / name), "--model_name_or_path", str(source)]
            given = read_recipe(recipes / f"boxes_nano_{name}.yaml", words)
            assert any(given[2].loss_weights.values()) == (name == "terms")
            source = run_recipe(*given)
        assert (source / "config.json").is_file()

    def test_settings_of_boxes_without_the_lesson_are_told(self, tiny_recipe):
        given = read_recipe(tiny_recipe(), ["--lessons", "view=1", "--field_of_view", "unify"])
        assert list_idle(*given[:2]) == {"field_of_view": "lessons have no boxes"}
        assert not list_idle(*read_recipe(tiny_recipe(), ["--lessons", "outline=1", "--box_numbers", "bins"])[:2])
        assert "box_numbers" not in list_idle(
            *read_recipe(tiny_recipe(), ["--lessons", "box=1", "--box_numbers", "bins"])[:2]
        )

    def test_prompts_of_benchmarks_without_questions_in_words_are_told(self, tiny_recipe):
        share = ["--benchmark_share", "0.5"]
        given = read_recipe(tiny_recipe(), ["--lessons", "place=1", *share])
        assert list_idle(*given[:2]) == {"benchmark_share": "lessons have neither word nor view"}
        assert not list_idle(*read_recipe(tiny_recipe(), ["--lessons", "view=1", *share])[:2])
        with pytest.raises(ValueError, match="benchmark_share=0.5 needs lessons"):
            read_recipe(tiny_recipe(), share)
