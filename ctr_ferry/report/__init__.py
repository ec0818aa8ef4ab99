"""What one run did: outcomes, tables, progress and the record."""
