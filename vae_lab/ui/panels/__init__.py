"""The gradio panels."""
