"""Metric of ScanQA, which compares an answer with those that people gave."""

from dataclasses import replace

import datasets
import numpy as np

from trainer.evaluation.metrics.answers import clean_answer, normalise_answer, refined_match
from trainer.evaluation.metrics.benchmark_metric import TEXT, BenchmarkMetric
from trainer.evaluation.metrics.ngrams import has_java, ngram_scores, ptb_tokenise
from trainer.evaluation.metrics.scores import Score, mean_score


class ScanQA(BenchmarkMetric):
    """Exact match, CIDEr, BLEU and ROUGE-L of answers, and METEOR where Java is installed.

    - "paper": exact match compares the raw text, with its case and final dot, over all lines. The n-gram scores leave
      out a final dot and count each id once (its last line).
    - "clean": both compare normalised answers, and an id that comes twice is an error.

    `variant="leo"` adds LEO's exact and refined match on answers cleaned as in SQA3D. `variant="ptb"` runs the PTB
    tokeniser (needs Java) before the n-gram scores.
    """

    prediction_fields = {"text": TEXT}
    reference_fields = {"id": TEXT, "texts": datasets.Sequence(TEXT)}
    citation = "Azuma et al., ScanQA: 3D question answering for spatial scene understanding, CVPR 2022."
    variants = ("leo", "ptb")

    def _scores(self, predictions, references, protocol, variant=None, meteor=None) -> dict[str, Score]:
        meteor = has_java() if meteor is None else meteor
        said = [prediction["text"] for prediction in predictions]
        accepted = [reference["texts"] for reference in references]
        ids = [reference["id"] for reference in references]
        last = {key: index for index, key in enumerate(ids)}
        if protocol == "clean" and len(last) < len(ids):
            raise ValueError(f"{len(ids) - len(last)} ids come more than once. Give each question one line.")
        shape = str if protocol == "paper" else normalise_answer
        pairs = [(shape(text), [shape(other) for other in texts]) for text, texts in zip(said, accepted, strict=True)]
        scores = {"em": mean_score([text in texts for text, texts in pairs])}
        if variant == "leo":
            matches = [
                refined_match(clean_answer(text), [clean_answer(other) for other in texts], protocol=protocol)
                for text, texts in zip(said, accepted, strict=True)
            ]
            scores["leo/em"], scores["leo/refined-em"] = (mean_score(column) for column in zip(*matches, strict=True))
        if variant == "ptb":
            words = iter(ptb_tokenise([*said, *(text for texts in accepted for text in texts)]))
            said = [next(words) for _ in said]
            accepted = [[next(words) for _ in texts] for texts in accepted]
        elif protocol == "paper":
            said = [text.removesuffix(".") for text in said]
            accepted = [[text.removesuffix(".") for text in texts] for texts in accepted]
        else:
            said, accepted = [text for text, _ in pairs], [texts for _, texts in pairs]
        kept = list(last.values())
        grams = ngram_scores([said[index] for index in kept], [accepted[index] for index in kept], meteor=meteor)
        for name, score in grams.items():
            statistics = np.zeros((len(ids), score.statistics.shape[1]))
            statistics[kept] = score.statistics
            members = np.isin(np.arange(len(ids)), kept)
            scores[name] = replace(score, statistics=statistics, members=members)
        return scores
