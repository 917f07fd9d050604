"""The launcher shows each problem of a role once, the worst first."""

from infra.launcher.problems import NewProblems, Problem, beside, problems
from rft.telemetry.notes import Note


def test_errors_come_first_then_the_newest() -> None:
    found = problems(
        {
            "explorer-0": [Note("warning", "slow", 3, 1.0, 9.0), Note("warning", "old", 1, 1.0, 1.0)],
            "trainer": [Note("error", "the disk is full", 1200, 1.0, 2.0)],
        }
    )
    assert [str(problem) for problem in found] == [
        "error, trainer: the disk is full (1,200 times)",
        "warning, explorer-0: slow (3 times)",
        "warning, explorer-0: old",
    ]


def test_a_problem_that_comes_again_is_not_new() -> None:
    new = NewProblems()
    one, again = (
        Problem("trainer", "error", "step 3 failed", 1, 1.0),
        Problem("trainer", "error", "step 4 failed", 2, 2.0),
    )
    other = Problem("explorer-0", "error", "step 4 failed", 1, 3.0)
    assert new.take([one]) == [one]
    assert new.take([other, again]) == [other]


def test_the_last_lines_do_not_repeat_the_reason() -> None:
    one, other = Problem("trainer", "error", "OSError: full", 1, 1.0), Problem("trainer", "warning", "slow", 1, 1.0)
    assert beside("trainer: OSError: full", [one, other]) == [other]
