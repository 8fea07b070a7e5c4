"""Read mutated embedding files, and count crashes, executions and memory. All should be zero.

    python benchmarks/fuzz.py --files 10000

Each file is one of a few dozen seeds (every layout and container, and hand-made attacks) with up to
four mutations. Zip members, pickles and safetensors headers are also mutated inside a container
that stays valid, since random bytes rarely pass a checksum. Every read must return an embedding or
raise the one-line error. Everything else is counted as a problem:

- a crash: any other exception, a message of several lines, the death of the process, or ten seconds
  of processor time without an answer;
- an execution: a canary file that a payload would leave, or an audit event (import, exec, compile,
  find_class, a process, a socket, another file) during the read;
- memory: the address space may grow by at most 64 MB, whatever the file says.

`--only N` reads file N of the same seed again and shows the result.
"""

import argparse
import base64
import binascii
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from dti_geom.errors import EmbeddingFileError
from dti_geom.files import read_embeddings
from dti_geom.files.cards import PNG, write_card

MEMORY = 64 * 2**20  # bytes that reading a file may add to the address space
PATIENCE = 10  # seconds of processor time for one file
BLOCKED = 600  # seconds after which a process that computes nothing counts as hanging
# Audit events that no read of a tensor file causes. They also show calls that fail, which leave no
# canary.
FORBIDDEN = (
    "exec",
    "compile",
    "import",
    "pickle.",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "shutil.",
    "marshal.",
)


# --- Seeds ---


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def seeds(canary: Path) -> dict[str, bytes]:
    """Named files: honest ones of every layout, and attacks that would leave the canary."""
    return honest_files() | {f"attack {name}": data for name, data in attacks(canary).items()}


def honest_files() -> dict[str, bytes]:
    def vectors(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)

    contents = {
        "diffusers": {"<cat>": vectors(16), "<dog>": vectors(2, 16, dtype=torch.float16)},
        "web-ui": {
            "string_to_token": {"*": 265},
            "string_to_param": {"*": vectors(3, 8)},
            "name": "x",
            "step": 9,
        },
        "ldm": {
            "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors(2, 8))})
        },
        "two-tower": [{"<x>": vectors(8)}, {"<x>": vectors(12, dtype=torch.bfloat16)}],
        "lists": {"<x>": (vectors(8), vectors(12, dtype=torch.float64))},
        "checkpoint": {
            "state_dict": {f"model.{layer}.weight": vectors(2, 2) for layer in range(20)}
        },
        "shared": {"<x>": (table := vectors(4, 8))[0], "<y>": table[1], "<z>": table.T},
    }
    files = {}
    for name, content in contents.items():
        for kind in ("zip", "legacy"):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=kind == "zip")
            files[f"{name} {kind}"] = stream.getvalue()
    stream = io.BytesIO()
    torch.save(contents["diffusers"], stream, pickle_protocol=4)
    files["protocol 4"] = stream.getvalue()
    for name, tensors in {
        "diffusers": {"<cat>": vectors(16), "<dog>": vectors(2, 16, dtype=torch.bfloat16)},
        "sdxl": {"clip_l": vectors(2, 8), "clip_g": vectors(2, 12)},
        "emb_params": {"emb_params": vectors(3, 8)},
        "lora": {"lora_unet.lora_up.weight": vectors(4, 4), "lora_unet.alpha": vectors(1)},
        "comfyui": {"clip_l": vectors(2, 8), "t5xxl": vectors(2, 16), "qwen25_7b": vectors(1, 4)},
        "onetrainer": {"clip_l": vectors(2, 8), "t5": vectors(2, 16), "t5_out": vectors(2, 16)},
        "pivotal": {"text_encoders_0": vectors(2, 8), "text_encoders_1": vectors(2, 12)},
        "emp_params": {"emp_params": vectors(3, 8), "emp_params_out": vectors(3, 8)},
        "bundle": {
            "lora_unet.lora_up.weight": vectors(4, 4),
            "bundle_emb.<x>.clip_l": vectors(2, 8),
            "bundle_emb.<x>.string_to_param.*": vectors(8),
        },
    }.items():
        files[f"{name} safetensors"] = save(tensors, {"step": "7", "name": "x"})
    content = {"string_to_param": {"*": vectors(2, 16)}, "name": "x", "step": 7}
    files["card text"] = card = write_card(content, "x")
    files["card pixels"] = _card_without_text(card)
    return files


