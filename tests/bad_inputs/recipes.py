"""Cases of recipes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, PATH_WORDS, PATHS


@door("recipes", "trainer.recipes.read_recipe", "trainer.recipes.run_recipe", "trainer.recipes.train", "trainer.recipes.dry_run",
      "trainer.recipes.DataArguments", "trainer.recipes.ModelArguments", "trainer.recipes.build_parser", "trainer.recipes.room_options")  # fmt: skip
def recipes(add: Callable[..., None]) -> None:
    from bad_inputs.goods import root

    def write(folder: Path, /, text: Any = None, **changes: Any) -> Path:
        from tiny_recipes import TINY_RECIPE

        path = folder / "tiny.yaml"
        content = {
            **TINY_RECIPE,
            "output_dir": str(folder / "out"),
            "num_rooms": 1,
            "max_steps": 1,
            "naming_steps": 0,
            "reading_steps": 0,
            **changes,
        }
        path.write_text(text if text is not None else yaml.safe_dump(content))
        return path

    def read(folder: Path, /, text: Any = None, words: Any = (), **changes: Any) -> Any:
        from trainer.recipes import read_recipe

        return read_recipe(write(folder, text, **changes), words)

    def run(folder: Path, /, **changes: Any) -> Any:
        import datasets

        from trainer.recipes import run_recipe

        datasets.config.HF_DATASETS_CACHE = root() / "cache"
        return run_recipe(*read(folder, **changes))

    add("right: read", read, expect="taken")
    for what, text in {
        "broken YAML": "a: [1, 2", "empty": "", "a list": "- max_steps", "a word": "max_steps", "a number": "5", "binary": "\x00\x01", "tabs": "a:\n\t- b",
        "a doubled key": "max_steps: 1\nmax_steps: 2\n", "an object": "a: !!python/object/apply:os.system ['true']\n", "a Python name": "a: !!python/name:os.system\n",
        "an alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c]\n",
        "deep": "a: " + "[" * 3000, "two documents": "max_steps: 1\n---\nmax_steps: 2\n", "keys of numbers": "1: 2\n", "a null key": "~: 2\n",
        "JSON": '{"max_steps": 1', "a date": "max_steps: 2020-01-01\n", "an unknown tag": "max_steps: !x 1\n",
    }.items():  # fmt: skip
        add(what, lambda f, t=text: read(f, t), "tiny.yaml", "max_steps", "argument")
    for what, change in FILES.items():

        def damage(folder: Path, /, change: Any = change) -> Any:
            from trainer.recipes import read_recipe

            path = write(folder)
            path.write_bytes(change(path.read_bytes()))
            return read_recipe(path)

        add(f"file {what}", damage, "tiny.yaml", expect="either" if what == "half" else "refused")
    for what, make in PATHS.items():

        def by_path(folder: Path, /, make: Any = make) -> Any:
            from trainer.recipes import read_recipe

            return read_recipe(make(folder))

        add(
            f"path {what}",
            by_path,
            *PATH_WORDS,
            "path",
            "recipe",
        )
    for what, words in {"abbreviated key (argparse prefix)": ["--max_st", "3"], "unknown": ["--nonsense", "1"], "stray": ["stray"], "without a value": ["--max_steps"],
                        "a word for a number": ["--max_steps", "x"], "numbers": [5], "a string": "--max_steps 5", "None": None, "twice": ["--max_steps", "1", "--max_steps", "2"]}.items():  # fmt: skip
        add(
            what if what.startswith("abb") else f"words {what}",
            lambda f, w=words: read(f, words=w),
            "max_st",
            "nonsense",
            "stray",
            "words",
            expect="either" if what == "twice" else "refused",
        )
    add("abbreviated key of the file", lambda f: read(f, max_st=3), "max_st")
    changed: dict[str, tuple] = {
        "num_rooms": (0, -1, "x", 1.5, None, [1]), "labelled_rooms": (0, -1, "x", 10**6), "num_validation_rooms": (-1, "x"), "image_size": (0, -8, "x", 7), "num_frames": (0, -1, "x"), "patch_size": (0, "x", 99),
        "hidden_size": (0, -1, "x", 7), "text_layers": (0, -1), "spatial_pool_stride": (0, "x"), "max_questions": (0, -1, "x"), "max_grounding": (-1, "x"),
        "grounding_share": (7, -1, "x", float("nan")), "place_samples": (-1, "x"), "further_rooms": (-1, "x", 1.5), "naming_steps": (-1, "x"), "reading_steps": (-1,), "mention_weight": (-1.0, "x"),
        "lessons": (["nonsense=1"], ["view=x"], ["view=-1"], 5, ["view"], ["view=0"], ["box=none"]), "box_numbers": ("roman", 5), "box_lenses": ("two", True), "field_of_view": ("wide", 68), "room_style": ("nonsense", 5), "room_variations": (["rain"], [5], "rain"), "further_variations": (["rain"], [5], "rain"), "further_style": ("nonsense", 5), "reference": ("nonsense",), "source": ("nonsense", 5), "chats": (5, ["no.json"]), "validation_chats": (5,), "streaming": ("x",),
        "teacher": ("nonsense", 5), "validator": ("nonsense", 5), "validator_stride": (0, "x"), "lora_rank": (-1, "x"), "lora_dropout": (2.0, -1.0), "lora_alpha": (-1.0,),
        "dtype": ("float99",), "attention": ("nonsense",), "rope_theta": (0.0, -1.0), "model_name_or_path": ("./missing-folder", 5), "learning_rate": ("x", -1.0),
        "confidence_drop_share": (-1.0, 1.0, "x"), "pseudo_geometry": (5,), "planned_processes": (0, -1), "planned_sharding": ("x",), "planned_teacher_size": (0,), "planned_text_tokens": (-1,), "packed_tokens": (-1, 1.5, "x"), "kept_scenes": (-1, "x"), "teacher_wavelengths": ([0.0], [-4.0], ["x"], -5.5), "validator_chunk": (0, -1),
        "lesson_learning_rate": (-1.0, "x"), "data_seed_rooms": ("x", -1), "word_search": ("x",), "benchmark_share": ("x", -0.1, 1.5), "naming_depth": ("x",), "teacher_camera": ("second", 5), "dry_run": ("x",), "tie_word_embeddings": ("x",), "output_dir": (5,), "num_romms": (1,),
    }  # fmt: skip
    for name, values in changed.items():
        for value in values:
            title = {("num_rooms", 0): "no rooms", ("grounding_share", 7): "grounding share 7"}.get(
                (name, value) if not isinstance(value, list) else (), f"{name}: {value!r}"
            )
            expect = (
                "either"
                if (name, value) in (("data_seed_rooms", -1), ("output_dir", 5)) or name.startswith("planned")
                else "refused"
            )
            run_it = run if not name.startswith("planned") else read
            add(title, lambda f, r=run_it, n=name, v=value: r(f, **{n: v}), name, "missing-folder", expect=expect)
    _language_models(add, run)
    _odd_values(add, write, read)
    benchmarks = {"source": "benchmarks", "data_dir": "DATA", "tasks": ["scanqa"]}
    for what, fields in {
        "weights of other number": {"tasks": ["scanrefer", "multi3drefer", "scan2cap", "scanqa", "sqa3d"], "task_weights": [1.0]}, "negative weights": {"task_weights": [-1.0]},
        "weights 0": {"task_weights": [0.0]}, "weights NaN": {"task_weights": [float("nan")]}, "no task": {"tasks": []}, "an unknown task": {"tasks": ["nonsense"]}, "tasks twice": {"tasks": ["scanqa", "scanqa"]},
        "no data folder": {"data_dir": None}, "a missing data folder": {"data_dir": "./missing-folder"}, "no validation": {"num_validation_samples": -1},
        "a checkpoint that is not there": {"model_name_or_path": "./missing-folder"},
    }.items():  # fmt: skip

        def on_benchmarks(folder: Path, /, fields: dict = fields) -> Any:
            given = {**benchmarks, "model_name_or_path": str(goods.model_folder()), "teacher": "none", **fields}
            given["data_dir"] = str(goods.rooms_folder()) if given["data_dir"] == "DATA" else given["data_dir"]
            return run(folder, **given)

        add(
            f"benchmarks, {what}",
            on_benchmarks,
            "task_weights",
            "weight",
            "task",
            "data_dir",
            "missing-folder",
            "num_validation_samples",
        )

    def dry(folder: Path, /, **changes: Any) -> Any:
        from trainer.recipes import dry_run

        return dry_run(*read(folder, dry_run=True, **changes))

    add(
        "dry run with a config that is not there",
        lambda f: dry(f, planned_config="x", model_name_or_path="x"),
        "planned_config",
        "config",
    )
    add(
        "dry run with a broken config",
        lambda f: ((f / "c.json").write_text("{"), dry(f, planned_config=str(f / "c.json"), model_name_or_path="x")),
        "planned_config",
        "c.json",
    )


def _language_models(add: Callable[..., None], run: Callable[..., Any]) -> None:
    """Add what stands in the place of a language model; none of it has weights that could be read."""

    def write(name: str, content: bytes) -> Callable[[Path], str]:
        def make(folder: Path) -> str:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            return str(path if name.endswith(".gguf") else path.parent)

        return make

    head = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    text = (12).to_bytes(8, "little") + b"general.name" + (8).to_bytes(4, "little") + (40).to_bytes(8, "little") + b"a"
    for what, make in {
        "a number": lambda f: 5, "a list": lambda f: ["smollm2"], "empty": lambda f: "", "NUL": lambda f: "a\x00b",
        "a missing folder": lambda f: str(f / "missing-folder"), "an empty folder": lambda f: str(f), "a folder without config": write("words/README.md", b"# Words\n"),
        "a config of another kind": write("words/config.json", b'{"model_type": "gpt2"}'), "half a config": write("words/config.json", b'{"model_type": "lla'),
        "a config of no kind": write("words/config.json", b"{}"), "a config without a tokenizer": write("words/config.json", b'{"model_type": "qwen2"}'),
        "a checkpoint of ours": lambda f: str(goods.model_folder()), "a GGUF file that is not there": lambda f: str(f / "none.gguf"), "a folder called GGUF": lambda f: ((f / "odd.gguf").mkdir(), str(f / "odd.gguf"))[1],
        "an empty GGUF file": write("odd.gguf", b""), "a GGUF file cut in its head": write("odd.gguf", head[:20]), "a GGUF file cut in its texts": write("odd.gguf", head + text),
        "a GGUF file of another format": write("odd.gguf", b"PK\x03\x04" + bytes(40)),
    }.items():  # fmt: skip

        def with_it(folder: Path, /, make: Callable[[Path], Any] = make) -> Any:
            fields = {"teacher": "none", "validator": "none", "language_model": make(folder)}
            return run(folder, model_name_or_path=str(goods.model_folder()), **fields)

        add(f"language_model: {what}", with_it, "language_model", "odd.gguf")
    add("language_model: without a checkpoint", lambda f: run(f, language_model="smollm2"), "language_model")


def _odd_values(add: Callable[..., None], write: Callable[..., Path], read: Callable[..., Any]) -> None:
    """Add what YAML may hold where every argument of ours stands, and contradictions that only the start can see."""
    from dataclasses import fields

    from trainer.field_rules import find_kinds
    from trainer.recipes import DataArguments, ModelArguments
    from trainer.recipes.idle import warn_of_idle

    values = {"a list of it": lambda v: [v], "a mapping": lambda v: {"a": 1}, "a list of lists": lambda v: [[1]], "a date": lambda v: "2020-01-01", "-.inf": lambda v: float("-inf"),
              "beyond float64": lambda v: 10**400, "empty": lambda v: ""}  # fmt: skip
    for group in (ModelArguments, DataArguments):
        for item in fields(group):
            kind = find_kinds(group)[item.name]
            is_list, is_text = kind in (list[str], list[float]), kind in (str, str | None)
            for what, make in values.items():
                if (is_list and what == "a list of it") or (is_text and what in ("a date", "empty")):
                    continue
                value = make(1 if is_list or item.default is None else item.default)
                add(f"{item.name}: {what}", lambda f, n=item.name, v=value: read(f, **{n: v}), item.name)
            if type(None) not in getattr(kind, "__args__", ()):
                add(f"{item.name}: null", lambda f, n=item.name: read(f, **{n: None}), item.name)
            if is_text:
                add(f"{item.name}: a number, odd", lambda f, n=item.name: read(f, **{n: 3.5}), item.name)
                add(f"{item.name}: true", lambda f, n=item.name: read(f, **{n: True}), item.name)
    for name, fields_of in {
        "attention": {"attention": "eager"}, "lora_alpha": {"lora_alpha": 4.0}, "validator_chunk": {"validator": "none", "validator_chunk": 2}, "data_dir": {"data_dir": "x"},
        "task_weights": {"tasks": ["scanqa"], "task_weights": [2.0]}, "planned_config": {"planned_config": "x"}, "lesson_learning_rate": {"lesson_learning_rate": 1e-3},
        "field_of_view": {"lessons": ["view=1"], "field_of_view": "unify"}, "box_numbers": {"box_numbers": "bins"}, "labelled_rooms": {"labelled_rooms": 1}, "teacher_camera": {"teacher": "none", "teacher_camera": "own"}, "teacher_wavelengths": {"teacher": "none", "teacher_wavelengths": [4.0]}, "naming_depth": {"naming_steps": 0, "naming_depth": False},
        "reading_lessons": {"reading_lessons": ["view=1"]}, "hidden_size": {"model_name_or_path": "x", "hidden_size": 64}, "num_rooms": {"source": "benchmarks", "model_name_or_path": "x", "num_rooms": 3},
    }.items():  # fmt: skip
        add(f"{name} without an effect", lambda f, c=fields_of: warn_of_idle(*read(f, **c)[:2]), name)
    for what, words in {"a set": {"--max_steps"}, "a generator": (word for word in ("--max_steps", "5")), "a mapping": {"--max_steps": 5}, "bytes": [b"--max_steps"], "None in it": ["--max_steps", None],
                        "one dash": ["-max_steps", "5"], "no dash": ["max_steps=5"], "NUL": ["--output_dir", "a\x00b"], "a doubled dash alone": ["--"], "a list for a number": ["--max_steps", "1", "2"],
                        "digits of another script": ["--learning_rate", "x\u0663"], "Inf": ["--learning_rate", "inf"], "empty": ["--max_steps", ""], "another file": ["@other.txt"]}.items():  # fmt: skip
        expect = "either" if what == "NUL" else "refused"
        add(f"words: {what}", lambda f, w=words: read(f, words=w), "words", "max_steps", "--", "learning_rate", "other.txt", "output_dir", expect=expect)  # fmt: skip
    for what, text in {"a merge key": "<<: {max_steps: 2}\n", "an anchor of a text": "output_dir: &a x\nrun_name: *a\n", "a doubled key by dashes": "max-steps: 1\nmax_steps: 2\n", "a set": "max_steps: !!set {1}\n",
                       "binary": "max_steps: !!binary aGk=\n", "a control character": "max_steps: \"\x01\"\n", "a huge number": "max_steps: 1e999\n", "an octal": "max_steps: 0o17\n", "a sexagesimal": "max_steps: 1:30\n",
                       "a key of lists": "? [a]\n: 1\n", "a key of the trainer misspelt": "learning_rat: 1\n", "another case": "Max_Steps: 1\n", "only a comment": "# nothing\n", "a key without a colon": "max_steps 5\n"}.items():  # fmt: skip
        expect = "either" if what in ("an anchor of a text", "a sexagesimal") else "refused"
        add(f"YAML: {what}", lambda f, t=text: read(f, t), "tiny.yaml", expect=expect)
    add("right: a null for what may be None", lambda f: read(f, lora_alpha=None, model_name_or_path=None), expect="taken")  # fmt: skip
    add("right: one name for a list", lambda f: read(f, tasks="scanqa"), expect="taken")
    add("right: a list of one reporter", lambda f: read(f, report_to=["none"]), expect="taken")
    add("right: words as a tuple", lambda f: read(f, words=("--max_steps", "2")), expect="taken")
    add("right: a path as text", lambda f: __import__("trainer.recipes").recipes.read_recipe(str(write(f))), expect="taken")  # fmt: skip
