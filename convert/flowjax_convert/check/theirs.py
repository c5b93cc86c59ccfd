"""A checkpoint in `transformers`: loaded, asked, and what it computed on the way written down.

Only this file and `pixels.py` import PyTorch. Weights are kept in the dtype of the converted model;
where the computation is in float32, the decoder's layers, embeddings and vocabulary projection are
widened one at a time while they run, so that a model of 7 billion parameters in bfloat16 needs
about 19 GB.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Bool, Float, Int

from flowjax.edges import Knockout, cut_table, dense
from flowjax.errors import FlowjaxError
from flowjax_convert.check.peer import CheckedPrompt, Peer
from flowjax_convert.check.question import TOKENS
from flowjax_convert.check.recorded import PARTS, Recorded


@dataclass(frozen=True)
class Theirs:
    """A loaded model of `transformers`.

    notes: what a reader should know of how it was loaded.
    """

    model: Any
    peer: Peer
    device: str
    notes: tuple[str, ...]

    @property
    def decoder(self) -> Any:  # noqa: ANN401 - any module
        """The module that has the token embeddings, the decoder's layers and its final norm.

        `get_decoder` of some classes of `transformers` 4 is a module around it.
        """
        embeddings = self.model.get_input_embeddings()
        return next(
            module
            for module in self.model.modules()
            if getattr(module, "embed_tokens", None) is embeddings
        )

    @property
    def layers(self) -> list[torch.nn.Module]:
        """The decoder's layers."""
        return list(self.decoder.layers)


def load(directory: Path, peer: Peer, *, weights: str, compute: str, device: str) -> Theirs:
    """Load a checkpoint with eager attention.

    Args:
        directory: the checkpoint.
        peer: how its model is asked.
        weights: dtype in which the weights are kept.
        compute: dtype of the computation, `weights` or float32.
        device: a device of PyTorch.

    Raises:
        FlowjaxError: `transformers` cannot load it, or the device is not there.
    """
    cls = getattr(transformers, peer.architecture, None)
    if cls is None:
        raise FlowjaxError(
            f"transformers {transformers.__version__} has no {peer.architecture}; install a newer "
            "version"
        )
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, info = cls.from_pretrained(
            directory,
            dtype=getattr(torch, weights),
            attn_implementation="eager",
            output_loading_info=True,
            local_files_only=True,
        )
        model = model.eval().to(device)
    except Exception as error:  # the library raises whatever it meets
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FlowjaxError(f"{directory}: transformers cannot load it: {reason}") from error
    torch.backends.cudnn.allow_tf32 = False
    missing = sorted(str(key) for key in info["missing_keys"])
    notes = []
    if missing:
        notes.append(f"transformers found no weights for {', '.join(missing)}: random there")
    theirs = Theirs(model, peer, device, tuple(notes))
    if compute != weights:
        _widen(theirs)
    return theirs


