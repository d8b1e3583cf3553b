"""`aejax eval-codec`: every codec at hand on the same images, whole files counted.

contenders (encode, decode) -> measure (a row per image and setting) -> curves, BD-rate -> files
"""
