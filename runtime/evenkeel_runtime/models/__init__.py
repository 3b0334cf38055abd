"""What is this file, is it safe, and how does it become a callable? One module per format; `formats.py` picks."""