def _widen(theirs: Theirs) -> None:
    """Compute in float32; see the top of this file."""
    model = theirs.model
    streamed = [*theirs.layers, model.get_input_embeddings(), model.get_output_embeddings()]
    kept = {id(parameter) for module in streamed for parameter in module.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.data = parameter.data.float()
    for module in streamed:
        narrow: dict[torch.nn.Parameter, torch.Tensor] = {}

        def widen(module: torch.nn.Module, _: object, narrow: dict = narrow) -> None:
            for parameter in module.parameters():
                narrow[parameter] = parameter.data
                parameter.data = parameter.data.float()

        def restore(module: torch.nn.Module, _: object, __: object, narrow: dict = narrow) -> None:
            for parameter, data in narrow.items():
                parameter.data = data
            narrow.clear()

        module.register_forward_pre_hook(widen)
        module.register_forward_hook(restore, always_call=True)


def prompt_ids(directory: Path, prompt: CheckedPrompt) -> Int[np.ndarray, " ids"]:
    """The prompt by the tokenizer of `transformers`, placeholders expanded as often as ours are.

    Raises:
        FlowjaxError: `transformers` cannot load the tokenizer.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # the library raises whatever it meets
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FlowjaxError(
            f"{directory}: transformers has no tokenizer for it: {reason}"
        ) from error
    ids = tokenizer(prompt.text.text)["input_ids"]
    placeholder = tokenizer.convert_tokens_to_ids(prompt.text.placeholder)
    counts = iter([sum(count for _, count in cells) for cells in prompt.text.videos])
    expanded = [[token] * (next(counts, 1) if token == placeholder else 1) for token in ids]
    return np.array([token for tokens in expanded for token in tokens], np.int64)


def run(
    theirs: Theirs,
    prompt: CheckedPrompt,
    knockouts: Sequence[Knockout],
    directory: Path,
    folder: Path,
    pooling: tuple[int, int, int] | None,
) -> Recorded:
    """Ask the model, record what it computes, and ask it again under every knockout.

    Args:
        theirs: the model.
        prompt: ids and pixel values are ours, so that each stage is compared by itself.
        knockouts: each cut with a 4-D mask in its layers.
        directory: the checkpoint.
        folder: where to write the states.
        pooling: frames, rows and columns that a pooled model's features are averaged to; None
            for other models.

    Raises:
        FlowjaxError: the model cannot be asked this.
    """
    recorder = _Recorder(folder, _rows(len(prompt.encoded.ids)))
    model = theirs.model
    # Released files ask for sampling, penalties and end tokens.
    model.generation_config = transformers.GenerationConfig()
    try:
        with torch.no_grad():
            with recorder.listening(theirs):
                inputs = _inputs(theirs, prompt, pooling)
                out = model.generate(
                    **inputs,
                    max_new_tokens=TOKENS,
                    do_sample=False,
                    pad_token_id=0,
                )
            knocked_out = [_knocked_out(theirs, inputs, prompt, knockout) for knockout in knockouts]
    except (RuntimeError, ValueError, TypeError, LookupError, StopIteration) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise FlowjaxError(f"{directory}: transformers cannot be asked: {reason}") from error
    tokens = out[0, inputs["input_ids"].shape[1] :] if "input_ids" in inputs else out[0]
    return Recorded(
        folder=folder,
        layers=len(theirs.layers),
        rows=recorder.rows,
        ids=prompt_ids(directory, prompt),
        positions=recorder.positions,
        features=recorder.arrays["features"],
        normed=recorder.arrays["normed"],
        logits=recorder.arrays["logits"],
        tokens=tuple(map(int, tokens)),
        knocked_out=np.stack(knocked_out),
        notes=theirs.notes,
    )


def _inputs(
    theirs: Theirs, prompt: CheckedPrompt, pooling: tuple[int, int, int] | None
) -> dict[str, torch.Tensor]:
    """The arguments of `forward`.

    The attention mask allows everything. Without one, `transformers` 4.57 takes every step of the
    time axis that is not by one for the start of another sequence (`find_packed_sequence_indices`).
    """
    ids = torch.from_numpy(prompt.encoded.ids.astype(np.int64))[None].to(theirs.device)
    mask = {"attention_mask": torch.ones_like(ids)}
    if theirs.peer.pooled and pooling is not None:
        return mask | {"inputs_embeds": _pooled(theirs, ids, prompt, pooling)}
    accepted = inspect.signature(theirs.model.forward).parameters
    video = {
        name: torch.from_numpy(array).to(theirs.device)
        for name, array in theirs.peer.inputs(prompt).items()
        if name in accepted
    }
    return mask | {"input_ids": ids} | video


def _pooled(
    theirs: Theirs, ids: torch.Tensor, prompt: CheckedPrompt, pooling: tuple[int, int, int]
) -> torch.Tensor:
    """Embeddings with the video's in their places, as PLLaVA makes them of LLaVA's parts."""
    model = theirs.model.model
    tower = next(model.vision_tower.parameters())
    pixels = torch.from_numpy(prompt.pixel_values).to(tower.device, tower.dtype)
    out = model.vision_tower(pixels, output_hidden_states=True)
    features = out.hidden_states[theirs.model.config.vision_feature_layer][:, 1:]
    projected = model.multi_modal_projector(features)
    side = int(features.shape[1] ** 0.5)
    grid = projected.unflatten(1, (side, side)).permute(3, 0, 1, 2)
    video = torch.nn.functional.adaptive_avg_pool3d(grid, pooling).flatten(1).T
    places = torch.from_numpy(prompt.encoded.video_position.astype(np.int64)).to(ids.device)
    x = theirs.model.get_input_embeddings()(ids.index_fill(1, places, 0))
    return x.index_copy(1, places, video[None].to(x.dtype))


def _knocked_out(
    theirs: Theirs,
    inputs: Mapping[str, torch.Tensor],
    prompt: CheckedPrompt,
    knockout: Knockout,
) -> Float[np.ndarray, " vocabulary"]:
    """Logits after the prompt with a knockout's edges masked in its layers."""
    layout = prompt.encoded.layout
    allowed: Bool[np.ndarray, "n n"] = dense(layout, ~cut_table(layout, knockout))
    assert allowed.any(axis=1).all(), "a row without any source: the two sides differ on purpose"
    chosen = [theirs.layers[index] for index in knockout.layers]

    def replace(layer: torch.nn.Module, args: tuple, named: dict[str, Any]) -> tuple:
        del layer
        x = args[0] if args else named["hidden_states"]
        blocked = torch.finfo(x.dtype).min
        mask = torch.zeros(allowed.shape, dtype=x.dtype)
        mask = mask.masked_fill(~torch.from_numpy(allowed), blocked).to(x.device)
        own = named.get("attention_mask")  # of a sliding window, for one
        mask = mask[None, None]
        return args, named | {"attention_mask": mask if own is None else torch.minimum(mask, own)}

    handles = [layer.register_forward_pre_hook(replace, with_kwargs=True) for layer in chosen]
    last: list[torch.Tensor] = []
    handles += [
        theirs.model.get_output_embeddings().register_forward_pre_hook(_last_row),
        theirs.model.get_output_embeddings().register_forward_hook(
            lambda _, __, out: last.append(out[0, -1])
        ),
    ]
    try:
        theirs.model(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return _numpy(last[0])


def _last_row(module: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """The vocabulary projection of the last position only."""
    del module
    return (args[0][:, -1:],)


def _rows(length: int, most: int = 256) -> Int[np.ndarray, " rows"]:
    """Positions spread over a prompt, the last one among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(np.int64))


class _Recorder:
    """Hooks that write down what the first forward computes."""

    def __init__(self, folder: Path, rows: Int[np.ndarray, " rows"]) -> None:
        self.folder, self.rows = folder, rows
        self.arrays: dict[str, np.ndarray] = {}
        self.positions: Int[np.ndarray, "axes n"] | None = None
        self.done = False

    @contextlib.contextmanager
    def listening(self, theirs: Theirs) -> Iterator[None]:
        """Record while the context lasts, until the first logits."""
        model, decoder = theirs.model, theirs.decoder
        handles = [
            decoder.register_forward_pre_hook(self._read_positions, with_kwargs=True),
            model.get_submodule(theirs.peer.projector).register_forward_pre_hook(
                self._first("features")
            ),
            decoder.norm.register_forward_pre_hook(
                self._state(len(theirs.layers)), with_kwargs=True
            ),
            decoder.norm.register_forward_hook(self._output("normed")),
            model.get_output_embeddings().register_forward_hook(self._finish),
        ]
        for index, layer in enumerate(theirs.layers):
            handles.append(layer.register_forward_pre_hook(self._state(index), with_kwargs=True))
            modules = dict(layer.named_modules())
            handles += [
                modules[path].register_forward_hook(self._part(index, name))
                for name, path in PARTS.items()
                if path in modules
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _read_positions(self, module: torch.nn.Module, args: tuple, named: dict[str, Any]) -> None:
        del module, args
        given = named.get("position_ids")
        if not self.done and given is not None and given.ndim == 3:
            # Newer versions put the position in the text before those on the three axes.
            self.positions = given[-3:, 0].cpu().numpy()

    def _first(self, name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            del module
            self.arrays.setdefault(name, _numpy(args[0]))

        return hook

    def _output(self, name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: object, out: torch.Tensor) -> None:
            del module, args
            if not self.done:
                self.arrays[name] = _numpy(out[0])

        return hook

    def _state(self, index: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple, named: dict[str, Any]) -> None:
            del module
            if not self.done:
                x = args[0] if args else named["hidden_states"]
                np.save(self.folder / f"layer_{index}.npy", _numpy(x[0]))

        return hook

    def _part(self, index: int, name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: object, out: torch.Tensor) -> None:
            del module, args
            if not self.done:
                rows = out[0][torch.from_numpy(self.rows).to(out.device)]
                np.save(self.folder / f"layer_{index}_{name}.npy", _numpy(rows))

        return hook

    def _finish(self, module: torch.nn.Module, args: object, out: torch.Tensor) -> None:
        del module, args
        if not self.done:
            self.arrays["logits"] = _numpy(out[0, -1])
            self.done = True


def _numpy(x: torch.Tensor) -> Float[np.ndarray, "..."]:
    return x.detach().float().cpu().numpy()
