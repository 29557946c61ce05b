#!/usr/bin/env python3
"""Trains small tokenizers of every kind on a few lines of our own and writes what the reference makes of many texts.

    pip install tokenizers==0.23.3
    python make_tokenizer_goldens.py [OUT=data/tokenizers] [--seed N] [--samples N]

For each tokenizer: NAME.json (the tokenizer itself) and NAME.golden.json with
  encode: [[text, ids with special tokens, ids without], ...]   texts of all scripts, odd spaces, special tokens
  plain:  [[text, ids], ...]                                    special tokens in the text stay text
  decode: [[ids, text with special tokens, text without], ...]  random ids, some outside the vocabulary
"""

import argparse
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "A fire is lit where the wood lies, and the light of it stays with those who sit near.",
    "It's easy: don't carry what you can't use, we'll see, they've said, I'm sure, you'd agree, she's right.",
    "Numbers: 1 22 333 4444 55555, 3.14159, 1,000,000 and 2024-07-26.",
    "def f(x):\n    return x ** 2  # comment\n\n\tif x >= 10 and y != 3:\n\t\tprint('ok')\n",
    "Le café d'été coûte 3€; où est l'hôtel? Große Straße, Ångström, niño, žluťoučký kůň.",
    "Привет, мир! Быстрая лиса. Γειά σου Κόσμε. שלום עולם مرحبا بالعالم",
    "東京は日本の首都です。 你好，世界！ 안녕하세요 세계 ภาษาไทย हिन्दी भाषा",
    "Emoji 🙂🔥👩‍👩‍👧‍👦 and math ∑∫√ ≤ ≥ ½ ² ﬁ Ⅷ",
    "  leading, trailing  \n\n\n and   inner    spaces \u3000 \u00a0 \u2003 mixed \r\n lines\r",
]

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "      ", "\n\t\r", ".,;:!?'\"()[]{}-_/\\@#$%^&*+=<>|~`",
    "éèêàçñüößøåæœłžčřěšŽ", "αβγδεΩΣςσ", "абвгдежзАБВёЁ", "שלוםא", "مرحباال", "日本語中文字東京々", "ひらがなカタカナー", "한국어안녕",
    "ภาษาไทยก็", "हिन्दीक्षि", "🙂🔥👍🏽👩‍👩‍👧❤️🇫🇷", "½²³₄Ⅷ①ﬁﬀ™", "\u0301\u0300\u0308\u0327\u200d\u200b\ufeff\u00ad", "\u00a0\u2003\u3000\u2028\u0085\u000b\u000c",
    "\u0000\u0001\u007f\u009f\ufffd", "𝒜𝓑𝔠𐐀", "ǅİıſKÅ", "▁Ġ<0x41>", "\U0001fae0\u1c80\u2c2f\ua7c0",
]


def random_text(rng, specials):
    parts = []
    for _ in range(rng.randint(1, 8)):
        kind = rng.random()
        if kind < 0.25:
            words = rng.choice(CORPUS).split(" ")
            at = rng.randrange(len(words))
            parts.append(" ".join(words[at:at + rng.randint(1, 5)]))
        elif kind < 0.32 and specials:
            parts.append(rng.choice(specials))
        elif kind < 0.5:
            parts.append(rng.choice([" ", "  ", "\n", " \n", "\n\n", "\t", "   ", "'s", "'LL", " '", "'re ", "...", "  \n  "]))
        else:
            parts.append("".join(rng.choice(rng.choice(ALPHABETS)) for _ in range(rng.randint(1, 8))))
    return "".join(parts)


QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
             r"\s*[\r\n]+|\s+(?!\S)|\s+")
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
BYTES = pre_tokenizers.ByteLevel.alphabet()
PRE = pre_tokenizers


def byte_level(splits, specials=("<|end|>", "<|user|>"), **model):
    tok = Tokenizer(models.BPE(**model))
    tok.pre_tokenizer = PRE.Sequence([*splits, PRE.ByteLevel(add_prefix_space=False, use_regex=not splits)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=420, initial_alphabet=BYTES, special_tokens=list(specials), show_progress=False))
    return tok


