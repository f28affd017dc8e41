"""The rows of `arguments_table` hold, and name every argument of the installed version of Transformers."""

import dataclasses
import inspect
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from arguments_table import CHAT, GENERATION, LOADING, PROCESSING, TRAINING
from conftest import build_tiny_inputs, build_tiny_model
from exporting import build_processor
from training_samples import build_collator, build_model, make_sample
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel, ProcessorMixin, TrainingArguments
from transformers.processing_utils import ImagesKwargs, TextKwargs, VideosKwargs

from modeling_ide3d import IDE3DForConditionalGeneration
from trainer import IDE3DTrainer, IDE3DTrainingArguments
from trainer.loop.checkpoints import is_whole
from trainer.loop.mixture import MixtureDataset

REPOSITORY = Path(__file__).parents[1]
TABLES = {"training": TRAINING, "generation": GENERATION, "chat": CHAT, "processing": PROCESSING, "loading": LOADING}
PLACEHOLDERS = [100, 101, 102]  # a random model would write them, and they have no pixels then


def rows(table, *verdicts):
    return [pytest.param(*row, id=name) for name, row in table.items() if row[0] in verdicts]


def known_arguments() -> dict[str, set[str]]:
    """What the installed version takes, by table."""

    def arguments(function):
        return set(inspect.signature(function).parameters) - {"self"}

    loading = PreTrainedModel.from_pretrained
    documented = set(re.findall(r"^ {12}(\w+) \(", loading.__doc__ or "", re.MULTILINE))
    return {
        "training": {field.name for field in dataclasses.fields(TrainingArguments)},
        "generation": set(vars(GenerationConfig())) | arguments(GenerationMixin.generate) - {"kwargs"},
        "chat": arguments(ProcessorMixin.apply_chat_template),
        "processing": {name for kind in (TextKwargs, ImagesKwargs, VideosKwargs) for name in kind.__annotations__},
        "loading": documented | arguments(loading),
    }


@pytest.mark.parametrize("name", TABLES)
def test_each_argument_has_a_row(name):
    """A new version of Transformers fails here until its new arguments are judged."""
    known = known_arguments()[name]
    assert set(TABLES[name]) == known, f"judge {known - set(TABLES[name])}, remove {set(TABLES[name]) - known}"


def test_kept_rows_name_tests_that_are_there():
    for table in TABLES.values():
        for name, (verdict, _, detail) in table.items():
            if verdict == "kept":
                path, words = detail.split()
                assert words in (REPOSITORY / path).read_text(encoding="utf-8"), f"{name}: {detail}"


# Training


@pytest.fixture
def train(tmp_path):
    def run(samples=None, *, trainer=None, **arguments):
        samples = [make_sample(2, seed=seed) for seed in range(4)] if samples is None else samples
        defaults = {
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "max_steps": 2,
            "seed": 0,
        }
        args = IDE3DTrainingArguments(str(tmp_path / "run"), **{**defaults, **arguments})
        options = {"eval_dataset": samples, "data_collator": build_collator(), **(trainer or {})}
        made = IDE3DTrainer(model=build_model(teacher_size=None), args=args, train_dataset=samples, **options)
        made.train()
        return made

    return run


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    return {}


@pytest.fixture(autouse=True)
def random_algorithms():
    yield
    torch.use_deterministic_algorithms(False)  # `full_determinism` leaves them on


def harmless_rows():
    """Rows that leave the numbers as they are: those that do not exclude each other in one training."""
    alone = ("checkpointing", "full_eval", "full_determinism")
    together, others = {}, []
    for name, row in TRAINING.items():
        if row[0] == "same" and any(word in name for word in alone):
            others.append(pytest.param(*row, id=name, marks=pytest.mark.slow))
        elif row[0] == "same":
            together |= row[1]
    return [pytest.param("same", together, "", id="all others"), *others]


