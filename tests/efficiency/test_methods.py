"""Every method's compiled prefill, and decoding after it, equals its masked form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.efficiency.method import methods
from flowjax.efficiency.methods.dycoke import DyCoke
from flowjax.efficiency.methods.fastv import FastV
from flowjax.efficiency.methods.frames import Frames
from flowjax.efficiency.methods.full import Full
from flowjax.efficiency.methods.random_tokens import RandomTokens
from flowjax.inference.decode import decode
from flowjax.lens.read import read_logits
from tests.efficiency.prompts import prompt_of, subject_of
from tests.inference.masked import VARIANTS

EVERY = sorted(methods())


def check(prompt, setting):
    applied = setting.apply(prompt)
    masked = read_logits(prompt.decoder, *applied.masked())
    compiled = applied.prefill()
    np.testing.assert_allclose(compiled.logits, masked, rtol=0, atol=1e-5)
    logits, _ = decode(
        prompt.decoder, compiled.cache, applied.compiled(compiled.kept), jnp.asarray(3)
    )
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", EVERY)
def test_compiled_equals_masked(name):
    prompt = prompt_of(VARIANTS["gqa, biases"], deepstack=2)
    settings = methods()[name].settings(subject_of(prompt.decoder))
    check(prompt, settings[len(settings) // 2])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["mha", "qk-norm, three axes", "window"])
@pytest.mark.parametrize("name", EVERY)
def test_every_setting_equals_its_masked_form(name, variant):
    for seed, deepstack in enumerate((0, 2)):
        prompt = prompt_of(VARIANTS[variant], seed=seed, deepstack=deepstack)
        for setting in methods()[name].settings(subject_of(prompt.decoder)):
            check(prompt, setting)


def test_costs_fall_from_setting_to_setting():
    prompt = prompt_of(VARIANTS["mha"])
    subject = subject_of(prompt.decoder)
    (full,) = methods()["full"].settings(subject)
    most = full.apply(prompt).cost()
    for name in EVERY:
        costs = [setting.apply(prompt).cost() for setting in methods()[name].settings(subject)]
        assert costs, name
        for dear, cheap in zip([most, *costs], costs, strict=False):
            assert 0 < cheap.flops <= dear.flops, name
            assert 0 < cheap.cache_bytes <= dear.cache_bytes, name


@pytest.mark.parametrize("setting", [FastV(2, 1.0), RandomTokens(1.0), Frames(1.0), DyCoke(0.0)])
def test_a_setting_that_keeps_everything_costs_everything(setting):
    prompt = prompt_of(VARIANTS["gqa, biases"])
    full, own = (one.apply(prompt).cost() for one in (Full(), setting))
    assert (own.flops, own.edges, own.cache_bytes) == (full.flops, full.edges, full.cache_bytes)


def test_a_second_prompt_of_the_same_shape_compiles_nothing():
    compiled = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    decoder = VARIANTS["mha"]
    for name in ("fastv", "prumerge", "strict"):
        setting = methods()[name].settings(subject_of(decoder))[0]
        one, other = (setting.apply(prompt_of(decoder, seed=seed)) for seed in (1, 2))
        compiled.clear()
        first = one.prefill()
        assert compiled, name
        compiled.clear()
        second = other.prefill()
        assert not compiled, name
        assert not np.array_equal(first.logits, second.logits)
