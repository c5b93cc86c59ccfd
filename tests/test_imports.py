"""Nothing in the library imports what stands on it, but for the command line."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UPWARD = ("flowjax_convert", "flowjax_experiments", "flowjax_benchmarks", "tests")
ABOVE = {
    "flowjax": UPWARD,
    "convert/flowjax_convert": UPWARD[1:],
    "experiments/flowjax_experiments": UPWARD[2:],
    "benchmarks/flowjax_benchmarks": UPWARD[3:],
}
"""What each package must not import."""


def imported(code: str) -> Iterator[str]:
    """Every module that code imports anywhere, or names in a call that imports by name."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield node.module or ""
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in ("import_module", "__import__", "find_spec"):
                texts = [part for part in ast.walk(node) if isinstance(part, ast.Constant)]
                yield from (text.value for text in texts if isinstance(text.value, str))


def test_every_form_of_import_is_read():
    code = """
import a.b, c
def f():
    from d.e import g
    import_module("h.i")
    importlib.import_module(f"j.{name}")
"""
    assert set(imported(code)) == {"a.b", "c", "d.e", "h.i", "j."}


@pytest.mark.parametrize("package", ABOVE)
def test_nothing_imports_upward(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 5
    for file in files:
        if file.is_relative_to(ROOT / "flowjax" / "cli"):
            continue
        for name in imported(file.read_text(encoding="utf-8")):
            assert name.split(".")[0] not in ABOVE[package], f"{file} imports {name}"


def test_the_rooms_of_the_library_are_in_an_order():
    """None imports another that imports it back, directly or through others."""
    below: dict[str, set[str]] = {}
    for file in sorted((ROOT / "flowjax").rglob("*.py")):
        room = file.relative_to(ROOT / "flowjax").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        parts = [name.split(".") for name in imported(file.read_text(encoding="utf-8"))]
        used = {part[1] for part in parts if part[0] == "flowjax" and len(part) > 1}
        below.setdefault(room, set()).update(used - {room})
    tuple(TopologicalSorter(below).static_order())  # raises CycleError, which names them
