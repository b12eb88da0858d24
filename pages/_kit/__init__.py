"""What all tabs share: the frame (page), live runs (live), charts, the player, links and the theme."""
