"""Bad model folders, tokenizers, LoRA targets and algorithms."""

from __future__ import annotations

import json

from tests.inputs.rows import Row, with_questions

INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})


def lora(*targets: str, rank: int = 4) -> dict[str, object]:
    return {"trainer": {"lora": {"rank": rank, "target_modules": list(targets)}}}


def algorithm(**settings: object) -> dict[str, object]:
    return {"algorithm": settings}


ROWS = [
    Row("no model", {"policy": {"model": "nowhere"}}, "no model at .*nowhere.*Hugging Face layout", real=True),
    Row("model is a file", {"policy": {"model": "tasks.jsonl"}}, "policy.model = 'tasks.jsonl' is a file"),
    Row("model is a file of weights", {"policy": {"model": "model/model.safetensors"}}, "Name the folder"),
    Row("folder without a model", {"policy": {"model": "."}}, "has no config.json and no"),
    Row("no weights", {}, r"has no \*\.safetensors", files={"model/model.safetensors": None}),
    Row("pickled weights", {}, "It has pytorch_model.bin: load it", files={
        "model/model.safetensors": None, "model/pytorch_model.bin": "x"}),
    Row("no config.json", {}, "has no config.json", files={"model/config.json": None}),
    Row("config.json is no JSON", {}, "config.json cannot be read", files={"model/config.json": "{"}),
    Row("config.json is a list", {}, "is a JSON list, not an object", files={"model/config.json": "[]"}),
    Row("config.json without a type", {}, "names no model_type", files={"model/config.json": "{}"}),
    Row("weights cut short", {}, "is cut short|is not a safetensors file", files={"model/model.safetensors": b"\x10"}),
    Row("weights are text", {}, "not a safetensors file", files={"model/model.safetensors": "hello, world, hello"}),
    Row("Git LFS pointer", {}, "git lfs pull", files={
        "model/model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"}),
    Row("empty weights", {}, "not a safetensors file", files={"model/model.safetensors": b""}),
    Row("missing shard", {}, "has no model-00001-of-00002", files={"model/model.safetensors.index.json": INDEX}),
    Row("broken index", {}, "index.json cannot be read", files={"model/model.safetensors.index.json": "{}"}),
    Row("no tokenizer", {}, "has no tokenizer", files={"model/tokenizer.json": None}, real=True, command="doctor"),
    Row("broken tokenizer", {}, "tokenizer.json cannot be read", files={"model/tokenizer.json": "{}"}),
    Row("tokenizer is a web page", {}, "tokenizer.json cannot be read", files={"model/tokenizer.json": "<html>"}),
    Row("broken tokenizer settings", {}, "tokenizer_config.json cannot be read", files={
        "model/tokenizer_config.json": "{"}),
    Row("no end token", {}, "names no end-of-sequence token", level="warn", files={
        "model/tokenizer_config.json": "{}", "model/config.json": '{"model_type": "qwen3"}'}),
    Row("tokenizer of another model", {}, "vocab_size is 5", level="warn", files={
        "model/config.json": '{"model_type": "qwen3", "vocab_size": 5}'}),
    Row("no chat template", {"tasks": {"chat": True}}, "no chat template, and tasks.chat needs one"),
    Row("no chat template for chat", {"rollout": {"workflow": "chat"}}, "no chat template, and rollout.workflow"),
    Row("no adapters' base", {"policy": {"model": "adapters"}}, "base", files={
        "adapters/adapter_config.json": '{"base_model_name_or_path": "gone"}',
        "adapters/adapter_model.safetensors": b""}),
    Row("prompts of unknown characters", {}, "no token for .*in 12 of 12 prompts", files=with_questions("äöü"),
        level="warn"),
    Row("prompts wholly unknown", {}, "makes no token|no token for", files={
        "tasks.jsonl": "".join(json.dumps({"question": c * 3, "answer": "1"}) + "\n" for c in "äöüßéèêñçåøæœđħłŋþ")}),
    Row("answers of unknown characters", {}, "no token for 'Ä'.*cannot write these answers", level="warn", files={
        "tasks.jsonl": "".join(json.dumps({"question": f"{i}>", "answer": f"Ä{i}"}) + "\n" for i in range(9))}),
    Row("prompts too long", {}, "12 of 12 prompts do not fit.*context of 64.*longer context", files=with_questions(
        "a" * 60), real=True),
    Row("some prompts too long", {}, "5 of 12 prompts do not fit", level="warn", files=with_questions("a" * 60, "b")),
    Row("max_tokens above the context", {"rollout": {"max_tokens": 64}}, "lower rollout.max_tokens to 60 or less"),
    Row("evaluation too long", {"eval": {"max_tokens": 100}}, "eval.max_tokens = 100 exceed", level="fail"),
    Row("unknown LoRA target", lora("q_project"), "no module 'q_project'.*did you mean 'q_proj'", real=True),
    Row("LoRA target of GPT-2", lora("c_attn"), "no module 'c_attn'; its linear layers are down_proj, gate_proj"),
    Row("one LoRA target of two", lora("q_proj", "query"), "no module 'query'"),
    Row("LoRA on a norm", lora("norm"), "'norm' is not a linear layer"),
    Row("LoRA on embeddings", lora("embed_tokens"), "'embed_tokens' is not a linear layer"),
    Row("no LoRA targets", lora(), "target_modules is empty"),
    Row("LoRA rank above the layer", lora("q_proj", rank=64), "above the size of 'q_proj', 8", level="warn"),
    Row("LoRA rank is huge", lora("q_proj", rank=10**6), "trainer.lora.rank"),
    Row("unknown algorithm", algorithm(name="grpoo"), "'grpoo' is unknown .did you mean 'grpo'", real=True,
        command="trainer"),
    Row("algorithm in capitals", algorithm(name="GRPO"), "'GRPO' is unknown"),
    Row("unknown loss", algorithm(loss="clip"), "algorithm.loss = 'clip' is unknown.*'clipped'"),
    Row("unknown advantage", algorithm(advantage="group_norm"), "algorithm.advantage = 'group_norm' is unknown"),
    Row("unknown KL", algorithm(kl="kl"), "algorithm.kl = 'kl' is unknown.*none, k1, k2, k3"),
    Row("unknown aggregation", algorithm(aggregation="mean"), "algorithm.aggregation = 'mean' is unknown"),
    Row("unknown filter", algorithm(filters=["uniform"]), "algorithm.filters = 'uniform' is unknown.*'not_uniform'"),
    Row("unknown token filter", algorithm(token_filter="entropy"), "algorithm.token_filter = 'entropy' is unknown"),
    Row("clip without a clip", algorithm(name="sft", clip_low=0.1), "'reinforce' has no option clip_low; it has none"),
    Row("dual clip of gspo", algorithm(name="gspo", dual_clip=3.0), "'gspo' has no option dual_clip"),
    Row("distill without a teacher", algorithm(name="distill"), "algorithm.teacher must name"),
    Row("no teacher there", algorithm(name="distill", teacher="gone"), "no model at .*gone: algorithm.teacher"),
    Row("contradiction", algorithm(correction="tis", old="sampler"), "contradicts algorithm.correction"),
    Row("nothing to reset", algorithm(reference_reset=5), "compares with no reference"),
    Row("k1 in the loss", algorithm(kl="k1", kl_coef=0.1), "its gradient is 0 on average", level="warn"),
    Row("stale without a bound", {"buffer": {"too_stale": "keep"}, "algorithm": {"name": "gspo"}}, "bounded weight"),
    Row("unknown priority", {"processor": {"priority": "lifo"}}, "processor.priority = 'lifo' is unknown.*'fifo'"),
    Row("unknown buffer priority", {"buffer": {"priority": "lifo"}}, "buffer.priority.*'lifo' is unknown"),
    Row("one sample", {"rollout": {"samples": 1}}, "below processor.min_group_size = 2"),
    Row("GRPO with one sample", {"rollout": {"samples": 1}, "processor": {"min_group_size": 1}},
        "every advantage would be 0"),
    Row("RLOO with one sample", {"rollout": {"samples": 1}, "processor": {"min_group_size": 1},
                                 "algorithm": {"name": "rloo"}}, "every advantage would be 0"),
    Row("group size above samples", {"processor": {"min_group_size": 9}}, "rollout.samples = 8 is below"),
    Row("tracker not known", {"trackers": {"use": ["wandbb"]}}, "Did you mean 'wandb'"),
    Row("run folder is a file", {"run": {"folder": "tasks.jsonl"}}, "run.folder: .*tasks.jsonl is a file", real=True,
        command="doctor"),
    Row("run beneath a file", {"run": {"folder": "tasks.jsonl/runs"}}, "tasks.jsonl is a file"),
    Row("run is a file", {"run": {"folder": ".", "name": "tasks.jsonl"}}, "tasks.jsonl is a file"),
]  # fmt: skip
