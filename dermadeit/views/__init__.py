"""The web app: one file a tab, and the only modules that import gradio."""
