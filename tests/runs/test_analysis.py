"""Every analysis as the runner, the command line and manifests see it."""

import dataclasses
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_origin

import pytest

from flowjax.cli.analyses import command_of, find_analyses
from flowjax.errors import FlowjaxError
from flowjax.runs.analysis import Analysis, Option
from flowjax.runs.columns import schema
from flowjax_experiments.sweep import fitted

NAMES = {
    "adaptive",
    "anchor",
    "attention",
    "compare",
    "diagnose",
    "efficiency",
    "evaluate",
    "exit",
    "lens",
    "pathways evaluate",
    "pathways find",
    "probability",
    "screen",
    "sweep",
}


def test_analyses_are_found_by_their_files():
    assert set(find_analyses()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_one_name_everywhere_and_everything_explained(name):
    found = find_analyses()[name]
    analysis = found.load()
    assert analysis.name() == name
    assert inspect.getdoc(analysis).startswith(found.help)
    assert all(field.metadata[b"doc"] for field in analysis.SCHEMA)
    options = analysis.options()
    assert [option.name for option in options] == [f.name for f in dataclasses.fields(analysis)]
    flags = [option.flag for option in options]
    assert len(set(flags)) == len(flags)
    for option in options:
        assert len(option.option.help) > 10
        if get_origin(option.kind) is tuple:
            assert option.default == ()
    parameters = inspect.signature(command_of(analysis)).parameters
    assert set(parameters) >= {"model", "data", "out", "overwrite", *(o.name for o in options)}
    given = {o.name: Path("x") for o in options if o.default is dataclasses.MISSING}
    assert json.dumps(analysis(**given).settings())


@dataclass(frozen=True)
class Small(Analysis):
    """An analysis that does nothing."""

    SCHEMA = schema()

    count: Annotated[int, Option("How many.", least=1, most=9)] = 1
    layers: Annotated[tuple[int, ...], Option("A layer.", "--layer", least=0)] = ()
    kind: Annotated[Literal["a", "b"] | None, Option("Which.")] = None
    drawn: Annotated[int, Option("Decides nothing.", decides=False)] = 3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"count": 0}, "--count 0: give 1 to 9"),
        ({"count": 10}, "--count 10: give 1 to 9"),
        ({"layers": (3, -1)}, "--layer -1: give at least 0"),
        ({"kind": "c"}, "--kind 'c': choose a or b"),
    ],
)
def test_bad_options_are_named(wrong, words):
    with pytest.raises(FlowjaxError) as raised:
        Small(**wrong)
    assert str(raised.value) == words


def test_settings_are_what_decides_the_rows():
    assert Small(kind="a", layers=(1,)).settings() == {"count": 1, "layers": (1,), "kind": "a"}


@pytest.mark.parametrize(
    ("layers", "width"), [(1, 1), (4, 1), (6, 3), (8, 3), (12, 5), (17, 7), (18, 9), (32, 9)]
)
def test_a_window_fits_the_depth_and_says_so(layers, width, capsys):
    assert fitted(None, layers) == width
    said = capsys.readouterr().err
    assert (f"windows of {width} layers" in said) == (width != 9)
    assert fitted(1, layers) == 1
    assert not capsys.readouterr().err
    with pytest.raises(FlowjaxError, match=f"only {layers} layers"):
        fitted(layers + 1, layers)
