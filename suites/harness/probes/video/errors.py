"""What a metric says where it has no number."""


class NotMeasured(Exception):
    """The video has nothing that the metric could be read from; the text is why. Never a number in its place."""
