"""Generation probability: from which layer on the true option leads (section 4 of the paper)."""

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from flowjax.asked.asked import Asked
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.lens.project import option_ids
from flowjax.lens.read import read_generation
from flowjax.models.loaded import LoadedModel
from flowjax.padding import pad_prompt
from flowjax.progress import Advance
from flowjax.report.arrays import by_sample, grouped
from flowjax.report.canvas import caption, count_of, drawable, headline, legend, sheet
from flowjax.report.marks import LAYER, Line, draw_lines
from flowjax.report.page.sample import OnSample
from flowjax.report.sign_flips import adjusted_p, with_p
from flowjax.report.statistics import Interval, mean_interval, paired_interval
from flowjax.report.table import JUDGED, Table, judged, tested_note
from flowjax.report.table import LAYER as LAYER_TITLE
from flowjax.runs.analysis import Analysis, Chosen, Measured, Option, Report, Rows, Work
from flowjax.runs.columns import documented
from flowjax.runs.finished import Run
from flowjax.token_text import token_texts
from flowjax_experiments.on_sample import OF_OPTIONS, about, of_sample, options_read

FORMS = {True: "final norm at every layer", False: "final norm at the last layer only"}


@dataclass(frozen=True)
class Probability(Analysis):
    """Probability of the true and the false options, read after every layer.

    Both forms of the reading are kept, with the final norm at every layer and at the last only.
    """

    SCHEMA = documented(
        ("layer", pa.int32(), "the next token is read after this layer, 0-based"),
        ("normed", pa.bool_(), "final norm at every layer; False: at the last layer only"),
        ("letters", pa.string(), "the options' letters, in order"),
        ("probabilities", pa.list_(pa.float64()), "of each option's letter, 0 to 1"),
        ("true_probability", pa.float64(), "of the true option's letter"),
        ("false_probability", pa.float64(), "mean over the false options' letters"),
        ("top_ids", pa.list_(pa.int32()), "the most probable tokens, the first the most"),
        (
            "top_tokens",
            pa.list_(pa.string()),
            "their texts, blanks and special tokens kept",
        ),
        ("top_probabilities", pa.list_(pa.float64()), "their probabilities, 0 to 1"),
    )
    ACROSS = True
    CHOSEN = "correct"

    top_k: Annotated[int, Option("Most probable tokens kept per layer.", least=1)] = 10

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Read every layer of a sample in one forward."""
        check_top_k(self.top_k, loaded)

        def measure(asked: Asked, _: Advance) -> Measured:
            read = read_generation(asked.decoder, pad_prompt(asked.embedded))
            probability = np.asarray(read)
            answer = int(probability[0, -1].argmax())
            return Measured(answer, lambda: self._rows(asked, probability, answer))

        return Work(measure)

    def _rows(self, asked: Asked, probability: np.ndarray, answer: int) -> Rows:
        question, tokenizer = asked.question, asked.model.tokenizer
        ids = option_ids(tokenizer, question.letters, answer)
        is_true = np.array([letter == question.answer for letter in question.letters])
        rows = []
        for normed in (False, True):
            for layer, row in enumerate(probability[int(normed)]):
                # Equal probabilities stay in the order of their ids.
                top = np.argsort(-row, kind="stable")[: self.top_k]
                options = row[ids].astype(np.float64)
                rows.append(
                    {
                        "layer": layer,
                        "normed": normed,
                        "letters": question.letters,
                        "probabilities": options.tolist(),
                        "true_probability": float(options[is_true][0]),
                        "false_probability": float(options[~is_true].mean()),
                        "top_ids": top.tolist(),
                        "top_tokens": token_texts(tokenizer, top.tolist()),
                        "top_probabilities": row[top].astype(np.float64).tolist(),
                    }
                )
        return rows

    @staticmethod
    def report(run: Run) -> Report:
        """Every layer's probabilities, and from which layer on the true option is ahead."""
        normed = [at for at in layer_probabilities(run.rows) if at.normed]
        rows = [
            [str(at.layer), f"{at.true.mean:.4f}", f"{at.false.mean:.4f}", *judged(at.gap, "+.4f")]
            for at in normed
        ]
        layer = emerges_at(normed)
        said = (
            "At the last layer the true option is not shown to be ahead of the false ones."
            if layer is None
            else f"The true option is ahead of the false ones from layer {layer} on, counted from "
            "1: every difference is an effect."
        )
        table = Table(
            f"Probability of the options after every layer, final norm, n = {normed[0].gap.n}",
            [],
            [LAYER_TITLE, "true", "false, mean", "true - false", *JUDGED],
            rows,
            tested_note(f"all {len(normed)} layers in both forms of reading"),
        )
        return Report([table, said], draw_probability(run.rows))

    @staticmethod
    def on_sample(run: Run, sample_id: str) -> OnSample | None:
        """The probability of its options after every layer."""
        rows = of_sample(run.rows, sample_id, *OF_OPTIONS)
        return rows and dataclasses.replace(about(rows), options=options_read(rows))


