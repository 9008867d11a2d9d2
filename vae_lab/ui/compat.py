"""The differences between gradio 3 and 4, told by behaviour and never by version number: hosts patch both."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

__all__ = ["choice_update", "connect", "html_update", "image_input", "page", "uploaded"]

_FONTS = ["system-ui", "sans-serif"]
_MONO = ["ui-monospace", "monospace"]


def connect(
    event: Callable[..., Any],
    handler: Callable[..., Any],
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
) -> None:
    """Attach ``handler`` to a component's event.

    Without gradio's own progress display, which would cover the pictures, and without a name in the host's API.
    """
    event(handler, inputs=list(inputs), outputs=list(outputs), show_progress="hidden", api_name=False)


def choice_update(choices: Sequence[Any], value: Any, shown: Any) -> Any:
    """New choices for a Dropdown or CheckboxGroup, and a new value only if it is another one than ``shown``.

    A value that is sent back as it came would undo what the user has clicked meanwhile.
    """
    same = sorted(value) == sorted(shown or ()) if isinstance(value, list) else value == shown
    # ``gr.update``, because it is the only way that both versions understand.
    return gr.update(choices=list(choices)) if same else gr.update(choices=list(choices), value=value)


def html_update(text: str) -> Any:
    """New content for an HTML component, which vanishes when there is none."""
    return gr.update(value=text, visible=bool(text))


def image_input(**options: Any) -> gr.Image:
    """A field that a picture is dropped into, and that gives a PIL image with its alpha channel."""
    known = inspect.signature(gr.Image.__init__).parameters
    source = {"sources": ["upload", "clipboard"]} if "sources" in known else {"source": "upload"}
    return gr.Image(type="pil", image_mode="RGBA", interactive=True, **source, **options)


def uploaded(value: Any) -> str:
    """The path of a file that a File or UploadButton gives: gradio 3 wraps it, gradio 4 does not."""
    return value if isinstance(value, str) else str(value.name)


def page(title: str, css: str, script: str) -> gr.Blocks:
    """A page of our own, over the whole width, with our style and script, and with nothing fetched from elsewhere.

    Args:
        title: the browser tab's.
        css: style sheet.
        script: a classic script, run once when the page has been built.
    """
    known = inspect.signature(gr.Blocks.__init__).parameters
    theme = gr.themes.Default(font=_FONTS, font_mono=_MONO)
    run_script = f"() => {{ {script} }}"
    if "js" in known:
        return gr.Blocks(theme=theme, title=title, css=css, js=run_script, fill_width=True, analytics_enabled=False)
    blocks = gr.Blocks(
        theme=theme, title=title, css=f"{css}\n.gradio-container {{ max-width: none !important; }}",
        analytics_enabled=False,
    )  # fmt: skip
    with blocks:
        blocks.load(None, _js=run_script)
    return blocks
