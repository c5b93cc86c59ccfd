"""FLOPs and bytes read from programs' text, against XLA's own count and by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest

from flowjax.compilation import text_of
from flowjax.hlo.cost import program_cost

X, W = jnp.ones((64, 128)), jnp.ones((128, 256))
STACK = jnp.ones((5, 128, 128))
PICTURE, FILTER = jnp.ones((2, 16, 16, 8)), jnp.ones((3, 3, 4, 32))


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def layers(x, stack, unroll=1):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack, unroll=unroll)[0]


def convolution(x, w):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (2, 1),
        ((1, 2), (0, 1)),
        lhs_dilation=(2, 1),
        rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )


PROGRAMS = {
    "product": (lambda x, w: jnp.tanh(x @ w) * 2 + 1, X, W),
    "softmax": (lambda x, w: jax.nn.softmax(x @ w), X, W),
    "batches": (lambda x: jnp.einsum("bij,bkj->bik", x, x), STACK),
    "attention": (functools.partial(jax.nn.dot_product_attention, is_causal=True),)
    + (jnp.ones((1, 64, 4, 16)),) * 3,
    "convolution": (convolution, PICTURE, FILTER),
    "bfloat16": (lambda x, w: x @ w, X.astype("bfloat16"), W.astype("bfloat16")),
    "slices": (lambda stack, i: stack[i] + stack[0], STACK, 2),
    "unrolled": (functools.partial(layers, unroll=5), X, STACK),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_without_loops_costs_what_xla_says(name):
    program = compiled(*PROGRAMS[name])
    expected, cost = program.cost_analysis(), program_cost(text_of(program))
    assert expected is not None
    assert cost.flops == expected["flops"] > 0
    assert cost.bytes == expected["bytes accessed"] > 0


def test_a_loop_costs_as_much_as_its_layers():
    loop, unrolled = (
        program_cost(text_of(compiled(functools.partial(layers, unroll=n), X, STACK)))
        for n in (1, 5)
    )
    assert loop.flops == pytest.approx(unrolled.flops, rel=1e-4)
    # A layer's parameters are copied out of their stack.
    assert unrolled.bytes <= loop.bytes <= unrolled.bytes + 1.01 * STACK.nbytes
    once = compiled(layers, X, STACK).cost_analysis()
    assert once is not None
    assert loop.flops > 4.9 * once["flops"]


def test_loops_in_loops_multiply():
    def outer(x, stack):
        return jax.lax.fori_loop(0, 7, lambda _, x: layers(x, stack), x)

    cost = program_cost(text_of(compiled(outer, X, STACK)))
    assert cost.flops == pytest.approx(7 * 5 * 2 * 64 * 128 * 128, rel=1e-3)


def test_a_count_that_is_a_value_is_asked_for():
    def some(x, stack, first):
        return jax.lax.fori_loop(first, 5, lambda i, x: jnp.tanh(x @ stack[i]), x)

    text = text_of(compiled(some, X, STACK, 2))
    with pytest.raises(ValueError, match="give unknown_trips"):
        program_cost(text)
    three, none = (program_cost(text, unknown_trips=n) for n in (3, 0))
    assert three.flops == pytest.approx(3 * 2 * 64 * 128 * 128, rel=1e-3)
    assert none.flops < 100


def test_what_is_put_in_place_moves_what_is_put():
    def put(stack, x):
        def body(i, stack):
            return jax.lax.dynamic_update_slice(stack, x[None] * i, (i, 0, 0))

        return jax.lax.fori_loop(0, 4, body, stack)

    many = jnp.ones((64, *X.shape))
    cost = program_cost(text_of(compiled(put, many, X)))
    # The stack is copied once, as it is not given away; each turn reads and writes one layer.
    assert cost.bytes == pytest.approx(2 * many.nbytes + 4 * 2 * X.nbytes, rel=1e-2)


def test_a_branch_that_does_most_counts():
    def branch(x, take):
        return jax.lax.cond(take, lambda x: x @ x.T, lambda x: x[:, :64] * 2, x)

    cost = program_cost(text_of(compiled(branch, X, True)))
    assert cost.flops == pytest.approx(2 * 64 * 64 * 128, rel=1e-3)


TPU = """HloModule jit_f, is_scheduled=true

%inner (p.1: bf16[5,4096,32,128], p.2: s32[]) -> bf16[4096,32,128] {
  %p.1 = bf16[5,4096,32,128]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %p.2 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %cut = bf16[1,4096,32,128]{3,2,1,0:T(8,128)(2,1)} dynamic-slice(%p.1, %p.2, %zero, %zero, %zero)
  ROOT %named = bf16[4096,32,128]{2,1,0:T(8,128)(2,1)} bitcast(%cut)
}

