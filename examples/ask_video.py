"""Ask an exported 3D-IDE model about a video of your own: an .mp4 or a folder of images, plain RGB.

python examples/ask_video.py examples/checkpoints/ide3d-nano-rooms room.mp4 "Is there a red chair?"
"""

import argparse
import sys
from pathlib import Path

from transformers import AutoModel, AutoProcessor, PreTrainedConfig
from transformers.utils import logging


def check_model(name: str) -> None:
    """Stop unless `name` is a folder, or a name on the Hub, of a 3D-IDE model; runs no code from there."""
    if Path(name).exists() and not Path(name, "config.json").is_file():
        raise ValueError(f"{name} has no config.json. MODEL is the folder of an export, or a name on the Hub.")
    try:
        config, _ = PreTrainedConfig.get_config_dict(name)
    except OSError as error:
        raise ValueError(f"There is no model {name}, neither a folder here nor a name on the Hub. {error}") from error
    if config.get("model_type") != "ide3d":
        raise ValueError(f"{name} is a model of type {config.get('model_type')!r}, not 'ide3d': this needs an export.")


def answer(
    model_name: str, video: str, question: str, num_frames: int | None, max_new_tokens: int, device: str
) -> str:
    """Load the model and ask one question."""
    if not Path(video).exists():
        raise FileNotFoundError(f"There is no video file or folder of images at {video}.")
    check_model(model_name)
    processor = AutoProcessor.from_pretrained(model_name, trust_remote_code=True)
    content = [{"type": "video", "path": video}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={} if num_frames is None else {"num_frames": num_frames},
    )
    model = AutoModel.from_pretrained(model_name, trust_remote_code=True, device_map=device).eval()
    tokens = model.generate(**inputs.to(model.device, model.dtype), max_new_tokens=max_new_tokens)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def main() -> None:
    """Parse the command line, answer on stdout, say on stderr what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="folder of an export, or a name on the Hub; its code is run")
    parser.add_argument("video", metavar="VIDEO", help="video file, or folder of images in natural order")
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--num-frames", type=int, help="frames to take, default: what the model was trained with")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--device", default="auto", help='"auto", "cpu", "cuda", ... (default: auto)')
    args = parser.parse_args()
    logging.disable_progress_bar()
    try:
        text = answer(args.model, args.video, args.question, args.num_frames, args.max_new_tokens, args.device)
    except (OSError, ValueError) as error:
        sys.exit(f"ask_video: {error}")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
