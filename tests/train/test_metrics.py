"""The log of a run, and event files for TensorBoard."""

import importlib
import importlib.util
import json

import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax.train import metrics
from flowjax.train.metrics import Metrics

LOSS = {"loss": np.array(1.25, np.float32)}


def steps(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_what_comes_again_is_dropped(tmp_path):
    log = Metrics(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(step, LOSS)
    log.write(3, {"accuracy": 0.5})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')  # killed while it wrote
    Metrics(tmp_path, 2).write(3, LOSS)
    assert steps(tmp_path) == [1, 2, 3]


def test_without_a_writer_event_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        FlowjaxError, match=r"tensorboardX; install flowjax-videollm\[tensorboard\]"
    ):
        Metrics(tmp_path, 0, tensorboard=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    importlib.util.find_spec(metrics.TENSORBOARD) is None,
    reason="tensorboardX, of the extra `tensorboard`, is not installed",
)
def test_event_files_hold_what_is_logged(tmp_path):
    event_of = importlib.import_module("tensorboardX.proto.event_pb2").Event.FromString

    log = Metrics(tmp_path, 0, tensorboard=True)
    for step in (1, 2):
        log.write(step, LOSS)
    log.close()
    (path,) = tmp_path.glob("events.*")
    content, events = path.read_bytes(), []
    while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(content[:8], "little")
        events.append(event_of(content[12 : 12 + size]))
        content = content[16 + size :]
    found = [
        (event.step, value.tag, value.simple_value)
        for event in events
        for value in event.summary.value
    ]
    assert found == [(1, "loss", 1.25), (2, "loss", 1.25)]
