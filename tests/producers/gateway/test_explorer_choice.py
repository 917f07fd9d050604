"""Which explorer generates for a session."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from producers.gateway.explorer_choice import SILENT_S, Explorer, ExplorerChoice
from producers.gateway.explorer_keys import ExplorerKeys


def choice_of(*names: str, now: float = 100.0) -> ExplorerChoice:
    choice = ExplorerChoice()
    for name in names:
        choice.announced(name, f"http://{name}", {}, now)
    return choice


def chosen(choice: ExplorerChoice, session: str, *avoid: str) -> str:
    found = choice.choose(session, avoid)
    assert found is not None
    return found.member_id


def test_a_new_session_goes_to_the_least_loaded_explorer_and_stays_there() -> None:
    choice = choice_of("a", "b")
    choice.announced("a", "http://a", {"serving": 3.0, "running": 2.0}, 101.0)
    assert chosen(choice, "one") == "b"
    choice.announced("b", "http://b", {"serving": 9.0}, 102.0)
    assert chosen(choice, "two") == "a"
    assert chosen(choice, "one") == "b"


def test_requests_of_our_own_count_before_the_explorer_says_so() -> None:
    choice = choice_of("a", "b")
    asked = choice.choose("one")
    assert asked is not None
    choice.asked(asked)
    assert chosen(choice, "two") != asked.member_id
    choice.answered(asked)


def test_sessions_of_idle_explorers_are_spread() -> None:
    choice = choice_of("a", "b", "c")
    assert set(Counter(chosen(choice, str(n)) for n in range(9)).values()) == {3}


def test_a_session_moves_for_good_when_its_explorer_is_gone() -> None:
    choice = choice_of("a", "b")
    first = choice.choose("one")
    assert first is not None
    choice.gone(first.member_id)
    assert not choice.is_there(first)
    other = chosen(choice, "one")
    assert other != first.member_id
    choice.announced(first.member_id, first.url, {}, 101.0)
    assert chosen(choice, "one") == other


def test_a_session_comes_back_to_an_explorer_that_was_only_busy() -> None:
    choice = choice_of("a", "b")
    first = chosen(choice, "one")
    assert chosen(choice, "one", first) != first
    assert chosen(choice, "one") == first
    assert choice.choose("one", ["a", "b"]) is None


def test_an_explorer_that_is_silent_while_others_are_not_is_gone() -> None:
    choice = choice_of("a", "b")
    choice.announced("b", "http://b", {}, 100.0 + SILENT_S)
    assert {one.member_id for one in choice.explorers} == {"a", "b"}
    choice.announced("b", "http://b", {}, 101.0 + SILENT_S)
    assert {one.member_id for one in choice.explorers} == {"b"}


def test_all_are_silent_while_the_broker_is_away_and_none_is_gone() -> None:
    choice = choice_of("a", "b")
    choice.announced("a", "http://a", {}, 100.5)
    assert {one.member_id for one in choice.explorers} == {"a", "b"}


def test_an_explorer_at_another_address_is_another_one() -> None:
    choice = choice_of("a")
    before = choice.choose("one")
    assert before is not None
    choice.announced("a", "http://elsewhere", {}, 101.0)
    assert not choice.is_there(before)


@given(st.lists(st.tuples(st.sampled_from("sgaef"), st.integers(0, 3), st.integers(0, 4))))
def test_no_session_is_sent_to_an_explorer_that_is_not_there(actions: list[tuple[str, int, int]]) -> None:
    choice, now, under_way = ExplorerChoice(), 0.0, list[Explorer]()
    for action, explorer, session in actions:
        now += 1.0
        match action:
            case "s":
                choice.announced(f"e{explorer}", f"http://{explorer}", {"running": float(session)}, now)
            case "g":
                choice.gone(f"e{explorer}")
            case "a":
                found = choice.choose(f"s{session}")
                assert (found is None) == (not choice.explorers)
                if found is not None:
                    assert choice.is_there(found)
                    choice.asked(found)
                    under_way.append(found)
            case "e":
                choice.forget(f"s{session}")
            case _ if under_way:
                choice.answered(under_way.pop())


def test_keys_between_gateways_and_explorers_need_the_secret() -> None:
    keys, other = ExplorerKeys("secret"), ExplorerKeys("other")
    url = "http://10.0.0.1:4000"
    assert keys.proves(url, keys.proof(url))
    assert not keys.proves(url + "0", keys.proof(url))
    assert not other.proves(url, keys.proof(url))
    assert not keys.proves(url, "é")
    assert keys.opens(url, keys.key(url))
    assert not keys.opens(url, keys.proof(url))
    assert not keys.opens(url, keys.key(url + "0"))
    assert not other.opens(url, keys.key(url))
