"""The differences between gradio 3 and 4, detected by feature, never by version number: hosts patch both."""

from __future__ import annotations

import functools
import inspect
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import gradio as gr

from vae_lab.host.base import Host
from vae_lab.host.guard import guarded
from vae_lab.messages import text, use_language

__all__ = ["build_for", "choice_update", "connect", "follow", "html_update", "image_input", "page", "uploaded"]

_FONTS = ["system-ui", "sans-serif"]
_LANGUAGE_COOKIE = "vae_lab_language"
_MONO = ["ui-monospace", "monospace"]


_host: ContextVar[Host | None] = ContextVar("host", default=None)


@contextmanager
def build_for(host: Host) -> Iterator[None]:
    """Build a page within this context: the page and its handlers then use the host's language."""
    token = _host.set(host)
    try:
        with use_language(host.language):
            yield
    finally:
        _host.reset(token)


def connect(
    event: Callable[..., Any],
    handler: Callable[..., Any],
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
) -> Any:
    """Attach ``handler`` to a component's event; returns an event whose ``then`` attaches another handler.

    Disables gradio's progress overlay, which would cover the images, and does not add the handler to the host's API.
    Requests are not queued behind another user's run.

    If a page sends events while the same handler is still busy, gradio 4 handles the last one afterwards; gradio 3
    drops them, see :func:`follow`.
    """
    return _attach(event, handler, inputs, outputs, trigger_mode="always_last", concurrency_limit=None)


def follow(
    events: Sequence[Callable[..., Any]],
    handler: Callable[..., tuple[Any, ...]],
    fields: Sequence[Any],
    others: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
) -> None:
    """Attach ``handler`` so that the final output matches the fields, however fast they change.

    Gradio 3 drops events while the handler is busy. So there, each run is followed by a check of the fields, and by
    another run if they have changed.

    Args:
        events: of ``fields``.
        handler: may be called twice for one event.
        fields: its first inputs; it runs again if their values have changed.
        others: its further inputs.
        outputs: components for which it returns a tuple of updates.
    """
    inputs = [*fields, *others]
    if _has_trigger_modes():
        for event in events:
            # With gradio's own limit of one at a time, answers come in the order of the events.
            _attach(event, handler, inputs, outputs, trigger_mode="always_last")
        return
    answered = gr.State(None)
    turn = threading.Lock()  # answers come in the order of the events

    def answer(*values: Any) -> tuple[Any, ...]:
        with turn:
            return (*handler(*values), values[: len(fields)])

    def answer_again(before: Any, *values: Any) -> tuple[Any, ...]:
        changed = before != values[: len(fields)]
        return answer(*values) if changed else (*[gr.update()] * len(outputs), before)

    outputs_and_fields = [*outputs, answered]
    for event in events:
        _attach(
            _attach(event, answer, inputs, outputs_and_fields).then,
            answer_again,
            [answered, *inputs],
            outputs_and_fields,
        )


def _attach(
    event: Callable[..., Any], handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], **modes: Any
) -> Any:
    known = modes if _has_trigger_modes() else {}
    handler = _answering(_in_host_language(handler), len(outputs))
    return event(handler, inputs=list(inputs), outputs=list(outputs), show_progress="hidden", api_name=False, **known)


