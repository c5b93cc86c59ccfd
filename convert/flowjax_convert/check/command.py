"""What `flowjax check` does with its arguments."""

import gc
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowjax.data.video_options import AS_CHECKPOINT, VideoOptions
from flowjax.edges import Knockout
from flowjax.errors import FlowjaxError
from flowjax.files import check_writable, read_json
from flowjax.models.checkpoint import CONFIG, EMBEDDING, load_model, read_manifest
from flowjax.models.loaded import LoadedModel
from flowjax.models.projector import PoolingProjectorConfig
from flowjax.version import __version__
from flowjax_convert.check.compare import compare
from flowjax_convert.check.ours import Ours
from flowjax_convert.check.peer import CheckedPrompt, Peer, peer_of
from flowjax_convert.check.question import knockouts, read_question
from flowjax_convert.check.stage import BOUNDS, Stage
from flowjax_convert.run import resolve

if TYPE_CHECKING:
    from flowjax_convert.check.recorded import Recorded


@dataclass(frozen=True)
class CheckReport:
    """A comparison, as `--json` writes it.

    peer: the other side, in words.
    weights, compute: dtypes of the weights and of the computation.
    notes: what a reader should know of how the other side was loaded.
    """

    model: str
    source: str
    family: str
    peer: str
    versions: dict[str, str]
    weights: str
    compute: str
    prompt: dict[str, Any]
    notes: tuple[str, ...]
    stages: tuple[Stage, ...]

    @property
    def first_beyond(self) -> Stage | None:
        """The first stage where more differs than rounding explains."""
        return next((stage for stage in self.stages if stage.beyond), None)

    @property
    def verdict(self) -> str:
        """In one line."""
        first = self.first_beyond
        skipped = [stage.name for stage in self.stages if stage.error is None]
        if first is None:
            without = f" ({', '.join(skipped)} not compared)" if skipped else ""
            return f"every stage is within the bounds of {self.compute}{without}"
        return (
            f"beyond the bounds of {self.compute}, first at {first.name}: "
            f"{first.error:.2g}, where rounding explains {first.bound:.2g}" + _meaning(first.name)
        )


@dataclass(frozen=True)
class Sides:
    """What is compared, before either side has been asked.

    loaded: the converted model, without parameters.
    directory: its checkpoint.
    weights, compute: dtypes of the weights of `transformers`, and of both sides' computation.
    """

    loaded: LoadedModel
    directory: Path
    peer: Peer
    prompt: CheckedPrompt
    knockouts: tuple[Knockout, ...]
    weights: str
    compute: str


def read_sides(
    model: Path,
    src: str,
    *,
    video: Path | None = None,
    question: str | None = None,
    options: tuple[str, ...] = (),
    dtype: str = "float32",
    reading: VideoOptions = AS_CHECKPOINT,
    asked_by: str | None = None,
) -> Sides:
    """Read everything but weights; see `check` for arguments and errors."""
    if dtype not in BOUNDS:
        raise FlowjaxError(f"--dtype {dtype!r}: choose {' or '.join(BOUNDS)}")
    manifest = read_manifest(model)
    if "adapter" in manifest.overrides:
        raise FlowjaxError(
            f"{model} was converted with --adapter; `flowjax check` compares a model with one "
            "checkpoint: convert and check the base model, or merge the adapter with peft first"
        )
    directory = resolve(src, None, manifest.overrides.get("revision")).directory
    peer = peer_of(read_json(directory / CONFIG), str(directory / CONFIG))
    loaded = load_model(model, parameters=False).reading(reading).asked_by(asked_by)
    prompt = read_question(loaded, video, question, options)
    # Of several dtypes, transformers would cast all to one.
    narrow = len(set(manifest.dtype.values())) == 1 and dtype == "float32"
    return Sides(
        loaded=loaded,
        directory=directory,
        peer=peer,
        prompt=prompt,
        knockouts=knockouts(prompt, loaded.config.decoder.layers),
        weights=manifest.dtype[EMBEDDING] if narrow else dtype,
        compute=dtype,
    )


def record(sides: Sides, folder: Path, device: str = "cpu") -> "Recorded":
    """Ask `transformers`, which is freed afterwards; states are written to `folder`."""
    from flowjax_convert.check import theirs  # noqa: PLC0415 - an extra

    projector = sides.loaded.config.projector
    other = theirs.load(
        sides.directory,
        sides.peer,
        weights=sides.weights,
        compute=sides.compute,
        device=device,
    )
    return theirs.run(
        other,
        sides.prompt,
        sides.knockouts,
        sides.directory,
        folder,
        (len(sides.prompt.frames), *projector.pooling[1:])
        if isinstance(projector, PoolingProjectorConfig)
        else None,
    )


def stages_of(sides: Sides, recorded: "Recorded") -> list[Stage]:
    """Ask flowjax the same, part by part, and compare."""
    from flowjax_convert.check.pixels import their_pixels  # noqa: PLC0415 - an extra

    return compare(
        Ours(sides.loaded, sides.compute),
        recorded,
        sides.prompt,
        sides.knockouts,
        sides.peer,
        their_pixels(sides.directory, sides.prompt, sides.peer, sides.loaded.video.max_pixels),
    )