def _card_without_text(card: bytes) -> bytes:
    return b"".join([PNG, *(chunk(*part) for part in chunks(card) if part[0] != b"tEXt")])


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Type and content of a PNG's chunks, as far as it is whole."""
    parts, place = [], len(PNG)
    while place + 12 <= len(png):
        length = struct.unpack(">I", png[place : place + 4])[0]
        parts.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + length]))
        place += 12 + length
    return parts


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with the right checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def attacks(canary: Path) -> dict[str, bytes]:
    touch = f"open({str(canary)!r}, 'w').close()"
    shell = f"touch {canary}"
    text = b"X" + struct.pack("<I", len(shell)) + shell.encode()
    programs = {  # pickles, without protocol and with the instruction that each is about
        "system": pickle.dumps({"<x>": Call(os.system, shell)}, 2),
        "eval 4": pickle.dumps([Call(eval, touch)], 4),
        "exec 0": pickle.dumps(Call(exec, touch), 0),
        "torch load": pickle.dumps(Call(torch.load, str(canary)), 2),
        "open": pickle.dumps(Call(io.open, str(canary), "w"), 2),
        "bytearray": pickle.dumps(Call(bytearray, 2**31), 2),
        "inst": b"\x80\x02(" + text + b"iposix\nsystem\n.",
        "obj": b"\x80\x02(cposix\nsystem\n" + text + b"o.",
        "newobj": b"\x80\x02cposix\nsystem\n" + text + b"\x85\x81.",
        "newobj_ex": b"\x80\x04cposix\nsystem\n" + text + b"\x85}\x92.",
        "stack_global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text + b"\x85R.",
        "build": b"\x80\x02ccollections\nOrderedDict\n)R}X\x08\0\0\0__dict__cposix\nsystem\nsb.",
        "build slots": b"\x80\x02ctorch.nn.modules.container\nParameterDict\n)R}"
        b"X\x0b\0\0\0_parametersccollections\nOrderedDict\n)Rsb.",
        "dotted": b"\x80\x04\x8c\x06torch.\x8c\x16_utils.__builtins__.eval\x93" + text + b"\x85R.",
        "persistent": b"\x80\x02(X\x06\0\0\0modulecposix\nsystem\nX\x01\0\0\0aX\x01\0\0\0btQ.",
        "extension": b"\x80\x02\x82\x01.",
        "memo": b"\x80\x02r\xff\xff\xff\xffj\xff\xff\xff\xff.",
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "string": b"\x80\x02X\xff\xff\xff\xff.",
        "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        "recursive": b"\x80\x02}q\0X\x01\0\0\0ah\0s.",
        "recursive list": b"\x80\x02]q\0h\0a.",
        "tuple bomb": b"\x80\x02})q\0" + b"h\0\x86q\0" * 60 + b"K\x01s.",
        "deep": b"\x80\x02" + b"(" * 9000 + b"]" + b"l" * 9000 + b".",
        "deep tuples": b"\x80\x02)" + b"\x85" * 90_000 + b".",
        "huge storage": storage_pickle(2**40, (8,), (1,)),
        "huge shape": storage_pickle(8, (2**62, 2**62), (1, 1)),
        "wide shape": storage_pickle(1, (2**20,), (0,)),
        "overflow": storage_pickle(8, (2**33, 2**33), (2**33, 2**33)),
        "negative": storage_pickle(8, (-1, 8), (8, 1)),
        "many lists": b"\x80\x02" + b"]" * 200_000 + b".",
        "many storages": b"\x80\x02" + storage_pickle(0, (0,), (1,))[2:-1] * 300 + b".",
    }
    files = {"zipless": programs["system"], "empty": b"", "text": "naïve ".encode("latin-1") * 9}
    for name, program in programs.items():
        files[f"{name} zip"] = _archive(program)
        files[f"{name} legacy"] = legacy(program)
    inner = files["system zip"]
    files["nested"] = zipped({"data.pkl": inner, "version": b"3"})
    files["archive in archive"] = zipped({"inner.pt": inner})
    files["bomb"] = zipped(
        {"data.pkl": programs["system"], "data/0": bytes(2**24)}, zipfile.ZIP_DEFLATED
    )
    files["pickle bomb"] = zipped({"data.pkl": b"N" * 2**24}, zipfile.ZIP_DEFLATED)
    files["tar"] = tarred({"storages": inner, "tensors": inner, "pickle": programs["system"]})
    entry = '"%s":{"dtype":"%s","shape":%s,"data_offsets":[0,%d]}'
    for name, header in {
        "huge header": b"{" + b" " * 10**6 + b"}",
        "huge tensor": (
            "{" + entry % ("<x>", "F32", "[4294967296,4294967296]", 2**62) + "}"
        ).encode(),
        "lying shape": ("{" + entry % ("<x>", "F32", "[1000000]", 32) + "}").encode(),
        "wrong dtype": ("{" + entry % ("<x>", "F9", "[8]", 32) + "}").encode(),
        "integer": ("{" + entry % ("<x>", "I64", "[4]", 32) + "}").encode(),
        "twice": ("{" + ",".join([entry % ("<x>", "F32", "[8]", 32)] * 2) + "}").encode(),
        "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "not utf-8": b'{"\xff\xfe":{}}',
        "not a number": ("{" + entry % ("<x>", "F32", "[8]", 32) + "}").encode(),
    }.items():
        body = struct.pack("<8f", *[float("nan")] * 8) if name == "not a number" else bytes(32)
        files[f"header {name}"] = struct.pack("<Q", len(header)) + header + body
    files["header length"] = struct.pack("<Q", 2**63) + b"{}"
    return files | exhausting_files() | card_attacks()


