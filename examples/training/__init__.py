"""A reference trainer: from folders of photos to a network that sr-export takes as it is."""
