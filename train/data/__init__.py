"""Photos on their way to a data folder: layouts, archives, stored images, copies, splits."""
