"""Training at `gs://`: checkpoints, the log and the model, in a store without rename or append."""

import json

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.path import gcs_utils

from flowjax.errors import FlowjaxError
from flowjax.paths import as_path
from flowjax.train.metrics import Metrics
from tests.runs.object_store import object_store, served
from tests.train import test_loop


@pytest.fixture
def store(monkeypatch):
    """Buckets of it have no folders, which Orbax asks Google about."""
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    with object_store() as found, served():
        yield found


def test_a_run_in_a_store_goes_on_exactly(store, tmp_path):
    folder = as_path("gs://bucket/training")
    test_loop.run(folder, stop_at=7)  # saved after 5
    assert [line["step"] for line in lines(store)] == list(range(1, 8))
    resumed = test_loop.run(folder)
    whole = test_loop.run(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert lines(store) == test_loop.log(tmp_path / "whole")


def lines(store):
    text = store.objects["bucket/training/log.jsonl"].decode()
    return [json.loads(line) for line in text.splitlines()]


def test_event_files_cannot_grow_in_a_store(store):
    with pytest.raises(FlowjaxError, match="tensorboard: event files grow, and objects at gs://"):
        Metrics(as_path("gs://bucket/run"), 0, tensorboard=True)