def check_top_k(k: int, loaded: LoadedModel) -> None:
    """Refuse to keep more tokens than there are.

    Raises:
        FlowjaxError: says how many there are.
    """
    vocabulary = loaded.config.decoder.vocabulary
    if k > vocabulary:
        raise FlowjaxError(f"--top-k {k}: give 1 to {vocabulary} tokens")


@dataclass(frozen=True)
class LayerProbability:
    """Probability of the true option and the mean of the false ones after a layer (from 1).

    gap: true - false, paired over samples; all are tested together.
    """

    layer: int
    normed: bool
    true: Interval
    false: Interval
    gap: Interval


def layer_probabilities(table: pa.Table) -> list[LayerProbability]:
    """Every layer's probabilities, in both forms.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    found = []
    true = by_sample(table, "true_probability", "normed", "layer")
    false = by_sample(table, "false_probability", "normed", "layer").values
    p = adjusted_p(true.values - false)
    for i, normed in enumerate(true.axes[0]):
        for j, layer in enumerate(true.axes[1]):
            t, f = true.values[:, i, j], false[:, i, j]
            gap = with_p(paired_interval(t, f), p[i, j])
            found.append(
                LayerProbability(layer + 1, normed, mean_interval(t), mean_interval(f), gap)
            )
    return found


def emerges_at(layers: list[LayerProbability]) -> int | None:
    """The first layer (from 1) from which on the true option is ahead at every layer.

    Ahead: the gap is an effect above zero. None where the last layer's is not.

    layers: of one form, ascending.
    """
    first = None
    for at in reversed(layers):
        if not (at.gap.is_effect and at.gap.mean > 0):
            break
        first = at.layer
    return first


def draw_probability(table: pa.Table) -> dict[str, Figure]:
    """The curves, and the first sample's most probable tokens.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    return {"probability": _curves(table), "top-tokens": _top_tokens(table)}


def _curves(table: pa.Table) -> Figure:
    true = by_sample(table, "true_probability", "normed", "layer")
    false = by_sample(table, "false_probability", "normed", "layer")
    figure, panels = sheet(2, width=8, share_y=True)
    for axes, normed in zip(panels, (True, False), strict=True):
        form = true.axes[0].index(normed)
        lines = [
            Line("true option", true.values[:, form], 0),
            Line("false options, mean", false.values[:, form], 1),
        ]
        draw_lines(axes, true.axes[1], lines)
        caption(axes, FORMS[normed])
    panels[0].set_ylabel("probability as the next token")
    panels[0].set_ylim(bottom=0)
    legend(figure, panels[0])
    headline(figure, "Probability of the options", count_of(len(true.samples)), table)
    return figure


def _top_tokens(table: pa.Table) -> Figure:
    """A table of the tokens of the first sample: a row per layer, darker where more probable."""
    sample, of_sample = next(iter(grouped(table, "sample_id").items()))
    rows = grouped(of_sample, "normed")[True].sort_by("layer").to_pylist()
    probability = np.array([row["top_probabilities"] for row in rows])
    layers, k = probability.shape
    figure, (axes,) = sheet(width=1.2 + 0.75 * k, height=1.6 + 0.24 * layers)
    image = axes.imshow(
        probability, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    for i, row in enumerate(rows):
        for j, token in enumerate(map(str.strip, row["top_tokens"])):
            axes.text(
                j,
                i,
                textwrap.shorten(drawable(token) or "(space)", 11, placeholder="..."),
                ha="center",
                va="center",
                fontsize=6,
                color="white" if probability[i, j] > 0.6 else "black",
                fontweight="bold" if token and token in row["letters"] else "normal",
                parse_math=False,
            )
    axes.set_xticks(range(k), [str(rank + 1) for rank in range(k)])
    axes.set_yticks(range(layers), [str(row["layer"] + 1) for row in rows])
    axes.tick_params(labelsize=7, length=0)
    axes.set_xlabel("rank")
    axes.set_ylabel(LAYER)
    figure.colorbar(image, ax=axes, label="probability", aspect=30)
    said = (
        f"sample {drawable(str(sample))}: answer {drawable(rows[-1]['base_answer'])}, "
        f"true option {rows[-1]['true_answer']}; {FORMS[True]}; option letters in bold"
    )
    headline(figure, "Most probable next tokens", said, table)
    return figure
