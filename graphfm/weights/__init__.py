"""The pre-trained weights that come with the package; see MODEL_CARD.md beside this file."""
