"""Labelled images: manifests, tables, archives, and the one reader of them."""