%fused (q.1: bf16[64,4096], q.2: bf16[5,4096,32,128], q.3: s32[]) -> bf16[64,32,128] {
  %q.1 = bf16[64,4096]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %q.2 = bf16[5,4096,32,128]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %q.3 = s32[]{:T(128)} parameter(2)
  %layer = bf16[4096,32,128]{2,1,0} fusion(%q.2, %q.3), kind=kLoop, calls=%inner
  %bf = bf16[64,4096,1]{1,0,2} bitcast(%q.1)
  %oi = bf16[32,128,4096]{1,2,0} bitcast(%layer)
  ROOT %out = bf16[64,32,128]{2,0,1} convolution(%bf, %oi), window={size=32 pad=31_31 \
rhs_reversal=1}, dim_labels=bf0_0oi->b0f
}

%body (t.1: (s32[], bf16[64,4096], bf16[5,4096,32,128])) -> (s32[], bf16[64,4096], \
bf16[5,4096,32,128]) {
  %t.1 = (s32[]{:T(128)}, bf16[64,4096]{1,0}, /*index=2*/bf16[5,4096,32,128]{3,2,1,0}) \
parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t.1), index=0
  %x = bf16[64,4096]{1,0} get-tuple-element(%t.1), index=1
  %w = bf16[5,4096,32,128]{3,2,1,0} get-tuple-element(%t.1), index=2
  %y = bf16[64,32,128]{2,0,1} fusion(%x, %w, %i), kind=kOutput, calls=%fused, \
metadata={op_name="f(a)"}
  %z = bf16[64,4096]{1,0} bitcast(%y)
  ROOT %t = (s32[], bf16[64,4096]{1,0}, bf16[5,4096,32,128]{3,2,1,0}) tuple(%i, %z, %w)
}

%condition (u.1: (s32[], bf16[64,4096], bf16[5,4096,32,128])) -> pred[] {
  %u.1 = (s32[]{:T(128)}, bf16[64,4096]{1,0}, bf16[5,4096,32,128]{3,2,1,0}) parameter(0)
  %five = s32[]{:T(128)} constant(5)
  %j = s32[]{:T(128)} get-tuple-element(%u.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%j, %five), direction=LT
}

ENTRY %main (x.1: bf16[64,4096], w.1: bf16[5,4096,32,128]) -> bf16[64,4096] {
  %x.1 = bf16[64,4096]{1,0} parameter(0)
  %w.1 = bf16[5,4096,32,128]{3,2,1,0} parameter(1)
  %first = s32[]{:T(128)} constant(0)
  %counter = s32[]{:T(128)} copy(%first)
  %all = (s32[], bf16[64,4096]{1,0}, bf16[5,4096,32,128]{3,2,1,0}) tuple(%counter, %x.1, %w.1)
  %done = (s32[], bf16[64,4096]{1,0}, bf16[5,4096,32,128]{3,2,1,0}) while(%all), \
condition=%condition, body=%body
  %last = bf16[64,4096]{1,0} get-tuple-element(%done), index=1
  ROOT %call = bf16[64,4096]{1,0} custom-call(%last), custom_call_target="tpu_custom_call"
}
"""


def test_a_tpus_products_are_convolutions_and_its_loops_name_no_count():
    """As libtpu prints them: heads as a padded axis, a layer cut out within a fusion's fusion."""
    cost = program_cost(TPU, kernel_flops={"tpu_custom_call": lambda call: 7.0 * call.elements})
    product = 2 * 64 * 4096 * 32 * 128
    assert cost.flops == 5 * product + 6 + 7 * 64 * 4096  # and six comparisons
    rows, layer = 64 * 4096 * 2, 4096 * 4096 * 2
    by_name = {work.name: work for work in cost.work}
    assert by_name["y"].times == 5
    assert by_name["y"].bytes == 2 * rows + layer + 4
    assert by_name["call"].bytes == 2 * rows


def test_time_is_the_longer_of_computing_and_moving():
    cost = program_cost(TPU)
    product, moved = 2 * 64 * 4096 * 32 * 128, 2 * 64 * 4096 * 2 + 4096 * 4096 * 2 + 4
    assert cost.seconds(1e12, 1e30) == pytest.approx(5 * product / 1e12, rel=1e-6)
    small = 6 * 9 + 8 + 2 * 64 * 4096 * 2  # comparisons, the counter's copy, the call
    assert cost.seconds(1e30, 1e12) == pytest.approx((5 * moved + small) / 1e12, rel=1e-6)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        program_cost("module @jit_f { }")
