"""Answer questions about videos with a model folder alone, as a stranger to this repository.

    python stranger.py MODEL INPUTS ANSWERS

The demo copies this file to an empty folder and runs it there, isolated. It imports transformers and nothing of ours,
and is given no depth, no pose and no camera. INPUTS holds `tasks.json` and, for each scene, a video and the regions
to choose from. A video is a file or a folder of pictures.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoProcessor, BatchFeature, PreTrainedModel, ProcessorMixin

OURS = ("examples", "ide3d", "modeling_ide3d", "processing", "trainer")


def forget_ours() -> None:
    """Make our packages impossible to import, however they were installed.

    Raises:
        RuntimeError: If one can still be imported.
    """

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in OURS:
                raise ModuleNotFoundError(f"{name} is out of reach for this process", name=name)

    sys.meta_path.insert(0, Refuse())
    for name in OURS:
        try:
            importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        raise RuntimeError(f"{name} can be imported; this process must know nothing of it.")


def chat(video: str, text: str, answer: str | None = None) -> list[dict]:
    """Return one turn about a video, with or without the answer."""
    turns = [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": text}]}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def encode(processor: ProcessorMixin, chats: list[list[dict]], is_prompt: bool) -> BatchFeature:
    """Return chats as model inputs, padded on the left."""
    return processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=is_prompt,
        processor_kwargs={"return_tensors": "pt", "padding": True},
    )


def answer_scene(model: PreTrainedModel, processor: ProcessorMixin, scene: dict, folder: Path) -> list[dict]:
    """Return answers to a scene's questions, and the region each request asks for."""
    video = str(folder / scene["video"])
    masks = np.load(folder / f"{scene['name']}.npz")
    results = []
    if scene["questions"]:
        inputs = encode(processor, [chat(video, question["text"]) for question in scene["questions"]], True)
        output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        results += [
            {"id": question["id"], "answer": text.strip()}
            for question, text in zip(scene["questions"], texts, strict=True)
        ]
    if scene["requests"]:
        inputs = encode(processor, [chat(video, request["text"], "<ground>") for request in scene["requests"]], False)
        candidates = torch.from_numpy(masks["candidates"]).expand(len(scene["requests"]), -1, -1, -1, -1)
        scores = model.ground(**inputs, region_masks=candidates)
        results += [
            {"id": request["id"], "choice": int(row.argmax()), "scores": [round(float(score), 4) for score in row]}
            for request, row in zip(scene["requests"], scores, strict=True)
        ]
    return results


def main() -> None:
    """Load the model, answer everything, write one JSON line an answer."""
    forget_ours()
    model_folder, inputs, output = (Path(argument) for argument in sys.argv[1:4])
    model = AutoModel.from_pretrained(model_folder, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(model_folder, trust_remote_code=True)
    scenes = json.loads((inputs / "tasks.json").read_text())
    with torch.inference_mode(), output.open("w") as lines:
        for scene in tqdm(scenes, desc="A stranger asks", unit="scene"):
            for result in answer_scene(model, processor, scene, inputs):
                lines.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
