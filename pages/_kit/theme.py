"""The look: one theme, light and dark, without contrast violations, and the scripts and styles that go with it."""

from pathlib import Path
from typing import Any

import gradio as gr
import plotly

from pages._kit.bundle import MODULES, SCRIPT_BUNDLE, STYLE_BUNDLE, is_current
from pages._kit.bundle import STYLE as SOURCE

ASSETS = Path(__file__).parents[2] / "assets"
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"  # always matches the installed Python side
STYLE = STYLE_BUNDLE if is_current(STYLE_BUNDLE) else SOURCE


def theme() -> gr.themes.Base:
    """Gradio's default with fonts whose bold files are whole, and colours that pass WCAG A and AA."""
    fonts: list[Any] = [
        gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)),
        "ui-sans-serif",
        "system-ui",
        "sans-serif",
    ]
    mono: list[Any] = [gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"]
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
    """Script tags. A part of the page waits for `vizReady`, which main.js keeps. plotly.js is only named here; the
    browser fetches it when a chart first needs it.
    """
    scripts, first = [SCRIPT_BUNDLE], SCRIPT_BUNDLE
    if not is_current(SCRIPT_BUNDLE):
        scripts, first = MODULES, ASSETS / "js" / "main.js"
    gr.set_static_paths([*scripts, PLOTLY])
    ready = "vizReady=new Promise(done=>{vizLoaded=done});viz=(name,...of)=>vizReady.then(v=>v[name](...of))"
    preload = "".join(f'<link rel="modulepreload" href="gradio_api/file={path}">' for path in scripts)
    main = f'<script type="module" src="gradio_api/file={first}"></script>'
    return f'<script>window.plotlySource="gradio_api/file={PLOTLY}";{ready}</script>{preload}{main}'
