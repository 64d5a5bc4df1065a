"""Write the trained network as a GGUF file that llama.cpp loads."""

from pathlib import Path

import gguf
import numpy as np

from . import CONTEXT_LENGTH, MODEL_NAME
from .chat_template import BOS, CHAT_TEMPLATE, END, SPECIAL_TOKENS
from .model import Config, TinyLlama
from .tokenizer import ChatTokenizer


def _write_header(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_name(MODEL_NAME)
    writer.add_description("A toy chat model for demonstrations and tests. It knows next to nothing.")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: ChatTokenizer) -> None:
    plain = len(tokenizer.tokens) - len(SPECIAL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS) + [gguf.TokenType.NORMAL] * plain)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.special[BOS])
    writer.add_eos_token_id(tokenizer.special[END])
    writer.add_eot_token_id(tokenizer.special[END])
    writer.add_pad_token_id(tokenizer.special[END])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def export(model: TinyLlama, tokenizer: ChatTokenizer, path: Path) -> None:
    """Matrices go in as Q8_0, norms as F32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), "llama")
    _write_header(writer, model.config)
    _write_tokenizer(writer, tokenizer)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy().astype(np.float32)
        if values.ndim == 2:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
