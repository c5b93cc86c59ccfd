"""Processes that a command begins."""

import multiprocessing
import multiprocessing.connection
import os
import threading


def end_with_parent() -> None:
    """End this worker when the process that began it is gone; killed, that could not say so."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)  # what is half written has no name yet

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
