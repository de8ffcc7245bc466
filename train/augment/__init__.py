"""What is done to the images of a batch before the student sees them."""
