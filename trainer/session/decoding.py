"""Greedy decoding of many questions at once: the tokens of `model.generate(do_sample=False)`."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from modeling_ide3d.inputs_ide3d import DIVERGED
from processing.argument_rules import check_whole

__all__ = ["GreedyDecoder", "QuestionReader", "SceneAnswer"]

logger = logging.getLogger(__name__)

# Settings of `generate` that change what greedy decoding gives, and their neutral values.
NEUTRAL_GENERATION = {
    "num_beams": (None, 1),
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "min_new_tokens": (None, 0),
    "suppress_tokens": (None, []),
    "bad_words_ids": (None, []),
}


@dataclass
class SceneAnswer:
    """An answer with the tokens that it is made of.

    Args:
        text: Words of the answer, special tokens left out.
        tokens: Token ids, the end token included if it was reached.
        margins: Logit of each token less that of the runner-up; greedy decoding is sure where they are large.
        logits: Float32 tensor (tokens, vocab_size), where logits were asked for, else None.
    """

    text: str
    tokens: list[int]
    margins: list[float]
    logits: Tensor | None = None


class QuestionReader(Protocol):
    """Language model that reads questions, and then further tokens of each."""

    def start(self, suffixes: Sequence[Tensor], max_new_tokens: int) -> Tensor:
        """Read questions.

        Args:
            suffixes: Embeddings (L_i, hidden_size) of each question.
            max_new_tokens: Number of tokens to keep room for in each answer.

        Returns:
            State (n, hidden_size) of the last token of each question.
        """

    def step(self, embeds: Tensor, questions: Sequence[int]) -> Tensor:
        """Read one more token (n, hidden_size) of n questions, given by index; return states (n, hidden_size)."""


class GreedyDecoder:
    """Greedy decoder with the end tokens of a model's generation config.

    A config that names no end token leaves the tokenizer's. Settings that greedy decoding here does not follow, such
    as a repetition penalty, are named in a warning.

    Args:
        model: `IDE3DForConditionalGeneration`.
        processor: `IDE3DProcessor` of the model.
    """

    def __init__(self, model: nn.Module, processor: Any):
        self.model, self.processor = model, processor
        config = model.generation_config
        ends = config.eos_token_id if config.eos_token_id is not None else processor.tokenizer.eos_token_id
        self.end_tokens = set(ends if isinstance(ends, (list, tuple)) else [ends])
        ignored = {
            name: getattr(config, name)
            for name, neutral in NEUTRAL_GENERATION.items()
            if getattr(config, name) not in neutral
        }
        if ignored:
            logger.warning("Greedy decoding is plain here; the model's generation settings %s are left out.", ignored)

    def decode(
        self,
        reader: QuestionReader,
        suffixes: Sequence[Tensor],
        max_new_tokens: int,
        output_logits: bool = False,
        names: Sequence[str] | None = None,
    ) -> list[SceneAnswer]:
        """Answer questions together, each as if it were asked alone.

        Args:
            reader: Reader of the questions.
            suffixes: Embeddings (L_i, hidden_size) of each question, what all of them share left out.
            max_new_tokens: Largest number of tokens of an answer, at least 1.
            output_logits: Whether to keep the logits.
            names: Names of the questions in messages; default: their numbers.

        Raises:
            TypeError: If `max_new_tokens` is no integer.
            ValueError: If `max_new_tokens` is below 1, or scores of a token are NaN or Inf.
        """
        *_, answers = self.stream(reader, suffixes, max_new_tokens, output_logits, names)
        return answers

    @torch.no_grad()
    def stream(
        self,
        reader: QuestionReader,
        suffixes: Sequence[Tensor],
        max_new_tokens: int,
        output_logits: bool = False,
        names: Sequence[str] | None = None,
    ) -> Iterator[list[SceneAnswer]]:
        """Yield the answers of `decode` as they grow, once for each token and then whole.

        The answers are the same objects each time. Until the last time they have tokens and margins alone. The reader
        serves nothing else until then. Arguments and errors are those of `decode`.
        """
        check_whole(max_new_tokens, "max_new_tokens", 1)
        names = names or [f"question {index}" for index in range(len(suffixes))]
        answers = [SceneAnswer("", [], []) for _ in suffixes]
        kept: list[list[Tensor]] = [[] for _ in suffixes]
        open_questions = list(range(len(suffixes)))
        states = reader.start(suffixes, max_new_tokens)
        for step in range(max_new_tokens):
            logits = self.model.lm_head(states).float()
            # Half precision has ties, among which `topk` takes any token and `generate` the first.
            chosen, best = logits.argmax(-1), logits.topk(2, dim=-1).values
            tokens, margins = chosen.tolist(), (best[:, 0] - best[:, 1]).tolist()
            # NaN and Inf come first, so that they are in one of the two best.
            if broken := [names[open_questions[row]] for row, gap in enumerate(margins) if not math.isfinite(gap)]:
                raise ValueError(f"The scores of the next token are NaN or Inf for {broken}. {DIVERGED}")
            for row, question in enumerate(open_questions):
                answers[question].tokens.append(tokens[row])
                answers[question].margins.append(margins[row])
                if output_logits:
                    kept[question].append(logits[row].clone())
            yield answers
            going = [row for row, token in enumerate(tokens) if token not in self.end_tokens]
            if not going or step == max_new_tokens - 1:
                break
            open_questions = [open_questions[row] for row in going]
            states = reader.step(self.model.get_input_embeddings()(chosen[going]), open_questions)
        texts: dict[tuple[int, ...], str] = {}  # thousands of answers are a few dozen different ones
        for answer, rows in zip(answers, kept, strict=True):
            key = tuple(answer.tokens)
            if key not in texts:
                texts[key] = self.processor.decode(answer.tokens, skip_special_tokens=True)
            answer.text, answer.logits = texts[key], torch.stack(rows) if output_logits else None
        yield answers
