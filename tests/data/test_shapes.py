"""The procedural benchmark: balanced, leak-free by construction, the same from the same seed."""

from collections import Counter

import numpy as np
import pytest

from flowjax.data.benchmark import read_benchmark
from flowjax.data.shapes import questions as ask
from flowjax.data.shapes.benchmark import FRAMES, TASKS, write_benchmark
from flowjax.data.shapes.paint import frames
from flowjax.data.shapes.scene import MOST, Scene, Thing, tracks
from flowjax.data.shapes.tasks import IMAGE_TASKS, VIDEO_TASKS, Draw, draw_question
from flowjax.data.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    OPPOSITE,
    SHAPES,
    STILL,
    held_out,
)
from flowjax.data.video import read_frames
from flowjax.errors import FlowjaxError

EVERY = tuple(VIDEO_TASKS | IMAGE_TASKS)


def drawn(task, test, count=48):
    rng = np.random.default_rng(3)
    return [draw_question(task, Draw(rng, test=test), turn) for turn in range(count)]


def thing(motion=STILL, **changes):
    values = {"colour": "red", "shape": "square", "x": 0.5, "y": 0.5, "radius": 0.12, "span": 0.4}
    return Thing(motion=motion, start=0.0, stop=1.0, **(values | changes))


@pytest.mark.parametrize("task", EVERY)
def test_only_the_test_split_has_held_out_things(task):
    for scene, _ in drawn(task, test=False):
        assert not any(held_out(t.colour, t.shape, t.motion) for t in scene.things)
    for scene, _ in drawn(task, test=True):
        held = [held_out(t.colour, t.shape, t.motion) for t in scene.things]
        assert held[0] == (scene.things[0].motion != STILL)
        assert not any(held[1:])


def test_what_is_held_out_tells_no_answer():
    for colour in COLOURS:
        for shape in SHAPES:
            for motion, opposite in OPPOSITE.items():
                assert held_out(colour, shape, motion) == held_out(colour, shape, opposite)
    for motion in set(MOTIONS) - {STILL}:
        held = [(c, s) for c in COLOURS for s in SHAPES if held_out(c, s, motion)]
        assert len(held) == len(SHAPES), "one colour of every shape"


@pytest.mark.parametrize("task", EVERY)
def test_answers_and_letters_are_balanced(task):
    questions = [question for _, question in drawn(task, test=True, count=48)]
    letters = Counter(question.answer for question in questions)
    assert len(set(letters.values())) == 1 and len(letters) == len(questions[0].options)
    if task in ("image_colour", "action_sequence"):
        return  # their answers depend on the things, which are drawn at random
    true = Counter(q.options[q.letters.index(q.answer)] for q in questions)
    assert len(set(true.values())) == 1
    for question in questions:
        assert len(set(question.options)) == len(question.options)


@pytest.mark.parametrize("task", ["image_colour", "image_shape", "image_position"])
def test_a_crowd_is_bounded(task):
    for crowd, counts in ((1, {1}), (2, {1, 2})):
        draw = Draw(np.random.default_rng(0), test=False, company=0.0, crowd=crowd)
        scenes = [draw_question(task, draw, turn)[0] for turn in range(24)]
        assert {len(scene.things) for scene in scenes} == counts


def test_every_motion_is_its_opposite_backwards():
    for motion, opposite in OPPOSITE.items():
        forward = frames(Scene((thing(motion),), ("grey",)), 9, 32)
        backward = frames(Scene((thing(opposite),), ("grey",)), 9, 32)
        middle = 4 if motion in ("appear", "disappear") else 9  # the moment of change is one frame
        for index in {0, 1, 2, 3, 8} | set(range(middle)):
            if motion in ("appear", "disappear") and index == 4:
                continue
            np.testing.assert_array_equal(forward[index], backward[8 - index])


def test_things_are_painted_where_they_are():
    scene = Scene((thing("right", colour="blue", span=0.5),), ("white", "black"), change=0.5)
    video = frames(scene, 5, 64).astype(int)
    where = tracks(scene, np.linspace(0, 1, 5, dtype=np.float32))
    for index, frame in enumerate(video):
        blue = np.abs(frame - COLOURS["blue"]).sum(-1) < 40
        rows, columns = np.nonzero(blue)
        assert columns.mean() / 64 == pytest.approx(float(where.x[0, index]), abs=0.02)
        assert rows.mean() / 64 == pytest.approx(0.5, abs=0.02)
        expected = BACKGROUNDS["white" if index < 2 else "black"]
        assert tuple(frame[0, 0]) == expected
    assert where.x[0, 0] == pytest.approx(0.25) and where.x[0, -1] == pytest.approx(0.75)


