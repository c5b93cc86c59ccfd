"""A video and its questions as they are trained on: what the model is asked, and its answers."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from flowjax.asked.asked import ask
from flowjax.data.encode import write_mp4
from flowjax.data.videochat2 import Instructions, Turn
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.train.example import end_of_answers, example_of
from flowjax.train.instruct import Instructed
from flowjax.train.packing import Packed
from flowjax.train.stream import Stream, local_rows
from flowjax_convert.run import convert
from flowjax_experiments.shapes import PAIR
from tests.videos import moving_square

TURNS = (
    Turn("In which direction does the red circle move?", "It moves left."),
    Turn("Answer in a word.\nWhat is it?", "circle"),
    Turn("</s> What?", "circle"),
    Turn("What?", "a </s>"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "video"
    convert(PAIR / "video", out)
    return load_model(out)


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    video = tmp_path_factory.mktemp("videos") / "v.mp4"
    write_mp4(video, moving_square(24), 8)
    return Instructions("it.json: entry 0", video, TURNS)


def example(model, entry, order=(1, 0), length=256, questions=4):
    return example_of(model, entry, order, length=length, questions=questions, end="</s>")


def test_prompts_are_those_that_are_asked(model, entry):
    found = example(model, entry)
    packed = found.packed
    for segment, index in ((1, 1), (2, 0)):
        asked = ask(model, entry.video, TURNS[index].question)
        rows = np.flatnonzero(np.isin(packed.segment, (0, segment)))
        ids, position = packed.ids[rows], packed.position[:, rows]
        before = len(asked.prompt.ids)
        np.testing.assert_array_equal(ids[:before], asked.prompt.ids)
        np.testing.assert_array_equal(position[0], np.arange(len(ids)))
        assert model.tokenizer.decode(ids[before:-1].tolist()).strip() == TURNS[index].answer
        learned = rows[packed.weight[rows] > 0]
        np.testing.assert_array_equal(packed.target[learned], ids[before:])
        assert model.tokenizer.id_to_token(int(ids[-1])) == "</s>"
    np.testing.assert_array_equal(found.video_position, asked.prompt.video_position)
    np.testing.assert_array_equal(found.pixel_values, asked.pixel_values)


def test_questions_that_do_not_fit_or_serve_are_left_out(model, entry):
    assert example(model, entry, questions=1).packed.segment.max() == 1
    assert example(model, entry, order=(2, 3, 1)).packed.segment.max() == 1
    with pytest.raises(FlowjaxError, match=r"entry 0: QA 3: a contains '</s>', a control token"):
        example(model, entry, order=(2, 3))
    with pytest.raises(FlowjaxError, match=r"QA 0: it takes \d+ .* beside \d+; there are 99"):
        example(model, entry, order=(0,), length=99)


def test_the_end_of_answers(model):
    assert end_of_answers(model, None) == end_of_answers(model, "</s>") == "</s>"
    with pytest.raises(FlowjaxError, match=r"batch\.end 'x' does not end .*; '</s>' do"):
        end_of_answers(model, "x")


def stream(folder, make, count=5, rows=range(4)):
    entries = [Instructions(f"entry {i}", Path(str(i)), TURNS[:2]) for i in range(count)]
    return Stream(entries, make, batch=4, rows=rows, seed=0, workers=2, folder=folder)


def numbered(entry, order):
    number = np.array([int(entry.video.name)])
    return Instructed(Packed(*[number] * 5), np.asarray(order), np.ones((1, 2), np.float32))


def numbers(batch):
    return batch.packed.ids[:, 0].tolist()


def test_every_epoch_shows_every_entry_once(tmp_path):
    one = stream(tmp_path, numbered)
    shown = [number for step in range(5) for number in numbers(one(step))]
    epochs = [shown[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    again = stream(tmp_path, numbered)(3)
    jax.tree.map(np.testing.assert_array_equal, again, one(3))


def test_processes_share_a_batch(tmp_path):
    whole = stream(tmp_path, numbered)(2)
    parts = [stream(tmp_path, numbered, rows=rows)(2) for rows in (range(2), range(2, 4))]
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    jax.tree.map(np.testing.assert_array_equal, together, whole)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    assert local_rows(mesh, 4) == range(4)


def test_what_cannot_be_used_is_noted_and_replaced(tmp_path):
    def fragile(entry, order):
        if entry.video.name == "3":
            raise FlowjaxError("v.mp4 is damaged")
        return numbered(entry, order)

    one = stream(tmp_path, fragile)
    shown = [number for step in range(5) for number in numbers(one(step))]
    assert set(shown) == {0, 1, 2, 4} and len(shown) == 20
    (line,) = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert json.loads(line) == {"entry": "entry 3", "problem": "v.mp4 is damaged"}


def test_nothing_that_can_be_used(tmp_path):
    def broken(entry, order):
        raise FlowjaxError(f"{entry.name} is damaged")

    with pytest.raises(FlowjaxError, match=r"5 entries in turn cannot be used, .* is damaged"):
        stream(tmp_path, broken)(0)


def test_videos_of_several_shapes(tmp_path):
    def sized(entry, order):
        return numbered(entry, order)._replace(pixel_values=np.ones((1, 1 + len(entry.name) % 2)))

    entries = [Instructions("e" * i, Path(str(i)), TURNS[:2]) for i in range(1, 5)]
    one = Stream(entries, sized, batch=4, rows=range(4), seed=0, workers=1, folder=tmp_path)
    with pytest.raises(FlowjaxError, match=r"give batch\.frame_size"):
        one(0)
