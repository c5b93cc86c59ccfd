"""Some writes of a sweep fail; in `make test-all` every one, and those of other commands."""

import pytest

from tests.faults.harness import COMMANDS, FAULTS, Choice, Found, build, inject


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    found = build(tmp_path_factory.mktemp("shim"))
    if found is None:
        pytest.skip("what fails the system's calls needs Linux and a C compiler")
    return found


def check(found: dict[str, Found], names) -> None:
    assert set(found) == set(names)
    for name, of in found.items():
        assert of.calls > 20 and set(of.tried) == set(FAULTS)
        assert not of.missed and of.absorbed < sum(of.tried.values()), f"{name}: no fault was felt"
        assert not of.problems, "\n".join(of.problems)


def test_some_writes_of_a_sweep(shim, tmp_path):
    check(inject(tmp_path, shim, ["sweep"], Choice(points=1, kills=1)), ["sweep"])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_write(shim, name, tmp_path):
    """Each with every error, or once where there are hundreds."""
    turns = name in ("convert", "make-shapes")
    check(inject(tmp_path, shim, [name], Choice(kills=20, turns=turns)), [name])