def card_attacks() -> dict[str, bytes]:
    """Cards whose text or pixels unfold to far more than they have."""
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    end = chunk(b"IEND", b"")
    texts = {
        "lists": b"[" * 10**6,
        "numbers": b"[" + b"1," * 10**6 + b"1]",
        "dictionaries": b'{"a":' * 10**5,
        "strings": b'{"TORCHTENSOR": [' + b'"' + b"x" * 10**6 + b'"]}',
        "huge numbers": b'{"TORCHTENSOR": [' + b"9" * 10**6 + b"]}",
        "escapes": b'"' + b"\\u0000" * 10**5 + b'"',
    }
    files = {}
    for name, text in texts.items():
        content = b"sd-ti-embedding\0" + base64.b64encode(text)
        parts = PNG + chunk(b"IHDR", header) + chunk(b"tEXt", content) + end
        files[f"card {name}"] = parts
    for name, size in {"wide": (2**31 - 1, 2**31 - 1), "square": (2048, 1024)}.items():
        header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
        pixels = zlib.compress(bytes(2**24))
        files[f"card {name}"] = PNG + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + end
    return files


def exhausting_files() -> dict[str, bytes]:
    """Small files that take gigabytes or minutes of a reader that counts too late."""
    files = {
        f"{name} {kind}": wrap(program)
        for name, program in exhausting_pickles().items()
        for kind, wrap in (("zip", _archive), ("legacy", legacy))
    }
    entry = '"%s":{"dtype":"F32","shape":[%d],"data_offsets":[%d,32]}'
    many = [entry % ("<x>", 8, 0), *(entry % (number, 0, 32) for number in range(17_000))]
    for name, entries in {
        "long name": [entry % ("lora" * 250_000, 8, 0)],
        "many tokens": many,
    }.items():
        header = ("{" + ",".join(entries) + "}").encode()
        files[f"header {name}"] = struct.pack("<Q", len(header)) + header + bytes(32)
    return files


