"""TokenLayout: which token group every position of an expanded prompt belongs to.

Cells partition the sequence; groups with their own names are unions of cells::

    [system][frame_0]..[frame_7][instruction][question_format][question_stem]..[option_A]..[last]
            `------ video -----'             `-------------- question ----------------'

`question_format` is the text around stem and options ("Question:", "Options:", line feeds);
`instruction` is all other text after the video.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from flowjax.data.prompt import Prompt, RopeGrid, Span
from flowjax.errors import FlowjaxError


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Token groups of one prompt. Layouts are equal if every position has the same groups.

    cells: names of the cells, in order of first position.
    cell: int32 [n], index into `cells` of every position.
    unions: groups made of several cells, by name.

    Raises:
        FlowjaxError: no position, a cell that is named twice, is out of order or has no position,
            or a union of something that is not a cell or with the name of one.
    """

    cells: tuple[str, ...]
    cell: Int[np.ndarray, " n"]
    unions: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        """Check that the cells partition the positions, and freeze what can be changed."""
        _, first = np.unique(self.cell, return_index=True)
        if self.cell[np.sort(first)].tolist() != list(range(len(self.cells))) or not self.cells:
            raise FlowjaxError(
                f"token layout: {len(self.cells)} cells must be numbered from 0 in the order of "
                "their first positions, and each must have one"
            )
        names = [*self.cells, *self.unions]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise FlowjaxError(f"token layout: {twice!r} names two groups")
        for union, parts in self.unions.items():
            for part in parts:
                if part not in self.cells:
                    raise FlowjaxError(
                        f"token layout: {union!r} is made of {part!r}, which is no cell; "
                        f"{_available(self.cells)}"
                    )
        cell = np.array(self.cell, np.int32)
        cell.flags.writeable = False
        object.__setattr__(self, "cell", cell)
        object.__setattr__(self, "unions", MappingProxyType(dict(self.unions)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenLayout) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[tuple[str, ...], bytes, frozenset[tuple[str, tuple[str, ...]]]]:
        return self.cells, self.cell.tobytes(), frozenset(self.unions.items())

    @classmethod
    def from_cells(cls, names: Sequence[str], true_option: str | None = None) -> "TokenLayout":
        """A layout from the cell name of every position.

        Unions `video`, `question` and, where `true_option` names a cell, `true_option` and
        `false_options` follow from the names.
        """
        cells = tuple(dict.fromkeys(names))
        index = {name: i for i, name in enumerate(cells)}
        options = tuple(name for name in cells if name.startswith("option_"))
        unions = {
            "video": tuple(name for name in cells if name.startswith("frame_")),
            "options": options,
            "question": tuple(name for name in cells if name.startswith("question_")) + options,
        }
        if true_option is not None:
            if true_option not in cells:
                raise FlowjaxError(f"true option {true_option!r}: {_available(cells)}")
            unions["true_option"] = (true_option,)
            unions["false_options"] = tuple(name for name in options if name != true_option)
        cell = np.array([index[name] for name in names], np.int32)
        return cls(cells, cell, {name: parts for name, parts in unions.items() if parts})

    @property
    def length(self) -> int:
        """Positions in the sequence."""
        return len(self.cell)

    @property
    def groups(self) -> tuple[str, ...]:
        """Every name that an edge may use."""
        return (*self.cells, *self.unions)

    def cells_of(self, group: str) -> list[int]:
        """Indices of the cells of a group.

        Raises:
            FlowjaxError: the layout has no such group; lists those there are.
        """
        if group in self.unions:
            return [self.cells.index(name) for name in self.unions[group]]
        if group in self.cells:
            return [self.cells.index(group)]
        raise FlowjaxError(f"token group {group!r} does not exist; {_available(self.groups)}")

    def positions(self, group: str) -> Int[np.ndarray, " p"]:
        """Positions of a group, ascending."""
        return np.flatnonzero(np.isin(self.cell, self.cells_of(group)))

    def split(self, groups: Iterable[str]) -> "TokenLayout":
        """The same layout with every position of some groups a cell of its own.

        Position i of a group becomes the cell `group[i]`, counted from 0; the group's old cells,
        and every union they were part of, remain as unions.

        Raises:
            FlowjaxError: no such group.
        """
        names = [self.cells[index] for index in self.cell]
        members = {cell: list[str]() for cell in self.cells}
        aliases: dict[str, tuple[str, ...]] = {}
        for group in groups:
            for index, position in enumerate(self.positions(group)):
                old = self.cells[self.cell[position]]
                if names[position] == old:
                    names[position] = f"{group}[{index}]"
                    members[old].append(names[position])
                elif names[position] != f"{group}[{index}]":
                    aliases[f"{group}[{index}]"] = (names[position],)
        unions = {cell: tuple(tokens) for cell, tokens in members.items() if tokens}
        for union, cells in self.unions.items():
            unions[union] = tuple(token for cell in cells for token in members[cell] or [cell])
        cells = tuple(dict.fromkeys(names))
        index_of = {name: index for index, name in enumerate(cells)}
        cell = np.array([index_of[name] for name in names], np.int32)
        return TokenLayout(cells, cell, unions | aliases)


@dataclass(frozen=True, eq=False)
class EncodedPrompt:
    """A prompt as the decoder reads it.

    ids: int32 [n], with the placeholder's id at every video position.
    video_position: int32 [video], positions that video embeddings take, in order.
    rope_position: int32 [axes, n], what rotary embedding reads; see `rope_positions`.
    layout: the groups of all n positions.
    text: the prompt's, with one placeholder for each part of the video.
    """

    ids: Int[np.ndarray, " n"]
    video_position: Int[np.ndarray, " video"]
    rope_position: Int[np.ndarray, "axes n"]
    layout: TokenLayout
    text: str


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer) -> EncodedPrompt:
    """Tokenize a prompt and expand its placeholders.

    A token belongs to the span that holds most of its characters, spaces and line feeds counting
    only where nothing else decides. The final position is the cell `last`.

    Raises:
        FlowjaxError: the user's text contains the placeholder or another special token of the
            tokenizer, or a group of the prompt got no token.
    """
    _refuse_special_tokens(prompt, tokenizer)
    encoding = tokenizer.encode(prompt.text)
    placeholder = tokenizer.token_to_id(prompt.placeholder)
    if placeholder is None or encoding.ids.count(placeholder) != len(prompt.videos):
        raise FlowjaxError(
            f"the tokenizer does not read {prompt.placeholder!r} as one token; "
            "tokenizer.json does not belong to this model"
        )
    names = _cells_of_tokens(prompt.text, prompt.spans, encoding.offsets)
    ids: list[int] = []
    cells: list[str] = []
    video_position: list[int] = []
    starts: list[int] = []
    videos = iter(prompt.videos)
    for token, name in zip(encoding.ids, names, strict=True):
        if token != placeholder:
            ids.append(token)
            cells.append(name)
            continue
        starts.append(len(ids))
        for cell, count in next(videos):
            video_position.extend(range(len(ids), len(ids) + count))
            ids.extend([token] * count)
            cells.extend([cell] * count)
    cells[-1] = "last"
    lost = {span.cell for span in prompt.spans if span.stop > span.start} - set(cells)
    if lost:
        raise FlowjaxError(f"the tokenizer gives no token to {', '.join(sorted(lost))}")
    return EncodedPrompt(
        np.array(ids, np.int32),
        np.array(video_position, np.int32),
        rope_positions(len(ids), starts, prompt.grids),
        TokenLayout.from_cells(cells, prompt.true_option),
        prompt.text,
    )