@pytest.mark.filterwarnings("ignore")  # those of Transformers and torch about the options
@pytest.mark.parametrize("verdict, arguments, detail", harmless_rows() + rows(TRAINING, "refused"))
def test_training(train, plain_run, verdict, arguments, detail):
    check_training(train, plain_run, verdict, arguments, detail)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("verdict, arguments, detail", rows(TRAINING, "other"))
def test_training_that_is_another(train, plain_run, verdict, arguments, detail):
    check_training(train, plain_run, verdict, arguments, detail)


def check_training(train, plain_run, verdict, arguments, detail):
    if verdict == "refused":
        with pytest.raises(ValueError, match=detail):
            train(**arguments)
        return
    plain_run.setdefault("losses", losses(train()))
    trainer = train(**arguments)
    if any(name.endswith("full_eval") for name in arguments):
        assert np.isfinite(trainer.evaluate()["eval_loss"])
        assert trainer.model.dtype == (torch.bfloat16 if "bf16_full_eval" in arguments else torch.float16)
    if verdict == "same":
        assert losses(trainer) == pytest.approx(plain_run["losses"], rel=1e-5)
    else:
        found = losses(trainer)
        assert len(found) != 2 or np.abs(np.subtract(found, plain_run["losses"])).max() > 1e-4


@pytest.mark.parametrize(
    "arguments",
    [
        {"eval_accumulation_steps": 1},
        {"include_for_metrics": ["inputs", "loss"]},
        {"batch_eval_metrics": True},
        {"eval_do_concat_batches": False},
        {"eval_use_gather_object": True},
    ],
)
@pytest.mark.slow
def test_metrics_see_inputs_and_losses(train, arguments):
    seen = []

    def metrics(prediction, compute_result=True):
        seen.append(prediction)
        return {"count": len(seen)}

    trainer = train(trainer={"compute_metrics": metrics}, max_steps=1, **arguments)
    assert trainer.evaluate()["eval_count"] == len(seen) == (2 if "batch_eval_metrics" in arguments else 1)
    if "include_for_metrics" in arguments:
        assert len(seen[0].inputs) == 4 and np.isfinite(seen[0].losses).all()
    predicted, labels = seen[0].predictions, seen[0].label_ids
    if isinstance(predicted, list):
        predicted, labels = predicted[0], labels[0]
    assert predicted.shape[:2] == labels.shape and (np.asarray(labels) != -100).any()


