"""Word lists: the shipped ones, the user's own, and which tokens are words."""

import subprocess
import sys
from pathlib import Path

import pytest

from flowjax.errors import FlowjaxError
from flowjax.lens.words import KINDS, Words, matching_ids, read_words, words_for

SHIPPED = Path(__file__).parents[2] / "flowjax" / "lens" / "words"
TASKS = sorted(path.stem for path in SHIPPED.glob("*.txt") if path.stem != "default")
TVBENCH = {
    "action_antonym", "action_count", "action_localization", "action_sequence",
    "egocentric_sequence", "moving_direction", "object_count", "object_shuffle",
    "scene_transition", "unexpected_action",
}  # fmt: skip


def test_every_task_of_the_benchmark_has_words_of_its_own():
    assert set(TASKS) == TVBENCH
    default = words_for("a task without a list")
    assert {"left", "red"} <= default.spatial and {"before", "moves"} <= default.temporal
    for task in TASKS:
        words = words_for(task)
        assert words.spatial > default.spatial and words.temporal > default.temporal
        assert not words.spatial & words.temporal, task
        for kind in KINDS:
            assert all(word == word.lower().strip() for word in words.of(kind))


@pytest.mark.parametrize("task", ["../words/action_count", "default", "", "/etc/passwd", "*"])
def test_a_task_is_never_opened_as_a_path(task):
    assert words_for(task) == words_for("unknown")


def test_own_words_are_added(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("# mine\n[Spatial]\nNorth  SOUTH # of here\n\n[temporal]\nyesterday\n")
    own = read_words(path)
    assert own == Words(frozenset({"north", "south"}), frozenset({"yesterday"}))
    words = words_for("action_count", own)
    assert words.spatial == words_for("action_count").spatial | {"north", "south"}
    assert words.temporal == words_for("action_count").temporal | {"yesterday"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("left\n", ["line 1", r"\[spatial\] or \[temporal\]"]),
        ("[spatial]\nleft\n[causal]\nso\n", ["line 3", r"\[causal\] is unknown"]),
        (b"[spatial]\n\xff\xfe", ["cannot be read"]),
        (None, ["cannot be read"]),
    ],
)
def test_a_bad_list_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "own.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for word in ["own.txt", *words]:
        with pytest.raises(FlowjaxError, match=word):
            read_words(path)


def test_tokens_match_whatever_is_around_them():
    texts = ["left", " Left", "LEFT.", "lefty", "le", "(right)", "", "\n"]
    found = matching_ids({"left", "right"}, texts)
    assert found.tolist() == [0, 1, 2, 5]
    assert matching_ids({"up"}, texts).tolist() == []


def test_the_wheel_ships_the_lists():
    """Beside the packages, as `importlib.resources` finds them."""
    code = (
        "from hatchling.builders.wheel import WheelBuilder\n"
        "builder = WheelBuilder('.')\n"
        "for file in builder.recurse_included_files(): print(file.distribution_path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=SHIPPED.parents[2]
    )
    assert done.returncode == 0, done.stderr
    shipped = {line for line in done.stdout.splitlines() if line.startswith("flowjax/lens/words/")}
    assert shipped == {f"flowjax/lens/words/{name}.txt" for name in [*TASKS, "default"]}
