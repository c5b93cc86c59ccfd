"""How parameters lie on a device mesh: tensor parallel over `model`, whole copies over `data`.

Projections into heads or MLP units are split over their outputs and the ones that follow over
their inputs, so that each device computes whole heads and units and sums once per block (Shoeybi
et al. 2019, arXiv 1909.08053). In training, matrices are divided over `data` as well, for their
gradients and moments take several times their room (Rajbhandari et al. 2020, arXiv 1910.02054).
"""

import re
from typing import NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from flowjax.errors import FlowjaxError
from flowjax.mesh import DATA, MODEL


class Rule(NamedTuple):
    """Parameters whose path matches `path` wholly are split over the first axis that divides.

    axes: counted from the end, so that a leading axis of stacked layers makes no difference;
    empty where every device holds the whole parameter.
    """

    path: str
    axes: tuple[int, ...]


RULES = (
    Rule(r".*/layers/(query|key|value|gate|up)/(kernel|bias)", (-1,)),
    Rule(r".*/layers/(output|down)/kernel", (-2,)),
    Rule(r".*/layers/(output|down)/bias", ()),
    Rule(r"decoder/layers/(query|key|value|gate|up)/lora_b", (-1,)),
    Rule(r"decoder/layers/(output|down)/lora_a", (-2,)),
    Rule(r"decoder/layers/(query|key|value|gate|up)/lora_a", ()),
    Rule(r"decoder/layers/(output|down)/lora_b", ()),
    Rule(r".*norm/(scale|bias)", ()),
    Rule(r"decoder/embedding/embedding", (-2, -1)),
    Rule(r"decoder/unembedding/kernel", (-1, -2)),
    Rule(r"projector/linear/kernel", (-1,)),
    Rule(r"projector/linear_1/(kernel|bias)", (-1,)),
    Rule(r"projector/linear_2/kernel", (-2,)),
    Rule(r"projector/linear_2/bias", ()),
    Rule(r"projector/(mlp|merger|deepstack)/linear_1/(kernel|bias)", (-1,)),
    Rule(r"projector/(mlp|merger|deepstack)/linear_2/kernel", (-2,)),
    Rule(r"projector/(mlp|merger|deepstack)/linear_2/bias", ()),
    Rule(r"projector/(newline|pool/(kernel|bias))", ()),
    Rule(r"vision/layers/(attention|mlp)_scale", ()),
    Rule(r"vision/(patch_embedding/(kernel|bias)|class_(embedding|angle)|position_embedding)", ()),
)


MATRICES = ("/kernel", "/embedding", "/lora_a", "/lora_b")
"""How the paths of matrices end."""

SOURCES = r"decoder/layers/(key|value)/(kernel|bias)"
"""Of keys and values, which a decoder with grouped queries has fewer heads of."""


def split_axes(path: str) -> tuple[int, ...]:
    """The axes, counted from the end, that a parameter may be split over, the best first.

    Raises:
        FlowjaxError: not exactly one rule matches the path.
    """
    matching = [rule for rule in RULES if re.fullmatch(rule.path, path)]
    if len(matching) != 1:
        raise FlowjaxError(
            f"parameter {path} matches {len(matching)} rules of flowjax.models.sharding; "
            "it must match exactly one"
        )
    return matching[0].axes


def parameter_sharding(
    path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, *, kv_heads: int | None = None
) -> NamedSharding:
    """Where the parameter at `path` lies on `mesh`.

    Args:
        path, shape: of the parameter.
        mesh: axes `data` and `model`.
        kv_heads: of the decoder, whose keys and values every device computes whole where they do
            not divide: parts of heads would be put together again in every layer. None for a
            parameter that is of no decoder.

    Raises:
        FlowjaxError: the mesh's axes are not `data` and `model`.
    """
    if set(mesh.axis_names) != {DATA, MODEL}:
        raise FlowjaxError(
            f"the mesh has axes {', '.join(map(str, mesh.axis_names))}; it must have "
            f"{DATA} and {MODEL}"
        )
    spec: list[str | None] = [None] * len(shape)
    axes = split_axes(path)
    if kv_heads and kv_heads % mesh.shape[MODEL] and re.fullmatch(SOURCES, path):
        axes = ()
    for axis in axes:
        if shape[axis] % mesh.shape[MODEL] == 0:
            spec[axis] = MODEL
            break
    return NamedSharding(mesh, PartitionSpec(*spec))


def training_sharding(
    path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh
) -> NamedSharding:
    """Where a parameter lies that is trained: as `parameter_sharding` has it, and over `data`.

    Of the two axes of a matrix, that over `data` is the longest which is not over `model` and
    divides. Vectors, and stacked layers as such, are not divided over it: a layer's weights are
    brought together where the layer is computed.

    Raises:
        FlowjaxError: see `parameter_sharding`.
    """
    spec = list(parameter_sharding(path, shape, mesh).spec)
    if path.endswith(MATRICES) and len(shape) > 1:
        left = [axis for axis in (-2, -1) if spec[axis] is None]
        divides = [axis for axis in left if shape[axis] % mesh.shape[DATA] == 0]
        if divides:
            spec[max(divides, key=lambda axis: shape[axis])] = DATA
    return NamedSharding(mesh, PartitionSpec(*spec))


def one_device() -> jax.sharding.Sharding:
    """Everything on the default device."""
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
