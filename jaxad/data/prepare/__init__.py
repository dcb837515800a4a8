"""From the pixels of a file to an image of a data set."""
