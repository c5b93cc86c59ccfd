"""Tables that other families need: shared rows, odd layouts, and tables that are wrong."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax.models.registry import families
from flowjax_convert.mapping import (
    Ignored,
    Rule,
    TensorTable,
    Tied,
    family_tables,
    flat,
    transposed,
)
from flowjax_convert.plan import arranged, make_plan
from flowjax_convert.safetensors_file import TensorHeader

QUERY, KEY, VALUE = (f"layers/{name}/kernel" for name in ("query", "key", "value"))
FUSED = "l.{layer}.qkv"
SHAPES = {QUERY: (2, 6, 4), KEY: (2, 6, 2), VALUE: (2, 6, 2)}
RULES = (
    Rule(FUSED, QUERY, transposed, rows=(0, 4)),
    Rule(FUSED, KEY, transposed, rows=(4, 6)),
    Rule(FUSED, VALUE, transposed, rows=(6, 8)),
)


@dataclass
class Arrays:
    """A source in memory."""

    arrays: dict
    released: list = field(default_factory=list)

    @property
    def headers(self):
        names = {np.dtype(np.float32): "F32", np.dtype(np.int8): "I8"}
        return {
            key: TensorHeader(Path("file"), names[array.dtype], array.shape, 0, array.nbytes)
            for key, array in self.arrays.items()
        }

    def tensor(self, key):
        return self.arrays[key]

    def release(self, key):
        self.released.append(key)


def fused(rows=8):
    return {
        f"l.{layer}.qkv": np.arange(rows * 6, dtype=np.float32).reshape(rows, 6) + 100 * layer
        for layer in range(2)
    }


def test_rows_of_a_fused_projection():
    source = Arrays(fused())
    plan = make_plan(source, TensorTable(RULES), SHAPES, None)
    values = {p.path: np.stack([p.values(source, i) for i in range(2)]) for p in plan.parameters}
    assert {path: value.shape for path, value in values.items()} == SHAPES
    np.testing.assert_array_equal(values[KEY][1], source.arrays["l.1.qkv"][4:6].T)
    np.testing.assert_array_equal(
        np.concatenate(list(values.values()), -1)[0], fused()["l.0.qkv"].T
    )
    assert plan.count == 2 * 6 * 8 and plan.bytes == 4 * plan.count
    assert not plan.ignored


@pytest.mark.parametrize("rows", [(4, 6), (0, 2), (5, 7), (3, 5)])
def test_rows_that_overlap_or_are_left(rows):
    rules = (*RULES[:2], Rule(FUSED, VALUE, transposed, rows=rows))
    with pytest.raises(FlowjaxError, match=r"key l\.0\.qkv has 8 rows"):
        make_plan(Arrays(fused()), TensorTable(rules), SHAPES, None)


def test_more_or_fewer_rows_than_the_rules_take():
    with pytest.raises(FlowjaxError, match=r"key l\.0\.qkv has 9 rows"):
        make_plan(Arrays(fused(9)), TensorTable(RULES), SHAPES, None)
    with pytest.raises(FlowjaxError, match=r"l\.0\.qkv has shape \[7, 6\], which does not fit"):
        make_plan(Arrays(fused(7)), TensorTable(RULES), SHAPES, None)


@pytest.mark.parametrize(
    "rules, message",
    [
        (RULES[:2], f"parameter {VALUE} is filled by 0 rules"),
        ((*RULES, Rule("other", VALUE)), "key other is missing"),
        ((*RULES, Rule("other", "layers/other")), "the model has no parameter layers/other"),
    ],
)
def test_a_table_that_does_not_fit_the_module(rules, message):
    with pytest.raises(FlowjaxError, match=message):
        make_plan(Arrays(fused()), TensorTable(rules), SHAPES, None)


def test_a_class_token_of_three_axes():
    source = Arrays({"class": np.ones((1, 1, 5), np.float32)})
    plan = make_plan(source, TensorTable((Rule("class", "x", flat),)), {"x": (5,)}, None)
    assert plan.parameters[0].values(source, 0).shape == (5,)


def test_layers_beyond_the_module_s_are_checked_and_ignored():
    rule = Rule("l.{layer}.w", "w", layers=3, surplus="too late")
    arrays = {f"l.{layer}.w": np.ones((4,), np.float32) for layer in range(3)}
    plan = make_plan(Arrays(arrays), TensorTable((rule,)), {"w": (2, 4)}, None)
    assert plan.parameters[0].keys == ("l.0.w", "l.1.w")
    assert plan.ignored == {"l.2.w": "too late"}
    for broken, message in (
        ({**arrays, "l.3.w": arrays["l.0.w"]}, r"l\.3\.w is unknown"),
        ({**arrays, "l.2.w": np.ones((5,), np.float32)}, r"l\.2\.w has shape \[5\]"),
        ({key: arrays[key] for key in ("l.0.w", "l.1.w")}, r"l\.2\.w is missing"),
    ):
        with pytest.raises(FlowjaxError, match=message):
            make_plan(Arrays(broken), TensorTable((rule,)), {"w": (2, 4)}, None)


def test_patterns_match_whole_keys_and_numbers_only():
    table = TensorTable((Rule("w", "w"),), (Ignored("a.{layer}.b", "a buffer"),))
    source = {"w": np.ones((1,), np.float32)}
    plan = make_plan(Arrays(source | {"a.12.b": np.ones(3, np.int8)}), table, {"w": (1,)}, None)
    assert plan.ignored == {"a.12.b": "a buffer"}
    for key in ("a.x.b", "a.1.bb", "xa.1.b", "a.1xb", "a..b", "a.{layer}.b"):
        with pytest.raises(FlowjaxError, match="is unknown"):
            make_plan(Arrays(source | {key: np.ones(3, np.int8)}), table, {"w": (1,)}, None)


def test_tied_tensors_must_be_equal():
    table = TensorTable((Rule("w", "w"),), tied=(Tied("head", "w"),))
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert make_plan(Arrays({"w": weight}), table, {"w": (2, 3)}, None).ignored == {}
    both = make_plan(Arrays({"w": weight, "head": weight.copy()}), table, {"w": (2, 3)}, None)
    assert both.ignored == {"head": "equal to w"}
    for head in (weight + 1, weight[:1], weight.reshape(3, 2)):
        with pytest.raises(FlowjaxError, match="key head differs from w"):
            make_plan(Arrays({"w": weight, "head": head}), table, {"w": (2, 3)}, None)


def test_arranging_is_a_view():
    tensor = np.zeros((8, 6), np.float32)
    assert np.shares_memory(arranged(RULES[1], tensor), tensor)


def test_every_family_has_a_table():
    assert family_tables().keys() == families().keys()