def test_every_shape_looks_different():
    looks = [frames(Scene((thing(shape=shape),), ("black",)), 1, 48)[0] for shape in SHAPES]
    for index, look in enumerate(looks):
        assert (look[..., 0] > 100).sum() > 40
        for other in looks[:index]:
            assert (np.abs(look.astype(int) - other).sum(-1) > 100).sum() > 25


@pytest.mark.parametrize("task", EVERY)
def test_things_stay_apart_and_in_the_frame(task):
    for scene, _ in drawn(task, test=True):
        assert 1 <= len(scene.things) <= MOST
        assert len({t.colour for t in scene.things}) == len(scene.things)
        assert len({t.shape for t in scene.things}) == len(scene.things)
        for index, one in enumerate(scene.things):
            left, top, right, bottom = one.box
            assert min(left, top) > 0 and max(right, bottom) < 1
            for other in scene.things[:index]:
                box = other.box
                assert right < box[0] or box[2] < left or bottom < box[1] or box[3] < top


def test_questions_say_what_scenes_show():
    second = Thing("blue", "circle", "up", 0.2, 0.6, 0.1, 0.3, 0.6, 0.9)
    first = Thing("red", "square", "left", 0.5, 0.2, 0.1, 0.3, 0.1, 0.4)
    still = Thing("green", "cross", STILL, 0.8, 0.8, 0.1, 0.3, 0.0, 1.0)
    scene = Scene((second, still, first), ("grey",))
    asks = {stem: (options, true) for stem, options, true in ask.every_question(
        scene, np.random.default_rng(0)
    )}  # fmt: skip
    assert asks["Which object moves first?"][1] == "the red square"
    assert asks["In which direction does the blue circle move?"] == (("up", "down"), "up")
    assert asks["How many objects move?"][1] == "two"
    assert asks["How many objects are there?"][1] == "three"
    assert asks["Where is the green cross?"][1] == "bottom right"
    assert asks["What colour is the circle?"][1] == "blue"
    assert asks["What shape is the green object?"][1] == "cross"
    assert asks["What colour is the background?"][1] == "grey"
    assert ask.caption(scene) == (
        "the background is grey, the green cross is at the bottom right, "
        "the red square moves left, then the blue circle moves up"
    )


def test_the_benchmark_is_tvbench_and_the_same_from_a_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("one", "again"):
        write_benchmark(tmp_path / name, split="test", per_task=2, seed=5)
    write_benchmark(tmp_path / "other", split="test", per_task=2, seed=6)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == len(TASKS) * 3
    same = [(tmp_path / "one" / f).read_bytes() == (tmp_path / "again" / f).read_bytes()
            for f in files]  # fmt: skip
    assert all(same)
    differs = [(tmp_path / "one" / f).read_bytes() != (tmp_path / "other" / f).read_bytes()
               for f in files]  # fmt: skip
    assert any(differs)
    samples = read_benchmark(tmp_path / "one")
    assert len(samples) == 2 * len(TASKS)
    for sample in samples:
        clip = read_frames(sample.video, 8, start=sample.start, end=sample.end)
        assert clip.frames.shape == (8, 96, 96, 3) and not clip.repeated
        assert clip.indices[-1] < FRAMES
        assert (sample.end is not None) == (sample.task == "action_sequence")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "cache", "one", "other"]


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(FlowjaxError, match="split 'dev': choose one of train, validation, test"):
        write_benchmark(tmp_path / "out", split="dev", per_task=1)
    with pytest.raises(FlowjaxError, match="at least 1"):
        write_benchmark(tmp_path / "out", split="test", per_task=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    for overwrite in (False, True):
        with pytest.raises(FlowjaxError, match="already exists"):
            write_benchmark(tmp_path / "mine", split="test", per_task=1, overwrite=overwrite)
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "thesis.txt"]