def exhausting_pickles() -> dict[str, bytes]:
    """Pickles below 128 KB whose parts refer to one another, so that a reader may unfold them."""
    names = [b"U\x03" + f"{number:03x}".encode() for number in range(4096)]
    names += [b"U\x04" + f"{number:04x}".encode() for number in range(4096, 14_000)]
    numbers = [b"M" + struct.pack("<H", number) for number in range(13_000)]
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x08tQ"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0"
    tensor = rebuild + b"K\x08\x85K\x01\x85\x89}tRq\0"
    long = b"\x8a\x08" + b"\xff" * 7 + b"\x7fq\0"
    big = b"\x8a\xff" + b"\xff" * 254 + b"\x7fq\0"

    def mapping(keys: list[bytes], value: bytes) -> bytes:
        return b"}(" + b"".join(key + value for key in keys) + b"u"

    ordered = b"ccollections\nOrderedDict\nq\1]("
    ordered += b"".join(number + number + b"\x86" for number in numbers[:8000]) + b"e\x85q\2"
    parameters = b"ctorch.nn.modules.container\nParameterDict\n)R}U\x0b_parameters"
    bodies = {
        "one dictionary of many names": tensor
        + mapping(numbers, b"h\0")
        + b"q\1"
        + mapping(numbers[:12_000], b"h\1"),
        "one list, many dictionaries": ordered + b"h\1h\2R" * 10_000,
        "one text, many settings": b"X" + struct.pack("<I", 40_000) + b"x" * 40_000 + b"q\0"
        + mapping(names[:10_000], b"h\0"),
        "big shape": rebuild + b"(" + big + b"h\0" * 60_000 + b"tK\x01\x85\x89}tR",
        "long shape": rebuild + b"(" + long + b"h\0" * 60_000 + b"tK\x01\x85\x89}tR",
        "text shape": rebuild + b"M\xff\xffX" + struct.pack("<I", 100_000) + b"x" * 100_000
        + b"\x86K\x01K\x01\x86\x89}tR",
        "big integer": rebuild + big + b"\x85K\x01\x85\x89}tR",
        "lists of four": tensor + b"(h\0h\0h\0h\0tq\1" + mapping(names, b"h\1"),
        "many parameters": b"}U\x01a" + tensor + b"sU\x0fstring_to_param" + parameters
        + mapping(names, b"h\0") + b"sbs",
        "long name": b"}X" + struct.pack("<I", 4 * 30_000) + b"lora" * 30_000 + tensor + b"s",
    }  # fmt: skip
    return {name: b"\x80\x02" + body + b"." for name, body in bodies.items()}


def storage_pickle(count: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of {"<x>": tensor}, on a storage that claims `count` float32 values."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return (
                ("storage", torch.FloatStorage, "0", "cpu", count)
                if isinstance(value, Storage)
                else None
            )

    stream = io.BytesIO()
    call = Call(torch._utils._rebuild_tensor_v2, Storage(), 0, shape, stride, False, {})
    Pickler(stream, 2).dump({"<x>": call})
    return stream.getvalue()


def _archive(program: bytes) -> bytes:
    return zipped({"data.pkl": program, "version": b"3", "data/0": bytes(32)})


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data, compress_type=compression)
    return stream.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def legacy(program: bytes) -> bytes:
    head = [
        pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    ]
    return b"".join(head) + program + pickle.dumps(["0"], 2) + struct.pack("<q", 8) + bytes(32)


