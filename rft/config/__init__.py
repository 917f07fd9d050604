"""The configuration: one typed tree, each field documented beneath itself.

Values come from TOML, ``RFT_<SECTION>__<FIELD>`` environment variables and ``--section.field value``,
each stronger than the one before (see :mod:`rft.config_sources`). Nothing here does I/O.
"""

from rft.config.algorithm import AlgorithmConfig
from rft.config.buffering import BufferConfig
from rft.config.data import ColumnsConfig, ImportConfig
from rft.config.engines import EngineConfig, LoraConfig, engine_fields
from rft.config.evaluating import MAIN_SET, EvalConfig, EvalSet, EvalSetConfig
from rft.config.exploring import RolloutConfig, TasksConfig
from rft.config.learning import TrainerConfig, TrainerOverrides
from rft.config.log import ArchiveConfig, BrokerConfig, LogConfig, RegistryConfig
from rft.config.policy import OpenAIConfig, PolicyConfig, VllmConfig
from rft.config.processing import ExternalRewardsConfig, ProcessorConfig, RewardTerm
from rft.config.section import EntityName, Name, Section
from rft.config.staging import StageConfig
from rft.config.tracking import TrackersConfig
from rft.config.tree import Config, LauncherConfig, RunConfig
from rft.config.weights import WeightsConfig

__all__ = [
    "MAIN_SET",
    "AlgorithmConfig",
    "ArchiveConfig",
    "BrokerConfig",
    "BufferConfig",
    "ColumnsConfig",
    "Config",
    "EngineConfig",
    "EntityName",
    "EvalConfig",
    "EvalSet",
    "EvalSetConfig",
    "ExternalRewardsConfig",
    "ImportConfig",
    "LauncherConfig",
    "LogConfig",
    "LoraConfig",
    "Name",
    "OpenAIConfig",
    "PolicyConfig",
    "ProcessorConfig",
    "RegistryConfig",
    "RewardTerm",
    "RolloutConfig",
    "RunConfig",
    "Section",
    "StageConfig",
    "TasksConfig",
    "TrackersConfig",
    "TrainerConfig",
    "TrainerOverrides",
    "VllmConfig",
    "WeightsConfig",
    "engine_fields",
]
