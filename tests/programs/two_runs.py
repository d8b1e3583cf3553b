"""An experiment of two runs of a second, which differ in the seed."""

from aejax.study import Study
from tests.data.test_start_line import tiny


def get_config(arg=""):
    return tiny()


def get_study(arg=""):
    return Study("two", tiny, runs=[{"seed": 0}, {"seed": 1}])