@pytest.mark.slow
def test_a_smaller_batch_is_found(train, monkeypatch):
    """Also by the sampler that fills each batch from one data set."""
    sources = {"one": [make_sample(2, seed=0)] * 4, "two": [make_sample(2, seed=1)] * 4}
    original, sizes = IDE3DTrainer.training_step, []

    def step(self, model, inputs, *args, **kwargs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise RuntimeError("CUDA out of memory.")
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(IDE3DTrainer, "training_step", step)
    mixture = MixtureDataset(sources)
    options = {"auto_find_batch_size": True, "per_device_train_batch_size": 4, "mixture_batches": "grouped"}
    trainer = train(mixture, trainer={"eval_dataset": None}, vision_learning_rate=1e-4, **options)
    assert sizes == [4, 3, 2, 2] and trainer._get_train_sampler().block == 2


def test_samples_of_one_length_together(train):
    """Lengths stand in a column; a mixture has its own order, and says so."""
    lengths = [1, 9, 1, 9]
    table = datasets.Dataset.from_dict({"length": lengths}).with_transform(
        lambda rows: {**rows, "sample": [make_sample(2 if length == 9 else 1) for length in rows["length"]]}
    )

    def collate(rows):
        return build_collator()([row["sample"] for row in rows])

    options = {"train_sampling_strategy": "group_by_length", "length_column_name": "length"}
    trainer = train(table, trainer={"eval_dataset": None, "data_collator": collate}, **options)
    assert trainer._get_train_sampler().lengths == lengths and len(losses(trainer)) == 2
    with pytest.raises(ValueError, match="train_sampling_strategy='group_by_length': a MixtureDataset is drawn"):
        train(MixtureDataset({"one": [make_sample(2)]}), trainer={"eval_dataset": None}, **options)


def test_tokens_are_counted(train):
    samples = [make_sample(1), make_sample(3)]
    counts = {kind: train(samples, max_steps=1, include_num_input_tokens_seen=kind) for kind in ("all", "non_padding")}
    seen = {kind: trainer.state.num_input_tokens_seen for kind, trainer in counts.items()}
    mask = build_collator()(samples)["attention_mask"]
    assert seen == {"all": mask.numel(), "non_padding": mask.sum()}


def test_a_checkpoint_of_the_model_alone_is_whole(train, tmp_path):
    train(save_only_model=True, save_strategy="steps", save_steps=2)
    folder = tmp_path / "run" / "checkpoint-2"
    assert is_whole(folder) and not (folder / "optimizer.pt").exists()
    assert (folder / "geometry_modules.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"torch_compile_backend": "eager"}, {"torch_compile_mode": "default"}])
def test_a_compiled_model_learns_the_same(train, options):
    plain = losses(train(label_smoothing_factor=0.1))
    assert losses(train(label_smoothing_factor=0.1, torch_compile=True, **options)) == pytest.approx(plain, rel=1e-3)


def test_parallelism_is_refused(train):
    from accelerate.parallelism_config import ParallelismConfig

    with pytest.raises(ValueError, match="parallelism_config must stay None"):
        train(parallelism_config=ParallelismConfig())


@pytest.mark.parametrize("optim", ["lomo", "adalomo", "galore_adamw_layerwise"])
def test_updates_in_the_backward_pass_are_refused(train, optim):
    with pytest.raises(ValueError, match="updates the weights in the backward pass"):
        train(optim=optim)


def test_rates_of_parts_need_our_optimizer(train):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="do not reach a given optimizer"):
        train(trainer={"optimizers": (optimizer, None)}, vision_learning_rate=1e-4)


# Generation


@pytest.fixture(scope="module")
def asked():
    model = build_tiny_model()
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    inputs = build_tiny_inputs(model.config, ["text", 2, "text"])

    def generate(**options):
        torch.manual_seed(1)
        suppressed = sorted({*PLACEHOLDERS, *options.pop("suppress_tokens", ())})
        options = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": suppressed, **options}
        return model.generate(**inputs, **options)

    return generate, generate(), inputs, model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("verdict, arguments, detail", rows(GENERATION, "same", "other", "refused"))
def test_generation(asked, verdict, arguments, detail):
    generate, plain, _, _ = asked
    if verdict == "refused":
        with pytest.raises(ValueError, match=detail):
            generate(**arguments)
        return
    found = generate(**arguments)
    assert (found.shape == plain.shape and torch.equal(found, plain)) == (verdict == "same")
    if "guidance_scale" in arguments:
        assert not torch.equal(found, generate(**arguments, negative_prompt_ids=torch.tensor([[5, 6, 7]])))


def test_an_option_of_the_config_is_refused_too(asked):
    with pytest.raises(ValueError, match="cache_implementation='paged' hands the tokens to `generate_batch`"):
        asked[3].generate(**asked[2], generation_config=GenerationConfig(cache_implementation="paged"))


def test_generate_hands_over_its_inputs(asked):
    generate, plain, inputs, _ = asked
    streamed = []
    streamer = type("S", (), {"put": lambda self, ids: streamed.extend(ids.flatten().tolist()), "end": lambda self: 0})
    outputs = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
    found = generate(streamer=streamer(), return_dict_in_generate=True, **dict.fromkeys(outputs, True))
    assert torch.equal(found.sequences, plain) and streamed == plain[0].tolist()
    assert len(found.scores) == len(found.logits) == len(found.hidden_states) == 6
    assert generate(custom_generate=lambda model, input_ids, **kwargs: input_ids + 1).equal(inputs["input_ids"] + 1)
    tokenizer = build_processor().tokenizer
    word = tokenizer.convert_ids_to_tokens(int(plain[0, inputs["input_ids"].shape[1]]))
    stopped = generate(stop_strings=[tokenizer.convert_tokens_to_string([word])], tokenizer=tokenizer)
    assert stopped.shape[1] == inputs["input_ids"].shape[1] + 1


def test_placeholders_do_not_count_as_repeated_words(asked):
    """The prompt is full of equal video tokens; what is answered is penalised alone."""
    generate, _, inputs, _ = asked
    words = {"suppress_tokens": [token for token in range(120) if token not in (7, 8, 9)], "max_new_tokens": 3}
    plain, varied = generate(**words), generate(**words, no_repeat_ngram_size=1)
    answers = [ids[0, inputs["input_ids"].shape[1] :].tolist() for ids in (plain, varied)]
    assert set(answers[0]) < {7, 8, 9} and set(answers[1]) == {7, 8, 9}


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"do_sample": True, "top_k": 1}])
def test_sequences_share_their_video_and_regions(options):
    model = build_tiny_model()
    model.generation_config.pad_token_id = 0
    inputs = build_tiny_inputs(model.config, ["text", 2, "ground", "text"], [1, "ground", "text"], regions=[1, 1])
    options = {"max_new_tokens": 4, "suppress_tokens": PLACEHOLDERS, **options}
    several = model.generate(**inputs, num_return_sequences=2, **options)
    assert torch.equal(several[::2], model.generate(**inputs, **options))


