"""Draws ten small pictures of ten formats and orientations into pictures/, for contact_sheet.rs. Run it from this folder:

    pip install pillow==12.2.0 numpy

Each shows the same kind of place: sky with a sun on the left, a house in the middle, a tree on the right, and the file's
name; so whatever is turned, mirrored, squashed or off in its colours shows at a glance. They are our own drawings.
"""
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

OUT = Path(__file__).parent / "pictures"


def scene(w, h, name, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w] / np.array([h, w])[:, None, None]
    sky = np.stack([90 + 130 * y, 150 + 60 * y, 235 - 40 * y], -1)
    grass = np.stack([60 + 50 * x, 130 + 40 * (1 - y), 50 + 20 * x], -1)
    a = np.where((y > 0.62)[..., None], grass, sky) + rng.normal(0, 5, (h, w, 1))
    im = Image.fromarray(a.clip(0, 255).astype(np.uint8))
    d = ImageDraw.Draw(im)
    s = min(w, h)
    box = lambda cx, cy, r: [cx * w - r * s, cy * h - r * s, cx * w + r * s, cy * h + r * s]
    d.ellipse(box(0.16, 0.2, 0.09), fill=(255, 225, 60))
    d.rectangle([0.36 * w, 0.46 * h, 0.62 * w, 0.78 * h], fill=(205, 175, 140), outline=(80, 50, 30))
    d.polygon([(0.32 * w, 0.47 * h), (0.49 * w, 0.27 * h), (0.66 * w, 0.47 * h)], fill=(190, 50, 40))
    d.rectangle([0.46 * w, 0.6 * h, 0.53 * w, 0.78 * h], fill=(70, 45, 110))
    d.rectangle([0.83 * w, 0.55 * h, 0.86 * w, 0.8 * h], fill=(95, 60, 30))
    d.ellipse(box(0.845, 0.45, 0.13), fill=(25, 110, 45))
    d.text((0.04 * w, 0.86 * h), name, fill=(255, 255, 255), font_size=max(10, s // 11), stroke_width=1, stroke_fill=(0, 0, 0))
    return im


def exif(orientation):
    return b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


# What was done to the upright picture so that the tag says how to undo it.
UNDO = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 2: Image.Transpose.FLIP_LEFT_RIGHT}


def png16(im):
    a = np.asarray(im).astype(">u2") * 257
    rows = b"".join(b"\0" + r.tobytes() for r in a)
    chunk = lambda tag, body: struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", im.width, im.height, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def save(name, im, turned=None, **kw):
    if turned:
        im, kw["exif"] = im.transpose(UNDO[turned]), exif(turned)
    im.save(OUT / name, **kw)


OUT.mkdir(exist_ok=True)
save("01-jpeg.jpg", scene(320, 240, "jpeg 4:2:0", 1), quality=85, subsampling=2)
save("02-jpeg-turned.jpg", scene(240, 320, "jpeg, EXIF 6", 2), turned=6, quality=85, subsampling=1)
save("03-progressive.jpg", scene(330, 190, "progressive, 3", 3), turned=3, quality=80, progressive=True)
save("04-grey.jpg", scene(240, 240, "grey", 4).convert("L"), quality=85)
save("05-cmyk.jpg", scene(300, 200, "CMYK", 5).convert("CMYK"), quality=85)
alpha = Image.new("L", (250, 200), 0)
ImageDraw.Draw(alpha).ellipse([10, 10, 240, 190], fill=255)
im = scene(250, 200, "alpha", 6)
im.putalpha(alpha)
save("06-alpha.png", im.quantize(128, method=Image.Quantize.FASTOCTREE), optimize=True)
(OUT / "07-16bit.png").write_bytes(png16(scene(120, 160, "16 bits", 7)))
save("08-webp-mirrored.webp", scene(200, 300, "WebP, EXIF 5", 8), turned=5, quality=75)
frames = [scene(260, 120, f"GIF {i}", 9 + i).quantize(48) for i in range(4)]
frames[0].save(OUT / "09-animated.gif", save_all=True, append_images=frames[1:], duration=[200, 300, 200, 300])
scene(500, 100, "BMP, long", 10).resize((300, 60), 1).quantize(64).save(OUT / "10-palette.bmp")
for f in sorted(OUT.iterdir()):
    print(f.name, f.stat().st_size, ImageOps.exif_transpose(Image.open(f)).size)
