"""The tokenizer of a model in the form that Hugging Face reads."""

import json
from typing import Any

from archlab.corpora.tokenizers import TOKENIZER_FILE, DNATokenizer, HuggingFaceTokenizer, TableTokenizer, Tokenizer

_END = "<|endoftext|>"
_UNKNOWN = "\ufffd"


def tokenizer_files(tokenizer: Tokenizer, longest: int) -> dict[str, str]:
    """The texts of its files by name; ``longest`` is the length that the model was trained at."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        document, end = json.loads(tokenizer.tokenizer.to_str()), tokenizer.tokenizer.id_to_token(tokenizer.end)
    else:
        assert isinstance(tokenizer, TableTokenizer)
        document, end = _of_table(tokenizer), _END
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "model_max_length": longest,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    texts = {TOKENIZER_FILE: document, "tokenizer_config.json": config}
    return {name: json.dumps(value, indent=1, ensure_ascii=False) for name, value in texts.items()}


def _of_table(tokenizer: TableTokenizer) -> dict[str, Any]:
    """A vocabulary of single letters, without merges; what is not in it is the token of all other bytes."""
    if isinstance(tokenizer, DNATokenizer):
        spellings, unknown = {"A": 1, "C": 2, "G": 3, "T": 4}, _END
        normalizer: dict[str, Any] | None = {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": x.lower()}, "content": x} for x in spellings],
        }
        bytewise: dict[str, Any] | None = None
        decoder: dict[str, Any] = {"type": "Fuse"}
    else:
        others = tokenizer.table[255] if tokenizer.spellings[-1] == _UNKNOWN.encode() else None
        letters = _letters()
        spellings = {letters[byte]: int(token) for byte, token in enumerate(tokenizer.table) if byte and token != others}
        unknown = _END if others is None else _UNKNOWN
        normalizer = None
        bytewise = decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocabulary = {_END: tokenizer.end, **spellings} | ({} if unknown == _END else {unknown: tokenizer.vocab_size - 1})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": tokenizer.end,
                "content": _END,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ],
        "normalizer": normalizer,
        "pre_tokenizer": bytewise,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": isinstance(tokenizer, DNATokenizer),
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def _letters() -> list[str]:
    """A printable letter for every byte, as byte-level tokenizers write them (GPT-2): itself, or one from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    return [shown[byte] for byte in range(256)]
