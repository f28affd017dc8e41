"""Regions from words by models of Transformers: SAM 3, or Grounding DINO with SAM 2, which also carries marks.

The models are given by the caller and looked at only when they run. What they take is what the scene's model sees: its
frames, squashed to its square.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from processing.argument_rules import check_number, check_texts
from processing.proposals.marks import Mark
from processing.proposals.protocol import ProposalVideo, RegionProposals
from processing.regions import regions_from_masks
from processing.token_grid import TokenGrid

__all__ = ["GroundedSam2Proposer", "Sam2Tracker", "Sam3Proposer"]

SAME_OBJECT = 0.5  # IoU of a detected box with what is tracked already


class Sam2Tracker:
    """Carrier of boxes and marks through a video, by SAM 2.

    Args:
        model: `transformers.Sam2VideoModel` in evaluation mode.
        processor: `transformers.Sam2VideoProcessor` of the model.
        licence: Licence of the weights; default: that of Meta's checkpoints.

    Raises:
        TypeError: If model or processor is of another kind.
    """

    source = "SAM 2"

    def __init__(self, model: nn.Module, processor: Any, *, licence: str = "Apache-2.0"):
        _check_parts(model, processor, "Sam2VideoModel", ("propagate_in_video_iterator",), ("init_video_session",))
        self.model, self.processor, self.licence = model, processor, licence

    def track(self, frames: np.ndarray, frame: int, **marks: Any) -> np.ndarray:
        """Carry N marked objects from one frame to all frames.

        Args:
            frames: Pictures, uint8 (V, H, W, 3).
            frame: Index of the marked frame.
            **marks: `input_boxes`, `input_points` with `input_labels`, or `input_masks`, as the processor takes them.

        Returns:
            Masks (N, V, H, W), bool.
        """
        session = self.processor.init_video_session(
            video=list(frames), inference_device=self.model.device, dtype=self.model.dtype
        )
        given = marks.get("input_masks") or marks.get("input_boxes", marks.get("input_points"))[0]
        count = len(given)
        self.processor.add_inputs_to_inference_session(session, frame, list(range(count)), **marks)
        masks = np.zeros((count, *frames.shape[:3]), bool)
        with torch.no_grad():
            self.model(inference_session=session, frame_idx=frame)
            for is_reverse in (False, True):
                for output in self.model.propagate_in_video_iterator(session, frame, reverse=is_reverse):
                    own = self.processor.post_process_masks([output.pred_masks], [list(frames.shape[1:3])])[0]
                    masks[:, output.frame_idx] = own[:, 0].cpu().numpy()
        return masks

    def follow(self, video: ProposalVideo, mark: Mark) -> RegionProposals:
        """Carry a person's mark to all frames, as one proposal.

        Args:
            video: Frames, tokens and grid.
            mark: Click, box or mask in one frame.

        Raises:
            ValueError: If the mark lies in no frame, or where the vision tower sees nothing.
        """
        mark.to_cells(video.grid, len(video.frames))
        height, width = video.frames.shape[1:3]
        if mark.mask is not None:
            pixels = torch.from_numpy(mark.mask)[None, None].float()
            given = {"input_masks": [nn.functional.interpolate(pixels, (height, width))[0, 0].numpy() > 0]}
        else:
            scale = (width / mark.frame_size[1], height / mark.frame_size[0])
            values = [v * scale[n % 2] for n, v in enumerate(mark.box or mark.point)]
            given = (
                {"input_boxes": [[values]]} if mark.box else {"input_points": [[[values]]], "input_labels": [[[1]]]}
            )
        masks = self.track(video.frames, mark.frame, **given)
        return _to_proposals(["marked object"], masks, [1.0], video, self.source, self.licence)


class GroundedSam2Proposer:
    """Proposer of what words name: Grounding DINO detects it, SAM 2 tracks it.

    Args:
        detector: `transformers.GroundingDinoForObjectDetection` in evaluation mode.
        processor: `transformers.GroundingDinoProcessor` of the detector.
        tracker: SAM 2.
        threshold: Least score of a box, in [0, 1].
        licence: Licences of the weights; default: those of the released checkpoints.

    Raises:
        TypeError: If a part is of another kind, or the threshold no number.
        ValueError: If the threshold is not in [0, 1].
    """

    source = "Grounding DINO + SAM 2"

    def __init__(
        self,
        detector: nn.Module,
        processor: Any,
        tracker: Sam2Tracker,
        *,
        threshold: float = 0.3,
        licence: str = "Apache-2.0 (both)",
    ):
        parts = ("post_process_grounded_object_detection",)
        _check_parts(detector, processor, "GroundingDinoForObjectDetection", ("config",), parts)
        if not isinstance(tracker, Sam2Tracker):
            raise TypeError(f"`tracker` must be a Sam2Tracker, got {type(tracker).__name__}.")
        threshold = check_number(threshold, "threshold", "a score", least=0, largest=1)
        self.detector, self.processor, self.tracker = detector, processor, tracker
        self.threshold, self.licence = threshold, licence

    def propose(self, video: ProposalVideo, words: Sequence[str] = ()) -> RegionProposals:
        """Propose the objects that words name; names are the words with a number.

        A box that lies on what is tracked already is the same object.

        Raises:
            TypeError: If the words are no list of texts.
            ValueError: If there are none, or one is empty.
        """
        names, masks, scores = [], np.zeros((0, *video.frames.shape[:3]), bool), []
        for text in _check_words(words):
            own = np.zeros((0, *video.frames.shape[:3]), bool)
            for frame, picture in enumerate(video.frames):
                boxes, sure = self._detect(picture, text)
                new = [n for n, box in enumerate(boxes) if not _is_tracked(box, own[:, frame])]
                if new:
                    tracked = self.tracker.track(video.frames, frame, input_boxes=[[boxes[n] for n in new]])
                    own, scores = np.concatenate([own, tracked]), [*scores, *(sure[n] for n in new)]
            names += [f"{text} {number}" for number in range(len(own))]
            masks = np.concatenate([masks, own])
        return _to_proposals(names, masks, scores, video, self.source, self.licence)

    def _detect(self, picture: np.ndarray, text: str) -> tuple[list[list[float]], list[float]]:
        """Return boxes (left, top, right, bottom) in pixels of a frame, and their scores."""
        prompt = text.lower().strip().rstrip(".") + "."  # as the detector was trained
        inputs = self.processor(images=picture, text=prompt, return_tensors="pt").to(self.detector.device)
        with torch.no_grad():
            outputs = self.detector(**inputs)
        (found,) = self.processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=self.threshold,
            text_threshold=0.0,
            target_sizes=[picture.shape[:2]],
        )
        return found["boxes"].tolist(), found["scores"].tolist()


class Sam3Proposer:
    """Proposer of what words name, by SAM 3, which finds and tracks in one.

    Args:
        model: `transformers.Sam3VideoModel` in evaluation mode.
        processor: `transformers.Sam3VideoProcessor` of the model.
        licence: Licence of the weights; default: that of Meta's checkpoints.

    Raises:
        TypeError: If model or processor is of another kind.
    """

    source = "SAM 3"

    def __init__(self, model: nn.Module, processor: Any, *, licence: str = "SAM License (Meta)"):
        _check_parts(model, processor, "Sam3VideoModel", ("propagate_in_video_iterator",), ("add_text_prompt",))
        self.model, self.processor, self.licence = model, processor, licence

    def propose(self, video: ProposalVideo, words: Sequence[str] = ()) -> RegionProposals:
        """Propose the objects that words name; names are the words with a number.

        Raises:
            TypeError: If the words are no list of texts.
            ValueError: If there are none, or one is empty.
        """
        words = _check_words(words)
        session = self.processor.init_video_session(
            video=list(video.frames), inference_device=self.model.device, dtype=self.model.dtype
        )
        self.processor.add_text_prompt(session, words)
        masks: dict[tuple[str, int], np.ndarray] = {}
        scores: dict[tuple[str, int], float] = {}
        with torch.no_grad():
            for output in self.model.propagate_in_video_iterator(session):
                found = self.processor.postprocess_outputs(session, output)
                text_of = {number: text for text, ids in found["prompt_to_obj_ids"].items() for number in ids}
                for number, mask, score in zip(
                    found["object_ids"].tolist(), found["masks"], found["scores"].tolist(), strict=True
                ):
                    key = (text_of[number], number)
                    masks.setdefault(key, np.zeros(video.frames.shape[:3], bool))[output.frame_idx] = (
                        mask.cpu().numpy()
                    )
                    scores[key] = max(score, scores.get(key, 0.0))
        keys = sorted(masks, key=scores.__getitem__, reverse=True)
        stacked = np.stack([masks[key] for key in keys]) if keys else np.zeros((0, *video.frames.shape[:3]), bool)
        names = [f"{text} {number}" for text, number in keys]
        return _to_proposals(names, stacked, [scores[key] for key in keys], video, self.source, self.licence)


def _check_parts(model: Any, processor: Any, kind: str, of_model: Sequence[str], of_processor: Sequence[str]) -> None:
    """Raise TypeError unless model and processor have what is called here."""
    if not isinstance(model, nn.Module) or not all(hasattr(model, name) for name in of_model):
        raise TypeError(f"The model must be a `transformers.{kind}`, got {type(model).__name__}.")
    if isinstance(processor, type) or not all(hasattr(processor, name) for name in of_processor):
        raise TypeError(
            f"`processor` must be the processor of a `transformers.{kind}`, got {type(processor).__name__}."
        )


def _check_words(words: Any) -> list[str]:
    """Return words as a list of texts, each once.

    Raises:
        TypeError: If they are no list of texts.
        ValueError: If there are none, or one is empty.
    """
    words = check_texts(words, "words", is_ordered=True)
    if not words or not all(word.strip() for word in words):
        raise ValueError(f"`words` must name what to look for, such as ['chair'], got {list(words)}.")
    return list(dict.fromkeys(words))


def _is_tracked(box: Sequence[float], masks: np.ndarray) -> bool:
    """Return whether a box lies on one of the masks (N, H, W) that are tracked already."""
    left, top, right, bottom = (int(round(side)) for side in box)
    filled = np.zeros(masks.shape[1:], bool)
    filled[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    for mask in masks[masks.any((1, 2))]:
        rows, cols = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        around = np.zeros_like(mask)
        around[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] = True
        if (filled & around).sum() >= SAME_OBJECT * (filled | around).sum():
            return True
    return False


def _to_proposals(
    names: Sequence[str],
    masks: np.ndarray,
    scores: Sequence[float],
    video: ProposalVideo,
    source: str,
    licence: str,
) -> RegionProposals:
    """Bring masks (N, V, H, W) to the token grid; regions without a cell are left out."""
    grid: TokenGrid = video.grid
    cells = regions_from_masks(torch.from_numpy(masks), grid)
    shown = cells.flatten(1).any(1)
    kept = [name for name, is_shown in zip(names, shown.tolist(), strict=True) if is_shown]
    sure = [float(score) for score, is_shown in zip(scores, shown.tolist(), strict=True) if is_shown]
    return RegionProposals(tuple(kept), cells[shown], tuple(sure), source, licence, video.fingerprint)
