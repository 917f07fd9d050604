"""What one rank of the deepspeed engine does: its share of the micro-batches, with its part of the optimiser's state
(ZeRO-1), of the gradients (2) and of the weights (3).

All ranks run the same methods at once, rank 0 within the trainer's process and the others because it told them to. Each
makes the whole step's plan from the whole step's batch and computes what is dealt to it. The loss of a micro-batch is
its share of the step's loss, whatever the number of ranks, so gradients are added up; DeepSpeed averages them, hence
the factor.
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
from rft.training.batch import MicroBatch, StepBatch, micro_batches, pieces, shares
from rft.training.engines.adapters import adapter_parameters
from rft.training.engines.channel import Channel
from rft.training.engines.model import TrainedModel, prepare_torch
from rft.training.engines.partitions import buckets, put_state, put_weight, shape_of
from rft.training.engines.torch_engine import learning_rate_of, step_metrics
from rft.training.engines.value_head_optimizer import ValueHeadOptimizer
from rft.training.objective import Models, Objective

_STATES = ("exp_avg", "exp_avg_sq")


class Shard:
    """One rank's model and optimiser."""

    def __init__(self, folder: Path, config: Config, rank: int, ranks: int, store: Path) -> None:
        """Load the model in ``folder`` and meet the other ranks at ``store``. Raises PolicyError."""
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
        self.objective = Objective.of(config)
        self.policy = TrainedModel(folder, config)
        if self.objective.teacher is not None:
            self.policy.set_teacher(Path(self.objective.teacher))
        self.objective.attach(self.policy.module)
        self._beside = ValueHeadOptimizer(self.objective, config.trainer)
        self._bfloat16 = config.trainer.dtype == "bfloat16"
        whole = self._whole_weights() if self._bfloat16 else {}
        deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo")
        optimizer = torch.optim.AdamW(
            self.policy.trainable,
            # Set at each step; until then nothing may move the weights.
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
            self.policy.lower()
            self._put_whole_weights(whole)
        self._updates = 0

    def set_reference(self, folder: Path) -> str:
        """See :class:`rft.training.engines.base.Engine`."""
        return self.policy.set_reference(folder)

    def step(self, number: int, batch: StepBatch, *, version: int | None) -> dict[str, float]:
        """See :class:`rft.training.engines.base.Engine`; the metrics are rank 0's to use."""
        started = time.perf_counter()
        models = Models(self._policy_logits, self._reference_logits, self.policy.teacher_logits)
        lesson = self.objective.begin(number, batch, version=version, device=self.policy.device)
        learning_rate = learning_rate_of(number, self.config.learning_rate, self.config.warmup_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        for scores in lesson.scores:
            for piece, own in self._pieces(scores.batch, [[i] for i in range(len(scores.batch))]):
                scores.add(piece, models, self.objective.value_head)
                if not own:
                    for table in scores.tables.values():
                        table[piece.tokens] = 0
            for table in scores.tables.values():
                self.channel.sum(table)
        norms = []
        for update in lesson.updates():
            dealt = self._pieces(batch, update.units)
            for place, (piece, own) in enumerate(dealt):
                loss = lesson.loss(update, piece, models, counted=own)
                self._engine.set_gradient_accumulation_boundary(place == len(dealt) - 1)
                self._engine.backward(loss * (self._ranks if own else 0.0))
            norms.append(self._update(learning_rate) if dealt else 0.0)
        for words, tensors in self.channel.gather(*lesson.totals.message()):
            lesson.totals.absorb(words, tensors)
        return step_metrics(lesson, norms, learning_rate, time.perf_counter() - started)

    def gathered(self, *, adapters: bool = False) -> Iterator[tuple[str, Tensor]]:
        """All weights, or the adapters alone, whole and in float32, a bucket at a time; on other ranks than 0 nothing.

        All ranks take part in each, so all have to go on to the end. A tensor is valid until the next is asked for.
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
        """See :class:`rft.training.engines.base.Engine`; whole on rank 0."""
        from deepspeed.utils import safe_get_full_optimizer_state

        if not self._updates:
            return {}
        steps = next(iter(self._states()))["step"]
        result = {}
        for name, parameter in self.policy.module.named_parameters():
            if parameter.requires_grad:
                for kind in _STATES:
                    whole = safe_get_full_optimizer_state(parameter, kind)
                    if self.channel.rank == 0:
                        result[f"{name}/{kind}"] = whole.detach().float().cpu().clone()
                result[f"{name}/step"] = steps.detach().cpu().clone()
        return result | self._beside.tensors()

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`rft.training.engines.base.Engine`. All ranks are given all tensors."""
        if not tensors:
            return
        self._beside.restore(tensors)
        self._make_states()
        for name, parameter in self.policy.module.named_parameters():
            if parameter.requires_grad:
                for kind in _STATES:
                    whole = tensors[f"{name}/{kind}"].to(self.policy.device).view(shape_of(parameter))
                    put_state(parameter, whole, kind)
        steps = next(tensor for name, tensor in tensors.items() if name.endswith("/step"))
        for state in self._states():
            state["step"].fill_(float(steps))
        self._updates = int(steps)

    def _pieces(self, batch: StepBatch, units: list[list[int]]) -> list[tuple[MicroBatch, bool]]:
        """The micro-batches that this rank runs, and whether they count.

        ZeRO's ranks meet in each pass, so all need as many: who has fewer runs one that does not count, first.
        """
        if not units:
            return []
        most, packed = self.config.micro_batch_tokens, self.policy.packs(batch, units)
        dealt = shares(batch, units, self._ranks)
        counts = [len(pieces(batch, most, share, packed=packed)) for share in dealt]
        own = micro_batches(batch, most, dealt[self.channel.rank], packed=packed) if dealt[self.channel.rank] else []
        shortest = min(units, key=lambda unit: sum(len(batch.payloads[i].tokens) for i in unit))
        spare = micro_batches(batch, most, [shortest], packed=packed)[0]
        lacking = max(counts) - len(own)
        device = self.policy.device
        return [(spare.to(device), False)] * lacking + [(piece.to(device), True) for piece in own]

    def _update(self, learning_rate: float) -> float:
        self._engine.step()
        # DeepSpeed leaves the weights as they are then.
        if self._optimizer.overflow:
            self._beside.forget()
            return float("nan")
        for gradient in self._beside.gradients():
            # All losses were multiplied by the number of ranks, for DeepSpeed's sake.
            self.channel.sum(gradient.div_(self._ranks))
        self._beside.update(learning_rate)
        self._updates += 1
        return float(self._engine.get_global_grad_norm())

    def _make_states(self) -> None:
        """Have DeepSpeed make the optimiser's state, as its first step does: here one that moves nothing."""
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

    def _put_whole_weights(self, whole: dict[str, Tensor]) -> None:
        """DeepSpeed has rounded all weights; those that are trained get their float32 back, others are kept apart."""
        trained = set()
        for name, parameter in self.policy.module.named_parameters():
            if parameter.requires_grad:
                put_weight(parameter, whole[name].to(self.policy.device))
                trained.add(name)
        if self.channel.rank == 0:
            self._frozen = {name: tensor.cpu() for name, tensor in whole.items() if name not in trained}

    def _policy_logits(self, batch: MicroBatch) -> Tensor:
        return self.policy.logits(batch, self._engine)

    def _reference_logits(self, batch: MicroBatch) -> Tensor:
        return self.policy.reference_logits(batch, self._engine)


def settings(config: TrainerConfig) -> dict[str, Any]:
    """DeepSpeed's configuration. Micro-batches are cut by us, and each says whether it is the last."""
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
    """The library, quiet. Raises PolicyError when it is not installed."""
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
    # Sums through shared memory: must be compiled (30 s), and a rank that waits in one for a dead rank never ends.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """What a model saves beside its parameters."""
    saved = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name in saved}
