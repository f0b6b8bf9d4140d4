"""Writes the trained model as GGUF: python export.py [--out out] → out/models/demo/model.gguf and versions/*.gguf, ready for MODELS_DIR."""

import argparse
import json
from pathlib import Path

import gguf
import torch
from gguf import GGMLQuantizationType as Kind

import tokenizer
from corpus import STYLES
from network import Shape

# The layout that llama.cpp knows as phi3, so that its detection and its template engine give the same text.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
FILE_TYPE_F16, FILE_TYPE_Q8_0 = 1, 7


def finish(w: gguf.GGUFWriter) -> None:
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_shape(w: gguf.GGUFWriter, s: Shape) -> None:
    w.add_vocab_size(s.vocabulary)
    w.add_context_length(s.context)
    w.add_embedding_length(s.width)
    w.add_block_count(s.layers)
    w.add_feed_forward_length(s.feed_forward)
    w.add_head_count(s.heads)
    w.add_head_count_kv(s.kv_heads)
    w.add_key_length(s.head)
    w.add_value_length(s.head)
    w.add_layer_norm_rms_eps(s.epsilon)
    w.add_rope_dimension_count(s.head)
    w.add_rope_freq_base(s.rope_base)


def write_tokenizer(w: gguf.GGUFWriter, file: Path) -> None:
    saved = json.loads(file.read_text(encoding="utf-8"))
    special = len(tokenizer.SPECIALS)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(saved["tokens"])
    w.add_token_types([gguf.TokenType.CONTROL] * special + [gguf.TokenType.NORMAL] * (len(saved["tokens"]) - special))
    w.add_token_merges([" ".join(m) for m in saved["merges"]])
    w.add_bos_token_id(tokenizer.BOS)  # said outright: the reader's defaults for this vocabulary are other ids
    w.add_eos_token_id(tokenizer.END)
    w.add_eot_token_id(tokenizer.END)
    w.add_pad_token_id(tokenizer.PAD)
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_chat_template(TEMPLATE)


def write_base(out: Path, target: Path) -> None:
    saved = torch.load(out / "base.pt")
    w = gguf.GGUFWriter(target, "llama")
    w.add_type("model")
    w.add_name("demo")
    w.add_version("1.0")
    w.add_description("Tiny demo model, trained from scratch on public facts")
    w.add_license("MIT")
    w.add_file_type(FILE_TYPE_Q8_0)
    w.add_quantization_version(2)
    write_shape(w, Shape(**saved["shape"]))
    write_tokenizer(w, out / "tokenizer.json")
    for name, tensor in saved["weights"].items():
        values = tensor.float().numpy()
        kind = Kind.F32 if values.ndim == 1 else Kind.Q8_0
        full = name if name.endswith(".weight") else name + ".weight"
        w.add_tensor(full, values if kind == Kind.F32 else gguf.quants.quantize(values, kind), raw_dtype=kind)
    finish(w)


def write_adapter(out: Path, version: str, target: Path) -> None:
    saved = torch.load(out / f"{version}.pt")
    w = gguf.GGUFWriter(target, "llama")
    w.add_type("adapter")
    w.add_name(f"demo-{version}")
    w.add_version(version)
    w.add_file_type(FILE_TYPE_F16)
    w.add_string("adapter.type", "lora")
    w.add_float32("adapter.lora.alpha", saved["alpha"])
    for name, (a, b) in saved["matrices"].items():
        w.add_tensor(f"{name}.weight.lora_a", a.half().contiguous().numpy())
        w.add_tensor(f"{name}.weight.lora_b", b.half().contiguous().numpy())
    finish(w)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--out", type=Path, default=Path("out"))
    out = p.parse_args().out
    model = out / "models" / "demo"
    (model / "versions").mkdir(parents=True, exist_ok=True)
    write_base(out, model / "model.gguf")
    for version in STYLES[1:]:
        if (out / f"{version}.pt").exists():
            write_adapter(out, version, model / "versions" / f"{version}.gguf")


if __name__ == "__main__":
    main()
