"""The error of refused input, and the exit statuses of the commands."""

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130  # 130: 128 + SIGINT, as shells have it


class Refused(ValueError):
    """Something is refused before anything was started or written.

    The message says where, what was expected, what was found, and in which file or flag.
    """
