"""Accuracy of a model on a benchmark, per task, with intervals; open answers beside the true ones.

RUN/answers.jsonl    open answers, for an external judge
RUN/scores.jsonl     what a judge made of them (`--scores`)
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowjax.asked.asked import Asked, true_token
from flowjax.data.frame_order import AS_IS
from flowjax.data.sample import Sample
from flowjax.data.samples import Samples
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, writing
from flowjax.inference.anchor import greedy_tokens
from flowjax.inference.end_tokens import end_tokens
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance
from flowjax.report.accuracy import accuracy_tables
from flowjax.report.arrays import grouped
from flowjax.report.open_answers import exact_match, read_scores, token_f1
from flowjax.report.statistics import mean_interval, proportion_interval
from flowjax.report.table import Table, mean
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import OF_MODEL, OF_SAMPLE, schema
from flowjax.runs.finished import Run

ANSWERS, SCORES = "answers.jsonl", "scores.jsonl"
MOST = 64
"""Tokens of an open answer, where nothing is said."""


@dataclass(frozen=True)
class Evaluate(Analysis):
    """How many questions a model answers correctly, per task."""

    SCHEMA = schema(
        *OF_SAMPLE,
        ("options", pa.int32(), "how many options its question has; 0: it is open"),
        ("true_answer", pa.string(), "letter of the true option; of an open question its text"),
        ("answer", pa.string(), "most probable next token; of an open question the greedy text"),
        ("answer_id", pa.int32(), "id of the first token"),
        ("correct", pa.bool_(), "whether it is the true option's letter, or exactly the text"),
        ("f1", pa.float64(), "of an open answer's words, 0 to 1; NaN with options"),
        ("probability", pa.float64(), "of the first token, 0 to 1"),
        ("probability_true", pa.float64(), "of the true letter, 0 to 1; NaN without options"),
        ("frames", pa.string(), "order in which the model saw the frames"),
        *OF_MODEL,
    )
    KEPT = False
    REFERENCES = True

    frames: Annotated[
        Literal["as-is", "shuffled", "reversed", "repeated"],
        Option("as-is, shuffled, reversed, or repeated (one frame).", flag="--order"),
    ] = AS_IS

    max_new_tokens: Annotated[
        int, Option("Tokens of an answer to an open question at most.", least=1)
    ] = MOST
    scores: Annotated[
        Path | None,
        Option(
            "What a judge made of a run's answers.jsonl: JSON lines with sample_id and score.",
            decides=False,
        ),
    ] = None

    @property
    def order(self) -> str:
        """As `frames` says."""
        return self.frames

    def settings(self) -> dict[str, Any]:
        """All but the length of answers where it has its default."""
        own = super().settings()
        if self.max_new_tokens == MOST:
            del own["max_new_tokens"]
        return own

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """One forward for every sample; for an open question as many tokens as its answer has."""
        stop = end_tokens(loaded.path, loaded.tokenizer)

        def measure(asked: Asked, _: Advance) -> Measured:
            if not asked.question.options:
                return Measured(None, lambda: [self._open(asked, stop)])
            probability = np.asarray(jax.nn.softmax(jnp.asarray(asked.logits)))
            answer = int(np.argmax(probability))

            def rows() -> Rows:
                row = {
                    "options": len(asked.question.options),
                    "answer": asked.text_of(answer),
                    "answer_id": answer,
                    "f1": float("nan"),
                    "probability": float(probability[answer]),
                    "probability_true": float(probability[true_token(asked)]),
                    "frames": self.frames,
                }
                return [row]

            return Measured(answer, rows)

        return Work(measure)

    def _open(self, asked: Asked, stop: Collection[int]) -> dict[str, Any]:
        """The row of an open question."""
        probability = np.asarray(jax.nn.softmax(jnp.asarray(asked.logits)))
        first, reference = int(np.argmax(probability)), asked.sample.reference
        model, tokenizer = asked.model.model, asked.model.tokenizer
        ids = greedy_tokens(model, asked.embedded, self.max_new_tokens, stop)
        answer = tokenizer.decode(list(ids), skip_special_tokens=True).strip()
        return {
            "options": 0,
            "true_answer": reference,
            "answer": answer,
            "answer_id": first,
            "correct": exact_match(answer, reference),
            "f1": token_f1(answer, reference),
            "probability": float(probability[first]),
            "probability_true": float("nan"),
            "frames": self.frames,
        }

    def finish(self, run: Run, loaded: LoadedModel, samples: Sequence[Sample]) -> None:
        """The open answers for a judge, and a judge's scores."""
        open_rows = run.rows.filter(pc.field("options") == 0).to_pylist()
        if self.scores is not None:
            self._keep_scores(run, [row["sample_id"] for row in open_rows])
        if not open_rows or not run.path.is_dir():
            return
        asked = dict(zip(names_of(samples), range(len(samples)), strict=True))
        lines = [
            {
                "sample_id": row["sample_id"],
                "task": row["task"],
                "question": samples[asked[row["sample_id"]]].question.stem,
                "reference": row["true_answer"],
                "answer": row["answer"],
            }
            for row in open_rows
        ]
        _write_lines(run.path / ANSWERS, lines)

    def _keep_scores(self, run: Run, open_ids: Sequence[str]) -> None:
        assert self.scores is not None
        if not run.path.is_dir():
            raise FlowjaxError(f"--scores {self.scores}: give --out, the run that was scored")
        scores = read_scores(self.scores)
        for name in [*open_ids, *scores]:
            if name not in scores or name not in open_ids:
                lacks = "no score" if name not in scores else "no open answer in the run"
                raise FlowjaxError(f"{self.scores}: sample {name!r} has {lacks}")
        _write_lines(run.path / SCORES, [{"sample_id": n, "score": scores[n]} for n in open_ids])

    @staticmethod
    def report(run: Run) -> Report:
        """The accuracy of every task."""
        frames = run.rows["frames"][0].as_py()
        title = "Accuracy" if frames == AS_IS else f"Accuracy with frames {frames}"
        parts = accuracy_tables(run.rows, title)
        files = {"answers": run.path / ANSWERS} if (run.path / ANSWERS).exists() else {}
        return Report([*parts, *_open_tables(run)], files=files)


def _open_tables(run: Run) -> list[Table]:
    """Exact match, F1 and a judge's scores of open answers, by task."""
    if "f1" not in run.rows.column_names:  # of an earlier version, which asked no open questions
        return []
    scored = read_scores(run.path / SCORES) if (run.path / SCORES).exists() else {}
    rows = []
    for task, some in grouped(run.rows.filter(pc.field("options") == 0), "task").items():
        exact = proportion_interval(sum(some["correct"].to_pylist()), some.num_rows)
        words = mean_interval(some["f1"].to_numpy())
        row = [task, str(some.num_rows), *mean(exact, ".3f"), *mean(words, ".3f")]
        if scored:
            judged = np.array([scored[name] for name in some["sample_id"].to_pylist()])
            row += mean(mean_interval(judged), ".3f")
        rows.append(row)
    numbers = ["questions", "exact match", "95% interval", "F1", "95% interval"]
    numbers += ["score", "95% interval"] if scored else []
    return [Table("Open answers", ["task"], numbers, rows)] if rows else []


def names_of(samples: Sequence[Sample]) -> list[str]:
    """What samples are called, without reading those of a benchmark."""
    if isinstance(samples, Samples):
        return samples.ids
    return [sample.sample_id for sample in samples]


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with writing(path):
        atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
