"""Nr3D, scored by boxes as in the 3D-IDE family."""

from dataclasses import replace

import numpy as np

from trainer.evaluation.metrics.benchmark_metric import BOX, TEXT, BenchmarkMetric
from trainer.evaluation.metrics.boxes import overlap_scores
from trainer.evaluation.metrics.scores import Score


class Nr3D(BenchmarkMetric):
    """Share of boxes that overlap the true one by 0.25 and 0.5, by description.

    This is not the protocol of the benchmark itself, which chooses among the true boxes: the two must not be compared.
    The four kinds are read from `question_type`; "vide-indep", as the original spells it, is view-independent.
    """

    prediction_fields = {"box": BOX}
    reference_fields = {"box": BOX, "question_type": TEXT}
    citation = "Achlioptas et al., ReferIt3D: Neural listeners for fine-grained 3D object identification, ECCV 2020."

    def _scores(self, predictions, references, protocol) -> dict[str, Score]:
        scores = overlap_scores(predictions, references, protocol)
        types = [reference["question_type"].lower() for reference in references]
        kinds = {"easy": ("easy",), "hard": ("hard",), "view-dep": ("view-dep",)}
        kinds["view-indep"] = ("view-indep", "vide-indep")
        for kind, words in kinds.items():
            members = np.array([any(word in text for word in words) for text in types])
            for name in ("acc@0.25", "acc@0.5"):
                scores[f"{kind}/{name}"] = replace(scores[name], members=members)
        return scores
