"""One scene, many questions: its frames are encoded once, and its visual tokens are read once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modeling_ide3d.grounding_ide3d import find_open_references
from modeling_ide3d.modeling_ide3d import CACHE_NAME
from processing.benchmarks import build_prompt
from processing.regions import TokenGrid
from trainer.evaluation.memory import MemoryPlan
from trainer.evaluation.shared_prefix import PACKABLE_ATTENTION, PackedQuestions, RepeatedPrefix

__all__ = ["SceneAnswer", "SceneSession"]

logger = logging.getLogger(__name__)

DEFAULT_MAX_MEMORY = 4 * 1024**3
DESCRIBE = build_prompt("scan2cap", {"id": "", "question": "", "input_box": [0.0] * 6})
GROUND = build_prompt("scanrefer", {"id": "", "question": "{description}", "input_box": []})
# Settings of `generate` that change what greedy decoding gives, and their neutral values.
NEUTRAL_GENERATION = {
    "num_beams": (None, 1),
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "min_new_tokens": (None, 0),
    "suppress_tokens": (None, []),
    "bad_words_ids": (None, []),
}

Question = str | list[dict[str, Any]]


@dataclass
class SceneAnswer:
    """An answer.

    Args:
        text: In words, special tokens left out.
        tokens: Its token ids, the end token included if it was reached.
        margins: Logit of each token less that of the runner-up; greedy decoding is sure where they are large.
        logits: Of shape (tokens, vocab_size), float32, where they were asked for.
    """

    text: str
    tokens: list[int]
    margins: list[float]
    logits: torch.Tensor | None = None


class SceneSession:
    """A scene that answers questions, finds objects and describes regions.

    Vision features, and the keys and values of everything before the question, are computed once. Questions are then
    answered together, greedily, and each gets the tokens that it would get if it were asked alone.

    Args:
        model: `IDE3DForConditionalGeneration` in evaluation mode, with or without PEFT adapters around it.
        processor: Its processor.
        video: Whatever the processor takes as a video: a file, a folder of images, frames (V, H, W, 3).
        system: System prompt; default is that of the chat template.
        max_memory: Bytes that the session may use beside the weights: features, keys and values, and activations. As
            many questions are answered together as fit.
        **video_kwargs: For the video processor, such as `do_sample_frames=False`.

    Raises:
        ValueError: The model is in training mode, or `max_memory` does not hold the scene.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        video: Any,
        *,
        system: str | None = None,
        max_memory: int = DEFAULT_MAX_MEMORY,
        **video_kwargs: Any,
    ):
        if model.training:
            raise ValueError("The model is in training mode: call model.eval() first.")
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside a PeftModel
        self.processor, self.system = processor, system
        self.token_grid = TokenGrid(processor.image_size, processor.patch_size, processor.spatial_pool_stride)
        self.head = self._split(self._render("?"))[0]
        self._read_generation_config()
        inputs = processor(text=[self.head], videos=[video], return_tensors="pt", **video_kwargs)
        self.prefix_ids = inputs["input_ids"].to(self.model.device)
        pixels = inputs["pixel_values_videos"].to(self.model.device, self.model.dtype)
        self.num_frames = pixels.shape[1]
        text_config = self.model.config.get_text_config()
        self.memory = MemoryPlan(self.model, max_memory, self.prefix_ids.shape[1], self.num_frames)
        kinds = set(getattr(text_config, "layer_types", None) or ["full_attention"])
        can_pack = text_config._attn_implementation in PACKABLE_ATTENTION and kinds == {"full_attention"}
        strategy = PackedQuestions if can_pack else RepeatedPrefix
        self.memory.is_packed = can_pack
        # Padding between prefix and question would shift a sliding window, and enter a recurrent state.
        self.memory.needs_equal_lengths = kinds != {"full_attention"}
        with torch.no_grad():
            self.encoded = {"video": self._encode(pixels)}
            del inputs, pixels
            cache = strategy.new_cache(text_config)
            self.model.model(
                input_ids=self.prefix_ids,
                mm_encoder_outputs=self.encoded,
                use_cache=True,
                **{CACHE_NAME: cache},
            )
        self.questions = strategy(self.model.model.language_model, cache)

    def _encode(self, pixels: torch.Tensor):
        """Vision features of all frames, as many frames at a time as the memory holds."""
        tokens = []
        for chunk in pixels.split(self.memory.frames_at_once, dim=1):
            output = self.model.get_video_features(chunk, return_dict=True)
            tokens.append(output.pooler_output[0])
        output.pooler_output = [torch.cat(tokens)]
        output.hidden_states = output.last_hidden_state = None  # only the tokens are needed
        return output

    def _render(self, question: Question) -> str:
        """Chat text of a question up to where the answer begins."""
        if isinstance(question, str):
            chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
            if self.system is not None:
                chat.insert(0, {"role": "system", "content": self.system})
        else:
            chat = question
        return self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)

    def _split(self, text: str) -> tuple[str, str]:
        """What all questions share, up to the video, and what is the question's own."""
        head, video, tail = text.partition(self.processor.video_token)
        if not video or video in tail:
            raise ValueError(f"A question needs exactly one {self.processor.video_token} in its chat, got {text!r}.")
        return head + video, tail

    def _tokenize(self, question: Question, answer: str = "") -> torch.Tensor:
        """Tokens of a question after the video."""
        head, tail = self._split(self._render(question) + answer)
        if head != self.head:
            raise ValueError(
                f"All questions of a session share what stands before the video, {self.head!r}, got {head!r}: pass "
                "`system` to the session, or make another session."
            )
        # The video token is a token of its own, so that what follows it is split as in the whole text.
        tokens = self.processor.tokenizer(self.processor.video_token + tail, add_special_tokens=False)["input_ids"]
        return torch.tensor(tokens[1:], device=self.model.device)

    def _pool(self, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features of regions (N, hidden_size), whether each is empty (N,), and the mean token (hidden_size,)."""
        regions = torch.as_tensor(regions, device=self.model.device)
        pooled = self.model.model.get_region_features(self.prefix_ids, self.encoded, regions.unsqueeze(0))
        return tuple(part[0] for part in pooled)

    def _embed(self, tokens: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """Embeddings of a question, with the features of its regions in place of its `<ground>` tokens."""
        embeds = self.model.get_input_embeddings()(tokens)
        count = 0 if regions is None else len(regions)
        places = (tokens == self.model.config.ground_token_id).nonzero().flatten()
        if len(places) < count:
            raise ValueError(f"A question has {len(places)} <ground> tokens for {count} regions: write one for each.")
        if count:
            features, empty, mean = self._pool(regions)
            features = torch.where(empty.unsqueeze(-1), mean, features)
            embeds = embeds.index_copy(0, places[:count], features.to(embeds))
        return embeds

    @torch.no_grad()
    def answer(
        self,
        questions: Sequence[Question],
        regions: Sequence[torch.Tensor | None] | None = None,
        *,
        max_new_tokens: int = 64,
        batch_size: int | None = None,
        output_logits: bool = False,
    ) -> list[SceneAnswer]:
        """Answer questions, with tokens and margins; see `ask`.

        Args:
            questions: Texts, or chats with one video each.
            regions: For each question the masks (N, V, rows, cols) that its `<ground>` tokens stand for, in order.
            max_new_tokens: Where an answer ends at the latest.
            batch_size: Questions at a time at most; default: as many as `max_memory` holds.
            output_logits: Whether to keep the logits.

        Raises:
            ValueError: A question does not fit into `max_memory`, has another text before the video, fewer `<ground>`
                tokens than regions, or one without a region in its last turn.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
        regions = [None] * len(questions) if regions is None else list(regions)
        if len(regions) != len(questions):
            raise ValueError(f"regions must have one entry per question, {len(questions)}, got {len(regions)}.")
        tokens = [self._tokenize(question) for question in questions]
        for index, (row, own) in enumerate(zip(tokens, regions, strict=True)):
            count = torch.tensor([0 if own is None else len(own)])
            ground, ends = self.model.config.ground_token_id, sorted(self.end_tokens)
            if find_open_references(row[None], ground, ends, count).any():
                raise ValueError(
                    f"Question {index} points at more regions than the {int(count)} given: give a mask for each "
                    f"{self.processor.ground_token}, in order."
                )
        answers: dict[int, SceneAnswer] = {}
        for group in self._groups(tokens, max_new_tokens, batch_size):
            suffixes = [self._embed(tokens[index], regions[index]) for index in group]
            answers.update(zip(group, self._decode(suffixes, max_new_tokens, output_logits), strict=True))
        return [answers[index] for index in range(len(questions))]

    def ask(
        self,
        questions: Sequence[Question],
        regions: Sequence[torch.Tensor | None] | None = None,
        *,
        max_new_tokens: int = 64,
        batch_size: int | None = None,
    ) -> list[str]:
        """Answer questions in words. The arguments and errors are those of `answer`."""
        settings = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        return [answer.text for answer in self.answer(questions, regions, **settings)]

    def describe(
        self, regions: torch.Tensor, *, question: Question = DESCRIBE, max_new_tokens: int = 128, **settings: Any
    ) -> list[str]:
        """Describe each region (N, V, rows, cols) in words; `question` has one `<ground>`."""
        each = [regions[index : index + 1] for index in range(len(regions))]
        return self.ask([question] * len(each), each, max_new_tokens=max_new_tokens, **settings)

    @torch.no_grad()
    def ground(
        self,
        descriptions: Sequence[Question],
        regions: torch.Tensor,
        *,
        template: str = GROUND,
        batch_size: int | None = None,
    ) -> torch.Tensor:
        """Compare candidate regions with each description.

        Args:
            descriptions: What to find: texts, put into `template`, or whole chats.
            regions: Candidates, bool (N, V, rows, cols).
            template: Request with `{description}` in it, which each text takes the place of; other braces are text.
            batch_size: Descriptions at a time at most.

        Returns:
            Cosines (len(descriptions), N + 1), float32; the last column is "no such object".

        Raises:
            ValueError: A description holds a `<ground>`, which only the answer may, or `template` has no
                `{description}`.
        """
        ground = self.processor.ground_token
        if "{description}" not in template:
            raise ValueError(f"`template` must hold {{description}}, where the texts are put, got {template!r}.")
        requests = [template.replace("{description}", t) if isinstance(t, str) else t for t in descriptions]
        tokens = [self._tokenize(request, answer=ground) for request in requests]
        for index, row in enumerate(tokens):
            if (row == self.model.config.ground_token_id).sum() != 1:
                raise ValueError(f"Description {index} holds a {ground}: candidates are found, not pointed at.")
        features, empty, _ = self._pool(regions)
        # Never one row alone: the last bit of a product with a vector depends on where in memory it lies.
        queries = features.new_zeros(max(len(tokens), 2), features.shape[-1])
        for group in self._groups(tokens, 0, batch_size):
            states = self.questions.start([self._embed(tokens[index], None) for index in group], 0)
            queries[group] = torch.stack([state[-1] for state in states]).to(queries)
        return self.model.grounding_head(queries, features[None], empty[None])[: len(tokens)]

    def _groups(self, tokens: list[torch.Tensor], max_new_tokens: int, batch_size: int | None) -> list[list[int]]:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        return self.memory.group([len(row) for row in tokens], max_new_tokens, batch_size)

    def _decode(self, suffixes: list[torch.Tensor], max_new_tokens: int, output_logits: bool) -> list[SceneAnswer]:
        """Greedy decoding of a group of questions."""
        answers = [SceneAnswer("", [], []) for _ in suffixes]
        kept: list[list[torch.Tensor]] = [[] for _ in suffixes]
        open_questions = list(range(len(suffixes)))
        states = torch.stack([state[-1] for state in self.questions.start(suffixes, max_new_tokens)])
        for step in range(max_new_tokens):
            logits = self.model.lm_head(states).float()
            best, index = logits.topk(2, dim=-1)
            chosen, margins = index[:, 0], (best[:, 0] - best[:, 1]).tolist()
            for row, (question, token) in enumerate(zip(open_questions, chosen.tolist(), strict=True)):
                answers[question].tokens.append(token)
                answers[question].margins.append(margins[row])
                if output_logits:
                    kept[question].append(logits[row].clone())
            going = [row for row, token in enumerate(chosen.tolist()) if token not in self.end_tokens]
            if not going or step == max_new_tokens - 1:
                break
            open_questions = [open_questions[row] for row in going]
            states = self.questions.step(self.model.get_input_embeddings()(chosen[going]), open_questions)
        for answer, rows in zip(answers, kept, strict=True):
            answer.text = self.processor.decode(answer.tokens, skip_special_tokens=True)
            answer.logits = torch.stack(rows) if output_logits else None
        return answers

    def _read_generation_config(self) -> None:
        """End tokens; settings that greedy decoding here does not follow are named."""
        config = self.model.generation_config
        ends = config.eos_token_id if config.eos_token_id is not None else self.processor.tokenizer.eos_token_id
        self.end_tokens = set(ends if isinstance(ends, (list, tuple)) else [ends])
        ignored = {
            name: getattr(config, name)
            for name, neutral in NEUTRAL_GENERATION.items()
            if getattr(config, name) not in neutral
        }
        if ignored:
            logger.warning("Greedy decoding is plain here; the model's generation settings %s are left out.", ignored)
