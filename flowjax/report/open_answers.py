"""Open answers beside the true ones: exact match, token F1, and scores of an external judge."""

import json
import math
import re
import string
from collections import Counter
from pathlib import Path

from flowjax.errors import FlowjaxError
from flowjax.files import read_text

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and more than one blank (Rajpurkar et al. 2016)."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, reference: str) -> bool:
    """Whether an answer is the true one, both normalised."""
    return normalised(answer) == normalised(reference)


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of an answer's words, 0 to 1.

    As the evaluation of SQuAD computes it (Rajpurkar et al. 2016, arXiv 1606.05250); where either
    has no words, 1 if both have none.
    """
    ours, true = normalised(answer).split(), normalised(reference).split()
    if not ours or not true:
        return float(ours == true)
    shared = sum((Counter(ours) & Counter(true)).values())
    return 2 * shared / (len(ours) + len(true))


def read_scores(path: Path) -> dict[str, float]:
    """Scores by sample: JSON lines with `sample_id` and `score`; other fields are left alone.

    Raises:
        FlowjaxError: names the line that is not well formed, or whose sample was there before.
    """
    scores: dict[str, float] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FlowjaxError(f"{where}: not readable as JSON: {error}") from None
        name = fields.get("sample_id") if isinstance(fields, dict) else None
        score = fields.get("score") if isinstance(fields, dict) else None
        if not isinstance(name, str) or isinstance(score, bool):
            raise FlowjaxError(f"{where}: must be an object with sample_id and a number as score")
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise FlowjaxError(f"{where}: score must be a number; it is {score!r}")
        if name in scores:
            raise FlowjaxError(f"{where}: {name!r} has a score already")
        scores[name] = float(score)
    return scores
