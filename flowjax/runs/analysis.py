"""What an analysis is: options, how to measure one sample, and what is said of the rows.

An analysis is one frozen dataclass in one file. Its fields are its options, its flags on the
command line and its settings in a run's manifest; `flowjax.runs.run` does the rest.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import pyarrow as pa
from matplotlib.figure import Figure

from flowjax.asked.asked import Asked
from flowjax.data.frame_order import AS_IS
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance
from flowjax.report.page.sample import OnSample
from flowjax.report.page.section import Picture, Section
from flowjax.report.statistics import LEAST
from flowjax.report.table import Table
from flowjax.runs.each_sample import Chosen
from flowjax.runs.finished import Run
from flowjax.runs.selection import Selection
from flowjax.sweeps.plan import Flops

Rows = list[dict[str, Any]] | dict[str, Any] | pa.Table
"""Rows as mappings, columns of equal length by name, or the whole table."""


@dataclass(frozen=True)
class Option:
    """What is known of a field of an analysis beside its type and default.

    help: for the command line.
    flag: where it is not the field's name.
    positional: an argument instead of an option.
    decides: whether it decides the rows, and so is a setting of the run.
    least, most: of a number, or of each of several.
    """

    help: str
    flag: str | None = None
    positional: bool = False
    decides: bool = True
    least: int | float | None = None
    most: int | float | None = None

    @property
    def name(self) -> str | None:
        """The flag as it is written for what it turns on."""
        return None if self.flag is None else self.flag.split("/")[0]


class OptionField(NamedTuple):
    """A field of an analysis: its name, its type without what is said of it, default and option.

    default: `dataclasses.MISSING` where it must be given.
    """

    name: str
    kind: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return self.option.name or f"--{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a `Literal`; empty for any other type."""
        kinds = (self.kind, *get_args(self.kind))
        return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())

    def check(self, value: object) -> None:
        """Refuse a value that is none of the choices or outside the range.

        Raises:
            FlowjaxError: names the flag, the value and what would be right.
        """
        option, several = self.option, value if isinstance(value, tuple) else (value,)
        for one in several:
            if self.choices and one is not None and one not in self.choices:
                *most, last = self.choices
                raise FlowjaxError(f"{self.flag} {one!r}: choose {', '.join(most)} or {last}")
            if isinstance(one, int | float) and (
                (option.least is not None and one < option.least)
                or (option.most is not None and one > option.most)
            ):
                wanted = f"at least {option.least:g}"
                if option.most is not None:
                    wanted = f"{option.least:g} to {option.most:g}"
                raise FlowjaxError(f"{self.flag} {one}: give {wanted}")


class Measured(NamedTuple):
    """What is measured of a sample.

    answer: the model's most probable next token; None where it does not choose among samples.
    rows: makes the rows, if the sample counts; the columns that all analyses share are added where
        a row does not have them.
    flops: what a sweep's plan says they cost, where one is made.
    """

    answer: int | None
    rows: Callable[[], Rows]
    flops: Callable[[], Flops] | None = None


