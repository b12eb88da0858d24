"""The tabs: Gradio only. Each page has the file name of its topic in `core` and shows what that topic's Steps say."""
