"""One file per model family; each defines `FAMILY` (see `flowjax.models.registry`)."""
