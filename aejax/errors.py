"""The two ways a run ends early that are not bugs."""


class UserError(Exception):
    """The user's mistake: one line that names the fault and the remedy. Exit status 2."""


class SavedAndStopped(Exception):
    """A signal asked the run to stop; it saved first and can be continued. Exit status 75."""
