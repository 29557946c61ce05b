"""Makes tests/data from the reference implementations. Run it from this folder, with

    pip install torch==2.15.0 torchvision==0.29.2 transformers==5.23.0 pillow==12.2.0 numpy

Pictures are drawn by `picture` below, which tests/common/mod.rs draws too; results are kept as CRC-32 of the bytes (an
equal CRC at 8 bits is bit-exactness, which is what the crate claims), with a few values beside it for whoever debugs.
"""
import io
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode as Mode
from torchvision.transforms.v2 import functional as F

DATA = Path(__file__).parent / "data"


def picture(w, h, seed):
    """[h, w, 3] uint8: 8×8 tiles of noise, gradient, black-and-white noise and flat colour."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint32) for n in (h, w, 3)), indexing="ij")
    with np.errstate(over="ignore"):
        v = x * np.uint32(73856093) ^ y * np.uint32(19349663) ^ (c * np.uint32(83492791) + np.uint32(seed * 2654435761 % 2**32))
        for shift, mul in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
            v = (v ^ v >> np.uint32(shift)) * np.uint32(mul)
        v ^= v >> np.uint32(15)
        kind = (x // 8 + y // 8) & 3
        tiles = (v & 255, (x * 5 + y * 3 + c * 40) & 255, (v & 1) * 255, (c * 100 + 30) & 255)
    return np.select([kind == k for k in range(4)], tiles).astype(np.uint8)


def crc(a):
    return f"{zlib.crc32(np.ascontiguousarray(a).tobytes()):08x}"


# ---------------------------------------------------------------- resize
PIL_FILTER = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
TORCH_FILTER = {"nearest": Mode.NEAREST_EXACT, "bilinear": Mode.BILINEAR, "bicubic": Mode.BICUBIC, "lanczos": Mode.LANCZOS}


def resized(reference, name, im, w, h):
    if reference == "pillow":
        return np.asarray(Image.fromarray(im).resize((w, h), PIL_FILTER[name]))
    t = F.resize(torch.from_numpy(im).permute(2, 0, 1).contiguous(), [h, w], TORCH_FILTER[name], antialias=True)
    return t.permute(1, 2, 0).numpy()


def settled(n, to):
    """Whether torch's nearest takes the same samples on any processor: with and without fused multiply-add (2 to 97 does not)."""
    i, scale = np.arange(to), np.float32(n) / np.float32(to)
    fused = ((np.float64(scale) * (i + 0.5) - 0.5).astype(np.float32).clip(0) + 0.5).astype(np.float32)
    return ((i.astype(np.float32) + np.float32(0.5)) * scale).astype(int).tolist() == fused.astype(int).tolist()


def resize_cases():
    odd = [1, 2, 3, 5, 7, 11, 13, 17, 31, 37, 48, 53, 61, 64, 71, 97, 101, 127, 131, 224]
    rng = np.random.default_rng(20)
    cases = [(1, 1, 1, 1), (1, 1, 7, 5), (1, 5000, 3, 11), (4000, 3, 64, 64), (70, 100, 48, 48), (120, 90, 48, 48), (5000, 1, 1, 1),
             (97, 101, 97, 50), (97, 101, 50, 101), (2, 2, 131, 127), (640, 427, 224, 224), (427, 640, 31, 500), (3, 4000, 4000, 3), (3, 301, 40, 300), (3, 300, 40, 30), (3, 301, 40, 400)]
    cases += [(4000, 3, 16, 16), (3, 4000, 50, 1), (1999, 7, 40, 40), (2, 5000, 2, 40), (499, 3, 3, 499), (613, 401, 224, 224), (401, 613, 56, 84), (800, 37, 53, 37), (5, 5, 224, 224), (257, 1, 1, 257)]
    while len(cases) < 200:
        case = tuple(int(v) for v in rng.choice(odd, 4))
        if settled(case[0], case[2]) and settled(case[1], case[3]):
            cases.append(case)
    columns = [(reference, name) for reference, filters in (("torchvision", TORCH_FILTER), ("pillow", PIL_FILTER)) for name in filters]
    lines = ["# in_w in_h out_w out_h seed, then crc32(out [h,w,3]) of:", " ".join(f"{r}:{n}" for r, n in columns)]
    for i, (w, h, ow, oh) in enumerate(cases):
        im = picture(w, h, i)
        lines.append(" ".join([f"{w} {h} {ow} {oh} {i}"] + [crc(resized(r, n, im, ow, oh)) for r, n in columns]))
    (DATA / "resize.txt").write_text("\n".join(lines) + "\n")
    return len(cases) * len(columns)


