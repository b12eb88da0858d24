"""The least a Gradio app can be: what `startup` compares with."""

import gradio as gr

with gr.Blocks() as app:
    pass

if __name__ == "__main__":
    app.launch(ssr_mode=False, quiet=True)