@dataclass(frozen=True)
class Work:
    """An analysis of one model.

    measure: of a sample; None if there is nothing to be measured of it. May call `advance` with
        parts of 1.
    settings: what options come to for this model, instead of them or beside them; JSON values.
    """

    measure: Callable[[Asked, Advance], Measured | None]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Report:
    """What is said of a finished run.

    parts: printed in this order.
    figures: by the names of their files.
    files: that lie beside the rows, by what they hold.
    tables: to write beside them, by what they hold: the file's name without its ending, the rows.
    """

    parts: Sequence[str | Table]
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    tables: Mapping[str, tuple[str, pa.Table]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Analysis:
    """An analysis; a subclass is one, and its docstring's first line says what it answers.

    SCHEMA: of the rows.
    CHOSEN: which samples count where `--samples` says nothing.
    CUTS: edges are cut; see `cuts`.
    OPEN: questions need no options and no answer.
    REFERENCES: open questions are asked, too, where their true answers are known.
    KEPT: a run needs a folder; otherwise it may be printed only.
    ACROSS: may run on a copy of the model that lies on devices of several processes, which then
        all read the same results.
    ON_SAMPLE: how the names of figures begin that a page leaves to `on_sample`.
    NO_ROWS: why a run has no rows, if it has none.
    """

    SCHEMA: ClassVar[pa.Schema]
    CHOSEN: ClassVar[Chosen] = "all"
    CUTS: ClassVar[bool] = False
    OPEN: ClassVar[bool] = False
    REFERENCES: ClassVar[bool] = False
    KEPT: ClassVar[bool] = True
    ACROSS: ClassVar[bool] = False
    ON_SAMPLE: ClassVar[tuple[str, ...]] = ()
    NO_ROWS: ClassVar[str] = (
        "no sample was answered as --samples asks; --samples all takes every one"
    )

    def __post_init__(self) -> None:
        """Check every option's choices and range.

        Raises:
            FlowjaxError: names the option.
        """
        for field in self.options():
            field.check(getattr(self, field.name))

    @classmethod
    def options(cls) -> tuple[OptionField, ...]:
        """Its fields, in order."""
        hints = get_type_hints(cls, include_extras=True)
        out = []
        for field in dataclasses.fields(cls):
            kind, option = get_args(hints[field.name])
            out.append(OptionField(field.name, kind, field.default, option))
        return tuple(out)

    @classmethod
    def name(cls) -> str:
        """What it is called everywhere: its file's path in its package, with spaces."""
        return cls.__module__.split(".", 1)[1].replace(".", " ")

    @property
    def order(self) -> str:
        """Order in which the model sees the frames; see `frame_order`."""
        return AS_IS

    @property
    def cuts(self) -> bool:
        """Whether edges are cut, so that first all samples are answered.

        Their accuracy is printed and stored then. `Work.measure` is called for the answers alone,
        too, so it should compute nothing more before `Measured.rows` is called.
        """
        return self.CUTS

    def settings(self) -> dict[str, Any]:
        """The options that decide the rows, as JSON values."""
        values = {f.name: getattr(self, f.name) for f in self.options() if f.option.decides}
        return {
            name: str(value) if isinstance(value, Path) else value for name, value in values.items()
        }

    def preview(self, model: Path, questions: Selection) -> bool:
        """Print something instead of running, where that is asked; whether it was.

        Raises:
            FlowjaxError: a bad input.
        """
        del model, questions
        return False

    def samples(self, questions: Selection) -> Sequence[Sample]:
        """The samples that are asked.

        Raises:
            FlowjaxError: see `Selection.read`.
        """
        return questions.read()

    def start(self, loaded: LoadedModel, samples: Sequence[Sample], chosen: Chosen) -> Work:
        """Check the options against a model, and make what measures a sample.

        Args:
            loaded: the model.
            samples: all of the run.
            chosen: which of them count.

        Raises:
            FlowjaxError: an option that this model cannot serve.
        """
        raise NotImplementedError

    def finish(self, run: Run, loaded: LoadedModel, samples: Sequence[Sample]) -> None:
        """What is kept beside the rows; by default nothing.

        Raises:
            FlowjaxError: something that cannot be read or written.
        """

    @staticmethod
    def write_reference(run: Run) -> list[Path]:
        """Write a finished run's rows as the records of the published code; the files.

        Raises:
            FlowjaxError: an analysis of which it writes none.
        """
        raise FlowjaxError(
            f"{run.path}: only the rows of `flowjax sweep` have records in the reference's layout"
        )

    @staticmethod
    def report(run: Run) -> Report:
        """Tables and figures of a finished run, from its folder alone.

        Raises:
            FlowjaxError: rows that do not belong together.
        """
        raise NotImplementedError

    @classmethod
    def sections(cls, runs: Sequence[Run]) -> list[Section]:
        """What a page shows of finished runs of this analysis; by default what `report` gives.

        Raises:
            FlowjaxError: see `report`.
        """
        return [
            cls.section(index, run) for index, run in enumerate(runs) if not cls._is_on_samples(run)
        ]

    @classmethod
    def _is_on_samples(cls, run: Run) -> bool:
        """Whether a run is of too few samples to say more than a page shows of one of them."""
        names = run.rows["sample_id"].unique().to_pylist()
        return len(names) < LEAST and cls.on_sample(run, names[0]) is not None

    @staticmethod
    def on_sample(run: Run, sample_id: str) -> OnSample | None:
        """What a page shows of one sample of a run; by default nothing.

        Raises:
            FlowjaxError: a file of the run that is damaged.
        """
        del run, sample_id
        return None

    @classmethod
    def section(cls, index: int, run: Run) -> Section:
        """The text, tables and figures of `report`, under the analysis's name."""
        report = cls.report(run)
        name = cls.name()
        models = ", ".join(run.rows["model"].unique().to_pylist())
        said = (cls.__doc__ or "").splitlines()[0]
        pictures = [
            Picture.of(figure, f"{name}, figure {key}: {figure.get_suptitle()}")
            for key, figure in report.figures.items()
            if not key.startswith(cls.ON_SAMPLE)
        ]
        key = f"{name.replace(' ', '-')}-{index + 1}"
        return Section(key, f"{name.capitalize()}: {models}", said, [*report.parts, *pictures])
