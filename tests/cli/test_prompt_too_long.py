"""A prompt longer than its model knows is a warning that every row carries."""

import shutil

import pyarrow.parquet as pq

from tests.convert.checkpoints import edit_json
from tests.random_checkpoint import NOTE


def test_every_row_carries_the_warning_and_it_is_printed_once(flowjax, asked, model, tmp_path):
    short = shutil.copytree(model, tmp_path / "model")

    def limit(fields):
        fields["text_config"]["max_position_embeddings"] = 40

    edit_json(short / "config.json", limit)
    said = "there are prompts longer than the 40 positions that the model was made for"
    options = ["--window", 3, "--edges", "cross-frame", "--out"]
    assert flowjax("sweep", short, *asked[2:], *options, tmp_path / "run").code == 0
    rows = pq.read_table(tmp_path / "run" / "results.parquet")
    assert rows["model_note"].unique().to_pylist() == [f"{NOTE}; {said}"]
    for command in (["figures", tmp_path / "run"], ["evaluate", short, *asked[2:]]):
        result = flowjax(*command)
        assert result.code == 0 and result.out.count(said) == 1
    assert said not in flowjax("evaluate", *asked[1:]).out
