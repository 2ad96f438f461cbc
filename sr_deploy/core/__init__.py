"""What every other folder may import: errors, tolerances, artifacts, the I/O contract, images, quality, devices.

Runs on a board: numpy and opencv only, Python 3.8.
"""
