"""Every change to the host is undone, in any order of patches; our errors never reach it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from vae_lab.errors import UnknownChoice
from vae_lab.host.guard import for_host, guarded
from vae_lab.webui.patching import patch


def tagging(tag: str) -> Callable[..., str]:
    """Wraps what the original returns into ``tag(…)``."""

    def around(original: Callable[..., str], *args: Any, **kwargs: Any) -> str:
        return f"{tag}({original(*args, **kwargs)})"

    return around


def decode(x: int, *, y: int = 0) -> str:
    """The host's."""
    return f"{x}{y}"


@pytest.fixture
def host() -> SimpleNamespace:
    """A module of the host with one function."""
    return SimpleNamespace(decode=decode)


def test_patched_and_undone(host: SimpleNamespace) -> None:
    with ExitStack() as undo:
        patch(host, "decode", tagging("ours"), undo)
        assert host.decode(1, y=2) == "ours(12)"
    assert host.decode is decode


def test_patch_looks_like_the_original(host: SimpleNamespace) -> None:
    with ExitStack() as undo:
        patch(host, "decode", tagging("ours"), undo)
        assert host.decode.__name__ == "decode"
        assert host.decode.__doc__ == "The host's."


def test_two_patches_are_undone_last_first(host: SimpleNamespace) -> None:
    with ExitStack() as undo:
        patch(host, "decode", tagging("one"), undo)
        patch(host, "decode", tagging("two"), undo)
        assert host.decode(1) == "two(one(10))"
    assert host.decode is decode


def test_undone_when_the_block_raises(host: SimpleNamespace) -> None:
    def generate() -> None:
        with ExitStack() as undo:
            patch(host, "decode", tagging("ours"), undo)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        generate()
    assert host.decode is decode


def test_patched_over_by_somebody_else_we_pass_through(host: SimpleNamespace) -> None:
    with ExitStack() as undo:
        patch(host, "decode", tagging("ours"), undo)
        below = host.decode
        host.decode = lambda *args, **kwargs: f"theirs({below(*args, **kwargs)})"
        theirs = host.decode
        assert host.decode(1) == "theirs(ours(10))"
    assert host.decode is theirs, "their patch is theirs to undo"
    assert host.decode(1) == "theirs(10)"


def test_somebody_elses_patch_below_ours_stays(host: SimpleNamespace) -> None:
    host.decode = theirs = lambda x: f"theirs({x})"
    with ExitStack() as undo:
        patch(host, "decode", tagging("ours"), undo)
        assert host.decode(1) == "ours(theirs(1))"
    assert host.decode is theirs


def test_undone_in_the_wrong_order_none_of_our_patches_stays_active(host: SimpleNamespace) -> None:
    one, two = ExitStack(), ExitStack()
    patch(host, "decode", tagging("one"), one)
    patch(host, "decode", tagging("two"), two)
    one.close()
    assert host.decode(1) == "two(10)"
    two.close()
    assert host.decode(1) == "10"


def test_method_of_one_object_leaves_nothing_on_it() -> None:
    """Else a copy of the object would keep the method of the original one: the host copies its ``p``."""

    class Processing:
        def close(self) -> object:
            return self

    p = Processing()
    with ExitStack() as undo:
        patch(p, "close", lambda original: ("ours", original()), undo)
        assert p.close() == ("ours", p)
        assert Processing().close() != ("ours", p)
    assert vars(p) == {}
    twin = copy.copy(p)
    assert twin.close() is twin


def test_method_that_was_set_on_the_object_itself_is_set_again() -> None:
    p = SimpleNamespace()
    p.close = original = lambda: "host"
    with ExitStack() as undo:
        patch(p, "close", tagging("ours"), undo)
    assert vars(p) == {"close": original}


def test_missing_name_is_an_error_and_changes_nothing(host: SimpleNamespace) -> None:
    with ExitStack() as undo, pytest.raises(AttributeError):
        patch(host, "encode", tagging("ours"), undo)
    assert vars(host) == {"decode": decode}


# --- the host boundary -----------------------------------------------------------------------------------------------


def test_our_error_is_reported_with_its_message(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    with guarded("comparing", lines.append):
        raise UnknownChoice("no VAE named x")
    assert lines == ["VAE Lab: no VAE named x"]
    assert "comparing: no VAE named x" in caplog.text
    assert "Traceback" not in caplog.text


def test_our_bug_is_logged_in_full_and_reported_briefly(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    with guarded("comparing", lines.append):
        raise KeyError("decoder")
    assert len(lines) == 1
    assert "an error while comparing" in lines[0]
    assert "decoder" not in lines[0]
    assert "Traceback" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_nobody_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    with guarded("comparing for nobody"):
        raise KeyError("decoder")
    assert "KeyError" in caplog.text


def test_the_same_error_is_logged_once_and_reported_every_time(caplog: pytest.LogCaptureFixture) -> None:
    """Hosts call some functions for every image."""
    lines: list[str] = []
    for part in ("unet", "unet", "encoder"):
        with guarded("comparing again", lines.append):
            raise KeyError(part)
    assert len(lines) == 3
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["'unet'", "'encoder'"]


def test_what_the_host_calls_returns_something_usable(caplog: pytest.LogCaptureFixture) -> None:
    @for_host("listing", lambda: ["Automatic"])
    def choices(names: list[str]) -> list[str]:
        return [*names, names[1]]

    assert choices(["a", "b"]) == ["a", "b", "b"]
    assert choices([]) == ["Automatic"]
    assert choices.__name__ == "choices"
    assert "listing" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_users_wish_to_stop_gets_through(error: type[BaseException]) -> None:
    with pytest.raises(error), guarded("comparing"):
        raise error


def test_nothing_is_reported_without_an_error(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    with guarded("comparing", lines.append):
        pass
    assert lines == []
    assert caplog.text == ""
