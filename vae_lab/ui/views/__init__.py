"""HTML of the panels, without gradio."""
