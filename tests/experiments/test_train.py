"""`flowjax train` with the configuration of docs/training.md, cut short, on the shipped model."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from flowjax.asked.asked import ask
from flowjax.data.shapes.benchmark import write_benchmark
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model, read_manifest
from flowjax_convert.export import export
from flowjax_convert.run import convert
from flowjax_experiments.shapes import PAIR
from flowjax_experiments.train import run
from tests.hosts.pod import finish, start

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
TASKS = ("moving_direction", "object_count")
CUT = {"steps = 1000": "steps = 4", "warmup = 200": "warmup = 1", "peak = 2e-5": "peak = 1e-3",
       "save_every = 500": "save_every = 2", "log_every = 10": "log_every = 1",
       "every = 500": "every = 4", "limit = 20": "limit = 1", "rank = 128": "rank = 4",
       "size = 8": "size = 2"}  # fmt: skip


def configuration():
    (text,) = re.findall(r"```toml\n(.*?)```", DOCUMENTED, re.DOTALL)
    for before, after in CUT.items():
        assert before in text
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("training")
    convert(PAIR / "video", root / "models" / "start", dtype="float32")
    write_benchmark(root / "data" / "train", split="train", per_task=2, tasks=TASKS)
    write_benchmark(root / "data" / "test", split="test", per_task=1, tasks=TASKS)
    (root / "data" / "videos").symlink_to(root / "data" / "train" / "video")
    entries = [
        {
            "video": f"{task}/{entry['video']}",
            "QA": [{"q": entry["question"], "a": entry["answer"]}],
        }
        for task in TASKS
        for entry in json.loads((root / "data/train/json" / f"{task}.json").read_text())
    ]
    (root / "data" / "it.json").write_text(json.dumps(entries))
    return root


def trained(folder, name, change=lambda text: text, **options):
    text = change(configuration()).replace("runs/tuned", name)
    (folder / f"{name}.toml").write_text(text)
    return run(folder / f"{name}.toml", **options)


def parameters(path):
    return nnx.to_pure_dict(nnx.state(load_model(path).model))


def log(path):
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def lora(folder):
    return trained(folder, "lora")


def test_the_documented_configuration_trains_lora(folder, lora):
    lines = log(folder / "lora")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert set(lines[-1]) == {"step", "accuracy", *(f"accuracy/{task}" for task in TASKS)}
    before, after = parameters(folder / "models" / "start"), parameters(lora)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    layers = changed["decoder"]["layers"]
    assert layers["query"]["kernel"] and layers["value"]["kernel"]
    assert not layers["key"]["kernel"] and not changed["decoder"]["embedding"]["embedding"]
    assert all(jax.tree.leaves(changed["projector"]))
    assert not any(jax.tree.leaves(changed["vision"]))
    manifest = read_manifest(lora)
    assert (manifest.name, manifest.note) == ("lora", "tuned on shapes")
    assert manifest.dtype == read_manifest(folder / "models" / "start").dtype


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_alike(folder, lora):
    assert trained(folder, "again", stop_at=3) is None
    resumed = trained(folder, "again")
    assert log(folder / "again") == log(folder / "lora")
    jax.tree.map(np.testing.assert_array_equal, parameters(resumed), parameters(lora))


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_one_goes_on(folder):
    """Parameters divided over both axes of four devices; evaluated on the way."""

    def change(text):
        text = text.replace("every = 4", "every = 2").replace("size = 2", "size = 4")
        return text.replace('compute = "bfloat16"', 'compute = "float32"')

    whole = trained(folder, "whole", change)
    shared = 'mesh = "data=2,model=2"'
    text = shared + "\n" + change(configuration()).replace("runs/tuned", "shared")
    (folder / "shared.toml").write_text(text)
    for ended in finish(start(2, "train", folder / "shared.toml", "--stop-at", 3, devices=2)):
        assert ended.code == 0, ended.err
    assert [line["step"] for line in log(folder / "shared")] == [1, 2, 2, 3]
    (folder / "shared.toml").write_text(text.removeprefix(shared))
    finished = run(folder / "shared.toml")
    assert finished is not None and whole is not None
    for ours, theirs in zip(log(folder / "shared"), log(folder / "whole"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4),
        parameters(finished),
        parameters(whole),
    )


@pytest.mark.slow
def test_merged_exported_and_as_an_adapter_it_is_one_model(folder):
    text = 'frozen = ["vision", "projector"]'
    made = trained(folder, "updates", lambda old: old.replace('frozen = ["vision"]', text))
    assert made is not None
    export(made, folder / "exported", like=PAIR / "video")
    convert(folder / "exported", folder / "back")
    adapter = folder / "updates" / "adapter"
    convert(PAIR / "video", folder / "adapted", adapter=adapter, dtype="float32")
    one, two, three = (parameters(path) for path in (made, folder / "back", folder / "adapted"))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), one, three)
    video = folder / "data" / "videos" / TASKS[0] / "0000.mp4"
    start, *others = (
        ask(load_model(path), video, "What?", ["left", "right"]).logits
        for path in (folder / "models" / "start", made, folder / "back", folder / "adapted")
    )
    for logits in others:
        np.testing.assert_allclose(logits, others[0], rtol=0, atol=1e-4)
        assert np.abs(logits - start).max() > 1e-2


def test_other_settings_are_refused_in_a_run_s_folder(folder, lora):
    with pytest.raises(FlowjaxError, match=r"lora has a run with seed 0, not 1; choose"):
        trained(folder, "lora", lambda text: text.replace("seed = 0", "seed = 1"))
    same = trained(folder, "lora", lambda text: text.replace("remat = true", "remat = false"))
    assert same == lora


@pytest.mark.parametrize(
    "before, after, said",
    [
        ('"vision"', '"decoder"', "frozen 'decoder' holds what lora trains"),
        ('"vision"', '"tower"', "frozen 'tower': no parameter is under it"),
        ("size = 2", 'size = 2\nend = "x"', r"batch\.end 'x' does not end"),
        ("size = 2", "size = 2\nframes = 0", "frames is 0; give more than 0"),
        ("length = 320", "length = 100", "4 entries in turn cannot be used"),
        ("data/it.json", "data/none.json", r"none\.json is missing"),
    ],
)
def test_what_does_not_serve_is_named(folder, before, after, said):
    with pytest.raises(FlowjaxError, match=said):
        trained(folder, "refused", lambda text: text.replace(before, after))
