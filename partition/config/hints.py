"""What other tools call a key, and what this one calls it or why it is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from partition.config.nodes import join_path

_HIDDEN = "model.hidden_features, a list such as [1024, 1024] or {width: 1024, depth: 2}"
_MICROBATCHES = "planner.num_microbatches (how many microbatches make a minibatch)"

_OTHER_NAMES = {
    "training.minibatch_size": "batch_size train_batch_size global_batch_size batchsize bs per_device_train_batch_size",
    _MICROBATCHES: "gradient_accumulation_steps accumulate_grad_batches accumulation_steps grad_accum_steps "
    "micro_batch_size microbatch_size train_micro_batch_size_per_gpu chunks num_chunks n_microbatches",
    "training.steps": "max_steps num_steps train_iters max_iters total_steps num_iterations iterations",
    "training.epochs": "num_epochs max_epochs num_train_epochs n_epochs",
    "training.timeout, such as 60 s": "timeout_s ddp_timeout nccl_timeout dist_timeout",
    "training.seed": "random_seed random_state manual_seed",
    "model.l2_penalty, or optimizer.weight_decay with adamw": "weight_decay wd l2 l2_reg lambda",
    "optimizer.lr": "learning_rate base_lr step_size",
    "optimizer": "optim optimiser",
    "optimizer.lr_schedule: constant, linear or cosine": "scheduler lr_scheduler lr_scheduler_type lr_decay gamma",
    "optimizer.warmup_steps": "warmup num_warmup_steps lr_warmup_steps",
    "optimizer.lr_final, a fraction of lr": "min_lr eta_min final_lr",
    "optimizer.max_grad_norm": "gradient_clipping clip_grad_norm grad_clip gradient_clip_val clip_norm max_norm",
    "optimizer.betas: [beta1, beta2]": "beta1 beta2 adam_beta1 adam_beta2",
    "optimizer.eps": "epsilon adam_epsilon",
    "cluster.devices.count": "num_gpus n_gpus ngpus gpus num_devices world_size nproc nproc_per_node num_workers",
    "cluster.devices": "device accelerator",
    "cluster.devices.memory": "gpu_memory vram mem memory_gb memory_bytes memory_limit",
    "cluster.devices.compute": "flops tflops flop_per_s peak_flops",
    "cluster.devices.memory_bandwidth": "memory_bytes_per_s mem_bandwidth hbm_bandwidth",
    "cluster.links.bandwidth": "bytes_per_s link_bandwidth",
    "cluster.links.latency": "latency_s link_latency",
    "cluster.links.devices_per_node": "gpus_per_node num_gpus_per_node",
    "precision.parameters and precision.compute": "dtype torch_dtype param_dtype data_type",
    _HIDDEN: "hidden_sizes hidden_layers hidden_dim hidden_dims hidden_size hidden_units d_model n_hidden num_layers "
    "n_layers layers layer_sizes width depth",
    "model.in_features": "input_size input_dim input_features in_dim d_in n_inputs",
    "model.out_features": "output_size output_dim output_features out_dim d_out n_outputs num_classes n_classes",
    "model.activation": "activation_function act act_fn nonlinearity hidden_act",
    "model.loss": "criterion loss_fn loss_function",
    "model.blocks, such as [{linear: 512, dropout: 0.1}, {residual: {norm: layer_norm, hidden: 2048}}]": "dropout "
    "layer_norm layernorm rms_norm rmsnorm norm residual swiglu resnet",
    "hidden, the columns inside of a residual block": "hidden_dim_of_branch ffn_dim mlp_dim intermediate_size d_ff",
    "model.init": "initialization initialisation initializer weight_init",
    "data.source": "dataset dataset_name data_source",
    "data.test_fraction": "test_size test_split val_split validation_split val_fraction",
    "data.path": "data_path data_dir file filename folder images train_path",
    "data.targets_path (idx, npy)": "labels labels_path label_path y_path",
    "data.target (csv), the column's name or index": "target_column label_column label target_col",
    "data.delimiter": "sep separator",
    "data.standardise, one of together, each and none": "standardize normalize normalise standardization scale",
    "data.standardise_targets": "standardize_targets normalize_targets",
    "data.test_path": "val_path validation_path",
    "data.arguments": "kwargs dataset_kwargs dataset_args args",
    "data.num_examples": "n_samples num_samples n_examples",
    "checkpoint": "checkpoints saving save",
    "checkpoint.every_steps": "save_steps save_every save_interval checkpoint_every checkpoint_interval every_n_steps",
    "checkpoint.keep": "save_total_limit max_to_keep save_top_k keep_last num_keep",
    "planner.num_stages": "pipeline_parallel_size pipeline_model_parallel_size pp_size pp num_pipeline_stages stages",
    "planner.strategies": "strategy",
    "planner.keep_together: [[first, last], ...]": "no_split no_split_module_classes groups group together",
    "planner.pinned: [{layers: [first, last], device: 0}]": "pins pin device_map placement",
    "planner.schedules": "schedule pipeline_schedule",
}

_ABSENT = {
    "write `precision: {compute: bfloat16}`": "bf16 amp mixed_precision autocast bfloat16",
    "it is not available; precision.compute is float32, float64 or bfloat16": "fp16 float16",
    "it is not available; blocks have layer_norm and rms_norm": "batch_norm batchnorm group_norm",
    "it is not available; a model is affine layers, residual or not": "attention embedding num_heads vocab_size",
    "it is not available; sgd has lr and momentum": "nesterov dampening",
    "it is not available; a model is split by layers only": "tensor_parallel_size tensor_model_parallel_size "
    "tp_size tp data_parallel_size dp_size dp zero_stage zero_optimization fsdp",
    "it is not available": "checkpointing device_file",
    "the experiment is named after its file; remove it": "name experiment experiment_name run_name",
    "merge keys are not available; write the keys out": "<<",
}


def suggest(key: str, section: str, vocabulary: dict[str, tuple[str, ...]]) -> str:
    """What to write instead of a key that its section does not know.

    `vocabulary` holds the keys of each section by its dotted path ("" is the top).
    """
    word = key.strip().lower().replace("-", "_").replace(" ", "_")[:100]
    here = vocabulary[section]
    if word in here:
        return f"write it {word}"
    known = _find(word, _OTHER_NAMES)
    if known is not None:
        return f"use {known}"
    absent = _find(word, _ABSENT)
    return absent if absent is not None else _suggest_by_likeness(word, section, vocabulary)


def suggest_word(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` where one of the choices is close to the word, else nothing."""
    close = get_close_matches(word.lower()[:100], choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _find(word: str, table: dict[str, str]) -> str | None:
    return next((answer for answer, names in table.items() if word in names.split()), None)


def _suggest_by_likeness(word: str, section: str, vocabulary: dict[str, tuple[str, ...]]) -> str:
    elsewhere = [join_path(path, word) for path, keys in vocabulary.items() if word in keys and path != section]
    if elsewhere:
        return f"it belongs elsewhere: {' or '.join(elsewhere[:2])}"
    all_keys = {key: join_path(path, key) for path, keys in vocabulary.items() for key in keys}
    # A key whose underscores alone are missing is that key, wherever it belongs, and not one that is merely like it.
    same = {key.replace("_", ""): key for key in (*all_keys, *vocabulary[section])}.get(word.replace("_", ""))
    if same is not None and same not in vocabulary[section]:
        return f"did you mean {all_keys[same]}?"
    here = get_close_matches(word, vocabulary[section], n=1)
    if here:
        return f"did you mean {here[0]!r}?"
    anywhere = get_close_matches(word, all_keys, n=1, cutoff=0.8)
    return f"did you mean {all_keys[anywhere[0]]}?" if anywhere else f"keys here: {', '.join(vocabulary[section])}"