# --- Mutations ---


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return the file with up to four changes.

    Many changes of zips and safetensors happen inside a container that stays valid.
    """
    for _ in range(chance.randint(0, 4)):
        if data.startswith(b"PK") and chance.random() < 0.7:
            data = _inside_zip(data, others, chance)
        elif data[8:9] == b"{" and chance.random() < 0.7:
            data = _inside_header(data, chance)
        elif data.startswith(PNG) and chance.random() < 0.8:
            data = _inside_png(data, others, chance)
        else:
            data = _changed(data, others, chance)
    return data


def _inside_zip(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > 2**20:
                return _changed(data, others, chance)
            members = {
                info.filename.removeprefix("archive/"): archive.read(info)
                for info in archive.infolist()
            }
    except Exception:  # an earlier mutation broke it
        return _changed(data, others, chance)
    if not members:
        return data
    name = (
        "data.pkl"
        if "data.pkl" in members and chance.random() < 0.7
        else chance.choice(sorted(members))
    )
    if chance.random() < 0.1:
        members[chance.choice(["data/1", "byteorder", "constants.pkl", "../x", "data.pkl"])] = (
            members.pop(name)
        )
    else:
        members[name] = _changed(members[name], others, chance)
    return zipped(members, chance.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED]))


def _inside_header(data: bytes, chance: random.Random) -> bytes:
    length = min(struct.unpack("<Q", data[:8])[0], len(data) - 8)
    header, body = data[8 : 8 + length], data[8 + length :]
    if chance.random() < 0.5:
        old, new = chance.choice(
            [
                (b"F32", b"F64"),
                (b"F32", b"I32"),
                (b"[", b"[0,"),
                (b",", b",,"),
                (b"16", b"-1"),
                (b"8", b"9" * 30),
            ]
        )
        header = header.replace(old, new, chance.randint(1, 3))
    else:
        header = _changed(header, [], chance)
    return struct.pack("<Q", len(header)) + header + body


def _inside_png(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Change a chunk, or the text that it holds, under a checksum that stays right."""
    parts = chunks(data)
    if not parts:
        return data
    place = chance.randrange(len(parts))
    kind, content = parts[place]
    if kind == b"tEXt" and chance.random() < 0.8:
        name, _, text = content.partition(b"\0")
        with suppress(binascii.Error):
            decoded = base64.b64decode(text)
            content = name + b"\0" + base64.b64encode(_changed(decoded, others, chance))
    elif kind == b"IDAT" and chance.random() < 0.5:
        with suppress(zlib.error):
            content = zlib.compress(_changed(zlib.decompress(content), others, chance))
    else:
        content = _changed(content, others, chance)
    parts[place] = kind, content
    return PNG + b"".join(chunk(*part) for part in parts)


def _changed(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    match chance.randrange(8):
        case 0:
            return data[:place]
        case 1:
            flipped = bytearray(data)
            for _ in range(chance.randint(1, 16) if data else 0):
                flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            return bytes(flipped)
        case 2:
            return data[:place] + chance.randbytes(chance.randint(1, 40)) + data[place:]
        case 3:
            return data[:place] + data[place + chance.randint(1, 40) :]
        case 4:
            number = chance.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1])
            raw = struct.pack("<Q", number)[: chance.choice([1, 2, 4, 8])]
            return data[:place] + raw + data[place + len(raw) :]
        case 5:
            return (
                data[:place]
                + b"".join(chance.choice(_INSTRUCTIONS) for _ in range(chance.randint(1, 8)))
                + data[place:]
            )
        case 6 if others:
            other = chance.choice(others)
            return data[:place] + other[chance.randrange(len(other) + 1) :][:4000]
        case _:
            end = place + chance.randint(1, 200)
            return data[:end] + data[place:end] * chance.randint(1, 20) + data[end:]