# Chats and calls


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("verdict, arguments, detail", rows(CHAT, "same", "other", "refused"))
def test_chat(verdict, arguments, detail):
    processor = build_processor()
    video = {"type": "video", "video": np.zeros((3, 24, 32, 3), np.uint8)}
    chat = [{"role": "user", "content": [video, {"type": "text", "text": "Where is the lamp?"}]}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    if verdict == "refused":
        with pytest.raises(Exception, match=detail):
            processor.apply_chat_template(chat, **options, **arguments)
        return
    plain, found = (processor.apply_chat_template(chat, **options, **more)["input_ids"] for more in ({}, arguments))
    assert torch.equal(plain, found) == (verdict == "same")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("verdict, arguments, detail", rows(PROCESSING, "same", "other", "refused"))
def test_processing(verdict, arguments, detail):
    frames = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)

    def call(**options):
        given = {"text": "<video>Where?", "videos": frames, "return_tensors": "pt"}
        return build_processor()(**given, **options)

    if verdict == "refused":
        with pytest.raises((TypeError, ValueError), match=detail):
            call(**arguments)
        return
    plain, found = call(), call(**arguments)
    is_same = set(plain) == set(found) and all(torch.equal(value, found[name]) for name, value in plain.items())
    assert is_same == (verdict == "same")


def test_loading(tmp_path):
    """From a folder inside, with a variant, under other names, into another config, from weights in memory."""
    model = build_tiny_model()
    weights = model.state_dict()
    load = IDE3DForConditionalGeneration.from_pretrained
    model.save_pretrained(tmp_path / "weights", variant="fp32")
    same = [load(tmp_path, subfolder="weights", variant="fp32"), load(None, config=model.config, state_dict=weights)]
    renamed = {f"other.{name}": value for name, value in weights.items()}
    same.append(load(None, config=model.config, state_dict=renamed, key_mapping={r"^other\.": ""}))
    for loaded in same:
        assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    config = load(tmp_path, subfolder="weights", variant="fp32").config
    config.text_config.vocab_size = 130
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        load(tmp_path, subfolder="weights", variant="fp32", config=config)
    grown = load(tmp_path, subfolder="weights", variant="fp32", config=config, ignore_mismatched_sizes=True)
    assert grown.lm_head.weight.shape[0] == 130
    with pytest.raises((ImportError, RuntimeError), match="bitsandbytes|GPU|accelerator"):
        load(tmp_path, subfolder="weights", variant="fp32", quantization_config={"load_in_8bit": True})
