"""The same commands on a board over SSH: who the boards are, how they are reached, what is copied, what runs there."""
