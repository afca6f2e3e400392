"""Every open intent is asked for, under way, or held for a reason that is true."""

from datetime import UTC, datetime, timedelta

import pytest

from resources.attempts import FIRST_PAUSE, LONGEST_PAUSE, Ask, Attempt, Held, Underway, next_step

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def ended(state: str, number: int = 1, ago: timedelta = timedelta(hours=1), **how: str) -> Attempt:
    return Attempt(number, state, f"run-{number}", NOW - ago, **how)


def test_what_has_no_run_yet_is_asked_for():
    assert next_step([], 3, NOW) == Ask(1)


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_what_is_queued_or_runs_is_left_alone(state):
    assert isinstance(next_step([ended("failed"), Attempt(2, state, "run-2")], 3, NOW), Underway)


@pytest.mark.parametrize("state", ["failed", "cancelled", "succeeded"])
def test_a_run_that_left_its_intent_open_is_followed_by_another_up_to_the_limit(state):
    assert next_step([ended(state)], 3, NOW) == Ask(2)
    assert next_step([ended(state), ended(state, 2)], 3, NOW) == Ask(3)
    held = next_step([ended(state, 3, error="disk full")], 3, NOW)
    assert isinstance(held, Held)
    assert "run-3" in held.reason and "disk full" in held.reason and "tried 3 times" in held.reason


def test_the_order_in_which_runs_are_given_does_not_matter():
    assert next_step([ended("cancelled", 2), ended("failed", 1)], 3, NOW) == Ask(3)


def test_a_verdict_is_not_tried_again_and_is_the_reason():
    held = next_step([ended("failed", verdict="check rows_present: no row could be read")], 3, NOW)
    assert held == Held("run run-1: check rows_present: no row could be read")


def test_a_pause_that_doubles_lies_between_two_attempts():
    soon = ended("failed", ago=FIRST_PAUSE / 2, error="no answer")
    waits = next_step([soon], 9, NOW)
    assert isinstance(waits, Underway) and "no answer; tried again at 12:00:07 UTC" in waits.reason
    assert next_step([soon], 9, NOW + FIRST_PAUSE) == Ask(2)
    assert isinstance(next_step([ended("failed", 2, ago=FIRST_PAUSE)], 9, NOW), Underway)
    assert next_step([ended("failed", 8, ago=LONGEST_PAUSE)], 9, NOW) == Ask(9)
