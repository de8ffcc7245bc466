"""What all tabs share: theme, uploads, events, HTML."""
