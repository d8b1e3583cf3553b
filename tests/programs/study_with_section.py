"""A study of one run whose report has a section of its own."""

from aejax.study import Study
from tests.helpers import tiny


def section(results, directory):
    return [{"title": "A title", "text": "A text"}]


def get_study(arg=""):
    return Study("one", tiny(train__length="2 steps"), [{"seed": 0}], finish=section)
