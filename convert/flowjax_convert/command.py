"""What `flowjax convert` does with its arguments."""

import re
from pathlib import Path
from typing import cast

from flowjax.errors import FlowjaxError
from flowjax_convert import run
from flowjax_convert import verify as verification


def convert(
    src: str,
    out: Path | None,
    *,
    dtype: str | None,
    pooling_shape: str | None,
    vision_attention: str | None,
    prompt: str | None,
    adapter: str | None,
    revision: str | None,
    note: str,
    overwrite: bool,
) -> None:
    """Convert a checkpoint and say what was done.

    Raises:
        FlowjaxError: a bad argument or checkpoint; nothing has been written.
    """
    if out is None:
        raise FlowjaxError("convert needs two folders: SRC, to read, and OUT, to make")
    if dtype is not None and dtype not in run.DTYPES:
        raise FlowjaxError(f"--dtype {dtype!r}: choose {' or '.join(run.DTYPES)}")
    report = run.convert(
        src,
        out,
        dtype=cast(run.DtypeName | None, dtype),
        pooling_shape=None if pooling_shape is None else parse_pooling_shape(pooling_shape),
        vision_attention=vision_attention,
        prompt=prompt,
        adapter=adapter,
        revision=revision,
        note=note,
        overwrite=overwrite,
    )
    reasons = dict.fromkeys(report.ignored.values(), 0)
    for reason in report.ignored.values():
        reasons[reason] += 1
    print(
        f"{report.out}: family {report.family}, {report.parameters:,} parameters "
        f"({report.bytes / 1e6:,.1f} MB) from {report.tensors} tensors"
    )
    for reason, count in reasons.items():
        print(f"  {count} tensors ignored: {reason}")
    if report.chat:
        print(f"  another prompt (--prompt chat): {report.chat}")


def verify(src: str, out: Path) -> int:
    """Compare a model with its checkpoint, tensor by tensor; the exit code is 1 if they differ.

    Raises:
        FlowjaxError: either cannot be read.
    """
    report = verification.verify(src, out)
    for result in report.tensors:
        print(f"{result.key} -> {result.parameter}: {result.difference or 'equal'}")
    for name, difference in report.files.items():
        print(f"{name}: {difference}")
    cast_to = "" if report.cast is None else f" after the cast to {report.cast}"
    count = len(report.differences)
    print(
        f"{report.parameters:,} parameters in {len(report.tensors)} tensors: "
        + (f"{count} differences" if count else f"all equal{cast_to}")
    )
    return 1 if count else 0


def parse_pooling_shape(text: str) -> tuple[int, int, int]:
    """Read `"16-12-12"`.

    Raises:
        FlowjaxError: the text has another form.
    """
    match = re.fullmatch(r"([1-9]\d*)-([1-9]\d*)-([1-9]\d*)", text)
    if match is None:
        raise FlowjaxError(
            f"--pooling-shape {text!r}: write frames, rows and columns as T-H-W, such as 16-12-12"
        )
    frames, rows, columns = map(int, match.groups())
    return frames, rows, columns
