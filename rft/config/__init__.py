"""The configuration: one typed tree, one file a section, each field documented below itself.

Values come from TOML, ``RFT_<SECTION>__<FIELD>`` environment variables and ``--section.field value``; a later one wins
over an earlier one (see :mod:`rft.config_sources`). Nothing here does I/O.
"""

from rft.config.algorithm import AlgorithmConfig
from rft.config.archive import ArchiveConfig
from rft.config.broker import BrokerConfig
from rft.config.buffer import BufferConfig
from rft.config.eval import MAIN_SET, EvalConfig, EvalSet, EvalSetConfig
from rft.config.gateway import GatewayConfig
from rft.config.imports import ColumnsConfig, ImportConfig
from rft.config.launcher import LauncherConfig
from rft.config.log import LogConfig, default_topic
from rft.config.policy import OpenAIConfig, PolicyConfig, VllmConfig
from rft.config.processor import ExternalRewardsConfig, ProcessorConfig, RewardTerm
from rft.config.registry import RegistryConfig
from rft.config.rewarders import SHIPPED_REWARDERS, RewarderConfig
from rft.config.rollout import RolloutConfig
from rft.config.run import RunConfig
from rft.config.section import EntityName, Name, Section
from rft.config.stages import StageConfig
from rft.config.tasks import TasksConfig
from rft.config.telemetry import TelemetryConfig
from rft.config.trackers import TrackersConfig
from rft.config.trainer import LoraConfig, TrainerConfig, engine_fields
from rft.config.trainers import TrainerOverrides
from rft.config.tree import Config
from rft.config.weights import WeightsConfig

__all__ = [
    "MAIN_SET",
    "SHIPPED_REWARDERS",
    "AlgorithmConfig",
    "ArchiveConfig",
    "BrokerConfig",
    "BufferConfig",
    "ColumnsConfig",
    "Config",
    "EntityName",
    "EvalConfig",
    "EvalSet",
    "EvalSetConfig",
    "ExternalRewardsConfig",
    "GatewayConfig",
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
    "RewarderConfig",
    "RolloutConfig",
    "RunConfig",
    "Section",
    "StageConfig",
    "TasksConfig",
    "TelemetryConfig",
    "TrackersConfig",
    "TrainerConfig",
    "TrainerOverrides",
    "VllmConfig",
    "WeightsConfig",
    "default_topic",
    "engine_fields",
]
