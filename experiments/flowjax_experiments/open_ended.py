"""Open-ended answers: the knockouts of a sweep, and the probability of a generated token.

The model answers greedily; the prompt is continued by its first n - 1 tokens, and the probability
of the n-th, the anchor, is traced through the same windows as a letter's in `information_flow`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.asked.asked import ask_sample
from flowjax.compilation import use_persistent_cache
from flowjax.data.prompt import Prompt, Question, VideoShape
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.inference.anchor import continued, tokens_until
from flowjax.inference.end_tokens import end_tokens
from flowjax.layout import TokenLayout
from flowjax.models.checkpoint import LoadedModel, load_model
from flowjax.models.embedded import Embedded
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.progress import Advance
from flowjax.report.anchor import draw_anchor
from flowjax.report.curves import Strongest, strongest
from flowjax.runs.each_sample import each_sample
from flowjax.runs.settings import model_settings, sample_settings
from flowjax.runs.store import RunStore
from flowjax.sweeps.engine import planned
from flowjax.sweeps.protocol import Protocol, protocol
from flowjax.sweeps.rows import decode_each, relative_change
from flowjax.sweeps.run import protocol_settings
from flowjax.version import __version__
from flowjax_experiments.columns import OF_SAMPLE
from flowjax_experiments.drawn import print_notes, print_paths
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

EDGE_SETS = ("cross-frame", "vql-to-ql")
"""Swept where nothing else is asked for: an open question has no options."""

SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False, metadata={"doc": doc})
        for name, kind, doc in [
            *OF_SAMPLE,
            ("token", pa.int32(), "which generated token is the anchor, from 1"),
            ("generated", pa.string(), "text of the tokens before it"),
            ("anchor", pa.string(), "text of the anchor"),
            ("edge_set", pa.string(), "the edge set that the edge is reported under"),
            ("edge", pa.string(), "the edges cut, source->target, joined by +"),
            ("head", pa.int32(), "the head they are cut in, 0-based; -1 for all"),
            ("centre", pa.int32(), "the window's centre layer, 0-based"),
            ("width", pa.int32(), "the window's width in layers"),
            ("new_token", pa.string(), "most probable token in its place with the knockout"),
            ("base_probability", pa.float64(), "probability of the anchor, 0 to 1"),
            ("new_probability", pa.float64(), "the same with the knockout"),
            ("relative_change", pa.float64(), "(new - base) * 100 / base, percent"),
            ("model", pa.string(), "the model's name"),
            ("model_note", pa.string(), "what to know about the model when reading results"),
            ("version", pa.string(), "flowjax version"),
        ]
    ]
)


@dataclass(frozen=True)
class Asked:
    """As the command line gives it: questions of a benchmark, or one about a video.

    token: the anchor, from 1.
    options: of the one question; none where it is open.
    is_open: ask a benchmark's questions without their options.
    """

    model: Path
    token: int
    edge_sets: tuple[str, ...]
    edges: tuple[str, ...]
    window: int
    data: Path | None = None
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    is_open: bool = True
    video: Path | None = None
    question: str | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that it is one or the other.

        Raises:
            FlowjaxError: says what is missing or too much.
        """
        if self.token < 1:
            raise FlowjaxError(f"--token {self.token}: the first generated token is 1")
        one = self.video is not None and self.question is not None
        some = self.video is not None or self.question is not None or bool(self.options)
        if (self.data is None) != one or (self.data is not None and some):
            raise FlowjaxError("give --data, or --video and --question (and --option), not both")

    @property
    def protocol(self) -> Protocol:
        """Edges and windows."""
        sets = self.edge_sets if self.edge_sets or self.edges else EDGE_SETS
        return protocol(sets, self.edges, width=self.window)


def run(asked: Asked, out: Path, *, overwrite: bool) -> list[Strongest]:
    """Trace the anchor of every question, draw and print.

    Raises:
        FlowjaxError: a bad input, or answers that all end before the anchor.
    """
    use_persistent_cache()
    chosen = asked.protocol
    loaded = load_model(asked.model)
    stop = end_tokens(loaded.path, loaded.tokenizer)
    settings = {
        "experiment": "open_ended",
        "token": asked.token,
        "is_open": asked.is_open,
        **protocol_settings(chosen),
    }

    def rows(sample: Sample, embedded: Embedded, layout: TokenLayout) -> pa.Table | None:
        return rows_of(loaded, sample, embedded, layout, chosen, token=asked.token, stop=stop)

    if asked.data is not None:
        _each(asked, loaded, rows, out, settings, overwrite=overwrite)
    else:
        _one(asked, loaded, rows, out, settings, overwrite=overwrite)
    return report(out)


Rows = Callable[[Sample, Embedded, TokenLayout], pa.Table | None]


