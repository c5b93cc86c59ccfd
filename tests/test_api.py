"""The library as a notebook uses it, on the shipped pair."""

import doctest
import importlib
import inspect
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowjax as fj
from flowjax.api.forward import unedited
from flowjax.data.benchmark import read_benchmark
from flowjax.data.shapes.benchmark import write_benchmark
from flowjax.models.edit import check_site
from flowjax.models.stack import layer_at
from flowjax_convert.run import convert
from flowjax_experiments.shapes import PAIR

MODULES = (
    "flowjax.asked.asked",
    "flowjax.api.forward",
    "flowjax.api.readings",
    "flowjax.api.sweep",
)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """One question about one video."""
    out = tmp_path_factory.mktemp("api") / "shapes"
    write_benchmark(out, split="test", per_task=1, tasks=("moving_direction",))
    return out


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("pair") / "video"
    convert(PAIR / "video", out)
    return fj.load(out, dtype="float32")


def put(model, sample, **options):
    question = sample.question
    return fj.ask(
        model, sample.video, question.stem, question.options, answer=question.answer, **options
    )


@pytest.fixture(scope="session")
def asked(model, shapes):
    return put(model, read_benchmark(shapes)[0])


def test_asked(asked, model):
    assert asked.frames.shape[0] == model.config.frames == len(asked.timestamps)
    assert set(asked.probabilities) == {"A", "B"} and asked.answer == asked.question.answer
    assert sum(asked.probabilities.values()) <= 1 + 1e-6
    unknown = fj.ask(model, asked.sample.video, "What moves?")
    assert unknown.true_id is None and len(unknown.probabilities) == 10
    first = next(iter(unknown.probabilities))
    assert first == unknown.answer
    assert "8 layers" in repr(model) and "parameters" in repr(model) and "float32" in repr(model)
    assert "frame_0" in repr(asked)


def test_html_escapes_what_a_user_wrote(model, asked):
    evil = fj.ask(model, asked.sample.video, "<script>alert(1)</script>", ["<b>x", "y"])
    shown = evil._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "<b>x" not in shown
    assert shown.count("data:image/jpeg;base64,") == 1
    for name in ("system", "question_stem", "option_A", "last"):
        assert f'title="{name}"' in shown


def test_knockout_and_forward_agree(asked):
    cut = fj.knockout(asked, "video->question", layers=range(3, 6))
    whole = fj.forward(asked, knockouts=[cut.knockout])
    np.testing.assert_allclose(cut.logits, whole.logits, rtol=0, atol=1e-4)
    base = max(asked.probabilities.values())
    assert cut.change == pytest.approx((cut.probability - base) * 100 / base, abs=1e-3)
    run = fj.sweep(asked, "video->question", window=3)
    row = run.table.filter(pc_equal(run.table, "centre", 4)).to_pylist()[0]
    assert row["new_probability"] == pytest.approx(cut.probability, abs=1e-5)
    assert row["relative_change"] == pytest.approx(cut.change, abs=1e-2)


def pc_equal(table, column, value):
    import pyarrow.compute as pc

    return pc.equal(table[column], value)


def test_a_forward_without_an_edit_is_compiled_once(asked):
    fj.forward(asked)
    programs = unedited._cache_size()
    fj.forward(asked)
    assert unedited._cache_size() == programs


def test_sweeps_of_several_and_of_a_benchmark(asked, model, shapes):
    one = fj.sweep(asked, "last->last", window=3)
    both = fj.sweep([asked, asked], "last->last", window=3)
    assert len(both) == 2 * len(one) == 2 * model.config.decoder.layers
    of_folder = fj.sweep(shapes, "last->last", window=3, model=model)
    assert of_folder.table["new_probability"] == one.table["new_probability"]
    unknown = fj.ask(model, asked.sample.video, asked.question.stem, asked.question.options)
    row = fj.sweep(unknown, "last->last", window=3).table.to_pylist()[0]
    assert row["true_answer"] == "" and np.isnan(row["new_probability_true"])
    with pytest.raises(fj.FlowjaxError, match="model=: say which model"):
        fj.sweep(shapes, "last->last")
    with pytest.raises(fj.FlowjaxError, match="'vido' does not exist"):
        fj.sweep(asked, "vido->last")


