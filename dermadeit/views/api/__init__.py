"""The endpoints of the app."""
