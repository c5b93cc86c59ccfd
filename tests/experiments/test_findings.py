"""What `docs/findings.md` is taken from."""

import json
from pathlib import Path

import pytest

from flowjax.data.shapes.tasks import VIDEO_TASKS
from flowjax_experiments.shapes import PAIR
from flowjax_experiments.shapes.findings import IMAGE_TASKS, MODELS, findings

DOCS = Path(__file__).parents[2] / "docs"
LAYERS = 8


@pytest.mark.slow
def test_everything_is_measured(tmp_path):
    measured = findings(PAIR, tmp_path / "out", per_task=4)
    found = json.loads(json.dumps(measured, allow_nan=False))
    recorded = json.loads((DOCS / "findings" / "seed-0.json").read_text())
    assert set(found) == set(recorded)
    for model in MODELS:
        assert set(found[model]) == set(recorded[model])
        cut = found[model]["cut up to a layer"]
        assert set(cut) == {*VIDEO_TASKS, *IMAGE_TASKS}
        for of_task in cut.values():
            assert all(len(steps) == LAYERS for name, steps in of_task.items() if "->" in name)


def test_the_text_quotes_the_record():
    text = (DOCS / "findings.md").read_text()
    video = json.loads((DOCS / "findings" / "seed-0.json").read_text())["video"]
    for task in ("moving_direction", "action_antonym"):
        of_task = video["cut up to a layer"][task]
        full, cut = of_task["all edges"]["mean"], of_task["cross_frame"][-1]["accuracy"]
        assert f"| {task.replace('_', ' ')} | {full:.2f} | {cut:.2f} |" in text
    for task in ("moving_direction", "scene_transition"):
        window = video["windows"][task]["options->last"]
        at = min(range(LAYERS), key=window["mean"].__getitem__)
        mean, low, high = (window[name][at] for name in ("mean", "low", "high"))
        start = f"| {task.replace('_', ' ')} | -"
        (line,) = [line for line in text.splitlines() if line.startswith(start)]
        assert f"**{mean:.0f} at {at + 1}** [{low:.0f}, {high:.0f}]" in line
    point = video["pathways"]["all"][video["pathways"]["chosen"]["name"]]
    assert f"{100 * point['kept']:.1f}% | {point['accuracy']['mean']:.2f} |" in text
