"""Whom a student learns from: networks, what they say of the images, and what the student is held to."""
