"""The few lines that have to run in the browser."""

from __future__ import annotations

from dermadeit.imaging.decode import MAX_BYTES
from dermadeit.views.page.uploads import MAX_UPLOAD_BYTES

ANNOUNCE = "element.setAttribute('aria-live', 'polite'); element.setAttribute('role', 'status');"
"""Makes screen readers say what changes in an HTML component."""

_REFUSE_OVERSIZED = f"""
{ANNOUNCE}
const limit = {MAX_UPLOAD_BYTES};
const check = (event, files) => {{
  if (!event.target.closest?.('#PHOTO')) return;
  const large = [...(files ?? [])].find((file) => file.size > limit);
  const note = document.createElement('div');
  if (large) {{
    event.preventDefault();
    event.stopImmediatePropagation();
    if ('value' in event.target) event.target.value = '';
    note.className = 'dd-failure';
    note.textContent = `“${{large.name}}” has ${{Math.round(large.size / 1e6)}} MB and was not sent. Photos ` +
      'of up to {MAX_BYTES // 1_000_000} MB are read: save it smaller, then choose it again. Any result here ' +
      'is still that of the photo before.';
  }}
  element.replaceChildren(...(large ? [note] : []));
}};
// Captured before Gradio sees them: its own refusal is a note that fades.
window.addEventListener('change', (event) => check(event, event.target.files), true);
window.addEventListener('drop', (event) => check(event, event.dataTransfer?.files), true);
"""

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


def refuse_oversized(photo_id: str) -> str:
    """JavaScript that refuses, with a message that stays, files that Gradio would not take.

    Args:
        photo_id: Id of the photo input that it watches.
    """
    return _REFUSE_OVERSIZED.replace("#PHOTO", f"#{photo_id}")