def check(
    model: Path,
    src: str,
    *,
    video: Path | None = None,
    question: str | None = None,
    options: tuple[str, ...] = (),
    dtype: str = "float32",
    device: str = "cpu",
    reading: VideoOptions = AS_CHECKPOINT,
    asked_by: str | None = None,
) -> CheckReport:
    """Ask a converted model and its checkpoint in `transformers` the same, and compare.

    `transformers` goes first and is freed before flowjax reads a parameter.

    Args:
        model: a converted model.
        src: what it was converted from: a folder, or the id of a repository on the hub.
        video: a video file; None makes a clip.
        question: about the video; None asks one about the clip.
        options: of a multiple-choice question.
        dtype: of the computation, float32 or bfloat16.
        device: of PyTorch, such as cpu or cuda.
        reading: how the video is read.
        asked_by: the prompt; see `LoadedModel.asked_by`.

    Raises:
        FlowjaxError: PyTorch or `transformers` is missing, `transformers` has no class for the
            checkpoint, or either side cannot be read or asked.
    """
    versions = {"flowjax": __version__, **library_versions()}
    sides = read_sides(
        model,
        src,
        video=video,
        question=question,
        options=options,
        dtype=dtype,
        reading=reading,
        asked_by=asked_by,
    )
    with tempfile.TemporaryDirectory(prefix="flowjax-check-") as scratch:
        recorded = record(sides, Path(scratch), device)
        gc.collect()
        stages = stages_of(sides, recorded)
    return CheckReport(
        model=str(model),
        source=src,
        family=sides.loaded.config.family,
        peer=sides.peer.compared,
        versions=versions,
        weights=sides.weights,
        compute=dtype,
        prompt=_about(sides.prompt),
        notes=recorded.notes,
        stages=tuple(stages),
    )


def library_versions() -> dict[str, str]:
    """Of PyTorch and `transformers`.

    Raises:
        FlowjaxError: one of them is missing.
    """
    try:
        return {name: metadata.version(name) for name in ("transformers", "torch")}
    except metadata.PackageNotFoundError as error:
        raise FlowjaxError(
            f"flowjax check needs PyTorch and transformers ({error.name} is missing): "
            "pip install 'flowjax-videollm[check]'"
        ) from error


def run(
    model: Path,
    src: str,
    *,
    json_file: Path | None,
    **arguments: Any,  # noqa: ANN401 - of `check`
) -> int:
    """Print the comparison; the exit code is 1 if a stage is beyond its bound.

    Raises:
        FlowjaxError: see `check`, or the file cannot be written.
    """
    if json_file is not None:
        check_writable(json_file)
    report = check(model, src, **arguments)
    for line in lines(report):
        print(line)
    if json_file is not None:
        fields = {**asdict(report), "verdict": report.verdict}
        fields["stages"] = [
            {**asdict(stage), "error": _json_number(stage.error), "beyond": stage.beyond}
            for stage in report.stages
        ]
        json_file.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    return 0 if report.first_beyond is None else 1


def lines(report: CheckReport) -> Sequence[str]:
    """The comparison as text."""
    about = report.prompt
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    width = max(len(stage.name) for stage in report.stages)
    return [
        f"{report.model} ({report.family}) and {report.source} ({report.peer})",
        f"{versions}; weights in {report.weights}, computed in {report.compute}",
        f"{about['positions']} positions, {about['video_positions']} of them {about['video']}",
        *report.notes,
        f"{'stage':{width}}     error     bound",
        *(_line(stage, width) for stage in report.stages),
        report.verdict,
    ]


def _line(stage: Stage, width: int) -> str:
    error = "-" if stage.error is None else f"{stage.error:.2g}"
    mark = "  BEYOND" if stage.beyond else ""
    return f"{stage.name:{width}}  {error:>8}  {stage.bound:>8.2g}{mark}  {stage.note}".rstrip()


def _about(prompt: CheckedPrompt) -> dict[str, Any]:
    return {
        "video": prompt.video,
        "frames": list(prompt.frames.shape),
        "positions": len(prompt.encoded.ids),
        "video_positions": len(prompt.encoded.video_position),
        "text": prompt.text.text,
    }


def _meaning(stage: str) -> str:
    """Where to look, of stages whose name does not say it."""
    if stage.endswith(": attention"):
        return (
            "; its queries, keys and values agree, so the rotary embedding, a norm of heads, the "
            "scale or the output projection differs"
        )
    if stage == "positions":
        return (
            "; where a video is long, text goes on after the largest position of any axis in the "
            "releases and in transformers 4, but not in transformers 5; and transformers 4.57 "
            "rounds the seconds between two temporal patches of Qwen2.5-VL down, which the release "
            "does not"
        )
    if stage == "vision features":
        return (
            "; the pixel values agree, so the patch embedding or a layer of the tower differs; "
            "transformers 4.57 takes SmolVLM2's position embeddings one place too early, and puts "
            "a norm on the last states of LLaVA-OneVision's tower"
        )
    if stage == "video embeddings":
        return "; the vision features agree, so the projector or the order of its blocks differs"
    return ""


def _json_number(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return value if value is None or abs(value) < float("inf") else str(value)