def sentencepiece(prefix, byte_fallback=True, **model):
    tok = Tokenizer(models.BPE(byte_fallback=byte_fallback, unk_token="<unk>", **model))
    tok.normalizer = normalizers.Sequence(([normalizers.Prepend("▁")] if prefix else []) + [normalizers.Replace(" ", "▁")])
    first = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else [])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tok.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if prefix else []))
    tok.pre_tokenizer = PRE.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(vocab_size=len(first) + 150, special_tokens=first, limit_alphabet=60, show_progress=False)
    tok.train_from_iterator([line for text in CORPUS for line in text.split(" ")], trainer)
    # Byte tokens are part of the model, not special.
    spec = json.loads(tok.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["content"].startswith("<0x")]
    if prefix:
        spec["pre_tokenizer"] = None
    tok = Tokenizer.from_str(json.dumps(spec))
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return tok


def unigram(pre, normalizer, decoder, **model):
    tok = Tokenizer(models.Unigram())
    tok.normalizer, tok.pre_tokenizer, tok.decoder = normalizer, pre, decoder
    first = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if model.get("byte_fallback") else [])
    trainer = trainers.UnigramTrainer(vocab_size=len(first) + 160, special_tokens=first, unk_token="<unk>", show_progress=False)
    tok.train_from_iterator(CORPUS * 3, trainer)
    if model:
        spec = json.loads(tok.to_str())
        spec["model"].update(model)
        spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["content"].startswith("<0x")]
        tok = Tokenizer.from_str(json.dumps(spec))
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    return tok


def wordpiece(lowercase, **normalizer):
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    tok.normalizer = normalizers.BertNormalizer(lowercase=lowercase, **normalizer)
    tok.pre_tokenizer = PRE.BertPreTokenizer()
    tok.decoder = decoders.WordPiece(cleanup=lowercase)
    tok.train_from_iterator(CORPUS * 3, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False))
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tok


def clip():
    tok = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token="<|endoftext|>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tok.pre_tokenizer = PRE.Sequence([PRE.Split(Regex(CLIP), "removed", invert=True), PRE.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.BPEDecoder(suffix="</w>")
    specials = ["<|startoftext|>", "<|endoftext|>"]
    tok.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=700, initial_alphabet=BYTES, special_tokens=specials, end_of_word_suffix="</w>", show_progress=False))
    tok.post_processor = processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), add_prefix_space=False)
    return tok


def words(pre, **kw):
    tok = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tok.normalizer = kw.get("normalizer")
    tok.pre_tokenizer = pre
    tok.decoder = kw.get("decoder")
    tok.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False))
    return tok


def with_added(tok, *tokens):
    tok.add_tokens(list(tokens))
    return tok


def split(pattern, behavior="isolated", invert=False):
    return PRE.Split(Regex(pattern), behavior, invert)


