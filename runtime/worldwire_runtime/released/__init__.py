"""The released Matrix-Game 3.0 model as it is: its folder, its files' names and traps, its ways."""