_INSTRUCTIONS = (  # whole pickle instructions, so that mutants stay programs
    *(
        bytes([code])
        for code in b")]}(NRQbuseatlod021\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94."
    ),
    *(
        b"h\0",
        b"q\0",
        b"K\x01",
        b"M\xff\xff",
        b"J\xff\xff\xff\x7f",
        b"\x8a\x01\xff",
        b"\x82\x01",
        b"G" + bytes(8),
    ),
    *(
        b"X\x03\0\0\0<x>",
        b"\x8c\x07storage",
        b"U\x01a",
        b"cposix\nsystem\n",
        b"ctorch\nFloatStorage\n",
    ),
    *(
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
        b"c__builtin__\nset\n",
    ),
    b"ctorch.nn.modules.container\nParameterDict\n",
)


def file_number(number: int, seed: int, named: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the name of the seed and the bytes of file `number`. The first files are the seeds.

    The result depends only on the arguments, so any file can be made again alone.
    """
    names = list(named)
    if number < len(names):
        return names[number], named[names[number]]
    chance = random.Random(seed << 32 | number)
    # Honest files are mutated as often as attacks: they reach deeper into the reader than an attack
    # that is refused at its first name.
    kinds = [
        [name for name in names if name.startswith("attack") == attack] for attack in (False, True)
    ]
    name = chance.choice(kinds[chance.random() < 0.4])
    others = [named[chance.choice(names)] for _ in range(3)]
    return name, mutated(named[name], others, chance)


# --- Reading ---


@dataclass(frozen=True)
class Outcome:
    """The outcome of reading one file."""

    number: int
    seed: str
    size: int
    seconds: float  # of processor time, which other work on the machine does not lengthen
    memory: int  # bytes by which the resident set grew at most
    read: bool
    problem: str | None  # a crash or an execution


def read_one(
    number: int, name: str, data: bytes, path: Path, canary: Path, events: list[str]
) -> Outcome:
    """Read one file under all the guards."""
    path.write_bytes(data)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    events.clear()
    problem, read = None, False
    begin = time.process_time()
    try:
        with limited_memory(), watched(str(path)):
            tokens = read_embeddings(path).tokens
        read = True
    except EmbeddingFileError as error:
        message = str(error)
        if not message.isprintable() or not message.startswith(str(path)):
            problem = f"crash: a message that is not one line: {message!r}"
        elif _out_of_memory(error):
            problem = f"crash: more than {MEMORY} bytes"
    except BaseException as error:
        problem = f"crash: {type(error).__name__}: {error}"
    seconds = time.process_time() - begin
    memory = max(0, _memory("VmHWM") - before)
    if read and not all(token.vectors.isfinite().all() for token in tokens):
        problem = "crash: read values that are not finite"
    if events or canary.exists():
        problem = f"execution: {', '.join(events) or 'the canary is there'}"
        canary.unlink(missing_ok=True)
    return Outcome(number, name, len(data), seconds, memory, read, problem)


watching: list[str] = []  # the path that may be opened, while a file is read


def watch(events: list[str]) -> None:
    """Append every forbidden audit event to `events`."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open":
            if arguments[0] != watching[0] and str(arguments[0]) != watching[0]:
                events.append(f"open {arguments[0]!r}"[:200])
        elif event.startswith(FORBIDDEN):
            events.append(f"{event} {arguments[:1]!r}"[:200])

    sys.addaudithook(hook)


def check_guards(attack: bytes, canary: Path, events: list[str]) -> None:
    """Run one attack, to check that the canary, the audit and the memory limit notice it."""
    canary.unlink(missing_ok=True)
    with watched(""):
        pickle.loads(attack)  # noqa: S301 - what no reader may do
    if not canary.exists() or not any(event.startswith("os.system") for event in events):
        raise RuntimeError("an attack went by unseen")
    canary.unlink()
    try:
        with limited_memory():
            bytearray(4 * MEMORY)
    except MemoryError:
        return
    raise RuntimeError("the memory limit has no effect")


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let the address space grow by MEMORY at most."""
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + MEMORY, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def watched(path: str) -> Iterator[None]:
    """Watch audit events, except the opening of this path."""
    watching.append(path)
    try:
        yield
    finally:
        watching.clear()


def work(pipe: Connection, numbers: range, seed: int, folder: Path) -> None:
    """Read these files and send their outcomes. Runs in its own process, which a file may kill."""
    torch.set_num_threads(1)
    canary = folder / "canary"
    named = seeds(canary)
    # Reads every seed once, so that nothing is imported on first use while imports are forbidden.
    for data in named.values():
        (folder / "warm").write_bytes(data)
        try:
            read_embeddings(folder / "warm")
        except Exception:
            continue
    "\n".encode("unicode_escape")
    events: list[str] = []
    watch(events)
    check_guards(named["attack zipless"], canary, events)
    for number in numbers:
        name, data = file_number(number, seed, named)
        pipe.send(number)
        pipe.send(read_one(number, name, data, folder / "file", canary, events))
    pipe.send(None)


def read_files(count: int, seed: int, folder: Path) -> Iterator[Outcome]:
    """Yield the outcome of every file. A worker that dies or hangs is replaced by a new one."""
    context = multiprocessing.get_context("spawn")
    start = 0
    while start < count:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(theirs, range(start, count), seed, folder))
        worker.start()
        theirs.close()
        current, spent, waited = start, 0.0, 0
        try:
            while True:
                # Of processor time: on a busy machine a file may wait long for its turn.
                if not ours.poll(PATIENCE):
                    waited += PATIENCE
                    loading = current == start and not spent
                    allowed = 12 * PATIENCE if loading else PATIENCE
                    if _processor_seconds(worker) - spent < allowed and waited < BLOCKED:
                        continue
                    raise TimeoutError
                match ours.recv():
                    case None:
                        start = count
                        break
                    case Outcome() as outcome:
                        yield outcome
                        start = outcome.number + 1
                    case number:
                        current, spent, waited = number, _processor_seconds(worker), 0
        except (EOFError, TimeoutError) as error:
            how = "no answer" if isinstance(error, TimeoutError) else "the process died"
            yield Outcome(current, "?", 0, PATIENCE, 0, False, f"crash: {how}")
            start = current + 1
        finally:
            worker.kill()
            worker.join()


def _processor_seconds(worker: SpawnProcess) -> float:
    """Processor time that a process has used; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


# --- The command ---


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the numbers of a run."""
    largest = max(outcomes, key=lambda outcome: outcome.memory)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    small = max(outcome.memory for outcome in outcomes if outcome.size <= 1024)
    problems = [outcome for outcome in outcomes if outcome.problem]
    kinds = [str(outcome.problem).partition(":")[0] for outcome in problems]
    read = sum(outcome.read for outcome in outcomes)
    return {
        "files": len(outcomes),
        "read": read,
        "refused": sum(not outcome.read and outcome.problem is None for outcome in outcomes),
        "crashes": kinds.count("crash"),
        "executions": kinds.count("execution"),
        "largest_memory_mb": round(largest.memory / 2**20, 1),
        "largest_memory": f"{largest.seed}, file {largest.number}, {largest.size} bytes",
        "largest_memory_mb_of_files_up_to_1_kb": round(small / 2**20, 1),
        "slowest_ms": round(1000 * slowest.seconds, 1),
        "slowest": f"{slowest.seed}, file {slowest.number}, {slowest.size} bytes",
        "problems": [asdict(outcome) for outcome in problems[:20]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="read file N alone, in this process")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.only is not None:
            name, data = file_number(arguments.only, arguments.seed, seeds(folder / "canary"))
            (folder / "file").write_bytes(data)
            print(f"{name}, {len(data)} bytes")
            print(read_embeddings(folder / "file"))
            return
        outcomes = []
        for outcome in read_files(arguments.files, arguments.seed, folder):
            outcomes.append(outcome)
            if len(outcomes) % 500 == 0:
                print(f"{len(outcomes)} of {arguments.files}", file=sys.stderr)
    figures = summary(outcomes)
    print(json.dumps(figures, indent=2))
    if figures["crashes"] or figures["executions"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
