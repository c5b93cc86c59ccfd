"""The documents that `make docs` builds into a site."""

import re
from pathlib import Path

from tests.runs.test_analysis import NAMES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_every_document_is_in_the_navigation():
    listed = set(re.findall(r": ([\w-]+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert listed == {path.name for path in DOCS.iterdir() if path.suffix in (".md", ".ipynb")}


def test_every_analysis_is_shown_with_one_figure():
    text = (DOCS / "analyses.md").read_text()
    said = r"^`flowjax ([a-z ]+?)(?: A B)?`.*?\n\n!\[[^\]]+\]\(([^)]+)\)"
    shown = re.findall(said, text, re.M | re.S)
    assert {name for name, _ in shown} == NAMES - {"evaluate"}
    for _, image in shown:
        assert (DOCS / image).is_file()


def test_pictures_and_documents_that_are_linked_exist():
    for path in [*DOCS.glob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links {target}"
