"""How the embedded base is made from openly licensed artwork: `python -m worker.starter.build`."""
