"""Tab, accordion and stand-alone page. The only importer of gradio; it is handed a ``Host`` and never looks for one."""
