"""What Orbax logs while a model is written."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_expected_warnings() -> Iterator[None]:
    """Drop what Orbax logs of what is done on purpose, and of exceptions that it raises too."""
    expected = ("Skipping merge of OCDBT", "ArrayMetadata pers", "_SignalingThread.run() raised")

    def unexpected(record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in expected)

    logger = logging.getLogger("absl")
    logger.addFilter(unexpected)
    try:
        yield
    finally:
        logger.removeFilter(unexpected)
