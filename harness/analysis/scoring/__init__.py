"""What was said, measured from the text alone: gold replies, language, form, and who speaks."""
