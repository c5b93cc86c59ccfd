"""Pages made of results by hand, with every kind of part."""

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from flowjax.report.page import flow, sample
from flowjax.report.page.page import Page, make_page
from flowjax.report.page.section import Folded, Picture, Section
from flowjax.report.table import Table
from flowjax.sweeps.rows import SCHEMA
from tests.report.tables import sweep_table

EDGES = {
    "cross-frame": ["cross_frame"],
    "vql-to-ql": ["video->question", "video->last", "question->last", "last->last"],
    "vq-to-true-opt": ["video->true_option"],
}


def changes(edge: str, at: int, layer: int) -> float:
    noise = 2 * np.sin(7.0 * at + layer)
    if edge == "question->last" and layer > 2:
        return -80 + noise
    if edge == "video->question" and 1 <= layer <= 2:
        return -30 + noise
    return 40 + noise if (edge, layer) == ("video->true_option", 4) else noise


def renamed(table: pa.Table, column: str, values: list[str]) -> pa.Table:
    index = SCHEMA.names.index(column)
    return table.set_column(index, SCHEMA.field(column), pa.array(values))


def swept(model: str, scale: float, tasks=("moving_direction", "object_count")) -> pa.Table:
    tables = []
    for number, task in enumerate(tasks):
        table = sweep_table(
            EDGES, lambda *at: scale * changes(*at), samples=max(2, 8 - 3 * number), model=model
        )
        ids = [f"{task}/{name}" for name in table["sample_id"].to_pylist()]
        table = renamed(table, "sample_id", ids)
        tables.append(renamed(table, "task", [task] * table.num_rows))
    return pa.concat_tables(tables)


def one_sample(text: str = "right", model: str = "video") -> sample.OnSample:
    rng = np.random.default_rng(0)
    shape = (5, 4, 3, 3)
    frames = rng.integers(0, 255, (4, 48, 64, 3), np.uint8)
    words = sample.WordsRead(
        ["left", text, " "], rng.integers(0, 3, (*shape, 3)), rng.random((*shape, 3))
    )
    attention = [
        sample.AttentionSeen("last, mean over heads", "", rng.random(shape)),
        sample.AttentionSeen("last, mean over heads", "video > question in layers 1-5",
                             rng.random(shape)),
    ]  # fmt: skip
    cut = sample.TokensCut(
        "stem > last", ["Which", text, "?"], [1, 3, 5], 20 - 50 * rng.random((3, 3))
    )
    letters = [chr(ord("A") + index) for index in range(26)]
    options = sample.OptionsRead(letters, rng.dirichlet(np.ones(26), 5))
    return sample.OnSample(
        model, f"{text}/0", text, f"USER: {text}?\nOptions:\n(A) {text}", "A", "B",
        frames, words, attention, [cut], options,
    )  # fmt: skip


def a_page() -> Page:
    sweeps = [flow.Swept("video", swept("video", 1.0)), flow.Swept("image", swept("image", 0.2))]
    sections = [*flow.sections(sweeps), sample.section([one_sample()])]
    figure = Figure()
    figure.subplots().plot([1, 2])
    table = Table("Accuracy", ["task"], ["n"], [["direction", "12"]], "a note")
    parts = ["Some text.", table, Picture.of(figure, "a line"), Folded("more", [table])]
    return make_page("Information flow", [*sections, Section("more", "More", "Lead.", parts)])


HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"'><svg onload=document.title='owned'>",
    "javascript:document.title='owned'",
    "</script><script>document.title='owned'</script>",
    "{{ 7*7 }}{% for x in y %}",
    "w" * 500,
    "\u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627\u202c",
    "&lt;b&gt; \u2028 \x00 \ud800",
)


def hostile_page() -> Page:
    written = HOSTILE[:-1]  # what a table of results can hold
    sweeps = [flow.Swept(text, swept(f"m{i}", 1.0, written)) for i, text in enumerate(HOSTILE[:3])]
    samples = [one_sample(text, model=text) for text in HOSTILE]
    tables = [Table(text, [text], [text], [[text, text]], text) for text in HOSTILE]
    parts = [*HOSTILE, *tables, *(Folded(text, [text]) for text in HOSTILE)]
    more = Section("more", HOSTILE[1], HOSTILE[4], parts)
    return make_page(HOSTILE[0], [*flow.sections(sweeps), sample.section(samples), more], HOSTILE)