def _answering(handler: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """After an error of ours the page says so and stays as it is."""

    @functools.wraps(handler)
    def answer(*values: Any) -> Any:
        with guarded(f"answering the page, {getattr(handler, '__name__', handler)}"):
            return handler(*values)
        gr.Warning(text("An error in VAE Lab; the log has the details."))
        unchanged = [gr.update() for _ in range(outputs)]
        return unchanged if outputs > 1 else next(iter(unchanged), None)

    return answer


def _in_host_language(handler: Callable[..., Any]) -> Callable[..., Any]:
    host = _host.get()
    if host is None:
        return handler

    if host.chooses_language:
        return _in_page_language(handler)

    @functools.wraps(handler)
    def answer(*values: Any) -> Any:
        with use_language(host.language):
            return handler(*values)

    return answer


def _in_page_language(handler: Callable[..., Any]) -> Callable[..., Any]:
    """In the language that the page has chosen; see javascript/tab/standalone.mjs."""

    def answer(request: gr.Request, *values: Any) -> Any:  # gradio sees what is asked for, and puts it first
        asked = request.request  # gradio 3 makes its own cookies into something that cannot be searched
        with use_language(asked.cookies.get(_LANGUAGE_COOKIE, "") if asked else ""):
            return handler(*values)

    answer.__name__ = getattr(handler, "__name__", "answer")
    return answer


def _has_trigger_modes() -> bool:
    """Whether events take ``trigger_mode`` and ``concurrency_limit``; Forge hides their signatures."""
    known = inspect.signature(gr.on).parameters if hasattr(gr, "on") else {}
    return "trigger_mode" in known and "concurrency_limit" in known


def choice_update(choices: Sequence[Any], value: Any, shown: Any, listed: Sequence[Any] | None = None) -> Any:
    """New choices for a Dropdown or CheckboxGroup, and a new value only if it differs from ``shown``.

    Sending an unchanged value would undo what the user has clicked in the meantime. Sending choices equal to ``listed``
    (if known) would remove all but the selected one from an open menu in gradio 4.
    """
    same = sorted(value) == sorted(shown or ()) if isinstance(value, list) else value == shown
    # ``gr.update``, because it works in both versions.
    if same and listed == choices:
        return gr.update()
    return gr.update(choices=list(choices)) if same else gr.update(choices=list(choices), value=value)


def html_update(text: str) -> Any:
    """New content for an HTML component, which is hidden if the content is empty."""
    return gr.update(value=text, visible=bool(text))


def image_input(**options: Any) -> gr.Image:
    """An image input that returns a PIL image with its alpha channel."""
    known = inspect.signature(gr.Image.__init__).parameters
    source = {"sources": ["upload", "clipboard"]} if "sources" in known else {"source": "upload"}
    return gr.Image(type="pil", image_mode="RGBA", interactive=True, **source, **options)


def uploaded(value: Any) -> str:
    """The path of a File's or UploadButton's value: gradio 3 wraps it, gradio 4 does not."""
    return value if isinstance(value, str) else str(value.name)


def page(title: str, css: str, script: str) -> gr.Blocks:
    """A full-width page with our style sheet and scripts, which fetches nothing from other servers.

    Args:
        title: of the browser tab.
        css: style sheet.
        script: URL of a module, relative to the page, that runs once after the page is built.
    """
    known = inspect.signature(gr.Blocks.__init__).parameters
    theme = _theme()
    run_script = f"() => {{ import(new URL({json.dumps(script)}, document.baseURI)); }}"
    if "js" in known:
        return gr.Blocks(theme=theme, title=title, css=css, js=run_script, fill_width=True, analytics_enabled=False)
    blocks = gr.Blocks(
        theme=theme, title=title, css=f"{css}\n.gradio-container {{ max-width: none !important; }}",
        analytics_enabled=False,
    )  # fmt: skip
    with blocks:
        blocks.load(None, _js=run_script)
    return blocks


def _theme() -> gr.themes.Default:
    """Gradio's default with a contrast of at least 4.5:1 for all text. Flat buttons, so that it can be measured."""
    red, theme = gr.themes.colors.red, gr.themes.Default(font=_FONTS, font_mono=_MONO)
    return theme.set(
        body_text_color_subdued="*neutral_500",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_200",
        button_primary_background_fill_hover="*primary_100",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_border_color_dark="*primary_700",
        button_primary_text_color="*primary_800",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="*neutral_200",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_700",
        button_secondary_background_fill_hover_dark="*neutral_600",
        button_cancel_background_fill=red.c100,
        button_cancel_background_fill_hover=red.c50,
        button_cancel_background_fill_dark=red.c700,
        button_cancel_background_fill_hover_dark=red.c800,
        button_cancel_text_color=red.c800,
        checkbox_label_background_fill="white",
        checkbox_label_background_fill_hover="*neutral_50",
        checkbox_label_background_fill_dark="*neutral_800",
        checkbox_label_background_fill_hover_dark="*neutral_700",
    )
