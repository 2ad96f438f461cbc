"""How good an upscaled picture is."""
