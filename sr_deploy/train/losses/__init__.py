"""What training makes small, each loss by its name: pictures.py, features.py, and the table of all, table.py."""
