"""Figures at the width of a paper's columns, their titles and notes as captions."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from flowjax.report.canvas import legend

SINGLE, DOUBLE = 3.25, 6.75
"""Widths of one column and of both, in inches: those of conferences with two columns."""

SMALLEST, LARGEST = 6.0, 8.0
"""Points of labels, whatever they were on the screen."""

TITLE = 0.25
"""Inches that a line of the title took."""


LINE = 0.14
"""Inches of a legend's line."""

LEAST = 2.4
"""Inches of height that a figure of one column needs for the label at its side."""

LONGEST = 22
"""Characters of a legend's entry of which two fit beside each other in one column."""

LONG_TICKS = 12
"""Characters of a tick's label that make a figure take both columns."""


def for_paper(figure: Figure) -> str:
    """Make a figure fit a column, one panel one and several both; gives its caption.

    Text among the data shrinks with the figure; labels, legends and titles of panels keep a size
    that can be read.
    """
    caption = figure.get_suptitle()
    lines = caption.count("\n") + 1 if caption else 0
    figure.suptitle("")
    width, height = figure.get_size_inches()
    wanted = SINGLE if _is_narrow(figure) else DOUBLE
    ratio = wanted / width
    rows = 0
    for old in list(figure.legends):
        texts = [text.get_text() for text in old.get_texts()]
        if wanted == SINGLE and max(map(len, texts)) > LONGEST:
            (axes, *_) = [a for a in figure.axes if a.get_legend_handles_labels()[1] == texts]
            old.remove()
            legend(figure, axes, columns=1)
            rows = len(texts)
    least = LEAST if wanted == SINGLE else 1.6
    figure.set_size_inches(wanted, max(least, (height - TITLE * lines) * ratio) + LINE * rows)
    inside = {text for axes in figure.axes for text in axes.texts}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        size = text.get_fontsize() * ratio
        text.set_fontsize(size if text in inside else min(LARGEST, max(SMALLEST, size)))
    for axes in figure.axes:
        axes.tick_params(labelsize=min(LARGEST, max(SMALLEST, 7 * ratio)), width=0.5, length=2)
    for line in figure.findobj(Line2D):
        assert isinstance(line, Line2D)
        line.set_linewidth(max(0.5, line.get_linewidth() * max(ratio, 0.6)))
        line.set_markersize(line.get_markersize() * max(ratio, 0.5))
    return " ".join(caption.split())


def _is_narrow(figure: Figure) -> bool:
    """Whether one column is enough: one panel, not made wide, with short names at its foot."""
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>" and axes.axison]
    names = [text.get_text() for axes in panels for text in axes.get_xticklabels()]
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    return len(panels) <= 1 and figure.get_figwidth() <= DOUBLE and longest <= LONG_TICKS
