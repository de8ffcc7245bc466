"""The browser app: one file a tab."""
