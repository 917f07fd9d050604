"""Opens what a rewarder asks: a shipped judge, or the user's function. Each loads its libraries only then."""

from __future__ import annotations

import os

from rft.config import SHIPPED_REWARDERS, RewarderConfig
from rft.errors import ConfigError
from rft.plugins import FORM, is_plugin, unknown_name
from rft.rewards.functions import NAMED
from rft.rewards.judgement import Judge


def open_judge(name: str, config: RewarderConfig) -> Judge:
    """Return the judge of ``[rewarders.<name>]``. Raises ConfigError if its function or options are wrong."""
    match config.function:
        case "judge":
            from rft.rewards.language_judge import LanguageJudge

            return LanguageJudge(name, config)
        case "code_tests":
            from rft.rewards.code_tests import CodeTests

            return CodeTests(name, config)
        case "reward_model":
            from rft.rewards.reward_model import RewardModel

            return RewardModel(name, config)
    if not (is_plugin(config.function) or config.function in NAMED):
        raise ConfigError(f"rewarders.{name}: function = {unknown_name(config.function, [*SHIPPED_REWARDERS, FORM])}")
    from rft.rewards.function_judge import FunctionJudge, GroupFunctionJudge

    return FunctionJudge(name, config) if config.scope == "sample" else GroupFunctionJudge(name, config)


async def check_judge(name: str, config: RewarderConfig) -> list[str]:
    """Check all that can be known without a sample, in about a second, and return warnings.

    Neither a model is loaded nor an endpoint asked. Raises ConfigError.
    """
    if config.function == "reward_model":
        from rft.rewards.reward_model_options import check_folder

        check_folder(name, config)
        return []
    judge = open_judge(name, config)
    try:
        if config.function == "code_tests":
            from rft.rewards.code_tests import CodeTests

            assert isinstance(judge, CodeTests)
            await judge.check()
        if config.function == "judge":
            key = config.options.get("api_key_env", "OPENAI_API_KEY")
            if not os.environ.get(key) and str(config.options["base_url"]).startswith("https://"):
                return [f"rewarders.{name}: the environment variable {key} is not set, so no API key is sent"]
        return []
    finally:
        await judge.close()
