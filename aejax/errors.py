"""Exceptions that end a command without a traceback."""


class UserError(Exception):
    """A mistake of the user. The message is one line with the fault and the remedy. Exit status
    2."""


class SavedAndStopped(Exception):
    """A run was stopped by a signal, after it saved a checkpoint; it can be resumed. Exit status
    75."""
