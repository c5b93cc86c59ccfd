"""Pathways: the edges kept, per layer, written as the knockouts that leave them."""

from collections.abc import Collection

from flowjax.edges import CROSS_FRAME, Edge, Knockout


def paper_pathway(
    *,
    cross_frame: Collection[int],
    video_to_question: Collection[int],
    question_to_last: Collection[int],
    layers: int,
) -> tuple[Knockout, ...]:
    """The paper's effective pathway in its literal form.

    Each named edge is kept in the given layers (0-based) and cut elsewhere; last -> last and
    video -> last are cut in every layer, video -> video after the last video -> question layer,
    question -> question after the last question -> last layer. Text that is neither video,
    question nor last is never cut.
    """
    every = range(layers)
    cut = {
        Edge(CROSS_FRAME, CROSS_FRAME): set(every) - set(cross_frame),
        Edge("video", "question"): set(every) - set(video_to_question),
        Edge("question", "last"): set(every) - set(question_to_last),
        Edge("last", "last"): set(every),
        Edge("video", "last"): set(every),
        Edge("video", "video"): set(every[max(video_to_question) + 1 :]),
        Edge("question", "question"): set(every[max(question_to_last) + 1 :]),
    }
    return tuple(Knockout((edge,), tuple(sorted(where))) for edge, where in cut.items() if where)
