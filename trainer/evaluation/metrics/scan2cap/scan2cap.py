"""Metric of Scan2Cap, which compares captions of objects with those that people gave."""

import datasets
import numpy as np

from processing.boxes import reaches
from trainer.evaluation.metrics.benchmark_metric import NUMBER, TEXT, BenchmarkMetric
from trainer.evaluation.metrics.ngrams import (
    caption_text,
    gate_scores,
    has_java,
    ngram_scores,
    ptb_tokenise,
    split_words,
)
from trainer.evaluation.metrics.scores import Score

LIMITS = (0.25, 0.5)


class Scan2Cap(BenchmarkMetric):
    """CIDEr, BLEU, ROUGE-L and METEOR of captions over all true objects.

    METEOR is given where Java is installed. An object whose box was not found has an empty prediction.

    - "paper": texts get "sos" and "eos", which give even an empty caption some BLEU and ROUGE-L. The gate by the
      overlap of boxes is applied before.
    - "clean": texts are parted into words and punctuation. Each score is given without a gate and as `...@0.25` and
      `...@0.5`. There a caption counts 0 unless the overlap `iou` of its box reaches the limit.

    `variant="ptb"` uses the PTB tokeniser (needs Java), as GPT4Scene does.
    """

    prediction_fields = {"text": TEXT, "iou": NUMBER}
    reference_fields = {"texts": datasets.Sequence(TEXT)}
    citation = "Chen et al., Scan2Cap: Context-aware dense captioning in RGB-D scans, CVPR 2021."
    variants = ("ptb",)

    def _scores(self, predictions, references, protocol, variant=None, meteor=None) -> dict[str, Score]:
        meteor = has_java() if meteor is None else meteor
        said = [prediction["text"] for prediction in predictions]
        accepted = [reference["texts"] for reference in references]
        if variant == "ptb":
            words = iter(ptb_tokenise([*said, *(text for texts in accepted for text in texts)]))
            said = [next(words) for _ in said]
            accepted = [[next(words) for _ in texts] for texts in accepted]
        else:
            shape = caption_text if protocol == "paper" else split_words
            said = [shape(text) for text in said]
            accepted = [[shape(text) for text in texts] for texts in accepted]
        scores = ngram_scores(said, accepted, meteor=meteor)
        if protocol == "paper":
            return scores
        overlaps = np.array([prediction["iou"] for prediction in predictions], dtype=np.float64)
        if np.isnan(overlaps).any():
            raise ValueError(
                'The "clean" protocol gates by `iou`, the overlap of the given box: every prediction needs one.'
            )
        is_said = np.array([bool(text) for text in said])
        gated = {"": is_said, **{f"@{limit}": is_said & reaches(overlaps, limit) for limit in LIMITS}}
        return {
            f"{name}{suffix}": score
            for suffix, gate in gated.items()
            for name, score in gate_scores(scores, said, accepted, gate).items()
        }
