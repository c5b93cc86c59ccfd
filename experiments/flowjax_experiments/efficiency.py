"""Efficiency side by side: accuracy against what a prefill costs, of every method and setting.

Accuracy comes from masked forms, whose programs are shared by prompts of many lengths; of the first
samples the compiled prefill is run too, timed in turns with the others, and compared with its mask.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowjax.asked.asked import Asked, true_token
from flowjax.data.sample import Sample
from flowjax.efficiency.asked import prompt_of, reads_tower
from flowjax.efficiency.front import FULL, LEVELS, Costed, at_level, front_band
from flowjax.efficiency.method import Applied, Prompt, Setting, Subject, methods
from flowjax.errors import FlowjaxError
from flowjax.inference.cost import PrefillCost
from flowjax.models.loaded import LoadedModel
from flowjax.pathway import KEPT, Pathway
from flowjax.progress import Advance
from flowjax.report.table import ends
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import documented
from flowjax.runs.finished import Run, read_run
from flowjax.runs.run import analysis_of
from flowjax.runs.settings import model_settings
from flowjax_experiments.efficiency_figure import draw_efficiency
from flowjax_experiments.efficiency_tables import level_table, levels_table, settings_table


class Entry(NamedTuple):
    """A setting of a run: the name of its method, its place among the method's, and itself."""

    method: str
    place: int
    setting: Setting


