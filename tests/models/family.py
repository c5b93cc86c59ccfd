"""The checks that every family's test makes, over several random tiny models.

A family's test says how a case is made, and declares the rest::

    CASES = {"mha": ({}, {}, 4), "gqa-tied": ({"num_key_value_heads": 2}, {...}, 1)}

    def case(folder, text, vision, frames):
        theirs = ...                                   # a random `transformers` model
        return parity.ask(parity.converted(folder, theirs, TOKENIZER, files))

    asked = asked_in(CASES, case)

    class TestFamily(FamilyTests):
        unread = UNREAD

Tests of the module's own may take `asked` as well: each case is made once.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.models import parity
from tests.models.parity import Asked
from tests.models.refusals import check_fields_refused, check_keys_refused
from tests.models.stored_frames import check_stored_frames


def asked_in(cases: Mapping[str, tuple], case: Callable[..., Asked]) -> Any:
    """A fixture of the module: each case by name, made by `case(folder, *cases[name])`."""

    @pytest.fixture(scope="module", params=cases)
    def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
        return case(tmp_path_factory.mktemp(request.param), *cases[request.param])

    return asked


class FamilyTests:
    """Parity with the other implementation, total conversion, and stored frames.

    unread: see `refusals.check_fields_refused`.
    unread_keys: see `refusals.check_keys_refused`.
    one_frame_edges: knockouts to try on a video of one frame.
    """

    unread: ClassVar[Collection[str]] = ()
    unread_keys: ClassVar[tuple[str, ...]] = ()
    one_frame_edges: ClassVar[Sequence[str]] = parity.EDGES[1:]

    def unread_in(self, asked: Asked) -> Collection[str]:
        """The fields that say nothing in this case; `unread` for most families."""
        return self.unread

    def skipped_keys(self, asked: Asked) -> str:
        """Why not every key of this case is needed; nothing if it is."""
        return ""

    def skipped_generation(self, asked: Asked) -> str:
        """Why the other implementation cannot generate in this case; nothing if it can."""
        return ""

    def test_forward(self, asked: Asked) -> None:
        parity.check_forward(asked)

    def test_knockouts(self, asked: Asked) -> None:
        several = "frame_1" in asked.prompt.layout.cells
        parity.check_knockouts(asked, parity.EDGES if several else self.one_frame_edges)

    def test_generation(self, asked: Asked) -> None:
        if why := self.skipped_generation(asked):
            pytest.skip(why)
        parity.check_generation(asked)

    def test_every_key_is_needed(self, asked: Asked) -> None:
        if why := self.skipped_keys(asked):
            pytest.skip(why)
        check_keys_refused(asked.pair.checkpoint, self.unread_keys)

    def test_every_field_is_read(self, asked: Asked) -> None:
        check_fields_refused(asked.pair.checkpoint, self.unread_in(asked))

    def test_stored_frames(self, asked: Asked, tmp_path: Path) -> None:
        check_stored_frames(asked.pair.ours, tmp_path)
