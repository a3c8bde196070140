"""What a metric says where it has no number."""


class NotMeasured(Exception):
    """The film has nothing that the metric could be read from; the text is why. Never a number in its place."""
