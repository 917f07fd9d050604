"""Does the work of one rank of the deepspeed engine.

A rank computes its part of the micro-batches and holds its part of the optimizer's state (ZeRO-1), of the gradients
(ZeRO-2) and of the weights (ZeRO-3). All ranks run the same methods at once: rank 0 in the trainer's process, the
others when rank 0's message asks for it. Each rank plans the whole step from the whole batch, then computes its own
part.

The loss of a micro-batch is its part of the step's loss, whatever the number of ranks, so gradients must be summed.
DeepSpeed averages them instead, so losses are multiplied by the number of ranks.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rft.config import Config, TrainerConfig
from rft.errors import PolicyError
from rft.lora.peft_layers import adapter_parameters
from rft.telemetry.activity import role_activity
from rft.training.batch import MicroBatch, StepBatch
from rft.training.engines.channel import Channel
from rft.training.engines.torch_engine import step_metrics
from rft.training.engines.trained_model import TrainedModel, prepare_torch
from rft.training.engines.value_head_optimizer import ValueHeadOptimizer
from rft.training.engines.zero_partitions import buckets, set_optimizer_state, set_weight, whole_shape
from rft.training.learning_rate import learning_rate_of
from rft.training.micro_batches import make_micro_batches, micro_batch_indices, split_over_ranks
from rft.training.objective import Objective
from rft.training.scores import Models, Scores

_STATES = ("exp_avg", "exp_avg_sq")


class Shard:
    """The model and optimizer of one rank."""

    def __init__(self, folder: Path, config: Config, rank: int, ranks: int, store: Path) -> None:
        """Load the model in ``folder`` and join the other ranks through the file ``store``. Raises PolicyError."""
        deepspeed = import_deepspeed()
        prepare_torch(config.trainer.threads, config.run.seed)
        gpu = torch.cuda.is_available() and config.trainer.device != "cpu"
        if gpu:
            torch.cuda.set_device(rank)
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            store=dist.FileStore(str(store), ranks),
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=config.trainer.rank_timeout_s),
        )
        self.channel = Channel()
        self._ranks = ranks
        self.config = config.trainer
        self.objective = Objective.from_config(config)
        self.policy = TrainedModel(folder, config)
        if self.objective.teacher is not None:
            self.policy.set_teacher(Path(self.objective.teacher))
        self.objective.attach(self.policy.module)
        self._value_head_optimizer = ValueHeadOptimizer(self.objective, config.trainer)
        self._bfloat16 = config.trainer.dtype == "bfloat16"
        whole_weights = self._whole_weights() if self._bfloat16 else {}
        deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo")
        optimizer = torch.optim.AdamW(
            self.policy.trainable,
            # The rate is set at each step. Until then no step may change the weights.
            lr=0.0,
            betas=config.trainer.betas,
            weight_decay=config.trainer.weight_decay,
            fused=True,
        )
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=self.policy.module, optimizer=optimizer, config=settings(config.trainer)
        )
        self._frozen: dict[str, Tensor] = {}
        if self._bfloat16:
            self.policy.disable_autocast()
            self._set_whole_weights(whole_weights)
        self._updates = 0

    def set_reference(self, folder: Path) -> str:
        """See :class:`rft.training.engines.base.Engine`."""
        return self.policy.set_reference(folder)

    def step(self, number: int, batch: StepBatch, *, version: int | None) -> dict[str, float]:
        """See :class:`rft.training.engines.base.Engine`. The metrics are complete on rank 0 only."""
        started = time.perf_counter()
        models = Models(self._policy_logits, self._reference_logits, self.policy.teacher_logits)
        step_loss = self.objective.begin(number, batch, version=version, device=self.policy.device)
        learning_rate = learning_rate_of(number, self.config)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._score(step_loss.scores, models)
        norms = []
        for update in step_loss.updates():
            micro_batches = self._micro_batches(batch, update.units)
            for index, (micro_batch, own) in enumerate(micro_batches):
                role_activity().progressed()
                loss = step_loss.loss(update, micro_batch, models, counted=own)
                loss = loss * (self._ranks if own else 0.0)
                if step_loss.trains_policy:
                    self._engine.set_gradient_accumulation_boundary(index == len(micro_batches) - 1)
                    self._engine.backward(loss)
                else:
                    loss.backward()
            norms.append(self._update(learning_rate, step_loss.trains_policy) if micro_batches else 0.0)
        self._score(step_loss.final_scores, models)
        for message, tensors in self.channel.gather(*step_loss.totals.to_message()):
            step_loss.totals.merge(message, tensors)
        return step_metrics(step_loss, norms, learning_rate, time.perf_counter() - started)

    def gathered(self, *, adapters: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield all weights, or the adapters alone, whole and in float32. Ranks other than 0 yield nothing.

        Every rank takes part in gathering each bucket, so every rank must iterate to the end. A tensor is valid until
        the next is requested.
        """
        import deepspeed

        module = self.policy.module
        if self._bfloat16:
            from deepspeed.utils import safe_get_full_fp32_param

            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    whole = safe_get_full_fp32_param(parameter)
                    if self.channel.rank == 0:
                        yield name, whole
            yield from () if adapters else self._frozen.items()
            return
        first = self.channel.rank == 0
        parameters = dict(adapter_parameters(module) if adapters else module.named_parameters())
        if self.config.zero_stage < 3:
            yield from (parameters if adapters else module.state_dict()).items() if first else ()
            return
        yield from persistent_buffers(module).items() if first and not adapters else ()
        for bucket in buckets(parameters):
            with deepspeed.zero.GatheredParameters(list(bucket.values())):
                yield from bucket.items() if first else ()

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """See :class:`rft.training.engines.base.Engine`. Complete on rank 0 only."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if not self._updates:
            return self._value_head_optimizer.tensors()
        steps = next(iter(self._states()))["step"]
        result = {}
        for name, parameter in self.policy.module.named_parameters():
            if parameter.requires_grad:
                for kind in _STATES:
                    whole = safe_get_full_optimizer_state(parameter, kind)
                    if self.channel.rank == 0:
                        result[f"{name}/{kind}"] = whole.detach().float().cpu().clone()
                result[f"{name}/step"] = steps.detach().cpu().clone()
        return result | self._value_head_optimizer.tensors()

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`rft.training.engines.base.Engine`. Every rank gets all tensors."""
        if not tensors:
            return
        self._value_head_optimizer.restore(tensors)
        trained = [name for name, parameter in self.policy.module.named_parameters() if parameter.requires_grad]
        if f"{trained[0]}/step" not in tensors:
            return  # A value head was trained alone so far.
        self._create_states()
        for name, parameter in self.policy.module.named_parameters():
            if parameter.requires_grad:
                for kind in _STATES:
                    whole = tensors[f"{name}/{kind}"].to(self.policy.device).view(whole_shape(parameter))
                    set_optimizer_state(parameter, whole, kind)
        steps = tensors[f"{trained[0]}/step"]
        for state in self._states():
            state["step"].fill_(float(steps))
        self._updates = int(steps)

    def _score(self, tables: list[Scores], models: Models) -> None:
        for scores in tables:
            for micro_batch, own in self._micro_batches(scores.batch, [[i] for i in range(len(scores.batch))]):
                scores.add(micro_batch, models, self.objective.value_head)
                if not own:
                    for table in scores.tables.values():
                        table[micro_batch.token_indices] = 0
            for table in scores.tables.values():
                self.channel.sum(table)

    def _micro_batches(self, batch: StepBatch, units: list[list[int]]) -> list[tuple[MicroBatch, bool]]:
        """Return the micro-batches that this rank runs, and whether each counts.

        ZeRO's ranks communicate in each pass, so all ranks need the same number of passes. A rank with fewer
        micro-batches first runs spare ones that do not count.
        """
        if not units:
            return []
        max_tokens, packed = self.config.micro_batch_tokens, self.policy.should_pack(batch, units)
        parts = split_over_ranks(batch, units, self._ranks)
        counts = [len(micro_batch_indices(batch, max_tokens, part, packed=packed)) for part in parts]
        part = parts[self.channel.rank]
        own = make_micro_batches(batch, max_tokens, part, packed=packed) if part else []
        shortest = min(units, key=lambda unit: sum(len(batch.payloads[i].tokens) for i in unit))
        spare = make_micro_batches(batch, max_tokens, [shortest], packed=packed)[0]
        device = self.policy.device
        spares = [(spare.to(device), False)] * (max(counts) - len(own))
        return spares + [(micro_batch.to(device), True) for micro_batch in own]

    def _update(self, learning_rate: float, trains_policy: bool) -> float:
        if trains_policy:
            self._engine.step()
            # On overflow DeepSpeed leaves the weights as they are.
            if self._optimizer.overflow:
                self._value_head_optimizer.discard_gradients()
                return float("nan")
        for gradient in self._value_head_optimizer.gradients():
            # All losses were multiplied by the number of ranks, because DeepSpeed averages gradients.
            self.channel.sum(gradient.div_(self._ranks))
        self._value_head_optimizer.update(learning_rate)
        self._updates += trains_policy
        return float(self._engine.get_global_grad_norm()) if trains_policy else 0.0

    def _create_states(self) -> None:
        """Make DeepSpeed create the optimizer's state, with a step that changes no weight."""
        logits = self._engine(input_ids=torch.zeros((1, 2), dtype=torch.long, device=self.policy.device)).logits
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.backward(logits.float().sum() * 0.0)
        self._engine.step()

    def _states(self) -> Iterator[dict[str, Tensor]]:
        return (state for state in self._optimizer.optimizer.state.values() if "step" in state)

    def _whole_weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.policy.module.state_dict().items()}

    def _set_whole_weights(self, whole: dict[str, Tensor]) -> None:
        """Set the trained weights to float32 again, which DeepSpeed has rounded, and keep the others on rank 0."""
        trained = set()
        for name, parameter in self.policy.module.named_parameters():
            if parameter.requires_grad:
                set_weight(parameter, whole[name].to(self.policy.device))
                trained.add(name)
        if self.channel.rank == 0:
            self._frozen = {name: tensor.cpu() for name, tensor in whole.items() if name not in trained}

    def _policy_logits(self, batch: MicroBatch) -> Tensor:
        return self.policy.logits(batch, self._engine)

    def _reference_logits(self, batch: MicroBatch) -> Tensor:
        return self.policy.reference_logits(batch, self._engine)


def settings(config: TrainerConfig) -> dict[str, Any]:
    """Return DeepSpeed's configuration.

    Micro-batches are split here, and :meth:`Shard.step` marks the last one as the boundary of accumulation.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm,
        "zero_optimization": {"stage": config.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "steps_per_print": 2**31,
    }


def import_deepspeed() -> Any:
    """Import DeepSpeed with its log at warnings only. Raises PolicyError if it is not installed."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        import deepspeed
    except ImportError as error:
        raise PolicyError(
            f"trainer.engine = 'deepspeed' needs DeepSpeed: pip install 'stream-rft[deepspeed]' ({error})"
        ) from error
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # These sums through shared memory take 30 s to compile, and a rank that waits in one for a dead rank never ends.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that a model saves in addition to its parameters."""
    saved = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name in saved}
