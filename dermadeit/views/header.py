"""Name, purpose and disclaimer, shown above everything."""

from dermadeit.about import DISCLAIMER, VERSION


def header_html() -> str:
    """The header of every page."""
    return f"""
<header class="dd-header">
  <div class="dd-brand">
    <h1>DermaDeiT</h1>
    <span class="dd-version">version {VERSION}</span>
  </div>
  <p class="dd-purpose">Reads a photo of one skin lesion with a small vision transformer, and shows where in
  the photo its score comes from.</p>
  <p class="dd-disclaimer" role="note">{DISCLAIMER}</p>
</header>"""
