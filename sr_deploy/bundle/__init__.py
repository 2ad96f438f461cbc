"""The bundle: one file that carries a deployment to a board. Only numpy and the standard library; Python 3.8."""
