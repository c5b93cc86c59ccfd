import pyarrow as pa

from flowjax.runs.finished import Run
from flowjax.runs.store import FAILURES
from flowjax_experiments.sweep import Sweep
from tests.report.tables import sweep_table

EDGES = ["question_stem[10]->last", "question_stem[2]->last", "option_A[0]->question_stem[3]"]


def a_run(tmp_path, edges):
    table = sweep_table({"custom": edges}, lambda edge, s, layer: len(edge) + layer, samples=2)
    index = table.schema.names.index("token")
    texts = pa.array([f"<{edge}>" for edge in table["edge"].to_pylist()])
    table = table.set_column(index, table.schema.field("token"), texts)
    return Run(tmp_path, table, {}, FAILURES.empty_table())


def test_single_tokens_that_were_cut(tmp_path):
    run = a_run(tmp_path, [*EDGES, "video->last"])
    one = Sweep.on_sample(run, "s1")
    stem, option = one.tokens
    assert (stem.label, list(stem.texts)) == (
        "question stem \N{RIGHTWARDS ARROW} last",
        [f"<{EDGES[1]}>", f"<{EDGES[0]}>"],
    )
    assert list(stem.layer) == [1, 2, 3, 4, 5]
    assert stem.change.tolist() == [[22.0 + i for i in range(5)], [23.0 + i for i in range(5)]]
    assert len(option.texts) == 1
    assert Sweep.on_sample(run, "s9") is None
    edges = Sweep.sections([run])[1].parts[0].data["edges"]
    assert [edge["name"] for edge in edges] == ["video \N{RIGHTWARDS ARROW} last"]


def test_tokens_alone_have_no_map(tmp_path):
    assert Sweep.sections([a_run(tmp_path, EDGES)]) == []
    assert Sweep.on_sample(a_run(tmp_path, ["video->last"]), "s1") is None
