"""Files that were made to do harm, and files damaged by chance: read, or refused with a reason that
names the file, in under a second of the processor's time and 200 MB of memory in all.

Each file is read by `reading_child.py`, a process that is killed where it takes too long.
`pytest -s` prints what the named ones took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.engine_files import PATIENCE
from support.sizes import size

from composer.errors import BadLora
from composer.lora import read
from composer.lora.opening import HEADER_LIMIT
from composer.lora.untrusted_json import PARSED_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUPPORT = Path(__file__).parents[1] / "support"
SECONDS, MEMORY = 1.0, 200 * 1000 * 1000
GIB = 2**30
FUZZ = settings(
    max_examples=size(400, 20_000),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How reading a file ended, and what it took: seconds and bytes."""

    outcome: str
    words: str
    tensors: dict[str, Any]
    seconds: float
    peak: int


class Judge:
    """The process that reads, asked for one file after the other."""

    def __init__(self) -> None:
        paths = [str(SUPPORT.parent), str(SUPPORT.parents[1]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "reading_child.py")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def verdict(self, path: Path) -> Verdict:
        """Of the file at `path`; fails where there is none to be had, or not a fair one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(PATIENCE, self.process.kill)
        timer.start()
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        timer.cancel()
        assert line, f"reading {path.name} ended the process"
        verdict = Verdict(**json.loads(line))
        assert verdict.outcome in ("read", "refused"), verdict
        if verdict.outcome == "refused":
            assert verdict.words.startswith(f"{path.name}: ")
            assert verdict.words.isprintable()
            assert len(verdict.words) < 500
        assert verdict.seconds < SECONDS, verdict
        assert verdict.peak < MEMORY, verdict
        return verdict


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge()
    with judge.process as process:
        yield judge
        assert process.stdin is not None
        process.stdin.close()


# --- made to do harm ---------------------------------------------------------------------


def file(path: Path, header: bytes, *, length: int | None = None, whole: int = 0) -> None:
    """A file of this header, which claims `length`; `whole` bytes in all, most of them holes."""
    with open(path, "wb") as out:
        out.write((len(header) if length is None else length).to_bytes(8, "little") + header)
        out.truncate(max(whole, out.tell()))


def entry(name: str, shape: str, start: int, stop: int, dtype: str = "U8") -> bytes:
    offsets = f"[{start},{stop}]"
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'.encode()


def header(*entries: bytes) -> bytes:
    return b"{" + b",".join(entries) + b"}"


LONG = size(20_000_000, HEADER_LIMIT)  # bytes of a header that takes long to look through


def filled(before: bytes, unit: bytes, after: bytes = b"", *, limit: int = PARSED_LIMIT) -> bytes:
    """As large a header as may be parsed, of one unit again and again."""
    return before + unit * ((limit - len(before) - len(after)) // len(unit)) + after


def plausible(path: Path, *, rows: int, dtype: str, missing: int = 0, more: int = 0) -> None:
    """A LoRA of one huge matrix, nothing but a hole."""
    stop = rows * 3072 * 4
    made = header(entry("transformer.proj_out.lora_A.weight", f"[{rows},3072]", 0, stop, dtype))
    file(path, made, whole=8 + len(made) + stop - missing + more)


def numbered(count: int, stop: int = 0) -> bytes:
    return header(*(entry(f"{number}", f"[{stop}]", 0, stop) for number in range(count)))


MANY = 52 * 10**9  # bytes of a header with 10^9 tensors
FIRST = header(entry("0", "[1]", 0, 1))[:-1] + b","
TEXT = b'"__metadata__":{"a":"'
EMOJI = "😀".encode()  # by it, Python takes four bytes for each character of a text
A, B = entry("a", "[4]", 0, 4), entry("b", "[4]", 4, 8)

NASTY: dict[str, tuple[Callable[[Path], object], str]] = {
    "10^9 tensors, 8 GB sparse": (
        lambda path: file(path, FIRST, length=MANY, whole=8 * GIB),
        "header claims 52,000,000,000 bytes",
    ),
    "10^9 tensors, all there, sparse": (
        lambda path: file(path, FIRST, length=7 * GIB, whole=8 * GIB),
        "claims a header of 7,516,192,768 bytes",
    ),
    "a header of 2^63": (
        lambda path: file(path, FIRST, length=2**63, whole=8 * GIB),
        "header claims 9,223,372,036,854,775,808 bytes",
    ),
    "a header of 2^64 - 1": (
        lambda path: file(path, FIRST, length=2**64 - 1),
        "header claims 18,446,744,073,709,551,615 bytes",
    ),
    "8 GB sparse, plausible": (
        lambda path: plausible(path, rows=699_050, dtype="F32"),
        "of 8,589,926,400 bytes: no LoRA is that large",
    ),
    "8 GB sparse, wrong type": (
        lambda path: plausible(path, rows=699_050, dtype="F16"),
        "doesn't fill",
    ),
    "1 GB sparse, end missing": (
        lambda path: plausible(path, rows=80_000, dtype="F32", missing=1),
        "is cut short: 983,040,",
    ),
    "8 GB sparse, small tensor": (
        lambda path: plausible(path, rows=1, dtype="F32", more=8 * GIB),
        "belong to none",
    ),
    "8 GB sparse, zeros for a header": (
        lambda path: file(path, b"{", length=PARSED_LIMIT, whole=8 * GIB),
        "not valid JSON",
    ),
    "100 MB of zeros for a header": (
        lambda path: file(path, b"{", length=HEADER_LIMIT, whole=8 * GIB),
        "besides its longest texts",
    ),
    "20 MB of escapes": (
        lambda path: file(path, filled(b'{"', b'\\"', limit=LONG)),
        "not valid JSON",
    ),
    "100 MB of texts": (
        lambda path: file(path, filled(b'{"a":[', b'"",', b"1]}", limit=HEADER_LIMIT)),
        "more than 200,000",
    ),
    "100 MB of long texts": (
        lambda path: file(
            path, filled(b'{"a":[', b'"' + b"x" * 2**19 + b'",', b"1]}", limit=HEADER_LIMIT)
        ),
        "besides its longest texts",
    ),
    "8 GB of nothing": (lambda path: file(path, b"", whole=8 * GIB), "not a safetensors file"),
    "16 MiB of brackets": (
        lambda path: file(path, b'{"a":' + b"[" * 2**24),
        "has a header of more than 8,388,608 bytes besides its longest texts",
    ),
    "brackets": (lambda path: file(path, filled(b'{"a":', b"[")), "more than 200,000"),
    "braces": (lambda path: file(path, filled(b"", b"{")), "more than 200,000"),
    "nested objects": (lambda path: file(path, filled(b"{", b'"":{')), "more than 200,000"),
    "nested 90,000 deep": (
        lambda path: file(path, b'{"a":' * 90_000 + b"1" + b"}" * 90_000),
        "not valid JSON (RecursionError)",
    ),
    "empty lists": (lambda path: file(path, filled(b'{"a":[', b"[],", b"1]}")), "more than"),
    "numbers": (lambda path: file(path, filled(b'{"a":[', b"7,", b"1]}")), "more than 200,000"),
    "one number": (lambda path: file(path, filled(b'{"a":', b"9", b"}")), "not valid JSON"),
    "long numbers": (
        lambda path: file(path, filled(b'{"a":[', b"9" * 4299 + b",", b"1]}")),
        "not valid JSON (ValueError)",
    ),
    "one fraction": (lambda path: file(path, filled(b'{"a":0.', b"3", b"}")), "needs dtype"),
    "one exponent": (lambda path: file(path, filled(b'{"a":1e', b"9", b"}")), "needs dtype"),
    "spaces": (lambda path: file(path, filled(b"{", b" ", b'"a":1}')), "needs dtype"),
    "quotes": (lambda path: file(path, filled(b'{"', b'\\"')), "not valid JSON"),
    "escapes": (lambda path: file(path, filled(b'{"', b"\\u0041", b'":1}')), "characters"),
    "a long name": (lambda path: file(path, filled(b'{"', b"x", b'":1}')), "a name of 8,388,602"),
    "wide text": (lambda path: file(path, filled(b"{" + TEXT, EMOJI, b'"},"a":1}')), "needs dtype"),
    "widened text": (
        lambda path: file(path, filled(b"{" + TEXT, b"x" * 35 + b"\\n", EMOJI + b'"},"a":1}')),
        "needs dtype",
    ),
    "widened type": (
        lambda path: file(
            path,
            filled(b'{"a":{"shape":[],"data_offsets":[0,0],"dtype":["' + EMOJI, b"\x7f", b'"]}}'),
        ),
        "unknown dtype list",
    ),
    "140,000 tensors": (lambda path: file(path, numbered(140_000)), "more than 200,000"),
    "tensors over each other": (
        lambda path: file(path, numbered(14_000, 8), whole=10_000_000),
        "overlaps",
    ),
    "tensors half over each other": (
        lambda path: file(path, header(A, entry("b", "[4]", 2, 6)), whole=500),
        "b overlaps",
    ),
    "a gap": (lambda path: file(path, header(A, entry("b", "[4]", 5, 9)), whole=500), "b leaves"),
    "a negative offset": (
        lambda path: file(path, header(entry("a", "[4]", -4, 0), B), whole=500),
        "a has a shape or offsets that are not whole numbers",
    ),
    "an offset of 2^64 and some": (
        lambda path: file(path, header(entry("a", "[4]", 2**64, 2**64 + 4)), whole=500),
        "not whole numbers",
    ),
    "a shape that overflows to 4": (
        lambda path: file(path, header(entry("a", f"[{2**62 + 1},4]", 0, 4)), whole=500),
        "doesn't fill",
    ),
    "a tensor of 10^18": (
        lambda path: file(path, header(entry("a", f"[{10**18}]", 0, 10**18)), whole=500),
        "no LoRA is that large",
    ),
    "offsets the wrong way round": (
        lambda path: file(path, header(entry("a", "[4]", 4, 0)), whole=500),
        "doesn't fill",
    ),
    "half a byte": (
        lambda path: file(path, header(entry("a", "[7]", 0, 3, "F4")), whole=500),
        "doesn't fill",
    ),
    "a tensor twice": (lambda path: file(path, header(A, B, A), whole=500), "the key a twice"),
    "a field twice": (
        lambda path: file(path, header(A[:-1] + b',"dtype":"U8"}', B), whole=500),
        "the key dtype twice",
    ),
    "metadata twice": (
        lambda path: file(path, b'{"__metadata__":{},"__metadata__":{}}'),
        "the key __metadata__ twice",
    ),
}


@pytest.mark.parametrize("name", NASTY)
def test_nasty_files(tmp_path: Path, judge: Judge, name: str) -> None:
    make, reason = NASTY[name]
    path = tmp_path / "nasty.safetensors"
    make(path)
    verdict = judge.verdict(path)
    path.unlink()  # not every file system keeps 8 GB of holes for nothing
    print(f"\n{verdict.seconds:5.2f} s {verdict.peak / 1e6:4.0f} MB  {name}: {verdict.words[:90]}")
    assert reason in verdict.words


def test_the_largest_that_may_be(tmp_path: Path, judge: Judge) -> None:
    """At the limits a file is still read: 14,000 tensors, and notes of 8 MiB in wide characters."""
    path = tmp_path / "large.safetensors"
    for made in (numbered(14_000), filled(b"{" + TEXT, b"x" * 35 + b"\\n", EMOJI + b'"}}')):
        file(path, made)
        assert judge.verdict(path).outcome == "read"


@pytest.mark.parametrize(
    "unit", [EMOJI, b"\\\\", b'\\"tags\\": \\\\', b"a, photo of [a] {knight} \\n"]
)
def test_captions_up_to_the_limit_of_safetensors(tmp_path: Path, judge: Judge, unit: bytes) -> None:
    """Texts that are too long to be read are left out: what stands beside them is read as ever."""
    path = tmp_path / "captions.safetensors"
    captions = filled(
        b"{" + TEXT,
        unit,
        b'","ss_output_name":"Ink"},' + A[:-1] + b"}}",
        limit=LONG,
    )
    file(path, captions, whole=8 + len(captions) + 4)
    verdict = judge.verdict(path)
    assert (verdict.outcome, list(verdict.tensors)) == ("read", ["a"])


def test_the_judge_measures(tmp_path: Path) -> None:
    """A judge that always says 0 would pass everything."""
    path = tmp_path / "measured.safetensors"
    judge = Judge()
    with judge.process:
        file(path, header(A), whole=8 + len(header(A)) + 4)
        little = judge.verdict(path)
        NASTY["widened text"][0](path)
        much = judge.verdict(path)
    assert much.peak > little.peak + 4 * PARSED_LIMIT
    assert much.seconds > little.seconds + 0.02


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ('{"transformer.rank_pattern":[' + "[]," * 110_000 + "1]}", "more than 200,000"),
        ('{"transformer.r":' + "[" * 2_000, "not valid JSON"),
        ('{"transformer.r":"' + "x" * 2**20 + '"}', "1,048,576 is the limit"),
        ('{"transformer.r":1,"transformer.r":2}', "twice"),
    ],
    ids=["lists", "brackets", "text", "twice"],
)
def test_json_within_the_metadata_is_bounded_too(tmp_path: Path, note: str, reason: str) -> None:
    key, stop = "transformer.proj_out.lora_", 3072 * 4
    made = {
        "__metadata__": {"lora_adapter_metadata": note},
        f"{key}A.weight": {"dtype": "F32", "shape": [1, 3072], "data_offsets": [0, stop]},
        f"{key}B.weight": {"dtype": "F32", "shape": [64, 1], "data_offsets": [stop, stop + 256]},
    }
    path = tmp_path / "noted.safetensors"
    file(path, json.dumps(made).encode(), whole=8 + len(json.dumps(made)) + stop + 256)
    with pytest.raises(BadLora, match=rf"^noted\.safetensors: .*{reason}"):
        read(path)


# --- damaged by chance -------------------------------------------------------------------

# A header is made of JSON texts, so that it can hold a key twice and numbers of any length.
SOUND: dict[str, dict[str, str]] = {
    '"transformer.proj_out.lora_A.weight"': {
        '"dtype"': '"F16"',
        '"shape"': "[1,8]",
        '"data_offsets"': "[0,16]",
    },
    '"transformer.proj_out.lora_B.weight"': {
        '"dtype"': '"BF16"',
        '"shape"': "[4,1]",
        '"data_offsets"': "[16,24]",
    },
    '"transformer.proj_out.alpha"': {
        '"dtype"': '"F32"',
        '"shape"': "[]",
        '"data_offsets"': "[24,28]",
    },
    '"empty"': {'"dtype"': '"U8"', '"shape"': "[0,3]", '"data_offsets"': "[28,28]"},
    '"flags"': {'"dtype"': '"BOOL"', '"shape"': "[2,2]", '"data_offsets"': "[28,32]"},
}
DATA = bytes(range(32))
NOTES = '{"format":"pt"}'

SMALL = ("-1", "0", "1", "2", "4", "8", "16", "24", "28", "32")
LARGE = (-(2**63), 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30)
ODD = """-0 1.0 1e3 1E400 -1e-400 NaN Infinity true null 01 0x10 "" "F16" "f16" "F99" "I64" "F4"
"F8_E4M3" "\\ud800" "\\u0000" {} [] [[]] {"a":[1]} "unended /**/1 'a'"""
DEEP = ("", "9" * 5000, "[" * 3000, '{"a":' * 3000)

whole_numbers = st.sampled_from([*SMALL, *map(str, LARGE)])
oddities = st.sampled_from([*ODD.split(), *DEEP])
lists = st.lists(whole_numbers | oddities, max_size=4).map(lambda values: f"[{','.join(values)}]")
values = whole_numbers | oddities | lists
names = st.sampled_from(
    [*SOUND, '"__metadata__"', '"\\u0064type"', '"\\ud83d"', '"a\\u0000\\u202e"']
)
keys = names | st.text(max_size=6).map(json.dumps) | oddities
spaces = st.sampled_from(["", "", "", " ", "\n\t\r ", "\x0b", "\ufeff", "\u00a0", "\0"])


@st.composite
def tensors(draw: st.DrawFn) -> str:
    """The JSON of one tensor, sound or with something wrong."""
    fields = list(draw(st.sampled_from(list(SOUND.values()))).items())
    match draw(st.integers(0, 5)):
        case 0:
            return draw(values)
        case 1:
            fields.append((draw(keys | st.sampled_from([key for key, _ in fields])), draw(values)))
        case 2:
            del fields[draw(st.integers(0, 2))]
        case 3 | 4:
            place = draw(st.integers(0, 2))
            fields[place] = (fields[place][0], draw(values))
    return f"{{{','.join(f'{key}:{value}' for key, value in fields)}}}"


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A header, sound but for what a few changes do to it."""
    entries = [
        (key, f"{{{','.join(f'{name}:{value}' for name, value in fields.items())}}}")
        for key, fields in SOUND.items()
    ]
    entries.insert(draw(st.integers(0, 5)), ('"__metadata__"', NOTES))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(entries) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                entries[place] = (draw(keys), entries[place][1])
            case 1 | 2:
                entries[place] = (entries[place][0], draw(tensors()))
            case 3:
                entries.append((draw(keys), draw(tensors())))
            case 4:
                del entries[place]
    space = draw(spaces)
    text = f",{space}".join(f"{key}:{space}{value}" for key, value in entries)
    return f"{{{text}}}{space}".encode("utf-8", "surrogatepass")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A file of such a header, whose length, bytes or end may be wrong too."""
    made = draw(headers())
    lengths = st.sampled_from([-8, -1, 1, 8, 32, 33, 2**24, 2**32, 2**63, 2**64 - 1])
    claimed = (len(made) + draw(st.just(0) | st.just(0) | lengths)) % 2**64
    raw = bytearray(claimed.to_bytes(8, "little") + made + DATA)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(raw)))
        raw[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(raw[: draw(st.none() | st.none() | st.integers(0, len(raw)))])


REASONS = (
    *("overlaps", "leaves a gap", "cut short", "belong to none", "twice", "not valid JSON"),
    *("unknown dtype", "not whole numbers", "doesn't fill", "no more or less", "text to text"),
)


def test_damaged_files_are_read_or_refused(tmp_path: Path, judge: Judge) -> None:
    """What is read, the reference reader reads in the same way."""
    path = tmp_path / "damaged.safetensors"
    met: Counter[str] = Counter()

    @FUZZ
    @given(files())
    def check(raw: bytes) -> None:
        path.write_bytes(raw)
        verdict = judge.verdict(path)
        met.update([verdict.outcome, *(reason for reason in REASONS if reason in verdict.words)])
        if verdict.outcome == "read":
            reference: Any = safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
            assert verdict.tensors == {
                name: [about["dtype"], about["shape"]] for name, about in reference
            }

    check()
    assert met["read"] > 10
    assert sum(reason in met for reason in REASONS) > len(REASONS) // 2, met


@FUZZ
@given(raw=files())
def test_damaged_files_are_refused_by_read_too(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(raw)
    with pytest.raises(BadLora, match=r"^damaged\.safetensors: "):  # none has FLUX.1's shapes
        read(path)
