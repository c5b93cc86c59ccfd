"""The version of the distribution `flowjax-videollm`, recorded with every result."""

__version__ = "0.1.0"
