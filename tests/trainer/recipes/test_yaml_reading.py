"""Recipes that are no YAML, hold wrong keys or values, or are no file: each is named with its line."""

import os
import threading

import pytest

from processing.rooms.scene.styles import STYLES
from trainer.recipes import DataArguments, ModelArguments, dry_run, read_recipe
from trainer.recipes.yaml_reading import MAX_BYTES


def write(tmp_path, text, **options):
    path = tmp_path / "odd.yaml"
    path.write_text(f"output_dir: out\nuse_cpu: true\nreport_to: none\n{text}\n", **options)
    return path


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [1, 2", r"odd.yaml, line \d, column \d: expected ',' or ']'"),
        ("a: b: c", r"odd.yaml, line 4, column 5: mapping values are not allowed"),
        ("max_steps: 3\nmax_steps: 4", "odd.yaml, line 5, column 1: 'max_steps' is there twice"),
        ("max_steps: 3\nmax-steps: 4", "odd.yaml, line 5, column 1: 'max-steps' is there twice"),
        ("lr_scheduler_kwargs: {a: 1, a: 2}", "'a' is there twice"),
        ("max_st: 3", "line 4: 'max_st' is no argument. Did you mean 'max_steps'"),
        ("num_romms: 3", "line 4: 'num_romms' is no argument. Did you mean 'num_rooms'"),
        ("depth_weigth: 3", "Did you mean 'depth_weight'"),
        ("7: 3", "'7' is no argument"),
        ("? [a, b]\n: 3", "is no argument"),
        ("help: true", "'help' is no argument"),
        ("max_steps: [3, 4]", "max_steps takes one value, got"),
        ("tasks: []", "tasks is an empty list"),
        ("tasks: [[scanqa]]", "tasks holds .*expected a number, a text or a list"),
        ("tasks: [--dry_run, scanqa]", "looks like another argument"),
        ("depth_weight: .inf", "depth_weight must be finite, got inf"),
        ("depth_weight: .nan", "depth_weight must be finite, got nan"),
        ("run_name: !!python/object/apply:os.getcwd []", r"line 4.*could not determine a constructor"),
        ("run_name: !!binary aGk=", "run_name holds b'hi'"),
        ("run_name: 2020-13-45", "line 4: the value of run_name cannot be read"),
        ("a: &x [1]\nb: *x", "line 5.*aliases of lists and mappings are not read"),
        ("max_steps: *no", "undefined alias"),
        ("tasks: " + "[" * 500, "more than 20 levels"),
        ("max_steps: 3\n---\nmax_steps: 4", "odd.yaml, line .*expected a single document|but found another document"),
        ("run_name: \x07", r"odd.yaml"),
        ("grounding_share: 7", "grounding_share must be a number from 0 to 1, got 7"),
        ("grounding_share: -0.5", "grounding_share must be a number from 0 to 1"),
        ("num_rooms: 0", "num_rooms must be a whole number of at least 1, got 0"),
        ("num_validation_rooms: 0", "num_validation_rooms must be a whole number of at least 1"),
        ("num_frames: -2", "num_frames must be"),
        ("image_size: 0", "image_size must be"),
        ("lora_dropout: 2", "lora_dropout must be a number from 0 to 1"),
        ("rope_theta: 0", "rope_theta must be a finite number above 0"),
        ("planned_processes: 0", "planned_processes must be"),
        ("task_weights: [1, 2]", "task_weights must have one number for each of tasks"),
        ("tasks: [scanqa]\ntask_weights: [-1]", "task_weights must be a finite number above 0, got -1"),
        ("lessons: [view=2, view=1]", "'view' of 'view=1' is there twice"),
        ("lessons: [veiw=2]", "'veiw' of 'veiw=2' is none of .* Did you mean 'view'"),
        ("lessons: [view=-2]", "lessons are written kind=share with a positive share"),
        ("reading_lessons: [view=inf]", "reading_lessons are written kind=share"),
        ("mention_weight: 0.5", "mention_weight=0.5 needs lessons"),
        ("word_search: true", "word_search=True needs naming_steps"),
        ("vision_learning_rate: -1", "vision_learning_rate must be a finite number of at least 0"),
        ("max_steps: 0", "max_steps must be at least 1, or -1"),
        ("max_steps: many", "max_steps.*: invalid int value: 'many'"),
    ],
)
def test_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_recipe(write(tmp_path, text))
    assert "odd.yaml" in str(error.value) and "Some specified" not in str(error.value)


