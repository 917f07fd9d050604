"""Reads the tokenizer of a model's folder by the `tokenizers` library alone: without transformers, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rft.errors import PolicyError, first_line

TOKENIZER_FILE, SETTINGS_FILE, TEMPLATE_FILE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SLOW_FILES = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json")
"""Files of tokenizers that only transformers reads."""


class FileTokenizer:
    """The part of a Hugging Face tokenizer that prompts need."""

    def __init__(self, folder: Path) -> None:
        """Read ``tokenizer.json`` and what stands beside it. Raises PolicyError if they cannot be read."""
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        # The library raises plain Exceptions.
        except Exception as error:
            raise PolicyError(
                f"the tokenizer {folder / TOKENIZER_FILE} cannot be read: {first_line(error)}; save it again with "
                "tokenizer.save_pretrained(folder)"
            ) from error
        settings = read_json(folder / SETTINGS_FILE)
        self.bos_token_id = self._id(settings.get("bos_token"))
        self.eos_token_id = self._id(settings.get("eos_token"))
        self.pad_token_id = self._id(settings.get("pad_token"))
        self.unknown = {self.pad_token_id, self._id(settings.get("unk_token"))} - {None, self.eos_token_id}
        """Ids of tokens that stand for no text: unknown and padding."""
        model = self._tokenizer.model
        self.unknown |= {self._id(getattr(model, "unk_token", None))} - {None}
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        self.size = max(ids, default=-1) + 1
        """The largest token id, plus 1."""
        self.chat_template = _template(folder, settings)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text. Raises PolicyError if the tokenizer fails."""
        return list(self._encode(text, add_special_tokens).ids)

    def lost_characters(self, text: str) -> list[str]:
        """Return the characters of a text, each once, for which the tokenizer has no token. Spaces do not count."""
        encoding = self._encode(text, False)
        kept = bytearray(len(text))
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token not in self.unknown:
                kept[start:end] = b"\1" * (end - start)
        return list(
            dict.fromkeys(one for one, known in zip(text, kept, strict=True) if not known and not one.isspace())
        )

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        """Return the text of token ids."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def apply_chat_template(
        self,
        messages: list[Mapping[str, Any]],
        *,
        tools: Any = None,
        add_generation_prompt: bool = False,
        **options: Any,
    ) -> str:
        """Return a conversation as text, as transformers renders it."""
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise ValueError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: form}
        options.pop("tokenize", None)
        given = {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        names = {"bos_token": self._text(self.bos_token_id), "eos_token": self._text(self.eos_token_id)}
        return environment.from_string(self.chat_template).render(**given, **names, **options)

    def _encode(self, text: str, special: bool) -> Any:
        try:
            return self._tokenizer.encode(text, add_special_tokens=special)
        except Exception as error:
            raise PolicyError(
                f"the tokenizer cannot encode {text[:60]!r}: {first_line(error)}; use a tokenizer with a token for "
                "unknown text (unk_token), or that knows all bytes"
            ) from error

    def _id(self, token: Any) -> int | None:
        text = token.get("content") if isinstance(token, Mapping) else token
        return self._tokenizer.token_to_id(text) if isinstance(text, str) else None

    def _text(self, token: int | None) -> str:
        return "" if token is None else self._tokenizer.id_to_token(token) or ""


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model's folder; empty if there is no such file. Raises PolicyError."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"{file} cannot be read: {first_line(error)}; save the model again, or copy it again"
        ) from error
    if not isinstance(found, dict):
        raise PolicyError(f"{file} is a JSON {type(found).__name__}, not an object; save the model again")
    return found


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_text("utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several by name
        template = next((one.get("template") for one in template if one.get("name") == "default"), None)
    return template if isinstance(template, str) else ""
