"""What test_export.py runs in a process that has never heard of this repository.

Usage: `python -I fresh_process.py EXPORT VIDEO INPUTS RESULTS [--base FOLDER] [--sharded FOLDER] [--resave FOLDER]`.
INPUTS holds the tensors of one forward pass; RESULTS is a folder that gets `results.json` and `logits.safetensors`.
"""

import argparse
import importlib
import json
import re
import sys
from pathlib import Path

OURS = ("modeling_ide3d", "processing", "trainer")


class _NotInstalled:
    """An import finder that makes our packages absent, however they were installed."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


sys.meta_path.insert(0, _NotInstalled)

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    Trainer,
    TrainingArguments,
    pipeline,
)

REMOTE = {"trust_remote_code": True}
OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}


def importable() -> list[str]:
    """Those of our packages that can be imported: none, or this check is worth nothing."""
    found = []
    for name in OURS:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        found.append(name)
    return found


def chat_about(video: dict) -> list[dict]:
    """One question about a video."""
    return [{"role": "user", "content": [video, {"type": "text", "text": "Where is the lamp?"}]}]


def load_all(folder: str) -> dict:
    """Load by every Auto class; the names of what came."""
    autos = (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM)
    autos += (AutoProcessor, AutoTokenizer, AutoVideoProcessor)
    loaded = {auto.__name__: auto.from_pretrained(folder, **REMOTE) for auto in autos}
    return {
        "classes": {name: type(value).__name__ for name, value in loaded.items()},
        "modules": sorted({type(value).__module__.partition(".")[0] for value in loaded.values()}),
        "dtype": str(loaded["AutoModel"].dtype),
        "max_new_tokens": loaded["AutoModel"].generation_config.max_new_tokens,
        "do_sample": loaded["AutoModel"].generation_config.do_sample,
        "eos_token_id": loaded["AutoModel"].generation_config.eos_token_id,
    }


def answer(folder: str, video: str) -> dict:
    """Generate about a file, about frames and about text alone, with and without a cache."""
    processor = AutoProcessor.from_pretrained(folder, **REMOTE)
    model = AutoModel.from_pretrained(folder, **REMOTE)
    inputs = processor.apply_chat_template(chat_about({"type": "video", "path": video}), **OPTIONS)
    cached = model.generate(**inputs, max_new_tokens=6)
    uncached = model.generate(**inputs, max_new_tokens=6, use_cache=False)
    text = processor.apply_chat_template([{"role": "user", "content": "Hello"}], **OPTIONS)
    return {
        "frames": inputs["pixel_values_videos"].shape[1],
        "new_tokens": cached[0, inputs["input_ids"].shape[1] :].tolist(),
        "new_tokens_without_cache": uncached[0, inputs["input_ids"].shape[1] :].tolist(),
        "text_only_length": model.generate(**text, max_new_tokens=3).shape[1] - text["input_ids"].shape[1],
    }


def ask_pipeline(folder: str, video: str) -> dict:
    """The image-text-to-text pipeline with a video file and with frames."""
    pipe = pipeline("image-text-to-text", model=folder, device="cpu", **REMOTE)
    frames = pipe.processor.video_processor.fetch_videos(video)[0]
    results = {}
    for name, part in {"file": {"type": "video", "path": video}, "frames": {"type": "video", "video": frames}}.items():
        results[name] = pipe(text=chat_about(part), max_new_tokens=6, return_full_text=False)[0]["generated_text"]
    results["model"] = type(pipe.model).__name__
    return results


def ground(folder: str, video: str) -> list[float]:
    """Scores of two regions and of "no such object"."""
    processor = AutoProcessor.from_pretrained(folder, **REMOTE)
    model = AutoModel.from_pretrained(folder, **REMOTE)
    chat = [*chat_about({"type": "video", "path": video}), {"role": "assistant", "content": "<ground>"}]
    inputs = processor.apply_chat_template(chat, **{**OPTIONS, "add_generation_prompt": False})
    masks = torch.zeros(1, 2, inputs["pixel_values_videos"].shape[1], *model.config.token_grid, dtype=torch.bool)
    masks[0, 0, :, 0, 0] = masks[0, 1, 0, 1:, 1:] = True
    with torch.no_grad():
        return model.ground(**inputs, region_masks=masks)[0].tolist()


def smooth_labels(folder: str, inputs: dict, output: str) -> list[float]:
    """The smoothed loss that Trainer computes, and that of the next token."""
    model = AutoModel.from_pretrained(folder, **REMOTE).eval()
    arguments = TrainingArguments(output, use_cpu=True, report_to="none", label_smoothing_factor=0.3)
    trainer = Trainer(model=model, args=arguments)
    labels = inputs["input_ids"]
    with torch.no_grad():
        given = trainer.compute_loss(model, {**inputs, "labels": labels})
        scores = model(**inputs).logits[:, :-1].flatten(0, 1)
    wanted = torch.nn.functional.cross_entropy(scores, labels[:, 1:].flatten(), label_smoothing=0.3)
    return [given.item(), wanted.item()]


def run_card(folder: str, video: str) -> str:
    """Run the quick start of the model card as a reader would, but for the names of folder and video."""
    code = re.search(r"```python\n(.*?)```", Path(folder, "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    code = re.sub(r'model_id = ".*"', f"model_id = {folder!r}", code).replace('"room.mp4"', repr(video))
    printed = []
    exec(compile(code, "README.md", "exec"), {"print": printed.append})
    return printed[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("export", "video", "inputs", "results"):
        parser.add_argument(name)
    for name in ("--base", "--sharded", "--resave"):
        parser.add_argument(name)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    results = {"importable": importable(), **load_all(args.export), "answer": answer(args.export, args.video)}
    results["pipeline"] = ask_pipeline(args.export, args.video)
    results["ground"] = ground(args.export, args.video)
    inputs = load_file(args.inputs)
    results["smoothed"] = smooth_labels(args.export, inputs, args.results)
    folders = {"export": args.export, "sharded": args.sharded}
    with torch.no_grad():
        logits = {
            name: AutoModel.from_pretrained(folder, **REMOTE)(**inputs).logits
            for name, folder in folders.items()
            if folder
        }
    save_file(logits, Path(args.results, "logits.safetensors"))
    if Path(args.export, "README.md").is_file():
        results["card"] = run_card(args.export, args.video)
    if args.base:
        results["base"] = type(AutoModel.from_pretrained(args.base, **REMOTE)).__name__
        results["base_generating"] = type(AutoModelForImageTextToText.from_pretrained(args.base, **REMOTE)).__name__
    if args.resave:
        AutoModel.from_pretrained(args.export, **REMOTE).save_pretrained(args.resave)
        AutoProcessor.from_pretrained(args.export, **REMOTE).save_pretrained(args.resave)
    Path(args.results, "results.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
