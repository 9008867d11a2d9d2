"""Tab, accordion and stand-alone page. The only package that imports gradio; it receives a ``Host``."""