def test_a_text_is_no_other_argument(tmp_path):
    model, _, args = read_recipe(write(tmp_path, "run_name: --dry_run\nmax-steps: 5\nseed: &s 7\ndata_seed: *s"))
    assert (args.run_name, model.dry_run, args.max_steps, args.data_seed) == ("--dry_run", False, 5, 7)


def test_words_are_not_abbreviated(tmp_path):
    with pytest.raises(ValueError, match="--max_st is no argument. Did you mean 'max_steps'"):
        read_recipe(write(tmp_path, ""), ["--max_st", "3"])


def test_no_arguments_come_from_a_file_beside_the_script(tmp_path, monkeypatch):
    (tmp_path / "train.args").write_text("--max_steps 77")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "train.py")])
    assert read_recipe(write(tmp_path, "max_steps: 5"))[2].max_steps == 5


class TestFiles:
    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="There is no recipe .*odd.yaml"):
            read_recipe(tmp_path / "odd.yaml")

    def test_a_folder(self, tmp_path):
        with pytest.raises(ValueError, match="is no regular file"):
            read_recipe(tmp_path)

    def test_a_pipe_is_not_opened(self, tmp_path):
        os.mkfifo(tmp_path / "odd.yaml")
        errors = []

        def read():
            try:
                read_recipe(tmp_path / "odd.yaml")
            except ValueError as error:
                errors.append(str(error))

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(60)
        assert errors and "is no regular file" in errors[0]

    def test_a_binary_file(self, tmp_path):
        (tmp_path / "odd.yaml").write_bytes(b"\x80\xff\x00" * 50)
        with pytest.raises(ValueError, match="odd.yaml is no text in UTF-8"):
            read_recipe(tmp_path / "odd.yaml")

    def test_a_large_file(self, tmp_path):
        with pytest.raises(ValueError, match=f"odd.yaml has more than {MAX_BYTES} bytes"):
            read_recipe(write(tmp_path, "#" * MAX_BYTES))

    def test_a_mark_of_utf8(self, tmp_path):
        assert read_recipe(write(tmp_path, "max_steps: 5", encoding="utf-8-sig"))[2].max_steps == 5

    def test_the_program_names_it(self, run_train, tmp_path, capsys):
        with pytest.raises(SystemExit) as end:
            run_train(tmp_path / "none.yaml")
        assert end.value.code == 2 and "There is no recipe" in capsys.readouterr().err


class TestDryRun:
    def plan(self, tmp_path, **arguments):
        _, data, args = read_recipe(write(tmp_path, ""))
        return dry_run(ModelArguments(**arguments), data, args)

    def test_neither_checkpoint_nor_config(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"neither .*config.json nor a planned_config \(nowhere.json\)"):
            self.plan(tmp_path, model_name_or_path=str(tmp_path / "x"), planned_config="nowhere.json")

    @pytest.mark.parametrize("content", ["[1]", "{", '{"vision_config": 3}', "\x00"])
    def test_a_broken_config(self, tmp_path, content):
        path = tmp_path / "config.json"
        path.write_text(content)
        with pytest.raises(ValueError, match="planned_config='.*config.json' is no config.json of this model"):
            self.plan(tmp_path, model_name_or_path=str(tmp_path / "x"), planned_config=str(path))


@pytest.mark.parametrize("style", STYLES)
def test_every_style_of_rooms_is_taken(style):
    assert DataArguments(room_style=style).room_style == style


def test_fields_are_checked_without_a_file_too():
    with pytest.raises(ValueError, match="room_style must be one of .*'loft'.*, got 'barn'"):
        DataArguments(room_style="barn")
    with pytest.raises(TypeError, match="tasks must be a list of names, got 'scanqa'"):
        DataArguments(tasks="scanqa")
    with pytest.raises(TypeError, match="num_rooms must be a whole number"):
        DataArguments(num_rooms="many")


@pytest.mark.parametrize("word", ["no", "'no'"])
def test_no_is_a_strategy_and_false(tmp_path, word):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"output_dir: out\nuse_cpu: true\nsave_strategy: {word}\nlogging_first_step: no\n")
    args = read_recipe(path)[2]
    assert args.save_strategy == "no" and args.logging_first_step is False