# ---------------------------------------------------------------- decode
def reference_rgb(data):
    from transformers.image_transforms import convert_to_rgb
    im = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return np.asarray(convert_to_rgb(im, return_numpy=True))


def exif(orientation):
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples, depth, colour, interlace=False, plte=None, trns=None, exif_block=None):
    """A PNG of [h, w, c] integer samples, every row with another filter's number 0 (none) or 1 (sub)."""
    h, w, c = samples.shape

    def rows(s):
        out = bytearray()
        for y, row in enumerate(s):
            if depth == 16:
                line = row.astype(">u2").tobytes()
            elif depth == 8:
                line = row.astype(np.uint8).tobytes()
            else:
                bits = "".join(f"{int(v):0{depth}b}" for v in row.ravel())
                line = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
            bpp = max(1, c * depth // 8)
            if y % 2:
                line = bytes((v - (line[i - bpp] if i >= bpp else 0)) & 255 for i, v in enumerate(line))
            out += bytes([y % 2]) + line
        return bytes(out)

    passes = [s for x, y, dx, dy in ADAM7 if (s := samples[y::dy, x::dx]).size] if interlace else [samples]

    def chunk(tag, body):
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlace)))
    for tag, body in ((b"eXIf", exif_block), (b"PLTE", plte), (b"tRNS", trns)):
        out += chunk(tag, body) if body else b""
    return out + chunk(b"IDAT", zlib.compress(b"".join(map(rows, passes)))) + chunk(b"IEND", b"")


