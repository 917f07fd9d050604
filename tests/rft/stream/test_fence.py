"""The fence tells which entries of the redo log count when several incarnations of a trainer wrote there."""

from hypothesis import given
from hypothesis import strategies as st

from rft.stream.fence import CLAIM, Fence, unfenced_entries
from schemas.events import TrainingStep


def entry(incarnation: str, kind: str = "step", step: int = 1, model: str = "policy") -> TrainingStep:
    return TrainingStep(model, kind, step, 0, 0, (), (), (), "", {}, 0, incarnation)


def test_what_an_older_incarnation_writes_after_the_claim_does_not_count():
    log = [entry("a", CLAIM), entry("a", step=1), entry("b", CLAIM), entry("a", step=2), entry("b", step=2)]
    assert [(e.incarnation, e.step) for e in unfenced_entries(log)] == [("a", 1), ("b", 2)]


def test_a_retired_group_of_an_older_incarnation_does_not_count_either():
    assert not list(unfenced_entries([entry("b", CLAIM), entry("a", "retire")]))


def test_trainers_of_other_models_are_not_fenced():
    log = [entry("a", CLAIM), entry("b", CLAIM, model="shadow"), entry("a"), entry("b", model="shadow")]
    assert [e.incarnation for e in unfenced_entries(log)] == ["a", "b"]


def test_a_reader_that_starts_after_the_claim_trusts_the_first_entry():
    fence = Fence()
    assert fence.counts(entry("a"))
    assert not fence.counts(entry("zombie"))
    assert fence.counts(entry("a"))


def test_a_log_from_before_claims_existed_counts_as_a_whole():
    assert len(list(unfenced_entries([entry(""), entry("", step=2)]))) == 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_exactly_the_entries_of_the_last_claimant_count_in_any_interleaving(moves):
    log = [entry(name, CLAIM if claims else "step", number) for number, (name, claims) in enumerate(moves)]
    holder: str | None = None
    expected = []
    for number, (name, claims) in enumerate(moves):
        if claims:
            holder = name
            continue
        holder = holder or name
        if name == holder:
            expected.append(number)
    assert [e.step for e in unfenced_entries(log)] == expected
