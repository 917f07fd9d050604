"""Adapts the games of textarena, for one player or against scripted opponents: ``textarena:TicTacToe-v0``.

The model reads what is new since its last turn. The library's observation wrappers, which repeat the whole game each
turn, are left out; its action wrappers stay. Options of ours; all others go to ``textarena.make``:

- ``prompt``: text instead of the game's rules.
- ``opponent``: ``random`` plays one of the moves that the game lists as available, and ``package.module:function``
  whatever it returns for an observation and a ``random.Random``. Needed for games of two and more.
- ``players``: number of players; by default 1 or, if the game refuses that, 2.
- ``seat``: the model's number, from 0. By default the seed decides.

A game's reward comes with its end. Success: 1 for a solved game (reward 1) or a won one, 0.5 for a draw of two.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import textarena
from textarena.core import ActionWrapper, ObservationType, ObservationWrapper, Wrapper

from rft.environments.base import Step
from rft.errors import ConfigError
from rft.plugins import resolve

Opponent = Callable[[str, random.Random], str]
OPPONENT = "rollout.environment_options.opponent"
MAX_OPPONENT_MOVES = 10_000
LISTED = re.compile(r"(?:Available|Valid) [Mm]oves:(.*)")


def random_move(observation: str, dice: random.Random) -> str:
    """Return one of the moves in the last list of an observation. Raises ValueError if it has no list."""
    lists = LISTED.findall(observation)
    moves = re.findall(r"\[[^\]]+\]", lists[-1]) if lists else []
    if not moves:
        raise ValueError(
            "the game lists no available moves: name a function of your own as environment_options.opponent"
        )
    return dice.choice(moves)


class TextArenaEnvironment:
    """One game."""

    reusable = True

    def __init__(
        self,
        name: str,
        prompt: str | None = None,
        opponent: str | None = None,
        players: int | None = None,
        seat: int | None = None,
        **options: Any,
    ) -> None:
        self._game = _without_observation_wrappers(textarena.make(name, **options))
        self._prompt = prompt
        self._players = players or _fewest_players(name, self._game)
        if self._players > 1 and opponent is None:
            raise ConfigError(
                f"textarena:{name} has {self._players} players: set {OPPONENT} to 'random' or 'package.module:function'"
            )
        self._opponent: Opponent | None = None
        if opponent is not None:
            self._opponent = resolve(OPPONENT, opponent, {"random": random_move})
        self._chosen_seat = seat
        self._seat = 0
        self._dice = random.Random()
        self._seen: dict[int, str] = {}

    def reset(self, seed: int, task: Mapping[str, Any]) -> str:
        self._dice = random.Random(seed)
        self._seat = self._dice.randrange(self._players) if self._chosen_seat is None else self._chosen_seat
        self._seen = {}
        self._game.reset(num_players=self._players, seed=seed)
        if self._let_others_move():
            raise RuntimeError("the game ended before the first move")
        return self._observe(self._seat)

    def step(self, action: str) -> Step:
        done, _ = self._game.step(action=action)
        if not (done or self._let_others_move()):
            return Step(self._observe(self._seat))
        rewards, info = self._game.close()
        reward = float((rewards or {}).get(self._seat, 0.0))
        own = info.get(self._seat, {})
        return Step(str(own.get("reason") or ""), reward, True, self._success(reward), own)

    def _success(self, reward: float) -> float:
        if self._players == 2:
            return (min(max(reward, -1.0), 1.0) + 1) / 2
        return float(reward >= 1)

    def _let_others_move(self) -> bool:
        """Let the opponents move until it is the model's turn. Return whether the game has ended."""
        for _ in range(MAX_OPPONENT_MOVES):
            player = self._game.state.current_player_id
            if player == self._seat:
                return False
            assert self._opponent is not None
            done, _ = self._game.step(action=self._opponent(self._observe(player), self._dice))
            if done:
                return True
        raise RuntimeError(f"the opponents have made {MAX_OPPONENT_MOVES} moves in a row")

    def _observe(self, player: int) -> str:
        """Return what is new for ``player``. An opponent reads the whole game, for it remembers nothing."""
        told = self._game.state.observations[player]
        self._game.state.observations[player] = []
        texts = []
        for sender, text, kind in told:
            if player == self._seat and kind == ObservationType.PLAYER_ACTION and sender == player:
                continue  # the model's own turn
            if player == self._seat and kind == ObservationType.PROMPT and self._prompt is not None:
                text = self._prompt
            texts.append(text if sender == textarena.GAME_ID else f"[Player {sender}] {text}")
        new = "\n".join(filter(None, texts))
        if player == self._seat:
            return new
        self._seen[player] = "\n".join(filter(None, [self._seen.get(player, ""), new]))
        return self._seen[player]


def _without_observation_wrappers(game: Any) -> Any:
    """Return the game in its action wrappers only. The innermost game is the one whose observations are raw."""
    wrappers = []
    while isinstance(game, Wrapper):
        wrappers.append(game)
        game = game.env
    for wrapper in reversed(wrappers):
        if isinstance(wrapper, ActionWrapper):
            wrapper.env = game
            game = wrapper
        elif not isinstance(wrapper, ObservationWrapper):
            raise ConfigError(f"textarena: the wrapper {type(wrapper).__name__} is not supported")
    return game


def _fewest_players(name: str, game: Any) -> int:
    """Return 1 or 2. The games say it only by refusing another number."""
    for players in (1, 2):
        try:
            game.reset(num_players=players, seed=0)
        except AssertionError:
            continue
        return players
    raise ConfigError(f"textarena:{name} takes neither 1 nor 2 players: set rollout.environment_options.players")


def make(name: str, options: Mapping[str, Any]) -> TextArenaEnvironment:
    if name not in textarena.envs.registration.ENV_REGISTRY:
        raise ConfigError(f"textarena has no game {name!r}; textarena.pprint_registry_detailed() lists them")
    return TextArenaEnvironment(name, **options)