def _each(
    asked: Asked, loaded: LoadedModel, rows: Rows, out: Path, settings: dict, *, overwrite: bool
) -> None:
    """The questions of a benchmark."""
    samples = Selection(data=asked.data, tasks=asked.tasks, limit=asked.limit).read()

    def stem_alone(config: VideoLLMConfig, question: Question, shape: VideoShape) -> Prompt:
        return loaded.family.prompt(config, Question(question.stem, ()), shape)

    if asked.is_open:
        family = dataclasses.replace(loaded.family, prompt=stem_alone)
        asking = dataclasses.replace(loaded, family=family)
    else:
        asking = loaded

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        del advance
        return rows(prepared.sample, prepared.embedded, prepared.prompt.layout)

    each_sample(
        asking, samples, measure, out, schema=SCHEMA, settings=settings, overwrite=overwrite
    )


def _one(
    asked: Asked, loaded: LoadedModel, rows: Rows, out: Path, settings: dict, *, overwrite: bool
) -> None:
    """One question, whose true answer nobody needs to know."""
    assert asked.video is not None and asked.question is not None
    sample = Sample(asked.video.name, "", asked.video, Question(asked.question, asked.options))
    everything = {**model_settings(loaded), **sample_settings([sample]), **settings}
    store = RunStore(out, everything, 1, schema=SCHEMA, overwrite=overwrite)
    if not store.done:
        prepared = ask_sample(loaded, sample)
        found = rows(sample, prepared.embedded, prepared.layout)
        if found is None:
            raise FlowjaxError(
                f"--token {asked.token}: the model ends its answer before; give a smaller number"
            )
        store.write(0, found)
    store.finish()


def rows_of(
    loaded: LoadedModel,
    sample: Sample,
    embedded: Embedded,
    layout: TokenLayout,
    chosen: Protocol,
    *,
    token: int,
    stop: frozenset[int],
) -> pa.Table | None:
    """The rows of one sample; None if its answer ends before the anchor.

    Raises:
        FlowjaxError: a group that the prompt does not have.
    """
    tokenizer, decoder = loaded.tokenizer, loaded.model.decoder
    tokens = tokens_until(loaded.model, embedded, token, stop)
    if tokens is None:
        return None
    *before, anchor = tokens
    embedded, layout = continued(loaded.model, embedded, layout, before)
    layout = chosen.layout(layout)
    cells = chosen.cells(layout, decoder.config.layers, decoder.config.heads)
    answers = planned(decoder, embedded, layout, [cell.knockout for cell in cells])
    logits = answers.collect(len(cells))
    base = float(jax.nn.softmax(answers.base)[anchor])
    new = np.asarray(jax.nn.softmax(jnp.asarray(logits))[:, anchor], np.float64)
    size = len(cells)
    columns = {
        "sample_id": [sample.sample_id] * size,
        "task": [sample.task] * size,
        "token": [token] * size,
        "generated": [tokenizer.decode(before)] * size,
        "anchor": [tokenizer.decode([anchor])] * size,
        "edge_set": [cell.edge_set for cell in cells],
        "edge": [cell.knockout.name for cell in cells],
        "head": [cell.head for cell in cells],
        "centre": [cell.centre for cell in cells],
        "width": [chosen.width] * size,
        "new_token": decode_each(tokenizer, logits.argmax(axis=1)),
        "base_probability": [base] * size,
        "new_probability": new,
        "relative_change": relative_change(base, new),
        "model": [loaded.name] * size,
        "model_note": [loaded.note] * size,
        "version": [__version__] * size,
    }
    return pa.table(columns, schema=SCHEMA)


def report(run: Path) -> list[Strongest]:
    """Draw the figure of a finished run and print every edge's strongest window.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    figures = draw_anchor(table, run / "figures")
    found = strongest(table)
    samples = table["sample_id"].unique()
    number = table["token"][0].as_py()
    print(f"{len(samples)} samples, generated token {number}")
    for index in range(min(len(samples), 3)):
        row = table.slice(index * (table.num_rows // len(samples)), 1).to_pylist()[0]
        print(f"  {row['sample_id']}: {row['generated']!r} + {row['anchor']!r}")
    print_notes(table)
    print_table(
        "Window with the largest mean change of the token's probability",
        ["edge set", "edge cut"],
        ["layer", "change %", "95% interval", "excludes 0"],
        [
            [
                row.edge_set,
                row.edge,
                str(row.layer),
                f"{row.interval.mean:+.1f}",
                ends(row.interval, "+.1f"),
                yes(row.interval.excludes_zero),
            ]
            for row in sorted(found, key=lambda row: -abs(row.interval.mean))
        ],
    )
    print_failures(run)
    print_paths(run, table, figures)
    return found
