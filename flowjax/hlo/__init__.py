"""What compiled programs do, read from their text: FLOPs, and bytes read and written."""
