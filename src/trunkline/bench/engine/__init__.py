"""What moves the bytes that are measured."""
