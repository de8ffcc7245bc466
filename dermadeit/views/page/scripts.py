"""The few lines that have to run in the browser."""

from __future__ import annotations

ANNOUNCE = "element.setAttribute('aria-live', 'polite'); element.setAttribute('role', 'status');"
"""Makes screen readers say what changes in an HTML component."""

SAVE_FILE = """(file) => {
  if (!file?.url) return;
  const link = document.createElement('a');
  link.href = file.url;
  link.download = (file.orig_name ?? file.path).split(/[\\\\/]/).pop();
  document.body.append(link);
  link.click();
  link.remove();
}"""
"""Saves a file that an event has just made."""
