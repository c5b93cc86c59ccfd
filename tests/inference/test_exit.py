"""Leaving the decoder early against layers that are run one by one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax.inference.compile import compile_pathway
from flowjax.inference.decode import Sampling, generate, generate_by, programs
from flowjax.inference.exit import exit_decode, exit_prefill, first_token
from flowjax.inference.exit_rule import ExitRule, read_rule
from flowjax.models.attention import Sources, attend
from flowjax.models.decoder import Keep, deepened
from flowjax.models.stack import layer_at
from flowjax.pathway import Pathway
from tests.inference.masked import VARIANTS, embedded, mask_of
from tests.sweeps.test_engine import LAYERS, long_layout

LAYOUT = long_layout(12)
STRICT = Pathway("p", "strict", LAYERS, (0,), (0, 1), (2,), last_to_last=(1, 3)).knockouts(LAYOUT)
LETTERS = jnp.array([3, 5, 8], jnp.int32)


def thresholds(**of_layers):
    """Only these layers are open: `after_1=0.2`."""
    out = np.full(LAYERS, np.inf, np.float32)
    for name, value in of_layers.items():
        out[int(name.removeprefix("after_"))] = value
    return jnp.asarray(out)


def sure(decoder, x, measure):
    """How sure a state reads, in numpy."""
    logits = np.asarray(decoder.logits(x[-1:])[0], np.float64)
    if measure == "option-gap":
        logits = logits[np.asarray(LETTERS)]
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    if measure == "entropy":
        return float((probability * np.log(probability)).sum())
    second, first = np.sort(probability)[-2:]
    return float(first - second)


class OneByOne:
    """Whole layers in Python loops, whose skipped entries are copied."""

    def __init__(self, decoder, prompt, knockouts, rule, more):
        self.decoder, self.rule = decoder, rule
        self.mask = mask_of(decoder, LAYOUT, knockouts, more)
        self.length, self.rope = LAYOUT.length, int(prompt.rope_position.max()) + 1
        self.kept = [[] for _ in range(LAYERS)]
        self.deepstack = prompt.deepstack
        rotary = decoder.config.rope(prompt.rope_position, self.length)
        self.logits, self.layer = self.through(prompt.x, np.arange(self.length), rotary)

    def next(self, token):
        place = self.kept[0][-1].position[-1] + 1
        rope = jnp.asarray([[self.rope + int(place) - self.length]])
        rotary = self.decoder.config.rope(rope, self.length)
        self.rule, self.deepstack = self.rule.of_text, None
        x = self.decoder.embedding(jnp.asarray([token]))
        return self.through(x, np.array([int(place)]), rotary)

    def through(self, x, position, rotary):
        position, left = jnp.asarray(position, jnp.int32), None
        for index in range(LAYERS):
            layer = layer_at(self.decoder.layers, index)
            own = layer.sources(x, position, rotary)
            self.kept[index].append(own)
            if left is not None:
                continue
            window = self.decoder.config.window
            blocks = [Sources(*map(jnp.concatenate, zip(*self.kept[index], strict=True)))]
            mask = self.mask.at(index)
            read = attend(layer.queries(x, rotary), position, blocks, mask, window=window).output
            x = deepened(layer.finish(x, read), self.deepstack, index)
            if sure(self.decoder, x, self.rule.measure) >= float(self.rule.thresholds[index]):
                left = index
        return self.decoder.logits(x[-1:])[0], LAYERS - 1 if left is None else left


CASES = {
    "never": ExitRule("entropy", thresholds()),
    "after the first": ExitRule("entropy", thresholds(after_0=-9)),
    "in a stage of one layer": ExitRule("gap", thresholds(after_1=0)),
    "late": ExitRule("entropy", thresholds(after_2=-9)),
    "letters, then text": ExitRule("option-gap", thresholds(after_0=0.45, after_2=0.05), LETTERS),
    "the last is no exit": ExitRule("gap", thresholds(after_3=0)),
}


@pytest.mark.parametrize(("name", "cut"), [("window", ()), ("qk-norm, three axes", STRICT)])
def test_exits_equal_layers_one_by_one(name, cut):
    check(name, cut)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cut", [(), STRICT], ids=["all edges", "strict"])
def test_exits_of_every_variant(name, cut):
    check(name, cut)


def check(name, cut):
    decoder = VARIANTS[name]
    x = embedded(decoder, LAYOUT, deepstack=2)
    compiled = compile_pathway(LAYOUT, cut, decoder.config, room=3, blocks=(16, 16))
    layers = set()
    for rule in CASES.values():
        expected = OneByOne(decoder, x, cut, rule, 3)
        left, cache = exit_prefill(decoder, x, compiled, rule)
        np.testing.assert_allclose(left.logits, expected.logits, rtol=0, atol=1e-5)
        assert int(left.layer) == expected.layer
        layers.add(expected.layer)
        for token in (7, 1, 30):
            left, cache = exit_decode(decoder, cache, compiled, jnp.asarray(token), rule.of_text)
            logits, layer = expected.next(token)
            np.testing.assert_allclose(left.logits, logits, rtol=0, atol=1e-5)
            assert int(left.layer) == layer
            layers.add(layer)
    assert layers == {0, 1, 2, 3}


def test_the_first_token_is_the_lens():
    decoder = VARIANTS["gqa, biases"]
    x = embedded(decoder, LAYOUT)
    mask = mask_of(decoder, LAYOUT, STRICT)
    trace = jax.jit(lambda: decoder(x, mask, keep=Keep(hidden=True)))()
    states = [*trace.hidden[1:, -1], trace.output[-1]]
    compiled = compile_pathway(LAYOUT, STRICT, decoder.config, blocks=(16, 16))
    for layer in range(LAYERS):
        rule = ExitRule("entropy", thresholds(**{f"after_{layer}": -9}))
        left = first_token(decoder, x, compiled, rule)
        expected = decoder.logits(states[layer][None])[0]
        np.testing.assert_allclose(left.logits, expected, rtol=0, atol=1e-5)
        assert int(left.layer) == layer


def test_a_rule_that_never_holds_changes_no_token():
    decoder = VARIANTS["mha"]
    x = embedded(decoder, LAYOUT)
    compiled = compile_pathway(LAYOUT, (), decoder.config, room=15)
    plain = list(generate(decoder, x, compiled, tokens=16, sampling=Sampling()))
    rule, sampling = CASES["never"], Sampling()
    ready = programs(decoder, x, compiled, sampling, rule)
    for way in (None, ready):
        made = list(
            generate_by(decoder, x, compiled, tokens=16, sampling=sampling, rule=rule, ready=way)
        )
        assert [token.id for token in made] == plain
        assert {token.layer for token in made} == {LAYERS - 1}


def test_one_program_for_all_thresholds():
    decoder = VARIANTS["mqa, tied"]
    x = embedded(decoder, LAYOUT)
    compiled = compile_pathway(LAYOUT, (), decoder.config, blocks=(16, 16))
    programs: Any = first_token
    before = programs._cache_size()
    for rule in (CASES["never"], CASES["after the first"]):
        first_token(decoder, x, compiled, rule)
        first_token(decoder, embedded(decoder, LAYOUT, seed=1), compiled, rule)
    assert programs._cache_size() == before + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("entropy<0.5", [-0.5, -0.5, -0.5, np.inf]),
        ("gap>0.9@layer>=1", [np.inf, 0.9, 0.9, np.inf]),
        ("option-gap>0@layer>=2", [np.inf, np.inf, 0, np.inf]),
    ],
)
def test_rules_as_written(text, expected):
    rule = read_rule(text, 4)
    np.testing.assert_allclose(rule.thresholds, expected, atol=1e-6)
    assert text.startswith(rule.measure)
    finite = np.isfinite(expected)
    assert (np.asarray(rule.thresholds)[finite] > np.array(expected, np.float32)[finite]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("soon", r"'soon': write entropy<NATS, gap>SHARE or option-gap>SHARE"),
        ("surprise<3", "'surprise' is none of entropy, gap, option-gap"),
        ("entropy>3", "it exits where the answer is sure; write entropy<3"),
        ("gap<0.5@layer>=3", "write gap>0.5"),
        ("gap>1.5", "no difference of probabilities is above 1"),
        ("entropy<0", "no entropy is below 0"),
        ("entropy<1.2.3", r"'1\.2\.3' is no number"),
        ("gap>0.5@layer>=3", "layer 3; the model has 4 layers, and exits are after layers 0 to 2"),
        ("gap>0.5@layer=2", "@layer>=N behind it"),
    ],
)
def test_rules_that_cannot_be(text, message):
    with pytest.raises(FlowjaxError, match=message):
        read_rule(text, 4)


def test_options_are_needed_for_their_gap():
    rule = read_rule("option-gap>0.5", 4)
    with pytest.raises(FlowjaxError, match="option-gap needs a question with options"):
        rule.among(np.zeros(0, np.int32))
    assert rule.of_text.measure == "gap"
    other = read_rule("gap>0.5", 4)
    assert other.among(np.zeros(0, np.int32)) is other is other.of_text
