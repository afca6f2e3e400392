"""Answers that are given again: what makes two requests the same, which answers may be kept, and where."""
