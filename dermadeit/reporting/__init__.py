"""Numbers and figures for people: names, tables, drawings, reports."""
