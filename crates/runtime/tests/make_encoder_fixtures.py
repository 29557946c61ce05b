#!/usr/bin/env python3
"""Makes tests/data/<family> of the encoders: tiny checkpoints with random weights, and what the reference computes from them.

    pip install -r requirements.txt
    python make_encoder_fixtures.py OUT [NAME ...] [--seed N]     the repository has seed 7

bert        BertModel with pooler; the files of sentence-transformers beside it
bert_rank   BertForSequenceClassification with one label (a cross-encoder); tensors with the `bert.` prefix, norms as gamma and beta
bert_ner    BertForTokenClassification with BIO labels; golden.json has the entities of TokenClassificationPipeline
distilbert  DistilBertForSequenceClassification with two labels
nomic_bert  NomicBertModel; the files of sentence-transformers beside it

golden.safetensors has tensors named CASE.NAME: input_ids, attention_mask, token_type_ids and last_hidden_state (padded to the
longest text), pooler_output, mean_pooled_normalized, logits. golden.json has the texts, tokenizer samples, entities, versions.
Every weight depends on the seed and its own name only. Some constants are unreal on purpose (a norm epsilon of 1e-3, relu): read
everything from the config. The script fails if a parameter has no effect on the outputs.
"""
import argparse
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (BertConfig, BertForSequenceClassification, BertForTokenClassification, BertModel, DistilBertConfig,
                          DistilBertForSequenceClassification, NomicBertConfig, NomicBertModel, PreTrainedTokenizerFast,
                          TokenClassificationPipeline)

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True, warn_only=True)

CORPUS = [
    "The quick brown fox jumps over the lazy dog and runs away from the river.",
    "A local model answers questions about images, sounds and text on your own machine.",
    "What is in this picture? Describe the image in detail, please.",
    "Ada Lovelace and Charles Babbage lived in London; Marie Curie worked in Paris.",
    "It's easy, isn't it? We'll see; they've said I'm right and you're wrong. Let's go!",
    "Le café est très bon. Straße, naïve, señor, 東京, Москва.",
    "the and of to in is that for it on with as are this was be at by from or an have not",
    "search query document clustering 0 1 2 3 4 5 6 7 8 9 : , . ; ! ? - ( )",
] * 4
TEXTS = ["What is in this picture?",
         "A local model answers questions about images, sounds and text on your own machine.",
         "Naïve café, 3.14 and punctuation: please!"]
PAIRS = [["Who lived in London?", "Ada Lovelace lived in London."], ["Who lived in London?", "The fox runs away from the river."],
         ["Is it easy?", "It's easy, isn't it?"]]
PEOPLE = ["Ada Lovelace met Charles Babbage in London.", "Zoë's  café: Marie Curie, Paris!", "the and of to"]
SAMPLES = ["Hello world, this is a test.", "It's easy, isn't it?  Two  spaces\n\nand lines.",
           "Le caf\u00e9 \u6771\u4eac 12345 + 3.14 \U0001f642", "  leading and trailing  "]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = dict(hidden_size=40, intermediate_size=72, num_attention_heads=5, num_hidden_layers=2)
BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SENTENCE = {
    "modules.json": [dict(idx=0, name="0", path="", type="sentence_transformers.models.Transformer"),
                     dict(idx=1, name="1", path="1_Pooling", type="sentence_transformers.models.Pooling"),
                     dict(idx=2, name="2", path="2_Normalize", type="sentence_transformers.models.Normalize")],
    "1_Pooling/config.json": dict(word_embedding_dimension=40, pooling_mode_cls_token=False, pooling_mode_mean_tokens=True,
                                  pooling_mode_max_tokens=False, pooling_mode_mean_sqrt_len_tokens=False),
    "sentence_bert_config.json": dict(max_seq_length=48, do_lower_case=False),
    "config_sentence_transformers.json": dict(prompts=dict(query="search query: ", document=""), default_prompt_name=None),
}


def tokenizer(max_length):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer()
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    # No trainer: theirs breaks ties by chance. Whole words, letters, and some endings.
    words = Counter(w for line in CORPUS for w, _ in tok.pre_tokenizer.pre_tokenize_str(tok.normalizer.normalize_str(line)))
    chars = sorted({c for w in words for c in w})
    frequent = sorted((w for w in words if len(w) > 1), key=lambda w: (-words[w], w))[:110]
    pieces = [*SPECIALS, *chars, *("##" + c for c in chars), *frequent, "##ing", "##er", "##ed", "##es", "##on", "##at", "##is"]
    tok.model = models.WordPiece(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]")
    tok.add_special_tokens(SPECIALS)
    cls, sep = tok.token_to_id("[CLS]"), tok.token_to_id("[SEP]")
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)])
    return PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
                                   mask_token="[MASK]", model_max_length=max_length, clean_up_tokenization_spaces=False,
                                   model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def bert_config(tok, **more):
    return BertConfig(vocab_size=len(tok), **SIZES, max_position_embeddings=96, layer_norm_eps=1e-3, **more)


def bert():
    tok = tokenizer(96)
    return tok, BertModel(bert_config(tok, hidden_act="gelu_new")), SENTENCE


def bert_rank():
    tok = tokenizer(96)
    return tok, BertForSequenceClassification(bert_config(tok, num_labels=1)), {}


def bert_ner():
    tok = tokenizer(96)
    labels = dict(id2label=dict(enumerate(BIO)), label2id={name: i for i, name in enumerate(BIO)})
    return tok, BertForTokenClassification(bert_config(tok, hidden_act="relu", **labels)), {}


