"""The one exception that a user of flowjax can cause."""


class FlowjaxError(Exception):
    """A bad input: one line that names the file, field or value and says what would be right.

    The command line prints it to standard error and exits with 2; nothing half-written is left.
    """
