"""Early stopping is state: what an evaluation changes, and what a checkpoint gives back."""

import json

from aejax.training.stopping import Stopping


def evaluated(values, by="psnr", patience=0, stopping=None):
    stopping = stopping or Stopping()
    stopping.follow(by)
    for value in values:
        stopping.evaluated({"psnr": value, "mse": value}, patience)
    return stopping


def test_patience_counts_evaluations_that_are_no_better():
    assert evaluated([1.0, 2.0, 2.0, 1.5]) == Stopping("psnr", 2.0, 2, "")
    stopping = evaluated([1.0, 2.0, 2.0, 1.5], patience=2)
    assert stopping.stopped_by == "psnr did not improve in 2 evaluations"


def test_smaller_is_better_with_a_minus():
    assert evaluated([3.0, 2.0, 5.0], by="-mse") == Stopping("-mse", -2.0, 1, "")


def test_a_resumed_run_stops_where_an_uninterrupted_one_does():
    first = evaluated([2.0, 1.0], patience=2)
    stored = json.loads(json.dumps(first.to_json()))
    resumed = evaluated([1.5], patience=2, stopping=Stopping.from_json(stored))
    assert resumed == evaluated([2.0, 1.0, 1.5], patience=2) and resumed.stopped_by


def test_another_metric_or_a_longer_run_begins_anew():
    stopping = evaluated([2.0, 1.0, 1.0], patience=2)
    stopping.follow("psnr")
    assert stopping.stopped_by, "the same metric changes nothing"
    stopping.lengthened()
    assert stopping == Stopping("psnr", 2.0, 0, "")
    stopping.follow("-mse")
    assert stopping == Stopping("-mse")


def test_the_note_of_an_older_checkpoint():
    note = {"by": "psnr", "best": 20.5, "worse": 1, "stopped_by": ""}
    assert Stopping.from_json(note) == Stopping("psnr", 20.5, 1, "")
    assert Stopping().to_json().keys() == note.keys()


def test_without_a_deciding_metric_nothing_is_counted():
    assert evaluated([1.0, 0.5, 0.1], by="", patience=1) == Stopping()
