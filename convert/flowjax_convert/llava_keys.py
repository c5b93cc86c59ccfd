"""Keys of LLaVA's checkpoints, which every few versions of `transformers` spelled differently."""

from flowjax_convert.mapping import Ignored, Spelling

TOWER = "vision_tower.vision_model."
PROJECTOR = "multi_modal_projector."
DECODER, HEAD = "language_model.model.", "language_model.lm_head"
NEWLINE = "image_newline"

SPELLINGS = (
    # The first one found holds. `vision_tower.` is also how the usual keys begin.
    Spelling(TOWER, TOWER),
    Spelling(TOWER, f"model.{TOWER}"),
    Spelling(TOWER, "model.vision_tower."),
    Spelling(TOWER, "vision_tower."),
    Spelling(PROJECTOR, f"model.{PROJECTOR}"),
    Spelling(DECODER, "model.language_model."),
    Spelling(f"{HEAD}.", "lm_head."),
    Spelling(NEWLINE, f"model.{NEWLINE}"),
)
"""From the released files (usual) to those that `transformers` 4.52 and 5 write."""


def newline_ignored(width: int, *, required: bool) -> Ignored:
    """The token at the ends of a tiled image's rows, in families whose videos have none.

    required: whether every checkpoint of the family has it.
    """
    reason = "ends the rows of tiled images; video prompts of this family have no such token"
    return Ignored(NEWLINE, reason, (width,), required)
