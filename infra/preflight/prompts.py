"""Checks whether the model can read the prompts: its tokenizer, its chat template, its context."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from infra.preflight.contract import Finding
from infra.preflight.facts import Facts
from infra.preflight.tokenizer import SLOW_FILES, TOKENIZER_FILE, FileTokenizer
from rft.config import MAIN_SET
from rft.errors import PolicyError, RftError
from rft.policy.chat_template import ChatTemplate
from rft.policy.prompt_tokens import encode_prompt
from rft.tasks.base import TaskItem
from rft.tasks.chat import task_metadata
from rft.workflows.messages import CHAT

SHOWN = 8
"""Characters that a finding lists."""


def tokenizer(facts: Facts) -> Iterator[Finding]:
    """Find a tokenizer that is missing, cannot be read, or has no chat template although one is needed."""
    folder = facts.tokenizer_folder
    if folder is None:
        return
    if not (folder / TOKENIZER_FILE).is_file():
        if any((folder / name).is_file() for name in SLOW_FILES):
            yield Finding(
                "ok", f"the tokenizer in {folder} has no {TOKENIZER_FILE}, so prompts are not checked before the run"
            )
            return
        raise PolicyError(
            f"the model folder {folder.absolute()} has no tokenizer ({TOKENIZER_FILE}): copy the tokenizer's files "
            "there, or save it with tokenizer.save_pretrained(folder)"
        )
    found = facts.tokenizer or FileTokenizer(folder)
    if facts.chats and not found.chat_template and not facts.roles.isdisjoint({"explorer", "eval"}):
        raise PolicyError(
            f"the tokenizer in {folder} has no chat template, and {_why_chat(facts)} needs one: set "
            "tokenizer.chat_template and save it there, use an instruction-tuned model, or a workflow without messages"
        )
    if found.eos_token_id is None and facts.model_config.get("eos_token_id") is None:
        yield Finding(
            "warn",
            f"the tokenizer in {folder} names no end-of-sequence token",
            "every rollout runs to max_tokens; set eos_token in tokenizer_config.json",
        )
    vocabulary = facts.model_config.get("vocab_size")
    if isinstance(vocabulary, int) and found.size > vocabulary:
        yield Finding(
            "warn",
            f"the tokenizer in {folder} has {found.size} tokens, but the model's vocab_size is {vocabulary}",
            "a prompt with a token beyond it fails; copy both from the same place, or resize the model's embeddings",
        )
    yield Finding("ok", f"the tokenizer in {folder} can be read")


def prompts(facts: Facts) -> Iterator[Finding]:
    """Find prompts that have no token, that lose characters, or that leave no room for an answer."""
    if facts.tokenizer is None or facts.tasks is None:
        return
    config = facts.config
    yield from _check(facts, facts.tokenizer, facts.tasks.train, "rollout.max_tokens", config.rollout.max_tokens)
    for name, chosen in config.eval_sets.items():
        own = "eval" if name == MAIN_SET else f"eval.sets.{name}"
        setting = "rollout.max_tokens" if chosen.max_tokens == config.rollout.max_tokens else f"{own}.max_tokens"
        items = facts.tasks.sets.get(name, ())
        if chosen.max_tokens != config.rollout.max_tokens or chosen.source != config.tasks.source:
            yield from _check(facts, facts.tokenizer, items, setting, chosen.max_tokens)


def _check(
    facts: Facts, found: FileTokenizer, items: Sequence[TaskItem], setting: str, max_tokens: int
) -> Iterator[Finding]:
    texts = [text for item in items if (text := _text(facts, found, item))]
    counts = [len(encode_prompt(found, text)) for text in texts]
    if not texts:
        return
    model = facts.config.policy.model
    if empty := [text for text, count in zip(texts, counts, strict=True) if not count]:
        yield Finding(
            "fail" if len(empty) == len(texts) else "warn",
            f"the tokenizer of {model} makes no token of {len(empty)} of {len(texts)} prompts, e.g. {empty[0][:60]!r}",
            "use a model whose tokenizer knows this text, or change tasks.prompt_template",
        )
    yield from _lost(found, model, texts, [item.answer for item in items if item.answer])
    yield from _lengths(facts, counts, setting, max_tokens)


def _lost(found: FileTokenizer, model: str, texts: Sequence[str], answers: Sequence[str]) -> Iterator[Finding]:
    for what, those in (("prompts", texts), ("answers", answers)):
        lost = {text: characters for text in set(those) if (characters := found.lost_characters(text))}
        if not lost:
            continue
        nothing_left = what == "prompts" and all(_is_lost(text, lost) for text in those)
        shown = sorted({one for characters in lost.values() for one in characters})[:SHOWN]
        yield Finding(
            "fail" if nothing_left else "warn",
            f"the tokenizer of {model} has no token for {' '.join(map(repr, shown))}, which are in "
            f"{sum(text in lost for text in those)} of {len(those)} {what}",
            "the model cannot see them; use a model whose tokenizer knows them, or change the tasks"
            if what == "prompts"
            else "the model cannot write these answers; use a model whose tokenizer knows them, or change the tasks",
        )


def _is_lost(text: str, lost: Mapping[str, Sequence[str]]) -> bool:
    """Return whether nothing of a text but spaces has a token."""
    return set("".join(text.split())) == set(lost.get(text, ()))


def _lengths(facts: Facts, counts: Sequence[int], setting: str, max_tokens: int) -> Iterator[Finding]:
    context = facts.context
    if context is None or not counts:
        return
    # A conversation ends where its context does; a single turn is refused if it might not fit.
    needed = 1 if facts.chats else max_tokens
    over = [count for count in counts if count + needed > context]
    longest = max(counts)
    if not over:
        yield Finding("ok", f"prompts have up to {longest} tokens, the model's context is {context}")
        return
    room = context - longest
    what = (
        f"{len(over)} of {len(counts)} prompts do not fit: up to {longest} tokens and {setting} = {max_tokens} exceed "
        f"the model's context of {context}"
    )
    advice = f"lower {setting} to {room} or less" if room > 0 and not facts.chats else "shorten the prompts"
    yield Finding(
        "fail" if len(over) == len(counts) else "warn", what, f"{advice}, or use a model with a longer context"
    )


def _text(facts: Facts, found: FileTokenizer, item: TaskItem) -> str | None:
    """Return the prompt as the model reads it; None if the chat template is one that only transformers renders."""
    if facts.config.tasks.source == "environment" or facts.config.rollout.workflow == "environment":
        return None
    if not facts.chats:
        return item.prompt
    metadata = json.loads(task_metadata(facts.config.tasks, item))
    messages = (metadata.get(CHAT) or {}).get("messages") or [{"role": "user", "content": item.prompt}]
    try:
        return ChatTemplate(found, facts.config.policy.template_options).render(messages, prompting=True)
    except RftError:
        return None


def _why_chat(facts: Facts) -> str:
    if facts.config.tasks.chat:
        return "tasks.chat"
    return "rollout.agent" if facts.config.rollout.agent else f"rollout.workflow = {facts.config.rollout.workflow!r}"
