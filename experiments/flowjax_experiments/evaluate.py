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
from jaxtyping import Float

from flowjax.asked.asked import Asked, true_token
from flowjax.data.frame_order import AS_IS
from flowjax.data.sample import Sample
from flowjax.data.samples import Samples
from flowjax.errors import FlowjaxError
from flowjax.files import atomically, writing
from flowjax.inference.anchor import everything, greedy_tokens
from flowjax.inference.compile import compile_pathway
from flowjax.inference.end_tokens import end_tokens
from flowjax.inference.exit import first_token
from flowjax.inference.exit_rule import ExitRule
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance
from flowjax.report.accuracy import accuracy_tables
from flowjax.report.arrays import grouped
from flowjax.report.open_answers import exact_match, read_scores, token_f1
from flowjax.report.statistics import mean_interval, proportion_interval
from flowjax.report.table import Table, ends, mean
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import OF_MODEL, OF_SAMPLE, schema
from flowjax.runs.finished import Run
from flowjax_experiments.exit_choice import letters_of, read_exit

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
        ("layer", pa.int32(), "after which the first token was read, 0-based; the last, or --exit"),
        *OF_MODEL,
    )
    ACROSS = True
    KEPT = False
    REFERENCES = True

    frames: Annotated[
        Literal["as-is", "shuffled", "reversed", "repeated"],
        Option("as-is, shuffled, reversed, or repeated (one frame).", flag="--order"),
    ] = AS_IS

    exit: Annotated[
        str | None,
        Option(
            "Answer from an early layer where it is sure: entropy<NATS, gap>SHARE or "
            "option-gap>SHARE, then @layer>=N for layers from N (from 0) on; or RUN@TOLERANCE, as "
            "a run of `flowjax exit` calibrates it."
        ),
    ] = None
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
        """All but the length of answers and the exit rule where they have their defaults."""
        own = super().settings()
        if self.max_new_tokens == MOST:
            del own["max_new_tokens"]
        if self.exit is None:
            del own["exit"]
        return own

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """One forward for every sample; for an open question as many tokens as its answer has."""
        stop = end_tokens(loaded.path, loaded.tokenizer)
        rule = None if self.exit is None else read_exit(self.exit, loaded)

        def measure(asked: Asked, _: Advance) -> Measured:
            of_sample = None if rule is None else rule.among(letters_of(asked))
            if not asked.question.options:
                return Measured(None, lambda: [self._open(asked, stop, of_sample)])
            logits, layer = _first(asked, of_sample)
            probability = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
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
                    "layer": layer,
                }
                return [row]

            return Measured(answer, rows)

        return Work(measure, {} if rule is None else {"thresholds": rule.written})

    def _open(self, asked: Asked, stop: Collection[int], rule: ExitRule | None) -> dict[str, Any]:
        """The row of an open question."""
        logits, layer = _first(asked, rule)
        probability = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
        first, reference = int(np.argmax(probability)), asked.sample.reference
        model, tokenizer = asked.model.model, asked.model.tokenizer
        ids = greedy_tokens(model, asked.embedded, self.max_new_tokens, stop, rule)
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
            "layer": layer,
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
        parts = [*_exits(run), *accuracy_tables(run.rows, title)]
        files = {"answers": run.path / ANSWERS} if (run.path / ANSWERS).exists() else {}
        return Report([*parts, *_open_tables(run)], files=files)


def _first(asked: Asked, rule: ExitRule | None) -> tuple[Float[np.ndarray, " vocabulary"], int]:
    """Logits of the first token, and the layer after which they were read."""
    if rule is None:
        return asked.logits, asked.decoder.config.layers - 1
    compiled = compile_pathway(everything(len(asked.embedded.x)), (), asked.decoder.config)
    left = first_token(asked.decoder, asked.embedded, compiled, rule)
    return np.asarray(left.logits), int(left.layer)


def _exits(run: Run) -> list[str]:
    """Where a rule answered."""
    if "exit" not in run.settings:
        return []
    read = mean_interval(run.rows["layer"].to_numpy() + 1.0)
    return [
        f"Answered by {run.settings['exit']}: the first token was read after layer {read.mean:.1f} "
        f"on average, counted from 1 {ends(read, '.1f')}."
    ]


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
