"""What `docs/findings.md` says of cheaper prefills is in the rows beside it."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flowjax.efficiency.front import Costed, at_level
from flowjax.efficiency.method import methods

DOCS = Path(__file__).parents[2] / "docs"
COLUMNS = [("video", 0.75), ("video", 0.5), ("image", 0.75), ("image", 0.5)]
SLOW = [pytest.param(column, marks=pytest.mark.slow) for column in (1, 2)]


def costed(model: str) -> list[Costed]:
    rows = pq.read_table(DOCS / "findings" / f"efficiency-{model}.parquet")
    found = dict.fromkeys(zip(rows["method"].to_pylist(), rows["setting"].to_pylist(), strict=True))
    return [
        Costed.of(
            *key, rows.filter((pc.field("method") == key[0]) & (pc.field("setting") == key[1]))
        )
        for key in found
    ]


@pytest.mark.parametrize("column", [0, *SLOW, 3])
def test_every_method_at_a_share_of_the_flops(column):
    model, share = COLUMNS[column]
    settings = costed(model)
    assert all(len(at.right) == 300 for at in settings)
    text = (DOCS / "findings.md").read_text()
    text = text[text.index("## What cheaper prefills still answer") :]
    cells = {}
    for line in text[: text.index("\n- **")].splitlines():
        if line.startswith("| ") and not line.startswith("| -"):
            name, *values = (cell.strip() for cell in line.strip("|").split("|"))
            cells[name] = values[column]
    titles = {method.title: name for name, method in methods().items()}
    level = {at.method: at for at in at_level(settings, share).of}
    assert float(cells.pop("all edges (100%)")) == round(settings[0].accuracy.mean, 3)
    assert set(cells) - {""} == {
        title for title, name in titles.items() if name not in ("full", "random_edges")
    }
    for title, said in cells.items():
        if title not in titles:
            continue
        at = level.get(titles[title])
        if at is None:
            assert said == "not so cheap"
            continue
        expected = f"{at.accuracy.mean:.3f}"
        if at.behind is not None and at.behind.p < 0.05:
            expected += f" ({at.behind.mean:+.3f} [{at.behind.low:.3f}, {at.behind.high:.3f}])"
        assert said == expected, title