def test_patching_the_reversed_videos_states(asked, model, shapes):
    """Where the direction is: in the frames first, then in the options, then at the last position.

    Every row of the figure is a group, every column a layer.
    """
    other = put(model, read_benchmark(shapes)[0], order="reversed")
    assert other.answer != asked.answer, "the question does not depend on the order of the frames"
    states = fj.forward(other, keep=fj.Keep(hidden=True)).hidden
    frames = [cell for cell in asked.layout.cells if cell.startswith("frame_")]
    groups = [*frames, "question_stem", "options", "last"]
    run = fj.sweep(asked, [fj.Patch(states, group) for group in groups], window=1)
    layers = model.config.decoder.layers
    change = run.table["relative_change"].to_numpy().reshape(len(groups), layers)
    strongest = dict(zip(groups, change.argmin(1), strict=True))
    assert change[groups.index("last"), -1] < -90, "the last position holds the answer at the end"
    assert change[groups.index("options")].min() < -50
    assert strongest["frame_7"] < strongest["options"] < strongest["last"]
    # One patch, by a whole forward.
    edit = fj.Patch(states, "options", (4,))
    logits = fj.forward(asked, edit=edit).logits
    new = float(jax.nn.softmax(logits)[asked.logits.argmax()])
    row = groups.index("options") * layers + 4
    assert run.table["new_probability"][row].as_py() == pytest.approx(new, abs=1e-5)
    figure = run.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        f"residual:{group}".replace("_", " ") for group in groups
    ]


def test_edits_as_the_issue_writes_them(asked, model, shapes):
    clean = fj.forward(asked, keep=fj.Keep(hidden=True, sources=True, outputs=("mlp",)))
    other = put(model, read_benchmark(shapes)[0], order="reversed")
    rows = asked.layout.positions("video")
    patched = fj.forward(
        other,
        edit=lambda layer, x: jnp.where(layer == 2, x.at[rows].set(clean.hidden[2, rows]), x),
    )
    assert patched.answer == asked.answer != other.answer
    layers, n, width = clean.hidden.shape
    assert (layers, n) == (model.config.decoder.layers, asked.layout.length)
    assert clean.outputs["mlp"].shape == (layers, n, width)
    second, config = layer_at(asked.decoder.layers, 1), model.config.decoder
    value = second.value(second.attention_norm(clean.hidden[0]))
    value = value.reshape(n, config.kv_heads, config.head_dim)
    np.testing.assert_allclose(clean.sources.value[1], value, atol=1e-5)
    assert clean.sources.key.shape == clean.sources.value.shape
    np.testing.assert_array_equal(clean.sources.position[1], np.arange(n))
    slope = jax.grad(lambda v: fj.forward(asked, edit=lambda layer, x: x + v).logits[0])
    assert np.abs(slope(jnp.zeros(width))).max() > 0
    with pytest.raises(fj.FlowjaxError, match=r"it must be that of the values"):
        fj.forward(asked, edit=lambda layer, x: x[:1])
    with pytest.raises(fj.FlowjaxError, match="at='head'"):
        check_site("head")


def test_readings(asked, model):
    lens = fj.logit_lens(asked, at="last", k=3)
    final = lens.table.to_pylist()[-1]
    assert final["tokens"][0] == asked.answer
    assert final["probability"][0] == pytest.approx(max(asked.probabilities.values()), abs=1e-4)
    seen = fj.attention(asked, target="last")
    total = seen.weights.sum(-1)
    np.testing.assert_allclose(total, np.ones_like(total), atol=1e-5)
    assert len(seen) == total.size * len(asked.layout.cells)
    text = fj.generate(asked, max_new_tokens=3)
    assert model.tokenizer.decode([text.tokens[0]]).strip() == asked.answer


def test_tables(asked):
    run = fj.sweep(asked, ["cross-frame", "video->question"], window=3)
    assert len(run) == 2 * asked.decoder.config.layers
    assert "video-&gt;question" in run._repr_html_()
    assert len(run.plot().axes) == 2
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(fj.FlowjaxError, match="pip install pandas"):
            run.to_pandas()
    else:
        assert len(run.to_pandas()) == len(run)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_docstrings(name, model, asked):
    module = importlib.import_module(name)
    names = {"fj": fj, "model": model, "asked": asked, "clip": asked.sample.video, "jnp": jnp}
    tests = [
        test
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs=names)
        if test.examples
    ]
    assert tests
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_help_reads_well():
    text = inspect.getdoc(fj.ask)
    assert text is not None and text.splitlines()[0].endswith("nothing runs on it yet.")
    for part in ("Args:", "Returns:", "Raises:", "Examples:"):
        assert part in text
    for name in fj.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(fj, name)), name


CHILD = """
import importlib, json, os, sys, warnings
import jax, flax.nnx, orbax.checkpoint, tensorflow_datasets  # once, for all that follow
warnings.simplefilter("ignore")
for order in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        assert not any(name.partition(".")[0] == "flowjax" for name in sys.modules)
        import flowjax
        for name in [*order, *order]:
            value = getattr(flowjax, name)
            assert type(value).__name__ != "module", name
            assert value is getattr(importlib.import_module("flowjax"), name), name
        exec(f"from flowjax import {', '.join(order)}")
        assert all(eval(name) is getattr(flowjax, name) for name in order)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"failed in the order {order}")
print("ok")
"""


def test_names_in_fresh_processes_in_any_order():
    """Each name first, then all in both orders, twice: none turns into a module of its name."""
    names = list(fj.__all__)
    orders = [[name] for name in names] + [names, names[::-1]]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(orders)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "ok", done.stderr
