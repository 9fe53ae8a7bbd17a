"""What a directory or repository of somebody else may say to transformers: numbers and words only.

A configuration is cut down to what the encoder's own configuration class declares, everything in it
is bounded, and keys that would have transformers fetch or run code, or read other files, are
refused. Weight files are named by us, never by the configuration, and an index of shards only
names files beside itself. So transformers is handed a checked configuration and tensors, and reads
nothing of the directory.
"""

from __future__ import annotations

from typing import Any

from emopeft.errors import UserError

# The attention that we pass decides; these words in a configuration are harmless and dropped.
# Anything else may be the name of a repository with native code.
ATTENTIONS = {
    None,
    "eager",
    "sdpa",
    "flex_attention",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
}
ATTENTION_KEYS = (
    "_attn_implementation",
    "attn_implementation",
    "_attn_implementation_internal",
    "_experts_implementation",
    "experts_implementation",
    "_experts_implementation_internal",
)
# What asks for code, for other arithmetic or for other files.
REFUSED = {
    "auto_map": "code of its own",
    "custom_pipelines": "code of its own",
    "kernel_config": "native kernels",
    "fusion_config": "replaced modules",
    "quantization_config": "quantised weights",
    "compression_config": "quantised weights",
    "distributed_config": "a distributed model",
    "per_layer_config": "blocks that differ from each other",
    "transformers_weights": "weights under another name",
}
# Declared by every configuration, of no meaning for an encoder (labels, outputs, types of files).
DROPPED = {
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "torch_dtype",
}
# Names of older transformers for rotary positions, which its configurations still translate.
OLD_NAMES = {"rope_theta", "rope_scaling", "partial_rotary_factor"}

MOST_LAYERS = 200  # modules that are made one by one; xls_r_2b has 48 blocks
MOST_ITEMS = 1000  # of a list
LARGEST = 1 << 24  # of any other whole number; sizes are compared with the weights as well


def checked_config(values: dict[str, Any], kind: Any, where: str) -> dict[str, Any]:
    """What of a config.json is handed to the configuration class ``kind`` of transformers.

    Raises:
        UserError: a key that asks for code, other files or another arithmetic; a size that no
            encoder has.
    """
    for key in ATTENTION_KEYS:
        value = values.get(key)
        if not (value is None or (isinstance(value, str) and value in ATTENTIONS)):
            raise UserError(
                f"config.json of {where} asks for the attention {shown(value)} under '{key}', "
                "which may be somebody's code and is never fetched; remove the key from a local "
                "copy"
            )
    for key, what in REFUSED.items():
        if values.get(key) is not None:
            raise UserError(
                f"config.json of {where} asks for {what} ('{key}'), which is not supported here; "
                "take the original encoder, or remove the key from a local copy if its tensors "
                "are plain ones"
            )
    declared = set(kind().to_dict()) | set(kind.attribute_map) | OLD_NAMES
    fields = {k: v for k, v in values.items() if k in declared - DROPPED and not k.startswith("_")}
    for key, value in fields.items():
        _bounded(key, value, where)
    return fields


def _bounded(key: str, value: Any, where: str) -> None:
    items = value.values() if isinstance(value, dict) else value
    if isinstance(value, (list, dict)):
        if len(value) > MOST_ITEMS:
            raise UserError(
                f"config.json of {where}: '{key}' has {len(value)} items, of which no encoder has "
                f"more than {MOST_ITEMS}; restore it from its source"
            )
        for item in items:
            _bounded(key, item, where)
    elif isinstance(value, int) and not isinstance(value, bool):
        # data2vec's position embeddings are a stack of convolutions.
        counted = "layers" in key or key == "num_conv_pos_embeddings"
        most = MOST_LAYERS if counted else LARGEST
        if abs(value) > most:
            raise UserError(
                f"config.json of {where}: '{key}' is {shown(value)}, and no encoder has more than "
                f"{most}; restore it from its source"
            )


def checked_index(index: Any, suffix: str, where: str, name: str) -> list[str]:
    """The files that an index of shards names, all beside itself.

    Raises:
        UserError: not an index, or a shard in another directory or of another kind.
    """
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{name} of {where} is no index of shards; fetch it again")
    files = set()
    for shard in shards.values():
        plain = isinstance(shard, str) and shard.endswith(suffix) and shard.isprintable()
        if not plain or any(c in shard for c in "/\\:"):
            raise UserError(
                f"{name} of {where} names the shard {shown(shard)}, which is not a {suffix} file "
                "beside it; fetch it again"
            )
        files.add(shard)
    if len(files) > MOST_ITEMS:
        raise UserError(f"{name} of {where} names {len(files)} shards; fetch it again")
    return sorted(files)


def checked_preprocessor(values: dict[str, Any], where: str) -> dict[str, Any]:
    """A preprocessor_config.json whose values that matter here are what they must be.

    Raises:
        UserError: ``do_normalize`` is not a truth value, or the encoder hears another sample rate.
    """
    normalize = values.get("do_normalize")
    if not (normalize is None or isinstance(normalize, bool)):
        raise UserError(
            f"preprocessor_config.json of {where}: 'do_normalize' is {shown(normalize)} and must "
            "be true or false; restore it from its source"
        )
    rate = values.get("sampling_rate")
    if rate is not None and rate != 16000:
        raise UserError(
            f"preprocessor_config.json of {where}: 'sampling_rate' is {shown(rate)}, but encoders "
            "are given 16000 Hz here; choose one that was trained at 16000 Hz"
        )
    return values


def shown(value: Any) -> str:
    """A short form of whatever stands in a file, safe on a terminal."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "beyond 10^20"
    return (text if len(text) <= 60 else text[:57] + "...").encode("ascii", "replace").decode()
