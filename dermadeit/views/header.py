"""Name, purpose and disclaimer, shown above everything."""

from dermadeit.about import DISCLAIMER, VERSION

# Nine patches of a picture, some of which matter more than others.
_PATCHES = (0.25, 0.5, 0.3, 0.55, 1.0, 0.75, 0.2, 0.8, 0.4)


def header_html(model_card: str) -> str:
    """The header of every page.

    Args:
        model_card: Key of the tab that shows the model card.
    """
    return f"""
<header class="dd-header">
  <div class="dd-brand">
    {_mark()}
    <h1>DermaDeiT</h1>
    <p class="dd-about">
      <a href="#{model_card}">Model card</a> <span class="dd-version">version {VERSION}</span>
    </p>
  </div>
  <p class="dd-purpose">Reads a photo of one skin lesion with a small vision transformer, shows where in the photo
  its score comes from, and says what speaks against it.</p>
  <p class="dd-disclaimer" role="note">{DISCLAIMER}</p>
</header>"""


def _mark() -> str:
    patches = "".join(
        f'<rect x="{index % 3 * 11}" y="{index // 3 * 11}" width="10" height="10" rx="2" opacity="{opacity}"/>'
        for index, opacity in enumerate(_PATCHES)
    )
    return f'<svg class="dd-mark" viewBox="0 0 32 32" aria-hidden="true">{patches}</svg>'
