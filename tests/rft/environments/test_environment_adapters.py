"""Each adapter with the real library, in the process that serves it in a run."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.processes import free_port
from rft.config import RolloutConfig
from rft.environments.pool import EnvironmentPool, StepReply
from rft.errors import RolloutError

HERE = Path(__file__).parent
TASK = {"prompt": "p", "answer": None, "metadata": {}}


def play(
    environment: str,
    options: dict[str, Any],
    actions: Sequence[str],
    seeds: Sequence[int] = (0,),
    task: dict[str, Any] = TASK,
) -> list[tuple[str, list[StepReply]]]:
    """Return the first observation and the steps of one episode for each seed, all in one process."""

    async def run() -> list[tuple[str, list[StepReply]]]:
        pool = EnvironmentPool(
            RolloutConfig(
                environment=environment, environment_options=options, environment_spare=0, environment_workers=1
            )
        )
        episodes = []
        try:
            for seed in seeds:
                async with pool.episode(seed, task) as episode:
                    steps: list[StepReply] = []
                    for action in actions:
                        steps.append(await episode.step(action))
                        if steps[-1].done:
                            break
                    episodes.append((text_of(episode.messages), steps))
        finally:
            await pool.close()
        assert pool.replaced == 0
        return episodes

    return asyncio.run(run())


def text_of(messages: list[dict[str, Any]]) -> str:
    return "\n".join(message["content"] for message in messages)


def test_gymnasium_draws_a_lake_and_names_its_actions() -> None:
    options = {"actions": ["left", "down", "right", "up"], "is_slippery": False, "prompt": "Walk to G."}
    moves = ["down", "jump", "down", "right", "right", "down", "right"]
    ((first, steps),) = play("gymnasium:FrozenLake-v1", options, moves)
    assert first == "Walk to G.\n[S]FFF\nFHFH\nFFFH\nHFFG"
    assert text_of(steps[1].messages) == "There is no action 'jump'. Choose one of left, down, right, up."
    assert [step.reward for step in steps] == [0.0, None, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert (steps[-1].done, steps[-1].success) == (True, 1.0)
    ((_, fallen),) = play("gymnasium:FrozenLake-v1", options, ["right", "down"])
    assert (fallen[-1].done, fallen[-1].reward, fallen[-1].success) == (True, 0.0, 0.0)


def test_gymnasium_takes_text_environments_that_a_module_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    ((first, steps),) = play("gymnasium:text_environment:Echo-v0", {"success_return": 2}, ["a", "b", "c"], seeds=[5])
    assert first == "seed 5"
    assert [text_of(step.messages) for step in steps] == ["heard a", "heard b", "heard c"]
    assert (steps[-1].done, steps[-1].success, steps[-1].info) == (True, 1.0, {"truncated": True})


def test_reasoning_gym_scores_with_its_own_scorer() -> None:
    # This dataset has no answer to compare with.
    ((first, steps),) = play("reasoning_gym:graph_color", {"num_colors": 3}, ["no coloring"])
    assert first.startswith("Please provide a coloring")
    assert steps[0].done
    assert steps[0].success == steps[0].reward != 1.0


def test_reasoning_gym_scores_the_task_of_its_source() -> None:
    import reasoning_gym

    item = reasoning_gym.create_dataset("countdown", size=1, seed=3)[0]
    task = {"prompt": item["question"], "answer": item["answer"], "metadata": json.loads(json.dumps(item["metadata"]))}
    right = item["metadata"]["expression"]
    ((first, steps), (again, _)) = play("reasoning_gym:countdown", {}, [right], seeds=[0, 1], task=task)
    assert first == again == item["question"]
    assert (steps[0].reward, steps[0].success) == (1.0, 1.0)


def test_textarena_plays_for_one() -> None:
    guesses = [f"[{number}]" for number in range(1, 8)]
    options = {"min_number": 1, "max_number": 7, "max_turns": 7}
    games = play("textarena:GuessTheNumber-v0", options, guesses, seeds=range(6))
    assert all(first.startswith("You are Player 0. You are playing Guess The Number.") for first, _ in games)
    assert all((steps[-1].done, steps[-1].reward, steps[-1].success) == (True, 1.0, 1.0) for _, steps in games)
    assert len({len(steps) for _, steps in games}) > 1, "the seed decides the number"
    # Only what is new, and without the model's own words.
    assert {text_of(steps[0].messages) for _, steps in games} <= {
        "The target number is higher.",
        "Congratulations! You guessed the correct number.",
    }


def test_textarena_plays_against_an_opponent_that_the_seed_decides() -> None:
    options = {"opponent": "random", "prompt": "Play."}
    cells = [str(cell) for cell in range(9)]
    games = play("textarena:TicTacToe-v0", options, cells, seeds=[*range(8), *range(8)])
    assert games[:8] == games[8:]
    assert len({repr(game) for game in games}) > 4
    assert {len(first.split("Available Moves")) for first, _ in games} == {2, 3}, "the model moves first or second"
    for first, steps in games:
        assert first.startswith("Play.\n")
        assert steps[-1].done
        assert (steps[-1].reward, steps[-1].success) in [(1.0, 1.0), (0.0, 0.5), (-1.0, 0.0)]
    assert {steps[-1].success for _, steps in games} >= {0.0, 1.0}


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("textarena:TicTacToe-v0", {}, "has 2 players: set rollout.environment_options.opponent"),
        ("textarena:TicTacTo", {}, "textarena has no game 'TicTacTo'"),
        ("textarena:TicTacToe-v0", {"opponent": "rando"}, "did you mean 'random'?"),
        ("gymnasium:NoLake-v1", {}, "NoLake"),
        ("gymnasium:Pendulum-v1", {}, "has actions of type Box"),
        ("textarina:TicTacToe-v0", {}, "rollout.environment = 'textarina:TicTacToe-v0'"),
        ("lake", {}, "choose gymnasium:<name>, "),
    ],
)
def test_a_wrong_name_or_option_is_one_clear_error(name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(RolloutError) as raised:
        play(name, options, [])
    assert problem in str(raised.value)


@pytest.fixture(scope="module")
def openenv_server() -> Iterator[str]:
    port = free_port()
    server = subprocess.Popen([sys.executable, str(HERE / "openenv_server.py"), str(port)])
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            httpx.get(f"{url}/health")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield url
    server.kill()
    server.wait()


def test_openenv_plays_on_a_server(openenv_server: str) -> None:
    options = {"prompt": "Guess.", "reset": {"mark": "!"}, "success_return": 1}
    games = play(f"openenv:{openenv_server}", options, ["a", "b", "c"], seeds=range(8))
    assert {first for first, _ in games} == {"Guess.\nA letter from a to d!"}
    for _, steps in games:
        texts = [text_of(step.messages) for step in steps]
        assert texts in [["right"], ["later", "right"], ["later", "later", "right"], ["later"] * 3]
        assert steps[-1].done
        assert steps[-1].reward == steps[-1].success == float(texts[-1] == "right")
    assert {steps[-1].success for _, steps in games} == {0.0, 1.0}


def test_openenv_sends_whole_actions_as_json(openenv_server: str) -> None:
    options = {"action_field": "none", "observation_field": "text"}
    actions = ["not JSON", "[1]", '{"message": "0"}']
    ((_, steps),) = play(f"openenv:{openenv_server}", options, actions)
    assert [text_of(step.messages)[:27] for step in steps] == [
        "The action is not JSON: Exp",
        "The action must be a JSON o",
        "later",
    ]


def test_a_fault_of_an_openenv_server_is_one_error(openenv_server: str) -> None:
    with pytest.raises(RolloutError, match=r"step raised .*the server's fault"):
        play(f"openenv:{openenv_server}", {}, ["fail"])
    with pytest.raises(RolloutError, match="its start raised Connection"):
        play(f"openenv:http://127.0.0.1:{free_port()}", {}, [])
