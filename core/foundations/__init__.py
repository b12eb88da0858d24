"""What three or more topics share. Each file is a noun; a topic imports from here, never from another topic."""