def rope_positions(
    length: int, starts: Sequence[int], grids: Sequence[RopeGrid]
) -> Int[np.ndarray, "axes n"]:
    """Positions for rotary embedding: int32 [axes, length].

    Without grids, 0 to length - 1 on one axis. With them, three axes (time, row, column): text has
    the same position on all three and goes on from the text before it; a grid that starts at
    position p has p plus its indices, time multiplied by `step`; text after it goes on after the
    largest position of any axis. So the `transformers` with which Qwen2-VL, Qwen2.5-VL and Qwen3-VL
    were released compute it (4.45, 4.49, 4.57); version 5 takes rows and columns only, which is
    another position where a video's time axis is longer than its sides (from about 12 s on).

    Args:
        length: of the expanded sequence.
        starts: where each placeholder's tokens begin in it.
        grids: one per placeholder, or none.
    """
    if not grids:
        return np.arange(length, dtype=np.int32)[None]
    out = np.empty((3, length), np.int32)
    index = position = 0
    for start, grid in zip(starts, grids, strict=True):
        out[:, index:start] = position + np.arange(start - index)
        position += start - index
        step = np.float32(grid.step)  # float32 as in the original, where the product is cut off
        time = (np.arange(grid.frames, dtype=np.float32) * step).astype(np.int32)
        axes = np.meshgrid(time, np.arange(grid.rows), np.arange(grid.columns), indexing="ij")
        index = start + axes[0].size
        out[:, start:index] = position + np.stack(axes).reshape(3, -1)
        position += 1 + max(int(time[-1]), grid.rows - 1, grid.columns - 1)
    out[:, index:] = position + np.arange(length - index)
    return out


def _cells_of_tokens(
    text: str, spans: Sequence[Span], offsets: Iterable[tuple[int, int]]
) -> list[str]:
    """The cell of every token; one without characters goes with the token before it."""
    names: list[str] = []
    first = 0
    for start, stop in offsets:
        while first < len(spans) - 1 and spans[first].stop <= start:
            first += 1
        best, most = names[-1] if names else spans[0].cell, (0, 0)
        for span in spans[first:]:
            if span.start >= stop:
                break
            shared = text[max(start, span.start) : min(stop, span.stop)]
            weight = (sum(not character.isspace() for character in shared), len(shared))
            if weight > most:
                best, most = span.cell, weight
        names.append(best)
    return names


def _refuse_special_tokens(prompt: Prompt, tokenizer: Tokenizer) -> None:
    """A question that contains a control token would be read as one, not as text."""
    special = [
        token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special
    ]
    for span in prompt.spans:
        if span.cell != "question_stem" and not span.cell.startswith("option_"):
            continue
        text = prompt.text[span.start : span.stop]
        for token in special:
            if token in text:
                raise FlowjaxError(
                    f"{span.cell} contains {token!r}, a control token of this model; "
                    "reword the question"
                )


def _available(groups: Iterable[str]) -> str:
    return f"this prompt has {', '.join(groups)}"
