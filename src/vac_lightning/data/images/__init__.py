"""Image files: pixels, crops, and which of them cannot be read."""