@dataclass(frozen=True)
class Efficiency(Analysis):
    """Accuracy against FLOPs, cache and time of a prefill, for every way to make it cheaper."""

    SCHEMA = documented(
        ("options", pa.int32(), "how many options its question has"),
        ("method", pa.string(), "what makes the prefill cheaper; full for nothing"),
        ("place", pa.int32(), "of the setting among the method's, from the dearest on"),
        ("setting", pa.string(), "the method's parameters"),
        ("flops", pa.int64(), "of the compiled prefill's matrix products; vision not counted"),
        ("full_flops", pa.int64(), "of the compiled prefill that cuts nothing"),
        ("cache_bytes", pa.int64(), "keys and values that decoding reads"),
        ("full_cache_bytes", pa.int64(), "those where nothing is cut"),
        ("new_answer", pa.string(), "most probable next token"),
        ("new_id", pa.int32(), "its token id"),
        ("new_correct", pa.bool_(), "whether it is the true option's letter"),
        ("true_probability", pa.float64(), "of the true option's letter, 0 to 1"),
        ("base_probability", pa.float64(), "of the base answer, 0 to 1"),
        ("seconds", pa.float64(), "of the compiled prefill, the median of --rounds; NaN: not run"),
        ("difference", pa.float64(), "largest of logits, compiled - masked; NaN: not run"),
    )

    found: Annotated[
        Path | None,
        Option("Run of `flowjax pathways find` on other samples: its pathways.", decides=False),
    ] = None
    method: Annotated[
        tuple[str, ...], Option("A method; may be repeated. Default: all.", decides=False)
    ] = ()
    timed: Annotated[
        int, Option("Samples, the first ones, whose compiled prefill is run and timed.", least=0)
    ] = 1
    rounds: Annotated[int, Option("How often each is timed.", least=1)] = 5

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Make every setting; measure a sample under each."""
        entries = self.entries(loaded)
        timed = {sample.sample_id for sample in samples[: self.timed]}
        settings = {
            "methods": {
                name: {"title": method.title, "source": method.source}
                for name, method in methods().items()
                if name in {entry.method for entry in entries}
            },
            "settings": [[entry.method, entry.setting.label] for entry in entries],
            "found": [] if self.found is None else _found_settings(self.found),
        }

        def measure(asked: Asked, advance: Advance) -> Measured:
            prompt = prompt_of(asked)
            full = entries[0].setting.apply(prompt)
            base = np.asarray(full.masked().logits(asked.decoder))
            own = asked.sample.sample_id in timed

            def rows() -> Rows:
                return list(_rows(asked, prompt, base, entries, self.rounds if own else 0, advance))

            return Measured(int(base.argmax()), rows)

        return Work(measure, settings)

    def entries(self, loaded: LoadedModel) -> list[Entry]:
        """The settings of a run, beginning with the one that cuts nothing.

        Raises:
            FlowjaxError: an unknown method, one that has nothing to work on, or a run of another
                model.
        """
        for name in self.method:
            if name not in methods():
                raise FlowjaxError(f"--method {name!r}: choose from {', '.join(methods())}")
        found = () if self.found is None else _found(self.found, loaded)
        config = loaded.config
        subject = Subject(
            config.family, config.decoder.layers, config.frames, reads_tower(loaded.model), found
        )
        asked = [name for name in methods() if name in self.method or not self.method]
        out = []
        for name in [FULL, *(name for name in asked if name != FULL)]:
            settings = methods()[name].settings(subject)
            if not settings and name in self.method:
                raise FlowjaxError(f"--method {name}: it has nothing to work on in this model")
            out += [Entry(name, place, setting) for place, setting in enumerate(settings)]
        return out

    @staticmethod
    def report(run: Run) -> Report:
        """Every setting, the best of them at each cost, and methods at equal cost."""
        settings = costed(run)
        full = settings[0]
        titles = {name: of["title"] for name, of in run.settings["methods"].items()}
        said = (
            f"{len(full.right)} samples; accuracy with all edges {full.accuracy.mean:.3f} "
            f"{ends(full.accuracy, '.3f')}. 100%: the compiled prefill that cuts nothing; vision "
            "is not counted. *: no cheaper setting is as accurate."
        )
        printed, stored = settings_table(settings, titles, run.rows)
        levels = [at_level(settings, share) for share in LEVELS]
        parts = [said, printed, *(level_table(level, titles) for level in levels)]
        figure = draw_efficiency(run.rows, settings, titles, front_band(settings))
        tables = {"settings": ("settings", stored), "levels": ("levels", levels_table(levels))}
        return Report(parts, {"efficiency": figure}, tables=tables)


def _rows(
    asked: Asked,
    prompt: Prompt,
    base: np.ndarray,
    entries: Sequence[Entry],
    rounds: int,
    advance: Advance,
) -> Iterator[dict[str, Any]]:
    applied = [entry.setting.apply(prompt) for entry in entries]
    seconds, compiled = _timed(applied, rounds)
    full, base_id = applied[0].cost(), int(base.argmax())
    for index, entry in enumerate(entries):
        logits = np.asarray(applied[index].masked().logits(asked.decoder))
        probability = np.asarray(jax.nn.softmax(logits), np.float64)
        new_id = int(probability.argmax())
        differs = np.abs(compiled[index] - logits).max() if compiled else math.nan
        advance(1 / len(entries))
        yield {
            "options": len(asked.question.options),
            "method": entry.method,
            "place": entry.place,
            "setting": entry.setting.label,
            **_counts(applied[index].cost(), full),
            "new_answer": asked.text_of(new_id),
            "new_id": new_id,
            "new_correct": asked.is_correct(new_id),
            "true_probability": probability[true_token(asked)],
            "base_probability": probability[base_id],
            "seconds": seconds[index],
            "difference": float(differs),
        }


def _counts(cost: PrefillCost, full: PrefillCost) -> dict[str, int]:
    return {
        "flops": cost.flops,
        "full_flops": full.flops,
        "cache_bytes": cost.cache_bytes,
        "full_cache_bytes": full.cache_bytes,
    }


def _timed(applied: Sequence[Applied], rounds: int) -> tuple[list[float], list[np.ndarray]]:
    """Median seconds of every program, all in turns, and their logits; NaN and none of 0 rounds."""
    if not rounds:
        return [math.nan] * len(applied), []
    logits = [np.asarray(one.prefill().logits) for one in applied]  # compiles
    seconds = np.empty((rounds, len(applied)))
    for turn in seconds:
        for index, one in enumerate(applied):
            start = time.perf_counter()
            jax.block_until_ready(one.prefill())
            turn[index] = time.perf_counter() - start
    return np.median(seconds, axis=0).tolist(), logits


def _found(path: Path, loaded: LoadedModel) -> tuple[Pathway, ...]:
    """The pathways of a run of `flowjax pathways find`.

    Raises:
        FlowjaxError: another kind of run, or of another model.
    """
    run = read_run(path)
    if analysis_of(path) != "pathways find":
        raise FlowjaxError(f"--found {path}: not a run of `flowjax pathways find`")
    if run.settings.get("checkpoint") != model_settings(loaded)["checkpoint"]:
        raise FlowjaxError(f"--found {path}: pathways of another model, {run.settings['model']!r}")
    return tuple(
        Pathway(**fields | {name: tuple(fields[name]) for name in KEPT})
        for fields in run.settings["found"]
    )


def _found_settings(path: Path) -> list[Any]:
    return read_run(path).settings["found"]


def costed(run: Run) -> list[Costed]:
    """Every setting of a run with what it costs and which samples it answers, in their order.

    Raises:
        FlowjaxError: a sample lacks a setting.
    """
    found = []
    for method, label in run.settings["settings"]:
        chosen = (pc.field("method") == method) & (pc.field("setting") == label)
        rows = run.rows.filter(chosen)
        found.append(Costed.of(method, label, rows))
    return [at.beside(found[0]) for at in found]
