import numpy as np
import pytest

from flowjax.report.curves import judged_curves
from flowjax.report.stages import STAGES, spans, stages
from tests.report.tables import sweep_table

KNOWN = {
    "cross_frame": range(4),
    "video->question": range(2, 6),
    "question->last": range(5, 8),
    "video->last": (),
}
EDGES = {"cross-frame": ["cross_frame"], "vql-to-ql": list(KNOWN)[1:]}


def noise(seed: int, samples: int, layers: int = 8, *, heavy: bool = False):
    rng = np.random.default_rng(seed)
    shape = (len(KNOWN), samples, layers)
    drawn = rng.standard_t(2, shape) if heavy else rng.normal(size=shape)
    # Windows overlap, and so neighbours are alike.
    return dict(zip(KNOWN, drawn + np.roll(drawn, 1, axis=-1), strict=True))


def swept(values, known=None, *, samples=12, edges=EDGES, **options):
    known = known or {}

    def change(edge, sample, layer):
        return float(values[edge][sample, layer]) - 40.0 * (layer in known.get(edge, ()))

    return sweep_table(edges, change, samples=samples, layers=8, **options)


def found(table, style="center"):
    return stages(judged_curves(table)[0], style)


def test_known_stages_are_found_where_they_are():
    of = found(swept(noise(0, 12), KNOWN))
    assert [stage.layers for stage in of] == [(1, 2, 3, 4), (3, 4, 5, 6), (6, 7, 8)]
    assert [stage.short for stage in of] == ["layers 1-4", "layers 3-6", "layers 6-8"]
    for stage in of:
        assert stage.sentence.startswith(f"{stage.short}. Largest fall: -")
        assert "n = 12, adjusted p" in stage.sentence


def test_only_what_is_there_is_found():
    of = found(swept(noise(1, 12), {"question->last": (2, 5, 6)}))
    assert [stage.short for stage in of] == ["not found", "not found", "layers 3 and 6-7"]
    assert "no window of 8 is an effect" in of[0].sentence
    risen = {edge: values + 40.0 for edge, values in noise(2, 12).items()}
    assert [stage.short for stage in found(swept(risen))] == ["not found"] * 3


def test_parts_stand_for_a_whole_that_was_not_cut():
    names = {"video->question": "video->true_option", "question->last": "options->last"}
    values = {names.get(edge, edge): of for edge, of in noise(3, 12).items()}
    known = {"video->true_option": (1,), "options->last": (6,)}
    of = found(swept(values, known, edges={"custom": list(values)}))
    assert [stage.layers for stage in of] == [(), (2,), (7,)]
    both = found(swept(noise(3, 12), {"video->question": (1,)}, edges={
        "a": ["video->question"], "b": ["video->question"],
    }))  # fmt: skip
    assert both[1].layers == (2,)
    assert "video" not in both[1].sentence.split("Largest")[1]


def test_what_cannot_be_said_is_not_said():
    few = found(swept(noise(4, 5), KNOWN, samples=5))
    assert {stage.short for stage in few} == {"not tested"}
    assert few[0].sentence == "not tested: n = 5, and a verdict needs 6 samples."
    other = found(swept(noise(4, 12), edges={"custom": ["video->last"]}))
    assert {stage.short for stage in other} == {"not measured"}
    heads = found(swept(noise(4, 12), KNOWN, heads=(0, 1)))
    assert {stage.short for stage in heads} == {"not measured"}
    assert {stage.short for stage in found(swept(noise(4, 12), KNOWN), "top_down")} == {"not said"}


def test_ranges():
    assert spans([1, 2, 3, 4]) == "1-4"
    assert spans([2]) == "2"
    assert spans([1, 3, 4, 8]) == "1, 3-4 and 8"


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True])
def test_noise_has_no_stages(heavy):
    """At most 5% of 400 runs without any effect show a stage, though only stages' edges are cut."""
    edges = {"set": [stage.whole for stage in STAGES]}
    wrong = 0
    for seed in range(400):
        of = found(swept(noise(seed, 12, heavy=heavy), edges=edges))
        wrong += any(stage.layers for stage in of)
    assert wrong <= 20, f"{wrong} of 400"
