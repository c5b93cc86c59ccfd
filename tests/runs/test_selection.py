"""A random subset of a benchmark's questions."""

from pathlib import Path

import pytest

from flowjax.data.entry import Entry
from flowjax.data.samples import Kept, Part, Row, Samples
from flowjax.errors import FlowjaxError
from flowjax.runs.selection import Selection

DATA = Path("bench")


@pytest.fixture
def benchmark(monkeypatch):
    def read(folder, tasks, limit):
        assert folder == DATA and limit is None
        rows = [
            Row(f"{task}/{index}", Entry(task, "Where?", ("up", "down"), "A", "v.mp4"))
            for task in tasks or ("a", "b")
            for index in range(40)
        ]
        return Samples.of([Part(folder, folder / "questions.csv", "questions", Kept.of(rows))])

    monkeypatch.setattr("flowjax.data.benchmark.read_benchmark", read)


def drawn(**options) -> list[str]:
    return [sample.sample_id for sample in Selection(data=DATA, **options).read()]


def test_the_seed_decides_and_the_order_stays(benchmark):
    some = drawn(sample_size=7, seed=3)
    assert some == drawn(sample_size=7, seed=3)
    assert some != drawn(sample_size=7, seed=4)
    assert drawn(sample_size=7) == drawn(sample_size=7, seed=0)
    assert [name[0] for name in some] == ["a"] * 7 + ["b"] * 7
    assert some[:7] != [f"a/{index}" for index in range(7)]
    order = drawn()
    assert sorted(some, key=order.index) == some


def test_a_tasks_subset_does_not_depend_on_other_tasks(benchmark):
    both = drawn(sample_size=5, seed=1)
    assert drawn(sample_size=5, seed=1, tasks=("b",)) == both[5:]
    assert [name[2:] for name in both[:5]] != [name[2:] for name in both[5:]]


def test_a_task_with_fewer_is_asked_whole(benchmark):
    assert drawn(sample_size=99) == drawn()


def test_it_is_in_the_manifest_only_where_it_is_asked_for():
    assert Selection(data=DATA).settings == {}
    assert Selection(data=DATA, sample_size=4).settings == {"sample_size": 4, "seed": 0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sample_size": 0}, "--sample-size 0"),
        ({"sample_size": 3, "limit": 2}, "no --limit"),
        ({"seed": 3}, "--seed 3: of --sample-size"),
        ({"sample_size": 3, "seed": -1}, "--seed -1"),
    ],
)
def test_bad_subsets_are_refused(options, words):
    with pytest.raises(FlowjaxError, match=words):
        Selection(data=DATA, **options)
