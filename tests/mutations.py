"Small photographs with a fault or a speciality, as bytes, and files of weights that are changed in one place."

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dmgn.files import sha256

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n0 0 40 30 rectfill\nshowpage\n%%EOF\n"
HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)


def pixels(height: int = 24, width: int = 37, seed: int = 0) -> np.ndarray:  # (H, W, 3) uint8
    "Smooth patches of colour"
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def photograph(seed: int = 0, height: int = 24, width: int = 37) -> Image.Image:  # RGB
    return Image.fromarray(pixels(height, width, seed))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    "The head of a PNG file that says it is of that size; its pixels are missing"
    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(bytes(100)))
        + png_chunk(b"IEND", b"")
    )


def deep_colour_png(array: np.ndarray) -> bytes:  # of (H, W, 3) uint16
    "RGB of 16 bits, which Pillow does not write"
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">2I5B", array.shape[1], array.shape[0], 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def transparent_bmp(array: np.ndarray) -> bytes:  # of (H, W, 4) uint8, RGBA
    "A BMP file of 32 bits with a mask for its transparency"
    height, width = array.shape[:2]
    data = array[::-1, :, [2, 1, 0, 3]].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = (
        struct.pack("<I2i2H6I", 108, width, height, 1, 32, 3, len(data), 2835, 2835, 0, 0) + masks + b"BGRs" + bytes(48)
    )
    return struct.pack("<2sI2HI", b"BM", 14 + len(info) + len(data), 0, 0, 14 + len(info)) + info + data


def raw_file(thumbnail: Image.Image) -> bytes:
    "A TIFF file as a camera writes it: a thumbnail, and a DNG's version"
    from PIL import TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706], tags.tagtype[50706] = b"\1\4\0\0", 1
    return encoded(thumbnail, "TIFF", tiffinfo=tags)


def with_iptc(jpeg: bytes, caption: bytes) -> bytes:
    "A JPEG file with a caption as IPTC has it, in an APP13 segment"
    record = b"\x1c\x02\x78" + struct.pack(">H", len(caption)) + caption
    block = (
        b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record + b"\0" * (len(record) % 2)
    )
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def say_sum(folder: Path) -> None:
    "Make the checksum beside the weights theirs, as somebody who packs a network anew would; nothing if there is none"
    path = folder / "model.safetensors.sha256"
    if path.exists():
        path.write_text(f"{sha256(folder / 'model.safetensors')}  model.safetensors\n")


def change_tensors(folder: Path, change) -> None:  # change: from a state dict to another
    "Write other weights into a network's folder"
    save_file(
        {name: t.contiguous() for name, t in change(load_file(folder / "model.safetensors")).items()},
        folder / "model.safetensors",
    )
    say_sum(folder)


def change_header(folder: Path, change) -> None:  # change: from a safetensors file's header to another, or to text
    "Write another header over the same data"
    data = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = change(json.loads(data[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    say_sum(folder)


def change_config(folder: Path, **changes) -> None:
    "Change values of a network's config.json"
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    "Is every tensor of two networks the same, bit for bit?"
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(one[k].dtype == two[k].dtype and torch.equal(one[k], two[k]) for k in one)
