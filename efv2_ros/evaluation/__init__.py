"""`efv2 evaluate`: accuracy over a folder of images whose classes are known."""
