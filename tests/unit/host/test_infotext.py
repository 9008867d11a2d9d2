"""The WebUI can parse our generation parameters; existing ones do not change."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vae_lab import __version__
from vae_lab.host.infotext import (
    HASH_KEY,
    OVERRIDE_KEY,
    VaeHash,
    decoded_by,
    drop_host_vae,
    names_vae,
    quote,
    vae_hash,
    with_override,
)

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


def read(infotext: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, parameters) as modules/infotext_utils.py of the WebUI 1.10.1 reads them."""
    pattern = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    *lines, last = infotext.strip().split("\n")
    found = pattern.findall(last)
    if len(found) < 3:
        lines, found = [*lines, last], []
    lines = [line.strip() for line in lines]
    start = next((i for i, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    negative = [line.removeprefix("Negative prompt:").strip() for line in lines[start:]]
    return "\n".join(lines[:start]), "\n".join(negative), {key: unquote(value) for key, value in found}


def parse(infotext: str) -> dict[str, str]:
    return read(infotext)[2]


PADS = {"VAE Lab version": __version__, "VAE Lab source": "latents"}
"""Added where the line would otherwise have fewer than three parameters, and be read as a prompt."""


def without_pads(parameters: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in parameters.items() if key not in PADS}


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
        f"{HEAD}, {HOST}, VAE Decoder: TAESD, {TAIL}",
        f"{HEAD}, VAE type: Tiny, {TAIL}",
        f"{HEAD}, {HOST}, {TAIL}\n",
        f"{HEAD}, {HOST}, {TAIL},\n \n",
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


NO_PARAMETERS = [
    *("", " \n", "a cat\n", "VAE: host.pt", "a cat\nVAE: host.pt", "a portrait, style: baroque", "a cat\nSteps: 20"),
    *("a cat\nNegative prompt: ugly, fat", "Negative prompt: VAE: none", "a cat\nTemplate: a {cat|dog}"),
]


@pytest.mark.parametrize("digest", ["", "0123456789"])
@pytest.mark.parametrize("infotext", NO_PARAMETERS)
def test_without_any_parameters(infotext: str, digest: str) -> None:
    """The last line belongs to a prompt; ours is added below, long enough for the WebUI to find it."""
    prompt, negative, found = read(with_override(infotext, "mine.pt", digest))
    assert (prompt, negative) == read(infotext)[:2]
    assert without_pads(found) == {OVERRIDE_KEY: "mine.pt"} | ({HASH_KEY: digest} if digest else {})
    assert not names_vae(infotext)


def test_template_among_the_parameters() -> None:
    """Later versions of sd-dynamic-prompts write it there; a prompt with weights above it stays a prompt."""
    text = f'(a:1.1), (b:1.2), (cc:1.3), (dd:1), (ee:1)\nTemplate: "{{a|b}}, c", {HEAD}, {HOST}'
    made = with_override(text, "mine.pt", "")
    assert read(made)[:2] == read(text)[:2]
    assert parse(made) == {"Template": "{a|b}, c", **parse(HEAD), OVERRIDE_KEY: "mine.pt"}


def test_few_parameters_stay_parameters() -> None:
    """Without the host's VAE, too few would be left for the WebUI to find them."""
    text = with_override(f"a cat\nSteps: 20, {HOST}", "mine.pt", "")
    assert read(text) == ("a cat", "", {"Steps": "20", OVERRIDE_KEY: "mine.pt", "VAE Lab version": __version__})


@pytest.mark.parametrize(
    ("lines", "templates"),
    [
        ("Template: a {cat|dog}", {"Template": "a {cat|dog}"}),
        ("Negative Template: {ugly|fat}, bad: x", {"Negative Template": "{ugly|fat}, bad: x"}),
        (
            "Template: (a:1.1), (b:1.2), (c:1.3),\nVAE: one, bb: 2, cc: 3\nNegative Template: (d:1.1), (e:1.2), (f:1)",
            {
                "Template": "(a:1.1), (b:1.2), (c:1.3),\nVAE: one, bb: 2, cc: 3",
                "Negative Template": "(d:1.1), (e:1.2), (f:1)",
            },
        ),
        ("Template: \nNegative Template: ugly\n", {"Negative Template": "ugly"}),
    ],
)
def test_templates_below_the_parameters(lines: str, templates: dict[str, str]) -> None:
    """As sd-dynamic-prompts writes them; the WebUI then finds no parameters, so they become parameters."""
    text = f"{PROMPT}\n{HEAD}, {HOST}, {TAIL}\n{lines}"
    made = with_override(text, "mine.pt", "ab")
    plain = f"{PROMPT}\n{HEAD}, {TAIL}"
    ours = {OVERRIDE_KEY: "mine.pt", HASH_KEY: "ab"}
    assert read(made) == (*read(plain)[:2], {**parse(plain), **templates, **ours})
    assert names_vae(text)
    assert with_override(made, "mine.pt", "ab") == made


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
    "sub/folder/vae [pruned] (v2), 漢.pt",
    "not UTF-8, \udcff.pt",
    "\udcff.pt",
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
    text = "a cat\n" + ", ".join(
        ["Steps: 20", "Sampler: Euler", "Seed: 1", *(f"{key}: {quote(value)}" for key, value in items)]
    )
    found = parse(with_override(text, name, "ab"))
    assert found == {"Steps": "20", "Sampler": "Euler", "Seed": "1", **others, OVERRIDE_KEY: name, HASH_KEY: "ab"}


@reproducible
@given(st.text(max_size=200), names)
def test_any_infotext_at_all(infotext: str, name: str) -> None:
    """Other programs write anything: our keys are read back, and lines before the last one do not change."""
    text = with_override(infotext, name, "")
    prompt, negative, found = read(text)
    assert found[OVERRIDE_KEY] == name
    assert (prompt, negative) == read(infotext)[:2]
    assert with_override(text, name, "") == text
    if "VAE" not in infotext:
        assert infotext.strip().rstrip(",") in text


lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).map(str.strip).filter(bool)
prompts = st.lists(
    st.one_of(lines, st.sampled_from(["style: baroque", "VAE: none", "(cat:1.2)", "Steps: 20"])), max_size=3
)


@reproducible
@given(prompts, prompts, st.dictionaries(keys, names, max_size=4), names, st.sampled_from(["", "ab"]), st.booleans())
def test_any_generation(
    prompt: list[str], negative: list[str], others: dict[str, str], name: str, digest: str, parameters: bool
) -> None:
    """Prompts stay, parameters stay, one VAE is named, and writing it twice changes nothing."""
    text = "\n".join([*prompt, *([f"Negative prompt: {negative[0]}", *negative[1:]] if negative else [])])
    if parameters:
        items = {"Steps": "20", "VAE hash": "12", "VAE": name, **others, "VAE Decoder": "TAESD", "VAE Encoder": "TAESD"}
        text += "\n" + ", ".join(f"{key}: {quote(value)}" for key, value in items.items())
    made = with_override(text, name, digest)
    before, after = read(text), read(made)
    assert after[:2] == before[:2]
    kept = {key: value for key, value in before[2].items() if key not in ("VAE", "VAE hash", "VAE Decoder")}
    assert without_pads(after[2]) == {**kept, OVERRIDE_KEY: name, **({HASH_KEY: digest} if digest else {})}
    assert with_override(made, name, digest) == made
    assert names_vae(made)


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


def test_pasted_override_is_not_decoded_with_taesd() -> None:
    """Earlier versions left the decoder in the text, although a full VAE had decoded."""
    parameters = {"VAE Decoder": "TAESD", "VAE Encoder": "TAESD", OVERRIDE_KEY: "mine.pt"}
    drop_host_vae(parameters)
    assert parameters == {"VAE Decoder": "Full", "VAE Encoder": "TAESD", OVERRIDE_KEY: "mine.pt"}


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
        (f"{HEAD}, VAE Decoder: TAESD", True),
        (f"{HEAD}, {HOST}\n", True),
        (f"{HEAD}, {TAIL}, Module 1: vae-ft-mse", True),  # in Forge
    ],
)
def test_whether_a_vae_is_named(parameters: str, named: bool) -> None:
    assert names_vae(f"{PROMPT}\n{parameters}") is named


def test_parameters_that_begin_with_a_template_are_read_back() -> None:
    """What remains of a line must not look like sd-dynamic-prompts' lines below the parameters."""
    text = 'a boat\nSteps: 20, Sampler: Euler a, Seed: 1\nVAE hash: c6a580b13a, Template: "a {b}", Version: v1.10.1'
    written = with_override(text, "first.pt", "0123456789")
    assert decoded_by(written)[1] == "first.pt"
    assert vae_hash(written) == VaeHash("0123456789", True, "first.pt")
