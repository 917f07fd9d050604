"""``judge``: a language model behind an OpenAI-compatible endpoint rewards samples, alone or against others."""

from rft.rewards.language_judge.judge import LanguageJudge

__all__ = ["LanguageJudge"]
