"""Makes a character-level model with a chat template that spells some words backwards, in seconds.

It is the quickstart's model. It imitates the agent's conversations about training words until it has both words right
in about one of eight. Reinforcement does the rest.

    python examples/agent/make_chat_model.py runs/agent-model
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rft.model_files.character_model import Parts, imitate, new_model, save_model

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "quickstart")]

from make_model import EOS, make_tokenizer  # noqa: E402
from spelling_agent import tasks  # noqa: E402

TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{{ '>' if message.role == 'user' else '<eos>' }}{% endfor %}"
)
MAX_STEPS = 300
PAIRS_PER_STEP = 32
ENOUGH = 0.12


def example_of(pair: dict[str, str]) -> Parts:
    """Return the conversation about a pair of words. What the agent says is not learned."""
    parts: list[tuple[str, bool]] = []
    for word in pair["question"].split():
        parts += [(f"{word}>", False), (f"{word[::-1]}{EOS}", True)]
    return parts


def make_model(folder: Path, steps: int = MAX_STEPS, seed: int = 0) -> None:
    """Write config, tokenizer and weights to ``folder``, after at most ``steps`` supervised steps."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    model = new_model(tokenizer, seed=seed)
    taken, right = imitate(
        model,
        tokenizer,
        map(example_of, tasks(seed)),
        enough=ENOUGH,
        max_steps=steps,
        batch=PAIRS_PER_STEP,
        probe_every=1,
    )
    print(f"{taken} supervised steps: both words right in {right:.0%} of the probes")
    save_model(model, tokenizer, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/agent-model"))
    parser.add_argument("--steps", type=int, default=MAX_STEPS, help="most supervised steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.steps, arguments.seed)
    print(f"The model is in {arguments.folder}")


if __name__ == "__main__":
    main()
