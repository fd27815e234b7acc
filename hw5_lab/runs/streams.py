"""Printing that never ends a run: to a closed pipe, a full disk, or a terminal without the characters."""

import os
import sys


class Forgiving:
    """A text stream whose faults are not the program's: after the first one everything goes to the null device.

    Characters that the stream cannot encode are written as their escapes.
    """

    def __init__(self, stream):
        self.stream = stream
        self.works = stream is not None  # None where the descriptor was closed when Python started

    def write(self, text):
        self.attempt(lambda: self.stream.write(text))
        return len(text)

    def flush(self):
        self.attempt(lambda: self.stream.flush())

    def attempt(self, action):
        if not self.works:
            return
        try:
            action()
        except (OSError, ValueError):  # a ValueError is that of a closed file
            self.works = False
            try:  # what is left in the buffer must not fail at the end of the process
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            except (OSError, ValueError):
                pass

    def isatty(self):
        return self.works and self.stream.isatty()

    def fileno(self):
        if self.stream is None:
            raise OSError("this stream is closed")
        return self.stream.fileno()

    @property
    def encoding(self):
        return getattr(self.stream, "encoding", None) or "utf-8"


class forgiving_streams:
    """While this context lasts, sys.stdout and sys.stderr are forgiving."""

    def __enter__(self):
        for descriptor in (0, 1, 2):
            try:
                os.fstat(descriptor)
            except OSError:  # closed: else the next file would take its number, and messages would go into it
                os.open(os.devnull, os.O_RDWR)
        self.before = sys.stdout, sys.stderr
        for stream in self.before:
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = map(Forgiving, self.before)

    def __exit__(self, *_):
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = self.before
