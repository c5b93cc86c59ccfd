import json

import pytest

from flowjax.errors import FlowjaxError
from flowjax_benchmarks import prefill
from flowjax_benchmarks.sweep import decoder_config


def test_a_small_shape(tmp_path, monkeypatch, capsys):
    tiny = prefill.Shape(decoder_config(4, 32, 2, 48), "float32", (2,), tokens_per_frame=16)
    monkeypatch.setitem(prefill.SHAPES, "tiny", tiny)
    path = tmp_path / "prefill.json"
    prefill.run("tiny", json=path, rounds=1)
    result = json.loads(path.read_text())
    (prompt,) = result["prompts"]
    assert prompt["positions"] == 2 * 16 + 120
    assert result["command"].startswith("flowjax bench prefill --shape tiny --json")
    for form in (prompt, prompt["paper"]):
        assert form["largest_difference_of_logits"] < 1e-4
        assert 0 < form["kv_cache_fraction"] < form["kept_edges"] < 1
        assert 0 < form["kept_blocks"] <= 1 and form["ratio_full_over_compiled"] > 0
    assert prompt["kv_cache_fraction"] < prompt["paper"]["kv_cache_fraction"]
    assert set(prompt["seconds"]) == set(prompt["memory_bytes_beside_parameters"])
    assert "strict  ratio_full_over_compiled" in capsys.readouterr().out


def test_an_unknown_shape():
    with pytest.raises(FlowjaxError, match="--shape '70b': choose one of small, 7b"):
        prefill.run("70b", json=None)