def bmp(samples, bits, masks=None, palette=None, top_down=False, old=False):
    """A BMP of [h, w] pixel values."""
    h, w = samples.shape
    rows = []
    for row in samples if top_down else samples[::-1]:
        if bits < 8:
            s = "".join(f"{int(v):0{bits}b}" for v in row)
            line = int(s.ljust(-(-len(s) // 8) * 8, "0"), 2).to_bytes(-(-len(s) // 8), "big")
        else:
            line = b"".join(int(v).to_bytes(bits // 8, "little") for v in row)
        rows.append(line + b"\0" * (-len(line) % 4))
    pal = b"".join(bytes(c[::-1]) + (b"" if old else b"\0") for c in palette or [])
    mask = b"".join(struct.pack("<I", m) for m in masks or [])
    if old:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        size = 56 if masks and len(masks) == 4 else 40
        info = struct.pack("<IiiHHIIiiII", size, w, -h if top_down else h, 1, bits, 3 if masks else 0, 0, 2835, 2835, len(palette or []), 0)
    at = 14 + len(info) + len(mask) + len(pal)
    body = b"".join(rows)
    return b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + info + mask + pal + body


def saved(im, kind, **kw):
    out = io.BytesIO()
    im.save(out, kind, **kw)
    return out.getvalue()


def decode_cases():
    folder = DATA / "decode"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    w, h = 19, 13
    rgb = picture(w, h, 5).astype(np.uint32)
    more = picture(w, h, 6).astype(np.uint32)
    grey, alpha = rgb[..., :1], more[..., :1]
    wide = lambda a: a * 256 + picture(w, h, 7)[..., : a.shape[2]]
    grey16 = (wide(grey) >> 8).astype(np.uint8).repeat(3, 2)
    pal = picture(16, 16, 8)
    plte = pal.tobytes()
    rgba, la = np.concatenate([rgb, alpha], 2), np.concatenate([grey, alpha], 2)
    files = {
        "rgb8.png": png(rgb, 8, 2), "rgba8.png": png(rgba, 8, 6), "l8.png": png(grey, 8, 0), "la8.png": png(la, 8, 4),
        "rgb16.png": png(wide(rgb), 16, 2), "rgba16.png": png(np.concatenate([wide(rgb), wide(alpha)], 2), 16, 6),
        "l16.png": png(wide(grey), 16, 0), "la16.png": png(np.concatenate([wide(grey), wide(alpha)], 2), 16, 4),
        **{f"l{d}.png": png(grey >> (8 - d), d, 0) for d in (1, 2, 4)},
        **{f"p{d}.png": png(grey >> (8 - d), d, 3, plte=plte[: 3 << d]) for d in (1, 2, 4, 8)},
        "p8_alpha.png": png(grey, 8, 3, plte=plte, trns=bytes((i * 7) & 255 for i in range(256))),
        "p4_alpha_short.png": png(grey >> 4, 4, 3, plte=plte[:48], trns=bytes([0, 128, 255])),
        "rgb8_key.png": png(rgb, 8, 2, trns=struct.pack(">3H", *rgb[4, 4])), "l8_key.png": png(grey, 8, 0, trns=struct.pack(">H", int(grey[2, 3, 0]))),
        "rgb8_interlaced.png": png(rgb, 8, 2, True), "l4_interlaced.png": png(grey >> 4, 4, 0, True), "rgba16_interlaced.png": png(np.concatenate([wide(rgb), wide(alpha)], 2), 16, 6, True),
        "one_interlaced.png": png(rgb[:1, :1], 8, 2, True),
        **{f"orient{o}.png": png(rgb[:3, :5], 8, 2, exif_block=exif(o)) for o in range(1, 9)},
    }
    big = Image.fromarray(picture(45, 38, 9)).resize((90, 76), 3)
    small = big.crop((0, 0, 45, 38))
    files |= {
        "444.jpg": saved(small, "JPEG", quality=90, subsampling=0), "422.jpg": saved(small, "JPEG", quality=90, subsampling=1),
        "420.jpg": saved(small, "JPEG", quality=75, subsampling=2), "420_progressive.jpg": saved(small, "JPEG", quality=80, progressive=True),
        "grey.jpg": saved(small.convert("L"), "JPEG", quality=85), "cmyk.jpg": saved(small.convert("CMYK"), "JPEG", quality=90),
        "orient6.jpg": saved(small, "JPEG", quality=90, exif=b"Exif\0\0" + exif(6)), "restart.jpg": saved(small, "JPEG", quality=80, restart_marker_blocks=2),
        "one.jpg": saved(small.crop((0, 0, 1, 1)), "JPEG", quality=90),
        "lossless.webp": saved(small, "WEBP", lossless=True), "lossy.webp": saved(small, "WEBP", quality=70),
        "lossless_alpha.webp": saved(Image.fromarray(rgba.astype(np.uint8)), "WEBP", lossless=True, exact=True),
        "lossy_alpha.webp": saved(Image.fromarray(rgba.astype(np.uint8)), "WEBP", quality=80), "orient8.webp": saved(small, "WEBP", lossless=True, exif=b"Exif\0\0" + exif(8)),
        "animated.webp": saved(small, "WEBP", lossless=True, save_all=True, append_images=[small.rotate(180)]),
        "palette.gif": saved(small.quantize(64), "GIF"), "interlaced.gif": saved(small.quantize(16), "GIF", interlace=1),
        "transparent.gif": saved(small.quantize(32), "GIF", transparency=3), "animated.gif": saved(small.quantize(8), "GIF", save_all=True, append_images=[small.rotate(180).quantize(8)]),
    }
    value = lambda a, bits: sum((a[..., c].astype(int) >> (8 - b)) << s for c, (b, s) in enumerate(bits))
    pal3 = [tuple(int(v) for v in c) for c in pal.reshape(-1, 3)]
    files |= {
        "24.bmp": bmp(value(rgb, [(8, 16), (8, 8), (8, 0)]), 24), "24_top_down.bmp": bmp(value(rgb, [(8, 16), (8, 8), (8, 0)]), 24, top_down=True),
        "24_os2.bmp": bmp(value(rgb, [(8, 16), (8, 8), (8, 0)]), 24, old=True), "32.bmp": bmp(value(rgba, [(8, 16), (8, 8), (8, 0), (8, 24)]), 32),
        "32_alpha.bmp": bmp(value(rgba, [(8, 16), (8, 8), (8, 0), (8, 24)]), 32, masks=[0xFF0000, 0xFF00, 0xFF, 0xFF000000]),
        "16_555.bmp": bmp(value(rgb, [(5, 10), (5, 5), (5, 0)]), 16), "16_565.bmp": bmp(value(rgb, [(5, 11), (6, 5), (5, 0)]), 16, masks=[0xF800, 0x7E0, 0x1F]),
        **{f"{d}.bmp": bmp(grey[..., 0].astype(int) >> (8 - d), d, palette=pal3[: 1 << d]) for d in (1, 4, 8)},
    }
    lines = ["# file width height crc32(rgb) | lossy formats: crc32 of Pillow's pixels, which lie beside it as .png"]
    for name, data in files.items():
        (folder / name).write_bytes(data)
        # Pillow turns everything above 255 of a 16-bit grey picture white; we keep the high byte as everywhere else.
        want = grey16 if name == "l16.png" else reference_rgb(data)
        lines.append(f"{name} {want.shape[1]} {want.shape[0]} {crc(want)}")
        if name.endswith(".jpg") or name.startswith("lossy"):
            (folder / f"{name}.png").write_bytes(png(want.astype(np.uint32), 8, 2))
    (DATA / "decode.txt").write_text("\n".join(lines) + "\n")
    return len(files)


# ---------------------------------------------------------------- processors
def spots(a):
    """Every so many values of a flat array, for whoever debugs a wrong CRC."""
    flat = a.ravel()
    at = np.linspace(0, flat.size - 1, 4).astype(int)
    return [[int(i), flat[i].item()] for i in at]


def golden(values):
    a = values.numpy() if torch.is_tensor(values) else np.asarray(values)
    assert a.dtype in (np.float32, np.int64), a.dtype
    return {"dtype": {"float32": "f32", "int64": "i64"}[str(a.dtype)], "shape": list(a.shape), "crc": crc(a), "spots": spots(a)}


def processors_cases():
    import transformers as T
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
    from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil
    pil = {"Bit": BitImageProcessorPil, "CLIP": CLIPImageProcessorPil, "EfficientNet": EfficientNetImageProcessorPil, "RTDetr": RTDetrImageProcessorPil,
           "Siglip": SiglipImageProcessorPil, "ViT": ViTImageProcessorPil, "Gemma4": Gemma4ImageProcessorPil, "Idefics3": Idefics3ImageProcessorPil,
           "Qwen2VL": Qwen2VLImageProcessorPil, "SmolVLM": SmolVLMImageProcessorPil, "Yolos": YolosImageProcessorPil}
    sizes = [[120, 90], [70, 100], [48, 48], [31, 640], [1, 1], [37, 5]]
    hw = lambda h, w=None: {"height": h, "width": w or h}
    cases = [
        # (family, settings of the file, pictures; one batch each)
        ("CLIP", {"size": {"shortest_edge": 48}, "crop_size": hw(48)}, sizes), ("CLIP", {"size": 48, "crop_size": 33}, sizes), ("CLIP", {}, sizes[:1]),
        ("CLIP", {"size": {"shortest_edge": 20}, "crop_size": hw(31, 45)}, sizes), ("CLIP", {"do_resize": False, "crop_size": hw(40, 41)}, sizes),
        ("Siglip", {"size": hw(48)}, sizes), ("Siglip", {"size": hw(27, 64), "resample": 2}, sizes), ("Siglip", {"size": 24, "do_rescale": False}, [[60, 60], [40, 40]]),
        ("ViT", {"size": hw(32)}, sizes), ("ViT", {"size": 32}, sizes[:2]), ("ViT", {}, sizes[:1]), ("ViT", {"size": hw(19), "resample": 0, "do_normalize": False}, sizes),
        ("ViT", {"size": hw(40), "resample": 1, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.7, 0.8, 0.9]}, sizes),
        ("DeiT", {"size": hw(40), "crop_size": hw(32)}, sizes), ("Bit", {"size": {"shortest_edge": 50}, "crop_size": hw(44)}, sizes),
        ("MobileNetV1", {"size": {"shortest_edge": 40}, "crop_size": hw(32)}, sizes), ("MobileNetV2", {"size": {"shortest_edge": 72}, "crop_size": hw(64)}, sizes),
        ("EfficientNet", {"size": hw(64)}, sizes), ("EfficientNet", {"size": hw(40), "do_center_crop": True, "crop_size": hw(31), "include_top": False}, sizes),
        ("EfficientNet", {"size": hw(30), "rescale_offset": True, "rescale_factor": 1 / 127.5}, sizes), ("EfficientNet", {"size": hw(30), "rescale_offset": True, "do_normalize": False}, sizes),
        ("RTDetr", {"size": hw(96)}, sizes), ("RTDetr", {"size": {"shortest_edge": 32, "longest_edge": 60}, "do_normalize": True}, [[120, 90]]),
        ("RTDetr", {"size": {"shortest_edge": 32, "longest_edge": 60}}, [[100, 330]]), ("RTDetr", {"size": {"shortest_edge": 32, "longest_edge": 61}}, [[333, 100]]),
        ("RTDetr", {"size": {"shortest_edge": 32, "longest_edge": 60}}, [[45, 32]]), ("RTDetr", {"size": {"shortest_edge": 13, "longest_edge": 21}}, [[26, 83], [26, 83]]),
        ("RTDetr", {"size": hw(40, 33), "do_pad": True, "pad_size": hw(48, 41)}, sizes[:3]), ("RTDetr", {"size": {"max_height": 30, "max_width": 50}, "do_pad": True}, sizes),
        ("Yolos", {"size": {"shortest_edge": 64, "longest_edge": 112}}, sizes[:3]), ("Yolos", {"size": {"shortest_edge": 32, "longest_edge": 90}}, [[120, 90], [32, 50], [50, 32], [17, 40], [16, 16]]),
        ("Yolos", {"size": {"shortest_edge": 48, "longest_edge": 800}, "do_normalize": False, "pad_size": hw(96, 160)}, sizes[:2]), ("Yolos", {"size": hw(21, 34), "do_pad": False}, sizes), ("Yolos", {"size": {"shortest_edge": 32, "longest_edge": 90}}, [[3, 50]]),
    ]
    # Families whose pictures keep their shape: one picture of every size by itself, and some together.
    odd = [[1, 1], [1, 301], [120, 90], [70, 100], [96, 96], [31, 301], [640, 31], [37, 5], [97, 33], [32, 32], [33, 32], [5, 199], [257, 131], [401, 499]]
    tiles = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}}
    qwen = {"patch_size": 8, "size": {"shortest_edge": 1024, "longest_edge": 9216}}
    gemma = {"patch_size": 4, "max_soft_tokens": 70}
    for family, settings in (
        ("SmolVLM", tiles), ("SmolVLM", {**tiles, "size": {"longest_edge": 130}, "resample": 3}), ("Idefics3", {**tiles, "do_image_splitting": False}), ("Idefics3", {**tiles, "do_resize": False, "do_pad": False}),
        ("SmolVLM", {"size": {"longest_edge": 40}, "max_image_size": {"longest_edge": 57}}), ("Idefics3", {"size": hw(45, 77), "max_image_size": {"longest_edge": 24}}),
        ("Qwen2VL", qwen), ("Qwen2VL", {**qwen, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}), ("Qwen2VL", {"patch_size": 5, "merge_size": 3, "temporal_patch_size": 1, "min_pixels": 900, "max_pixels": 4000}),
        ("Qwen2VL", {"patch_size": 4, "merge_size": 1, "size": {"shortest_edge": 20, "longest_edge": 3000}, "resample": 2, "do_normalize": False}),
        ("Gemma4", gemma), ("Gemma4", {"patch_size": 3, "pooling_kernel_size": 2, "max_soft_tokens": 140, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}), ("Gemma4", {**gemma, "max_soft_tokens": 280, "resample": 1}),
    ):
        cases += [(family, settings, [size]) for size in odd] + [(family, settings, odd[2:5]), (family, settings, odd[7:11])]
    for family, size in (("SmolVLM", [64, 48]), ("Qwen2VL", [100, 75]), ("Gemma4", [100, 75]), ("Yolos", [300, 200])):
        cases.append((family, {}, [size]))
    out = []
    for family, settings, images in cases:
        for name, cls in ((f"{family}ImageProcessor", getattr(T, f"{family}ImageProcessor")), (f"{family}ImageProcessorPil", pil.get(family))):
            if cls is None:
                continue
            pictures = [Image.fromarray(picture(w, h, i)) for i, (w, h) in enumerate(images)]
            where = {"config": {"image_processor_type": name, **settings}, "images": images}
            try:
                made = cls(**settings)(images=pictures, return_tensors="pt")
            except Exception as e:
                print("refused:", name, settings, images, repr(e)[:120])
                out.append({**where, "refused": str(e)[:120]})
                continue
            made = {k: v if torch.is_tensor(v) else torch.tensor(np.asarray(v)) for k, v in made.items()}
            out.append({**where, "tensors": [{"name": k, **golden(v)} for k, v in made.items()]})
    (DATA / "processors.json").write_text("[\n" + ",\n".join(json.dumps(o) for o in out) + "\n]\n")
    return len(out)


# ---------------------------------------------------------------- patches
def patches_cases():
    from transformers import Gemma4ImageProcessor, Qwen2VLImageProcessor
    qwen = Qwen2VLImageProcessor(patch_size=4, merge_size=2, temporal_patch_size=2, do_resize=False, do_normalize=False)
    gemma = Gemma4ImageProcessor(patch_size=4, pooling_kernel_size=1, do_resize=False)
    out = []
    for w, h in ((16, 24), (40, 8), (8, 8)):
        im = Image.fromarray(picture(w, h, 1))
        q = qwen(images=[im], return_tensors="pt")
        out.append({"of": "qwen2_vl", "size": [w, h], "grid": q["image_grid_thw"][0].tolist(), **golden(q["pixel_values"])})
        n = w * h // 16
        g = gemma(images=[im], return_tensors="pt")["pixel_values"][0, :n].contiguous()
        out.append({"of": "gemma4", "size": [w, h], "grid": [1, h // 4, w // 4], **golden(g)})
    (DATA / "patches.json").write_text("[\n" + ",\n".join(json.dumps(o) for o in out) + "\n]\n")
    return len(out)


# ---------------------------------------------------------------- films
def films_cases():
    from transformers import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
    from transformers.image_transforms import convert_to_rgb
    from transformers.video_utils import VideoMetadata
    classes = {"Qwen2VL": Qwen2VLVideoProcessor, "Qwen3VL": Qwen3VLVideoProcessor}
    small = {"patch_size": 8, "size": {"shortest_edge": 1024, "longest_edge": 9216}}
    tensors, sampled = [], []
    for family, settings in (("Qwen2VL", small), ("Qwen3VL", {**small, "size": {"shortest_edge": 4096, "longest_edge": 30000}}), ("Qwen2VL", {"patch_size": 5, "merge_size": 1, "temporal_patch_size": 3, "min_pixels": 400, "max_pixels": 4000})):
        for n, w, h in ((4, 64, 48), (5, 30, 50), (2, 97, 33), (7, 5, 9), (3, 200, 120)):
            frames = [picture(w, h, i) for i in range(n)]
            made = classes[family](**settings)(videos=[np.stack(frames)], return_tensors="pt", do_sample_frames=False)
            tensors.append({"config": {"video_processor_type": f"{family}VideoProcessor", **settings}, "frames": [n, w, h],
                            "pixel_values": golden(made["pixel_values_videos"]), "grid": golden(made["video_grid_thw"])})
    for family, settings in (("Qwen2VL", {"fps": 2}), ("Qwen2VL", {"fps": 1.5, "max_frames": 10}), ("Qwen2VL", {"num_frames": 7}), ("Qwen3VL", {}), ("Qwen3VL", {"fps": 4, "max_frames": 9}), ("Qwen3VL", {"fps": 0.5})):
        for total, fps in ((16, 8.0), (31, 25.0), (100, 29.97), (301, 24.0), (64, 10.0)):
            p = classes[family](**settings)
            want = p.sample_frames(VideoMetadata(total_num_frames=total, fps=fps, duration=total / fps))
            sampled.append({"config": {"video_processor_type": f"{family}VideoProcessor", "do_sample_frames": True, **settings}, "total": total, "fps": fps, "indices": [int(i) for i in want]})
    folder = DATA / "films"
    folder.mkdir(exist_ok=True)
    films = []
    w, h = 23, 17
    ims = [Image.fromarray(picture(w, h, i)) for i in range(4)]
    patch = [im.crop((0, 0, 9, 7)) for im in ims]
    def gif(name, disposal, transparent):
        base = ims[0].quantize(16)
        rest = []
        for i, im in enumerate(ims[1:]):
            q = im.quantize(8)
            rest.append(q)
        kw = {"transparency": 2} if transparent else {}
        base.save(folder / name, save_all=True, append_images=rest, duration=[100, 50, 200, 30], disposal=disposal, optimize=False, **kw)
    for d in (1, 2, 3):
        gif(f"dispose{d}.gif", d, False)
        gif(f"dispose{d}_transparent.gif", d, True)
    ims[0].save(folder / "film.webp", save_all=True, append_images=ims[1:], duration=[100, 50, 200, 30], lossless=True)
    alpha = []
    for i, im in enumerate(ims):
        im = im.convert("RGBA")
        im.putalpha(Image.fromarray(picture(w, h, 9 + i)[..., 0]))
        alpha.append(im)
    alpha[0].save(folder / "film_alpha.webp", save_all=True, append_images=alpha[1:], duration=40, lossless=True)
    for f in sorted(folder.iterdir()):
        im = Image.open(f)
        shown = []
        for i in range(im.n_frames):
            im.seek(i)
            im.load()  # sets the duration
            shown.append({"millis": int(im.info.get("duration", 0)), "crc": crc(np.asarray(convert_to_rgb(im, return_numpy=True)))})
        films.append({"file": f.name, "frames": shown})
    (DATA / "films.json").write_text(json.dumps({"tensors": tensors, "sampled": sampled, "films": films}).replace('{"config"', '\n{"config"').replace('{"file"', '\n{"file"') + "\n")
    return len(tensors) + len(sampled) + len(films)


# ---------------------------------------------------------------- boxes
def boxes_cases():
    from torchvision import ops
    out = []
    for seed, n, threshold in ((0, 1, 0.5), (1, 12, 0.5), (2, 40, 0.3), (3, 40, 0.7), (4, 25, 0.0), (5, 60, 0.45)):
        rng = np.random.default_rng(seed)
        corner, size = rng.integers(0, 60, (n, 2)), rng.integers(1, 40, (n, 2))
        boxes = torch.tensor(np.concatenate([corner, corner + size], 1), dtype=torch.float32)
        scores = torch.tensor(rng.permutation(n), dtype=torch.float32) / n
        classes = torch.tensor(rng.integers(0, 3, n))
        out.append({"boxes": boxes.tolist(), "scores": scores.tolist(), "classes": classes.tolist(), "threshold": threshold, "nms": ops.nms(boxes, scores, threshold).tolist(),
                    "batched_nms": ops.batched_nms(boxes, scores, classes, threshold).tolist(), "iou": ops.box_iou(boxes[:12], boxes[:12]).tolist(),
                    "xywh": ops.box_convert(boxes, "xyxy", "xywh").tolist(), "cxcywh": ops.box_convert(boxes, "xyxy", "cxcywh").tolist()})
    (DATA / "boxes.json").write_text("[\n" + ",\n".join(json.dumps(o) for o in out) + "\n]\n")
    return len(out)


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for part in sys.argv[1:] or ["resize", "decode", "processors", "patches", "films", "boxes"]:
        print(part, globals()[part + "_cases"]())
