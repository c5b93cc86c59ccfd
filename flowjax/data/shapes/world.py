"""What scenes are made of."""

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (245, 220, 50),
    "cyan": (60, 210, 220),
    "purple": (170, 50, 200),
}
"""Of things."""

BACKGROUNDS: dict[str, RGB] = {
    "black": (15, 15, 15),
    "white": (245, 245, 245),
    "grey": (135, 135, 135),
    "brown": (120, 75, 40),
}

SHAPES = ("square", "circle", "triangle", "cross")

DIRECTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""Motions, as steps in x (rightwards) and y (downwards)."""

PAIRS = (("left", "right"), ("up", "down"), ("grow", "shrink"), ("appear", "disappear"))
"""Motions, each with its opposite: the same frames, the last one first."""

OPPOSITE = dict(PAIRS) | {second: first for first, second in PAIRS}

STILL = "still"
MOTIONS = (STILL, *OPPOSITE)

SPLITS = ("train", "validation", "test")


def held_out(colour: str, shape: str, motion: str) -> bool:
    """Whether only the test split has things of this colour and shape that do this.

    One colour in six for every shape and motion, and the same one for the opposite motion, so that
    what a thing looks like never tells which of the two it does. Nothing still is held out.
    """
    for index, pair in enumerate(PAIRS):
        if motion in pair:
            place = list(COLOURS).index(colour) + SHAPES.index(shape) + 2 * index
            return place % len(COLOURS) == 0
    return False