def make():
    added = [
        AddedToken("<think>", special=False, normalized=False),
        AddedToken("<mask>", special=True, lstrip=True, normalized=False),
        AddedToken("<eat>", special=True, rstrip=True, normalized=False),
        AddedToken("fire", special=False, single_word=True, normalized=False),
        AddedToken("Été", special=False, normalized=True),
    ]
    yield "gpt2", byte_level([])
    yield "gpt2_added", with_added(byte_level([]), *added)
    tok = byte_level([])
    tok.pre_tokenizer = PRE.ByteLevel(add_prefix_space=True)
    yield "gpt2_prefix_space", tok
    qwen = byte_level([split(QWEN)])
    qwen.normalizer = normalizers.NFC()
    yield "qwen", qwen
    yield "qwen35", byte_level([split(QWEN.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"))])
    llama3 = byte_level([split(LLAMA3)], ignore_merges=True)
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<|user|> $A", pair="<|user|> $A $B", special_tokens=[("<|user|>", 1)])])
    yield "llama3", llama3
    yield "o200k", byte_level([split(O200K, "removed", True)])
    yield "deepseek3", byte_level([split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3)])
    yield "deepseek_coder", byte_level([split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-\ud7ff]+"), PRE.Digits(individual_digits=True)])
    yield "starcoder", byte_level([PRE.Digits(individual_digits=True), split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")])
    yield "falcon", byte_level([PRE.Punctuation("contiguous"), PRE.Digits(), split("[0-9][0-9][0-9]"), split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")])
    yield "lookaround", byte_level([split(r"\d{1,3}(?=(?:\d{3})*\b)"), split(r"\s+(?=\S)|\S+", "merged_with_next")])
    yield "llama2", sentencepiece(True)
    yield "llama2_fuse", with_added(sentencepiece(True, byte_fallback=False, fuse_unk=True), AddedToken("<mask>", special=False, lstrip=True, normalized=True))
    yield "gemma", with_added(sentencepiece(False, fuse_unk=True), AddedToken("<start_of_turn>", special=True, normalized=False), AddedToken("\n\n", special=False, normalized=False))
    yield "clip", clip()
    yield "bert", wordpiece(True)
    yield "bert_cased", wordpiece(False, strip_accents=True, handle_chinese_chars=False)
    yield "bert_raw", wordpiece(False, clean_text=False)
    yield "t5", unigram(PRE.Sequence([PRE.WhitespaceSplit(), PRE.Metaspace()]), normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]), decoders.Metaspace())
    yield "siglip", unigram(PRE.Metaspace(prepend_scheme="first"), normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]), decoders.Metaspace(prepend_scheme="first"))
    yield "unigram_bytes", unigram(PRE.Metaspace(prepend_scheme="never", split=False), normalizers.NFD(), decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]), byte_fallback=True)
    yield "words", words(PRE.Whitespace())
    yield "words_split", words(PRE.Sequence([PRE.WhitespaceSplit(), PRE.Punctuation("merged_with_previous"), PRE.CharDelimiterSplit("e")]), decoder=decoders.CTC(pad_token="[UNK]", word_delimiter_token="a"))
    yield "words_fixed", words(PRE.Sequence([PRE.Digits(), PRE.FixedLength(3)]), normalizer=normalizers.ByteLevel(), decoder=decoders.Sequence([decoders.Strip("a", 1, 1), decoders.Replace(Regex("[b-d]+"), "_"), decoders.Fuse(), decoders.Replace("th", "TH"), decoders.Strip(" ", 2, 3)]))


def golden(tok, rng, samples):
    vocab = tok.get_vocab(True)
    specials = [t.content for t in tok.get_added_tokens_decoder().values()]
    texts = ["", " ", "\n", *CORPUS] + [random_text(rng, specials) for _ in range(samples)]
    out = {"encode": [], "plain": [], "decode": []}
    for text in texts:
        out["encode"].append([text, tok.encode(text).ids, tok.encode(text, add_special_tokens=False).ids])
    tok.encode_special_tokens = True
    for text in texts[12::3]:
        if isinstance(tok.model, models.Unigram) and any(special in text for special in specials):
            continue  # its lattice finds control tokens in plain text; ours does not
        out["plain"].append([text, tok.encode(text, add_special_tokens=False).ids])
    tok.encode_special_tokens = False
    size = max(vocab.values()) + 1
    low = [i for p, i in vocab.items() if len(p) == 1 or p.startswith("<0x")] or [0]
    for n in range(samples):
        ids = [rng.choice(low) if rng.random() < n % 4 / 4 else rng.randrange(size + 3) for _ in range(rng.randint(1, 24))]
        if not [i for i in ids if i < size]:
            continue  # the reference's decoders fail on nothing
        try:
            out["decode"].append([ids, tok.decode(ids, skip_special_tokens=False), tok.decode(ids, skip_special_tokens=True)])
        except BaseException:  # its Strip fails on an empty token
            continue
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", nargs="?", default=os.path.join(os.path.dirname(__file__), "data", "tokenizers"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=40)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for name, tok in make():
        with open(os.path.join(args.out, name + ".json"), "w") as file:
            file.write(json.dumps(json.loads(tok.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
        rng = random.Random(f"{name} {args.seed}")
        with open(os.path.join(args.out, name + ".golden.json"), "w") as file:
            file.write(json.dumps(golden(tok, rng, args.samples), ensure_ascii=True, separators=(",", ":")) + "\n")
        print(name, tok.get_vocab_size())


if __name__ == "__main__":
    main()
