"""The stages of a sweep in words: in which layers frames, question and answer are read.

The paper finds three: frames read each other, the question reads the video, the last position
reads the question. Each is said here only of layers whose windows are effects: their p, adjusted
for all windows that were tested together, is below `LEVEL`, the interval excludes zero, and the
answer's probability falls. That none is found does not show that there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from flowjax.edges import CROSS_FRAME
from flowjax.report.curves import JudgedCurve
from flowjax.report.statistics import LEAST, LEVEL
from flowjax.report.table import ends

ARROW = "\N{RIGHTWARDS ARROW}"

UNMEASURED = "not measured"
"""What is said in short of a stage that a sweep does not cut."""


@dataclass(frozen=True)
class Stage:
    """A stage of the paper.

    name: short.
    what: who reads whom.
    whole: the edge that is all of it.
    parts: edges that are parts of it, which stand for it where the whole was not cut.
    """

    name: str
    what: str
    whole: str
    parts: tuple[str, ...] = ()


STAGES = (
    Stage("cross-frame", "frames read earlier frames", CROSS_FRAME),
    Stage(
        f"video {ARROW} question",
        "question and options read the video",
        "video->question",
        ("video->question_stem", "video->options", "video->true_option", "video->false_options"),
    ),
    Stage(
        f"question {ARROW} last",
        "the last position reads question and options",
        "question->last",
        ("question_stem->last", "options->last", "true_option->last", "false_options->last"),
    ),
)


@dataclass(frozen=True)
class StageFound:
    """What a sweep says of a stage.

    layers: 1-based centres of the windows that are effects and lower the probability.
    short: the layers, or why there are none, in a few words.
    sentence: the whole of it.
    """

    stage: Stage
    layers: tuple[int, ...]
    short: str
    sentence: str


def stages(edges: Sequence[JudgedCurve], style: str = "center") -> list[StageFound]:
    """Every stage of `STAGES`.

    Args:
        edges: of one sweep, tested together.
        style: of its windows.
    """
    return [_stage(stage, edges, style) for stage in STAGES]


def _stage(stage: Stage, edges: Sequence[JudgedCurve], style: str) -> StageFound:
    def nothing(short: str, why: str) -> StageFound:
        return StageFound(stage, (), short, f"{short}: {why}")

    names = [at.curve.edge for at in edges if at.curve.head < 0]
    wanted = (stage.whole,) if stage.whole in names else stage.parts
    own = [at for at in edges if at.curve.edge in wanted and at.curve.head < 0]
    # An edge may be in two edge sets, with the same rows.
    own = list({at.curve.edge: at for at in own}.values())
    if not own:
        return nothing(UNMEASURED, "this sweep does not cut it in all heads at once.")
    if style != "center":
        return nothing("not said", f"windows of style {style} do not say in which layers.")
    if all(np.isnan(at.p).all() for at in own):
        n = max(at.curve.samples for at in own)
        return nothing("not tested", f"n = {n}, and a verdict needs {LEAST} samples.")
    size = sum(len(at.curve.mean) for at in own)
    effects = [(at, index) for at in own for index in range(len(at.p)) if _falls(at, index)]
    if not effects:
        # Of windows that were tested.
        at = min((at for at in own if not np.isnan(at.p).all()), key=lambda at: at.curve.mean.min())
        index = int(np.argmin(at.curve.mean))
        why = f"no window of {size} is an effect; the lowest mean is {_said(at, index, own)}."
        return nothing("not found", why)
    layers = tuple(sorted({int(at.curve.layer[index]) for at, index in effects}))
    at, index = min(effects, key=lambda one: one[0].curve.mean[one[1]])
    short = f"{'layers' if len(layers) > 1 else 'layer'} {spans(layers)}"
    return StageFound(stage, layers, short, f"{short}. Largest fall: {_said(at, index, own)}.")


def _falls(at: JudgedCurve, index: int) -> bool:
    interval = at.interval(index)
    return interval.is_effect and interval.mean < 0


def _said(at: JudgedCurve, index: int, own: Sequence[JudgedCurve]) -> str:
    interval = at.interval(index)
    of = f" of {at.curve.edge.replace('->', f' {ARROW} ').replace('_', ' ')}"
    p = f"p = {interval.p:.4f}" if interval.p >= LEVEL / 500 else f"p < {LEVEL / 500:g}"
    return (
        f"{interval.mean:+.1f}%{of if len(own) > 1 else ''} at layer {at.curve.layer[index]} "
        f"({ends(interval, '+.1f')}, n = {interval.n}, adjusted {p})"
    )


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers as ranges: 1, 2, 3, 7 as "1-3 and 7"."""
    parts = []
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}")
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
