"""BLEU, CIDEr, ROUGE-L and METEOR of coco-caption, as scores with statistics for each sample."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trainer.evaluation.metrics.scores import Score, mean_score

__all__ = ["caption_text", "gate_scores", "has_java", "ngram_scores", "ptb_tokenise", "split_words"]

SMALL, TINY = 1e-9, 1e-15  # of coco-caption's BLEU


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    """Name the extra to install where an import inside the block fails."""
    try:
        yield
    except ImportError as error:
        raise ImportError('n-gram scores need `pycocoevalcap`: pip install -e ".[evaluation]".') from error


def has_java() -> bool:
    """Return whether METEOR and the PTB tokeniser can run."""
    return shutil.which("java") is not None


def caption_text(text: str) -> str:
    """Return the form in which the original scores captions of Scan2Cap.

    It has marks at both ends, and dots and commas stand apart. An empty text becomes "sos  eos", with two blanks.
    """
    return f"sos {text.replace('.', ' . ').replace(',', ' , ').lower()} eos"


def split_words(text: str) -> str:
    """Return lower case words and punctuation marks with single blanks between them."""
    return " ".join(re.findall(r"\w+(?:['-]\w+)*|[^\w\s]", text.lower()))


def one_line(text: str) -> str:
    """Return a text with single blanks for all white space and line ends."""
    return " ".join(text.split())


def ptb_tokenise(texts: Sequence[str]) -> list[str]:
    """Return texts as the PTB tokeniser of coco-caption leaves them: lower case, without punctuation.

    White space becomes single blanks, since the tokeniser takes and gives a text a line. `pycocoevalcap` brings the
    tokeniser, but its own call of it does not notice texts that come back on other lines.

    Raises:
        RuntimeError: If there is no Java, it fails, or it gives another number of lines than it was given.
        ImportError: If `pycocoevalcap` is not installed.
    """
    if not has_java():
        raise RuntimeError('The "ptb" variant needs Java, and there is no `java` on the path: install a JRE (17).')
    with _extra():
        from pycocoevalcap.tokenizer import ptbtokenizer
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    options = ("-preserveLines", "-lowerCase", "-encoding", "UTF-8")
    done = subprocess.run(
        ["java", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", *options],
        input="".join(one_line(text) + "\n" for text in texts),
        capture_output=True,
        encoding="utf-8",
    )
    lines = done.stdout.split("\n")[:-1]
    if done.returncode or len(lines) != len(texts):
        raise RuntimeError(
            f"The PTB tokeniser gave {len(lines)} lines for {len(texts)} texts (exit status {done.returncode}): "
            f"{done.stderr[-500:]}"
        )
    return [" ".join(word for word in line.split() if word not in ptbtokenizer.PUNCTUATIONS) for line in lines]


def ngram_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, meteor: bool = False
) -> dict[str, Score]:
    """Return scores in percent: `bleu-1` to `bleu-4`, `cider`, `rouge-l`, and `meteor`.

    CIDEr is coco-caption's CIDEr-D. Its document frequencies come from the references given here, so that a part of a
    benchmark scores differently from the whole. BLEU is that of the corpus.

    Args:
        predictions: One text per sample, words parted by blanks.
        references: Accepted texts of each sample.
        meteor: Whether to run METEOR, which needs Java.

    Raises:
        ImportError: If `pycocoevalcap` is not installed.
    """
    with _extra():
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    given = {index: [text] for index, text in enumerate(predictions)}
    accepted = {index: list(texts) for index, texts in enumerate(references)}
    scores = _bleu_scores(predictions, references)
    has_words = any(text.split() for texts in accepted.values() for text in texts)
    # Without any n-gram in the references CIDEr knows no frequencies; then no caption shares one.
    cider = Cider().compute_score(accepted, given)[1] if has_words else np.zeros(len(given))
    scores["cider"] = Score(100 * cider)  # up to 1000
    scores["rouge-l"] = mean_score(Rouge().compute_score(accepted, given)[1])
    if meteor:
        scores["meteor"] = _meteor(accepted, given)
    return scores


def gate_scores(
    scores: dict[str, Score], predictions: Sequence[str], references: Sequence[Sequence[str]], gate: np.ndarray
) -> dict[str, Score]:
    """Return the same scores where samples outside the gate count 0: m@k of Scan2Cap.

    Means over samples lose these samples' values; BLEU of the corpus gets an empty text for them.

    Args:
        scores: Scores of `ngram_scores`.
        predictions: Texts that were scored.
        references: Accepted texts of each sample.
        gate: Samples that count, (n,), bool.
    """
    open_texts = [text if is_open else "" for text, is_open in zip(predictions, gate, strict=True)]
    gated = _bleu_scores(open_texts, references)
    for name in scores.keys() - gated.keys():
        gated[name] = Score(scores[name].statistics * gate[:, None], bounds=scores[name].bounds)
    return {name: gated[name] for name in scores}


def _bleu_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Score]:
    with _extra():
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer
    corpus = BleuScorer(n=4)
    for text, texts in zip(predictions, references, strict=True):
        corpus += (text, list(texts))
    rows = []
    for sample in corpus.ctest:
        closest = min((abs(length - sample["testlen"]), length) for length in sample["reflen"])[1]
        rows.append([sample["testlen"], closest, *sample["guess"], *sample["correct"]])
    statistics = np.asarray(rows, dtype=np.float64).reshape(-1, 10)
    return {f"bleu-{order}": Score(statistics, _bleu_of_order(order), bounds=(0, 100)) for order in (1, 2, 3, 4)}


def _bleu_of_order(order: int):
    """Return a function from sums of lengths, n-grams and matches to corpus BLEU in percent.

    It keeps coco-caption's small terms.
    """

    def finish(sums: np.ndarray, _: np.ndarray) -> np.ndarray:
        guess, correct = sums[:, 2 : 2 + order], sums[:, 6 : 6 + order]
        precision = ((correct + TINY) / (guess + SMALL)).prod(-1) ** (1 / order)
        ratio = (sums[:, 0] + TINY) / (sums[:, 1] + SMALL)
        return 100 * precision * np.exp(np.minimum(0, 1 - 1 / ratio))

    return finish


def _meteor(accepted: dict[int, list[str]], given: dict[int, list[str]]) -> Score:
    """Return METEOR of the corpus.

    Its band comes from the mean over samples, which is close to it.
    """
    with _extra():
        from pycocoevalcap.meteor.meteor import Meteor

    def lines(texts: list[str]) -> list[str]:
        return [one_line(text.replace("|||", " ")) for text in texts]

    scorer = Meteor()
    corpus, samples = scorer.compute_score(
        {key: lines(texts) for key, texts in accepted.items()},
        {key: lines(texts) for key, texts in given.items()},
    )
    values = 100 * np.asarray(samples)
    shift = 100 * corpus - values.mean()
    return Score(values, lambda sums, counts: sums[:, 0] / counts + shift, bounds=(0, 100))