def distilbert():
    tok = tokenizer(96)
    cfg = DistilBertConfig(vocab_size=len(tok), dim=40, hidden_dim=72, n_heads=5, n_layers=2, max_position_embeddings=96,
                           id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1})
    return tok, DistilBertForSequenceClassification(cfg), {}


def nomic_bert():
    tok = tokenizer(128)
    cfg = NomicBertConfig(vocab_size=len(tok), **SIZES, head_dim=8, max_position_embeddings=128, layer_norm_eps=1e-3,
                          rope_parameters=dict(rope_type="default", rope_theta=700.0))
    return tok, NomicBertModel(cfg), SENTENCE


FAMILIES = {f.__name__: f for f in (bert, bert_rank, bert_ner, distilbert, nomic_bert)}


def generator(seed, name):
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "little"))


@torch.no_grad()
def randomize(model, seed):
    for path, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            full = f"{path}.{name}"
            x = torch.randn(p.shape, generator=generator(seed, full))
            if isinstance(module, nn.LayerNorm):
                x = x * 0.25 + (1.0 if name == "weight" else 0.0)
            elif p.dim() == 1:
                x = x * 0.3
            elif not isinstance(module, nn.Embedding):
                x = x * (1.5 / math.sqrt(p[0].numel()))
            if path == "classifier" and name == "bias":
                x = x * 0.1  # else it alone would name the label
            p.copy_(x)
    return model.float().eval()


@torch.no_grad()
def outputs(model, batch):
    out = model(**batch)
    tensors = {k: out[k] for k in ("last_hidden_state", "pooler_output", "logits") if out.get(k) is not None}
    if "last_hidden_state" in tensors:
        mask = batch["attention_mask"].unsqueeze(-1).float()
        mean = (tensors["last_hidden_state"] * mask).sum(1) / mask.sum(1)
        tensors["mean_pooled_normalized"] = nn.functional.normalize(mean)
    return tensors


def check_every_parameter_matters(name, model, batch):
    def values():
        return torch.cat([v.flatten() for v in outputs(model, batch).values()])
    before = values()
    for full, p in model.named_parameters():
        # Rows of tables that no text uses do nothing; a bias of all keys shifts every score of a query alike and does nothing.
        if full.endswith(("key.bias", "k_lin.bias")):
            continue
        saved = p.data.clone()
        p.data.mul_(1.5).add_(0.1)
        assert (values() - before).abs().max() > 1e-4, f"{name}: {full} has no effect"
        p.data.copy_(saved)


def make(name, out, seed):
    torch.manual_seed(seed)
    tok, model, extra = FAMILIES[name]()
    model = randomize(model, seed)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = [n for n in ("input_ids", "attention_mask", "token_type_ids") if not (name == "distilbert" and n == "token_type_ids")]
    tensors, cases = {}, {}
    wanted = dict(single=TEXTS[:1], batch=TEXTS, pair=PAIRS[0])
    if name == "bert_rank":
        wanted = dict(pairs=PAIRS)
    if name == "bert_ner":
        wanted = dict(people=PEOPLE)
    for case, texts in wanted.items():
        if case == "pair":
            batch = tok([texts[0]], [texts[1]], return_tensors="pt")
            cases[case] = dict(pair=texts)
        elif case == "pairs":
            batch = tok([a for a, _ in texts], [b for _, b in texts], padding=True, return_tensors="pt")
            cases[case] = dict(pairs=texts)
        else:
            batch = tok(texts, padding=True, return_tensors="pt")
            cases[case] = dict(texts=texts)
        batch = {n: batch[n] for n in names}
        for n, t in {**batch, **outputs(model, batch)}.items():
            tensors[f"{case}.{n}"] = t.contiguous()
    check_every_parameter_matters(name, model, batch)
    if name == "bert_ner":
        pipe = TokenClassificationPipeline(model=model, tokenizer=tok, aggregation_strategy="first")
        cases["people"]["entities"] = [[dict(label=e["entity_group"], score=float(e["score"]), start=e["start"], end=e["end"])
                                        for e in pipe(text)] for text in PEOPLE]
        assert sum(map(len, cases["people"]["entities"])) >= 4, "too few entities to compare"
    cases["tokenizer"] = [dict(text=s, ids=tok(s)["input_ids"], ids_no_special=tok(s, add_special_tokens=False)["input_ids"],
                               decoded=tok.decode(tok(s)["input_ids"], skip_special_tokens=True)) for s in SAMPLES]
    # As published: transformers renames some tensors when it loads and saves.
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if name == "bert_rank":
        old = lambda k: k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        save_file({old(k): v for k, v in load_file(folder / "model.safetensors").items()}, folder / "model.safetensors",
                  metadata=dict(format="pt"))
    save_file(tensors, folder / "golden.safetensors")
    config = model.config.to_dict()
    config["architectures"] = [type(model).__name__]
    config["torch_dtype"] = "float32"
    for key in ("dtype", "_name_or_path"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tok.save_pretrained(folder)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    for file, value in extra.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(value, indent=2) + "\n")
    versions = dict(torch=torch.__version__, transformers=transformers.__version__, tokenizers=tokenizers.__version__)
    golden = dict(family=name, seed=seed, compute="float32, eager attention, CPU", versions=versions, cases=cases)
    (folder / "golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(name, sum(p.numel() for p in model.parameters()), "parameters,", len(tensors), "golden tensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    for name in args.names or FAMILIES:
        make(name, args.out, args.seed)


if __name__ == "__main__":
    main()
