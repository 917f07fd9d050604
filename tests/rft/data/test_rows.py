"""The mask covers exactly what the expert wrote, and ids follow from the content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_tokenizer import FORGETFUL, make_tokenizer

from rft.config import Config, ImportConfig, ProcessorConfig
from rft.data.rows import RowMaker
from rft.data.tokenizer import open_tokens
from rft.errors import RowError
from rft.policy.loading import load_tokenizer
from rft.rewards.scorer import make_scorer
from rft.stream.actions import Publish, Received
from rft.stream.pipeline import Pipeline
from rft.stream.prioritize import make_prioritizer
from rft.stream.rules import Rules
from rft.stream.validate import validate
from schemas.codec import encode
from schemas.events import Experience, Task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("model"))


def made(folder: Path, row: dict[str, Any], **source: Any) -> list[Any]:
    config = Config.model_validate({"policy": {"model": str(folder)}})
    settings = ImportConfig.model_validate({"name": "experts", "path": "x.jsonl"} | source)
    return list(RowMaker(config, settings, open_tokens(config.policy)).events(row, 1))


def written(folder: Path, experience: Experience) -> str:
    tokenizer = load_tokenizer(folder)
    return tokenizer.decode(experience.tokens[experience.action_mask == 1].tolist())


def given(folder: Path, experience: Experience) -> str:
    tokenizer = load_tokenizer(folder)
    return tokenizer.decode(experience.tokens[experience.action_mask == 0].tolist())


def test_a_plain_answer_is_learned_with_its_end_and_nothing_of_the_prompt(folder: Path) -> None:
    (one,) = made(folder, {"word": "tree", "response": "eert"}, prompt_template="{word}>")
    assert (given(folder, one), written(folder, one)) == ("tree>", "eert<|im_end|>")
    assert (one.prompt, one.response, one.kind, one.group_size) == ("tree>", "eert", "demonstration", 1)
    assert one.tokens.tolist()[:5] == load_tokenizer(folder).encode("tree>")  # as the policy is given it


def test_a_chat_answer_is_learned_with_its_end_but_not_what_the_template_puts_after(folder: Path) -> None:
    (one,) = made(folder, {"prompt": "hi", "response": "you"}, chat=True)
    assert written(folder, one) == "you<|im_end|>"
    assert given(folder, one) == "<|im_start|>user:hi<|im_end|>\n<|im_start|>assistant:\n"
    assert not one.action_mask[-1]


def test_everything_that_the_assistant_says_in_a_conversation_is_learned(folder: Path) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    (one,) = made(folder, {"talk": messages}, columns={"messages": "talk"})
    assert written(folder, one) == "b<|im_end|>d<|im_end|>"
    (last,) = made(folder, {"prompt": messages[:3], "response": "d"})
    assert written(folder, last) == "d<|im_end|>"
    assert "assistant:b" in given(folder, last)


def test_a_template_that_rewrites_earlier_answers_is_refused(tmp_path: Path) -> None:
    folder = make_tokenizer(tmp_path, FORGETFUL)
    talk = [
        {"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    ]
    with pytest.raises(RowError, match="changes earlier messages when later ones follow"):
        made(folder, {"talk": talk}, columns={"messages": "talk"})
    (one,) = made(folder, {"talk": talk[:2]}, columns={"messages": "talk"})
    assert written(folder, one) == "b<|im_end|>"


def test_chosen_and_rejected_share_a_group_and_differ_in_reward(folder: Path) -> None:
    talk = [{"role": "user", "content": "q"}]
    row = {
        "chosen": [*talk, {"role": "assistant", "content": "good"}],
        "rejected": [*talk, {"role": "assistant", "content": "bad"}],
    }
    chosen, rejected = made(folder, row, kind="preferences")
    assert chosen.group_id == rejected.group_id
    assert [(e.sample, e.reward, e.group_size, e.kind) for e in (chosen, rejected)] == [
        (0, 1.0, 2, "preference"),
        (1, 0.0, 2, "preference"),
    ]
    assert written(folder, rejected) == "bad<|im_end|>"


@pytest.mark.parametrize(
    ("row", "source", "cause"),
    [
        ({"response": "x"}, {}, "prompt.*must be a text|no column 'prompt'"),
        ({"prompt": "p"}, {}, "no column 'response'; it has prompt"),
        ({"prompt": "p", "response": ""}, {}, "must be a text, found ''"),
        ({"prompt": "p", "response": 7}, {}, "must be a text, found 7"),
        ({"prompt": "p", "response": "long"}, {"max_tokens": 4}, "has 6 tokens, more than max_tokens = 4"),
        ({"prompt": "p", "response": "x", "r": float("nan")}, {"columns": {"reward": "r"}}, "finite number"),
        ({"prompt": "p", "response": [{"role": "user"}]}, {}, "content of a message of 'user' must be a text"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, {"kind": "preferences"}, "are the same"),
        ({"prompt": "p\ud83d", "response": "x"}, {}, "column 'prompt' cannot be written as UTF-8: a lone surrogate"),
        ({"prompt": "p", "response": "\udc00"}, {}, "column 'response' cannot be written as UTF-8"),
        (
            {"prompt": "p", "response": [{"role": "user", "content": "\ud83d"}]},
            {},
            "message of 'user' cannot be written",
        ),
        ({"w": "\ud83d"}, {"prompt_template": "{w}>", "kind": "tasks"}, "the prompt cannot be written as UTF-8"),
        ({"word": "p"}, {"prompt_template": "{wrd}>", "kind": "tasks"}, "prompt_template does not fit: KeyError"),
    ],
)
def test_the_error_for_an_unusable_row_says_why(
    folder: Path, row: dict[str, Any], source: dict[str, Any], cause: str
) -> None:
    with pytest.raises(RowError, match=cause):
        made(folder, row, **source)


def test_ids_follow_from_the_content_alone(folder: Path) -> None:
    one, same, other = (made(folder, {"prompt": "p", "response": r})[0].experience_id for r in ("x", "x", "y"))
    assert one == same != other
    assert one.startswith("experts-")


def test_a_task_is_the_rendered_prompt(folder: Path) -> None:
    (task,) = made(folder, {"prompt": "hi", "a": 3}, kind="tasks", chat=True, columns={"answer": "a"})
    assert isinstance(task, Task)
    assert (task.prompt, task.answer, task.number) == (
        "<|im_start|>user:hi<|im_end|>\n<|im_start|>assistant:",
        "3",
        -1,
    )


def test_processors_accept_demonstrations_and_pairs_regardless_of_rules_for_rollouts(folder: Path) -> None:
    """Rules about small groups, equal rewards and external rewards apply only to rollouts."""
    for external in ({}, {"required": ["human"]}):
        rules = ProcessorConfig.model_validate({"min_group_size": 4, "drop_uniform_groups": True, "external": external})
        pipeline = Pipeline(Rules(rules, make_scorer(rules.rewards), make_prioritizer("fifo"), 1 << 20))
        demo = made(folder, {"prompt": "p", "response": "x"})
        pair = made(folder, {"prompt": "p", "chosen": "x", "rejected": "y"}, kind="preferences")
        released = []
        for offset, experience in enumerate([*demo, *pair]):
            validate(experience, experience.group_id.encode())
            event = Received(0, offset, experience.group_id.encode(), encode(experience))
            for action in pipeline.receive(event, 1000):
                if hasattr(action, "waiting"):
                    found = {o: Received(0, o, None, encode(e)) for o, e in enumerate([*demo, *pair])}
                    action = pipeline.room.publish(action, found, 1000)
                assert isinstance(action, Publish)
                released += action.samples
        assert [(m.experience.kind, m.verdict, m.reward) for m in released] == [
            ("demonstration", "train", 0.0),
            ("preference", "train", 1.0),
            ("preference", "train", 0.0),
        ]
        assert np.all(released[0].experience.versions == -1)
