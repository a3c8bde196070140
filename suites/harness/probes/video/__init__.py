"""How good a video is: picture and sound, in numbers. Numpy and PyAV; free of torch.

Each module is one kind of damage and what shows it. `quality.quality_of` is all of them.
"""
