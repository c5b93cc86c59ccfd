"""Which layers of a vision tower are needed for the features that a model reads."""

from flowjax.errors import FlowjaxError


def layers_used(feature_layer: int, layers: int, field: str) -> int:
    """Layers up to the feature layer.

    Args:
        feature_layer: indexes hidden states: 0 is the embeddings, negative counts from the end.
        layers: of the whole tower.
        field: the configuration's name of `feature_layer`, for errors.

    Raises:
        FlowjaxError: there is no such layer, or the features would be the bare embeddings.
    """
    used = feature_layer if feature_layer >= 0 else layers + 1 + feature_layer
    if not 1 <= used <= layers:
        raise FlowjaxError(
            f"{field} is {feature_layer}; the vision tower's hidden states after a layer "
            f"are 1 to {layers}, or -{layers} to -1"
        )
    return used
