"""Open-ended answers: the knockouts of a sweep, and the probability of a generated token.

The model answers greedily; the prompt is continued by its first n - 1 tokens, and the probability
of the n-th, the anchor, is traced through the same windows as a letter's in `sweep`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from flowjax.asked.asked import Asked
from flowjax.data.prompt import Question
from flowjax.data.sample import Sample
from flowjax.inference.anchor import continued, tokens_until
from flowjax.inference.end_tokens import end_tokens
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance
from flowjax.report.arrays import grouped
from flowjax.report.canvas import drawable
from flowjax.report.curves import strongest_table
from flowjax.report.figures import draw_sweep
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import OF_MODEL, OF_SAMPLE, schema
from flowjax.runs.finished import Run
from flowjax.runs.selection import Selection
from flowjax.sweeps.engine import planned
from flowjax.sweeps.protocol import protocol
from flowjax.sweeps.rows import relative_change
from flowjax.token_text import token_texts
from flowjax_experiments.sweep import Edges, Window, fitted

EDGE_SETS = ("cross-frame", "vql-to-ql")
"""Swept where nothing else is asked for: an open question has no options."""

QUOTED = 3
"""Samples whose tokens are printed."""

TwoSets = Annotated[
    tuple[str, ...], Option("An edge set of the paper. Default: cross-frame and vql-to-ql.")
]


@dataclass(frozen=True)
class Anchor(Analysis):
    """Cut attention edges and watch the probability of a token of a generated answer."""

    SCHEMA = schema(
        *OF_SAMPLE,
        ("token", pa.int32(), "which generated token is the anchor, from 1"),
        ("generated", pa.string(), "text of the tokens before it"),
        ("anchor", pa.string(), "text of the anchor, with blanks before it"),
        ("anchor_id", pa.int32(), "its token id"),
        ("edge_set", pa.string(), "the edge set that the edge is reported under"),
        ("edge", pa.string(), "the edges cut, source->target, joined by +"),
        ("head", pa.int32(), "the head they are cut in, 0-based; -1 for all"),
        ("centre", pa.int32(), "the window's centre layer, 0-based"),
        ("width", pa.int32(), "the window's width in layers"),
        ("new_token", pa.string(), "most probable token in its place with the knockout"),
        ("new_id", pa.int32(), "its token id"),
        ("base_probability", pa.float64(), "probability of the anchor, 0 to 1"),
        ("new_probability", pa.float64(), "the same with the knockout"),
        ("relative_change", pa.float64(), "(new - base) * 100 / base, percent"),
        *OF_MODEL,
    )
    OPEN = True
    NO_ROWS = "every answer ends before the token of --token; give a smaller number"

    is_open: Annotated[
        bool, Option("Ask a benchmark's questions without options.", "--open/--options")
    ] = True
    token: Annotated[int, Option("Which generated token is traced, from 1.", least=1)] = 1
    edges: TwoSets = ()
    edge: Edges = ()
    window: Window = None

    def samples(self, questions: Selection) -> Sequence[Sample]:
        """Those of a benchmark without their options, unless they are asked for."""
        samples = questions.read()
        if questions.one or not self.is_open:
            return samples
        return tuple(
            dataclasses.replace(sample, question=Question(sample.question.stem, ()))
            for sample in samples
        )

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Generate up to the anchor, and sweep the prompt that leads to it."""
        stop = end_tokens(loaded.path, loaded.tokenizer)
        decoder, tokenizer = loaded.model.decoder, loaded.tokenizer
        layers, heads = decoder.config.layers, decoder.config.heads
        sets = self.edges if self.edges or self.edge else EDGE_SETS
        swept = protocol(sets, self.edge, width=fitted(self.window, layers))

        def measure(asked: Asked, _: Advance) -> Measured | None:
            tokens = tokens_until(loaded.model, asked.embedded, self.token, stop)
            if tokens is None:
                return None
            *before, anchor = tokens
            embedded, layout = continued(loaded.model, asked.embedded, asked.layout, before)
            layout = swept.layout(layout)
            cells = swept.cells(layout, layers, heads)

            def rows() -> Rows:
                answers = planned(decoder, embedded, layout, [cell.knockout for cell in cells])
                logits = answers.collect(len(cells))
                base = float(jax.nn.softmax(answers.base)[anchor])
                new = np.asarray(jax.nn.softmax(jnp.asarray(logits))[:, anchor], np.float64)
                alike = {
                    "token": self.token,
                    "generated": tokenizer.decode(before, skip_special_tokens=False),
                    "anchor": token_texts(tokenizer, [anchor])[0],
                    "anchor_id": anchor,
                    "width": swept.width,
                    "base_probability": base,
                }
                return {name: pa.repeat(value, len(cells)) for name, value in alike.items()} | {
                    "edge_set": [cell.edge_set for cell in cells],
                    "edge": [cell.knockout.name for cell in cells],
                    "head": [cell.head for cell in cells],
                    "centre": [cell.centre for cell in cells],
                    "new_token": token_texts(tokenizer, logits.argmax(axis=1).tolist()),
                    "new_id": logits.argmax(axis=1).astype(np.int32),
                    "new_probability": new,
                    "relative_change": relative_change(base, new),
                }

            return Measured(None, rows)

        return Work(measure, {"edges": sets, "window": swept.width})

    @staticmethod
    def report(run: Run) -> Report:
        """Every edge's strongest window."""
        samples = grouped(run.rows, "sample_id")
        number = run.rows["token"][0].as_py()
        said = [f"{len(samples)} samples, generated token {number}"]
        firsts = [rows.slice(0, 1).to_pylist()[0] for rows in samples.values()]
        for row in firsts[:QUOTED]:
            said.append(f"  {row['sample_id']}: {row['generated']!r} + {row['anchor']!r}")
        title = "Window with the largest mean change of the token's probability"
        words = f"generated token {number}"
        if len(firsts) == 1:
            words += f' "{firsts[0]["anchor"]}" after "{firsts[0]["generated"]}"'
        label = "change of the token's probability (%)"
        figures = draw_sweep(run.rows, drawable(words), label)
        return Report([*said, *strongest_table(title, run.rows)], figures)
