"""What a reader sees of a study: parts of the document, plots, pictures, tables, words, live curves, the explorer."""
