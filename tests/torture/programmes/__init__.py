"""One module for each programme; it ends in `PROGRAMME`. All modules here are found."""
