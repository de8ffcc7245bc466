"""From the bytes of a photo to pixels and what can be measured on them."""
