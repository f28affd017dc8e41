"""One scene, many questions: its frames are encoded once, and its visual tokens are read once."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import nn

from modeling_ide3d.grounding_ide3d import fill_empty_regions
from modeling_ide3d.inputs_ide3d import check_scores
from modeling_ide3d.shared_prefix import has_other_layers
from processing.argument_rules import check_whole
from processing.benchmarks import build_prompt
from processing.boxes_in_words import NumberStyle
from processing.proposals.clusters import ClusterProposer, TokenClusters
from processing.proposals.marks import Mark
from processing.proposals.protocol import ProposalVideo, RegionProposals, RegionProposer
from processing.token_grid import TokenGrid
from trainer.session.decoding import GreedyDecoder, SceneAnswer
from trainer.session.finding import FollowedObject, FoundObjects, choose_proposals, follow_mark, to_pictures
from trainer.session.memory import MemoryPlan
from trainer.session.questions import (
    Question,
    as_regions,
    check_context,
    check_model,
    check_processor,
    check_vision_dtype,
    list_questions,
    list_regions,
    name_all,
    render_question,
    split_at_video,
    tokenize_after_video,
)
from trainer.session.said_boxes import LOCATE, SaidBoxes, check_template, say_boxes
from trainer.session.shared_prefix import PackedQuestions, RepeatedPrefix, choose_strategy
from trainer.session.streaming import check_references

__all__ = ["SceneAnswer", "SceneSession"]

DEFAULT_MAX_MEMORY = 4 * 1024**3
DESCRIBE = build_prompt("scan2cap", {"id": "", "question": "", "input_box": [0.0] * 6})
GROUND = build_prompt("scanrefer", {"id": "", "question": "{description}", "input_box": []})


class SceneSession:
    """A scene that answers questions, finds objects and describes regions.

    Vision features, and the keys and values of everything before the question, are computed once. Questions are then
    answered together, greedily, and each gets the tokens that it would get if it were asked alone.

    Args:
        model: `IDE3DForConditionalGeneration` in evaluation mode, with or without PEFT adapters around it.
        processor: `IDE3DProcessor` of the model.
        video: Video as the processor takes it: a file, a folder of images, or frames (V, H, W, 3).
        system: System prompt; default: that of the chat template.
        max_memory: Bytes that the session may use beside the weights: features, keys and values, and activations. As
            many questions are answered together as fit.
        vision_dtype: Type in which vision tower and projector of float32 compute, by autocast; default: theirs.
            `torch.bfloat16` pays where the processor multiplies it faster, and rounds the visual tokens by up to a
            hundredth. Questions are read in the type of the weights.
        **video_kwargs: Arguments of the video processor, such as `do_sample_frames=False`.

    Raises:
        TypeError: If model or processor is of another kind, `system` no text, `max_memory` no number, or
            `vision_dtype` no type.
        ValueError: If the model is in training mode, `max_memory` does not hold the scene, or `vision_dtype` is no
            type of 16 bits. Weights in another type than float32 allow theirs alone.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        video: Any,
        *,
        system: str | None = None,
        max_memory: int = DEFAULT_MAX_MEMORY,
        vision_dtype: torch.dtype | None = None,
        **video_kwargs: Any,
    ):
        check_model(model)
        check_processor(processor)
        if not isinstance(system, (str, type(None))):
            raise TypeError(f"`system` must be a text or None, got {type(system).__name__} {system!r}.")
        if model.training:
            raise ValueError("The model is in training mode: call model.eval() first.")
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside a PeftModel
        check_vision_dtype(vision_dtype, self.model.dtype)
        self.processor, self.system, self.vision_dtype = processor, system, vision_dtype
        self.token_grid = TokenGrid.of(processor)
        self.head = split_at_video(processor, render_question(processor, "?", system))[0]
        self.decoder = GreedyDecoder(self.model, processor)
        inputs = processor(text=[self.head], videos=[video], return_tensors="pt", **video_kwargs)
        self.prefix_ids = inputs["input_ids"].to(self.model.device)
        pixels = inputs["pixel_values_videos"]
        reader = processor.video_processor
        self._pictures = to_pictures(pixels[0], reader.image_mean, reader.image_std)
        pixels = pixels.to(self.model.device, self.model.dtype)
        self.num_frames = pixels.shape[1]
        text_config = self.model.config.get_text_config()
        strategy = choose_strategy(self.model)
        self.memory = MemoryPlan(
            self.model,
            max_memory,
            self.prefix_ids.shape[1],
            self.num_frames,
            is_packed=strategy is not RepeatedPrefix,
            needs_pairs=strategy is PackedQuestions,
            # Padding between prefix and question would shift a sliding window, and enter a recurrent state.
            needs_equal_lengths=has_other_layers(text_config),
        )
        with torch.no_grad():
            self.encoded = {"video": self._encode(pixels)}
            del inputs, pixels
            cache = strategy.new_cache(text_config)
            with strategy.reading_prefix(self.model.model.language_model) as options:
                self.model.model(
                    input_ids=self.prefix_ids,
                    mm_encoder_outputs=self.encoded,
                    use_cache=True,
                    cache=cache,
                    **options,
                )
        self.questions = strategy(self.model.model.language_model, cache)

    def _encode(self, pixels: torch.Tensor):
        """Return the vision features of all frames, as many at once as fit."""
        tokens, dtype = [], self.vision_dtype
        with nullcontext() if dtype is None else torch.autocast(pixels.device.type, dtype, cache_enabled=False):
            for chunk in pixels.split(self.memory.frames_at_once, dim=1):
                output = self.model.get_video_features(chunk, return_dict=True)
                tokens.append(output.pooler_output[0].to(self.model.dtype))
        output.pooler_output = [torch.cat(tokens)]
        output.hidden_states = output.last_hidden_state = None  # only the tokens are needed
        return output

    def _tokenize(self, question: Question, answer: str = "") -> torch.Tensor:
        """Return the tokens of a question after the video, followed by `answer`."""
        text = render_question(self.processor, question, self.system) + answer
        head, tail = split_at_video(self.processor, text)
        if head != self.head:
            raise ValueError(
                f"All questions of a session share what stands before the video, {self.head!r}, got {head!r}: pass "
                "`system` to the session, or make another session."
            )
        tokens = tokenize_after_video(self.processor, tail).to(self.model.device)
        check_context(self.model, self.prefix_ids.shape[1] + len(tokens))
        return tokens

    def _pool(self, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return region features (N, hidden_size), empty regions (N,) and the mean token (hidden_size,)."""
        regions = as_regions(regions).to(self.model.device)
        pooled = self.model.model.get_region_features(self.prefix_ids, self.encoded, regions.unsqueeze(0))
        return tuple(part[0] for part in pooled)

    def _embed(self, tokens: torch.Tensor, regions: torch.Tensor | None) -> torch.Tensor:
        """Return the embeddings of a question, its `<ground>` tokens replaced by features of regions."""
        embeds = self.model.get_input_embeddings()(tokens)
        count = 0 if regions is None else len(regions)
        places = (tokens == self.model.config.ground_token_id).nonzero().flatten()
        if len(places) < count:
            raise ValueError(f"A question has {len(places)} <ground> tokens for {count} regions: write one for each.")
        if count:
            features = fill_empty_regions(*self._pool(regions))
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
        names: Sequence[str] | None = None,
    ) -> list[SceneAnswer]:
        """Answer questions, with tokens and margins; see `ask`.

        Args:
            questions: Texts, or chats with one video each.
            regions: Bool masks (N, V, rows, cols) for each question that its `<ground>` tokens stand for, in order.
            max_new_tokens: Largest number of tokens of an answer.
            batch_size: Largest number of questions at a time; default: as many as `max_memory` holds.
            output_logits: Whether to keep the logits.
            names: Names of the questions in messages; default: their numbers.

        Raises:
            TypeError: If `questions` is no list of texts and chats, regions are no arrays, or a number no integer.
            ValueError: If a question is empty, does not fit into `max_memory` or into the context of the model, or has
                another text before the video. Also if it has fewer `<ground>` tokens than regions, or one without a
                region in its last turn, or if scores are NaN or Inf.
        """
        check_whole(max_new_tokens, "max_new_tokens", 1)
        questions = list_questions(questions)
        names = name_all(names, "question", len(questions))
        regions = list_regions(regions, len(questions))
        tokens = [self._tokenize(question) for question in questions]
        check_references(self, tokens, regions, names)
        answers: dict[int, SceneAnswer] = {}
        for group in self._groups(tokens, max_new_tokens, batch_size):
            suffixes = [self._embed(tokens[index], regions[index]) for index in group]
            own_names = [names[index] for index in group]
            decoded = self.decoder.decode(self.questions, suffixes, max_new_tokens, output_logits, own_names)
            answers.update(zip(group, decoded, strict=True))
        return [answers[index] for index in range(len(questions))]

    def ask(
        self,
        questions: Sequence[Question],
        regions: Sequence[torch.Tensor | None] | None = None,
        *,
        max_new_tokens: int = 64,
        batch_size: int | None = None,
        names: Sequence[str] | None = None,
    ) -> list[str]:
        """Answer questions in words. The arguments and errors are those of `answer`."""
        settings = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "names": names}
        return [answer.text for answer in self.answer(questions, regions, **settings)]

    def describe(
        self, regions: torch.Tensor, *, question: Question = DESCRIBE, max_new_tokens: int = 128, **settings: Any
    ) -> list[str]:
        """Describe each region (N, V, rows, cols) in words; `question` has one `<ground>`."""
        regions = as_regions(regions)
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
        names: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """Compare candidate regions with each description.

        Args:
            descriptions: Descriptions of an object each: texts, put into `template`, or whole chats.
            regions: Bool masks (N, V, rows, cols) of the candidates.
            template: Request with `{description}` in it, which each text takes the place of; other braces are text.
            batch_size: Largest number of descriptions at a time; default: as many as `max_memory` holds.
            names: Names of the descriptions in messages; default: their numbers.

        Returns:
            Cosine similarities (len(descriptions), N + 1), float32; the last column is "no such object".

        Raises:
            TypeError: If `descriptions` is no list of texts and chats, `template` no text, or regions no array.
            ValueError: If a description is empty or holds a `<ground>`, which only the answer may, or `template` has
                no `{description}`. Also if scores are NaN or Inf.
        """
        descriptions = list_questions(descriptions, "descriptions")
        names = name_all(names, "description", len(descriptions))
        ground = self.processor.ground_token
        check_template(template)
        requests = [template.replace("{description}", t) if isinstance(t, str) else t for t in descriptions]
        tokens = [self._tokenize(request, answer=ground) for request in requests]
        for index, row in enumerate(tokens):
            if (row == self.model.config.ground_token_id).sum() != 1:
                raise ValueError(f"{names[index]} holds a {ground}: candidates are found, not pointed at.")
        features, empty, _ = self._pool(regions)
        # Never one row alone: the last bit of a product with a vector depends on where in memory it lies.
        queries = features.new_zeros(max(len(tokens), 2), features.shape[-1])
        for group in self._groups(tokens, 0, batch_size):
            queries[group] = self.questions.start([self._embed(tokens[i], None) for i in group], 0).to(queries)
        scores = self.model.grounding_head(queries, features[None], empty[None])[: len(tokens)]
        check_scores(scores, names=names)
        return scores

    @cached_property
    def video(self) -> ProposalVideo:
        """Frames as the model sees them, and their visual tokens: what proposers of regions take."""
        tokens = self.token_grid.split(self.encoded["video"].pooler_output[0])
        return ProposalVideo(self._pictures, tokens.float().cpu().numpy(), self.token_grid)

    @cached_property
    def _clusters(self) -> TokenClusters:
        return TokenClusters(self.video.tokens)

    @cached_property
    def _own_proposals(self) -> RegionProposals:
        return ClusterProposer().from_clusters(self._clusters, self.video.fingerprint)

    def propose(self, proposer: RegionProposer | None = None, words: Sequence[str] = ()) -> RegionProposals:
        """Propose regions of the scene.

        Args:
            proposer: Maker of proposals, see `processing.proposals`. Default: clusters of the model's own tokens,
                which are made once a scene.
            words: Descriptions of what to look for, for proposers that take words.

        Raises:
            TypeError: If `proposer` has no `propose`.
        """
        if proposer is None:
            return self._own_proposals
        if isinstance(proposer, type) or not callable(getattr(proposer, "propose", None)):
            raise TypeError(f"`proposer` must be a RegionProposer of `processing.proposals`, got {proposer!r}.")
        return proposer.propose(self.video, words)

    def _check_proposals(self, proposals: RegionProposals | None) -> RegionProposals:
        if proposals is None:
            return self._own_proposals
        if not isinstance(proposals, RegionProposals):
            raise TypeError(
                f"`proposals` must be RegionProposals, as `propose` gives them, got {type(proposals).__name__}. "
                "`ground` compares masks."
            )
        proposals.check_video(self.video.fingerprint)
        return proposals

    def find(
        self, description: str, proposals: RegionProposals | None = None, *, template: str = GROUND
    ) -> FoundObjects:
        """Find a described object by the pictures alone: one, several or none.

        Args:
            description: Object in words, such as "the red chair".
            proposals: Candidates, as `propose` gives them; default: its default.
            template: Request with `{description}` in it.

        Raises:
            TypeError: If the description is no text, or `proposals` are none.
            ValueError: If the description is empty, or the proposals are of another video. See `ground` for the rest.
        """
        if not isinstance(description, str):
            raise TypeError(f"`description` must be a text such as 'the red chair', got {description!r}.")
        return self.find_each([description], proposals, template=template)[0]

    def find_each(
        self,
        descriptions: Sequence[str],
        proposals: RegionProposals | None = None,
        *,
        template: str = GROUND,
        names: Sequence[str] | None = None,
    ) -> list[FoundObjects]:
        """Find several descriptions, which are read together; see `find`, and `ground` for `names`."""
        proposals = self._check_proposals(proposals)
        cosines = self.ground(descriptions, proposals.masks, template=template, names=names)
        return [choose_proposals(text, row, proposals) for text, row in zip(descriptions, cosines, strict=True)]

    def boxes(
        self,
        descriptions: Sequence[str],
        *,
        numbers: NumberStyle | None = None,
        template: str = LOCATE,
        **options: Any,
    ) -> list[SaidBoxes]:
        """Ask in words where in 3D objects are; see `trainer.session.said_boxes.say_boxes`.

        Args:
            descriptions: Objects in words, such as "the red chair" or "all chairs".
            numbers: Way of writing measures that the model was trained with: "digits", "bins" or "tokens". Default:
                "tokens" where the tokenizer has them, else "digits".
            template: Request with `{description}` in it.
            **options: `max_boxes` of an answer and `batch_size`.

        Returns:
            For each description the boxes in the cameras of their frames, metres, or why the text is no answer.
        """
        return say_boxes(self, descriptions, numbers=numbers, template=template, **options)

    def describe_all(
        self, proposals: RegionProposals | None = None, *, max_regions: int = 16, max_new_tokens: int = 128
    ) -> dict[str, str]:
        """Describe the first `max_regions` proposals in words, by name.

        Args:
            proposals: Regions, as `propose` gives them; default: its default, best first.
            max_regions: Largest number of regions described.
            max_new_tokens: Largest number of tokens of a description.

        Raises:
            TypeError: If `proposals` are none, or a number is no integer.
            ValueError: If the proposals are of another video, or a number is below 1.
        """
        check_whole(max_regions, "max_regions", 1)
        proposals = self._check_proposals(proposals)
        texts = self.describe(proposals.masks[:max_regions], max_new_tokens=max_new_tokens)
        return dict(zip(proposals.names, texts, strict=False))

    def follow(self, mark: Mark) -> FollowedObject:
        """Carry a mark in one frame to all frames, by the model's own tokens.

        Args:
            mark: A click, a box or a mask in one frame.

        Returns:
            The object; `is_object` is False for a mark on a wall or the floor.

        Raises:
            TypeError: If it is no `Mark`.
            ValueError: If the mark lies in no frame shown, or where the vision tower sees nothing.
        """
        if not isinstance(mark, Mark):
            raise TypeError(f"`mark` must be a `processing.proposals.Mark`, got {type(mark).__name__} {mark!r}.")
        cells = mark.to_cells(self.token_grid, self.num_frames)
        return follow_mark(mark, cells, self._clusters)

    def _groups(self, tokens: list[torch.Tensor], max_new_tokens: int, batch_size: int | None) -> list[list[int]]:
        if batch_size is not None:
            check_whole(batch_size, "batch_size", 1)
        return self.memory.group([len(row) for row in tokens], max_new_tokens, batch_size)
