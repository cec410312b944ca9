"""The report of a run: one HTML file that answers whether the student was worth it."""
