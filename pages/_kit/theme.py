"""The look: one theme, light and dark, without contrast violations, and the scripts and styles that go with it."""

from pathlib import Path

import gradio as gr
import plotly

ASSETS = Path(__file__).parents[2] / "assets"
SCRIPTS = [ASSETS / name for name in ("viz.js", "player.js", "frame.js")]
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"  # always matches the installed Python side
STYLE = ASSETS / "style.css"


def theme() -> gr.themes.Base:
    """Gradio's default with fonts whose bold files are whole, and colours that pass WCAG A and AA."""
    fonts = [gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"]
    mono = [gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"]
    return gr.themes.Default(primary_hue="blue", font=fonts, font_mono=mono).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        color_accent="*primary_600",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        link_text_color_dark="*primary_300",
        link_text_color_hover_dark="*primary_200",
        link_text_color_visited_dark="*primary_300",
        link_text_color_active_dark="*primary_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
    )


def head() -> str:
    """Script tags. plotly.js is only named here; the browser fetches it when a chart first needs it."""
    gr.set_static_paths([*SCRIPTS, PLOTLY])
    tags = "".join(f'<script src="gradio_api/file={path}"></script>' for path in SCRIPTS)
    return f'<script>window.plotlySource = "gradio_api/file={PLOTLY}";</script>' + tags
