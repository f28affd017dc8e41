"""Our model in lmms-eval: every scene is encoded once, and its questions are answered together."""

import json
import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm

from ide3d.commands.options import GIBIBYTE
from ide3d.nano import nano_model
from processing.benchmarks import load_scene
from processing.benchmarks.readers.requirements import list_modes
from processing.token_grid import TokenGrid
from trainer.data.scene_regions import SceneRegions
from trainer.evaluation.metrics.scores import check_protocol
from trainer.evaluation.tasks import EVALUATED_TASKS
from trainer.session import SceneSession, load_inference_model

__all__ = ["DATA_COLUMN", "IDE3DChat", "find_benchmark"]

logger = logging.getLogger(__name__)

DATA_COLUMN = "data_dir"  # of a document of our tasks: the folder of the benchmarks
DEFAULT_TOKENS = 64


class IDE3DChat(lmms):
    """3D-IDE as a chat model of lmms-eval.

    Questions of our own tasks are answered as `ide3d evaluate` answers them. Those of other tasks are chats with one
    video each, a file or a list of pictures.

    Args:
        pretrained: Folder of an export, or a name on the Hub; default: the shipped nano model.
        device: Device, or "auto" for an accelerator, if any.
        dtype: Type of the weights; "auto" is that of the files.
        protocol: Protocol of the prompts of our own tasks, "clean" or "paper".
        batch_size: Questions of a scene that are answered together.
        max_memory: Gigabytes beside the weights.
        num_frames: Frames of a video of other tasks, at most; default: as the processor says.
        **kwargs: Other settings of lmms-eval, which have no effect here.

    Raises:
        ValueError: If a setting is none of its values, or there is no such model.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        protocol: str = "clean",
        batch_size: int | str = 64,
        max_memory: float = 4.0,
        num_frames: int | None = None,
        **kwargs: Any,
    ):
        super().__init__()
        if unused := sorted(key for key, value in kwargs.items() if value is not None):
            logger.warning("The settings %s have no effect on this model.", unused)
        check_protocol(protocol)
        self.protocol, self.batch_size = protocol, max(int(batch_size), 1)
        self.max_memory, self.num_frames = int(float(max_memory) * GIBIBYTE), num_frames
        name = str(nano_model() if pretrained is None else pretrained)
        self.model, self.processor = load_inference_model(name, device=device, dtype=dtype)
        if num_frames is not None:
            self.processor.video_processor.num_frames, self.processor.video_processor.fps = int(num_frames), None

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer requests scene by scene; answers stand in the order of the requests."""
        documents = [self.task_dict[task][split][doc_id] for *_, doc_id, task, split in (r.args for r in requests)]
        groups: dict[Hashable, list[int]] = {}
        chats: dict[int, tuple[Any, list[dict]]] = {}
        for index, (request, document) in enumerate(zip(requests, documents, strict=True)):
            if find_benchmark(document) is None:
                chats[index] = split_video(request.args[1](document))
                key: Hashable = repr(chats[index][0])
            else:
                key = (request.args[4], document["scene_id"])
            groups.setdefault(key, []).append(index)
        answers: dict[int, str] = {}
        with tqdm(total=len(requests), desc="ide3d", unit="question") as progress:
            for group in groups.values():
                own = [documents[index] for index in group]
                options = requests[group[0]].args[2]
                if find_benchmark(own[0]) is not None:
                    answers.update(zip(group, self._answer_benchmark(own), strict=True))
                else:
                    session = SceneSession(self.model, self.processor, chats[group[0]][0], max_memory=self.max_memory)
                    asked = [chats[index][1] for index in group]
                    tokens = int(options.get("max_new_tokens") or DEFAULT_TOKENS)
                    texts = session.ask(asked, max_new_tokens=tokens, batch_size=self.batch_size)
                    answers.update(zip(group, (cut(text, options.get("until")) for text in texts), strict=True))
                progress.update(len(group))
        return [answers[index] for index in range(len(requests))]

    def _answer_benchmark(self, samples: Sequence[Mapping[str, Any]]) -> list[str]:
        """Answer the questions of one scene; scores of candidates are JSON."""
        task = EVALUATED_TASKS[samples[0]["task"]]
        names = samples[0]["frame_names"]
        parts = task.parts(list_modes(task.task.name)[0], "uniform", "depth")
        scene = load_scene(
            samples[0][DATA_COLUMN], samples[0]["scene_id"], frame_names=names, parts=parts, num_frames=len(names)
        )
        session = SceneSession(
            self.model, self.processor, scene.frames, max_memory=self.max_memory, do_sample_frames=False
        )
        regions = SceneRegions(scene, TokenGrid.of(self.processor), "depth", self.protocol)
        answers = []
        for start in range(0, len(samples), self.batch_size):
            batch = samples[start : start + self.batch_size]
            answers += task.predict(session, batch, regions, task.max_new_tokens)
        return [answer["text"] if "text" in answer else json.dumps(answer) for answer in answers]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Raise NotImplementedError: answers are generated."""
        raise NotImplementedError("This model answers in words; tasks of log-likelihoods are not supported.")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Raise NotImplementedError: each question stands alone."""
        raise NotImplementedError("This model answers each question alone; tasks of several rounds are not supported.")


def find_benchmark(document: Mapping[str, Any]) -> str | None:
    """Return the benchmark of a document of our tasks; None for those of others."""
    return document["task"] if DATA_COLUMN in document and document.get("task") in EVALUATED_TASKS else None


def split_video(messages: Iterable[Mapping[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """Return the video of a chat of lmms-eval, and the chat without its content.

    Raises:
        ValueError: If there is not exactly one video, or a part is neither video nor text.
    """
    videos, chat = [], []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        kept = []
        for part in parts:
            if part["type"] == "video":
                videos.append(part["url"])
                kept.append({"type": "video"})
            elif part["type"] == "text":
                kept.append({"type": "text", "text": part["text"]})
            else:
                raise ValueError(f"A chat holds one video and texts, got a part of the type {part['type']!r}.")
        chat.append({"role": message["role"], "content": kept})
    if len(videos) != 1:
        raise ValueError(f"A chat holds one video, got {len(videos)}.")
    return videos[0], chat


def cut(text: str, ends: str | Sequence[str] | None) -> str:
    """Return a text up to the first of the strings that end it."""
    for end in [ends] if isinstance(ends, str) else ends or ():
        text = text.partition(end)[0] if end else text
    return text
