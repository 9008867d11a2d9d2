"""The WebUI can parse our generation parameters; existing ones do not change."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_lab.host.infotext import HASH_KEY, OVERRIDE_KEY, drop_host_vae, names_vae, quote, with_override

reproducible = settings(derandomize=True, deadline=None, max_examples=300)

PROMPT = "a cat, VAE: none, masterpiece\nNegative prompt: VAE hash: bad, worst quality"
HEAD = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512"
HOST = "VAE hash: 1234567890, VAE: vae-ft-mse.safetensors"
TAIL = 'Clip skip: 2, Lora hashes: "a: 12, b: 34", Version: v1.10.1'


def unquote(text: str) -> str:
    if not text or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse(infotext: str) -> dict[str, str]:
    """As modules/infotext_utils.py of the WebUI 1.10.1 does: the last line, split by this expression."""
    pattern = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    lastline = infotext.strip().split("\n")[-1]
    return {key: unquote(value) for key, value in pattern.findall(lastline)}


def test_override_and_hash_are_added() -> None:
    text = with_override(f"{PROMPT}\n{HEAD}", "vae.pt", "0123456789")
    assert text == f"{PROMPT}\n{HEAD}, VAE Lab override: vae.pt, VAE Lab override hash: 0123456789"


def test_without_a_hash() -> None:
    assert with_override(f"{PROMPT}\n{HEAD}", "Built-in", "").endswith(", VAE Lab override: Built-in")


@pytest.mark.parametrize(
    "parameters",
    [
        f"{HEAD}, {HOST}, {TAIL}",
        f"{HEAD}, VAE: vae.pt, {TAIL}",
        f"{HEAD}, VAE hash: 12, {TAIL}",
        f'{HEAD}, VAE hash: 12, VAE: "a, b: c.pt", {TAIL}',
        f'{HEAD}, VAE: "a \\"quoted\\", name.pt", {TAIL}',
        f"{HOST}, {HEAD}, {TAIL}",
        f"{HEAD}, {TAIL}, {HOST}",
        f"{HEAD}, {TAIL}, VAE: ",
    ],
)
def test_hosts_own_vae_is_taken_out(parameters: str) -> None:
    """One VAE decoded the image, so one is named."""
    text = with_override(f"{PROMPT}\n{parameters}", "mine.pt", "ab")
    assert text == f"{PROMPT}\n{HEAD}, {TAIL}, VAE Lab override: mine.pt, VAE Lab override hash: ab"


@pytest.mark.parametrize(
    "other",
    [
        "ADetailer VAE: face.pt",
        "Refiner VAE: r.pt",
        "SD VAE: x",
        "VAE Encoder: TAESD",
        "VAE Decoder: TAESD",
        'Hires prompt: "a cat, VAE: none, dog"',
        'Template: "see VAE hash: 12, and more"',
        'Lora hashes: "my VAE: 12"',
        "Note: the best VAE",
    ],
)
def test_other_parameters_that_speak_of_a_vae_stay(other: str) -> None:
    text = with_override(f"{PROMPT}\n{HEAD}, {other}, {HOST}", "mine.pt", "")
    assert text == f"{PROMPT}\n{HEAD}, {other}, VAE Lab override: mine.pt"


def test_prompt_stays_as_it_is() -> None:
    assert with_override(f"{PROMPT}\n{HEAD}", "mine.pt", "").startswith(f"{PROMPT}\n")


def test_without_any_prompt() -> None:
    assert parse(with_override(f"{HEAD}, {HOST}", "mine.pt", "")) == parse(f"{HEAD}, VAE Lab override: mine.pt")


@pytest.mark.parametrize("infotext", ["", "a cat\n", "VAE: host.pt", "a cat\nVAE: host.pt"])
def test_without_any_parameters(infotext: str) -> None:
    assert parse(with_override(infotext, "mine.pt", "")) == {OVERRIDE_KEY: "mine.pt"}


NAMES = [
    "vae.pt",
    "a, b.pt",
    'the "good" one.pt',
    '"quoted"',
    '"a", "b".pt',
    "C:\\models\\vae.pt",
    "back\\slash, and comma.pt",
    "colon: yes.pt",
    "line\nbreak.pt",
    " leading and trailing ",
    "猫, 动漫.safetensors",
    "emoji 🐱.pt",
    "tab\there.pt",
    "carriage\rreturn",
]


@pytest.mark.parametrize("name", NAMES)
def test_name_is_read_back_exactly(name: str) -> None:
    found = parse(with_override(f"{PROMPT}\n{HEAD}, {HOST}, {TAIL}", name, "0123456789"))
    assert found == {**parse(f"{HEAD}, {TAIL}"), OVERRIDE_KEY: name, HASH_KEY: "0123456789"}


@pytest.mark.parametrize("name", ["vae.pt", "sub/vae-ft mse (1).safetensors", "动漫.pt"])
def test_plain_names_are_not_quoted(name: str) -> None:
    assert quote(name) == name


# A VAE's name is a file's, so it has no NUL; and PNG cannot take half of a surrogate pair.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
keys = st.from_regex(r"[A-Z][a-z]{2,8}( (VAE|hash|prompt))?", fullmatch=True)


@reproducible
@given(st.dictionaries(keys, names, max_size=6), names, st.booleans())
def test_any_name_among_any_parameters(others: dict[str, str], name: str, host: bool) -> None:
    """Existing keys stay, ours are read back, and the host's VAE is removed."""
    items = list(others.items())
    if host:
        items[len(items) // 2 : len(items) // 2] = [("VAE hash", "1234567890"), ("VAE", name)]
    text = "a cat\n" + ", ".join(["Steps: 20", *(f"{key}: {quote(value)}" for key, value in items)])
    found = parse(with_override(text, name, "ab"))
    assert found == {"Steps": "20", **others, OVERRIDE_KEY: name, HASH_KEY: "ab"}


@reproducible
@given(st.text(max_size=200), names)
def test_any_infotext_at_all(infotext: str, name: str) -> None:
    """Other programs write anything: our keys are read back, and lines before the last one do not change."""
    text = with_override(infotext, name, "")
    assert parse(text)[OVERRIDE_KEY] == name
    head, newline, last = infotext.rpartition("\n")
    assert text.startswith(head + newline)
    if "VAE" not in last:
        assert last.strip().rstrip(",") in text


@pytest.mark.parametrize("piece", ["a", "a ", " ", "a:", 'aa:"', "a/-"])
def test_untrusted_texts_take_no_time(piece: str) -> None:
    """Tried from every letter to the end, this many would take minutes."""
    hostile, started = piece * (2**16 // len(piece)), time.thread_time()
    names_vae(f"{PROMPT}\n{hostile}x")
    assert parse_last(with_override(f"{PROMPT}\nSteps: 20, {hostile}", "mine.pt", "ab")) == "mine.pt"
    assert time.thread_time() - started < 20, "seconds of CPU time"


def parse_last(infotext: str) -> str:
    return infotext.rpartition(f"{OVERRIDE_KEY}: ")[2].partition(",")[0]


def test_pasted_override_is_the_only_vae() -> None:
    parameters = {"Steps": "20", "VAE": "host.pt", "VAE hash": "12", OVERRIDE_KEY: "mine.pt", "VAE Encoder": "Full"}
    drop_host_vae(parameters)
    assert parameters == {"Steps": "20", OVERRIDE_KEY: "mine.pt", "VAE Encoder": "Full"}


def test_pasted_parameters_without_an_override_do_not_change() -> None:
    parameters = {"Steps": "20", "VAE": "host.pt", "VAE hash": "12"}
    drop_host_vae(parameters)
    assert parameters == {"Steps": "20", "VAE": "host.pt", "VAE hash": "12"}


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        (HEAD, False),
        (f"{HEAD}, {TAIL}", False),
        (f"{HEAD}, ADetailer VAE: face.pt", False),
        (f"{HEAD}, {HOST}", True),
        (f"{HEAD}, VAE: a.pt, {TAIL}", True),
        (f"{HEAD}, {OVERRIDE_KEY}: Built-in", True),
        (f"{HEAD}, {TAIL}, Module 1: vae-ft-mse", True),  # in Forge
    ],
)
def test_whether_a_vae_is_named(parameters: str, named: bool) -> None:
    assert names_vae(f"{PROMPT}\n{parameters}") is named
