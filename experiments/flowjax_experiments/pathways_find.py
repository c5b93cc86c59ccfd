"""Pathway discovery: from a sweep's results to the layers in which edges are worth keeping.

On one half of the samples, the mean change at every window says for cross_frame, video->question
and question->last from which layer to which it is at least a threshold. Every threshold gives a
pathway; all are run on all samples, beside the paper's hand-set layers and random edges. One is
chosen on the same half, and what is reported of it comes from the other.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.compilation import use_persistent_cache
from flowjax.errors import FlowjaxError
from flowjax.files import read_json
from flowjax.models.checkpoint import load_model
from flowjax.pathway import FORMS, Pathway, default_pathway, read_pathway, write_pathway
from flowjax.progress import Advance
from flowjax.report.frontier import (
    SWEPT,
    Frontier,
    best,
    candidates,
    draw_frontier,
    frontier,
    mean_curves,
)
from flowjax.runs.each_sample import each_sample
from flowjax.runs.settings import model_settings
from flowjax_experiments.drawn import print_notes, print_paths
from flowjax_experiments.halves import halves
from flowjax_experiments.pathways import SCHEMA, rows_of
from flowjax_experiments.printing import ends, print_table, yes
from flowjax_experiments.selection import Selection
from flowjax_experiments.summary import print_failures, read_results

THRESHOLDS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
"""Falls of the answer's probability in percent."""

FOUND = "found.json"


@dataclass(frozen=True)
class Asked:
    """As the command line gives it.

    sweep: the folder of a finished sweep of the model.
    thresholds: falls in percent; `THRESHOLDS` where empty.
    form: "paper" or "strict", of all pathways.
    tolerance: accuracy that the chosen pathway may lose on the half it is found on, 0 to 1.
    seeds: how often random edges are drawn.
    """

    model: Path
    questions: Selection
    sweep: Path
    thresholds: tuple[float, ...]
    form: str
    tolerance: float
    seeds: int

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            FlowjaxError: names the option.
        """
        if self.form not in FORMS:
            raise FlowjaxError(f"--form {self.form!r}: choose one of {', '.join(FORMS)}")
        if not 0 <= self.tolerance <= 1:
            raise FlowjaxError(f"--tolerance {self.tolerance}: it must be between 0 and 1")
        if self.seeds < 0:
            raise FlowjaxError(f"--seeds {self.seeds}: give at least 0")
        if any(threshold < 0 for threshold in self.thresholds):
            raise FlowjaxError("--threshold: give the fall in percent, at least 0")


@dataclass(frozen=True)
class Found:
    """What a run gives.

    pathway: the chosen one, as in `found.json`.
    found_on, judged_on: every pathway on either half of the samples.
    """

    pathway: Pathway
    found_on: Frontier
    judged_on: Frontier


def run(asked: Asked, out: Path, *, overwrite: bool) -> Found:
    """Find pathways, run them, choose one, write it, draw and print.

    Raises:
        FlowjaxError: a bad input, or a sweep of another model or other samples.
    """
    use_persistent_cache()
    samples = asked.questions.read()
    sweep = read_results(asked.sweep)
    loaded = load_model(asked.model)
    _check_model(asked.sweep, model_settings(loaded)["checkpoint"])
    layers = loaded.config.decoder.layers
    first, _ = halves(sample.sample_id for sample in samples)
    change = mean_curves(sweep, first)
    found = candidates(change, asked.thresholds or THRESHOLDS, asked.form)
    hand = default_pathway(loaded.config.family, layers, asked.form)
    pathways = [*found, hand]
    chosen = asked.questions.chosen("all")

    def measure(prepared: AskedPrompt, advance: Advance) -> pa.Table | None:
        return rows_of(
            loaded, prepared, pathways, seeds=asked.seeds, chosen=chosen, advance=advance
        )

    each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={
            "experiment": "pathways_find",
            "found": [dataclasses.asdict(pathway) for pathway in found],
            "hand-set": dataclasses.asdict(hand),
            "first half": sorted(first),
            "tolerance": asked.tolerance,
            "seeds": asked.seeds,
            "chosen": chosen,
        },
        strict=asked.questions.strict,
        overwrite=overwrite,
    )
    table = read_results(out)
    names = [pathway.name for pathway in found]
    name = best(frontier(table, first), names, asked.tolerance)
    write_pathway(out / FOUND, next(pathway for pathway in found if pathway.name == name))
    return report(out)


def _check_model(sweep: Path, checkpoint: str) -> None:
    settings = read_json(sweep / "manifest.json").get("settings", {})
    if settings.get("experiment", "information_flow") != "information_flow":
        raise FlowjaxError(f"--sweep {sweep}: not a run of `flowjax sweep`")
    if settings.get("checkpoint") != checkpoint:
        raise FlowjaxError(
            f"--sweep {sweep}: a sweep of another model, {settings.get('model')!r}; sweep this one"
        )


def report(run: Path) -> Found:
    """Draw the figure of a finished run and print every pathway on the half that judges.

    Raises:
        FlowjaxError: see `read_results`.
    """
    table = read_results(run)
    settings = read_json(run / "manifest.json")["settings"]
    layers = settings["hand-set"]["layers"]
    chosen = read_pathway(run / FOUND, layers)
    first = frozenset(settings["first half"])
    second = frozenset(table["sample_id"].to_pylist()) - first
    names = [pathway["name"] for pathway in settings["found"]]
    result = Found(chosen, frontier(table, first), frontier(table, second))
    figures = draw_frontier(table, result.judged_on, names, chosen.name, run / "figures")
    full = result.judged_on.full
    print(
        f"{result.found_on.full.n} samples to find on, {full.n} to judge on; accuracy there with "
        f"all edges {full.mean:.3f} {ends(full, '.3f')}"
    )
    print_notes(table)
    kept_layers = {
        pathway["name"]: _ranges(pathway) for pathway in (*settings["found"], settings["hand-set"])
    }
    print_table(
        f"Pathways, {chosen.form} form, on the half they were not found on",
        ["pathway", "layers kept: " + ", ".join(_short(edge) for edge in SWEPT.values())],
        ["kept %", "accuracy", "change", "95% interval", "excludes 0", "random"],
        [
            [
                f"{point.name} *" if point.name == chosen.name else point.name,
                kept_layers[point.name],
                f"{100 * point.kept:.1f}",
                f"{point.accuracy.mean:.3f}",
                f"{point.change.mean:+.3f}",
                ends(point.change, "+.2f"),
                yes(point.change.excludes_zero),
                "" if point.random is None else f"{point.random.mean:.3f}",
            ]
            for point in result.judged_on.points
        ],
    )
    at = result.judged_on.point(chosen.name)
    print(f"* chosen: loses at most {settings['tolerance']:g} accuracy on the other half, with the")
    print("  fewest edges; where none does, the one that loses least")
    if at.gap is not None:
        verdict = "excludes 0" if at.gap.excludes_zero else "does not exclude 0"
        print(f"chosen - random edges: {at.gap.mean:+.3f} {ends(at.gap, '+.3f')}, which {verdict}")
    print_failures(run)
    print_paths(run, table, figures)
    print(f"pathway  {run / FOUND}")
    return result


def _ranges(pathway: dict[str, Sequence[int]]) -> str:
    """Layers of each edge set, counted from 1."""
    return ", ".join(_range(pathway[field]) for field in SWEPT)


def _range(layers: Sequence[int]) -> str:
    if not layers:
        return "none"
    return f"{layers[0] + 1}-{layers[-1] + 1}" if len(layers) > 1 else str(layers[0] + 1)


def _short(edge: str) -> str:
    return edge.replace("_", " ")
