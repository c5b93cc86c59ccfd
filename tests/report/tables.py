"""Results of sweeps, made by hand."""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from flowjax.sweeps.rows import SCHEMA


def sweep_table(
    edges: Mapping[str, Sequence[str]],
    change: Callable[[str, int, int], float] = lambda edge, sample, layer: -10.0 * layer - sample,
    *,
    samples: int = 4,
    layers: int = 5,
    heads: Sequence[int] = (-1,),
    width: int = 3,
    style: str = "center",
    model: str = "a-model",
    note: str = "",
) -> pa.Table:
    """One row per sample, edge and window; `change(edge, sample, layer)`, layers from 0."""
    rows = []
    for sample in range(samples):
        for edge_set, names in edges.items():
            for edge in names:
                for head in heads:
                    for layer in range(layers):
                        percent = change(edge, sample, layer)
                        row = dict.fromkeys(SCHEMA.names, "")
                        row |= dict.fromkeys(("num_frames", "video_tokens"), 8)
                        row |= dict.fromkeys(("base_id", "new_id"), 7)
                        row |= {"correct": True, "new_correct": percent > -25}
                        row |= {"base_probability": 0.5}
                        row |= {"sample_id": f"s{sample}", "edge_set": edge_set, "edge": edge}
                        row |= {"head": head, "centre": layer, "width": width, "style": style}
                        row |= {"new_probability": 0.5 + percent / 200, "relative_change": percent}
                        row |= dict.fromkeys(
                            ("base_probability_true", "new_probability_true"), 0.25
                        )
                        row |= {"relative_change_true": 1e3, "model": model, "model_note": note}
                        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)
