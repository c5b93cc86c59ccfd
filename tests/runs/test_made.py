import json
import sys

from flowjax.runs.made import MADE, Session, command, read_sessions
from flowjax.sweeps.plan import Flops


def test_sessions_are_added(tmp_path):
    Session().keep(tmp_path)
    assert not list(tmp_path.iterdir()), "nothing was measured"
    for samples in (1, 2):
        session = Session()
        for _ in range(samples):
            session.add(Flops(100, 5, 20, 10, 5))
        session.add(None)
        session.keep(tmp_path)
    first, second = read_sessions(tmp_path)
    assert (first["samples"], second["samples"]) == (2, 3)
    assert second["flops"] == {"naive": 200.0, "planned": 40.0}
    assert second["hardware"]["cores"] >= 1 and second["versions"]["jax"]


def test_another_file_is_no_record(tmp_path):
    for text in ("no json", "{}", "[3]"):
        (tmp_path / MADE).write_text(text)
        assert read_sessions(tmp_path) == []
    session = Session(samples=1)
    session.keep(tmp_path)
    assert len(json.loads((tmp_path / MADE).read_text())) == 1


def test_only_our_commands_are_kept(monkeypatch):
    for program in ("/usr/bin/flowjax", "/x/flowjax/cli/__main__.py"):
        monkeypatch.setattr(sys, "argv", [program, "sweep", "a b", "caf\udce9"])
        assert command() == "flowjax sweep 'a b' 'caf\\xe9'"
    monkeypatch.setattr(sys, "argv", ["/x/pytest/__main__.py", "flowjax"])
    assert command() == ""
