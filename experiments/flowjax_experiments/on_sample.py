"""What rows of lenses, attention, probabilities and cut tokens show of one sample on a page."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Shaped

from flowjax.report.arrays import grouped
from flowjax.report.canvas import arrow
from flowjax.report.page.sample import (
    AttentionSeen,
    OnSample,
    OptionsRead,
    TokensCut,
    WordsRead,
)

ABOUT = ("model", "sample_id", "task", "prompt", "base_answer", "true_answer")
"""Columns of what a page says of a sample as a whole."""

TOKENS = 3
"""Most probable tokens that a page keeps of every place."""

ONE_TOKEN = re.compile(r"(?P<group>\w+)\[(?P<index>\d+)\]->(?P<target>[\w\[\]]+)")


def about(rows: pa.Table) -> OnSample:
    """The sample that rows are of, without any part."""
    first = rows.select(ABOUT).slice(0, 1).to_pylist()[0]
    return OnSample(*(first[name] for name in ABOUT))


def of_sample(rows: pa.Table, sample_id: str, *columns: str) -> pa.Table | None:
    """Some columns of a sample's rows, beside those of `about`; None if there are none."""
    names = rows["sample_id"].to_numpy(zero_copy_only=False)
    own = where(rows.select([*ABOUT, *columns]), names == sample_id)
    return own if own.num_rows else None


def where(rows: pa.Table, chosen: Bool[np.ndarray, " rows"]) -> pa.Table:
    """The chosen rows; not copied where they all are."""
    return rows if chosen.all() else rows.filter(pa.array(chosen))


OF_WORDS = ("layer", "frame", "row", "column", "tokens", "probabilities")


def words_read(rows: pa.Table) -> WordsRead:
    """Of one sample's rows of `flowjax lens`."""
    rows = where(rows, rows["row"].to_numpy() >= 0)
    k = len(rows["tokens"][0])
    kept = min(k, TOKENS)
    encoded = _flat(rows["tokens"]).dictionary_encode()
    at = tuple(rows[name].to_numpy() for name in ("layer", "frame", "row", "column"))
    probability = _flat(rows["probabilities"]).to_numpy().reshape(-1, k)[:, :kept]
    index = encoded.indices.to_numpy().reshape(-1, k)[:, :kept]
    used, index = np.unique(index, return_inverse=True)
    texts = encoded.dictionary.take(pa.array(used)).to_pylist()
    return WordsRead(texts, _placed(at, index.reshape(-1, kept), -1), _placed(at, probability, 0.0))


def _flat(lists: pa.ChunkedArray) -> pa.Array:
    """What lists hold, one after another."""
    return lists.combine_chunks().flatten()


def _placed(
    at: tuple[np.ndarray, ...], values: Shaped[np.ndarray, "n k"], otherwise: float
) -> Shaped[np.ndarray, "layers frames rows columns k"]:
    shape = (*(int(axis.max()) + 1 for axis in at), values.shape[1])
    out = np.full(shape, otherwise, values.dtype)
    out[at] = values
    return out


OF_ATTENTION = (
    "target", "knockout", "edge", "cut_from", "cut_to", "layer", "head", "frame", "rows", "columns",
    "weights",
)  # fmt: skip


def attention_seen(rows: pa.Table, heads: dict[int, str]) -> list[AttentionSeen]:
    """Of one sample's rows of `flowjax attention`.

    heads: those that are shown, and what each is called.
    """
    target = rows["target"][0].as_py().replace("_", " ")
    found = []
    for head, name in heads.items():
        own = rows.filter(pc.field("head") == head)
        for cut, some in sorted(grouped(own, "knockout").items()):
            first = some.slice(0, 1).to_pylist()[0]
            at = [some[column].to_numpy() for column in ("layer", "frame")]
            shape = (*(int(axis.max()) + 1 for axis in at), first["rows"], first["columns"])
            weights = np.zeros(shape)
            flat = _flat(some["weights"]).to_numpy()
            weights[tuple(at)] = flat.reshape(-1, *shape[2:])
            where = (
                f"{arrow(first['edge'])} in layers {first['cut_from'] + 1}-{first['cut_to'] + 1}"
            )
            found.append(AttentionSeen(f"{target}, {name}", where if cut else "", weights))
    return found


OF_OPTIONS = ("layer", "normed", "letters", "probabilities")


def options_read(rows: pa.Table) -> OptionsRead:
    """Of one sample's rows of `flowjax probability`, through the final norm at every layer."""
    own = rows.filter(pc.field("normed")).sort_by("layer")
    return OptionsRead(list(own["letters"][0].as_py()), np.array(own["probabilities"].to_pylist()))


OF_TOKENS = ("head", "edge", "token", "centre", "relative_change")


def tokens_cut(rows: pa.Table) -> list[TokensCut]:
    """Of one sample's rows of `flowjax sweep`: edges from single tokens, by group and target."""
    found: dict[tuple[str, str], dict[int, tuple[str, dict[int, float]]]] = {}
    own = rows.filter(pc.field("head") == -1)
    for row in own.select(["edge", "token", "centre", "relative_change"]).to_pylist():
        match = ONE_TOKEN.fullmatch(row["edge"])
        if match is None:
            continue
        tokens = found.setdefault((match["group"], match["target"]), {})
        _, changes = tokens.setdefault(int(match["index"]), (row["token"], {}))
        changes[row["centre"]] = row["relative_change"]
    out = []
    for (group, target), tokens in found.items():
        layers = sorted({layer for _, changes in tokens.values() for layer in changes})
        out.append(
            TokensCut(
                arrow(f"{group}->{target}"),
                [text for _, (text, _) in sorted(tokens.items())],
                [layer + 1 for layer in layers],
                np.array([[c[layer] for layer in layers] for _, (_, c) in sorted(tokens.items())]),
            )
        )
    return out
