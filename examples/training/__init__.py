"""A reference trainer: from folders of photos to weights that sr-export accepts."""
